"""A script in a Python process of its own, which may fork, hang or abort."""

import os
import signal
import subprocess
import sys
import textwrap


def run_script(code: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Runs code; TimeoutExpired where it hangs, and then neither it nor its forks are left."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)

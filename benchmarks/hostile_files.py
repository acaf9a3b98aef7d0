"""Tests the command and the service on a folder of malformed files: `python -m benchmarks.hostile_files FOLDER`.

For each it prints how many files were captioned and refused, the time and the peak memory. Pillow's own test images
(Tests/images in its source distribution) are such a folder. Exits with 1 if there was anything but captions and
refusals, or more than a gigabyte of memory.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

MOST_BYTES = 10**9
CALLERS = 8
SECONDS = 120  # of a request


@dataclass(slots=True)
class Outcome:
    """What came of the files, each reason without its numbers, and the most bytes that were held."""

    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0
    most_bytes: int = 0

    def refuse(self, reason: str) -> None:
        """Counts a refusal."""
        self.counts["refused"] += 1
        self.reasons[re.sub(r"\d[\d,.]*", "N", reason)] += 1


def by_command(files: Sequence[Path], options: Sequence[str]) -> Outcome:
    """Captions the files with `python -m engine caption`, one process for all."""
    outcome, began = Outcome(), time.perf_counter()
    command = [sys.executable, "-m", "engine", "caption", "--json", "-", *options]
    listed = "\n".join(map(str, files))
    done = subprocess.run(command, input=listed, capture_output=True, text=True, errors="surrogateescape", check=False)
    outcome.seconds = time.perf_counter() - began
    outcome.most_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # this is the first child
    for line in map(json.loads, done.stdout.splitlines()):
        if "error" in line:
            outcome.refuse(line["error"])
        else:
            outcome.counts["captioned"] += 1
    if done.returncode not in (0, 1) or outcome.counts.total() != len(files):
        outcome.failures.append(f"exit code {done.returncode}: {done.stderr[-500:]}")
    return outcome


def by_service(files: Sequence[Path], options: Sequence[str]) -> Outcome:
    """Sends each file to `python -m serving.http`, several at once."""
    command = [sys.executable, "-m", "serving.http", "--port", "0", *options]
    outcome = Outcome()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        port = next(told["port"] for told in map(json.loads, service.stderr) if told["event"] == "listening")
        with ThreadPoolExecutor(CALLERS + 1) as pool:
            pool.submit(service.stderr.read)  # else it would fill up
            while _status(port, "/readyz") != 200:
                time.sleep(0.1)
            began = time.perf_counter()
            for file, (status, text) in zip(files, pool.map(lambda file: _post(port, file), files), strict=True):
                if status == 200:
                    outcome.counts["captioned"] += 1
                elif status in (413, 422):
                    outcome.refuse(text)
                else:
                    outcome.failures.append(f"{file}: {status} {text}")
            outcome.seconds = time.perf_counter() - began
            held = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{service.pid}/status").read_text())
            outcome.most_bytes = int(held[1]) * 1024 if held else 0
            service.terminate()
    return outcome


def _status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def _post(port: int, file: Path) -> tuple[int, str]:
    headers = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/captions", file.read_bytes(), headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return int(answer.status), str(json.loads(answer.read()))
    except urllib.error.HTTPError as error:
        return error.code, str(json.loads(error.read())["detail"])
    except (OSError, ValueError) as error:
        return 0, f"{type(error).__name__}: {error}"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints both outcomes and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reasons", action="store_true", help="print why files were refused, the most frequent first")
    arguments, options = parser.parse_known_args(argv)
    files = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    good = True
    for name, measure in (("command", by_command), ("service", by_service)):
        outcome = measure(files, options)
        counted = ", ".join(f"{count:,} {what}" for what, count in sorted(outcome.counts.items()))
        held = f"{outcome.most_bytes / 1e6:,.0f} MB at the peak"
        print(
            f"{name}: {len(files):,} files, {counted}, {outcome.seconds:.0f} s, {held}", *outcome.failures, sep="\n  "
        )
        if arguments.reasons:
            print(*(f"{count:6,} {reason}" for reason, count in outcome.reasons.most_common()), sep="\n")
        good = good and not outcome.failures and outcome.most_bytes <= MOST_BYTES
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

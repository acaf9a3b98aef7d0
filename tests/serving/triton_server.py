"""A real Triton server on this machine's processor, started as docs/triton.md tells, and questions to it.

The environment it runs in is the one of TRITON_PYTHON, the path of an interpreter, or else the tests' own.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "triton.md").read_text(encoding="utf-8")
PATIENCE = 120.0  # seconds until a test gives up
LOOK = """
import importlib.metadata, json, sys
found = {"prefix": sys.prefix}
for name in ("numpy", "nvidia-pytriton"):
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = ""
print(json.dumps(found))
"""


def environment() -> Path:
    """Returns the folder of the server's Python environment. Skips, and says why, where no server can run in it."""
    python = os.environ.get("TRITON_PYTHON", sys.executable)
    found = json.loads(subprocess.run([python, "-c", LOOK], capture_output=True, text=True, check=True).stdout)
    if not found["nvidia-pytriton"]:
        pytest.skip(f"nvidia-pytriton, which carries a Triton server, is not installed for {python} (TRITON_PYTHON)")
    if not found["numpy"].startswith("1."):
        pytest.skip(
            f"nvidia-pytriton's Triton server knows NumPy 1 only, and {python} has {found['numpy']}: "
            "name the interpreter of another environment in TRITON_PYTHON"
        )
    return Path(found["prefix"])


def shell(heading: str, holding: str) -> str:
    """Returns the page's block of commands under a heading that holds a text."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    (block,) = [each for each in re.findall(r"```bash\n(.*?)```", section, re.DOTALL) if holding in each]
    return str(block).rstrip()


@dataclass(frozen=True)
class Server:
    """A server that runs, and where."""

    process: "subprocess.Popen[bytes]"
    repository: Path
    log: Path
    ports: dict[str, int] = field(default_factory=dict)

    def address(self, protocol: str) -> str:
        return f"127.0.0.1:{self.ports[protocol]}"

    def lines(self) -> list[str]:
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()


def protocol(name: str) -> Any:
    """Returns tritonclient.http or tritonclient.grpc."""
    return pytest.importorskip(f"tritonclient.{name}", reason="tritonclient[http,grpc] is not installed")


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """Runs the page's commands in a folder that holds `repository`, until the server is ready, and ends it after."""
    (folder / "triton-env").symlink_to(environment())
    client = protocol("http")
    with ExitStack() as held:
        ports = {}
        for name in ("http", "grpc"):  # bound here too, so that nobody else gets them meanwhile
            place = held.enter_context(socket.socket())
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            place.bind(("127.0.0.1", 0))
            ports[name] = place.getsockname()[1]
        flags = " ".join(f"--{name}-port {port}" for name, port in ports.items())
        flags += " --http-address 127.0.0.1 --grpc-address 127.0.0.1 --reuse-http-port 1 --reuse-grpc-port 1"
        flags += " --allow-metrics 0 --exit-timeout-secs 20 --log-verbose 1 --disable-auto-complete-config"
        command = f"set -eu\n{shell('Without a container', 'tritonserver')} {flags}"
        command = command.replace("\nPATH=", "\nexec env PATH=")  # so that this process is the server
        log = held.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        server = Server(process, folder / "repository", folder / "log", ports)
        try:
            with client.InferenceServerClient(server.address("http")) as asked:
                _until_ready(asked, server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _until_ready(client: Any, server: Server) -> None:
    end = time.monotonic() + PATIENCE
    while server.process.poll() is None and time.monotonic() < end:
        try:
            if client.is_server_ready():
                return
        except OSError:
            pass
        time.sleep(0.05)  # the server has no event to wait for
    pytest.fail("the server did not start:\n" + "\n".join(server.lines()[-30:]))


def image_input(name: str, images: Sequence[bytes]) -> Any:
    """Returns a request's input, for a client of a protocol."""
    image = protocol(name).InferInput("image", [len(images), 1], "BYTES")
    image.set_data_from_numpy(np.array([[each] for each in images], np.object_))
    return image

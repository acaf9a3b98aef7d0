"""Measures the HTTP service under load, compared with a one-at-a-time server: `python -m benchmarks.http_load`.

Starts each server, lets locust call it with increasing numbers of callers, and prints requests a second and latencies.
The servers alternate, so that a slowdown of the machine affects both. The callers run on the same cores as the servers.
"""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine.commands.parser import Parser, whole

ROOT = Path(__file__).parents[1]
SERVERS = {
    "serving.http": ["-m", "serving.http", "--provider", "cpu", "--port"],
    "one at a time": ["-m", "benchmarks.load.one_at_a_time"],
}
CALLERS = (1, 4, 16, 64)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns 1 if any request failed."""
    parser = Parser(prog="python -m benchmarks.http_load", description=__doc__)
    parser.add_argument("--callers", type=whole(1), nargs="+", default=CALLERS, metavar="N")
    parser.add_argument("--seconds", type=whole(1), default=20, help="length of each measurement")
    parser.add_argument(
        "--turns", type=whole(1), default=3, help="measurements of each point; the median rate is shown"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for all measurements")
    arguments = parser.parse_args(argv)
    points = []
    for turn in range(arguments.turns):
        for name in SERVERS:
            with running(name) as url:
                for callers in arguments.callers:
                    points.append({"server": name, "callers": callers, **measure(url, callers, arguments.seconds)})
                    print(f"turn {turn + 1}: {points[-1]}", file=sys.stderr, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(points, indent=1) + "\n", encoding="utf-8")
    print(table(points))
    return 1 if any(point["failures"] for point in points) else 0


@contextmanager
def running(name: str) -> Iterator[str]:
    """Runs a server on a free port until it is left; gives its address once it is warmed up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([sys.executable, *SERVERS[name], str(port)], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not _ready(url):
            time.sleep(0.1)
        if process.returncode is not None:
            raise RuntimeError(f"{name} ended before it was ready: run `python {' '.join(SERVERS[name])} {port}`")
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _ready(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def measure(url: str, callers: int, seconds: int) -> dict[str, Any]:
    """Lets locust call a server; returns requests a second, milliseconds (p50, p99) and failures."""
    load = ["-f", "benchmarks/load/locustfile.py", "--headless", "--json", "--only-summary", "--host", url]
    size = ["-u", str(callers), "-r", str(callers), "-t", f"{seconds}s", "--stop-timeout", "30"]
    command = [sys.executable, "-m", "locust", *load, *size]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise RuntimeError(f"locust measured nothing: {done.stderr[-2000:]}")
    entries = json.loads(done.stdout)
    times: dict[float, int] = {}
    for entry in entries:
        for milliseconds, count in entry["response_times"].items():
            times[float(milliseconds)] = times.get(float(milliseconds), 0) + count
    first = min(entry["start_time"] for entry in entries)
    last = max(entry["last_request_timestamp"] for entry in entries)
    count = sum(entry["num_requests"] for entry in entries)
    failures = sum(entry["num_failures"] for entry in entries)
    return {
        "rate": count / max(last - first, seconds),
        "p50": share(times, 0.5),
        "p99": share(times, 0.99),
        "failures": failures,
    }


def share(times: dict[float, int], part: float) -> float:
    """Returns the time within which a part of all requests was answered."""
    wanted, seen = part * sum(times.values()), 0
    for milliseconds in sorted(times):
        seen += times[milliseconds]
        if seen >= wanted:
            return milliseconds
    return 0.0


def table(points: Sequence[dict[str, Any]]) -> str:
    """Returns the medians as a Markdown table, a row for each number of callers."""
    lines = ["| callers | server | requests/s | p50 ms | p99 ms | failures |", "|---|---|---|---|---|---|"]
    for callers in sorted({point["callers"] for point in points}):
        for name in SERVERS:
            same = [point for point in points if (point["server"], point["callers"]) == (name, callers)]
            shown = sorted(same, key=lambda point: point["rate"])[len(same) // 2]
            figures = f"{shown['rate']:.1f} | {shown['p50']:.0f} | {shown['p99']:.0f}"
            lines.append(f"| {callers} | {name} | {figures} | {sum(point['failures'] for point in same)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

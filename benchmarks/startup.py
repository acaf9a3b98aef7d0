"""Measures the time from start-up to the first caption: `python -m benchmarks.startup`.

Every run is a new process with warm disk caches. In each round one process does what a user would do, and others only
import: the engine, and what it requires, as a lower limit. `python -X importtime -c "import engine"` shows the modules.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.photographs import photographs
from engine.commands.parser import Parser, whole

FLOOR = "import numpy, PIL.Image"
IMPORT = "import engine"
CAPTION = "first caption"
BUDGETS = {IMPORT: 0.25, CAPTION: 1.5}
"""Seconds on 2 cores, the interpreter's own start included."""
ALONE = {"the interpreter": "pass", FLOOR: FLOOR, f"{FLOOR}, onnxruntime": f"{FLOOR}, onnxruntime", IMPORT: IMPORT}
USER = """
from engine import Captioner, Greedy
with open({photograph!r}, "rb") as file:
    print(Captioner({bundle!r}).caption([file.read()], Greedy())[0].text)
"""


def fresh(code: str, compiled: Path) -> float:
    """Runs code in a new interpreter; returns its seconds from start to end.

    compiled: a folder for compiled modules, such as an installed package has, whatever the environment says.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(compiled)
    command = [sys.executable, "-c", code]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"a process to be timed failed: {done.stderr}")
    return seconds


def measure(rounds: int, bundle: Path | None = None) -> dict[str, float]:
    """Returns the median seconds of processes: those of ALONE, and CAPTION."""
    with tempfile.TemporaryDirectory() as folder:
        compiled, photograph = Path(folder) / "compiled", Path(folder) / "photograph.jpg"
        photograph.write_bytes(photographs(1)[0])
        user = USER.format(bundle=None if bundle is None else str(bundle.resolve()), photograph=str(photograph))
        programs = ALONE | {CAPTION: user}
        fresh(user, compiled)  # reads the files from the disk, and compiles
        turns = [{name: fresh(code, compiled) for name, code in programs.items()} for _ in range(rounds)]
    return {name: statistics.median(turn[name] for turn in turns) for name in programs}


def table(times: Mapping[str, float]) -> str:
    """Returns the medians as a Markdown table."""
    lines = ["| a process that does | ms | limit |", "|---|---|---|"]
    for name, seconds in times.items():
        limit = f"{1000 * BUDGETS[name]:.0f} ms" if name in BUDGETS else ""
        lines.append(f"| {name} | {1000 * seconds:.0f} | {limit} |")
    return "\n".join(lines)


def over_budget(times: Mapping[str, float]) -> list[str]:
    """Returns a sentence for each limit that is exceeded."""
    return [
        f"{name} takes {times[name]:.2f} s, but the limit is {most} s"
        for name, most in BUDGETS.items()
        if times[name] > most
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 when a limit is exceeded."""
    parser = Parser(prog="python -m benchmarks.startup", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="the bundle to run (default: the one that ships)")
    parser.add_argument("--rounds", type=whole(1), default=11, help="processes of each kind (default: 11)")
    options = parser.parse_args(arguments)
    times = measure(options.rounds, options.bundle)
    faults = over_budget(times)
    print(table(times), *faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())

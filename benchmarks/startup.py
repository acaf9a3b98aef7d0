"""Measures the time from start-up to the first caption, part by part: `python -m benchmarks.startup`.

Every run is a new process with warm disk caches. In each round one process does what a user would do, another does the
same in parts, and a third only imports what the engine requires, as a lower limit.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.photographs import photographs

FLOOR = "import numpy, PIL.Image"
IMPORT = "import engine"
CAPTION = "first caption"
BUDGETS = {IMPORT: 0.25, CAPTION: 1.5}
"""Seconds on 2 cores, the interpreter's own start included."""
ALONE = {"the interpreter": "pass", FLOOR: FLOOR, f"{FLOOR}, onnxruntime": f"{FLOOR}, onnxruntime", IMPORT: IMPORT}
USER = """
from engine import Captioner, Greedy
with open(photograph, "rb") as file:
    print(Captioner(bundle).caption([file.read()], Greedy())[0].text)
"""
# each part ends with a mark; preparation that is not measured comes before the part
PARTS = """
import hashlib
mark()
import numpy
mark("numpy")
import PIL.Image
mark("Pillow")
import engine
from engine.bundle.bundle import Bundle
mark("engine's own modules")
import onnxruntime
mark("onnxruntime")
loaded = Bundle.load(bundle)
mark("bundle: read, check, SHA-256")
names = {graph.file for graph in loaded.manifest.graphs} | set(loaded.manifest.data_sha256)
files = [(loaded.path / name).read_bytes() for name in names]
mark()
for file in files:
    hashlib.sha256(file).digest()
mark("of which SHA-256")
with open(photograph, "rb") as file:
    image = file.read()
mark()
captioner = engine.Captioner(bundle)
mark("Captioner(): the bundle again, the encoder's session")
captioner.caption([image], engine.Greedy())
mark("first caption: other sessions, first runs")
captioner.caption([image], engine.Greedy())
mark("second caption, for comparison")
"""
HEAD = """
import json, time
bundle, photograph, marks = {bundle!r}, {photograph!r}, {{}}
last = time.perf_counter()
def mark(name=None):
    global last
    if name:
        marks[name] = time.perf_counter() - last
    last = time.perf_counter()
"""


def fresh(code: str, compiled: Path | None = None) -> tuple[float, str]:
    """Runs code in a new interpreter; returns its seconds from start to end, and what it printed.

    compiled: a folder for compiled modules, such as an installed package has, whatever the environment says.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if compiled is not None:
        environment["PYTHONPYCACHEPREFIX"] = str(compiled)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"a process to be timed failed: {done.stderr}")
    return seconds, done.stdout


def measure(rounds: int, bundle: Path | None = None) -> dict[str, float]:
    """Returns the median seconds of each part, and of whole processes: those of ALONE, and CAPTION."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        compiled, photograph = Path(folder) / "compiled", Path(folder) / "photograph.jpg"
        photograph.write_bytes(photographs(1)[0])
        head = HEAD.format(bundle=None if bundle is None else str(bundle.resolve()), photograph=str(photograph))
        parts = f"{head}{PARTS}print(json.dumps(marks))"
        for code in (IMPORT, head + USER, parts):
            fresh(code, compiled)  # reads the files from the disk, and compiles
        for _ in range(rounds):
            for name, code in ALONE.items():
                times.setdefault(name, []).append(fresh(code, compiled)[0])
            times.setdefault(CAPTION, []).append(fresh(head + USER, compiled)[0])
            for name, seconds in json.loads(fresh(parts, compiled)[1]).items():
                times.setdefault(name, []).append(seconds)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def table(times: Mapping[str, float]) -> str:
    """Returns the medians as two Markdown tables: whole processes, then parts."""
    whole = [*ALONE, CAPTION]
    lines = ["| a process that does | ms | budget |", "|---|---|---|"]
    for name in whole:
        budget = f"{1000 * BUDGETS[name]:.0f} ms" if name in BUDGETS else ""
        lines.append(f"| {name} | {1000 * times[name]:.0f} | {budget} |")
    lines += ["", "| part | ms |", "|---|---|"]
    lines += [f"| {name} | {1000 * seconds:.1f} |" for name, seconds in times.items() if name not in whole]
    return "\n".join(lines)


def over_budget(times: Mapping[str, float]) -> list[str]:
    """Returns a sentence for each budget that is exceeded."""
    return [
        f"{name} takes {times[name]:.2f} s, but the limit is {most} s"
        for name, most in BUDGETS.items()
        if times[name] > most
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 when a budget is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="the bundle to run (default: the one that ships)")
    parser.add_argument("--rounds", type=int, default=11, help="processes of each kind (default: 11)")
    parser.add_argument("--json", type=Path, help="also write the medians, in seconds, to this file")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    times = measure(options.rounds, options.bundle)
    print(table(times))
    if options.json:
        options.json.write_text(json.dumps(times, indent=2) + "\n", encoding="utf-8")
    faults = over_budget(times)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())

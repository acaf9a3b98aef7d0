"""Compares the engine on a GPU with PyTorch, in one table: `python -m benchmarks.gpu --output FOLDER`.

Each competitor runs in a separate process, so one that crashes, hangs or is missing is just a line in the table.
Results are checked before timing; wrong ones get no figures. Figures are from uint8 pixels on the host to features
(encoder) or sentences, including copies but not JPEG decoding.
"""

import argparse
import datetime
import json
import pickle
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from benchmarks.gpu.checks import CHECKED, Task, reference
from benchmarks.gpu.competitors import Kind, kinds
from benchmarks.gpu.processes import WORKER, Facts, Run, in_own_process
from benchmarks.gpu.timing import WORKLOADS, check_and_time, matrix_rate
from benchmarks.photographs import photographs
from engine.bundle.bundle import Bundle
from engine.commands.parser import Parser, number
from engine.images.load import load_for_model
from engine.runtime.cuda.nvidia import driver_version, gpu_name, load_tensorrt

BATCHES = (1, 8, 32, 128, 256)
PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-ep-nv-tensorrt-rtx-cu13", "torch", "numpy")
PIXELS = 64  # different images; a larger batch holds them more than once
LEAST_SECONDS = 20  # in which a competitor can say anything at all


@dataclass(slots=True)
class Line:
    """A competitor of the table: milliseconds by (batch, work), what the check found, and why figures are missing."""

    competitor: str
    precision: str
    ms: dict[tuple[int, str], float] = field(default_factory=dict)
    check: Facts = field(default_factory=dict)
    seconds_to_start: float | None = None
    fault: str | None = None


def measure(
    competitors: dict[str, Kind], task: Task, run: Run, minutes: float, clock: Callable[[], float]
) -> Iterator[Line]:
    """Yields a line for each competitor as it is done; competitors that the budget leaves no time for are lines too."""
    end = clock() + 60 * minutes
    for name, kind in competitors.items():
        line = Line(name, kind.precision)
        left = end - clock()
        if left < LEAST_SECONDS:
            line.fault = f"skipped: the {minutes:g} minutes are over"
        else:
            for facts in run(name, task, left):
                _add(line, facts)
        yield line


def _add(line: Line, facts: Facts) -> None:
    if "check" in facts:
        line.check, line.seconds_to_start = facts["check"], facts["seconds_to_start"]
        line.fault = f"wrong: {fault}" if (fault := facts["check"]["fault"]) else None
    elif "ms" in facts:
        line.ms[facts["batch"], facts["work"]] = facts["ms"]
    else:
        line.fault = line.fault or facts["fault"]


def table(lines: Iterable[Line], batches: Sequence[int], operations: float, rates: dict[str, float]) -> list[str]:
    """Returns the lines of a Markdown table: images a second by work, and the encoder's share of the matrix rate.

    operations: of the encoder for one image; rates: operations a second that the device reaches, by precision.
    """
    rows = [
        "| side | batch | " + " | ".join(f"{work}, images/s" for work in WORKLOADS) + " | encoder's share of the peak |"
    ]
    rows.append("|---|---|" + "---|" * (len(WORKLOADS) + 1))
    for line in lines:
        for batch in batches:
            found = [line.ms.get((batch, work)) for work in WORKLOADS]
            if any(ms is not None for ms in found):
                cells = ["" if ms is None else f"{1e3 * batch / ms:.0f}" for ms in found]
                rate = rates.get("fp32" if line.precision == "fp32" else "fp16")
                encoder, share = found[0], ""
                if encoder and rate and operations:
                    share = f"{operations * batch / (encoder / 1e3) / rate:.1%}"
                rows.append(f"| {line.competitor} | {batch} | {' | '.join(cells)} | {share} |")
        if line.fault:
            rows.append(f"| {line.competitor} | | {line.fault.replace('|', '/')} |" + " |" * len(WORKLOADS))
    return rows


def _task(bundle: Bundle, batches: tuple[int, ...], seconds: float) -> Task:
    files = photographs(max(CHECKED, min(PIXELS, max(batches))))
    pixels = np.stack([load_for_model(file, bundle.manifest.image) for file in files])
    task = Task(bundle.path.absolute(), pixels, batches, seconds)
    wanted = reference(task)
    return replace(task, features=np.array(wanted["features"], np.float32), captions=tuple(wanted["captions"]))


def _rates(device: str) -> dict[str, float]:
    """Returns the matrix rates, none where PyTorch is not here or cannot: the rest is worth measuring all the same."""
    try:
        return matrix_rate(device)
    except (ImportError, RuntimeError, AssertionError) as error:  # a PyTorch without CUDA asserts
        print(f"the matrix rate was not measured: {error}", file=sys.stderr)
        return {}


def _operations(bundle: Bundle) -> float:
    """Returns the encoder's operations for one image, 0 where onnx is not here to count them."""
    try:
        from benchmarks.gpu.operations import operations
    except ImportError as error:
        print(f"the encoder's operations were not counted: {error}", file=sys.stderr)
        return 0
    return operations(bundle.path / bundle.graph("encoder").file, {"batch": 1})


def _machine(device: str) -> Facts:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    gpu = gpu_name(0) if device != "cpu" else None
    driver = {"cuda of the driver": driver_version(), "tensorrt": load_tensorrt()} if gpu else {}
    return {"device": gpu or platform.processor() or platform.machine(), "versions": versions | driver}


def main(arguments: Sequence[str] | None = None, run: Run | None = None) -> int:
    """Runs the command line. 0: all that ran is right; 1: a competitor is wrong; 2: there is no GPU, or wrong usage."""
    parser = Parser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="the bundle to measure (default: the one that ships)")
    parser.add_argument("--minutes", type=number(0, above=True), default=25, help="most minutes to take (default: 25)")
    parser.add_argument("--output", type=Path, default=Path(), metavar="FOLDER", help="folder for the JSON file")
    parser.add_argument(
        "--side", nargs="+", metavar="NAME", help="measure only competitors with these parts in their names"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu is only for testing the command")
    parser.add_argument("--quick", action="store_true", help="batches of 1 and 2, and short")
    parser.add_argument(
        "--path",
        type=_part,
        action="append",
        default=[],
        metavar="PART=FOLDER",
        help="packages for what has PART in its name, such as tensorrt-rtx=FOLDER, which takes plain onnxruntime",
    )
    parser.add_argument(WORKER, metavar="SIDE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        for facts in check_and_time(kinds(options.device)[options.worker], pickle.load(sys.stdin.buffer)):
            print(json.dumps(facts), flush=True)
        return 0
    if options.device == "cuda" and gpu_name(0) is None:
        print(
            "no NVIDIA GPU was found, so there is nothing to measure (--device cpu only tests the command)",
            file=sys.stderr,
        )
        return 2
    competitors = {
        name: kind
        for name, kind in kinds(options.device).items()
        if not options.side or any(part in name for part in options.side)
    }
    if not competitors:
        parser.error(f"--side {' '.join(options.side)} is in no name: choose from {', '.join(kinds(options.device))}")
    bundle, batches = Bundle.load(options.bundle), (1, 2) if options.quick else BATCHES
    task = _task(bundle, batches, 0.01 if options.quick else 0.5)
    machine, rates, operations = _machine(options.device), _rates(options.device), _operations(bundle)
    print(f"{machine['device']}; {', '.join(f'{name} {version}' for name, version in machine['versions'].items())}")
    peaks = ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in rates.items()) or "not measured"
    print(f"a large matrix product: {peaks}")
    lines = []
    for line in measure(
        competitors, task, run or in_own_process(options.device, dict(options.path)), options.minutes, time.monotonic
    ):
        lines.append(line)
        print(f"{line.competitor}: {line.fault or 'done'}", file=sys.stderr, flush=True)
    print("\n".join(table(lines, batches, operations, rates)))
    date = datetime.date.today().isoformat()
    path = options.output / f"gpu-{re.sub(r'[^a-z0-9]+', '-', machine['device'].lower()).strip('-')}-{date}.json"
    record = {
        **machine,
        "date": date,
        "bundle": bundle.manifest.name,
        "matrix_rate": rates,
        "encoder_operations": operations,
        "lines": [_record(line) for line in lines],
    }
    options.output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}", file=sys.stderr)
    return int(any((line.fault or "").startswith("wrong") for line in lines))


def _part(text: str) -> tuple[str, str]:
    part, equals, folder = text.partition("=")
    if not (part and equals and folder):
        raise argparse.ArgumentTypeError(f"must be PART=FOLDER, but it is {text!r}")
    return part, folder


def _record(line: Line) -> Facts:
    figures = [{"batch": batch, "work": work, "ms": ms} for (batch, work), ms in line.ms.items()]
    return {
        "side": line.competitor,
        "precision": line.precision,
        "check": line.check,
        "seconds_to_start": line.seconds_to_start,
        "fault": line.fault,
        "figures": figures,
    }


if __name__ == "__main__":
    raise SystemExit(main())

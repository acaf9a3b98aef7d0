"""Measures how bulk captioning scales with machines: `python -m benchmarks.ray_scaling [--images N] [--json FILE]`.

Machines are nodes of a real Ray cluster on this one, with one core each, up to the number of cores. For comparison it
runs the engine alone, in this process with as many threads, and Ray Data with workers that do nothing, which gives the
rate at which one driver can assign parts to any number of machines.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from benchmarks.photographs import photographs
from engine import Beam, Captioner, RuntimeOptions
from serving.ray_output import Output
from serving.ray_parts import Folder, Part
from serving.ray_pool import captioned
from serving.ray_worker import Job, Worker

DIFFERENT = 64  # photographs, each many times in the folder
PART = 64  # images
STARTS = 300  # seconds
SMALL = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
HANDED_OUT = 1000  # parts that workers do nothing with
SETTINGS = {
    "RAY_enable_worker_prestart": "0",  # processes that nobody asked for cost seconds of the cores that are measured
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0",  # 15 is Ray's default: whatever else runs here would then come first
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def local_cluster(nodes: int, cpus: int) -> Iterator[Any]:
    """Gives a Ray cluster with nodes of some CPUs each on this machine, to nobody connected; then ends all of it."""
    from ray.cluster_utils import Cluster

    before = {name: os.environ.get(name) for name in SETTINGS}
    os.environ.update(SETTINGS)
    cluster = Cluster()
    try:
        for _ in range(nodes):
            with _patience():
                cluster.add_node(num_cpus=cpus, object_store_memory=100 * 2**20, **SMALL)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _patience() -> Iterator[None]:
    """Lets a node take minutes to start: Ray gives it 30 seconds, which is not enough where others work too."""
    from ray._private import services

    ask: Any = services.get_node

    def ask_again(*arguments: Any, **named: Any) -> Any:
        end = time.monotonic() + STARTS
        while True:
            try:
                return ask(*arguments, **named)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    services.get_node = ask_again
    try:
        yield
    finally:
        services.get_node = ask


class Idle(Worker):
    """Takes parts and does nothing."""

    def __init__(self, job: Job) -> None:
        pass

    def caption(self, part: Part) -> tuple[int, int]:
        """Returns at once."""
        return len(part), 0


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table, and writes JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_scaling", description=__doc__)
    parser.add_argument("--images", type=int, default=1600, help="images per run (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=os.cpu_count(), help="most nodes (default: one per core)")
    parser.add_argument("--json", metavar="FILE", help="file for the figures")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photographs"
        _write(folder, arguments.images)
        runs = []
        for count in range(1, arguments.nodes + 1):
            run = {"nodes": count, "engine alone": _alone(folder, count), **_on_nodes(folder, count)}
            runs.append(run)
            print(run, file=sys.stderr)
        handed_out = _hand_out()
    facts = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "ray": ray.__version__,
        "images": arguments.images,
        "work": "JPEG 640 x 480, int8, beam 3",
        "runs": runs,
        "parts handed out a second": handed_out,
    }
    print("\n".join(_table(runs)))
    print(f"{handed_out:.0f} parts a second are handed out by one driver to workers that do nothing")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 0


def _write(folder: Path, count: int) -> None:
    folder.mkdir()
    files = photographs(DIFFERENT)
    for i in range(count):
        (folder / f"{i:06}.jpg").write_bytes(files[i % DIFFERENT])


def _alone(folder: Path, threads: int) -> float:
    """Returns the images a second of the engine alone, in this process."""
    captioner = Captioner(provider="cpu", precision="int8", runtime=RuntimeOptions(threads=threads))
    captioner.warmup()
    paths = sorted(folder.iterdir())
    began = time.perf_counter()
    captions = sum(1 for _ in captioner.iter_captions(paths, Beam(beam_size=3)))
    return captions / (time.perf_counter() - began)


def _on_nodes(folder: Path, nodes: int) -> dict[str, float]:
    """Returns seconds to the first part and images a second from then on, on so many nodes of one core."""
    output = Output(str(folder.parent / "captions"), "parquet")
    output.begin({})
    with local_cluster(nodes, 1) as cluster:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=40)
        began = time.time()
        parts = Folder.find(str(folder)).parts(PART)
        done = list(captioned(_job(folder, output), parts, {"num_cpus": 1, "num_gpus": 0}, nodes))
        ended = time.time()
    assert sum(images for images, _ in done) == sum(map(len, parts)), "every image is captioned"
    written = sorted(file.stat().st_mtime for file in Path(output.place).glob("part-*"))
    assert len(written) == len(parts), "every part is written"
    shutil.rmtree(output.place)
    first = written[nodes - 1]  # all are at work
    rate = PART * (len(parts) - nodes) / (written[-1] - first)
    return {"first part": written[0] - began, "images a second": rate, "whole run": ended - began}


def _hand_out() -> float:
    """Returns how many parts a second one driver gives to workers on one core that do nothing."""
    parts = [Part(f"part-{i}", table="x", stop=1) for i in range(HANDED_OUT)]
    with local_cluster(1, 1) as cluster:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=40)
        results = captioned(_job(Path(), Output("", "parquet")), parts, {"num_cpus": 1, "num_gpus": 0}, 1, Idle)
        times = [time.perf_counter() for _ in results]
    return (len(times) - 1) / (times[-1] - times[0])


def _job(folder: Path, output: Output) -> Job:
    return Job(
        input=str(folder),
        output=output,
        column=None,
        keep=(),
        decoding=Beam(beam_size=3),
        bundle=None,
        provider="cpu",
        precision="int8",
        batch_size=32,
        threads=1,
        max_pixels=None,
    )


def _table(runs: Sequence[dict[str, float]]) -> list[str]:
    lines = [
        "| nodes of a core | images a second | over one | engine alone, as many threads | over that | first part |",
        "|---|---|---|---|---|---|",
    ]
    for run in runs:
        rate, alone = run["images a second"], run["engine alone"]
        ratios = f"{rate / runs[0]['images a second']:.2f}x | {alone:.1f} | {rate / alone:.2f}x"
        lines.append(f"| {run['nodes']:.0f} | {rate:.1f} | {ratios} | {run['first part']:.0f} s |")
    return lines


if __name__ == "__main__":
    sys.exit(main())

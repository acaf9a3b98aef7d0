"""Measures the memory of processes with captioners: python examples/memory_per_process.py --help.

Linux only: reads /proc. RSS counts a shared page in every process that has it, PSS divides it among them, so that the
PSS of all processes adds up to what they take together.
"""

import argparse
import importlib
import multiprocessing
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from engine import Captioner, RuntimeOptions


def memory() -> tuple[float, float]:
    """Returns this process's RSS and PSS in MB."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return kilobytes["Rss"] / 1024, kilobytes["Pss"] / 1024


def work(options: argparse.Namespace, stage: Barrier, found: "Queue[tuple[float, float]]") -> None:
    """Opens and warms up the captioners of one process, and measures it while all processes are open."""
    runtime = RuntimeOptions(threads=options.threads)
    captioners = [
        Captioner(options.bundle, precision=options.precision, runtime=runtime) for _ in range(options.captioners)
    ]
    for captioner in captioners:
        captioner.warmup()
    stage.wait()
    held = memory()
    stage.wait()
    found.put(held)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measures the memory of processes with captioners.")
    parser.add_argument("--bundle", help="default: the one that ships")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--captioners", type=int, default=1, help="in each process")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--threads", type=int, default=0, help="of a captioner; 0: one for each core")
    parser.add_argument("--start", choices=("spawn", "fork"), default="spawn", help="fork: after the imports")
    options = parser.parse_args()
    if options.start == "fork":
        importlib.import_module("onnxruntime")  # its code is then shared; the engine would import it later
    context = multiprocessing.get_context(options.start)
    stage, found = context.Barrier(options.workers), context.Queue()
    workers = [context.Process(target=work, args=(options, stage, found)) for _ in range(options.workers)]
    for worker in workers:
        worker.start()
    held = [found.get() for _ in workers]
    for worker in workers:
        worker.join()
    resident, shares = (sum(each) for each in zip(*held, strict=True))
    print(f"RSS {resident / len(held):.0f} MB a process, PSS {shares / len(held):.0f} MB; together {shares:.0f} MB")

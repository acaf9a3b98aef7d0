"""How fast a competitor is: the workloads, the median of their calls, and the device's own rate for comparison.

`check_and_time(kind, task)` makes a competitor, checks what it computes, times it, and yields facts as plain JSON
values while it goes: the process may be ended at any moment.
"""

import importlib
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.conformance.laws import LAWS, check_laws
from benchmarks.gpu.checks import Task, check
from benchmarks.gpu.competitors import Engine, Kind
from engine import Beam, Greedy
from engine.options import Decoding

WORKLOADS: dict[str, Decoding | None] = {
    "encoder": None,
    "greedy": Greedy(),
    "beam 3": Beam(beam_size=3),
    "beam 5": Beam(beam_size=5),
}


def check_and_time(kind: Kind, task: Task) -> Iterator[dict[str, Any]]:
    """Checks a competitor, then times it: yields {"check": ...}, then {"batch", "work", "ms"} for each figure.

    The engine has to keep every law of `conformance` too.
    """
    start = time.perf_counter()
    competitor = kind.make(task.bundle, max(task.batches))
    checked = check(competitor, kind.precision, task)
    if checked["fault"] is None and isinstance(competitor, Engine):
        checked["laws"] = len(LAWS)
        checked["fault"] = "; ".join(f"{v.law}: {v.fault}" for v in check_laws(competitor.captioner) if v.fault) or None
    yield {"check": checked, "seconds_to_start": time.perf_counter() - start}
    if checked["fault"]:
        return
    for batch in task.batches:
        pixels = task.pixels[np.arange(batch) % len(task.pixels)]
        for name, decoding in WORKLOADS.items():
            call = (
                partial(competitor.encode, pixels)
                if decoding is None
                else partial(competitor.caption, pixels, decoding)
            )
            yield {"batch": batch, "work": name, "ms": 1e3 * median(call, task.seconds)}


def median(call: Callable[[], object], seconds: float) -> float:
    """Returns the median seconds of calls that take so long together, at least 5, after two that are not timed."""
    times: list[float] = []
    for _ in range(2):
        call()
    while len(times) < 5 or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matrix_rate(device: str) -> dict[str, float]:
    """Returns operations a second of a large matrix product in fp32 (no TF32) and fp16; an addition counts too."""
    torch: Any = importlib.import_module("torch")
    torch.backends.cuda.matmul.allow_tf32 = False
    size = 8192 if device != "cpu" else 512
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16 if device != "cpu" else torch.bfloat16)):
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

        def product(left: Any = left, right: Any = right) -> None:
            torch.mm(left, right)
            if device != "cpu":
                torch.cuda.synchronize()

        rates[name] = 2 * size**3 / median(product, 0.5)
    return rates

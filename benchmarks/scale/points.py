"""Measures one point of a `benchmarks.scale` curve, in a process with only the engine.

So the process's peak memory is the engine's, and no point is affected by the previous one.
"""

import itertools
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.memory import memory
from engine import Beam, Captioner, Greedy, RuntimeOptions

BATCH = 32
"""Images of a call, where it is something else that grows."""
STEADY = 0.03
"""The rate of a long stream is known when its two halves differ by no greater share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to measure. folder holds JPEG files, and their features in features.npy."""

    curve: str
    x: int
    precision: str
    bundle: str
    folder: str
    seconds: float
    batch: int = BATCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was measured: images a second, and the latencies of a call in milliseconds where calls were timed alone.

    line is the workload, of which a curve may have several. peak is the process's greatest memory in MB.
    """

    curve: str
    line: str
    precision: str
    x: int
    rate: float
    p50: float
    p99: float
    peak: float = 0.0


@dataclass(frozen=True, slots=True)
class _Workload:
    """What the curves work on."""

    task: Task
    files: list[bytes]
    features: np.ndarray  # (files, feature_size)

    def open(self, threads: int = 0) -> Captioner:
        runtime = RuntimeOptions(threads=threads)
        return Captioner(
            self.task.bundle, provider="cpu", precision=self.task.precision, batch_size=self.task.batch, runtime=runtime
        )

    def many(self, count: int) -> list[bytes]:
        return list(itertools.islice(itertools.cycle(self.files), count))

    def point(self, line: str, images: int, call: Callable[[], object]) -> Point:
        """Calls again and again for the task's seconds; the rate is that of the median call."""
        call()
        times: list[float] = []
        end = time.perf_counter() + self.task.seconds
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return self._point(line, images / statistics.median(times), times)

    def _point(self, line: str, rate: float, times: list[float]) -> Point:
        middle, late = (1000 * float(np.quantile(times, q)) for q in (0.5, 0.99))
        task = self.task
        return Point(curve=task.curve, line=line, precision=task.precision, x=task.x, rate=rate, p50=middle, p99=late)


def images(workload: _Workload) -> list[Point]:
    """One call with x images; of a long one only what it takes until the rate is steady."""
    captioner, count, batch = workload.open(), workload.task.x, workload.task.batch
    if count <= 8 * batch:
        files = workload.many(count)
        return [workload.point("JPEG to caption", count, lambda: captioner.caption(files, Greedy()))]
    captioner.caption(workload.files, Greedy())
    marks = [time.perf_counter()]
    for done, _ in enumerate(
        captioner.iter_captions(itertools.islice(itertools.cycle(workload.files), count), Greedy()), start=1
    ):
        if done % batch == 0:
            marks.append(time.perf_counter())
        half, elapsed = len(marks) // 2, marks[-1] - marks[0]
        if done % batch == 0 and len(marks) > 8 and elapsed > 2 * workload.task.seconds:
            first, second = marks[half] - marks[0], marks[2 * half] - marks[half] if 2 * half < len(marks) else 0.0
            if abs(second / first - 1) < STEADY or elapsed > 8 * workload.task.seconds:
                break
    times = np.diff(marks).tolist()
    return [workload._point("JPEG to caption", batch * len(times) / sum(times), times)]


def threads(workload: _Workload) -> list[Point]:
    """RuntimeOptions(threads=x), beam 3, in batches."""
    captioner, way = workload.open(workload.task.x), Beam(beam_size=3)
    batch = workload.task.batch
    files, features = workload.many(batch), workload.features[:batch]
    return [
        workload.point("JPEG to caption", batch, lambda: captioner.caption(files, way)),
        workload.point("JPEG to features", batch, lambda: captioner.encode(files)),
        workload.point("search", batch, lambda: captioner.caption_features(features, way)),
    ]


def callers(workload: _Workload) -> list[Point]:
    """Threads that share one Captioner, x of them, each with one photograph at a time."""
    captioner, count = workload.open(), workload.task.x
    captioner.caption(workload.files[:1], Greedy())
    together, over = threading.Barrier(count + 1), threading.Event()
    latencies: list[list[float]] = [[] for _ in range(count)]

    def call(i: int) -> None:
        mine = itertools.cycle(workload.files[i:] + workload.files[:i])
        captioner.caption([next(mine)], Greedy())
        together.wait()
        while not over.is_set():
            start = time.perf_counter()
            captioner.caption([next(mine)], Greedy())
            latencies[i].append(time.perf_counter() - start)

    crowd = [threading.Thread(target=call, args=(i,)) for i in range(count)]
    for thread in crowd:
        thread.start()
    together.wait()
    start = time.perf_counter()
    time.sleep(3 * workload.task.seconds)  # as long as a point with three lines: calls in a queue are slow
    over.set()
    for thread in crowd:
        thread.join()
    elapsed, times = time.perf_counter() - start, list(itertools.chain.from_iterable(latencies))
    return [workload._point("one photograph a call", len(times) / elapsed, times)]


def beam(workload: _Workload) -> list[Point]:
    """Beam(beam_size=x) in batches, and the part without the search."""
    captioner, way = workload.open(), Beam(beam_size=workload.task.x)
    batch = workload.task.batch
    files, features = workload.many(batch), workload.features[:batch]
    return [
        workload.point("JPEG to caption", batch, lambda: captioner.caption(files, way)),
        workload.point("search", batch, lambda: captioner.caption_features(features, way)),
        workload.point("JPEG to features", batch, lambda: captioner.encode(files)),
    ]


def vocabulary(workload: _Workload) -> list[Point]:
    """The search alone, over x words, in batches; every sentence has the greatest length."""
    captioner, batch = workload.open(), workload.task.batch
    features = workload.features[:batch]
    return [
        workload.point("greedy", batch, lambda: captioner.caption_features(features, Greedy())),
        workload.point("beam 3", batch, lambda: captioner.caption_features(features, Beam(beam_size=3))),
    ]


CURVES: dict[str, Callable[[_Workload], list[Point]]] = {
    "images": images,
    "threads": threads,
    "callers": callers,
    "beam": beam,
    "vocabulary": vocabulary,
}


def main(text: str) -> None:
    """Measures the task that JSON describes and prints its points as JSON."""
    task = Task(**json.loads(text))
    folder = Path(task.folder)
    files = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    points = CURVES[task.curve](_Workload(task, files, np.load(folder / "features.npy")))
    peak = memory(0).peak
    print(json.dumps([{**asdict(point), "peak": peak} for point in points]))


if __name__ == "__main__":
    main(sys.argv[1])

"""Requests that come when they like: the Scheduler beside one request at a time and beside static batches.

python -m benchmarks.arrivals [--seconds 10] [--output FILE.json] [--chart FILE.png]

Open loop: arrivals are a Poisson process that waits for nobody, and a latency counts from the arrival that was due. All
sides get the same photographs, options and arrivals, and no side refuses any. Rates are multiples of what one request
at a time does when it is never idle; the bound on p99 is a multiple of the time that a lone request takes. A request
that fails ends the run, and so does, on a CPU, a caption in other words than the Captioner's of that image alone.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from benchmarks.arrival_sides import WINDOW, Batches, Scheduled, Side
from benchmarks.photographs import photographs
from engine import Beam, Caption, Captioner, Greedy, Sample
from engine.autotune.machine import fingerprint
from engine.options import Decoding

matplotlib.use("Agg")
from matplotlib import pyplot

LOADS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0)
TURNS = 3  # of each rate and side; percentiles are the medians of theirs
BOUND = 5.0  # of the time that a lone request takes
HOPELESS = 400  # requests under way at which a rate is given up
SCHEDULER, ONE, STATIC = "scheduler", "one at a time", "static batches"


@dataclass(frozen=True, slots=True)
class Work:
    """Requests and when they are due, in seconds from the start."""

    requests: tuple[tuple[bytes, Decoding], ...]
    due: tuple[float, ...]

    @classmethod
    def draw(cls, images: Sequence[bytes], rate: float, seconds: float, seed: int) -> "Work":
        """Draws arrivals of a rate, each with an image and options of the mix."""
        random = np.random.default_rng(seed)
        due = np.cumsum(random.exponential(1 / rate, max(1, round(rate * seconds))))
        return cls(tuple(mixed(images, len(due), random)), tuple(due.tolist()))


def mixed(images: Sequence[bytes], count: int, random: np.random.Generator) -> list[tuple[bytes, Decoding]]:
    """Draws requests: half of them greedy, a third beams, the rest samples with seeds of their own."""
    requests = []
    for kind in random.choice(6, count, p=(0.4, 0.1, 0.25, 0.1, 0.1, 0.05)):
        seed = int(random.integers(1 << 31))
        ways: tuple[Decoding, ...] = (
            Greedy(),
            Greedy(no_repeat_ngram_size=3, min_length=5, style="sentence"),
            Beam(beam_size=3),
            Beam(beam_size=5, num_hypotheses=5),
            Sample(seed=seed, temperature=0.8),
            Sample(seed=seed, num_samples=4, top_k=20),
        )
        requests.append((images[int(random.integers(len(images)))], ways[kind]))
    return requests


class Answers:
    """What the Captioner says of images when nobody else is there, in words; kept, for most requests come again."""

    def __init__(self, captioner: Captioner, images: Sequence[bytes]) -> None:
        self._captioner = captioner
        self._features = dict(zip(images, captioner.encode(images), strict=True))
        self._texts: dict[tuple[bytes, Decoding], str] = {}

    def to(self, work: Work) -> list[str]:
        """Returns the caption of each request."""
        for image, way in work.requests:
            if (image, way) not in self._texts:
                [caption] = self._captioner.caption_features(self._features[image][None], way)
                self._texts[image, way] = caption.text
        return [self._texts[request] for request in work.requests]


def latencies(side: Side, work: Work, expected: Sequence[str] | None = None) -> list[float] | None:
    """Sends the work as it is due and returns the seconds that each request took; None where the side falls behind.

    expected: the captions, where each is to be compared. Raises RuntimeError for a request that failed, or another
    caption: percentiles of what went wrong say nothing.
    """
    lock, done = threading.Lock(), threading.Semaphore(0)
    taken: list[float] = []
    futures: list[Future[Caption]] = []
    start = time.perf_counter() + 0.05

    def note(due: float) -> Callable[[Future[Caption]], None]:
        def answered(_: Future[Caption]) -> None:
            with lock:
                taken.append(time.perf_counter() - start - due)
            done.release()

        return answered

    for sent, ((image, way), due) in enumerate(zip(work.requests, work.due, strict=True)):
        time.sleep(max(0.0, start + due - time.perf_counter()))
        if sent - len(taken) > HOPELESS:
            break
        futures.append(side.submit(image, way))
        futures[-1].add_done_callback(note(due))
    else:
        for _ in work.due:
            done.acquire()
    for i, future in enumerate(futures):
        if not future.done():
            continue  # given up
        if (error := future.exception()) is not None:
            raise RuntimeError(f"request {i}, {work.requests[i][1]}, failed: {error}") from error
        if expected is not None and (text := future.result().text) != expected[i]:
            raise RuntimeError(f"request {i}, {work.requests[i][1]}, is {text!r}, where alone it is {expected[i]!r}")
    return taken if len(futures) == len(work.due) else None


def capacity(captioner: Captioner, images: Sequence[bytes], count: int) -> tuple[float, float]:
    """Returns requests a second of one at a time that is never idle, and the median seconds of one."""
    seconds = []
    for image, way in mixed(images, count, np.random.default_rng(0)):
        start = time.perf_counter()
        captioner.caption([image], way)
        seconds.append(time.perf_counter() - start)
    return len(seconds) / sum(seconds), float(np.median(seconds))


def measure(
    captioner: Captioner, images: Sequence[bytes], loads: Sequence[float], seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measures all sides at all rates; returns what there is to keep."""
    opens: Mapping[str, Callable[[], Side]] = {
        ONE: lambda: Batches(captioner, most=1, window=0.0),
        STATIC: lambda: Batches(captioner, most=captioner.batch_size, window=WINDOW),
        SCHEDULER: lambda: Scheduled(captioner, max_queue=10 * HOPELESS),
    }
    warm = mixed(images, 40, np.random.default_rng(1))
    for open_side in opens.values():
        side = open_side()
        for future in [side.submit(*request) for request in warm]:
            future.result()
        side.close()
    busy, lone = capacity(captioner, images, 100)
    say(f"one at a time: {busy:.1f} requests a second, {1000 * lone:.1f} ms for a lone one")
    answers = Answers(captioner, images)
    exact = captioner.provider == "cpu"  # a device adds up a batch in another order
    points: list[dict[str, Any]] = []
    lost: set[str] = set()
    for load in loads:
        turns: dict[str, list[list[float]]] = {name: [] for name in opens}
        for number in range(TURNS):  # in turns: a machine that slows down slows all
            work = Work.draw(images, load * busy, seconds, number)
            expected = answers.to(work) if exact else None
            for name, open_side in opens.items():
                if name not in lost:
                    with closing(open_side()) as side:
                        found = latencies(side, work, expected)
                    if found is None:
                        lost.add(name)
                    else:
                        turns[name].append(np.percentile(found, (50, 99)).tolist())
        for name in opens:
            point = {"side": name, "load": load, "rate": load * busy, "p50": None, "p99": None}
            told = "falls behind"
            if name not in lost:
                p50, p99 = np.median(turns[name], axis=0).tolist()
                point |= {"p50": p50, "p99": p99, "turns": turns[name]}
                told = f"p50 {1000 * p50:7.1f} ms  p99 {1000 * p99:7.1f} ms"
            points.append(point)
            say(f"{load * busy:7.1f}/s  {name:15} {told}")
    return {"capacity": busy, "lone": lone, "bound": BOUND * lone, "seconds": seconds, "points": points}


def held(points: Sequence[Mapping[str, Any]], side: str, bound: float) -> float:
    """Returns the highest rate up to which a side kept p99 within a bound."""
    best = 0.0
    for point in points:
        if point["side"] == side:
            if point["p99"] is None or point["p99"] > bound:
                break
            best = point["rate"]
    return best


def summary(result: Mapping[str, Any]) -> list[str]:
    """Says whether the Scheduler keeps what is asked of it."""
    points, lines = result["points"], []
    for bound in (result["bound"], 2 * result["bound"]):
        rates = {side: held(points, side, bound) for side in (ONE, STATIC, SCHEDULER)}
        told = ", ".join(f"{side} {rate:.1f}" for side, rate in rates.items())
        ratio = rates[SCHEDULER] / rates[ONE] if rates[ONE] else float("inf")
        lines.append(f"requests a second at p99 <= {1000 * bound:.0f} ms: {told}; {ratio:.2f} x one at a time")
    p99 = {(point["side"], point["load"]): point["p99"] or float("inf") for point in points}
    loads = sorted({point["load"] for point in points if p99[STATIC, point["load"]] < float("inf")})
    worse = [load for load in loads if p99[SCHEDULER, load] >= p99[STATIC, load]]
    lines.append(f"p99 below that of static batches at {len(loads) - len(worse)} of {len(loads)} rates that both serve")
    return lines


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draws p50 and p99 over the rate, and the bound."""
    figure, axes = pyplot.subplots(figsize=(9, 4.2), layout="constrained")
    for colour, side in (("C1", ONE), ("C2", STATIC), ("crimson", SCHEDULER)):
        points = [point for point in result["points"] if point["side"] == side and point["p99"] is not None]
        for name, dashes in (("p50", ":"), ("p99", "-")):
            rates, values = [point["rate"] for point in points], [1000 * point[name] for point in points]
            axes.plot(rates, values, dashes, color=colour, marker="o", markersize=4, label=f"{side}, {name}")
    axes.axhline(1000 * result["bound"], color="black", linewidth=0.8, label=f"{BOUND:g} x a lone request")
    axes.set(xlabel="requests a second", ylabel="milliseconds", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, keeps and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="a bundle's folder; else the one that ships")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--photographs", type=Path, help="a folder of JPEG files; else those that benchmarks take")
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS, help="rates, as multiples of one at a time's")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each turn")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/arrivals-cpu.json"))
    parser.add_argument("--chart", type=Path, default=Path("docs/scheduling.png"))
    told = parser.parse_args(arguments)
    captioner = Captioner(told.bundle, provider=told.provider, precision=told.precision)
    captioner.warmup([1, captioner.batch_size])
    folder = sorted(told.photographs.glob("*.jpg"))[:200] if told.photographs else []
    images = [path.read_bytes() for path in folder] or photographs(32)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    result = {
        "machine": fingerprint(captioner.bundle),
        "provider": captioner.provider,
        "precision": captioner.precision,
        **measure(captioner, images, sorted(told.loads), told.seconds, say),
    }
    result["summary"] = summary(result)
    print("\n".join(result["summary"]))
    told.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(result, told.chart)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Random arrivals: compares the Scheduler with one request at a time and with static batches.

python -m benchmarks.arrivals [--seconds 10] [--output FILE.json] [--chart FILE.png]

Open loop: arrivals are a Poisson process, independent of the answers, and latency counts from the scheduled arrival.
All servers get the same photographs, options and arrivals, and refuse none. Rates are multiples of the rate of one
request at a time when it is never idle; the bound on p99 is a multiple of a lone request's time. A failed request ends
the run, and so does, on a CPU, a caption that differs from the Captioner's for the image alone.
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

from benchmarks.load.batching import WINDOW, Batches, Scheduled, Server
from benchmarks.photographs import photographs
from engine import Beam, Caption, Captioner, Greedy, Sample
from engine.autotune.machine import fingerprint
from engine.options import Decoding

matplotlib.use("Agg")
from matplotlib import pyplot

LOADS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0)
ROUNDS = 3  # of each rate and server; percentiles are the medians of theirs
BOUND = 5.0  # times a lone request's time
HOPELESS = 400  # a rate is abandoned at this many unanswered requests
SCHEDULER, ONE, STATIC = "scheduler", "one at a time", "static batches"


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests and their arrival times, in seconds from the start."""

    requests: tuple[tuple[bytes, Decoding], ...]
    due: tuple[float, ...]

    @classmethod
    def draw(cls, images: Sequence[bytes], rate: float, seconds: float, seed: int) -> "Arrivals":
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


class ExpectedCaptions:
    """The Captioner's captions of single images; cached, because most requests are repeated."""

    def __init__(self, captioner: Captioner, images: Sequence[bytes]) -> None:
        self._captioner = captioner
        self._features = dict(zip(images, captioner.encode(images), strict=True))
        self._texts: dict[tuple[bytes, Decoding], str] = {}

    def of(self, arrivals: Arrivals) -> list[str]:
        """Returns the caption of each request."""
        for image, way in arrivals.requests:
            if (image, way) not in self._texts:
                [caption] = self._captioner.caption_features(self._features[image][None], way)
                self._texts[image, way] = caption.text
        return [self._texts[request] for request in arrivals.requests]


def latencies(server: Server, arrivals: Arrivals, expected: Sequence[str] | None = None) -> list[float] | None:
    """Sends requests at their times and returns the seconds that each took; None if the server falls behind.

    expected: the captions to compare with, if any. Raises RuntimeError for a failed request or a different caption:
    percentiles of wrong results mean nothing.
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

    for sent, ((image, way), due) in enumerate(zip(arrivals.requests, arrivals.due, strict=True)):
        time.sleep(max(0.0, start + due - time.perf_counter()))
        if sent - len(taken) > HOPELESS:
            break
        futures.append(server.submit(image, way))
        futures[-1].add_done_callback(note(due))
    else:
        for _ in arrivals.due:
            done.acquire()
    for i, future in enumerate(futures):
        if not future.done():
            continue  # abandoned
        if (error := future.exception()) is not None:
            raise RuntimeError(f"request {i}, {arrivals.requests[i][1]}, failed: {error}") from error
        if expected is not None and (text := future.result().text) != expected[i]:
            raise RuntimeError(
                f"request {i}, {arrivals.requests[i][1]}, is {text!r}, where alone it is {expected[i]!r}"
            )
    return taken if len(futures) == len(arrivals.due) else None


def capacity(captioner: Captioner, images: Sequence[bytes], count: int) -> tuple[float, float]:
    """Returns the requests a second of one at a time when it is never idle, and the median seconds of one."""
    seconds = []
    for image, way in mixed(images, count, np.random.default_rng(0)):
        start = time.perf_counter()
        captioner.caption([image], way)
        seconds.append(time.perf_counter() - start)
    return len(seconds) / sum(seconds), float(np.median(seconds))


def measure(
    captioner: Captioner, images: Sequence[bytes], loads: Sequence[float], seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measures all servers at all rates; returns the result to save."""
    opens: Mapping[str, Callable[[], Server]] = {
        ONE: lambda: Batches(captioner, most=1, window=0.0),
        STATIC: lambda: Batches(captioner, most=captioner.batch_size, window=WINDOW),
        SCHEDULER: lambda: Scheduled(captioner, max_queue=10 * HOPELESS),
    }
    warm = mixed(images, 40, np.random.default_rng(1))
    for open_server in opens.values():
        server = open_server()
        for future in [server.submit(*request) for request in warm]:
            future.result()
        server.close()
    busy, lone = capacity(captioner, images, 100)
    say(f"one at a time: {busy:.1f} requests a second, {1000 * lone:.1f} ms for a lone one")
    expected_captions = ExpectedCaptions(captioner, images)
    exact = captioner.provider == "cpu"  # a device may sum a batch in another order
    points: list[dict[str, Any]] = []
    lost: set[str] = set()
    for load in loads:
        rounds: dict[str, list[list[float]]] = {name: [] for name in opens}
        for number in range(ROUNDS):  # interleaved: a machine that slows down slows all
            arrivals = Arrivals.draw(images, load * busy, seconds, number)
            expected = expected_captions.of(arrivals) if exact else None
            for name, open_server in opens.items():
                if name not in lost:
                    with closing(open_server()) as server:
                        found = latencies(server, arrivals, expected)
                    if found is None:
                        lost.add(name)
                    else:
                        rounds[name].append(np.percentile(found, (50, 99)).tolist())
        for name in opens:
            point = {"side": name, "load": load, "rate": load * busy, "p50": None, "p99": None}
            told = "falls behind"
            if name not in lost:
                p50, p99 = np.median(rounds[name], axis=0).tolist()
                point |= {"p50": p50, "p99": p99, "turns": rounds[name]}
                told = f"p50 {1000 * p50:7.1f} ms  p99 {1000 * p99:7.1f} ms"
            points.append(point)
            say(f"{load * busy:7.1f}/s  {name:15} {told}")
    return {"capacity": busy, "lone": lone, "bound": BOUND * lone, "seconds": seconds, "points": points}


def held(points: Sequence[Mapping[str, Any]], server: str, bound: float) -> float:
    """Returns the highest rate up to which a server kept p99 within a bound."""
    best = 0.0
    for point in points:
        if point["side"] == server:
            if point["p99"] is None or point["p99"] > bound:
                break
            best = point["rate"]
    return best


def summary(result: Mapping[str, Any]) -> list[str]:
    """Returns, as text, whether the Scheduler meets its goals."""
    points, lines = result["points"], []
    for bound in (result["bound"], 2 * result["bound"]):
        rates = {server: held(points, server, bound) for server in (ONE, STATIC, SCHEDULER)}
        told = ", ".join(f"{server} {rate:.1f}" for server, rate in rates.items())
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
    for colour, server in (("C1", ONE), ("C2", STATIC), ("crimson", SCHEDULER)):
        points = [point for point in result["points"] if point["side"] == server and point["p99"] is not None]
        for name, dashes in (("p50", ":"), ("p99", "-")):
            rates, values = [point["rate"] for point in points], [1000 * point[name] for point in points]
            axes.plot(rates, values, dashes, color=colour, marker="o", markersize=4, label=f"{server}, {name}")
    axes.axhline(1000 * result["bound"], color="black", linewidth=0.8, label=f"{BOUND:g} x a lone request")
    axes.set(xlabel="requests a second", ylabel="milliseconds", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, saves and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="a bundle's folder (default: the one that ships)")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--photographs", type=Path, help="a folder of JPEG files (default: the benchmarks' own)")
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS, help="rates, as multiples of one at a time's")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a round")
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

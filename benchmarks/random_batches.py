"""Captions batches of random sizes and checks that memory does not grow: `python -m benchmarks.random_batches`.

Changing sizes and beams would fill a cache keyed on shapes; short-lived threads would fill one keyed on threads. Only
the engine runs in this process. Linux only: reads /proc.
"""

import argparse
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness.memory import Memory, growth, memory
from engine import Beam, Captioner, Greedy, Sample
from engine.options import Decoding

MOST_GROWTH = 0.05
IN_THREADS = 8
"""Every batch with a multiple of this number runs in a new thread."""
WIDEST_BEAM = 6


def random_way(random: np.random.Generator) -> Decoding:
    """Returns greedy, a beam or samples, with constraints at times."""
    length = int(random.integers(1, 21))
    ways: tuple[Decoding, ...] = (
        Greedy(),
        Greedy(max_length=length, no_repeat_ngram_size=2),
        Beam(beam_size=int(random.integers(1, WIDEST_BEAM + 1))),
        Beam(beam_size=WIDEST_BEAM, num_hypotheses=int(random.integers(1, WIDEST_BEAM + 1)), max_length=length),
        Sample(num_samples=int(random.integers(1, WIDEST_BEAM + 1)), temperature=2.0),
        Sample(seed=int(random.integers(1000)), top_k=5, top_p=0.9),
    )
    return ways[int(random.integers(len(ways)))]


def caption_batches(captioner: Captioner, batches: int, largest: int, every: int) -> Iterator[Memory]:
    """Captions random batches and yields the memory after each `every` of them; the largest of each way come first."""
    spec, random = captioner.bundle.manifest.image, np.random.default_rng(0)
    images = random.integers(0, 256, (largest, spec.height, spec.width, 3), np.uint8)
    features = captioner.encode(images)
    for way in (Greedy(), Beam(beam_size=WIDEST_BEAM), Sample(num_samples=WIDEST_BEAM)):
        captioner.caption(images, way)
    for done in range(1, batches + 1):
        way, size = random_way(random), int(random.integers(0, largest + 1))
        if done % 4:  # the decode alone: that is where shapes change most
            work, given = captioner.caption_features, features[:size]
        else:
            work, given = captioner.caption, images[:size]  # type: ignore[assignment]
        if done % IN_THREADS == 0:
            thread = threading.Thread(target=work, args=(given, way))
            thread.start()
            thread.join()
        else:
            work(given, way)
        if done % every == 0:
            yield memory(done)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 when memory grew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.random_batches", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="the bundle to run (default: the one that ships)")
    parser.add_argument("--batches", type=int, default=10_000, help="number of batches to caption (default: 10000)")
    parser.add_argument("--largest", type=int, default=32, help="most images in a batch (default: 32)")
    options = parser.parse_args(arguments)
    if options.batches < 20 or options.largest < 1:
        parser.error("--batches must be at least 20 and --largest at least 1")
    captioner = Captioner(options.bundle, provider="cpu", batch_size=options.largest)
    print(f"bundle {captioner.bundle.manifest.name}, 0 to {options.largest} images a batch", flush=True)
    samples, threads, start, warm_up = [], [0], time.monotonic(), options.batches // 4
    for sample in caption_batches(captioner, options.batches, options.largest, options.batches // 20):
        samples.append(sample)
        threads.append(threading.active_count())
        print(
            f"{sample.done:>7,} batches: {sample.resident:6.1f} MB, peak {sample.peak:6.1f} MB, "
            f"{threads[-1]} threads, {time.monotonic() - start:5.1f} s",
            flush=True,
        )
    grown, born = growth(samples, warm_up), threads[-1] - threads[5]
    flat = grown < MOST_GROWTH and born <= 0
    said = f"peak {grown:+.1%}, {born:+d} threads"
    print(f"after the first {warm_up:,} batches: {said}, {'flat' if flat else 'NOT FLAT'}")
    return 0 if flat else 1


if __name__ == "__main__":
    raise SystemExit(main())

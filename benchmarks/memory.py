"""Captions many images and shows that memory stays flat: `python -m benchmarks.memory --images 10000`.

Only the engine runs in this process, so that what is measured is the engine's. Linux only: reads /proc.
"""

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.photographs import photographs
from engine import Captioner, Greedy

DECODING = Greedy()
FILES = 64
MOST_GROWTH = 0.05
STATUS = Path("/proc/self/status")


class Sample(NamedTuple):
    """The process's memory after some images, in MB: what it holds now, and the most it ever held."""

    images: int
    resident: float
    peak: float


def memory(images: int) -> Sample:
    """Reads the process's memory. getrusage is no help: its peak is inherited from whoever started the process."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="ascii").splitlines())
    resident, peak = (int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return Sample(images, resident, peak)


def caption_many(captioner: Captioner, images: int, every: int) -> Iterator[Sample]:
    """Captions a stream of images, none of which is kept, and yields the memory at each `every` of them."""
    files = itertools.islice(itertools.cycle(photographs(FILES)), images)
    for done, _ in enumerate(captioner.iter_captions(files, DECODING), start=1):
        if done % every == 0:
            yield memory(done)


def growth(samples: Sequence[Sample], warm_up: int) -> float:
    """Returns by what share the peak grew after the first `warm_up` images."""
    before = max(sample.peak for sample in samples if sample.images <= warm_up)
    return max(sample.peak for sample in samples) / before - 1


def draw_chart(samples: Sequence[Sample], path: Path) -> None:
    """Writes a PNG of the memory over the images."""
    import matplotlib  # here, after the measurement and only for those who want a picture

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3), layout="constrained")
    images, resident, peak = zip(*samples, strict=True)
    axes.plot(images, peak, label="peak")
    axes.plot(images, resident, label="resident")
    axes.set(xlabel="images captioned", ylabel="MB", ylim=(0, 1.2 * max(peak)))
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 when the peak grew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="the bundle to run; the one that ships where left out")
    parser.add_argument("--images", type=int, default=10_000, help="how many to caption (default: 10000)")
    parser.add_argument("--every", type=int, default=500, help="images between two lines (default: 500)")
    parser.add_argument("--warm-up", type=int, default=1_000, help="images after which the peak may not grow")
    parser.add_argument("--batch-size", type=int, default=32, help="images that run at once (default: 32)")
    parser.add_argument("--chart", type=Path, help="write a PNG chart to this file")
    options = parser.parse_args(arguments)
    if not options.every <= options.warm_up < options.images:
        parser.error("--every may not be above --warm-up, and --warm-up must be below --images")
    captioner = Captioner(options.bundle, provider="cpu", batch_size=options.batch_size)
    print(f"bundle {captioner.bundle.manifest.name}, batches of {captioner.batch_size}, {DECODING}", flush=True)
    samples, start = [], time.monotonic()
    for sample in caption_many(captioner, options.images, options.every):
        samples.append(sample)
        rate = sample.images / (time.monotonic() - start)
        print(
            f"{sample.images:>7,} images: {sample.resident:6.1f} MB, peak {sample.peak:6.1f} MB, {rate:5.1f} a second",
            flush=True,
        )
    grown = growth(samples, options.warm_up)
    flat = grown < MOST_GROWTH
    print(f"peak after the first {options.warm_up:,} images: {grown:+.1%}, {'flat' if flat else 'NOT FLAT'}")
    if options.chart:
        draw_chart(samples, options.chart)
    return 0 if flat else 1


if __name__ == "__main__":
    raise SystemExit(main())

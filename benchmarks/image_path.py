"""What a JPEG costs from its bytes to the pixels that a model takes: `python -m benchmarks.image_path`.

Prints two Markdown tables of medians, on one thread: whole ways, Pillow's plain one beside and the difference of
their pixels stated, and their stages. All are taken in turns, photograph by photograph, so that whatever slows the
machine slows all of them. A last column says what two threads gain. Ways whose package is missing are left out.
"""

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec

import numpy as np
from PIL import Image

from benchmarks.photographs import photographs
from engine.images import jpeg
from engine.images import resize as resizing
from engine.images.load import load_pixels

SIZES = ((500, 375), (640, 480), (4000, 3000))
PHOTOGRAPHS = 8  # of each size; of the largest a quarter
SIDE = 260  # of the model that ships
FASTEST = find_spec("simplejpeg") is not None and find_spec("cykooz_resizer") is not None

Way = Callable[[bytes], np.ndarray]


def files(size: tuple[int, int], count: int) -> list[bytes]:
    """Returns photographs of (width, height) as JPEG files of quality 90."""
    encoded = []
    for data in photographs(count):
        file = io.BytesIO()
        Image.open(io.BytesIO(data)).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        encoded.append(file.getvalue())
    return encoded


def plain(data: bytes) -> np.ndarray:
    """Pillow as everybody uses it."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.array(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def drafted(data: bytes) -> np.ndarray:
    """Pillow, told to shrink while it decodes."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (SIDE, SIDE))
    return np.array(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def simple(data: bytes) -> np.ndarray:
    """All of the picture by simplejpeg, resized by Pillow."""
    image = Image.fromarray(import_module("simplejpeg").decode_jpeg(data))
    return np.array(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def rough(data: bytes) -> np.ndarray:
    """As `simple`, with libjpeg's roughest arithmetic."""
    image = Image.fromarray(import_module("simplejpeg").decode_jpeg(data, fastdct=True, fastupsample=True))
    return np.array(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def reduced(data: bytes) -> np.ndarray:
    """Pillow's two-step resize."""
    return np.array(Image.open(io.BytesIO(data)).resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=1.0))


def ways() -> dict[str, Way]:
    """Returns every way that runs here by its name, Pillow's plain one first."""
    out = np.empty((SIDE, SIDE, 3), np.uint8)
    engine = partial(load_pixels, height=SIDE, width=SIDE, out=out)
    found: dict[str, Way] = {"Pillow plain": plain, "Pillow draft": drafted, "Pillow reducing_gap": reduced}
    if find_spec("simplejpeg"):
        found |= {"simplejpeg, Pillow resize": simple, "simplejpeg fastdct": rough}
    found["engine"] = engine
    if FASTEST:
        found["engine quick"] = partial(engine, quick=True)
    return found


def stages(data: bytes) -> dict[str, Callable[[], object]]:
    """Returns the steps of the engine's two ways for one file, each ready to be timed alone."""

    def opened() -> Image.Image:
        image: Image.Image = Image.open(io.BytesIO(data))
        jpeg.shrink(image, SIDE, SIDE)  # type: ignore[arg-type]
        return image

    decoded, out = opened(), np.empty((SIDE, SIDE, 3), np.uint8)
    decoded.load()
    rows, size = decoded.tobytes(), decoded.size
    small = decoded.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(small)
    steps: dict[str, Callable[[], object]] = {
        "open (parse the header)": opened,
        "open, decode (Pillow)": lambda: opened().load(),
        "resize (Pillow)": lambda: decoded.resize((SIDE, SIDE), Image.Resampling.BICUBIC),
        "image to array (Pillow)": lambda: np.asarray(small),
        "copy into the batch": lambda: np.copyto(out, pixels),
    }
    if FASTEST:
        header = opened()
        steps["decode (simplejpeg)"] = lambda: jpeg.decode(header, io.BytesIO(data))  # type: ignore[arg-type]
        steps["resize (quick)"] = lambda: resizing.resize(rows, size, SIDE, SIDE, "bicubic")
    return steps


def medians(work: Sequence[dict[str, Callable[[], object]]], seconds: float) -> dict[str, float]:
    """Returns the median milliseconds of each piece of work, over all photographs, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in work[0]}
    end = time.perf_counter() + seconds
    while len(times[next(iter(times))]) < 2 * len(work) or time.perf_counter() < end:
        for pieces in work:
            for name, piece in pieces.items():
                start = time.perf_counter()
                piece()
                times[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(taken) for name, taken in times.items()}


def gain_of_two_threads(way: Way, data: Sequence[bytes], seconds: float) -> float:
    """Returns how many times as many photographs a second two threads read as one (about 2: the lock is let go)."""
    gains: list[float] = []
    with ThreadPoolExecutor(2) as pool:
        end = time.perf_counter() + seconds
        while len(gains) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            for entry in data:
                way(entry)
            middle = time.perf_counter()
            list(pool.map(lambda entry: way(entry).shape, data))
            gains.append((middle - start) / (time.perf_counter() - middle))
    return statistics.median(gains)


def difference(way: Way, data: Sequence[bytes]) -> str:
    """Says how the pixels differ from those of Pillow's plain way."""
    gaps = np.concatenate([np.abs(way(entry).astype(int) - plain(entry)).ravel() for entry in data])
    if not gaps.any():
        return "equal"
    return f"{(gaps > 0).mean():.1%} differ, {(gaps > 1).mean():.2%} by more than 1, at most {gaps.max()}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.image_path", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="for each table of each size (default: 5)")
    options = parser.parse_args(arguments)
    names = [
        name
        for name in ("Pillow", "simplejpeg", "cykooz-resizer")
        if find_spec(name.replace("-", "_")) or name == "Pillow"
    ]
    print(", ".join(f"{name} {metadata.version(name)}" for name in names), f"to {SIDE} x {SIDE}", file=sys.stderr)
    for size in SIZES:
        data = files(size, PHOTOGRAPHS if size[0] < 1000 else PHOTOGRAPHS // 4)
        found = ways()
        taken = medians([{name: partial(way, entry) for name, way in found.items()} for entry in data], options.seconds)
        print(f"\n{size[0]} x {size[1]}, {statistics.mean(map(len, data)) / 1000:,.0f} kB a file\n")
        print("| way | ms | speed-up | pixels against Pillow plain | two threads |\n|---|---|---|---|---|")
        for name, way in found.items():
            speed_up = f"{taken['Pillow plain'] / taken[name]:.2f}x"
            gain = f"{gain_of_two_threads(way, data * 3, options.seconds / 10):.2f}x"
            print(f"| {name} | {taken[name]:.3g} | {speed_up} | {difference(way, data)} | {gain} |", flush=True)
        print("\n| stage | ms |\n|---|---|")
        for name, milliseconds in medians([stages(entry) for entry in data], options.seconds).items():
            print(f"| {name} | {milliseconds:.3g} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

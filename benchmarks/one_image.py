"""Compares the cost of one photograph with that of the graphs alone: `python -m benchmarks.one_image`.

It times Captioner.encode against reading plus a plain session.run of the same graph with as many threads, and splits
decodes into time inside and outside ONNX Runtime. Rounds are interleaved; figures are medians, in milliseconds.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.photographs import photographs
from engine import Beam, Captioner, Greedy
from engine.bundle.bundle import Bundle
from engine.options import Decoding
from engine.runtime.options import whole_cores

PHOTOGRAPHS = 16  # different ones
DECODINGS: dict[str, Decoding] = {"greedy": Greedy(), "beam 3": Beam(beam_size=3)}


def encode_times(precision: str, rounds: int) -> dict[str, float]:
    """Returns the milliseconds of reading, of a plain session.run, and of Captioner.encode, for one photograph."""
    captioner, files = Captioner(provider="cpu", precision=precision), photographs(PHOTOGRAPHS)
    image, read = captioner.bundle.manifest.image, captioner.model.pipeline.read
    pixels = np.empty((1, image.height, image.width, 3), np.uint8)
    times: dict[str, list[float]] = {"reading": [], "plain session.run": [], "Captioner.encode": []}
    for round_number in range(rounds + 1):
        plain = _plain_session(captioner.bundle, precision)
        for file in files:
            seconds = {"reading": _seconds(read, 0, file, pixels[0])}
            found = plain.run(["features"], {"pixels": pixels})[0]
            seconds["plain session.run"] = _seconds(plain.run, ["features"], {"pixels": pixels})
            for name in seconds if round_number else ():  # the first round warms up
                times[name].append(seconds[name])
        np.testing.assert_allclose(captioner.encode(files[-1:]), found, rtol=0, atol=1e-3)
        del plain  # whose threads would spin on into the time of the other
        captioner.encode(files[:1])
        for file in files:
            whole = _seconds(captioner.encode, [file])
            if round_number:
                times["Captioner.encode"].append(whole)
    return {name: 1e3 * statistics.median(listed) for name, listed in times.items()}


def _plain_session(bundle: Bundle, precision: str) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = whole_cores()
    path = bundle.path / bundle.graph("encoder", precision).file
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def _seconds(call: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def decode_times(precision: str, decoding: Decoding, rounds: int) -> dict[str, float]:
    """Returns the milliseconds of one decode, of the calls of ONNX Runtime in it, and of the rest, and its steps."""
    captioner = Captioner(provider="cpu", precision=precision)
    features = captioner.encode(photographs(PHOTOGRAPHS))
    totals, inside, runs = [], [], []
    for round_number in range(rounds + 2):
        for image in range(PHOTOGRAPHS):
            with _timed_runs() as spent:
                began = time.perf_counter()
                captioner.caption_features(features[image : image + 1], decoding)
                seconds = time.perf_counter() - began
            if round_number > 1:  # warm
                totals.append(seconds)
                inside.append(sum(spent))
                runs.append(len(spent))
    rest = [total - spent for total, spent in zip(totals, inside, strict=True)]
    return {
        "runs": statistics.fmean(runs),
        "decode": 1e3 * statistics.median(totals),
        "ONNX Runtime": 1e3 * statistics.median(inside),
        "Python": 1e3 * statistics.median(rest),
    }


@contextmanager
def _timed_runs() -> Iterator[list[float]]:
    """Gives the seconds of each run with a binding that is made within."""
    real, spent = onnxruntime.InferenceSession.run_with_iobinding, list[float]()

    def run(self: Any, *arguments: Any) -> None:
        began = time.perf_counter()
        real(self, *arguments)
        spent.append(time.perf_counter() - began)

    onnxruntime.InferenceSession.run_with_iobinding = run
    try:
        yield spent
    finally:
        onnxruntime.InferenceSession.run_with_iobinding = real


def _head(*names: str) -> str:
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_image", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--rounds", type=int, default=20, help=f"of {PHOTOGRAPHS} photographs (default: 20)")
    rounds = parser.parse_args(arguments).rounds
    print(
        "| precision | reading | plain session.run | both | Captioner.encode | over both |\n|---|---|---|---|---|---|"
    )
    for precision in ("fp32", "int8"):
        reading, plain, encode = encode_times(precision, rounds).values()
        both = reading + plain
        print(f"| {precision} | {reading:.2f} | {plain:.2f} | {both:.2f} | {encode:.2f} | {encode / both - 1:+.0%} |")
    print("\n" + _head("precision", "decoding", "runs", "decode", "ONNX Runtime", "Python", "Python over it"))
    for precision in ("fp32", "int8"):
        for name, decoding in DECODINGS.items():
            runs, whole, inside, python = decode_times(precision, decoding, rounds).values()
            cells = f"{runs:.1f} | {whole:.2f} | {inside:.2f} | {python:.2f} | {python / inside:.2f}"
            print(f"| {precision} | {name} | {cells} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

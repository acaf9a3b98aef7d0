"""What is measured on a GPU machine, each side in a process of its own: the engine by provider, and PyTorch on the GPU.

`work(name, task)` makes a side, checks what it computes, times it, and yields facts as plain JSON values while it
goes: the process may be ended at any moment. Knows nothing of tables and of what else is measured.
"""

import importlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.conformance import LAWS, judge
from engine import Beam, Captioner, Greedy, RuntimeOptions
from engine.bundle.bundle import Bundle
from engine.decoding.constraints import Rules
from engine.decoding.decode import decode
from engine.decoding.step_model import StepModel
from engine.options import Decoding
from engine.result import Caption
from engine.runtime.buckets import bucket

WORKS: dict[str, Decoding | None] = {
    "encoder": None,
    "greedy": Greedy(),
    "beam 3": Beam(beam_size=3),
    "beam 5": Beam(beam_size=5),
}
CHECKED = 16  # images
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.3}
"""Most error of a feature, over the largest feature. TF32, which fp32 must not be, is off by about 1e-3."""
COSINE = {"fp32": 0.999999, "fp16": 0.9995, "int8": 0.98}
SAME = {"fp32": 1.0, "fp16": 0.75, "int8": 0.4}
"""Least share of greedy captions that are those of fp32 on a CPU; in fp32 one may differ where two words tie."""
TIE = 1e-4


class Side(Protocol):
    """One way of running the model on uint8 pixels (images, height, width, 3)."""

    def encode(self, pixels: np.ndarray) -> Any:
        """Returns features where the side keeps them, computed to the end; numpy can read them."""

    def caption(self, pixels: np.ndarray, decoding: Decoding) -> Sequence[Caption]:
        """Returns a caption for each image."""


class Engine:
    """The engine on one provider."""

    def __init__(self, bundle: Path, most: int, *, provider: str, precision: str, runtime: RuntimeOptions) -> None:
        self.captioner = Captioner(bundle, provider=provider, precision=precision, batch_size=most, runtime=runtime)

    def encode(self, pixels: np.ndarray) -> Any:
        """See Side."""
        return self.captioner._graphs.encoder.encode(pixels)

    def caption(self, pixels: np.ndarray, decoding: Decoding) -> Sequence[Caption]:
        """See Side."""
        return self.captioner.caption_features(self.encode(pixels), decoding)


class Torch:
    """PyTorch on a device, the same weights, under the engine's own search: the step is all that differs.

    compiled: torch.compile(mode="reduce-overhead"), which replays CUDA graphs; rows are filled up to buckets for it.
    """

    def __init__(self, bundle: Path, most: int, *, device: str, half: bool, compiled: bool) -> None:
        torch: Any = importlib.import_module("torch")  # some of what is used here has no types

        from benchmarks.restore import restore_decoder, restore_encoder

        self.torch, self.device, self.compiled = torch, device, compiled
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        self.bundle = Bundle.load(bundle)
        self.dtype = torch.float16 if half else torch.float32
        place: dict[str, Any] = {"device": device, "dtype": self.dtype}
        encoder = restore_encoder(self.bundle)
        self.decoder = restore_decoder(self.bundle).to(**place)
        network = encoder.network.to(**place, memory_format=torch.channels_last)
        mean, std = encoder.mean.to(**place), encoder.std.to(**place)

        def encode(pixels: Any) -> Any:
            return network((pixels.permute(0, 3, 1, 2).to(self.dtype) - mean) / std)

        def score(token_ids: Any, hidden: Any, cell: Any) -> Any:
            logits, hidden, cell = self.decoder.step(token_ids, hidden, cell)
            return torch.log_softmax(logits.float(), dim=1), hidden, cell

        if compiled:
            torch._dynamo.config.recompile_limit = 16
            encode = torch.compile(encode, mode="reduce-overhead", dynamic=False)
            score = torch.compile(score, mode="reduce-overhead", dynamic=True)
        self._encode, self.score = encode, score

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a compiled function; its outputs are copied, as the next replay overwrites them."""
        with self.torch.inference_mode():
            if not self.compiled:
                return function(*arguments)
            self.torch.compiler.cudagraph_mark_step_begin()
            outputs = function(*arguments)
            return tuple(o.clone() for o in outputs) if isinstance(outputs, tuple) else outputs.clone()

    def put(self, array: np.ndarray) -> Any:
        """Copies an array to the device."""
        return self.torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def features(self, pixels: np.ndarray) -> Any:
        """Returns features (images, feature_size) on the device, perhaps not computed yet."""
        return self.run(self._encode, self.put(pixels))

    def encode(self, pixels: np.ndarray) -> Any:
        """See Side."""
        features = self.features(pixels)
        if self.device != "cpu":
            self.torch.cuda.synchronize()
        return _Readable(features)

    def caption(self, pixels: np.ndarray, decoding: Decoding) -> Sequence[Caption]:
        """See Side."""
        steps = TorchSteps(self, self.features(pixels))
        vocabulary, defaults = self.bundle.vocabulary, self.bundle.manifest.defaults
        return decode(steps, decoding, Rules.of(decoding, vocabulary, defaults), vocabulary, defaults)


@dataclass(slots=True)
class _Readable:
    """A tensor that numpy reads wherever it lies, when it is asked to."""

    tensor: Any

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.tensor.float().cpu().numpy(), dtype=dtype)


class TorchSteps(StepModel):
    """A StepModel in PyTorch, its state on the device."""

    images = 0

    def __init__(self, side: Torch, features: Any) -> None:
        self.images = len(features)
        self._side = side
        with side.torch.inference_mode():
            self._state = side.decoder.start(features)
        self._bias: tuple[np.ndarray, Any] | None = None

    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See StepModel."""
        side, rows = self._side, len(token_ids)
        given = np.zeros((2, bucket(rows) if side.compiled else rows), np.int64)
        given[0, :rows], given[1, :rows] = token_ids, parent_rows
        if self._bias is None or self._bias[0] is not bias:
            self._bias = bias, side.put(bias)
        with side.torch.inference_mode():
            tokens, parents = side.put(given)
            hidden, cell = (state.index_select(0, parents) for state in self._state)
            log_probs, *state = side.run(side.score, tokens, hidden, cell)
            self._state = tuple(state)
            best, ids = (log_probs[:rows] + self._bias[1]).topk(k)
            return ids.cpu().numpy(), best.cpu().numpy()


@dataclass(frozen=True, slots=True)
class Kind:
    """How a side is made, and the precision whose bounds hold for it."""

    precision: str
    make: Callable[[Path, int], Side]
    provider: str | None = None  # of the engine


@dataclass(frozen=True, slots=True)
class Task:
    """What each process works on. reference: features and captions of fp32 on a CPU, for the first images."""

    bundle: Path
    pixels: np.ndarray
    batches: tuple[int, ...]
    seconds: float = 0.5  # of one figure
    features: np.ndarray = field(default_factory=lambda: np.empty(0))
    captions: tuple[tuple[str, float], ...] = ()


def kinds(device: str) -> dict[str, Kind]:
    """Returns the sides of a device, "cuda" or "cpu", in the order in which a budget is spent on them."""

    def engine(provider: str, precision: str, **runtime: Any) -> Kind:
        options = RuntimeOptions(**runtime)
        shown = "fp16" if options.fp16 else precision
        return Kind(shown, partial(Engine, provider=provider, precision=precision, runtime=options), provider)

    def torch(*, half: bool, compiled: bool) -> Kind:
        return Kind("fp16" if half else "fp32", partial(Torch, device=device, half=half, compiled=compiled))

    if device == "cpu":
        return {
            "engine cpu": engine("cpu", "fp32"),
            "torch eager fp32": torch(half=False, compiled=False),
            "torch compile fp32": torch(half=False, compiled=True),
        }
    return {
        "engine cuda fp32": engine("cuda", "fp32"),
        "engine cuda fp32 graphs": engine("cuda", "fp32", cuda_graphs=True),
        "torch eager fp32": torch(half=False, compiled=False),
        "torch eager fp16": torch(half=True, compiled=False),
        "engine cuda fp16": engine("cuda", "fp16"),
        "engine cuda fp16 graphs": engine("cuda", "fp16", cuda_graphs=True),
        "engine tensorrt fp32": engine("tensorrt", "fp32"),
        "engine tensorrt fp16": engine("tensorrt", "fp32", fp16=True, cuda_graphs=True),
        "torch compile fp32": torch(half=False, compiled=True),
        "torch compile fp16": torch(half=True, compiled=True),
        "engine tensorrt-rtx fp32": engine("tensorrt-rtx", "fp32"),
        "engine tensorrt int8": engine("tensorrt", "int8", cuda_graphs=True),
    }


def reference(task: Task) -> dict[str, Any]:
    """Computes what all sides are held against: the first images in fp32 on the CPU."""
    side = Engine(task.bundle, CHECKED, provider="cpu", precision="fp32", runtime=RuntimeOptions())
    pixels = task.pixels[:CHECKED]
    captions = side.caption(pixels, Greedy())
    return {
        "features": np.asarray(side.encode(pixels)).tolist(),
        "captions": [(caption.text, caption.score) for caption in captions],
    }


def check(side: Side, precision: str, task: Task) -> dict[str, Any]:
    """Compares a side's features and captions with the reference; "fault" names what is out of bounds, or is None."""
    pixels, wanted = task.pixels[: len(task.features)], np.asarray(task.features, np.float64)
    found = np.asarray(side.encode(pixels)).astype(np.float64)
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine = float(((found * wanted).sum(axis=1) / norms).min())
    captions = side.caption(pixels, Greedy())
    same = [
        text == caption.text or (precision == "fp32" and abs(score - caption.score) < TIE)
        for (text, score), caption in zip(task.captions, captions, strict=True)
    ]
    share = sum(same) / len(same)
    faults = [
        what
        for holds, what in (
            (error <= TOLERANCE[precision], f"features are off by {error:.1e} (at most {TOLERANCE[precision]:.0e})"),
            (cosine >= COSINE[precision], f"features' cosine is {cosine:.6f} (at least {COSINE[precision]})"),
            (share >= SAME[precision], f"{share:.0%} of the captions are the same (at least {SAME[precision]:.0%})"),
        )
        if not holds  # a NaN holds nowhere
    ]
    return {"error": error, "cosine": cosine, "same_captions": share, "fault": "; ".join(faults) or None}


def work(kind: Kind, task: Task) -> Iterator[dict[str, Any]]:
    """Checks a side, then times it: yields {"check": ...}, then {"batch", "work", "ms"} for each figure.

    The engine has to keep every law of `conformance` too.
    """
    start = time.perf_counter()
    side = kind.make(task.bundle, max(task.batches))
    checked = check(side, kind.precision, task)
    if checked["fault"] is None and isinstance(side, Engine):
        checked["laws"] = len(LAWS)
        checked["fault"] = "; ".join(f"{v.law}: {v.fault}" for v in judge(side.captioner) if v.fault) or None
    yield {"check": checked, "seconds_to_start": time.perf_counter() - start}
    if checked["fault"]:
        return
    for batch in task.batches:
        pixels = task.pixels[np.arange(batch) % len(task.pixels)]
        for name, decoding in WORKS.items():
            call = partial(side.encode, pixels) if decoding is None else partial(side.caption, pixels, decoding)
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
    side = 8192 if device != "cpu" else 512
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16 if device != "cpu" else torch.bfloat16)):
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

        def product(left: Any = left, right: Any = right) -> None:
            torch.mm(left, right)
            if device != "cpu":
                torch.cuda.synchronize()

        rates[name] = 2 * side**3 / median(product, 0.5)
    return rates

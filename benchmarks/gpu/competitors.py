"""What is measured on a GPU machine: the engine by provider, and PyTorch on the GPU. Checks and times nothing."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from engine import Captioner, RuntimeOptions
from engine.bundle.bundle import Bundle
from engine.decoding.constraints import TokenConstraints
from engine.decoding.decode import decode
from engine.decoding.step_model import StepModel
from engine.options import Decoding
from engine.result import Caption
from engine.runtime.cuda.buckets import bucket


class Competitor(Protocol):
    """One way of running the model on uint8 pixels (images, height, width, 3)."""

    def encode(self, pixels: np.ndarray) -> Any:
        """Returns features where the competitor keeps them, computed to the end; numpy can read them."""

    def caption(self, pixels: np.ndarray, decoding: Decoding) -> Sequence[Caption]:
        """Returns a caption for each image."""


class Engine:
    """The engine on one provider."""

    def __init__(self, bundle: Path, most: int, *, provider: str, precision: str, runtime: RuntimeOptions) -> None:
        self.captioner = Captioner(bundle, provider=provider, precision=precision, batch_size=most, runtime=runtime)

    def encode(self, pixels: np.ndarray) -> Any:
        """See Competitor."""
        return self.captioner.model.encoder.encode(pixels)

    def caption(self, pixels: np.ndarray, decoding: Decoding) -> Sequence[Caption]:
        """See Competitor."""
        return self.captioner.caption_features(self.encode(pixels), decoding)


class Torch:
    """PyTorch on a device, the same weights, under the engine's own search: the step is all that differs.

    compiled: torch.compile(mode="reduce-overhead"), which replays CUDA graphs; rows are filled up to buckets for it.
    """

    def __init__(self, bundle: Path, most: int, *, device: str, half: bool, compiled: bool) -> None:
        torch: Any = importlib.import_module("torch")  # some of what is used here has no types

        from benchmarks.baselines.restore import restore_decoder, restore_encoder

        self.torch, self.device, self.compiled = torch, device, compiled
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        self.bundle = Bundle.load(bundle)
        self.dtype = torch.float16 if half else torch.float32
        place: dict[str, Any] = {"device": device, "dtype": self.dtype}
        encoder = restore_encoder(self.bundle)
        self.decoder = restore_decoder(self.bundle).to(**place)
        encoder.network.to(**place, memory_format=torch.channels_last)
        mean, std = encoder.mean.to(**place), encoder.std.to(**place)
        changing = len(self.bundle.manifest.state)  # tensors; what follows is context

        def encode(pixels: Any) -> Any:
            return encoder.of_planes((pixels.permute(0, 3, 1, 2).to(self.dtype) - mean) / std)

        def score(token_ids: Any, *state: Any) -> Any:
            logits, following = self.decoder.step(token_ids, state[:changing], state[changing:])
            return torch.log_softmax(logits.float(), dim=1), *following, *state[changing:]

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
        """Returns features (images, *feature_shape) on the device, perhaps not computed yet."""
        return self.run(self._encode, self.put(pixels))

    def encode(self, pixels: np.ndarray) -> Any:
        """See Competitor."""
        features = self.features(pixels)
        if self.device != "cpu":
            self.torch.cuda.synchronize()
        return _Readable(features)

    def caption(self, pixels: np.ndarray, decoding: Decoding) -> Sequence[Caption]:
        """See Competitor."""
        steps = TorchSteps(self, self.features(pixels))
        vocabulary, defaults = self.bundle.vocabulary, self.bundle.manifest.defaults
        return decode(steps, decoding, TokenConstraints.of(decoding, vocabulary, defaults), vocabulary, defaults)


@dataclass(slots=True)
class _Readable:
    """A tensor on any device that numpy can read on demand."""

    tensor: Any

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.tensor.float().cpu().numpy(), dtype=dtype)


class TorchSteps(StepModel):
    """A StepModel in PyTorch, its state on the device."""

    images = 0

    def __init__(self, model: Torch, features: Any) -> None:
        self.images = len(features)
        self._model = model
        with model.torch.inference_mode():
            state, context = model.decoder.start(features)
            self._state = (*state, *context)  # a row for each sentence
        self._bias: tuple[np.ndarray, Any] | None = None

    def step(
        self, token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See StepModel."""
        model, rows = self._model, len(token_ids)
        given = np.zeros((2, bucket(rows) if model.compiled else rows), np.int64)
        given[0, :rows], given[1, :rows] = token_ids, parent_rows
        if self._bias is None or self._bias[0] is not bias:
            self._bias = bias, model.put(bias)
        with model.torch.inference_mode():
            tokens, parents = model.put(given)
            gathered = (state.index_select(0, parents) for state in self._state)
            log_probs, *state = model.run(model.score, tokens, *gathered)
            self._state = tuple(state)
            best, ids = (log_probs[:rows] + self._bias[1]).topk(k)
            return ids.cpu().numpy(), best.cpu().numpy()


@dataclass(frozen=True, slots=True)
class Kind:
    """How a competitor is made, and the precision whose bounds hold for it."""

    precision: str
    make: Callable[[Path, int], Competitor]
    provider: str | None = None  # of the engine


def kinds(device: str) -> dict[str, Kind]:
    """Returns the competitors of a device, "cuda" or "cpu", in the order in which a budget is spent on them."""

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

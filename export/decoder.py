"""A decoder's graphs: first state and context, the portable single step, and the steps that a search runs.

A decoder is any torch module with `start(features) -> (state, context)` and `step(token_ids, state, context) ->
(logits, state)`, where state and context are tuples of tensors, a row for each image or sentence. Knows nothing of
files or encoders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional

from engine.bundle.manifest import DTYPES, ContextTensor, StateTensor
from export.errors import ExportError
from export.fused_steps import TABLE_BYTES, fused_step
from export.graph_builder import GraphBuilder
from export.graphs import trace
from export.selection import Choose, sample, search
from training.models.attention import AttentionDecoder
from training.models.decoder import CaptionDecoder

ATTENTION = "step_with_attention"
"""A method like `step` that also returns where the decoder looked, float32 (rows, height, width)."""
CHOICES: dict[str, Choose] = {"search_step": search, "sample_step": sample}


@dataclass(frozen=True, slots=True)
class Layout:
    """What a decoder's tensors are: the manifest's feature_shape, state, context, attention and number of words."""

    feature_shape: tuple[int, ...]
    state: tuple[StateTensor, ...]
    context: tuple[ContextTensor, ...]
    attention: tuple[int, ...]
    words: int

    @classmethod
    @torch.no_grad()
    def of(cls, decoder: nn.Module, feature_shape: tuple[int, ...]) -> "Layout":
        """Runs a decoder once to see. Raises ExportError for one that does not follow the protocol."""
        features, token_ids = torch.zeros(2, *feature_shape), torch.zeros(2, dtype=torch.int64)
        state, context = _tuples(_call(decoder, "start", features), "start", "(state, context)")
        logits, following = _call(decoder, "step", token_ids, state, context)
        if not isinstance(logits, Tensor) or logits.shape[:1] != (2,) or logits.ndim != 2:
            raise ExportError("decoder.step must return logits of shape (rows, vocabulary) first")
        if [(each.shape, each.dtype) for each in following] != [(each.shape, each.dtype) for each in state]:
            raise ExportError("decoder.step must return the state with the shapes and types that decoder.start gave it")
        if not state or any(each.shape[:1] != (2,) for each in (*state, *context)):
            raise ExportError("decoder.start must return at least one state tensor, each with a row for each image")
        attention = tuple(
            _call(decoder, ATTENTION, token_ids, state, context)[2].shape[1:] if _attends(decoder) else ()
        )
        names = _names(decoder, "state", len(state))
        return cls(
            feature_shape=feature_shape,
            state=tuple(
                StateTensor(name, f"next_{name}", _dtype(each), tuple(each.shape[1:]))
                for name, each in zip(names, state, strict=True)
            ),
            context=tuple(
                ContextTensor(name, _dtype(each), tuple(each.shape[1:]))
                for name, each in zip(_names(decoder, "context", len(context)), context, strict=True)
            ),
            attention=attention,
            words=logits.shape[1],
        )

    @property
    def names(self) -> list[str]:
        """State and context, by name."""
        return [*(each.name for each in self.state), *(part.name for part in self.context)]

    @property
    def following(self) -> list[str]:
        """The next state, by name."""
        return [each.next for each in self.state]


class _Start(nn.Module):
    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        state, context = self.decoder.start(features)
        return tuple(each.clone() for each in (*state, *context))  # one value cannot be two outputs


class _Step(nn.Module):
    """One step on rows; attends: also returns the attention."""

    def __init__(self, decoder: Any, layout: Layout, *, attends: bool, normalised: bool) -> None:
        super().__init__()
        self.decoder = decoder
        self.count = len(layout.state)
        self.attends = attends
        self.normalised = normalised

    def forward(self, token_ids: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        step = getattr(self.decoder, ATTENTION if self.attends else "step")
        logits, state, *maps = step(token_ids, given[: self.count], given[self.count :])
        scores = functional.log_softmax(logits, dim=-1) if self.normalised else logits
        return scores, *state, *maps


def init_graph(decoder: nn.Module, layout: Layout) -> ModelProto:
    """Exports features (batch, *feature_shape) -> state and context (batch, ...)."""
    features = torch.zeros(2, *layout.feature_shape)
    model = trace(_Start(decoder), {"features": features}, layout.names, "batch")
    model.graph.name = "decoder_init"
    return model


def step_graph(decoder: nn.Module, layout: Layout) -> ModelProto:
    """Exports token_ids (rows), state and context (rows, ...) -> log_probs (rows, words), next state, attention."""
    step = _Step(decoder, layout, attends=bool(layout.attention), normalised=True)
    outputs = ["log_probs", *layout.following, *(["attention"] if layout.attention else [])]
    model = trace(step, _examples(layout), outputs, "rows")
    model.graph.name = "decoder_step"
    return model


def search_graphs(decoder: nn.Module, layout: Layout, table_bytes: int = TABLE_BYTES) -> dict[str, ModelProto]:
    """Builds search_step and sample_step, which gather state and context, step and choose words in one run.

    Both take token_ids, parent_rows int64 (rows), the state (state_rows, ...), of which they gather parent_rows, with
    context also image_rows int64 (rows) and the context (images, ...), of which they gather image_rows, and bias
    (bias_rows, vocabulary; bias_rows is 1 or rows), which is added to the log-probabilities. For what they add, see
    export.selection. The decoders that are trained here have a step written by hand; any other is traced.
    """
    fused = type(decoder) in (CaptionDecoder, AttentionDecoder)
    core = None if fused else _core(decoder, layout)
    return {name: _search_graph(name, choose, decoder, layout, core, table_bytes) for name, choose in CHOICES.items()}


def _core(decoder: nn.Module, layout: Layout) -> ModelProto:
    """Traces a step that takes gathered rows and returns logits."""
    step = _Step(decoder, layout, attends=False, normalised=False)
    return trace(step, _examples(layout), ["logits", *layout.following], "rows")


def _search_graph(
    name: str, choose: Choose, decoder: nn.Module, layout: Layout, core: ModelProto | None, table_bytes: int
) -> ModelProto:
    graph, ids = GraphBuilder(), TensorProto.INT64
    graph.input("token_ids", ids, "rows")
    graph.input("parent_rows", ids, "rows")
    for each in layout.state:
        graph.input(each.name, _onnx_type(each.dtype), "state_rows", *each.shape)
    if layout.context:
        graph.input("image_rows", ids, "rows")
    for part in layout.context:
        graph.input(part.name, _onnx_type(part.dtype), "images", *part.shape)
    graph.input("bias", TensorProto.FLOAT, "bias_rows", layout.words)
    state = [graph.node("Gather", each.name, "parent_rows", axis=0) for each in layout.state]
    context = [graph.node("Gather", part.name, "image_rows", axis=0) for part in layout.context]
    if core is None:
        assert isinstance(decoder, CaptionDecoder)
        logits = fused_step(graph, decoder, state, context, layout.following, table_bytes)
    else:
        logits = "logits"
        kept = {each: each for each in ("token_ids", logits, *layout.following)}
        graph.merge(core, kept | dict(zip(layout.names, [*state, *context], strict=True)), prefix="step.")
    choose(graph, logits, layout.words)
    for each in layout.state:
        graph.output(each.next, _onnx_type(each.dtype), "rows", *each.shape)
    return graph.model(name)


def _examples(layout: Layout) -> dict[str, Tensor]:
    tensors: list[StateTensor | ContextTensor] = [*layout.state, *layout.context]
    given = {each.name: torch.from_numpy(np.zeros((2, *each.shape), each.dtype)) for each in tensors}
    return {"token_ids": torch.zeros(2, dtype=torch.int64), **given}


def _onnx_type(dtype: str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _attends(decoder: nn.Module) -> bool:
    return hasattr(decoder, ATTENTION)


def _call(decoder: nn.Module, method: str, *given: Any) -> Any:
    if not callable(getattr(decoder, method, None)):
        raise ExportError(f"the decoder has no method {method}: see docs/bring-your-own.md for what it must have")
    return getattr(decoder, method)(*given)


def _tuples(found: Any, method: str, what: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    if (
        not isinstance(found, tuple)
        or len(found) != 2
        or not all(isinstance(part, tuple) and all(isinstance(each, Tensor) for each in part) for part in found)
    ):
        raise ExportError(f"decoder.{method} must return {what}, two tuples of tensors")
    return found


def _names(decoder: nn.Module, kind: str, count: int) -> Sequence[str]:
    """Returns the names that a decoder gives its tensors in `state_names` or `context_names`, or numbered ones."""
    names: Sequence[str] = getattr(decoder, f"{kind}_names", ())
    return names if len(names) == count else [f"{kind}_{i}" for i in range(count)]


def _dtype(tensor: Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ExportError(f"state and context must be tensors of {', '.join(DTYPES)}, not {name}")
    return name

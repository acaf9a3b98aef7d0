"""Nothing is trusted that was not shown to compute what the CPU computes: each kind of wrongness is found and named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Captioner, ProviderError, RuntimeOptions
from engine.bundle.bundle import Bundle
from engine.cache import forget
from engine.runtime import graphs as graphs_module
from engine.runtime.graphs import Graphs
from engine.runtime.placement import Placement
from engine.runtime.steps import Steps
from engine.selfcheck import compare as comparison
from engine.selfcheck import verify
from engine.selfcheck.compare import compare
from engine.selfcheck.verify import require_shown


class Stale:
    """A session of a provider with memory of its own: what is bound is copied once, and not looked at again."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def io_binding(self) -> Any:
        return CopyingBinding(self.real.io_binding())

    def run_with_iobinding(self, binding: "CopyingBinding") -> None:
        for own, source in binding.to_copy:
            own[:] = source
        binding.to_copy.clear()
        self.real.run_with_iobinding(binding.real)


class CopyingBinding:
    def __init__(self, real: Any) -> None:
        self.real = real
        self.to_copy: list[tuple[np.ndarray, np.ndarray]] = []

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        self.to_copy.append((np.zeros_like(array), array))
        self.real.bind_cpu_input(name, self.to_copy[-1][0])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def opened(bundle: Path, name: str = "openvino", precision: str = "fp32") -> Graphs:
    return Graphs(Bundle.load(bundle), Placement.of(name), precision, RuntimeOptions())


def spoiled(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any, str, tuple[Any, ...]], Any]) -> None:
    """Lets change(call, verb, arguments) take the place of the steps of every model but the reference's."""
    real = {verb: getattr(Steps, verb) for verb in ("step", "draw")}
    for verb in real:

        def spoil(self: Steps, *arguments: Any, verb: str = verb) -> Any:
            call = real[verb].__get__(self)
            sessions: Any = getattr(
                self._buffers.session, "func", self._buffers.session
            )  # of a running batch: a partial
            is_reference = sessions._placement.name == "cpu"
            return call(*arguments) if is_reference else change(call, verb, arguments)

        monkeypatch.setattr(Steps, verb, spoil)


@pytest.mark.usefixtures("other")
def test_what_computes_the_same_differs_by_nothing(tiny_bundle: Path) -> None:
    found = compare(opened(tiny_bundle), opened(tiny_bundle, "cpu"), 8)
    assert {each.graph: each.found for each in found} == dict.fromkeys(
        ["encoder", comparison.FIRST, "search_step", "sample_step"], 0.0
    )
    assert all(each.passed for each in found)


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("stale", ["search_step", "sample_step"])  # others are bound anew for every run
def test_a_graph_that_goes_on_with_what_was_bound_first_is_refused_by_name(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, stale: str
) -> None:
    opens = graphs_module._Sessions.__call__

    def session(self: Any, name: str, threads: int = 0) -> Any:
        real = opens(self, name, threads)
        return Stale(real) if name == stale and self._placement.name != "cpu" else real

    monkeypatch.setattr(graphs_module._Sessions, "__call__", session)
    with pytest.raises(ProviderError) as caught:
        require_shown(opened(tiny_bundle))
    message = str(caught.value)
    assert message.startswith("provider 'openvino+cpu' in fp32 gives wrong results here compared with cpu in fp32: ")
    assert f"{stale} differs by " in message
    assert " where 0.002 is allowed" in message


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("factor", [1.01, 0.0, np.nan, -1.0])
def test_an_encoder_that_is_a_hundredth_off_is_refused(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    wrong = opened(tiny_bundle)
    encode = wrong.encoder.encode
    monkeypatch.setattr(wrong.encoder, "encode", lambda pixels: np.asarray(encode(pixels)) * np.float32(factor))
    with pytest.raises(ProviderError, match=r"'openvino\+cpu'.*: encoder differs by .* where 0\.001 is allowed"):
        require_shown(wrong)


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize(("way", "most"), [("encode", 9), ("encode_in_lane", 5)])
def test_an_encoder_that_is_wrong_in_its_largest_batches_alone_is_refused(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, way: str, most: int
) -> None:
    wrong = Graphs(Bundle.load(tiny_bundle), Placement.of("openvino"), "fp32", RuntimeOptions())
    wrong.encoder.lanes = 2  # as on the CPU
    encode = getattr(wrong.encoder, way)
    monkeypatch.setattr(wrong.encoder, way, lambda pixels: encode(pixels) * np.float32(len(pixels) < most))
    for batch_size in (1, 32):  # a proof with small batches must not answer for large ones
        with pytest.raises(ProviderError, match=r"encoder differs by 1 "):
            require_shown(wrong, batch_size)


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize(("name", "batch_size", "largest"), [("tensorrt-rtx", 1, 1), ("tensorrt-rtx", 4, 4)])
def test_what_is_built_for_so_many_images_is_shown_no_more(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str, batch_size: int, largest: int
) -> None:
    monkeypatch.setattr(verify, "saved_engine", lambda *given: None)
    built, sizes = opened(tiny_bundle, name), list[int]()
    encode = built.encoder.encode

    def note(pixels: np.ndarray) -> Any:
        sizes.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(built.encoder, "encode", note)
    require_shown(built, batch_size)
    assert max(sizes) == largest
    assert min(sizes) == 1


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("options", [RuntimeOptions(tf32=True), RuntimeOptions(fp16=True)])
def test_options_that_round_are_held_to_what_rounding_costs(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, options: RuntimeOptions
) -> None:
    monkeypatch.setattr(graphs_module, "open_session", lambda *given: None)
    bundle, kept = Bundle.load(tiny_bundle), []
    for name in ("cuda", "tensorrt", "openvino"):
        made = Graphs(bundle, Placement.of(name), "fp32", options)
        kept.append(comparison.arithmetic_of(made))
    assert kept == ["fp16" if options.tf32 else "fp32", "fp16", "fp32"]


def _shift_words(call: Any, verb: str, arguments: tuple[Any, ...]) -> Any:
    ids, values = call(*arguments)
    return (ids + 1) % arguments[2].shape[1], values


def _shift_values(call: Any, verb: str, arguments: tuple[Any, ...]) -> Any:
    ids, values = call(*arguments)
    return ids, values + np.float32(0.01)


def _first_parent(call: Any, verb: str, arguments: tuple[Any, ...]) -> Any:
    tokens, parents, *rest = arguments
    return call(tokens, np.zeros_like(parents), *rest)


def _forget_bias(call: Any, verb: str, arguments: tuple[Any, ...]) -> Any:
    tokens, parents, bias, *rest = arguments
    return call(tokens, parents, np.zeros_like(bias), *rest)


def _first_token(call: Any, verb: str, arguments: tuple[Any, ...]) -> Any:
    tokens, *rest = arguments
    return call(np.repeat(tokens[:1], len(tokens)), *rest)


def _same_draw(call: Any, verb: str, arguments: tuple[Any, ...]) -> Any:
    return call(*arguments[:-1], np.ones_like(arguments[-1])) if verb == "draw" else call(*arguments)


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize(
    ("change", "graph"),
    [
        (_shift_words, "search_step"),
        (_shift_words, "sample_step"),
        (_shift_values, "search_step"),
        (_first_parent, "search_step"),
        (_forget_bias, "search_step"),
        (_forget_bias, "sample_step"),
        (_first_token, "search_step"),
        (_same_draw, "sample_step"),
    ],
)
def test_every_kind_of_wrong_step_is_refused_by_the_name_of_its_graph(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, change: Any, graph: str
) -> None:
    spoiled(monkeypatch, change)
    with pytest.raises(ProviderError, match=rf"{graph} differs by"):
        require_shown(opened(tiny_bundle))


@pytest.mark.usefixtures("other")
def test_the_cpu_in_another_precision_is_shown_too_and_before_others_in_it(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, str, str]] = []

    def note(mine: Graphs, its: Graphs, batch_size: int) -> list[Any]:
        seen.append((mine.placement.name, mine.precision, its.placement.name, its.precision))
        return []

    monkeypatch.setattr(verify, "compare", note)
    require_shown(opened(tiny_bundle, "cpu"))
    assert seen == []  # everything is compared with it in the end
    shipped = Bundle.load(None)
    require_shown(Graphs(shipped, Placement.of("openvino"), "int8", RuntimeOptions()))
    assert seen == [("cpu", "int8", "cpu", "fp32"), ("openvino+cpu", "int8", "cpu", "int8")]


@pytest.mark.usefixtures("other")
def test_a_run_that_fails_is_refused_by_provider_and_reason(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(call: Any, verb: str, arguments: tuple[Any, ...]) -> Any:
        raise RuntimeError("indices out of\n bounds")

    spoiled(monkeypatch, fail)
    with pytest.raises(ProviderError, match=r"'openvino\+cpu' in fp32 fails here, .*: indices out of bounds"):
        require_shown(opened(tiny_bundle))


@pytest.mark.usefixtures("other")
def test_where_the_cpu_is_wrong_in_a_precision_others_are_compared_with_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []

    def note(mine: Graphs, its: Graphs, batch_size: int) -> list[Any]:
        seen.append((mine.placement.name, its.precision))
        return [comparison.Difference("encoder", 9.0 if mine.placement.name == "cpu" else 0.0, 1.0)]

    monkeypatch.setattr(verify, "compare", note)
    shipped = Bundle.load(None)
    require_shown(Graphs(shipped, Placement.of("openvino"), "int8", RuntimeOptions()))
    assert seen == [("cpu", "fp32"), ("openvino+cpu", "fp32")]
    with pytest.raises(ProviderError, match="'cpu' in int8 gives wrong results"):
        require_shown(Graphs(shipped, Placement.of("cpu"), "int8", RuntimeOptions()))


def test_where_a_faster_precision_is_wrong_auto_goes_on_to_fp32_and_says_so(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "compare", lambda *given: [comparison.Difference("encoder", 9.0, 1.0)])
    monkeypatch.setattr("engine.autotune.select.AUTO_ORDER", ("cpu",))
    with pytest.warns(RuntimeWarning, match=r"'cpu' in int8 gives wrong results here .*; trying"):
        captioner = Captioner()
    assert (captioner.provider, captioner.precision) == ("cpu", "fp32")
    with pytest.raises(ProviderError, match="in int8 gives wrong results"):
        Captioner(precision="int8")


@pytest.mark.usefixtures("other")
def test_what_failed_is_tried_again(tiny_bundle: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        spoiled(patch, _shift_words)
        for _ in range(2):
            with pytest.raises(ProviderError):
                require_shown(opened(tiny_bundle))
    require_shown(opened(tiny_bundle))
    assert len(runs) == 3


@pytest.mark.usefixtures("other")
def test_a_captioner_does_not_open_what_computes_something_else(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Captioner(tiny_bundle, provider="openvino", precision="fp32").provider == "openvino+cpu"
    forget(verify.KIND, tiny_bundle)
    spoiled(monkeypatch, _first_parent)
    with pytest.raises(ProviderError, match=r"'openvino\+cpu' in fp32 gives wrong results here .* cpu in fp32"):
        Captioner(tiny_bundle, provider="openvino", precision="fp32")

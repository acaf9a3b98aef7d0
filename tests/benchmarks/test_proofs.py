"""The proof that all competitors give the same is one: it fails for a model, or a picture, that is only similar."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.baselines.careful import CHUNKS, Careful
from benchmarks.baselines.eager import Eager
from benchmarks.baselines.plain_session import PlainSession
from benchmarks.baselines.restore import restore_decoder
from benchmarks.baselines.search import State
from benchmarks.harness.competitors import BASELINES, DECODER, ENCODER, WHOLE, Competitors, Kind
from benchmarks.harness.workloads import WORKLOADS, follow
from export.bundle import export_bundle
from tests.export.runs import attending_decoder, write_run
from training.models.attention import AttentionDecoder

BATCH = 8
OF_DECODERS = sorted(name for name, work in WORKLOADS.items() if work.part in (DECODER, WHOLE))


def test_other_weights_are_noticed(competitors: Competitors, monkeypatch: pytest.MonkeyPatch) -> None:
    other = restore_decoder(competitors.bundle)
    other.initial.weight.mul_(0.8)
    other.output.bias.mul_(0.5)
    monkeypatch.setattr(competitors["eager"], "decoder", other)
    for work in OF_DECODERS:
        with pytest.raises(AssertionError):
            WORKLOADS[work].task(competitors, "eager", BATCH)


def test_baselines_do_what_the_engine_does_with_attention_too(tmp_path: Path) -> None:
    encoder = "test_efficientnet"
    run = write_run(tmp_path / "run", attending_decoder(encoder), encoder)
    export_bundle(run, tmp_path / "bundle")
    attending = Competitors(tmp_path / "bundle", most=4)
    assert attending.features.ndim == 4
    assert {"eager", "onnxruntime"} <= attending.kinds.keys()
    for work in ("encoder", *OF_DECODERS):
        for name in ("eager", "onnxruntime", "openvino latency"):
            if name in attending.kinds:
                WORKLOADS[work].task(attending, name, 4)
    restored = restore_decoder(attending.bundle)
    assert isinstance(restored, AttentionDecoder)
    assert restored.config == replace(attending_decoder(encoder).config, tied=restored.config.tied)


@pytest.mark.parametrize(
    ("name", "parts", "factor"),
    [
        ("onnxruntime", (DECODER, WHOLE), 1.1),
        ("onnxruntime int8", (DECODER,), 1.1),  # its decoder is exact, its encoder is not
        ("onnxruntime int8", (WHOLE,), 3.0),
    ],
)
def test_another_step_is_noticed(
    competitors: Competitors, monkeypatch: pytest.MonkeyPatch, name: str, parts: tuple[str, ...], factor: float
) -> None:
    right = PlainSession.score

    def wrong(self: PlainSession, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        log_probs, state = right(self, token_ids, state)
        return log_probs * factor, state

    monkeypatch.setattr(PlainSession, "score", wrong)
    for work in OF_DECODERS:
        if WORKLOADS[work].part in parts:
            with pytest.raises(AssertionError):
                WORKLOADS[work].task(competitors, name, BATCH)


def test_another_picture_is_noticed(competitors: Competitors, monkeypatch: pytest.MonkeyPatch) -> None:
    negative = competitors["eager"].prepare(255 - competitors.pixels[:1])
    monkeypatch.setattr(competitors["eager"], "pixels", lambda files: negative)
    for work in ("image decoding", "end to end, greedy"):
        with pytest.raises(AssertionError):
            WORKLOADS[work].task(competitors, "eager", 1)


@pytest.mark.parametrize("exact", [True, False])
def test_other_features_are_noticed_even_where_they_need_not_be_exact(
    competitors: Competitors, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    kind = Kind("benchmarks.baselines.eager", "Eager", frozenset((ENCODER,)), exact=exact)
    monkeypatch.setitem(competitors.kinds, "similar", kind)
    monkeypatch.setitem(competitors.made, "similar", similar := Eager(competitors.bundle))
    WORKLOADS["encoder"].task(competitors, "similar", BATCH)
    noise = np.random.default_rng(0).standard_normal(competitors.features[:BATCH].shape).astype(np.float32)
    scale = competitors.features[:BATCH].std() * (1 if not exact else 0.02)
    monkeypatch.setattr(similar, "encode", lambda pixels: competitors.features[:BATCH] + scale * noise)
    with pytest.raises(AssertionError):
        WORKLOADS["encoder"].task(competitors, "similar", BATCH)


def test_a_word_that_its_number_does_not_draw_is_noticed(competitors: Competitors) -> None:
    log_probs = np.log([[0.5, 0.3, 0.2]])
    assert follow([[1]], np.array([0.6]), competitors.bundle.vocabulary)(0, log_probs).tolist() == [1]
    for number in (0.4, 0.9):
        with pytest.raises(AssertionError, match="draws other words"):
            follow([[1]], np.array([number]), competitors.bundle.vocabulary)(0, log_probs)


def test_another_first_sentence_is_noticed(competitors: Competitors, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Kind.first_caption

    def wrong(self: Kind, bundle: Path, file: Path) -> str:
        return "print('a dog')" if self.name == "Eager" else right(self, bundle, file)

    monkeypatch.setattr(Kind, "first_caption", wrong)
    with pytest.raises(AssertionError, match="says 'a dog'"):
        WORKLOADS["start-up"].task(competitors, "eager", 1)


def test_every_baseline_does_work_of_its_own() -> None:
    parts = {work.part for work in WORKLOADS.values()}
    assert all(kind.parts and kind.parts <= parts for kind in BASELINES.values())


def test_features_are_the_same_in_any_chunks(competitors: Competitors) -> None:
    pixels, careful = competitors.pixels[:5], Careful.__new__(Careful)
    careful.encoder = competitors["eager"].encoder  # type: ignore[attr-defined]
    whole = careful.encode_in_chunks(pixels, 5)
    np.testing.assert_allclose(careful.encode_in_chunks(pixels, 2), whole, rtol=0, atol=1e-4)
    assert all(chunk > 0 for chunk in CHUNKS)

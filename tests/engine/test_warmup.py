"""Warming up: everything has run once, on a GPU in every bucket, and what a provider built can be saved."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Beam, Captioner, Greedy, OptionsError, RuntimeOptions, Sample
from engine import warmup as module
from engine.cli import main
from engine.commands import warmup
from engine.runtime.cuda.buckets import BUCKETS
from engine.warmup import save_engines, warm_up


def test_on_a_cpu_one_image_and_a_full_batch_are_captioned_twice(tiny_captioner: Captioner) -> None:
    warmed = warm_up(tiny_captioner.model)
    assert [(w.batch_size, w.decoding) for w in warmed] == [(n, d) for d in (Greedy(), Beam()) for n in (1, 8)]
    assert all(w.first > 0 and w.second > 0 for w in warmed)


def test_batch_sizes_and_decodings_can_be_chosen(tiny_captioner: Captioner) -> None:
    warmed = warm_up(tiny_captioner.model, [2, 5], [Beam(beam_size=2)])
    assert [(w.batch_size, w.decoding) for w in warmed] == [(2, Beam(beam_size=2)), (5, Beam(beam_size=2))]
    assert warm_up(tiny_captioner.model, [], [Greedy()]) == []


@pytest.mark.parametrize("size", [0, 9, 1.5])
def test_a_batch_that_never_runs_is_refused(tiny_captioner: Captioner, size: Any) -> None:
    with pytest.raises(OptionsError, match=r"batch_sizes must be whole numbers from 1 to 8"):
        warm_up(tiny_captioner.model, [size])


class Recorder:
    """Graphs that note every batch and every step."""

    def __init__(self, graphs: Any) -> None:
        self.graphs = graphs
        self.on_device = True
        self.kinds: list[tuple[int, int, bool]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.graphs, name)

    def start(self, features: np.ndarray) -> Any:
        model, kinds, step = (steps := self.graphs.start(features)), self.kinds, steps.step

        def note(token_ids: np.ndarray, parent_rows: np.ndarray, bias: np.ndarray, k: int) -> Any:
            kinds.append((len(token_ids), k, len(bias) == 1))
            return step(token_ids, parent_rows, bias, k)

        model.step = note
        return model


def test_on_a_gpu_every_bucket_is_run_in_both_slots(tiny_captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(tiny_captioner.model.graphs)
    monkeypatch.setattr(tiny_captioner.model, "graphs", recorder)
    warmed = warm_up(tiny_captioner.model, decodings=[Sample(num_samples=2, top_k=4, no_repeat_ngram_size=2)])
    assert [w.batch_size for w in warmed] == [1, 2, 4, 8]
    for rows in (size for size in BUCKETS if size <= 16):
        for shared in (True, False) if rows > 1 else (True,):
            assert recorder.kinds.count((rows, 4, shared)) >= 2, (rows, shared)


def test_the_engines_of_the_graphs_that_run_are_saved(
    tiny_captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(folder: Path, graph: Any, provider: Any, options: Any) -> Path | None:
        assert (folder, provider.name, options) == (
            tiny_captioner.bundle.path,
            "cpu",
            tiny_captioner.model.graphs.options,
        )
        return None if graph.graph == "decoder_init" else Path(graph.file)

    monkeypatch.setattr(module, "save_engine", save)
    held = {graph.file for graph in tiny_captioner.bundle.manifest.graphs}
    expected = held - {"decoder_init.onnx", "decoder_step.onnx"}
    assert (
        {path.name for path in save_engines(tiny_captioner.model)} == expected >= {"encoder.onnx", "search_step.onnx"}
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.cli.COMMANDS", (warmup.add,))


@pytest.mark.usefixtures("command")
def test_the_command_says_how_long_the_first_and_the_second_call_took(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["warmup", "--provider", "cpu", "--batch-size", "3", "--bundle", str(tiny_bundle), "--save"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "provider cpu, precision fp32"
    assert out[1].split() == ["batch", "decoding", "first", "call", "second", "call"]
    assert [line.split()[:2] for line in out[2:6]] == [["1", "greedy"], ["3", "greedy"], ["1", "beam"], ["3", "beam"]]
    assert out[6:] == ["provider cpu builds no engines: nothing to save"]


@pytest.mark.usefixtures("command")
def test_the_command_saves_where_it_is_told_to(
    tiny_captioner: Captioner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[dict[str, Any]] = []

    def factory(bundle: Any, **options: Any) -> Captioner:
        made.append(options)
        return tiny_captioner

    monkeypatch.setattr(warmup, "save_engines", lambda captioner: [Path("engines/x/engine.onnx")])
    assert main(["warmup", "--save", "engines", "--json"], factory) == 0
    assert made[0]["runtime"] == RuntimeOptions(engine_cache="engines")
    facts = json.loads(capsys.readouterr().out)
    assert facts["saved"] == [str(Path("engines/x/engine.onnx"))]
    assert {call["decoding"] for call in facts["calls"]} == {"Greedy", "Beam"}
    assert main(["warmup"], factory) == 0
    assert made[1]["runtime"] == RuntimeOptions()
    assert "saved" not in capsys.readouterr().out

"""A Captioner on a fake CUDA machine: what it says is what it says on the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from engine import Beam, Captioner, Greedy, RuntimeOptions, Sample, Scheduler
from engine.bundle.manifest import GraphFile
from engine.options import Decoding
from engine.runtime import graphs, placement
from engine.runtime.cuda import device
from engine.runtime.options import RuntimeOptions as Options
from engine.runtime.providers import CAPTURED, PROVIDERS, Provider
from engine.runtime.sessions import open_session as open_real_session
from tests.engine.runtime.cuda.fake_cuda import FakeCuda, FakeSession

Open = Callable[..., Captioner]


@pytest.fixture
def opened(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """opened(provider, cuda_graphs=...) is a captioner on a machine of its own."""
    cuda = FakeCuda()

    def open_session(folder: Path, graph: GraphFile, provider: Provider, options: Options) -> Any:
        if provider.name == "cpu":  # a half that runs there, or the captioner to compare with
            return open_real_session(folder, graph, provider, options)
        real = onnxruntime.InferenceSession(str(folder / graph.file), providers=["CPUExecutionProvider"])
        return FakeSession(cuda, real, graphs=options.cuda_graphs and graph.graph in CAPTURED)

    monkeypatch.setattr(graphs, "open_session", open_session)
    monkeypatch.setattr(placement, "find_provider", lambda name: PROVIDERS[name])
    monkeypatch.setattr(device, "onnxruntime", lambda: cuda)

    def opened(provider: str, *, cuda_graphs: bool = False) -> Captioner:
        runtime = RuntimeOptions(cuda_graphs=cuda_graphs)
        return Captioner(tiny_bundle, provider=provider, precision="fp32", batch_size=8, runtime=runtime)

    return opened


@pytest.fixture(params=[False, True], ids=["plain", "cuda graphs"])
def captioner(request: pytest.FixtureRequest, opened: Open) -> Captioner:
    return opened("cuda", cuda_graphs=request.param)


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (20 + i, 30, 3), np.uint8) for i in range(10)]


@pytest.mark.parametrize("provider", ["cuda+cpu", "cpu+cuda"])
def test_halves_on_two_providers_say_what_the_cpu_says(
    opened: Open, tiny_captioner: Captioner, photographs: list[np.ndarray], provider: str
) -> None:
    mixed = opened(provider)
    assert mixed.provider == provider
    mixed.warmup()
    for decoding in (Greedy(), Beam(beam_size=3), Sample(num_samples=2, seed=3)):
        ours, theirs = (each.caption(photographs, decoding) for each in (mixed, tiny_captioner))
        assert [caption.tokens for caption in ours] == [caption.tokens for caption in theirs]
    with Scheduler(mixed) as scheduler:
        futures = [scheduler.submit(image) for image in photographs]
        assert [future.result().text for future in futures] == [c.text for c in tiny_captioner.caption(photographs)]


def test_the_scheduler_leaves_features_on_the_device(
    captioner: Captioner, tiny_captioner: Captioner, photographs: list[np.ndarray]
) -> None:
    ways: list[Decoding] = [Greedy(), Beam(beam_size=2), Sample(seed=1, top_k=5, temperature=0.7), Greedy(min_length=4)]
    asked = [(image, ways[i % len(ways)]) for i, image in enumerate(photographs)]
    with Scheduler(captioner, max_wait_ms=20.0) as scheduler:
        cuda = captioner.model.graphs.session("encoder").cuda
        cuda.downloads.clear()  # of warming up
        ours = [future.result() for future in [scheduler.submit(image, way) for image, way in asked]]
        steps = sum(scheduler.stats().step_rows.counts)  # all of one kind: a run each
    assert len(cuda.downloads) == steps
    theirs = [tiny_captioner.caption([image], way)[0] for image, way in asked]
    assert [caption.text for caption in ours] == [caption.text for caption in theirs]
    np.testing.assert_allclose([c.score for c in ours], [c.score for c in theirs], rtol=0, atol=1e-4)


def test_after_warming_up_nothing_is_captured_any_more(captioner: Captioner, photographs: list[np.ndarray]) -> None:
    decodings: list[Decoding] = [Greedy(), Sample(seed=1), Beam(beam_size=3)]
    captioner.warmup(decodings=decodings)
    runs = captioner.model.graphs.session("search_step").cuda.runs
    captured = sum(run.startswith("capture") for run in runs)
    for images in (1, 3, 8, 10):
        for decoding in decodings:
            captioner.caption(photographs[:images], decoding)
    assert sum(run.startswith("capture") for run in runs) == captured

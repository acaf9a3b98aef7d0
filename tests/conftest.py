"""A tiny model of drawn shapes, trained and exported once in a session of tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Captioner
from tests.decoders import AttentionDecoder, CountingDecoder, export
from tests.drawn import write_drawn_data


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache folder: what the user's own machine was tuned to must not decide what the tests see."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("CAPTIONING_ENGINE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def drawn_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of drawn shapes, in the Flickr8k layout."""
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_drawn_data(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_run(drawn_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training run on the drawn shapes."""
    from training.train import main

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    sizes = "--units 48 --embedding 16 --bottleneck 32 --logit-hidden 24 --min-count 1"
    length = "--epochs 3 --batches 150 --batch-size 16 --validation-batches 2 --learning-rate 0.01 --schedule cosine"
    files = ["--data", str(drawn_data), "--output", str(folder), "--threads", "1"]
    assert main([*files, "--encoder", "test_vit", "--encoder-weights", "random", *sizes.split(), *length.split()]) == 0
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Path) -> Path:
    """The bundle of that run."""
    from export.to_onnx import main

    folder = tiny_run.parent / "bundle"
    assert main(["--checkpoint", str(tiny_run), "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def attention_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a decoder with attention and a vocabulary of its own, in all precisions."""
    return export(AttentionDecoder, tmp_path_factory.mktemp("decoders") / "attention", ("fp32", "int8", "fp16"))


@pytest.fixture(scope="session")
def counting_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a decoder whose state has other types and ranks than an LSTM's."""
    return export(CountingDecoder, tmp_path_factory.mktemp("decoders") / "counting", ("fp32", "int8"))


@pytest.fixture(scope="session")
def tiny_captioner(tiny_bundle: Path) -> Captioner:
    """A captioner of the tiny bundle on the CPU."""
    return Captioner(tiny_bundle, provider="cpu", batch_size=8)

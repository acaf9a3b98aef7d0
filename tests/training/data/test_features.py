import fcntl
import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from engine.bundle.manifest import ImageSpec
from engine.images.load import load_pixels
from training.data.datasets import DataError, DataReport, Example
from training.data.features import FeatureStore, compute_features
from training.data.views import View
from training.models.encoders import Encoder, EncoderError

IMAGE = ImageSpec(6, 8, (127.0, 120.0, 110.0), (64.0, 60.0, 50.0))
COUNT = 11


def drawn(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@dataclass
class Drawings:
    """A data set of drawn images in memory; those numbered in `broken` are cut short."""

    broken: tuple[int, ...] = ()
    strict: bool = False
    reads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.report = DataReport("drawings", strict=self.strict)
        self.examples = tuple(Example(f"{i}.png", ("a drawing",), stamp=str(i)) for i in range(COUNT))

    def read(self, name: str) -> bytes:
        self.reads.append(name)
        number = int(name.removesuffix(".png"))
        return drawn(number)[: 60 if number in self.broken else None]


class Network(nn.Module):
    """Counts its batches; the one numbered `dies_at` does not come back."""

    def __init__(self, dies_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.batches = -1  # the encoder asks once for the feature size
        self.dies_at = dies_at

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        if self.batches == self.dies_at:
            raise KeyboardInterrupt
        self.batches += 1
        features: torch.Tensor = self.layers(planes)
        return features


def make(dies_at: int | None = None, *, image: ImageSpec = IMAGE) -> tuple[Encoder, Network]:
    network = Network(dies_at)
    return Encoder("drawn", "random", image, network), network


def run(folder: Path, encoder: Encoder, dataset: Drawings | None = None, *, flip: bool = False) -> FeatureStore:
    view = View(mirrored=flip)
    return compute_features(dataset or Drawings(), encoder, folder, batch_size=3, progress=False, view=view)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_row_is_its_own_image_encoded(tmp_path: Path) -> None:
    encoder, _ = make()
    store = run(tmp_path, encoder)
    assert store.matrix.dtype == np.float16
    assert store.matrix.shape == (COUNT, 5)
    assert isinstance(store.matrix, np.memmap)
    assert not store.matrix.flags.writeable
    for name in store.names:
        pixels = load_pixels(drawn(int(name.removesuffix(".png"))), height=6, width=8)
        with torch.inference_mode():
            expected = encoder(torch.from_numpy(pixels[None]))[0]
        np.testing.assert_allclose(store.matrix[store.row(name)], expected, rtol=2e-3, atol=1e-4)


def test_an_identical_run_reuses_everything_and_touches_neither_images_nor_encoder(tmp_path: Path) -> None:
    first = run(tmp_path, make()[0])
    before = files(tmp_path)
    encoder, network = make()
    dataset = Drawings()
    again = run(tmp_path, encoder, dataset)
    assert (network.batches, dataset.reads) == (0, [])
    assert files(tmp_path) == before
    assert again.names == first.names
    assert sorted(before) == [".lock", "features.npy", "index.json"]


@pytest.mark.parametrize("broken", [(), (1, 4, 5)])
@pytest.mark.parametrize("dies_at", [0, 1, 3])
def test_an_interrupted_run_resumes_to_the_same_bytes(tmp_path: Path, dies_at: int, broken: tuple[int, ...]) -> None:
    run(tmp_path / "whole", make()[0], Drawings(broken))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", make(dies_at)[0], Drawings(broken))
    with pytest.raises(OSError, match=r"index\.json"):
        FeatureStore.open(tmp_path / "cut")
    encoder, network = make()
    run(tmp_path / "cut", encoder, Drawings(broken))
    assert network.batches == 4 - dies_at  # batches recorded before are not computed again
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_rows_beyond_the_recorded_count_are_computed_again(tmp_path: Path) -> None:
    run(tmp_path / "whole", make()[0])
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", make(2)[0])
    matrix = np.lib.format.open_memmap(tmp_path / "cut" / "features.npy", mode="r+")
    matrix[6:] = 42  # as if a batch had been half written when the power went
    matrix.flush()
    run(tmp_path / "cut", make()[0])
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


@pytest.mark.parametrize("changed", ["weights", "preprocessing", "files", "bytes", "flip", "name"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_stale_store_is_computed_anew_and_never_used(tmp_path: Path, changed: str, finished: bool) -> None:
    if finished:
        run(tmp_path / "stale", make()[0])
    else:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stale", make(2)[0])
    encoder, network = make(image=replace(IMAGE, mean=(1.0, 2.0, 3.0)) if changed == "preprocessing" else IMAGE)
    dataset = Drawings()
    if changed == "weights":
        next(network.parameters()).data += 1
        encoder = Encoder("drawn", "random", IMAGE, network)
    elif changed == "name":
        encoder.name = "another"
    elif changed == "files":
        dataset.examples = dataset.examples[1:]
    elif changed == "bytes":
        dataset.examples = (replace(dataset.examples[0], stamp="changed"), *dataset.examples[1:])
    network.batches = 0
    run(tmp_path / "stale", encoder, dataset, flip=changed == "flip")
    assert network.batches == 4
    run(tmp_path / "fresh", encoder, dataset, flip=changed == "flip")
    assert files(tmp_path / "stale") == files(tmp_path / "fresh")


def test_computing_anew_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Drawings()
    compute_features(dataset, make()[0], tmp_path)
    assert capsys.readouterr() == ("", "")  # and no bar where stderr is no terminal
    dataset.examples = dataset.examples[1:]
    compute_features(dataset, make()[0], tmp_path)
    assert capsys.readouterr().out.count("computing them again") == 1
    compute_features(dataset, make()[0], tmp_path)
    assert capsys.readouterr() == ("", "")


def test_a_second_process_is_kept_out_while_the_first_computes(tmp_path: Path) -> None:
    class Meeting(Drawings):
        def read(self, name: str) -> bytes:
            if not self.reads:
                with pytest.raises(BlockingIOError, match="another process is computing the features in"):
                    run(tmp_path, make()[0])
            return super().read(name)

    whole = run(tmp_path, make()[0], Meeting())
    assert run(tmp_path, make()[0]).names == whole.names


def test_a_finished_store_is_opened_by_many_at_once(tmp_path: Path) -> None:
    run(tmp_path, make()[0])
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert len(run(tmp_path, make()[0]).names) == COUNT


def test_broken_images_are_left_out_named_and_counted_also_on_reuse(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", make()[0])
    for _ in range(2):
        dataset = Drawings(broken=(1, 4, 10))
        store = run(tmp_path / "broken", make()[0], dataset)
        assert store.names == tuple(f"{i}.png" for i in (0, 2, 3, 5, 6, 7, 8, 9))
        assert dataset.report.counts() == {"broken images": 3}
        assert "broken images: 3 (1.png: " in str(dataset.report)
        for name in store.names:
            np.testing.assert_allclose(
                store.matrix[store.row(name)], whole.matrix[whole.row(name)], rtol=2e-3, atol=1e-4
            )


def test_a_data_set_of_broken_images_alone_gives_an_empty_store(tmp_path: Path) -> None:
    store = run(tmp_path, make()[0], Drawings(broken=tuple(range(COUNT))))
    assert (store.names, store.matrix.shape) == ((), (0, 5))


def test_strict_makes_a_broken_image_an_error_each_time(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(DataError, match=r"broken images: 1 \(4\.png"):
            run(tmp_path, make()[0], Drawings(broken=(4,), strict=True))


def test_an_image_whose_bytes_cannot_be_read_is_a_broken_image(tmp_path: Path) -> None:
    class Unplugged(Drawings):
        def read(self, name: str) -> bytes:
            if name == "3.png":
                raise OSError("the disk is gone")
            return super().read(name)

    dataset = Unplugged()
    assert len(run(tmp_path, make()[0], dataset).names) == COUNT - 1
    assert "3.png: the disk is gone" in str(dataset.report)


def test_features_beyond_float16_are_an_error(tmp_path: Path) -> None:
    encoder, network = make()
    next(network.parameters()).data *= 1e9
    with pytest.raises(EncoderError, match="float16"):
        run(tmp_path, encoder)

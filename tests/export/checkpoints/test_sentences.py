"""An imported captioner says what its own project would have said: the same features, scores and sentences."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from export.checkpoints.imported import StepDecoder, Tensors
from tests.export.checkpoints.cases import CASES
from tests.export.checkpoints.conftest import Read
from tests.export.checkpoints.search import BySteps, by_prefix, search

IMAGES = 3
pytestmark = pytest.mark.parametrize("kind", CASES)


@pytest.fixture
def read(kind: str, imported: Callable[[str], Read]) -> Read:
    return imported(kind)


@pytest.fixture
def features(read: Read) -> Tensor:
    """Features unlike each other, drawn in the shape that the encoder gives."""
    with torch.inference_mode():
        shape = read.imported.encoder(_pixels(read, 1)).shape
    generator = torch.Generator().manual_seed(9)
    common = torch.rand(IMAGES, *(1 for _ in shape[2:]), shape[-1], generator=generator)  # to all places of an image
    return common * 3 - 1 + torch.rand(IMAGES, *shape[1:], generator=generator)


def _pixels(read: Read, images: int) -> Tensor:
    image = read.imported.image
    pixels = torch.randint(0, 256, (images, 3, image.height, image.width), generator=torch.Generator().manual_seed(3))
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (image.mean, image.std))
    return (pixels - mean) / std


def test_the_encoder_computes_the_projects_features(read: Read) -> None:
    pixels = _pixels(read, 2)
    with torch.inference_mode():
        features = read.imported.encoder(pixels)
        expected = read.case.features(pixels.double())
    assert expected.std() > 1e-3
    torch.testing.assert_close(features.double(), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("beams", [1, 3])
def test_greedy_and_beam_search_find_the_projects_sentences(read: Read, features: Tensor, beams: int) -> None:
    words, found = read.imported.words, []
    for image in features:
        with torch.inference_mode():
            expected = search(by_prefix(partial(read.case.next_log_probs, image.double())), words, beams)
            found.append(search(BySteps(read.imported.decoder, image[None]), words, beams))
        assert [caption for caption, _ in found[-1]] == [caption for caption, _ in expected]
        assert [score for _, score in found[-1]] == pytest.approx([score for _, score in expected], abs=1e-4)
    assert len({round(captions[0][1], 3) for captions in found}) == IMAGES  # they depend on the image


def test_a_batch_is_its_images_one_by_one(read: Read, features: Tensor) -> None:
    decoder, ids = read.imported.decoder, torch.tensor([5, 6, 7])
    with torch.inference_mode():
        logits, _ = decoder.step(ids, *decoder.start(features))
        alone = [decoder.step(ids[i : i + 1], *decoder.start(features[i : i + 1]))[0] for i in range(IMAGES)]
    torch.testing.assert_close(logits, torch.cat(alone), rtol=1e-4, atol=1e-5)


class _Start(nn.Module):
    def __init__(self, decoder: StepDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: Tensor) -> tuple[Tensors, Tensors]:
        return self.decoder.start(features)


class _Step(_Start):
    def forward(self, token_ids: Tensor, state: Tensors, context: Tensors) -> tuple[Tensor, Tensors]:  # type: ignore[override]
        return self.decoder.step(token_ids, state, context)


def test_start_and_step_are_traced_for_any_number_of_rows(read: Read, features: Tensor) -> None:
    decoder, rows = read.imported.decoder, torch.export.Dim("rows", min=1, max=1 << 20)
    state, context = decoder.start(features)
    ids = torch.tensor([5, 6, 7])
    every = ({0: rows},) * len(state), ({0: rows},) * len(context)
    start = torch.export.export(_Start(decoder), (features,), dynamic_shapes=({0: rows},))
    step = torch.export.export(_Step(decoder), (ids, state, context), dynamic_shapes=({0: rows}, *every))
    traced_state, traced_context = start.module()(features[:1])
    logits, _ = step.module()(ids[:1], traced_state, traced_context)
    torch.testing.assert_close(logits, decoder.step(ids, state, context)[0][:1], rtol=1e-4, atol=1e-5)


def test_state_and_context_have_a_row_per_image(read: Read, features: Tensor) -> None:
    state, context = read.imported.decoder.start(features)
    assert state
    assert {tensor.shape[0] for tensor in (*state, *context)} == {IMAGES}
    assert {tensor.dtype for tensor in (*state, *context)} == {torch.float32}

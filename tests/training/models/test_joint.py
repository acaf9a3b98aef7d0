"""The joint space: what its vectors depend on and what they do not."""

from pathlib import Path

import pytest
import torch

from training.files import write_json
from training.models.checkpoint import CheckpointError
from training.models.joint import ImageVectors, JointSizes, TextVectors, load_joint

SIZES = JointSizes((6,), 20, embedding=8, hidden=7, size=5)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_vectors_have_unit_length() -> None:
    texts, images = TextVectors(SIZES).eval(), ImageVectors(SIZES).eval()
    for vectors in (texts(torch.randint(0, 20, (7, 4)), torch.full((7,), 4)), images(torch.randn(7, 6))):
        assert vectors.shape == (7, 5)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(7))


def test_what_stands_after_a_text_changes_nothing() -> None:
    texts, tokens, lengths = TextVectors(SIZES).eval(), torch.randint(0, 20, (9, 6)), torch.arange(1, 10) % 6 + 1
    other = tokens.clone()
    for row, length in enumerate(lengths.tolist()):
        other[row, length:] = torch.randint(0, 20, (6 - length,))
    torch.testing.assert_close(texts(tokens, lengths), texts(other, lengths))
    alone = [texts(tokens[i : i + 1, :length], lengths[i : i + 1]) for i, length in enumerate(lengths.tolist())]
    torch.testing.assert_close(texts(tokens, lengths), torch.cat(alone))


def test_features_count_by_their_deviation_whatever_their_scale() -> None:
    features, scale, shift = torch.randn(200, 6), torch.rand(6) * 50 + 1, torch.randn(6)
    images, others = ImageVectors(SIZES).eval(), ImageVectors(SIZES).eval()
    others.load_state_dict(images.state_dict())
    images.standardise(features)
    others.standardise(features * scale + shift)
    torch.testing.assert_close(images(features), others(features * scale + shift), atol=2e-3, rtol=0)


def test_a_grid_of_features_has_the_vector_of_its_mean() -> None:
    grid_sizes = JointSizes((2, 3, 6), 20, embedding=8, hidden=7, size=5)
    pooled, grids = ImageVectors(SIZES).eval(), ImageVectors(grid_sizes).eval()
    grids.load_state_dict(pooled.state_dict())
    features = torch.randn(4, 2, 3, 6)
    torch.testing.assert_close(grids(features), pooled(features.mean(dim=(1, 2))))


@pytest.mark.parametrize("name", ["vocabulary_size", "embedding", "hidden", "size"])
def test_a_size_below_1_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, but it is 0"):
        JointSizes((6,), **{"vocabulary_size": 20, name: 0})


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"format": 1, "decoder": {}})
    with pytest.raises(CheckpointError, match=r"is not the folder of a training\.joint run"):
        load_joint(tmp_path)

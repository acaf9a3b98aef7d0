"""Laws of mixtures: every set is drawn as often as its weight says, measured as alone, and named and read apart."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.training.shapes import VOCABULARY, draw_data, make_examples, make_store
from training.data.batches import Batch, CaptionTable
from training.data.datasets import open_dataset
from training.data.examples import DataError, Example
from training.data.features import FeatureStore
from training.data.mixture import JoinedFeatures, Mixture, Part, join, retitled, titles_of
from training.data.share import Share

Drawn = Callable[[CaptionTable, int], Iterator[Batch]]
SMALL, LARGE = 5, 15  # images of two sets

WAYS: dict[str, Drawn] = {
    "captions": lambda table, rounds: table.drawn(np.random.default_rng(3), rounds * 4, len(table.names) // 4, 3),
    "whole images": lambda table, rounds: table.drawn_whole(
        np.random.default_rng(3), rounds * table.whole_batches(8), 8
    ),
}


def mixed(weights: dict[str, float] | None = None, broken: int = 0) -> CaptionTable:
    """Two sets whose images have the same names; of the larger one some have no features."""
    sets = {"small": SMALL, "large": LARGE}
    examples = [each for title, count in sets.items() for each in retitled(make_examples(count), title)]
    stores = {"small": [make_store(SMALL)], "large": [make_store(LARGE - broken, seed=1)]}
    return CaptionTable.build(examples, join(stores), VOCABULARY, 5, weights)


def times_drawn(table: CaptionTable, batches: Iterator[Batch]) -> np.ndarray:
    """How often each image came, with all its captions counting as once in batches of whole images."""
    images = np.concatenate([batch.images for batch in batches])
    return np.bincount(images, minlength=len(table.names))


def per_image(table: CaptionTable, way: str, rounds: int) -> np.ndarray:
    found = times_drawn(table, WAYS[way](table, rounds))
    return found / np.diff(table.offsets) if way == "whole images" else found


def same(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(getattr(these, name), getattr(those, name))
        for these, those in zip(one, other, strict=True)
        for name in ("images", "features", "tokens", "owners")
    )


# How often


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("small", [0.001, 0.25, 1.0, 7.0])
def test_an_image_is_drawn_as_often_as_its_weight_says(way: str, small: float) -> None:
    table, rounds = mixed({"small": small, "large": 1.0}), 40
    assert table.shares == pytest.approx({"small": small / (1 + small), "large": 1 / (1 + small)})
    # What is shuffled together holds each image less than one from what is due; of n rounds the last may be cut out of
    # what is shuffled n-th or one later.
    assert (abs(per_image(table, way, rounds) - rounds * table.weights) < table.weights + 1).all()


@pytest.mark.parametrize("way", WAYS)
def test_a_round_has_as_many_images_as_there_are_whatever_the_weights(way: str) -> None:
    for small, large in ((0.001, 1.0), (3.0, 1.0), (1000.0, 1.0), (1e308, 1e308), (1e-308, 1.0)):
        table = mixed({"small": small, "large": large})
        assert per_image(table, way, 7).sum() == 7 * (SMALL + LARGE)
        assert all(len(batch.tokens) for batch in WAYS[way](table, 7))


def test_a_set_is_drawn_as_often_as_its_weight_says_however_many_of_its_images_are_broken() -> None:
    table = mixed({"small": 1.0, "large": 1.0}, broken=12)
    assert table.shares == pytest.approx({"small": 0.5, "large": 0.5})
    drawn = per_image(table, "captions", 40)
    assert abs(drawn[:SMALL].sum() - drawn[SMALL:].sum()) <= 0.1 * drawn.sum()


@pytest.mark.parametrize("way", WAYS)
def test_weight_0_is_never_drawn(way: str) -> None:
    drawn = per_image(mixed({"small": 0.0, "large": 1.0}), way, 10)
    assert not drawn[:SMALL].any()
    assert (drawn[SMALL:] > 0).all()


@pytest.mark.parametrize("way", WAYS)
def test_equal_weights_draw_what_no_weights_draw_bit_for_bit(way: str) -> None:
    plain, equal = mixed(), mixed({"small": 0.3, "large": 0.9})  # three times the images
    assert (equal.weights == 1).all()
    assert same(list(WAYS[way](plain, 5)), list(WAYS[way](equal, 5)))
    assert (per_image(plain, way, 5) == 5).all()  # each once a round


def test_no_caption_of_an_image_comes_twice_more_than_another() -> None:
    table = mixed({"small": 3.0, "large": 1.0})
    batches = list(table.drawn(np.random.default_rng(0), 10, 20))
    texts = Counter(
        (int(image), VOCABULARY.decode(row.tolist()))
        for batch in batches
        for image, row in zip(batch.images, batch.tokens, strict=True)
    )
    for image, captions in enumerate(table.captions):
        counts = [texts[image, text] for text in captions]
        assert max(counts) - min(counts) <= 1


def test_an_empty_share_of_a_mixture_is_an_empty_batch() -> None:
    batch = mixed().gather(np.array([0]), share=Share(0, 2))
    assert (batch.features.shape, len(batch.tokens)) == ((0, 6), 0)


def test_the_mean_length_is_of_captions_as_they_are_drawn() -> None:
    long, short = (
        retitled([Example("0.jpg", ("a red circle is here",))], "long"),
        retitled([Example("0.jpg", ("here",)), Example("1.jpg", ("a", "here"))], "short"),
    )
    views = join({"long": [make(1)], "short": [make(2)]})
    weights = {"long": 3.0, "short": 1.0}
    assert CaptionTable.build([*long, *short], views, VOCABULARY, 9, weights).mean_length == pytest.approx(
        (3 * 7 + (3 + 3 + 3) / 2) / (3 + 3 / 2)
    )
    table = mixed()
    assert table.mean_length == table.lengths.mean()


def make(count: int) -> FeatureStore:
    return FeatureStore(tuple(f"{index}.jpg" for index in range(count)), np.zeros((count, 6), np.float16))


def test_a_mixture_of_which_nothing_can_be_drawn_is_refused() -> None:
    examples = retitled(make_examples(3), "there")
    with pytest.raises(DataError, match="nothing to draw"):
        CaptionTable.build(
            examples,
            join({"there": [make_store(3)], "gone": [make_store(0)]}),
            VOCABULARY,
            5,
            {"there": 0.0, "gone": 1.0},
        )


# Whose is whose


def test_names_and_reads_go_to_the_right_folder(tmp_path: Path) -> None:
    folders = {title: draw_data(tmp_path / title, train=4, validation=2) for title in ("one", "two")}
    (folders["two"] / "images" / "00.jpg").write_bytes(b"of two")
    datasets = {title: open_dataset(folder, "train") for title, folder in folders.items()}
    mixture = Mixture(datasets)
    assert [example.name for example in mixture.examples[3:5]] == ["one/03.jpg", "two/00.jpg"]
    assert [example.source for example in mixture.examples[3:5]] == ["one", "two"]
    assert mixture.read("one/00.jpg") == (folders["one"] / "images" / "00.jpg").read_bytes()
    assert mixture.read("two/00.jpg") == b"of two"
    alone = Mixture({"": datasets["one"]})
    assert alone.examples == datasets["one"].examples
    assert alone.read("00.jpg") == mixture.read("one/00.jpg")


def test_joined_features_are_those_of_their_parts_in_any_order() -> None:
    stores = make_store(3), make_store(4, seed=1)
    joined = JoinedFeatures([("a", stores[0]), ("b", stores[1])])
    names = ["b/02.jpg", "a/02.jpg", "b/00.jpg", "b/02.jpg"]
    found = joined[np.array([joined.row(name) for name in names])]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, [stores["ab".index(name[0])].matrix[int(name[2:4])] for name in names])
    assert join({"": [stores[0]]}) == (stores[0],)  # of one alone nothing is made


# What is asked for


def test_a_part_is_a_folder_and_a_weight(tmp_path: Path) -> None:
    assert Part.parse("a/b") == Part(Path("a/b"))
    assert Part.parse("a/b=0.4") == Part(Path("a/b"), 0.4)
    assert Part.parse("a=b=2") == Part(Path("a=b"), 2.0)
    for name in ("a=b", "run=0.5"):
        (tmp_path / name).mkdir()
        assert Part.parse(f"{tmp_path / name}") == Part(tmp_path / name)
        assert Part.parse(f"{tmp_path / name}=3") == Part(tmp_path / name, 3.0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("data=-1", "the weight of data must be a number from 0, but it is -1"),
        ("data=nan", "the weight of data must be a number from 0, but it is nan"),
        ("data=inf", "the weight of data must be a number from 0, but it is inf"),
        ("data=", "the weight of data must be a number, but it is ''"),
        ("data=much", "the weight of data must be a number, but it is 'much'"),
        ("=2", "a folder must come before the weight, but there is only '=2'"),
    ],
)
def test_a_weight_that_is_none_is_named(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^a folder|^the weight") as error:
        Part.parse(text)
    assert str(error.value) == sentence


def test_parts_are_called_by_their_folders_and_one_alone_by_nothing() -> None:
    parts = [Part(Path("x/coco"), 1.0), Part(Path("y/flickr"), 0.0)]
    assert titles_of(parts) == {parts[0]: "coco", parts[1]: "flickr"}
    assert titles_of(parts[:1]) == {parts[0]: ""}


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ([("x/coco", None), ("y/coco", None)], "two data sets have the name coco: rename one"),
        ([("x/coco", 1.0), ("x/coco", 1.0)], "two data sets have the name coco: rename one"),
        ([("coco", 1.0), ("flickr", None)], "flickr has no weight but others do: give all of them a weight"),
        ([("coco", 0.0), ("flickr", 0.0)], "all weights are 0"),
        ([("coco", 0.0)], "all weights are 0"),
    ],
)
def test_parts_that_cannot_be_mixed_are_refused(parts: list[tuple[str, float | None]], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        titles_of([Part(Path(path), weight) for path, weight in parts])

"""Result files go out and come in as COCO's evaluation has them."""

import json
from pathlib import Path

import pytest

from training.data.datasets import DataReport
from training.data.examples import Example
from training.metrics.java import MetricsError
from training.metrics.results import image_id, read_results, write_results

COCO = ("COCO_val2014_000000391895.jpg", "COCO_val2014_000000000042.jpg")
FLICKR = ("1000268201_693b08cb0e.jpg", "42.jpg")


class Named:
    """A data set of which only the names count."""

    def __init__(self, *names: str) -> None:
        self.examples = tuple(Example(name, ("a dog",)) for name in names)
        self.report = DataReport("made")

    def read(self, name: str) -> bytes:
        raise OSError(name)


def written(folder: Path, content: object) -> Path:
    path = folder / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_coco_goes_by_number_and_flickr_by_file_name() -> None:
    assert [image_id(name) for name in (*COCO, "000000000042.jpg")] == [391895, 42, 42]
    assert [image_id(name) for name in FLICKR] == list(FLICKR)


@pytest.mark.parametrize("names", [COCO, FLICKR])
def test_what_is_written_is_read_again(names: tuple[str, ...], tmp_path: Path) -> None:
    captions = {name: f"caption of “{name}”" for name in names}
    write_results(tmp_path / "r.json", captions)
    rows = json.loads((tmp_path / "r.json").read_text())
    assert rows == [{"image_id": image_id(name), "caption": captions[name]} for name in names]
    assert read_results(tmp_path / "r.json", Named(*names)) == captions


@pytest.mark.parametrize("given", [42, "42", COCO[1], COCO[1].removesuffix(".jpg")])
def test_an_image_may_be_called_by_number_or_name(given: int | str, tmp_path: Path) -> None:
    path = written(tmp_path, [{"image_id": given, "caption": "x", "score": 1}])
    assert read_results(path, Named(*COCO)) == {COCO[1]: "x"}


def test_the_order_is_the_data_sets_and_what_lacks_is_reported(tmp_path: Path) -> None:
    rows = [{"image_id": name, "caption": name} for name in ("c.jpg", "a.jpg", "z.jpg")]
    dataset = Named("a.jpg", "b.jpg", "c.jpg")
    assert list(read_results(written(tmp_path, rows), dataset)) == ["a.jpg", "c.jpg"]
    assert dataset.report.faults == {
        "results of unknown images": {"z.jpg": ""},
        "images without a result": {"b.jpg": ""},
    }


def test_a_limit_asks_only_for_the_first_images(tmp_path: Path) -> None:
    dataset = Named("a.jpg", "b.jpg", "c.jpg")
    path = written(tmp_path, [{"image_id": name, "caption": name} for name in ("a.jpg", "b.jpg")])
    assert list(read_results(path, dataset, limit=1)) == ["a.jpg"]
    assert not dataset.report.faults


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not valid JSON"),
        ("{}", "is not a result file"),
        ([{"image_id": "a.jpg"}], "entry 0 is not"),
        ([{"image_id": True, "caption": "x"}], "entry 0 is not"),
        ([{"image_id": "a.jpg", "caption": ["x"]}], "entry 0 is not"),
        ([{"image_id": "a.jpg", "caption": "x\ud800"}], r"entry 0 contains half a character.*x\\ud800"),
        ([{"image_id": "\udc00", "caption": "x"}], "entry 0 contains half a character"),
        ([{"image_id": "a.jpg", "caption": "x"}, {"image_id": "a", "caption": "y"}], "two captions for a"),
        ([], "no caption for any of the 1 images"),
        ([{"image_id": "b.jpg", "caption": "x"}], "no caption for any of the 1 images"),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_sentence(content: object, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(MetricsError, match=sentence):
        read_results(written(tmp_path, content), Named("a.jpg"))


def test_characters_beyond_the_first_plane_are_text(tmp_path: Path) -> None:
    path = written(tmp_path, '[{"image_id": "a.jpg", "caption": "a dog \\ud83d\\udc36"}]')
    assert read_results(path, Named("a.jpg")) == {"a.jpg": "a dog 🐶"}


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MetricsError, match=r"nothing\.json cannot be read"):
        read_results(tmp_path / "nothing.json", Named("a.jpg"))

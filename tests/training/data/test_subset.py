"""A subset is the first images of each split and the first sentences, to try things on."""

from pathlib import Path

from tests.training.shapes import draw_data
from training.data.datasets import open_dataset
from training.data.subset import SENTENCES, write_subset, write_subsets


def test_a_subset_holds_the_first_images_of_each_split(tmp_path: Path) -> None:
    data = draw_data(tmp_path / "data", train=4, validation=2)
    write_subset(data, tmp_path / "few", {"train": 2, "val": 1})
    for split, count in (("train", 2), ("val", 1)):
        of, few = open_dataset(data, split), open_dataset(tmp_path / "few", split, strict=True)
        assert [(e.name, e.captions) for e in few.examples] == [(e.name, e.captions) for e in of.examples[:count]]
        assert all(few.read(e.name) == of.read(e.name) for e in few.examples)


def test_a_subset_holds_the_first_sentences(tmp_path: Path) -> None:
    lines = [f'{{"image": "{i}.jpg", "captions": ["a dog"]}}\n' for i in range(SENTENCES + 100)]
    (tmp_path / "said.jsonl").write_text("".join(lines))
    write_subsets(tmp_path, tmp_path / "few", (), ("said.jsonl",))
    assert (tmp_path / "few" / "said.jsonl").read_text() == "".join(lines[:SENTENCES])

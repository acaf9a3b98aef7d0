import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from training.data.datasets import DataError, open_dataset

NAMES = [f"COCO_train2014_{number:012d}.jpg" for number in range(1, 6)]


def drawn(color: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (color, 255 - color, 7)).save(file, "JPEG")
    return file.getvalue()


def document() -> dict[str, Any]:
    """Five images, the first with one caption, the second with two and so on, listed back to front."""
    images = [{"id": i, "file_name": name} for i, name in reversed(list(enumerate(NAMES)))]
    captions = [
        {"id": 10 * i + j, "image_id": i, "caption": f"Caption {j}\nof {i}."} for i in range(5) for j in range(i + 1)
    ]
    return {"images": images, "annotations": captions}


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def coco(folder: Path, layout: str, captions: Any = None, names: list[str] = NAMES) -> Path:
    text = json.dumps(document() if captions is None else captions).encode()
    images = {f"train2014/{name}": drawn(20 * i) for i, name in enumerate(names)}
    folder.mkdir(exist_ok=True)
    if layout == "zips":
        write_zip(folder / "train2014.zip", {"train2014/": b"", **images})
        write_zip(folder / "captions_train-val2014.zip", {"annotations/captions_train2014.json": text})
    else:
        for name, content in images.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        target = folder / ("annotations/" if layout == "annotations" else "") / "captions_train2014.json"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(text)
    return folder


def flickr(folder: Path, rows: list[str], listed: list[str], names: list[str]) -> Path:
    (folder / "images").mkdir(parents=True)
    for i, name in enumerate(names):
        (folder / "images" / name).write_bytes(drawn(20 * i))
    (folder / "captions.csv").write_text("\n".join(["image,caption", *rows, ""]))
    (folder / "train.txt").write_text("\n".join([*listed, ""]))
    return folder


def test_every_coco_layout_gives_the_same_examples_and_bytes(tmp_path: Path) -> None:
    seen = []
    for layout in ("zips", "annotations", "plain"):
        dataset = open_dataset(coco(tmp_path / layout, layout), "train", strict=True)
        seen.append([(e.name, e.captions, dataset.read(e.name)) for e in dataset.examples])
    assert seen[0] == seen[1] == seen[2]
    assert [name for name, _, _ in seen[0]] == NAMES
    assert [len(captions) for _, captions, _ in seen[0]] == [1, 2, 3, 4, 5]
    assert seen[0][1][1] == ("Caption 0 of 1.", "Caption 1 of 1.")
    assert seen[0][1][2] == drawn(20)


def test_an_archive_read_by_many_threads_gives_each_its_own_image(tmp_path: Path) -> None:
    dataset = open_dataset(coco(tmp_path, "zips"), "train")
    asked = [example.name for example in dataset.examples] * 40
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(dataset.read, asked)) == [drawn(20 * i) for i in range(5)] * 40


@pytest.mark.parametrize("layout", ["zips", "plain"])
def test_a_stamp_changes_exactly_when_the_image_does(tmp_path: Path, layout: str) -> None:
    def stamps() -> list[str]:
        return [example.stamp for example in open_dataset(tmp_path, "train").examples]

    coco(tmp_path, layout)
    before = stamps()
    assert stamps() == before
    if layout == "zips":
        write_zip(tmp_path / "train2014.zip", {f"train2014/{name}": drawn(i) for i, name in enumerate(NAMES)})
    else:
        (tmp_path / "train2014" / NAMES[1]).write_bytes(drawn(99))
    assert stamps()[0] == before[0]
    assert stamps()[1] != before[1]


def test_every_coco_fault_is_named_and_counted_and_the_rest_is_used(tmp_path: Path) -> None:
    faulty = document()
    faulty["images"] += [{"id": 7, "file_name": "gone.jpg"}, {"id": 8, "file_name": "silent.jpg"}, {"id": 9}, 3]
    faulty["annotations"] += [
        {"image_id": 7, "caption": "an image that is missing"},
        {"image_id": 0, "caption": " . "},
        {"image_id": 99, "caption": "nobody's caption"},
        {"image_id": 0, "caption": None},
        {"image_id": [0], "caption": "a list for an id"},
        "not a row",
    ]
    dataset = open_dataset(coco(tmp_path, "zips", faulty, [*NAMES, "silent.jpg"]), "train")
    assert [len(example.captions) for example in dataset.examples] == [1, 2, 3, 4, 5]
    assert dataset.report.counts() == {
        "broken image rows": 2,
        "captions whose image is missing": 1,
        "empty captions": 1,
        "captions of unknown images": 1,
        "broken annotation rows": 3,
        "images that are missing": 1,
        "images without captions": 1,
    }
    text = str(dataset.report)
    assert "5 images, 15 captions, 10 faults" in text
    assert "images that are missing: 1 (gone.jpg)" in text
    assert "annotations[17]: image_id 99" in text
    with pytest.raises(DataError, match=r"images without captions: 1 \(silent\.jpg\)"):
        open_dataset(tmp_path, "train", strict=True)


def test_every_flickr_fault_is_named_and_counted_and_the_rest_is_used(tmp_path: Path) -> None:
    rows = [
        'b.jpg,"A dog, running"',
        "a.jpg,A cat",
        "a.jpg,  It sleeps ",
        "a.jpg,",
        "gone.jpg,Nothing to see",
        'a.jpg,"a quote left open',
        "a.jpg,one,two",
        "no comma",
        "later.jpg,Of another split",
    ]
    listed = ["b.jpg", "a.jpg", "a.jpg", "gone.jpg", "silent.jpg", "unheard.jpg"]
    dataset = open_dataset(flickr(tmp_path / "x", rows, listed, ["a.jpg", "b.jpg", "silent.jpg", "later.jpg"]), "train")
    assert [(e.name, e.captions) for e in dataset.examples] == [
        ("b.jpg", ("A dog, running",)),
        ("a.jpg", ("A cat", "It sleeps")),
    ]
    assert dataset.read("b.jpg") == drawn(20)
    assert dataset.report.counts() == {
        "empty captions": 1,
        "captions whose image is missing": 1,
        "broken rows in captions.csv": 3,
        "names in train.txt without an image": 2,
        "images without captions": 1,
    }
    assert "names in train.txt without an image: 2 (gone.jpg, unheard.jpg)" in str(dataset.report)
    with pytest.raises(DataError, match="broken rows"):
        open_dataset(tmp_path / "x", "train", strict=True)


def test_a_folder_of_another_layout_is_refused_by_saying_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"captions\.csv .* captions_train-val2014\.zip or captions_val2014\.json"):
        open_dataset(tmp_path, "val")
    with pytest.raises(DataError, match="'test' is not one of train, val"):
        open_dataset(tmp_path, "test")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions_train2014.json", b'{"images": [', "not valid JSON"),
        ("captions_train2014.json", b"\xff\xfe\xfd", "not valid JSON"),
        ("captions_train2014.json", b"[" * 100_000, "not valid JSON"),
        ("captions_train2014.json", b'{"images": 3}', "needs the lists 'images' and 'annotations'"),
        ("captions_train-val2014.zip", b"PK but not really", "cannot be read"),
        ("train2014.zip", b"PK but not really", "cannot be read as a zip archive"),
    ],
)
def test_a_broken_file_as_a_whole_is_one_sentence(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    coco(tmp_path, "zips")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(tmp_path, "train")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    write_zip(tmp_path / "captions_train-val2014.zip", {"else.json": b"{}"})
    with pytest.raises(DataError, match=r"neither train2014\.zip nor the folder train2014/"):
        open_dataset(tmp_path, "train")
    (tmp_path / "train2014").mkdir()
    with pytest.raises(DataError, match=r"does not contain annotations/captions_train2014\.json"):
        open_dataset(tmp_path, "train")
    folder = flickr(tmp_path / "flickr", ["a.jpg,A cat"], ["a.jpg"], ["a.jpg"])
    with pytest.raises(DataError, match=r"val\.txt cannot be read"):
        open_dataset(folder, "val")
    (folder / "captions.csv").write_text("a.jpg,A cat\n")
    with pytest.raises(DataError, match="does not begin with the line 'image,caption'"):
        open_dataset(folder, "train")


def test_nothing_usable_is_an_error_that_holds_the_report(tmp_path: Path) -> None:
    folder = flickr(tmp_path / "x", ["a.jpg,..."], ["a.jpg"], ["a.jpg"])
    with pytest.raises(DataError, match=r"(?s)no image with a caption is left.*empty captions: 1"):
        open_dataset(folder, "train")


def test_a_damaged_archive_entry_is_an_oserror_naming_it(tmp_path: Path) -> None:
    path = coco(tmp_path, "zips") / "train2014.zip"
    content = bytearray(path.read_bytes())
    content[content.index(b"\xff\xd8") + 30] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(OSError, match=rf"{NAMES[0]} in .* is damaged"):
        open_dataset(tmp_path, "train").read(NAMES[0])


def test_a_report_shows_the_first_few_places_and_counts_all(tmp_path: Path) -> None:
    faulty = document()
    faulty["annotations"] += [{"image_id": 1000 + i, "caption": "x"} for i in range(2000)]
    text = str(open_dataset(coco(tmp_path, "zips", faulty), "train").report)
    assert "captions of unknown images: 2,000 (" in text
    assert text.count("image_id") == 5

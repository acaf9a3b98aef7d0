import json
import os
import shutil
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from engine import Captioner
from engine.cli import main

Run = Callable[..., int]


@pytest.fixture
def run(tiny_captioner: Captioner, tmp_path: Path) -> Run:
    """Runs a command with the tiny model and an index of the test's own."""

    def run(*arguments: object) -> int:
        words = [*map(str, arguments), "--index", str(tmp_path / "photos.db")]
        return main(words, lambda bundle, **options: tiny_captioner)

    return run


class Page(HTMLParser):
    """The links, pictures and text of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "a":
            self.links.append(given["href"] or "")
        if tag == "img":
            self.pictures.append(given)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_index_says_what_became_of_the_files(run: Run, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "notes.txt").write_text("no image")
    (photos / "broken.jpg").write_bytes(b"no image")
    shutil.copyfile(photos / "0.jpg", photos / "copy.jpg")
    assert run("index", photos) == 1
    said = capsys.readouterr().err.splitlines()
    index = photos.parent / "photos.db"
    assert said[0] == f"6 captioned, 1 known by their bytes, 1 without a caption; 6 photographs in {index}"
    assert said[1] == f"1 file was left out: {photos / 'notes.txt'} is not named like an image"
    assert said[2].startswith(f"  {photos / 'broken.jpg'}: is not an image")
    (photos / "broken.jpg").unlink()
    assert run("index", photos) == 0
    assert capsys.readouterr().err.startswith("7 unchanged, 1 gone; 6 photographs in ")


def test_index_takes_patterns_and_files(run: Run, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("index", f"{photos}/[01].jpg", photos / "3.jpg") == 0
    assert capsys.readouterr().err.startswith("3 captioned; 3 photographs in ")


def test_search_prints_paths_and_captions(run: Run, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("index", photos)
    capsys.readouterr()
    assert run("search", "a red circle", "--limit", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line in lines:
        path, text = line.split("\t")
        assert Path(path).parent in (photos, photos / "below")
        assert text


def test_search_prints_one_json_object_for_each_photograph(
    run: Run, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("index", photos)
    capsys.readouterr()
    assert run("search", "a red circle", "--json") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["score"] for record in records] == sorted((record["score"] for record in records), reverse=True)
    for record in records:
        assert Path(record["paths"][0]).is_file()
        assert len(record["sha256"]) == 64
        assert record["text"] == record["alternatives"][0]["text"]


def test_nothing_found_is_exit_code_1(run: Run, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("index", photos)
    capsys.readouterr()
    assert run("search", "xylophone") == 1
    assert capsys.readouterr() == ("", "no photograph was found\n")


ONE_OF = "error: give a QUERY or --like FILE; see `python -m engine search --help`"
WRONG = (
    (("search",), ONE_OF),
    (("search", "a dog", "--like", "b.jpg"), ONE_OF),
    (("search", ""), "error: the query has no words: describe what the photograph shows, such as two dogs on a"),
    (("search", "a dog"), "error: there is no index "),
    (("index", "-"), "error: - is no PATH of index"),
    (("index", ""), "error: a PATH is empty: name a file or a folder (. is the current one)"),
    (("index",), "error: there is nothing to index: name files or folders, or an OUTPUT by --from-parquet"),
    (
        ("index", "a.jpg", "--root", "b"),
        "error: --root needs --from-parquet: it says where the images of an OUTPUT are",
    ),
    (("index", "a.jpg", "--from-parquet", "b"), "error: --from-parquet takes the place of PATH: run the command once"),
    (("index", "--from-parquet", ""), "error: --from-parquet and --root name folders, and one of them is empty"),
    (("index", "--from-parquet", "b", "--watch"), "error: --watch cannot be used with --from-parquet, which reads no"),
    (("index", "--from-parquet", "b", "--retry"), "error: --retry cannot be used with --from-parquet, which reads no"),
)


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_wrong_usage_is_one_sentence(
    run: Run, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert run(*arguments) == 2
    assert capsys.readouterr().err.startswith(said)


def test_the_page_is_one_file_with_every_photograph(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = photos / "a <b> & 'c'.jpg"
    (photos / "0.jpg").rename(odd)
    run("index", photos)
    assert run("search", 'a red <circle> & "square"', "--html", tmp_path / "found.html") == 0
    paths = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    page = Page(tmp_path / "found.html")
    assert page.links == [Path(path).as_uri() for path in paths]
    assert all((picture["src"] or "").startswith("data:image/jpeg;base64,") for picture in page.pictures)
    assert len(page.pictures) == len(paths)
    assert 'Photographs of a red <circle> & "square"' in page.text
    assert all(path in page.text for path in paths)


def test_a_photograph_that_is_gone_keeps_its_place_in_the_page(run: Run, photos: Path, tmp_path: Path) -> None:
    run("index", photos)
    for file in photos.rglob("*.jpg"):
        file.unlink()
    assert run("search", "a red circle", "--html", tmp_path / "found.html") == 0
    page = Page(tmp_path / "found.html")
    assert page.pictures == []
    assert page.text.count("is gone, or was changed") == len(page.links) > 0


def test_a_page_shows_only_what_was_indexed(run: Run, photos: Path, tmp_path: Path) -> None:
    shutil.copyfile(photos / "0.jpg", photos / "a copy.jpg")
    run("index", photos)
    (photos / "0.jpg").unlink()  # the copy is shown instead
    shutil.copyfile(photos / "2.jpg", photos / "1.jpg")  # another photograph is not
    run("search", "a red circle", "--html", tmp_path / "found.html")
    page = Page(tmp_path / "found.html")
    assert len(page.pictures) == len(page.links) - 1


@pytest.mark.parametrize("name", ["a pipe", "a folder"])
def test_a_page_replaces_nothing_but_files(
    run: Run, photos: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "a pipe")
    (tmp_path / "a folder").mkdir()
    run("index", photos)
    before = set(tmp_path.iterdir())
    assert run("search", "a red circle", "--html", tmp_path / name) == 2
    assert "so no page is written there" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


def test_a_page_that_is_a_link_stays_one(run: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to(tmp_path / "page.html")
    run("index", photos)
    assert run("search", "a red circle", "--html", tmp_path / "link.html") == 0
    assert (tmp_path / "link.html").is_symlink()
    assert Page(tmp_path / "page.html").links


def test_a_pattern_of_folders_notices_what_is_gone(run: Run, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("index", f"{photos.parent}/phot[o]s")
    (photos / "0.jpg").unlink()
    capsys.readouterr()
    run("index", f"{photos.parent}/phot[o]s")
    assert capsys.readouterr().err.startswith("5 unchanged, 1 gone; 5 photographs")


def test_open_shows_the_page(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    run("index", photos)
    assert run("search", "a red circle", "--open") == 0
    assert shown[0].startswith("file:///")
    assert Page(Path(shown[0].removeprefix("file://"))).links


def test_watch_finds_what_comes_and_what_goes(
    run: Run, photos: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sleep(seconds: float) -> None:
        assert seconds == 3
        said = capsys.readouterr().err
        if said.startswith("6 captioned"):
            shutil.copyfile(images[8], photos / "new.jpg")
        elif said.startswith("1 captioned, 6 unchanged"):
            (photos / "0.jpg").unlink()
        elif said.startswith("6 unchanged, 1 gone"):
            return  # nothing changes: nothing is said
        else:
            assert said == ""
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert run("index", photos, "--watch", 3) == 130
    assert capsys.readouterr().err == "interrupted: what is indexed is kept, and the same command continues\n"

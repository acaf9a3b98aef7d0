"""Laws of `caption --xmp`: which file is written, what is kept, and that no sidecar costs another photograph."""

import os
from pathlib import Path
from typing import Any

import pytest

from engine.cli import main
from engine.images.formats import image_suffixes
from engine.writing.sidecars import sidecar_path
from engine.writing.xmp import Sidecar
from tests.engine.writing.captioner import Saying
from tests.engine.writing.test_xmp import HEAD, descriptions, with_items


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Becomes the current folder: two photographs."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.jpg"):
        Path(name).touch()
    return tmp_path


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("there", "sidecar"),
    [
        ((), "a.jpg.xmp"),  # digiKam, darktable, Immich and PhotoPrism read it, and it is the photograph's own
        (("a.xmp",), "a.xmp"),  # they all read this one too, and Lightroom writes it
        (("a.xmp", "a.jpg.xmp"), "a.jpg.xmp"),  # they prefer it
        (("a.XMP",), "a.XMP"),
        (("a.xmp", "a.CR2"), "a.xmp"),  # the same picture, as the camera saw it
        (("a.xmp", "a.png"), "a.jpg.xmp"),  # another picture
        (("a.xmp", "a.PNG"), "a.jpg.xmp"),
        (("a.png",), "a.jpg.xmp"),
    ],
)
def test_the_sidecar_is_the_one_that_programs_read(there: tuple[str, ...], sidecar: str, photos: Path) -> None:
    for name in there:
        (photos / name).touch()
    assert sidecar_path(photos / "a.jpg", image_suffixes()) == photos / sidecar


def test_each_caption_becomes_the_description_of_its_photograph(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saying = Saying(says={"a.jpg": 'a "cat" & <dog> 😀', "b.jpg": "写真"})
    assert main(["caption", ".", "--xmp"], saying) == 0
    written = files()
    assert descriptions(written["a.jpg.xmp"]) == {"x-default": 'a "cat" & <dog> 😀', "en": 'a "cat" & <dog> 😀'}
    assert descriptions(written["b.jpg.xmp"]) == {"x-default": "写真", "en": "写真"}
    assert written.keys() == {"a.jpg", "b.jpg", "a.jpg.xmp", "b.jpg.xmp"}
    out, err = capsys.readouterr()
    assert out == './a.jpg\ta "cat" & <dog> 😀\n./b.jpg\t写真\n'
    assert err == "2 descriptions were written to sidecars\n"


def test_a_second_run_captions_nothing_and_changes_nothing(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saying = Saying()
    assert main(["caption", ".", "--xmp"], saying) == 0
    before = files()
    capsys.readouterr()
    assert main(["caption", ".", "--xmp"], saying) == 0
    assert files() == before
    assert saying.opened == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "2 photographs have a description already, which is kept (--overwrite replaces it)\n" in err


def test_overwriting_is_asked_for_and_touches_no_other_language(photos: Path) -> None:
    Path("a.xmp").write_bytes(with_items(("x-default", "old"), ("de", "alt")))
    assert main(["caption", "a.jpg", "--xmp"], Saying(text="new")) == 0
    assert files()["a.xmp"] == with_items(("x-default", "old"), ("de", "alt"))
    assert main(["caption", "a.jpg", "--xmp", "--overwrite", "--language", "pt-BR"], Saying(text="new")) == 0
    assert files()["a.xmp"] == with_items(("x-default", "new"), ("pt-BR", "new"), ("de", "alt"))


def test_a_sidecar_out_of_order_stays_as_it_is_and_costs_no_other(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {
        "broken": b"junk",
        "html": b"<html/>",
        "dtd": b"<!DOCTYPE a><a/>",
        "locked": f"{HEAD}/></rdf:RDF>".encode(),
    }
    for name, content in bad.items():
        Path(f"{name}.jpg").touch()
        Path(f"{name}.jpg.xmp").write_bytes(content)
    Path("locked.jpg.xmp").chmod(0o444)
    Path("b.jpg.xmp").mkdir()
    assert main(["caption", ".", "--xmp"], Saying()) == 1
    after = files()
    assert {name: after[f"{name}.jpg.xmp"] for name in bad} == bad
    assert descriptions(after["a.jpg.xmp"])["en"] == "a dog"
    out, err = capsys.readouterr()
    assert out == "./a.jpg\ta dog\n"
    assert err.splitlines()[:7] == [
        "1 description was written to sidecars",
        "5 sidecars were left as before:",
        "  b.jpg.xmp: is no regular file",
        "  broken.jpg.xmp: is not valid XML: syntax error in line 1",
        "  dtd.jpg.xmp: has a DTD, which XMP must not have and which is not read",
        "  html.jpg.xmp: is XML, but not XMP: it has no rdf:RDF",
        "  locked.jpg.xmp: is read-only: allow writing to it",
    ]


def test_a_sidecar_that_cannot_be_made_costs_no_other(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def full(path: Path, *arguments: object, **more: object) -> object:
        if path.name.endswith(".partial") and not os.path.exists("a.jpg.xmp"):  # noqa: PTH110
            Path("a.jpg.xmp").mkdir()
            raise OSError(28, "No space left on device")
        return opened(path, *arguments, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    assert main(["caption", "a.jpg", "b.jpg", "--xmp"], Saying()) == 1
    assert "  a.jpg.xmp: cannot be written: No space left on device\n" in capsys.readouterr().err
    assert "b.jpg.xmp" in files()


def test_a_caption_below_the_least_confidence_is_not_written(photos: Path) -> None:
    saying = Saying(confidences={"a.jpg": 0.1, "b.jpg": 0.9})
    assert main(["caption", ".", "--xmp", "--min-confidence", "0.5"], saying) == 0
    assert files().keys() == {"a.jpg", "b.jpg", "b.jpg.xmp"}


def test_a_photograph_that_fails_gets_no_sidecar(photos: Path) -> None:
    Path("broken.jpg").touch()
    assert main(["caption", "broken.jpg", "lost.jpg", "a.jpg", "a.jpg", "--xmp", "--json"], Saying()) == 1
    assert files().keys() == {"a.jpg", "b.jpg", "broken.jpg", "a.jpg.xmp"}


def test_a_description_written_meanwhile_is_kept(photos: Path) -> None:
    other = with_items(("x-default", "by another program"))

    class Slow(Saying):
        def __call__(self, *arguments: Any, **more: Any) -> Any:
            Path("a.jpg.xmp").write_bytes(other)
            return super().__call__(*arguments, **more)

    assert main(["caption", "a.jpg", "--xmp"], Slow()) == 0
    assert files()["a.jpg.xmp"] == other
    assert Sidecar.of(other).is_described("en")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a.jpg", "--overwrite"], "--overwrite needs --xmp"),
        (["a.jpg", "--language", "de"], "--language needs --xmp"),
        (["a.jpg", "--dry-run"], "--dry-run needs --alt-text"),
        (["a.jpg", "--fill-empty"], "--fill-empty needs --alt-text"),
        ([], "name at least one PATH: a file, a folder or a glob pattern"),
        (["a.jpg", "--alt-text", "."], "--alt-text cannot be used with PATH, since it finds the pictures of the pages"),
        (["--alt-text", ".", "--json"], "--alt-text cannot be used with --json"),
        (["--alt-text", ".", "--xmp"], "--alt-text cannot be used with --xmp"),
        (["--alt-text", ".", "--attention", "x.html"], "--alt-text cannot be used with --attention"),
        (["--alt-text", ".", "--alternatives", "2"], "--alt-text cannot be used with --alternatives"),
        (["--alt-text", "."], "no HTML or Markdown file was found in .: name the folder that holds the pages"),
    ],
)
def test_flags_that_do_not_go_together_are_one_sentence(
    arguments: list[str], sentence: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saying = Saying()
    assert main(["caption", *arguments], saying) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), saying.opened) == ("", 1, 0)
    assert err.startswith(f"error: {sentence}")


def test_a_language_is_a_tag(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["caption", "a.jpg", "--xmp", "--language", 'en"/>'], Saying())
    assert "--language must be a language tag such as en or pt-BR, but it is" in capsys.readouterr().err

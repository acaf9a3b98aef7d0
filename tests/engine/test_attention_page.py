"""Laws of `caption --attention` and `info --bundles`."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import Captioner, ImageError
from engine.bundle.bundle import Bundle
from engine.cli import main
from engine.commands.attention_page import AttentionPage


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Becomes the current folder: a wide photograph, the same held upright by EXIF, and a broken file."""
    monkeypatch.chdir(tmp_path)
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8))
    wide.save("a<b.jpg")
    (exif := Image.Exif())[0x0112] = 6  # turned by a quarter
    wide.save("upright.jpg", exif=exif)
    Path("broken.jpg").write_bytes(b"none")
    return tmp_path


def test_the_page_has_the_photograph_and_a_tile_for_each_word(
    attention_bundle: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a<b.jpg", "broken.jpg", "upright.jpg"]
    given = ["--bundle", str(attention_bundle), "--provider", "cpu", "--precision", "fp32"]
    assert main(["caption", *names, *given, "--attention", "page.html"]) == 1  # one is broken
    page = Path("page.html").read_text(encoding="utf-8")
    captioner = Captioner(attention_bundle, provider="cpu", precision="fp32")
    captions = captioner.caption([names[0], names[2]], attention=True)
    words = sum(len(caption.attention) for caption in captions if caption.attention is not None)
    assert page.count("<section ") == page.count("data:image/jpeg") == 2
    assert page.count("<figure>") == words + 2
    assert page.count("data:image/png") == words
    assert "a&lt;b.jpg" in page
    assert [*dict.fromkeys(re.findall(r"aspect-ratio: (\d+ / \d+)", page))] == ["40 / 20", "20 / 40"]
    assert not [path for path in photographs.iterdir() if path.name.startswith(".")]
    assert captions[0].text in capsys.readouterr().out


def test_a_photograph_that_cannot_be_read_again_gets_a_sentence_and_the_others_their_pictures(
    attention_bundle: Path, photographs: Path
) -> None:
    caption = Captioner(attention_bundle, provider="cpu", precision="fp32").caption(["a<b.jpg"], attention=True)[0]
    os.mkfifo("pipe.jpg")

    def load(name: str) -> np.ndarray:
        if name == "broken.jpg":
            raise ImageError("is broken", source=name)
        return np.zeros((48, 64, 3), np.uint8)

    page = AttentionPage(photographs / "page.html", "squash", load, "a page")
    for name in ("gone.jpg", "pipe.jpg", "broken.jpg", "a<b.jpg"):
        page.add(name, caption)
    page.close()
    content = (photographs / "page.html").read_text(encoding="utf-8")
    assert content.count("It cannot be shown: it is no file that can be read twice") == 2
    assert content.count("It cannot be shown: is broken") == 1
    assert content.count("data:image/jpeg") == 1


def test_a_page_that_cannot_be_is_refused_before_any_work(
    attention_bundle: Path, tiny_bundle: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for bundle, file, sentence in (
        (tiny_bundle, "page.html", "has no attention"),
        (attention_bundle, "nowhere/page.html", "--attention must be a file in a folder that exists"),
        (attention_bundle, ".", "--attention must be a file in a folder that exists"),
    ):
        arguments = ["--bundle", str(bundle), "--provider", "cpu", "--precision", "fp32", "--attention", file]
        assert main(["caption", "a<b.jpg", *arguments]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert sentence in err


def test_a_bundle_that_ships_is_opened_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--bundles"]) == 0
    (name, _, said), (second, _, of_second) = (line.partition(" ") for line in capsys.readouterr().out.splitlines())
    assert said.endswith(", the default")
    assert Bundle.load(name).path == Bundle.load().path
    assert of_second.endswith(", attention")
    assert Bundle.load(second).manifest.attention == (9, 9)


def test_a_folder_goes_before_a_bundle_that_ships(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("everyday").symlink_to(tiny_bundle)
    assert Bundle.load("everyday").path == Path("everyday")

"""Laws of `caption --alt-text`: which files are pictures of a site, and that pages keep all else."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engine import Greedy
from engine.cli import main
from tests.engine.writing.captioner import Saying

INDEX = """\
<!doctype html>\r
<img src="img/a.jpg?v=1#x"> <img src='img/b%20c.jpg'> <img src=/img/a.jpg>\r
<img src="img/a.jpg" alt=""> <img src="img/a.jpg" alt="A cat">\r
<img src="https://example.org/a.jpg"> <img src="//example.org/a.jpg"> <img src="data:image/png;base64,AA">\r
<img src="../secret.jpg"> <img src="img/../../secret.jpg"> <img src="/../secret.jpg"> <img src="img/link.jpg">\r
<img src="img/lost.jpg"> <img src="img/logo.svg"> <img src="#"> <img src="img/%00.jpg">"""
POST = "![](../img/a.jpg)\n![](</img/b c.jpg>)\n<img src='a.jpg'>\n`![](../img/a.jpg)`\n"
FILLED = {
    "index.html": INDEX.replace('v=1#x"', 'v=1#x" alt="A &quot;dog&quot;."')
    .replace("c.jpg'", "c.jpg' alt='It&#39;s &lt;b&gt;.'")
    .replace("=/img/a.jpg", '=/img/a.jpg alt="A &quot;dog&quot;."'),
    "blog/post.md": POST.replace("![](..", '![A "dog".](..', 1).replace("![](<", "![It's \\<b\\>.](<"),
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Becomes a folder of the current one, which has a picture beside it that is not of the site."""
    monkeypatch.chdir(tmp_path)
    for name in ("secret.jpg", "site/img/a.jpg", "site/img/b c.jpg", "site/img/logo.svg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("site/img/link.jpg").symlink_to(tmp_path / "secret.jpg")
    for name, text in (("index.html", INDEX), ("blog/post.md", POST)):
        Path("site", name).parent.mkdir(exist_ok=True)
        Path("site", name).write_bytes(text.encode())
    return Path("site")


def saying() -> Saying:
    return Saying(says={"a.jpg": 'A "dog".', "b c.jpg": "It's <b>."})


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_pages_get_the_texts_that_are_missing_and_keep_all_else(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, captioner = files(site), saying()
    assert main(["caption", "--alt-text", "site"], captioner) == 1  # some are not found
    assert files(site) == before | {name: text.encode() for name, text in FILLED.items()}
    assert captioner.asked == ["site/img/a.jpg", "site/img/b c.jpg"]  # each once
    assert captioner.decoding.style == "sentence"
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        'site/index.html:2\tsite/img/a.jpg\tA "dog".',
        "site/index.html:2\tsite/img/b c.jpg\tIt's <b>.",
        'site/index.html:2\tsite/img/a.jpg\tA "dog".',
        'site/blog/post.md:1\tsite/img/a.jpg\tA "dog".',
        "site/blog/post.md:2\tsite/img/b c.jpg\tIt's <b>.",
    ]
    assert err.splitlines() == [
        "5 alt texts written in 2 of 2 pages",
        "10 pictures left alone: 1 decorative; 2 not named like a photograph; 3 on another site; 4 outside the folder",
        "3 pictures not found:",
        "  site/index.html:6: img/lost.jpg",
        "  site/index.html:6: img/%00.jpg",
        "  site/blog/post.md:3: a.jpg",
    ]


def test_a_second_run_captions_nothing_and_changes_nothing(site: Path) -> None:
    main(["caption", "--alt-text", "site"], saying())
    before, captioner = files(site), saying()
    main(["caption", "--alt-text", "site"], captioner)
    assert files(site) == before
    assert captioner.opened == 0


@pytest.mark.skipif(shutil.which("patch") is None, reason="patch is not installed")
def test_a_dry_run_writes_nothing_and_its_diff_is_what_a_run_does(
    site: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (site / "latin.html").write_bytes(b"\xe9\xff\n<img src=img/a.jpg>")
    before = files(site)
    assert main(["caption", "--alt-text", "site", "--dry-run"], saying()) == 1
    out, err = capfdbinary.readouterr()
    assert files(site) == before
    assert b"6 alt texts would be written in 3 of 3 pages\n" in err
    shutil.copytree(site, "patched", symlinks=True)
    subprocess.run(["patch", "-p1", "--binary", "--quiet"], cwd="patched", input=out, check=True)
    main(["caption", "--alt-text", "site"], saying())
    assert files(Path("patched")) == files(site) != before


def test_what_is_marked_as_decorative_is_filled_on_request_only(site: Path) -> None:
    main(["caption", "--alt-text", "site", "--fill-empty"], saying())
    expected = FILLED["index.html"].replace('alt=""', 'alt="A &quot;dog&quot;."')
    assert files(site)["index.html"] == expected.encode()


def test_captions_below_the_least_confidence_and_of_broken_pictures_are_not_written(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site / "img/broken.jpg").touch()
    (site / "index.html").write_text("<img src=img/a.jpg><img src='img/b c.jpg'><img src=img/broken.jpg>")
    (site / "blog/post.md").unlink()
    captioner = saying()
    captioner.confidences = {"a.jpg": 0.1, "b c.jpg": 0.9}
    assert main(["caption", "--alt-text", "site", "--min-confidence", "0.5"], captioner) == 1
    after = files(site)["index.html"].decode()
    assert re.findall("alt=", after) == ["alt="]
    assert "It&#39;s" in after
    assert capsys.readouterr().err.splitlines()[1:] == [
        "1 picture left alone: confidence below 0.5",
        "1 picture left as before:",
        "  site/img/broken.jpg: is broken",
    ]


def test_a_page_that_cannot_be_read_or_written_costs_no_other(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "locked.html").write_text("<img src=img/a.jpg>")
    (site / "locked.html").chmod(0o444)
    (site / "torn.html").write_bytes(b"\xff\xfe<")
    os.mkfifo(site / "pipe.md")
    before = files(site)
    assert main(["caption", "--alt-text", "site"], saying()) == 1
    after = files(site)
    assert {name for name in after if after[name] != before[name]} == FILLED.keys()
    err = capsys.readouterr().err
    assert "  site/locked.html: is read-only: allow writing to it\n" in err
    assert "  site/torn.html: is not text in the encoding utf-16-le, so it is left as it is\n" in err
    assert "  site/pipe.md: is no regular file\n" in err


def test_a_page_that_was_changed_meanwhile_is_left_to_its_author(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(Saying):
        def __call__(self, *arguments: Any, **more: Any) -> Any:
            (site / "index.html").write_text("<img src=img/a.jpg> more")
            return super().__call__(*arguments, **more)

    assert main(["caption", "--alt-text", "site"], Slow()) == 1
    assert files(site)["index.html"] == b"<img src=img/a.jpg> more"
    assert "site/index.html: has changed while its pictures were captioned: run this again" in capsys.readouterr().err


def test_hidden_folders_packages_and_pages_outside_are_passed_over(site: Path) -> None:
    for name in (".git/x.html", "node_modules/p/readme.md", ".x.html", "notes.txt", "../outside.html"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("<img src=/img/a.jpg>")
    (site / "linked.html").symlink_to(Path("../outside.html"))
    (site / "again.html").symlink_to(Path("index.html"))
    (site / "loop").symlink_to(Path())
    before = files(site)
    main(["caption", "--alt-text", "site"], saying())
    after = files(site)
    assert {name for name in after if after[name] != before[name]} == {"index.html", "again.html", "blog/post.md"}
    assert Path("outside.html").read_text() == "<img src=/img/a.jpg>"
    assert (site / "again.html").is_symlink()


@pytest.mark.parametrize(
    ("head", "found"),
    [
        ("<base href='/img/'>", True),
        ("<base href='../img/x.html'>", True),
        ("<base href='img/'>", False),
        ("<base href='https://example.org/'>", False),
        ("<base href='../../'>", False),
    ],
)
def test_a_base_says_what_urls_are_relative_to(head: str, found: bool, site: Path) -> None:
    (site / "blog/page.html").write_text(f"{head}<img src=a.jpg>")
    main(["caption", "--alt-text", "site"], saying())
    assert (b"alt=" in files(site)["blog/page.html"]) == found


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "shift_jis", "windows-1251"])
def test_pages_keep_their_encoding_and_texts_of_any_language_fit(encoding: str, site: Path) -> None:
    word = "写真" if encoding == "shift_jis" else "Фото"
    declared = f"<meta charset={encoding}>" if "utf" not in encoding else ""
    before = f"{declared}{word}<img src=img/a.jpg>{word}"
    (site / "page.html").write_bytes(before.encode(encoding))
    main(["caption", "--alt-text", "site"], Saying(text="Ф 写 😀."))
    after = files(site)["page.html"].decode(encoding)
    shown = "Ф 写 😀.".encode(encoding, "xmlcharrefreplace").decode(encoding).removeprefix("\ufeff")
    assert after == before.replace("a.jpg", f'a.jpg alt="{shown}"')


def test_a_page_of_unknown_encoding_gets_ascii(site: Path) -> None:
    (site / "page.html").write_bytes(b"\xd4\xff<img src=img/a.jpg>")
    main(["caption", "--alt-text", "site"], Saying(text="Ф\x1b\n."))
    assert files(site)["page.html"] == b'\xd4\xff<img src=img/a.jpg alt="&#1060; .">'


def test_an_interrupt_keeps_the_pages_that_are_done(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "a.html").write_text("<img src=img/a.jpg>")

    class Interrupted(Saying):
        def iter_captions(self, images: object, *arguments: object, **more: object) -> object:  # type: ignore[override]
            yield from list(super().iter_captions(["site/img/a.jpg"], *arguments, **more))  # type: ignore[arg-type]
            raise KeyboardInterrupt

    assert main(["caption", "--alt-text", "site", "--greedy", "--style", "plain"], Interrupted()) == 130
    after = files(site)
    assert (b"alt=" in after["a.html"], after["index.html"]) == (True, INDEX.encode())
    assert capsys.readouterr().err.endswith("interrupted: 1 of 2 pictures captioned\n")


def test_a_style_that_was_asked_for_is_kept(site: Path) -> None:
    captioner = saying()
    main(["caption", "--alt-text", "site", "--greedy", "--style", "plain"], captioner)
    assert captioner.decoding == Greedy(style="plain")

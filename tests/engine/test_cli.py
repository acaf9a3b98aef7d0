import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import Beam, Caption, EngineError, Greedy, Hypothesis, ImageError, ProviderError, RuntimeOptions, Sample
from engine.autotune.select import Choice
from engine.bundle.manifest import Defaults, GraphFile, ImageSpec, Manifest
from engine.bundle.vocabulary import RULES, Vocabulary
from engine.cli import main
from engine.commands.progress import Progress
from engine.images.formats import image_suffixes
from engine.images.load import load_pixels
from engine.images.paths import Scan, expand

SENTENCES = ("a dog runs", "a dog is running", "the dog")
WORDS = ("#END#", "#PAD#", "#START#", "#UNK#", "a", "dog", "is", "man", "of", "running", "runs", "the")
DEFAULTS = {"provider": "auto", "precision": "auto", "runtime": RuntimeOptions()}


BROKEN = (
    "is not an image of a known format, or its header is broken; if other programs show it, save it as JPEG with one "
    "of them"
)


class FakeCaptioner:
    """Reads the images and says the same of each; remembers how it was made and asked."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, dict[str, Any]]] = []
        self.decoding: Any = None
        self.before: Callable[[int], None] = lambda entry: None
        self.confidences: dict[int, tuple[float, ...]] = {}  # of an entry's sentences; of the others they are NaN
        self.provider, self.precision = "cpu", "fp32"
        self.choice = Choice("cpu", "fp32", RuntimeOptions(threads=2), "tuned on 2026-11-22")
        graphs = (GraphFile("encoder", "fp32", "encoder.onnx", "", (), (), ()),)
        spec = ImageSpec(4, 5, (0, 0, 0), (1, 1, 1))
        manifest = Manifest(
            "tiny", "lite", (8,), (), (), (), 0, 9, RULES, spec, Defaults(), graphs, {}, quality={"bleu_4": 0.175}
        )
        self.bundle = SimpleNamespace(path=Path("models/tiny"), manifest=manifest, vocabulary=Vocabulary(WORDS))

    def __call__(self, bundle: str | None, **options: Any) -> Any:
        self.made.append((bundle, options))
        return self

    def iter_captions(
        self, images: Iterable[Any], decoding: Any, *, on_error: str, attention: bool
    ) -> Iterator[Caption | ImageError]:
        assert on_error == "return"
        assert not attention
        self.decoding = decoding
        count = max(getattr(decoding, "num_hypotheses", 1), getattr(decoding, "num_samples", 1))
        for entry, image in enumerate(images):
            self.before(entry)
            try:
                load_pixels(image, height=4, width=5)
            except ImageError as error:
                yield error.at(entry)
                continue
            confidences = self.confidences.get(entry, (math.nan,) * len(SENTENCES))
            yield Caption.best_of(
                [
                    Hypothesis(text, -0.5 * i - 0.25, -2.0 * i - 1, (), (), True, confidence=confidence)
                    for i, (text, confidence) in enumerate(zip(SENTENCES[:count], confidences, strict=False))
                ]
            )


@pytest.fixture
def fake() -> FakeCaptioner:
    return FakeCaptioner()


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Becomes the current folder: two photographs, one more in a subfolder, one broken, and other files."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "A.PNG", "sub/deep/c.webp", ".hidden.jpg", ".cache/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / name)
    (tmp_path / "broken.gif").write_text("no gif")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def run(fake: FakeCaptioner, *arguments: str) -> int:
    return main(arguments, fake)


def names(*arguments: str, listed: bytes = b"") -> list[str]:
    return [path for argument in arguments for path in expand(argument, io.BytesIO(listed))]


# --- which images


def test_a_folder_is_its_image_files_sorted_with_subfolders_and_without_hidden_ones(photos: Path) -> None:
    found = ["A.PNG", "b.jpg", "broken.gif", "sub/deep/c.webp"]
    assert names(".") == [f"./{path}" for path in found]
    assert names(str(photos)) == [str(photos / path) for path in found]
    assert names("sub", "sub/") == ["sub/deep/c.webp"] * 2
    assert names(".cache") == [".cache/d.jpg"]


def test_a_named_file_is_always_tried_whatever_its_name_and_whether_it_is_there(photos: Path) -> None:
    named = ["notes.txt", ".hidden.jpg", "missing.jpg", "b.jpg", "b.jpg", "", "\x00", "x" * 5000]
    assert names(*named) == named


def test_a_glob_is_what_a_shell_makes_of_it(photos: Path) -> None:
    assert names("*.jpg") == ["b.jpg"]
    assert names("[Ab].*") == ["A.PNG", "b.jpg"]
    assert names("n*") == ["notes.txt"]
    assert names("s*") == ["sub/deep/c.webp"]
    assert names("**/*.webp") == ["sub/deep/c.webp"]
    assert names("./sub/**") == ["./sub/deep/c.webp"]


def test_a_glob_that_matches_nothing_is_a_missing_file(photos: Path) -> None:
    assert names("*.tiff") == ["*.tiff"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(photos: Path) -> None:
    (photos / "b[1].jpg").touch()
    (photos / "b1.jpg").touch()
    assert names("b[1].jpg") == ["b[1].jpg"]


def test_a_dash_is_a_list_of_paths_one_a_line(photos: Path) -> None:
    listed = b"b.jpg\n\nsub\r\nno such file.jpg\n*.jpg\nlast\xff.jpg"
    expected = ["b.jpg", "sub/deep/c.webp", "no such file.jpg", "b.jpg", os.fsdecode(b"last\xff.jpg")]
    assert names("A.PNG", "-", listed=listed) == ["A.PNG", *expected]


def test_a_folder_that_may_not_be_read_is_reported_and_not_passed_over(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def guarded(path: str) -> Any:
        if path.endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert names("sub") == ["sub/deep"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_folder_gives_regular_files_and_tells_how_many_others_it_leaves_out(photos: Path) -> None:
    os.mkfifo(photos / "pipe.jpg")
    (photos / "sub" / "device.png").symlink_to("/dev/zero")
    (photos / "link.jpg").symlink_to("b.jpg")
    (photos / "lost.jpg").symlink_to("nowhere.jpg")
    (photos / "icon.ico").touch()
    scan = Scan()
    found = ["A.PNG", "b.jpg", "broken.gif", "link.jpg", "lost.jpg", "sub/deep/c.webp"]
    assert list(expand(".", (), scan)) == [f"./{path}" for path in found]
    told = "2 are not named like an image, such as ./icon.ico; 2 are no regular file, such as ./pipe.jpg"
    assert str(scan) == f"4 files were left out: {told}"


def test_nothing_left_out_is_no_sentence_and_what_is_named_twice_is_counted_once(photos: Path) -> None:
    scan = Scan()
    assert list(expand("sub/**", (), scan)) == ["sub/deep/c.webp"]
    assert list(expand("notes.txt", (), scan)) == ["notes.txt"]
    assert str(scan) == ""
    for _ in range(2):
        list(expand(".", (), scan))
    assert str(scan) == "1 file was left out: ./notes.txt is not named like an image"


# --- what is printed


def test_each_image_is_a_line_of_path_tab_sentence(
    photos: Path, fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fake, "caption", "b.jpg", "sub") == 0
    assert capsys.readouterr() == ("b.jpg\ta dog runs\nsub/deep/c.webp\ta dog runs\n", "")


def test_failed_images_are_reported_at_the_end_and_all_others_captioned(
    photos: Path, fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fake, "caption", "missing.jpg", "broken.gif", "b.jpg") == 1
    out, err = capsys.readouterr()
    assert out == "b.jpg\ta dog runs\n"
    assert err.splitlines() == [
        "2 of 3 images could not be captioned:",
        "  missing.jpg: there is no such file",
        f"  broken.gif: {BROKEN}",
    ]


def test_json_has_one_line_for_every_named_file(
    photos: Path, fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fake, "caption", "--json", "missing.jpg", "b.jpg", "broken.gif") == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    best = {"text": "a dog runs", "score": -0.25, "log_prob": -1.0, "confidence": None}
    assert lines == [
        {"image": "missing.jpg", "error": "there is no such file"},
        {"image": "b.jpg", **best, "alternatives": [best]},
        {"image": "broken.gif", "error": BROKEN},
    ]
    assert err.startswith("2 of 3 images could not be captioned:\n")


def test_alternatives_are_indented_below_with_their_scores(
    photos: Path, fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fake, "caption", "b.jpg", "--alternatives", "2") == 0
    assert capsys.readouterr().out == "b.jpg\ta dog runs\n\t-0.25\ta dog runs\n\t-0.75\ta dog is running\n"
    assert run(fake, "caption", "b.jpg", "--alternatives", "3", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert [other["text"] for other in json.loads(line)["alternatives"]] == list(SENTENCES)


# --- what the model doubts


@pytest.fixture
def doubting(fake: FakeCaptioner) -> FakeCaptioner:
    """Is less sure of each image than of the one before; its bundle is calibrated."""
    fake.bundle.manifest = replace(fake.bundle.manifest, confidence={"threshold": 0.6, "intercept": 0.0})
    fake.confidences = {0: (0.75, 0.25, 0.5), 1: (0.5, 0.75, 0.5), 2: (0.25, 0.75, 0.5)}
    return fake


def test_exactly_the_captions_of_the_least_confidence_or_more_are_printed(
    photos: Path, doubting: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    left = "confidence below"
    for least, printed, said in (
        ("0", 3, ""),
        ("0.25", 3, ""),
        ("0.5", 2, f"1 of 3 captions were left out: {left} 0.5\n"),
        ("0.501", 1, f"2 of 3 captions were left out: {left} 0.501\n"),
        ("1", 0, f"3 of 3 captions were left out: {left} 1\n"),
    ):
        assert run(doubting, "caption", "b.jpg", "A.PNG", "sub", "--min-confidence", least) == 0
        lines = ["b.jpg\ta dog runs", "A.PNG\ta dog runs", "sub/deep/c.webp\ta dog runs"]
        assert capsys.readouterr() == ("".join(f"{line}\n" for line in lines[:printed]), said)


def test_json_keeps_a_line_for_a_doubted_image_and_its_text_is_null(
    photos: Path, doubting: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--json", "--alternatives", "3", "--min-confidence", "0.5")
    assert run(doubting, "caption", "b.jpg", "missing.jpg", "A.PNG", *arguments) == 1
    out, err = capsys.readouterr()
    first, missing, last = (json.loads(line) for line in out.splitlines())
    assert (first["text"], first["confidence"]) == ("a dog runs", 0.75)
    assert [other["confidence"] for other in first["alternatives"]] == [0.75, 0.5]
    assert missing == {"image": "missing.jpg", "error": "there is no such file"}
    assert last == first | {"image": "A.PNG", "text": None, "confidence": 0.25, "alternatives": []}
    assert err.splitlines()[0] == "1 of 2 captions were left out: confidence below 0.5"
    assert err.splitlines()[1] == "1 of 3 images could not be captioned:"


def test_doubted_alternatives_are_left_out_and_all_of_a_doubted_caption(
    photos: Path, doubting: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(doubting, "caption", "b.jpg", "A.PNG", "sub", "--alternatives", "3", "--min-confidence", "0.5") == 0
    every = "A.PNG\ta dog runs\n\t-0.25\ta dog runs\n\t-0.75\ta dog is running\n\t-1.25\tthe dog\n"
    assert capsys.readouterr().out == "b.jpg\ta dog runs\n\t-0.25\ta dog runs\n\t-1.25\tthe dog\n" + every


def test_a_caption_of_unknown_confidence_is_doubted(
    photos: Path, doubting: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    doubting.confidences = {}
    assert run(doubting, "caption", "b.jpg", "--min-confidence", "0") == 0
    assert capsys.readouterr() == ("", "1 of 1 captions were left out: confidence below 0\n")


def test_a_threshold_on_a_bundle_that_is_not_calibrated_is_one_sentence(
    photos: Path, fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fake, "caption", "b.jpg", "--min-confidence", "0.5") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "--min-confidence needs a calibrated bundle, and tiny is not" in err
    assert fake.decoding is None  # no image is read


def test_a_path_of_any_characters_stays_one_line(
    photos: Path, fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = ["a\nb\tc.jpg", os.fsdecode(b"\xff.jpg"), "日本 é\u202f.jpg", "x\x1b[31m\u2028.jpg", "no\nsuch.jpg"]
    for name in strange[:-1]:
        (photos / name).write_bytes((photos / "b.jpg").read_bytes())
    assert run(fake, "caption", *strange) == 1
    out, err = capsys.readouterr()
    said = [r"a\nb\tc.jpg", r"\udcff.jpg", "日本 é\u202f.jpg", r"x\x1b[31m\u2028.jpg"]
    assert out.split("\n") == [f"{name}\ta dog runs" for name in said] + [""]
    assert err.splitlines()[1:] == [r"  no\nsuch.jpg: there is no such file"]
    assert run(fake, "caption", "--json", *strange) == 1
    assert [json.loads(line)["image"] for line in capsys.readouterr().out.splitlines()] == strange


def test_a_terminal_that_cannot_show_a_path_gets_it_escaped(
    photos: Path, fake: FakeCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "b.jpg").rename(photos / "日.jpg")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert run(fake, "caption", "日.jpg") == 0
    assert written.getvalue() == b"\\u65e5.jpg\ta dog runs\n"


def test_each_line_is_out_before_the_next_image_is_captioned(
    photos: Path, fake: FakeCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(written), encoding="utf-8"))
    lines: list[int] = []
    fake.before = lambda entry: lines.append(written.getvalue().count(b"\n"))
    assert run(fake, "caption", "b.jpg", "b.jpg", "A.PNG") == 0
    assert lines == [0, 1, 2]


def test_a_list_on_standard_input_is_captioned(
    photos: Path, fake: FakeCaptioner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"b.jpg\nA.PNG\n")))
    assert run(fake, "caption", "-") == 0
    assert capsys.readouterr().out == "b.jpg\ta dog runs\nA.PNG\ta dog runs\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_a_folder_leaves_out_is_told_at_the_end(
    photos: Path, fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(photos / "x.jpg")
    assert run(fake, "caption", ".", "missing.jpg") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "2 files were left out: ./notes.txt is not named like an image; ./x.jpg is no regular file"
    )
    (photos / "only").mkdir()
    os.mkfifo(photos / "only" / "y\n.jpg")
    assert run(fake, "caption", "only") == 2
    assert capsys.readouterr().err == (
        "error: no image was found in only: name image files, or folders with files such as x.jpg or x.png; "
        "1 file was left out: only/y\\n.jpg is no regular file\n"
    )


def test_a_folder_gives_files_of_a_format_that_was_asked_for(photos: Path, fake: FakeCaptioner) -> None:
    Image.new("RGB", (4, 3)).save(photos / "d.tga")
    assert run(fake, "caption", "sub", "--formats", "WEBP") == 0
    assert fake.made[-1][1]["formats"] == ("WEBP",)
    run(fake, "caption", ".", "--formats", "png,Tga")
    assert fake.made[-1][1]["formats"] == ("PNG", "TGA")
    assert str(Path("d.tga")) in " ".join(expand(".", (), Scan(image_suffixes(["TGA"]))))


# --- how it ends


def test_an_interrupt_keeps_what_was_printed_and_says_how_far_it_came(
    photos: Path, fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(entry: int) -> None:
        if entry == 2:
            raise KeyboardInterrupt

    fake.before = interrupt
    assert run(fake, "caption", "b.jpg", "broken.gif", "A.PNG", "sub") == 130
    out, err = capsys.readouterr()
    assert out == "b.jpg\ta dog runs\n"
    assert err.splitlines()[-1] == "interrupted: 1 of 4 images captioned"
    assert "  broken.gif: " in err


def test_an_interrupt_before_the_first_image_leaves_no_trace(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def loading(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    assert main(["caption", "b.jpg"], loading) == 130
    assert capsys.readouterr() == ("", "interrupted: no image captioned\n")


def test_a_closed_pipe_ends_silently(photos: Path, fake: FakeCaptioner, monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    errors = io.StringIO()
    with os.fdopen(write_end, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        monkeypatch.setattr(sys, "stderr", errors)
        assert run(fake, "caption", "b.jpg", "broken.gif", "A.PNG") == 141
        assert run(fake, "info") in (0, 141)
    assert errors.getvalue() == ""


def test_a_full_disk_is_one_sentence(
    photos: Path, fake: FakeCaptioner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert run(fake, "caption", "b.jpg") == 2
    assert capsys.readouterr().err == "error: No space left on device\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--temperature", "0.5"], "--temperature needs --sample"),
        (["--greedy", "--seed", "1"], "--seed needs --sample"),
        (["--beam", "2", "--top-k", "5"], "--top-k needs --sample"),
        (["--top-p", "0.5"], "--top-p needs --sample"),
        (["--sample", "--length-penalty", "1"], "--length-penalty needs beam search: leave out --sample"),
        (["--greedy", "--alternatives", "2"], "--alternatives needs beam search or --sample: leave out --greedy"),
        (["--beam", "0"], "--beam must be a whole number from 1 to 10,000, but it is 0"),
        (
            ["--beam", "2", "--alternatives", "3"],
            "--alternatives must be at most --beam (2), but it is 3; leave --beam",
        ),
        (["--sample", "--top-p", "0"], "--top-p must be a number above 0 and up to 1, but it is 0.0"),
        (["--formats", "JPEG,RAW"], "--formats: 'RAW' is not a format that Pillow reads; choose from AVIF, "),
        (["--threads", "-1"], "--threads must be a whole number from 0, but it is -1"),
        (["--no-repeat-ngram", "-1"], "--no-repeat-ngram must be a whole number from 0, but it is -1"),
        ([""], "a PATH is empty: name a file or a folder"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(
    arguments: list[str], sentence: str, photos: Path, fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fake, "caption", "b.jpg", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert not fake.made  # said before anything is loaded


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "the following arguments are required: COMMAND; see `python -m engine --help`"),
        (
            ["draw", "b.jpg"],
            "COMMAND must be one of 'caption', 'index', 'search', 'info', 'tune', 'warmup', but it is 'draw'",
        ),
        (["caption", "b.jpg", "--greedy", "--sample"], "--sample cannot be used with --greedy"),
        (["caption", "b.jpg", "--beam", "3", "--greedy"], "--greedy cannot be used with --beam"),
        (["caption", "b.jpg", "--beam", "x"], "--beam must be a whole number, but it is 'x'"),
        (["caption", "b.jpg", "--temp", "1"], "there is no flag --temp (did you mean --temperature?)"),
        (["caption", "b.jpg", "--zzz=1"], "there is no flag --zzz; see `python -m engine caption --help`"),
        (["caption", "b.jpg", "--suppress"], "--suppress needs a value"),
        (["caption", "b.jpg", "--style", "poem"], "--style must be one of 'plain', 'sentence', but it is 'poem'"),
        (["caption", "b.jpg", "--min-confidence", "1.5"], "--min-confidence must be from 0 to 1, but it is 1.5"),
        (["caption", "b.jpg", "--min-confidence", "nan"], "--min-confidence must be a number, but it is 'nan'"),
        (["tune", "--seconds", "0"], "--seconds must be above 0, but it is 0; see `python -m engine tune --help`"),
        (["warmup", "--batchsize", "1"], "there is no flag --batchsize (did you mean --batch-size?)"),
        (["info", "b.jpg"], "'b.jpg' was not expected; see `python -m engine info --help`"),
    ],
)
def test_wrong_usage_is_one_sentence_that_says_where_to_look(
    arguments: list[str], sentence: str, fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(fake, *arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"error: {sentence}")
    assert err.endswith(" --help`\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["caption", "b.jpg", "--batch-size", "0"], "--batch-size must be a whole number from 1, but it is 0"),
        (["caption", "b.jpg", "--max-pixels", "0"], "--max-pixels must be a whole number from 1, but it is 0"),
        (["warmup", "--batch-size", "-3"], "--batch-size must be a whole number from 1, but it is -3"),
        (["caption", "b.jpg", "--prefix", "x"], "--prefix: the model does not know ['x']; choose other words"),
        (["caption", "b.jpg", "--min-length", "9", "--max-length", "3"], "--min-length must be below --max-length=3"),
        (["info", "--precision", "fp64"], "has no precision 'fp64': choose auto, fp32"),
        (["info", "--provider", "cpu+cpu+cpu"], "provider 'cpu+cpu+cpu' has too many parts: give one, or two"),
    ],
)
def test_what_only_the_engine_can_check_is_said_in_flags(
    arguments: list[str], sentence: str, photos: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--bundle", str(tiny_bundle)]) == 2
    assert sentence in capsys.readouterr().err


def test_advice_on_an_image_names_the_flag(photos: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["--bundle", str(tiny_bundle)]
    for more, advice in (
        (["--max-pixels", "4"], "; raise --max-pixels if you trust it\n"),
        (["--formats", "PNG"], "; add it to --formats if you trust it\n"),
    ):
        assert main(["caption", "b.jpg", *more, *told]) == 1
        assert capsys.readouterr().err.endswith(advice)
        assert main(["caption", "b.jpg", "--json", *more, *told]) == 1
        assert json.loads(capsys.readouterr().out)["error"].endswith(advice.strip())


def test_words_that_the_bundle_never_writes_are_noted(
    photos: Path, fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fake, "caption", "b.jpg", "--suppress", "dog,dgo,the cat", "--bad-endings", "of,off") == 0
    assert capsys.readouterr() == (
        "b.jpg\ta dog runs\n",
        "note: the bundle never writes dgo, cat, so --suppress changes nothing there\n"
        "note: the bundle never writes off, so --bad-endings changes nothing there\n",
    )
    assert run(fake, "caption", "b.jpg", "--suppress", "dog") == 0
    assert capsys.readouterr().err == ""


def test_nothing_to_caption_is_an_error(photos: Path, fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "empty").mkdir()
    assert run(fake, "caption", "empty") == 2
    said = "name image files, or folders with files such as x.jpg or x.png"
    assert capsys.readouterr() == ("", f"error: no image was found in empty: {said}\n")


@pytest.mark.parametrize("command", [["caption", "b.jpg"], ["info"]])
def test_an_error_of_the_engine_is_one_sentence(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def missing(*_: object, **__: object) -> Any:
        raise ProviderError("the provider 'cuda' is not here")

    assert main(command, missing) == 2
    assert capsys.readouterr() == ("", "error: the provider 'cuda' is not here\n")


def test_an_error_on_the_way_is_one_sentence(
    photos: Path, fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(entry: int) -> None:
        raise EngineError("no such word")

    fake.before = fail
    assert run(fake, "caption", "b.jpg") == 2
    assert capsys.readouterr() == ("", "error: no such word\n")


# --- options


@pytest.mark.parametrize(
    ("arguments", "decoding"),
    [
        ("", Beam()),
        ("--greedy", Greedy()),
        ("--beam 5", Beam(beam_size=5)),
        ("--beam 5 --alternatives 4 --length-penalty 0.7", Beam(beam_size=5, num_hypotheses=4, length_penalty=0.7)),
        ("--alternatives 4", Beam(num_hypotheses=4)),
        ("--sample", Sample()),
        (
            "--sample --temperature 0.5 --top-k 9 --top-p 0.9 --seed 0 --alternatives 3",
            Sample(temperature=0.5, top_k=9, top_p=0.9, seed=0, num_samples=3),
        ),
        (
            "--greedy --max-length 9 --min-length 2 --prefix a --no-repeat-ngram 2 --suppress man,dog --suppress cat",
            Greedy(max_length=9, min_length=2, prefix="a", no_repeat_ngram_size=2, suppress=("man", "dog", "cat")),
        ),
        ("--bad-endings a,of --style sentence", Beam(bad_endings=("a", "of"), style="sentence")),
        ("--no-repeat-ngram 0 --bad-endings=", Beam(no_repeat_ngram_size=0, bad_endings=())),
    ],
)
def test_options_become_the_decoding(arguments: str, decoding: object, photos: Path, fake: FakeCaptioner) -> None:
    assert run(fake, "caption", *arguments.split(), "b.jpg") == 0
    assert fake.decoding == decoding


def test_a_prefix_may_hold_several_words(photos: Path, fake: FakeCaptioner) -> None:
    assert run(fake, "caption", "--prefix", "a photo of", "b.jpg") == 0
    assert fake.decoding == Beam(prefix="a photo of")


def test_what_was_left_out_is_left_to_the_captioner(photos: Path, fake: FakeCaptioner) -> None:
    assert run(fake, "caption", "b.jpg") == 0
    assert fake.made == [(None, DEFAULTS)]


def test_options_reach_the_captioner(photos: Path, fake: FakeCaptioner) -> None:
    arguments = "--bundle mine --provider cpu --precision int8 --batch-size 4 --threads 3 --max-pixels 99"
    assert run(fake, "caption", *arguments.split(), "b.jpg") == 0
    runtime = RuntimeOptions(threads=3)
    options = {"provider": "cpu", "precision": "int8", "batch_size": 4, "max_pixels": 99, "runtime": runtime}
    assert fake.made == [("mine", options)]


# --- info


def test_info_shows_bundle_provider_precision_versions_and_quality(
    fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fake, "info", "--bundle", "mine", "--provider", "cpu") == 0
    assert fake.made == [("mine", {"provider": "cpu", "precision": "auto"})]
    out = capsys.readouterr().out
    facts = dict(line.split(None, 1) for line in out.splitlines())
    assert facts["bundle"] == str(Path("models/tiny"))
    assert facts["provider"] == "cpu"
    assert facts["precision"] == "fp32"
    assert (facts["threads"], facts["chosen"]) == ("2", "tuned on 2026-11-22")
    assert facts["image"].startswith("height 4, width 5")
    assert facts["quality"] == "bleu_4 0.175"
    assert f"numpy {np.__version__}" in facts["versions"]


def test_info_shows_the_scores_of_several_data_sets_a_line_each(
    fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = {"images": 3, "precision": "fp32", "scores": {"CIDEr": 0.5, "METEOR": 0.1}}
    quality = {"ours": measured, "theirs": measured}
    fake.bundle.manifest = replace(fake.bundle.manifest, quality=quality)
    assert run(fake, "info") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "CIDEr" in line]
    assert lines == [
        f"{'quality':<16} ours, 3 images, fp32: CIDEr 0.5",
        f"{'':<16} theirs, 3 images, fp32: CIDEr 0.5",
    ]
    assert run(fake, "info", "--json") == 0
    assert json.loads(capsys.readouterr().out)["quality"] == quality
    fake.bundle.manifest = replace(fake.bundle.manifest, quality={"data": "mine", **measured})
    assert run(fake, "info") == 0
    assert f"{'quality':<16} mine, 3 images, fp32: CIDEr 0.5\n" in capsys.readouterr().out


def test_info_as_json_is_one_object(fake: FakeCaptioner, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake, "info", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["name"] == "tiny"
    assert facts["precisions"] == ["fp32"]
    assert facts["versions"].keys() == {"engine", "onnxruntime", "numpy", "Pillow"}
    assert facts["quality"] == {"bleu_4": 0.175}


# --- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_and_wiped_before_each_line(
    photos: Path, fake: FakeCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    assert run(fake, "caption", "b.jpg", "A.PNG") == 0
    drawn = screen.getvalue().split("\r")
    assert "0 of 2 images" in drawn[0]
    assert drawn[1] == " " * len(drawn[0])
    assert drawn[2].startswith("b.jpg\ta dog runs\n[###############               ] 1 of 2 images")
    assert drawn[4] == "A.PNG\ta dog runs\n"
    assert len(drawn) == 5


def test_progress_is_silent_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    progress = Progress(3, stream, "{done}")
    progress.show(1)
    progress.clear()
    assert stream.getvalue() == ""

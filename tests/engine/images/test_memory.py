"""What decodes at once is bounded by bytes, and nobody waits for ever."""

import io
import os
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.errors import ImageError, OptionsError
from engine.images import jpeg, load
from engine.images.formats import FORMATS
from engine.images.load import load_pixels
from engine.images.memory import SMALL, Budget, bytes_to_decode
from tests.engine.images.pictures import encoded, photograph

MB = 1_000_000


@settings(max_examples=20, deadline=None, derandomize=True)
@given(counts=st.lists(st.integers(SMALL + 1, 150 * MB), min_size=1, max_size=30))
def test_no_more_than_the_budget_is_held_unless_by_one_alone(counts: list[int]) -> None:
    budget, lock = Budget(100 * MB), threading.Lock()
    held: list[int] = []

    def decode(count: int) -> None:
        with budget.hold(count):
            with lock:
                held.append(count)
                assert sum(held) <= budget.size or len(held) == 1
            time.sleep(0.0005)
            with lock:
                held.remove(count)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, counts, timeout=60))
    with budget.hold(budget.size):
        pass


def waits(budget: Budget, count: int) -> threading.Event:
    entered = threading.Event()

    def enter() -> None:
        with budget.hold(count):
            entered.set()

    threading.Thread(target=enter, daemon=True).start()
    return entered


def test_small_ones_pass_those_who_wait_and_large_ones_keep_their_order() -> None:
    budget = Budget(100 * MB)
    with budget.hold(60 * MB):
        large = waits(budget, 90 * MB)
        assert not large.wait(0.1)
        later = waits(budget, 20 * MB)  # there is room for it, and a stream of such would starve the large one
        assert not later.wait(0.1)
        assert waits(budget, SMALL).wait(5)
    assert large.wait(5)
    assert later.wait(5)


def test_what_is_held_is_given_back_by_whoever_fails_or_is_interrupted() -> None:
    budget = Budget(100 * MB)
    with pytest.raises(KeyboardInterrupt), budget.hold(80 * MB):
        raise KeyboardInterrupt
    assert waits(budget, 100 * MB).wait(5)


def test_an_interrupted_wait_lets_those_behind_it_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(100 * MB)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with budget.hold(80 * MB):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Condition, "wait", interrupt)
            with pytest.raises(KeyboardInterrupt), budget.hold(50 * MB):
                pass
        assert waits(budget, 20 * MB).wait(5)


class Noting(Budget):
    """A budget that notes what is held."""

    def __init__(self) -> None:
        super().__init__(400 * MB)
        self.counts: list[int] = []

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        if count > SMALL:
            self.counts.append(count)
        with super().hold(count):
            yield


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> Noting:
    """The budget of `load_pixels`."""
    noting = Noting()
    monkeypatch.setattr(load, "DECODING", noting)
    return noting


@pytest.mark.parametrize("format", ["WEBP", "AVIF"])
def test_a_long_file_that_is_read_whole_is_held_from_the_start_and_with_its_pixels(format: str, budget: Noting) -> None:
    data = encoded(photograph(), format) + bytes(10 * MB)
    pixels = load_pixels(data, height=23, width=31)
    whole, with_pixels = budget.counts
    assert whole == len(data) < with_pixels < len(data) + MB
    assert waits(budget, budget.size).wait(5)  # nothing is held any more
    np.testing.assert_array_equal(pixels, load_pixels(data[: -10 * MB], height=23, width=31))


@pytest.mark.parametrize("most", [100 * MB, 5 * MB])
def test_a_long_jpeg_is_held_where_it_is_read_whole(
    most: int, budget: Noting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "long.jpg"
    file.write_bytes(encoded(photograph(64, 48), "JPEG") + bytes(10 * MB))
    monkeypatch.setattr(jpeg, "MOST_BYTES", most)
    pixels = load_pixels(file, height=48, width=64, quick=True)
    assert [count > 10 * MB for count in budget.counts] == ([True] if most > 10 * MB else [])
    np.testing.assert_array_equal(pixels, load_pixels(encoded(photograph(64, 48), "JPEG"), height=48, width=64))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_begins_with_the_whole_budget() -> None:
    code = (
        "import os; from engine.images.memory import DECODING as d\n"
        "with d.hold(d.size):\n"
        "  if not (child := os.fork()):\n"
        "    with d.hold(d.size): os._exit(7)\n"
        "  print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "7"


def test_a_photograph_of_a_common_size_meets_no_lock(budget: Noting) -> None:
    for size in ((640, 480), (4000, 3000)):
        for quick in (False, True):
            load_pixels(encoded(Image.new("RGB", size, "red"), "JPEG"), height=260, width=260, quick=quick)
    load_pixels(encoded(Image.new("RGB", (640, 480)), "WEBP"), height=260, width=260)
    assert budget.counts == []


def test_what_takes_more_than_the_limit_is_refused_before_it_is_decoded_unless_max_pixels_is_raised() -> None:
    data = encoded(Image.new("1", (8000, 8000)), "WEBP", lossless=True, method=0)
    with pytest.raises(ImageError) as caught:
        load_pixels(data, height=8, width=8, max_pixels=100 * MB)
    assert caught.value.explanation == (
        "is too large: 8,000 x 8,000 pixels as WEBP take 1,088 MB to decode, more than the limit of 400; "
        "raise max_pixels if you trust it"
    )


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in ("HEIF", "JXL", "PSD")])
def test_nothing_is_decoded_before_it_is_known_what_it_takes(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = photograph(1500, 1500)
    data = encoded(image.convert("P") if format == "GIF" else image, format)

    def refuse(*_: object) -> None:
        raise OptionsError("asked before it was decoded")

    monkeypatch.setattr("PIL.Image.core.new", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(load, "bytes_to_decode", lambda *_, **__: refuse(bytes_to_decode(*_, **__)))
    with pytest.raises(ImageError, match="asked before it was decoded"):
        load_pixels(data, height=8, width=8)


def test_a_jpeg_in_several_scans_that_takes_too_much_is_told_by_its_stored_size() -> None:
    data = encoded(Image.new("RGB", (9000, 9000)), "JPEG", progressive=True, subsampling=0)
    with pytest.raises(ImageError, match=r"is too large: 9,000 x 9,000 pixels as JPEG take 4[0-9]{2} MB to decode"):
        load_pixels(data, height=8, width=8, max_pixels=100 * MB)


def test_what_a_caller_holds_who_reads_while_handling_an_error_stays() -> None:
    def look(held: list[int]) -> None:
        raise KeyError("missing")

    frames: list[FrameType] = []
    try:
        look([1, 2, 3])
    except KeyError as error:
        with pytest.raises(ImageError):
            load_pixels(b"no image", height=8, width=8)
        frames += (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    assert frames[1].f_locals["held"] == [1, 2, 3]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_an_error_whose_causes_go_round_ends(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [OSError(f"number {number}") for number in range(length)]
    for error, cause in zip(errors, errors[1:] + errors[:1], strict=True):
        error.__cause__ = cause

    def fail(*_: object) -> None:
        raise errors[0]

    monkeypatch.setattr(Image.Image, "resize", fail)
    with pytest.raises(ImageError, match="number 0"):
        load_pixels(photograph(), height=8, width=8)


def test_a_picture_a_pixel_wide_and_miles_long_is_refused() -> None:
    with pytest.raises(ImageError, match="is too large: 1 x 9,000,000 pixels as PPM take"):
        load_pixels(b"P5 1 9000000 255\n" + bytes(9), height=260, width=260)


@pytest.mark.parametrize(
    "scans",
    [{"progressive": True}, {"progressive": True, "subsampling": 0}, {}],
    ids=["progressive", "progressive 4:4:4", "baseline"],
)
def test_a_jpeg_counts_what_is_kept_between_its_scans(scans: dict[str, Any]) -> None:
    from engine.images.jpeg import kept_between_scans

    data = io.BytesIO(encoded(photograph(1600, 1000), "JPEG", **scans))
    image: Any = Image.open(data)
    expected = {0: 6 * 1_600_000}.get(scans.get("subsampling", 2), 3 * 1_600_000) if scans else 0
    assert kept_between_scans(image, data) == expected


PEAK = """
import sys
from engine.images.load import load_pixels
from PIL import Image
import engine.images.memory as m
def status(name):
    return [int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name)][0]
small = sys.argv[1].rpartition("/")[0] + "/small." + sys.argv[1].rpartition(".")[2]
load_pixels(small, height=260, width=260)
load_pixels(Image.new("RGB", (3000, 3000)), height=260, width=260)  # strips
held = []
hold = m.Budget.hold
m.Budget.hold = lambda self, count: (held.append(count), hold(self, count))[1]
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
load_pixels(sys.argv[1], height=260, width=260)
print(max(held), status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system does not tell a process's peak")
@pytest.mark.parametrize(
    ("format", "mode", "options"),
    [
        ("PNG", "RGBA", {"compress_level": 1}),
        ("WEBP", "RGB", {"method": 0}),
        ("AVIF", "RGBA", {"speed": 10}),
        ("JPEG2000", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "CMYK", {}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
    ],
)
def test_decoding_takes_about_what_was_reckoned_and_not_more(
    format: str, mode: str, options: dict[str, Any], tmp_path: Path
) -> None:
    noise = Image.effect_noise((750, 500), 90)
    image = Image.merge("RGB", (noise, noise.rotate(180), noise)).resize((3000, 2000))
    if mode == "RGBA":
        image.putalpha(image.getchannel(0))
    else:
        image = image.convert(mode)
    file = tmp_path / f"large.{format.lower()}"
    image.save(file, format, **options)
    image.resize((40, 30)).save(tmp_path / f"small.{format.lower()}", format, **options)
    done = subprocess.run([sys.executable, "-c", PEAK, str(file)], capture_output=True, text=True, check=True)
    reckoned, taken = map(int, done.stdout.split())
    assert taken <= reckoned + 45 * MB  # strips on their way
    assert reckoned <= 3 * taken + 45 * MB


@pytest.mark.parametrize("cause", [None, ValueError("a cause that hides it")], ids=["inner", "another"])
def test_an_error_that_is_kept_keeps_no_picture(cause: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures: list[weakref.ref[Image.Image]] = []

    def look_at(image: Image.Image) -> None:
        pictures.append(weakref.ref(image))
        raise KeyError("inner")

    def fail(image: Image.Image, *_: object) -> None:
        try:
            look_at(image)
        except KeyError as error:
            raise OSError("outer") from cause or error

    monkeypatch.setattr(Image.Image, "resize", fail)
    with pytest.raises(ImageError, match="outer") as kept:
        load_pixels(encoded(photograph(), "PNG"), height=8, width=8)
    assert kept.value.__cause__ is not None
    assert [picture() for picture in pictures] == [None]

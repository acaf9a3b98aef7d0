import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from engine import ImageError, OptionsError, PhotoIndex
from engine.search import thumbnails
from engine.search.thumbnails import as_jpeg, open_photo
from tests.engine.images.pictures import exif, photograph
from tests.engine.search.conftest import Open


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of thumbnails, empty."""
    monkeypatch.setenv("CAPTIONING_ENGINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "thumbnails"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The side of each thumbnail that is made."""
    sides: list[int] = []

    def make(source: BytesIO, side: int, **limits: object) -> bytes:
        sides.append(side)
        return as_jpeg(source, side, **limits)  # type: ignore[arg-type]

    monkeypatch.setattr(thumbnails, "as_jpeg", make)
    return sides


@pytest.fixture
def index(opened: Open, photos: Path) -> PhotoIndex:
    """An index of the drawings."""
    index = opened()
    index.add([photos])
    return index


def id_of(index: PhotoIndex, path: Path) -> int:
    photo = index.caption(path)
    assert photo
    return photo.id


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_thumbnail_is_upright_and_keeps_its_shape(tmp_path: Path) -> None:
    photograph(60, 30).save(tmp_path / "a.jpg", exif=exif(6), quality=95)
    small = Image.open(BytesIO(as_jpeg(tmp_path / "a.jpg", 20, max_pixels=10_000, formats=("JPEG",))))
    assert (small.format, small.size) == ("JPEG", (10, 20))


def test_a_thumbnail_is_made_once(index: PhotoIndex, photos: Path, cache: Path, made: list[int]) -> None:
    id_ = id_of(index, photos / "0.jpg")
    first = index.thumbnail(id_, 40)
    assert max(Image.open(BytesIO(first)).size) == 40
    assert index.thumbnail(id_, 40) == first
    assert made == [40]
    assert [path.read_bytes() for path in files(cache)] == [first]
    index.thumbnail(id_, 50)
    assert made == [40, 50]
    shutil.rmtree(cache)  # as the documentation allows
    assert index.thumbnail(id_, 40) == first


def test_a_kept_thumbnail_without_its_end_is_made_again(index: PhotoIndex, photos: Path, cache: Path) -> None:
    id_ = id_of(index, photos / "0.jpg")
    whole = index.thumbnail(id_)
    (kept,) = files(cache)
    for damaged in (b"", whole[:-10]):
        kept.write_bytes(damaged)
        assert index.thumbnail(id_) == whole == kept.read_bytes()


def test_without_a_folder_for_them_thumbnails_are_made_each_time(
    index: PhotoIndex, photos: Path, cache: Path, made: list[int]
) -> None:
    cache.parent.write_bytes(b"a file in its place")
    id_ = id_of(index, photos / "0.jpg")
    assert index.thumbnail(id_) == index.thumbnail(id_)
    assert len(made) == 2


def test_the_oldest_thumbnails_give_way(
    index: PhotoIndex, photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = id_of(index, photos / "0.jpg")
    for age, side in enumerate((60, 61, 62, 63)):
        size = len(index.thumbnail(id_, side))
        os.utime(files(cache)[-1], (1000 + age, 1000 + age))
    assert len(files(cache)) == 4
    monkeypatch.setattr(thumbnails, "MOST_BYTES", 256 * 4 * size)
    index.thumbnail(id_, 64)
    assert [path.stem.rpartition("-")[2] for path in files(cache)] in (["63", "64"], ["62", "63", "64"])


def test_a_file_that_is_gone_or_changed_is_not_shown_and_a_copy_is(
    index: PhotoIndex, photos: Path, cache: Path
) -> None:
    path = photos / "0.jpg"
    id_, content = id_of(index, path), path.read_bytes()
    shutil.copyfile(path, photos / "below" / "copy.jpg")
    index.add([photos])
    before = index.thumbnail(id_)
    for change in (path.unlink, lambda: path.write_bytes(content[:-1] + b"x")):
        change()
        assert index.thumbnail(id_) == before
        with index.open_file(id_) as file:
            assert file.read() == content
    (photos / "below" / "copy.jpg").unlink()
    with pytest.raises(ImageError, match="is gone, or was changed since it was indexed; index it again"):
        index.open_file(id_)
    path.write_bytes(b"short")
    with pytest.raises(ImageError, match="is gone, or was changed"):
        index.thumbnail(id_)


def test_what_takes_the_place_of_a_photograph_is_never_opened(
    index: PhotoIndex, photos: Path, tmp_path: Path, cache: Path
) -> None:
    path = photos / "0.jpg"
    id_, size = id_of(index, path), path.stat().st_size
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * size)  # as large, so that only its content tells
    changes: list[Callable[[], None]] = [lambda: path.symlink_to(secret), lambda: os.mkfifo(path), path.mkdir]
    for change in changes:
        path.unlink()
        change()
        for use in (index.open_file, index.thumbnail):
            with pytest.raises(ImageError, match="is gone, or was changed"):
                use(id_)
    assert files(cache) == []


def test_an_image_of_an_object_store_is_not_looked_for_here(index: PhotoIndex, photos: Path) -> None:
    photo = index.caption(photos / "0.jpg")
    assert photo
    with pytest.raises(ImageError, match="is not on this machine"):
        open_photo(replace(photo, paths=("s3://bucket/0.jpg",)))
    open_photo(replace(photo, paths=(photo.path, "s3://bucket/0.jpg"))).close()


@pytest.mark.parametrize("id_", [0, -1, 7, 2**63, 10**40])
def test_an_unknown_number_is_no_photograph(index: PhotoIndex, id_: int) -> None:
    assert index.photo(id_) is None
    for use in (index.open_file, index.thumbnail):
        with pytest.raises(OptionsError, match=f"there is no photograph {id_} in the index"):
            use(id_)


@pytest.mark.parametrize("side", [0, 15, 4097, True, 20.0])
def test_a_side_is_a_whole_number_within_bounds(index: PhotoIndex, photos: Path, side: int) -> None:
    with pytest.raises(OptionsError, match="side must be a whole number from 16 to 4,096"):
        index.thumbnail(id_of(index, photos / "0.jpg"), side)

"""The same photographs are found in a file and on a server."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine import Captioner, PhotoIndex
from engine.errors import OptionsError
from engine.search.photo import Results

QUERIES = ["a red circle", "blue square on green", "triangles", "something else", "circle square triangle red green"]


def said(results: Results) -> list[tuple[tuple[str, ...], str, str]]:
    return [(found.photo.paths, found.photo.sha256, found.photo.text) for found in results]


def assert_same(one: Results, other: Results) -> None:
    assert said(one) == said(other)
    assert [found.score for found in one] == pytest.approx([found.score for found in other], abs=1e-4)
    assert one.left_out == other.left_out


@pytest.fixture(params=["tiny_captioner", "vector_captioner"])
def both(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_place: str, photos: Path
) -> Iterator[list[PhotoIndex]]:
    """An index in a file and one on a server, of the same photographs, with a bundle that has vectors or has none."""
    captioner: Captioner = request.getfixturevalue(request.param)
    shutil.copyfile(photos / "0.jpg", photos / "copy.jpg")
    (photos / "broken.jpg").write_bytes(b"no photograph")
    indexes = [PhotoIndex(place, captioner) for place in (tmp_path / "photos.db", postgres_place)]
    for index in indexes:
        added = index.add([photos])
        assert (added.captioned, added.copies, len(added.errors)) == (6, 1, 1)
    yield indexes
    for index in indexes:
        index.close()


def test_a_file_and_a_server_find_the_same(both: list[PhotoIndex], photos: Path, images: list[Path]) -> None:
    file, server = both
    for query in QUERIES:
        for limit in (1, 4, 100):
            assert_same(file.search(query, limit), server.search(query, limit))
    assert file.search("circle square triangle red green blue on a", 100)
    if file.captioner.bundle.manifest.vector_size:
        for image in (photos / "1.jpg", images[8], np.asarray([[[1, 2, 3]]], np.uint8)):
            assert_same(file.similar(image, 4), server.similar(image, 4))
        for each in both:
            with pytest.raises(OptionsError, match="there is no photograph 99 in the index"):
                each.similar(99)
    assert file.counts() == server.counts()


def test_a_file_and_a_server_take_over_the_same_changes(both: list[PhotoIndex], photos: Path) -> None:
    file, server = both
    assert_same(file.search("circle", 100), server.search("circle", 100))
    (photos / "0.jpg").unlink()
    (photos / "1.jpg").rename(photos / "moved.jpg")
    (photos / "2.jpg").unlink()
    for index in both:
        assert index.add([photos]).missing == 3
    for query in QUERIES:
        assert_same(file.search(query, 100), server.search(query, 100))
        paths = {path for found in file.search(query, 100) for path in found.photo.paths}
        assert paths <= {str(path) for path in photos.rglob("*.jpg")}
    assert file.counts() == server.counts()
    assert {index.caption(photos / "moved.jpg") is None for index in both} == {False}
    assert {index.caption(photos / "2.jpg") for index in both} == {None}

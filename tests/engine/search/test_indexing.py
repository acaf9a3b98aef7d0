import os
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine import Added, Beam, Captioner, Photo, PhotoIndex, StoreError
from tests.engine.search.conftest import Open


def names(index: PhotoIndex) -> set[str]:
    """Returns the names of all files that are found by some word of some caption."""
    return {Path(path).name for photo in all_photos(index) for path in photo.paths}


def all_photos(index: PhotoIndex) -> list[Photo]:
    return [photo for id_ in range(1, 100) if (photo := index.photo(id_)) and photo.paths]


def outcome(added: Added) -> tuple[int, int, int, int, int]:
    return added.captioned, added.copies, added.unchanged, len(added.errors), added.missing


def test_every_photograph_has_the_captions_and_features_that_the_captioner_gives(
    opened: Open, photos: Path, tiny_captioner: Captioner
) -> None:
    index = opened()
    assert outcome(index.add([photos])) == (6, 0, 0, 0, 0)
    files = sorted(photos.rglob("*.*"))
    captions = tiny_captioner.caption(files, Beam(num_hypotheses=3))
    features = tiny_captioner.encode(files)
    for file, caption, row in zip(files, captions, features, strict=True):
        photo = index.caption(file)
        assert photo is not None
        assert (photo.text, photo.paths) == (caption.text, (str(file),))
        assert [each.text for each in photo.alternatives] == list(dict.fromkeys(h.text for h in caption.alternatives))
        assert photo.alternatives[0].log_prob == pytest.approx(caption.log_prob, abs=1e-4)
        assert photo.size == file.stat().st_size
        assert photo.modified == pytest.approx(file.stat().st_mtime)
        (stored,) = index._opened().features([photo.id])
        np.testing.assert_allclose(stored, row, rtol=1e-3, atol=1e-4)


def test_a_second_pass_reads_no_file_again(opened: Open, photos: Path) -> None:
    opened().add([photos])
    file = photos / "0.jpg"
    was = file.stat()
    file.write_bytes(b"x" * was.st_size)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert outcome(opened().add([photos])) == (0, 0, 6, 0, 0)


def test_a_changed_file_is_captioned_again(opened: Open, photos: Path, images: list[Path]) -> None:
    index = opened()
    index.add([photos])
    before = index.caption(photos / "0.jpg")
    shutil.copyfile(images[8], photos / "0.jpg")
    assert outcome(index.add([photos])) == (1, 0, 5, 0, 0)
    after = index.caption(photos / "0.jpg")
    assert before is not None
    assert after is not None
    assert after.id != before.id
    assert index.photo(before.id) == replace(before, paths=(), size=0, modified=0)


def test_a_moved_file_is_known_by_its_bytes_and_keeps_its_id(opened: Open, photos: Path) -> None:
    index = opened()
    index.add([photos])
    before = index.caption(photos / "1.jpg")
    (photos / "1.jpg").rename(photos / "below" / "other name.jpg")
    assert outcome(index.add([photos])) == (0, 1, 5, 0, 1)
    after = index.caption(photos / "below" / "other name.jpg")
    assert before is not None
    assert after is not None
    assert (after.id, after.text) == (before.id, before.text)
    assert after.paths == (str(photos / "below" / "other name.jpg"),)
    assert index.caption(photos / "1.jpg") is None


def test_copies_are_one_photograph_with_several_files(opened: Open, photos: Path) -> None:
    for place in range(3):
        shutil.copyfile(photos / "2.jpg", photos / f"copy {place}.jpg")
    index = opened()
    assert outcome(index.add([photos])) == (6, 3, 0, 0, 0)
    photo = index.caption(photos / "2.jpg")
    assert photo is not None
    assert [Path(path).name for path in photo.paths] == ["2.jpg", "copy 0.jpg", "copy 1.jpg", "copy 2.jpg"]
    assert index.counts().photos == 6
    assert index.counts().files == 9


def test_a_deleted_file_is_gone_until_it_comes_back(opened: Open, photos: Path) -> None:
    index = opened()
    index.add([photos])
    photo = index.caption(photos / "3.jpg")
    assert photo is not None
    content = (photos / "3.jpg").read_bytes()
    (photos / "3.jpg").unlink()
    assert outcome(index.add([photos])) == (0, 0, 5, 0, 1)
    assert photo.id not in [found.photo.id for found in index.search(photo.text, 100)]
    assert (index.counts().photos, index.counts().missing) == (5, 1)
    (photos / "3.jpg").write_bytes(content)
    assert outcome(index.add([photos])) == (0, 1, 5, 0, 0)
    assert photo.id in [found.photo.id for found in index.search(photo.text, 100)]


def test_other_folders_are_not_taken_for_gone(opened: Open, photos: Path, tmp_path: Path) -> None:
    index = opened()
    index.add([photos])
    (tmp_path / "photos2").mkdir()
    shutil.copyfile(photos / "0.jpg", tmp_path / "photos2" / "again.jpg")
    assert outcome(index.add([tmp_path / "photos2"])) == (0, 1, 0, 0, 0)
    assert index.counts().missing == 0


def test_a_file_that_is_named_and_gone_is_gone(opened: Open, photos: Path) -> None:
    index = opened()
    index.add([photos])
    (photos / "0.jpg").unlink()
    added = index.add([photos / "0.jpg", photos / "never there.jpg"])
    assert added.missing == 1
    assert list(added.errors) == [str(photos / "never there.jpg")]
    assert index.caption(photos / "0.jpg") is None


def test_broken_files_cost_no_other_and_are_not_read_again_unless_asked(opened: Open, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"no image")
    (photos / "copy of it.jpg").write_bytes(b"no image")
    index = opened()
    added = index.add([photos])
    assert outcome(added) == (6, 0, 0, 2, 0)
    assert set(map(os.path.basename, added.errors)) == {"broken.jpg", "copy of it.jpg"}
    assert all("not an image" in why for why in added.errors.values())
    assert outcome(index.add([photos])) == (0, 0, 6, 2, 0)
    assert index.counts().errors == 2
    assert outcome(index.add([photos], retry=True)) == (0, 0, 6, 2, 0)
    shutil.copyfile(photos / "0.jpg", photos / "broken.jpg")
    assert outcome(index.add([photos])) == (0, 1, 6, 1, 0)


def test_a_pipe_is_an_error_and_no_wait(opened: Open, photos: Path) -> None:
    os.mkfifo(photos / "pipe.jpg")
    added = opened().add([photos / "pipe.jpg"])
    assert added.errors == {str(photos / "pipe.jpg"): "it is no regular file"}


def test_a_file_that_can_be_read_at_last_is_read(opened: Open, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == "0.jpg":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert outcome(opened().add([photos])) == (5, 0, 0, 1, 0)
    monkeypatch.setattr(Path, "read_bytes", read)
    assert outcome(opened().add([photos])) == (1, 0, 5, 0, 0)


PATHS = (
    "new\nline",
    "quote'\"",
    "per%cent_",
    "emoji 🐶",
    " space ",
    "-dash",
    "\u202ertl",
    os.fsdecode(b"\xff\xfe"),
    "a" * 200,
)


@pytest.mark.parametrize("name", PATHS)
def test_a_path_may_have_any_characters(opened: Open, photos: Path, name: str) -> None:
    file = photos / f"{name}.jpg"
    (photos / "0.jpg").rename(file)
    index = opened()
    assert outcome(index.add([photos])) == (6, 0, 0, 0, 0)
    photo = index.caption(file)
    assert photo is not None
    assert photo.paths == (str(file),)
    assert str(file) in [found.photo.path for found in index.search(photo.text, 100)]
    file.unlink()
    assert outcome(index.add([photos])) == (0, 0, 5, 0, 1)


def test_what_is_done_when_it_is_interrupted_stays_done(opened: Open, photos: Path) -> None:
    class StopError(Exception):
        pass

    def stop(added: Added) -> None:
        if added.captioned:
            raise StopError

    many = [photos / f"{place}.jpg" for place in range(4)]
    with pytest.raises(StopError):
        opened().add(many, report=stop)
    done = opened().counts().photos
    assert done == 4
    assert outcome(opened().add([photos])) == (2, 0, done, 0, 0)


def test_photographs_of_another_bundle_are_searched_apart_and_captioned_again(
    opened: Open, photos: Path, counting_bundle: Path
) -> None:
    index = opened()
    index.add([photos])
    before = index.caption(photos / "0.jpg")
    other = opened(Captioner(counting_bundle, provider="cpu"))
    assert before is not None
    results = other.search("blue", 100)
    assert (len(results), results.left_out) == (0, 6)
    assert other.counts().other_bundles == 6
    assert other.photo(before.id) is None
    assert outcome(other.add([photos / "0.jpg"])) == (1, 0, 0, 0, 0)
    assert other.counts().other_bundles == 5
    after = other.caption(photos / "0.jpg")
    assert after is not None
    assert after.id == before.id
    assert after.text != before.text
    assert index.search(before.text, 100).left_out == 1


def test_a_photograph_that_is_written_again_is_whole_for_a_search_that_was_open(
    opened: Open, photos: Path, images: list[Path]
) -> None:
    reader, writer = opened(), opened()
    writer.add([photos])
    assert len(reader.search("circle square red blue green", 100)) <= 6
    shutil.copyfile(images[9], photos / "new.jpg")
    writer.add([photos])
    new = writer.caption(photos / "new.jpg")
    assert new is not None
    assert new.id in [found.photo.id for found in reader.search(new.text, 100)]


def test_progress_counts_every_file_once(opened: Open, photos: Path) -> None:
    done: list[int] = []
    opened().add([photos], report=lambda added: done.append(added.done))
    assert done == sorted(done)
    assert done[-1] == 6


def test_words_that_were_folded_by_other_rules_are_folded_again(opened: Open, photos: Path, tmp_path: Path) -> None:
    opened().add([photos])
    with sqlite3.connect(tmp_path / "photos.db") as connection:
        before = connection.execute("SELECT rowid, folded FROM words ORDER BY rowid").fetchall()
        connection.execute("UPDATE facts SET value = 0 WHERE name = 'words'")
        connection.execute("DELETE FROM words")
    connection.close()
    with pytest.raises(StoreError, match=r"words of another version of this engine: run `python -m engine index` once"):
        opened().search("a circle")
    opened().add([photos])
    with sqlite3.connect(tmp_path / "photos.db") as connection:
        assert connection.execute("SELECT rowid, folded FROM words ORDER BY rowid").fetchall() == before
    connection.close()


def test_a_folder_that_is_gone_is_gone_with_all_in_it(opened: Open, photos: Path) -> None:
    index = opened()
    index.add([photos])
    photos.rename(photos.with_name("elsewhere"))
    assert index.add([photos]).missing == 6
    assert index.counts().photos == 0
    assert outcome(index.add([photos.with_name("elsewhere")])) == (0, 6, 0, 0, 0)


def test_a_file_whose_place_a_folder_has_taken_is_gone(opened: Open, photos: Path) -> None:
    index = opened()
    index.add([photos])
    (photos / "0.jpg").unlink()
    (photos / "0.jpg").mkdir()
    assert index.add([photos]).missing == 1
    assert index.caption(photos / "0.jpg") is None


def test_an_index_that_was_made_again_is_opened_again(opened: Open, photos: Path, tmp_path: Path) -> None:
    reader = opened()
    opened().add([photos])
    assert reader.counts().photos == 6
    for file in tmp_path.glob("photos.db*"):
        file.unlink()
    with opened() as again:
        again.add([photos / "0.jpg"])
    assert reader.counts().photos == 1

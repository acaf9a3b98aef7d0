"""An index that is built from what bulk captioning wrote is the one that indexing the photographs builds."""

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray", reason="needs the extra ray")

import pyarrow as pa
import pyarrow.parquet as pq

from engine import Added, Captioner, OptionsError, Photo, PhotoIndex
from engine.bundle.bundle import Bundle
from engine.cli import main
from engine.search.gallery import write_gallery
from serving import ray_data
from tests.serving.bulk import NAMES, as_table
from tests.vectors import RandomVectors

Open = Callable[..., PhotoIndex]
pytestmark = pytest.mark.usefixtures("without_ray")


@pytest.fixture(scope="module")
def searchable(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    """A captioner of the tiny model with vectors beside."""
    bundle = RandomVectors(Bundle.load(tiny_bundle)).add_to_copy(tmp_path_factory.mktemp("vectors") / "bundle")
    return Captioner(bundle, provider="cpu", precision="fp32", batch_size=8)


@pytest.fixture
def opened(tmp_path: Path, searchable: Captioner) -> Iterator[Open]:
    """Opens an index by its name; closes all."""
    made: list[PhotoIndex] = []

    def open_index(name: str = "photos", captioner: Captioner = searchable) -> PhotoIndex:
        made.append(PhotoIndex(tmp_path / f"{name}.db", captioner))
        return made[-1]

    yield open_index
    for each in made:
        each.close()


@pytest.fixture
def bulk(tmp_path: Path, searchable: Captioner) -> Callable[..., Path]:
    """Captions a folder or tables in bulk, with features, in parts of seven images; returns the output."""

    def run(source: Path, *options: str, name: str = "out", bundle: Path = searchable.bundle.path) -> Path:
        given = [str(source), str(tmp_path / name), "--features", "--bundle", str(bundle), "--part-size", "7"]
        assert ray_data.main([*given, "--provider=cpu", "--precision=fp32", "--batch-size=8", *options]) < 2
        return tmp_path / name

    return run


def outcome(added: Added) -> dict[str, int]:
    """Returns the numbers that are not zero."""
    names = "captioned", "copies", "unchanged", "changed", "missing"
    counts = {name: getattr(added, name) for name in names} | {"errors": len(added.errors)}
    return {name: count for name, count in counts.items() if count}


def content(index: PhotoIndex) -> dict[str, tuple[Photo, str, np.ndarray, np.ndarray]]:
    """Returns all that is known of the photographs that are found, by the first path."""
    store = index._opened()
    changes = store.changes(0)
    found = {}
    for id_, living, vector in zip(changes.ids.tolist(), changes.living, changes.vectors, strict=True):
        if living:
            (photo,) = store.photos([id_])
            found[photo.path] = replace(photo, id=0), store.folded([id_])[id_], store.features([id_])[0], vector
    return found


def written(index: PhotoIndex) -> int:
    """Returns how often anything was written into an index."""
    return index._opened().changes(0).revision


def test_an_index_from_parquet_is_the_one_that_indexing_builds(
    folder: Path, opened: Open, bulk: Callable[..., Path]
) -> None:
    shutil.copyfile(folder / "01.jpg", folder / "copy.jpg")
    (folder / "broken.jpg").write_bytes(b"no image")
    one, other = opened("one"), opened("other")
    added, taken = one.add([folder]), other.add_parquet(bulk(folder))
    assert outcome(taken) == outcome(added) == {"captioned": 20, "copies": 1, "errors": 1}
    assert (taken.errors, taken.done) == (added.errors, 22)
    assert one.counts() == other.counts()
    expected, found = content(one), content(other)
    assert found.keys() == expected.keys()
    for path, (photo, words, features, vector) in expected.items():
        same = found[path][0]
        assert replace(same, alternatives=()) == replace(photo, alternatives=())
        assert [each.text for each in same.alternatives] == [each.text for each in photo.alternatives]
        expected_log_probs = [each.log_prob for each in photo.alternatives]
        assert [each.log_prob for each in same.alternatives] == pytest.approx(expected_log_probs, abs=2e-4)
        assert found[path][1] == words
        np.testing.assert_allclose(found[path][2], features, rtol=2e-3, atol=1e-4)
        np.testing.assert_allclose(found[path][3].astype(int), vector.astype(int), atol=1)
        assert np.abs(vector).max() == 127
    for query in ("a red circle", "blue square", "green triangle on white"):
        first, second = one.search(query, 100), other.search(query, 100)
        assert len(first) > 5
        scores = {each.photo.path: each.score for each in second}
        assert scores == pytest.approx({each.photo.path: each.score for each in first}, abs=0.02)
    assert [each.photo.path for each in other.similar(folder / "01.jpg", 1)] == [
        each.photo.path for each in one.similar(folder / "01.jpg", 1)
    ]
    assert outcome(other.add([folder])) == {"unchanged": 21, "errors": 1}


def test_a_second_pass_changes_nothing_and_one_that_was_ended_goes_on(
    folder: Path, opened: Open, bulk: Callable[..., Path]
) -> None:
    class EndError(Exception):
        pass

    def end(added: Added) -> None:
        if added.captioned >= 7:
            raise EndError

    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "link.jpg").symlink_to(folder / "nowhere")
    output = bulk(folder)
    with pytest.raises(EndError):
        opened().add_parquet(output, report=end)
    index = opened()
    done = index.counts().photos
    assert 7 <= done < 20
    assert outcome(index.add_parquet(output)) == {"captioned": 20 - done, "unchanged": done, "errors": 2}
    before = written(index)
    assert outcome(index.add_parquet(output)) == {"unchanged": 20, "errors": 2}
    assert written(index) == before


def test_what_another_bundle_captioned_is_refused_and_both_are_named(
    folder: Path,
    opened: Open,
    bulk: Callable[..., Path],
    tiny_captioner: Captioner,
    searchable: Captioner,
    tmp_path: Path,
) -> None:
    output = bulk(folder)
    other = opened("other", tiny_captioner)
    name = tiny_captioner.bundle.manifest.name
    digests = [
        hashlib.sha256((each.bundle.path / "manifest.json").read_bytes()).hexdigest()[:16]
        for each in (searchable, tiny_captioner)
    ]
    both = re.escape(f"is by the bundle {name} ({digests[0]}), and this index is to be by {name} ({digests[1]}): ")
    with pytest.raises(OptionsError, match=both):
        other.add_parquet(output)
    assert not (tmp_path / "other.db").exists()
    strange = bulk(folder, name="strange", bundle=tiny_captioner.bundle.path)
    shutil.copyfile(next(strange.glob("part-*")), output / "part-strange.parquet")
    added = opened().add_parquet(output)
    assert outcome(added) == {"captioned": 20, "errors": 1}
    assert f"it is by the bundle {name} ({digests[1]}), " in added.errors[str(output / "part-strange.parquet")]


def damaged(file: Path) -> None:
    """Damages the pages of a file, and leaves what describes them."""
    whole = file.read_bytes()
    file.write_bytes(whole[:60] + bytes(len(whole) // 3) + whole[60 + len(whole) // 3 :])


def unchecked(file: Path) -> None:
    table = pq.read_table(file)
    column = pa.array([None] * len(table), pa.string())
    pq.write_table(table.set_column(table.schema.get_field_index("sha256"), "sha256", column), file)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-99]), "it cannot be read: "),
        (lambda file: file.write_bytes(b""), "it cannot be read: "),
        (damaged, "it cannot be read: "),
        (lambda file: pq.write_table(pa.table({"image": ["x"]}), file), "it has no features, so another run wrote it"),
        (unchecked, "has neither a checksum nor an error"),
    ],
)
def test_a_broken_part_is_one_sentence_and_costs_no_other(
    folder: Path, opened: Open, bulk: Callable[..., Path], damage: Callable[[Path], None], said: str
) -> None:
    output = bulk(folder)
    part = min(output.glob("part-*"))
    rows = len(pq.read_table(part))
    damage(part)
    index = opened()
    added = index.add_parquet(output)
    assert outcome(added) == {"captioned": 20 - rows, "errors": 1}
    assert said in added.errors[str(part)]
    assert "\n" not in added.errors[str(part)]
    assert index.counts().photos == 20 - rows


def test_a_file_that_changed_is_left_to_an_index_of_the_folder(
    folder: Path, opened: Open, bulk: Callable[..., Path]
) -> None:
    output = bulk(folder)
    shutil.copyfile(folder / "02.jpg", folder / "01.jpg")
    os.utime(folder / "04.jpg", ns=(1, 1))
    (folder / "05.jpg").rename(folder / "moved.jpg")
    (folder / "07.jpg").write_bytes((folder / "08.jpg").read_bytes() + b" ")
    index = opened()
    assert outcome(index.add_parquet(output)) == {"captioned": 16, "changed": 4}
    assert index.caption(folder / "01.jpg") is None
    # only the bytes that are new are captioned; a touched file and a moved one are known by theirs
    assert outcome(index.add([folder])) == {"captioned": 1, "unchanged": 16, "copies": 3}
    before = written(index)
    assert outcome(index.add_parquet(output)) == {"unchanged": 16, "changed": 4}
    assert written(index) == before


def test_photographs_that_moved_are_found_by_root(
    folder: Path, tmp_path: Path, opened: Open, bulk: Callable[..., Path]
) -> None:
    output = bulk(folder)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(OptionsError, match=re.escape(f"there is no folder {folder} with the images of {output}: ")):
        opened().add_parquet(output)
    index = opened()
    assert outcome(index.add_parquet(output, root=tmp_path / "elsewhere")) == {"captioned": 20}
    assert index.caption(tmp_path / "elsewhere" / "01.jpg") is not None


@pytest.mark.parametrize("column", ["picture", "path"])
def test_tables_are_indexed_with_kept_columns(
    folder: Path, tmp_path: Path, opened: Open, bulk: Callable[..., Path], column: str
) -> None:
    as_table(folder, tmp_path / "t.parquet", id=pa.array(range(20)))
    output = bulk(tmp_path / "t.parquet", "--column", column, "--keep", "id")
    index = opened()
    assert outcome(index.add_parquet(output)) == {"captioned": 20}
    places = [str(folder / name) for name in NAMES]
    if column == "picture":
        places = [f"{tmp_path.as_uri()}/t.parquet#{row}" for row in range(20)]
    assert sorted(content(index)) == sorted(places)
    assert outcome(index.add_parquet(output)) == {"unchanged": 20}
    photo = index.caption(places[3])
    assert photo is not None
    assert photo.sha256 == hashlib.sha256((folder / NAMES[3]).read_bytes()).hexdigest()


def test_uris_are_kept_and_never_missing(folder: Path, tmp_path: Path, opened: Open, bulk: Callable[..., Path]) -> None:
    output = bulk(folder)
    index = opened()
    assert outcome(index.add_parquet(output, root="s3://bucket/all of them/")) == {"captioned": 20}
    uri = "s3://bucket/all of them/01.jpg"
    photo = index.caption(uri)
    assert photo is not None
    assert photo.paths == (uri,)
    assert outcome(index.add([folder])) == {"copies": 20}
    shutil.rmtree(folder)
    folder.mkdir()
    assert outcome(index.add([folder, tmp_path])) == {"missing": 20}
    found = index.search(photo.text, 100)
    assert uri in [each.photo.path for each in found]
    assert len(index.similar(uri, 3)) == 3
    before = written(index)
    assert outcome(index.add_parquet(output, root="s3://bucket/all of them")) == {"unchanged": 20}
    assert written(index) == before
    write_gallery(tmp_path / "found.html", "x", found)
    page = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert uri in page
    assert "href" not in page
    assert "it is not on this machine" in page


def test_the_command_says_what_became_of_the_rows(
    folder: Path, tmp_path: Path, searchable: Captioner, bulk: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.jpg").write_bytes(b"no image")
    output = bulk(folder)
    os.utime(folder / "04.jpg", ns=(1, 1))
    capsys.readouterr()
    index = tmp_path / "photos.db"
    given = ["index", "--from-parquet", str(output), "--index", str(index)]
    assert main(given, lambda bundle, **options: searchable) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        f"19 taken over, 1 without a caption, 1 changed or gone since (index their folder); 19 photographs in {index}"
    )
    assert said[1].startswith(f"  {folder / 'broken.jpg'}: is not an image")
    assert main([*given, "--root", str(tmp_path / "gone")], lambda bundle, **options: searchable) == 2
    assert capsys.readouterr().err.startswith(f"error: there is no folder {tmp_path / 'gone'} with the images of ")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (None, "is no output of serving.ray_data: it has no _captions.json"),
        ("{", "_captions.json is broken: "),
        ("[]", "_captions.json is broken: "),
        ('{"input": "x", "features": {}}', "_captions.json is broken: "),
        ('{"input": "x"}', "has captions without features: run serving.ray_data with --features and another OUTPUT"),
    ],
)
def test_what_is_no_output_is_one_sentence(tmp_path: Path, opened: Open, record: str | None, said: str) -> None:
    (tmp_path / "out").mkdir()
    if record is not None:
        (tmp_path / "out" / "_captions.json").write_text(record)
    with pytest.raises(OptionsError, match=re.escape(said)):
        opened().add_parquet(tmp_path / "out")


def test_no_key_of_a_uri_is_told(opened: Open) -> None:
    with pytest.raises(OptionsError, match=r"^s3x://bucket/out cannot be reached: ") as caught:
        opened().add_parquet("s3x://KEY:SECRET@bucket/out?key=SECRET")
    assert not re.search("KEY|SECRET", str(caught.value))


def test_without_pyarrow_one_sentence_says_how_to_get_it(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("engine.search.parquet", "engine.search.parquet_output"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(OptionsError, match=re.escape("needs the package pyarrow: run python -m pip install '.[ray]'")):
        opened().add_parquet(tmp_path)

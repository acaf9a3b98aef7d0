"""The input of a bulk run, cut into parts, and its output folder, where whatever is there is whole."""

import base64
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the extra ray")

import pyarrow as pa
from pyarrow.fs import LocalFileSystem

from engine import OptionsError
from serving.ray_output import UNFINISHED, Output
from serving.ray_parts import Folder, Part, Tables, usual_size
from serving.ray_places import locate, shown
from serving.ray_worker import Job
from tests.serving.bulk import NAMES, as_table, finish


def test_parts_hold_every_image_once_and_are_the_same_whenever_they_are_made(folder: Path) -> None:
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.jpg").touch()
    for other in ("notes.txt", "favicon.ico", "IMG_0001"):  # the engine refuses icons
        (folder / other).touch()
    (folder / "_raw").mkdir()
    for image in ("_DSC0001.JPG", "_raw/x.jpg"):  # as cameras name them
        (folder / image).touch()
    found = Folder.find(str(folder))
    assert found.others == ("IMG_0001", "favicon.ico", "notes.txt")
    parts = found.parts(6)
    assert [len(part) for part in parts] == [6, 6, 6, 4]
    assert sorted(file for part in parts for file in part.files) == sorted([*NAMES, "_DSC0001.JPG", "_raw/x.jpg"])
    assert Folder.find(folder.as_uri()).parts(6) == parts


def test_links_make_no_image_twice_and_one_that_leads_nowhere_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "a.jpg").touch()
    before = Folder.find(str(folder))
    for link, target in (("loop", "."), ("deep/up", ".."), ("again", "deep"), ("a.jpg", "gone"), ("b.jpg", "b.jpg")):
        (folder / link).symlink_to(target)
    assert Folder.find(str(folder)).files == tuple(sorted([*before.files, "a.jpg", "b.jpg"]))
    for link, target in (("one", "elsewhere/deep"), ("two", "elsewhere")):
        (folder / link).symlink_to(tmp_path / target)
    os.mkfifo(folder / "pipe.jpg")  # reading it would never end
    assert Folder.find(str(folder)).irregular == ("pipe.jpg",)
    assert set(Folder.find(str(folder)).files) - set(before.files) == {"a.jpg", "b.jpg", "one/a.jpg"}


def test_readers_of_tables_pass_over_names_with_an_underscore(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for name in ("a.parquet", "_metadata.parquet"):
        as_table(folder, tmp_path / "tables" / name)
    assert Tables.find(str(tmp_path / "tables"), ["path"]).rows == (("a.parquet", 20),)


def test_a_uri_and_a_path_lead_to_the_same_place(tmp_path: Path) -> None:
    place = tmp_path / "a b" / "ü"
    assert locate(place.as_uri()) == locate(str(place))
    system, path = locate("s3://anonymous@bucket/a%20b/c.jpg?region=us-east-1")
    assert (system.type_name, path) == ("s3", "bucket/a b/c.jpg")
    assert locate("s3://anonymous@bucket/d.jpg?region=us-east-1")[0] is system


def test_rows_of_parquet_files_are_in_one_part_each(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for name in ("a.parquet", "b.parquet"):
        as_table(folder, tmp_path / "tables" / name)
    tables = Tables.find(str(tmp_path / "tables"), ["picture"])
    parts = tables.parts(8)
    covered = [(part.table, row) for part in parts for row in range(part.start, part.stop)]
    assert covered == [(name, row) for name in ("a.parquet", "b.parquet") for row in range(20)]
    assert len({part.name for part in parts}) == len(parts) == 6


def test_a_part_has_about_as_many_images_as_keep_many_workers_busy() -> None:
    assert [usual_size(images) for images in (1, 10_000, 10**6, 10**9)] == [32, 40, 3907, 4096]


def test_only_images_that_are_not_done_are_left_even_when_the_folder_has_changed(folder: Path, job: Job) -> None:
    found = Folder.find(job.input)
    finished = found.parts(6)[:2]
    for part in finished:
        finish(job.output, part)
    assert found.left(6, job.output.done(), job.output.images) == found.parts(6)[2:]
    for new in ("00a.jpg", "deep/zz.jpg"):
        (folder / new).write_bytes((folder / NAMES[0]).read_bytes())
    left = Folder.find(job.input).left(6, job.output.done(), job.output.images)
    files = [file for part in left for file in part.files]
    assert sorted(files) == sorted({*NAMES, "00a.jpg", "deep/zz.jpg"} - {f for part in finished for f in part.files})


def test_a_parquet_file_that_grew_is_an_error_and_one_that_came_or_went_is_not(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    as_table(folder, tmp_path / "tables" / "a.parquet")
    done = {part.name for part in Tables.find(str(tmp_path / "tables"), ["picture"]).parts(8)}
    as_table(folder, tmp_path / "tables" / "b.parquet")
    left = Tables.find(str(tmp_path / "tables"), ["picture"]).left(8, done, None)
    assert {part.table for part in left} == {"b.parquet"}
    grown = Tables((("a.parquet", 21),))
    with pytest.raises(OptionsError, match=r"a\.parquet has changed since"):
        grown.left(8, done, None)
    assert Tables((("b.parquet", 3),)).left(8, done, None)


@pytest.mark.parametrize(
    ("place", "seen"),
    [
        ("s3://KEY:SECRET@bucket/a@b/c", "s3://bucket/a@b/c"),
        ("s3://KEY:SEC/RET@bucket/a", "s3://bucket/a"),
        ("s3://bucket/a@b?region=r&secret_key=SECRET#SECRET", "s3://bucket/a@b"),
        ("hdfs://host:8020/a@b", "hdfs://host:8020/a@b"),
        ("/a?b/c@e#f", "/a?b/c@e#f"),
    ],
)
def test_a_place_is_shown_without_what_may_be_a_key(place: str, seen: str) -> None:
    assert shown(place) == seen


@pytest.mark.parametrize(
    "place", ["s4://KEY:SECRET@b/x?secret_key=SECRET", "s3://KEY:SEC/RET@b/x", "s3://KEY@b/x?SECRET=y#SECRET"]
)
def test_no_key_is_shown_where_a_uri_leads_nowhere(place: str) -> None:
    with pytest.raises(OptionsError, match=r"cannot be reached: [A-Z]") as caught:
        locate(place)
    assert not re.search("KEY|SEC|RET", str(caught.value))


class Moves:
    """The files of this machine, but for what a test makes of a move."""

    def __init__(self, move: Callable[[str, str], None]) -> None:
        self.move = move
        self._system = LocalFileSystem()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)


def test_an_output_goes_on_only_with_what_it_was_begun_with(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "out"), "parquet")
    output.begin({"precision": "int8", "part size": 8})
    output.begin({"precision": "int8", "part size": 8})
    with pytest.raises(OptionsError, match=r'begun with precision "int8", and this run has precision "fp32"'):
        output.begin({"precision": "fp32", "part size": 8})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").touch()
    with pytest.raises(OptionsError, match="has other files in it"):
        Output(str(tmp_path / "other"), "parquet").begin({})
    with pytest.raises(OptionsError, match="is a file"):
        Output(str(tmp_path / "other" / "x"), "parquet").begin({})


def test_a_file_that_is_there_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    part = Part("part-1", files=("00.jpg",))

    def killed(source: str, target: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("serving.ray_output.locate", lambda place: (Moves(killed), place))
        with pytest.raises(KeyboardInterrupt):
            finish(job.output, part)
    assert job.output.done() == set()
    assert job.output.count("part-1") is None
    (tmp_path / "out" / "part-2.jsonl").touch()  # what a machine without power may leave of a renamed file
    assert job.output.done() == set()
    finish(job.output, part)
    assert job.output.done() == {"part-1"}
    job.output.end()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "_captions.json",
        "part-1.jsonl",
        "part-2.jsonl",
    ]


def test_a_run_that_ends_takes_nothing_from_another_that_goes_on(tmp_path: Path) -> None:
    ends, goes_on = (Output(str(tmp_path / "out"), "jsonl") for _ in range(2))
    for output in (ends, goes_on):
        output.begin({"model": "x"})
    assert goes_on.attempt("part-1") == 0
    ends.end()
    finish(goes_on, Part("part-1", files=("00.jpg",)))
    ends.end()
    assert goes_on.attempt("part-2") == 0
    assert goes_on.done() == {"part-1"}
    goes_on.end()
    assert not (tmp_path / "out" / UNFINISHED).exists()


def test_a_part_is_written_though_another_run_ends_before_it_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output(str(tmp_path / "out"), "jsonl")
    output.begin({"model": "x"})
    endings = iter([output])

    def moved(source: str, target: str) -> None:
        for other in endings:
            other.end()
        LocalFileSystem().move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("serving.ray_output.locate", lambda place: (Moves(moved), place))
        finish(output, Part("part-1", files=("00.jpg",)))
    assert output.count("part-1") == (1, 0)


def test_json_lines_are_json_whatever_they_hold(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "out"), "jsonl")
    output.begin({"model": "x"})
    numbers = [[float("nan"), 1.0], [float("-inf"), None]]
    extra = pa.table({"number": [float("nan"), 2.0], "nested": pa.array([{"deep": deep} for deep in numbers])})
    names = ["a\u2028b.jpg", "a\x85\x0b.jpg"]
    extra = extra.append_column("bytes", [[b"\xff\x00", None]])
    output.write("part-1", [{"image": name, "caption": "x"} for name in names], extra)
    assert output.images(["part-1"]) == set(names)
    assert output.count("part-1") == (2, 0)
    lines = (tmp_path / "out" / "part-1.jsonl").read_bytes().removesuffix(b"\n").split(b"\n")
    written = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [row["number"] for row in written] == [None, 2.0]
    assert [row["bytes"] for row in written] == [base64.b64encode(b"\xff\x00").decode(), None]
    assert [row["nested"]["deep"] for row in written] == [[None, 1.0], [None, None]]

"""Bulk captioning without Ray: parts, the output folder, what a worker writes, and faults told before anything runs."""

import base64
import contextlib
import json
import os
import re
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ray", reason="needs the extra ray")

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from engine import Captioner, Greedy, OptionsError
from serving import ray_data
from serving.ray_output import UNFINISHED, Output
from serving.ray_parts import Folder, Part, Tables, usual_size
from serving.ray_places import locate, shown
from serving.ray_pool import cluster
from serving.ray_worker import ATTEMPTS, Job, Worker, try_out
from tests.drawn import draw

NAMES = [f"{i:02d}.jpg" if i % 3 else f"deep/er/{i:02d}.jpg" for i in range(20)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty drawn photographs in a folder and its subfolder."""
    generator = np.random.default_rng(7)
    (tmp_path / "photos" / "deep" / "er").mkdir(parents=True)
    for name in NAMES:
        draw("red", "circle", generator).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner(provider="cpu", precision="int8")


@pytest.fixture
def job(folder: Path, tmp_path: Path) -> Job:
    """Greedy captions of those photographs."""
    output = Output(str(tmp_path / "out"), "jsonl")
    output.begin({"model": "x"})
    return Job(
        input=str(folder),
        output=output,
        column=None,
        keep=(),
        decoding=Greedy(),
        bundle=None,
        provider="cpu",
        precision="int8",
        batch_size=8,
        threads=1,
        max_pixels=None,
    )


def rows(output: Output, name: str) -> list[dict[str, Any]]:
    file = Path(output.place) / f"{name}.{output.format}"
    if output.format == "jsonl":
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    found: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return found


def finish(output: Output, part: Part) -> None:
    output.write(part.name, [{"image": file, "caption": "x"} for file in part.files])


def as_table(folder: Path, file: Path, **columns: pa.Array) -> None:
    """Writes a Parquet file in row groups of seven."""
    images = pa.array([(folder / name).read_bytes() for name in NAMES])
    table = pa.table({"picture": images, "path": [f"photos/{name}" for name in NAMES], **columns})
    pq.write_table(table, file, row_group_size=7)


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
    with monkeypatch.context() as patch:
        patch.setattr("serving.ray_output.locate", lambda place: (_Breaks(), place))
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
    output, once = Output(str(tmp_path / "out"), "jsonl"), iter([True])
    output.begin({"model": "x"})
    write = Output._write

    def and_end(self: Output, name: str, data: bytes) -> str:
        path = write(self, name, data)
        if next(once, False):
            self.end()
        return path

    monkeypatch.setattr(Output, "_write", and_end)
    finish(output, Part("part-1", files=("00.jpg",)))
    assert output.count("part-1") == (1, 0)


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


@pytest.fixture
def keyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URI with keys that leads to a folder in this test's own, for format(folder)."""
    monkeypatch.setattr("serving.ray_places._connected", lambda _: (LocalFileSystem(), str(tmp_path)))
    return "s3://KEY:SECRET@bucket/{}?secret_key=SECRET"


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command as it is, but for its workers, who are one in this process."""

    def captioned(job: Job, parts: list[Part], *_: object) -> list[tuple[int, int]]:
        return [Worker(job).caption(part) for part in parts]

    monkeypatch.setattr(ray_data, "cluster", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(ray_data, "opened_by_a_worker", lambda job, _: try_out(job))
    monkeypatch.setattr(ray_data, "room", lambda _: 1)
    monkeypatch.setattr(ray_data, "captioned", captioned)


def command(source: Path, output: Path, *options: str) -> list[str]:
    return [str(source), str(output), "--format=jsonl", "--provider=cpu", "--precision=int8", *options]


def captioned_in(output: Path) -> dict[str, dict[str, Any]]:
    """Returns the rows of a run in JSON lines by their images, of which none may be there twice."""
    lines = [line for file in output.glob("part-*") for line in file.read_text(encoding="utf-8").split("\n") if line]
    found = {row["image"]: row for row in map(json.loads, lines)}
    assert len(found) == len(lines)
    return found


@pytest.mark.usefixtures("without_ray")
def test_what_is_left_out_of_a_folder_is_told_and_output_in_it_is_no_input(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "_DSC0001.JPG").write_bytes((folder / NAMES[0]).read_bytes())
    for other in ("notes.txt", "movie.mp4"):
        (folder / other).touch()
    for left in (21, 0):
        assert ray_data.main(command(folder, folder / "out")) == 0
        told = capsys.readouterr().err.splitlines()
        assert told[0] == "2 files left out: not named like an image, such as movie.mp4"
        assert told[1].startswith(f"{left} of 21 images to do")
    assert captioned_in(folder / "out").keys() == {*NAMES, "_DSC0001.JPG"}


@pytest.mark.usefixtures("without_ray")
def test_a_file_whose_name_is_not_utf_8_is_a_row_with_an_error(folder: Path, tmp_path: Path) -> None:
    named = os.fsencode(folder / "caf") + b"\xe9.jpg"
    with open(named, "wb") as file:  # noqa: PTH123 - Path takes no bytes
        file.write((folder / NAMES[0]).read_bytes())
    assert ray_data.main(command(folder, tmp_path / "out")) == 1
    errors = {image: row["error"] for image, row in captioned_in(tmp_path / "out").items() if row["error"]}
    assert errors == {"caf\\xe9.jpg": "cannot be read: its name is not UTF-8: rename it"}


@pytest.mark.usefixtures("without_ray")
def test_a_run_goes_on_only_with_the_same_limit_on_pixels(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ray_data.main(command(folder, tmp_path / "out", "--max-pixels", "100000000")) == 0
    assert ray_data.main(command(folder, tmp_path / "out")) == 2
    assert "begun with max pixels 100000000, and this run has max pixels null" in capsys.readouterr().err
    assert ray_data.main(command(folder, tmp_path / "out", "--max-pixels", "100000000")) == 0


@pytest.mark.usefixtures("without_ray")
def test_formats_that_are_named_are_read_and_no_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.open(folder / NAMES[0]).save(folder / "drawn.pcx")
    given = command(folder, tmp_path / "out", "--formats", "pcx,jpeg")
    assert ray_data.main(given) == 0
    assert captioned_in(tmp_path / "out")["drawn.pcx"]["caption"]
    assert ray_data.main(command(folder, tmp_path / "out")) == 2
    assert 'begun with formats ["PCX", "JPEG"], and this run has formats null' in capsys.readouterr().err
    assert ray_data.main(command(folder, tmp_path / "other", "--formats", "raw")) == 2
    assert "'RAW' is not a format that Pillow reads" in capsys.readouterr().err


@pytest.mark.usefixtures("without_ray")
def test_a_column_is_named_as_it_is_and_kept_once(folder: Path, tmp_path: Path) -> None:
    dotted = pa.array([(folder / name).read_bytes() for name in NAMES])
    as_table(folder, tmp_path / "t.parquet", id=pa.array(range(20)), **{"flat.bytes": dotted, "a.b": pa.array(NAMES)})
    options = ["--column", "flat.bytes", "--keep", "id,a.b,id"]
    assert ray_data.main(command(tmp_path / "t.parquet", tmp_path / "out", *options)) == 0
    rows = captioned_in(tmp_path / "out").values()
    assert sorted((row["id"], row["a.b"]) for row in rows) == list(enumerate(NAMES))


@pytest.mark.usefixtures("without_ray")
def test_no_key_comes_into_a_run_s_words_or_files(
    folder: Path, tmp_path: Path, keyed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.jpg").touch()
    command = [keyed.format("photos"), keyed.format("out"), "--format", "jsonl", "--provider", "cpu"]
    assert ray_data.main(command) == 1
    said = capsys.readouterr().err
    assert "in s3://bucket/out\n" in said
    written = [file.read_text(encoding="utf-8") for file in (tmp_path / "out").iterdir()]
    assert len(written) == 2
    assert not [text for text in (said, *written) if re.search("KEY|SECRET", text)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("gone out", "there is no s3://bucket/gone"),
        ("empty out", "no image file in s3://bucket/empty;"),
        ("empty out --column x", r"no Parquet file .* in s3://bucket/empty"),
        ("photos/00.jpg out --column x", "s3://bucket/photos/00.jpg cannot be read as Parquet: "),
        ("t.parquet out --column x", "s3://bucket/t.parquet has no column"),
        ("none.parquet out --column x", "s3://bucket/none.parquet have no rows"),
        ("photos photos", "OUTPUT s3://bucket/photos is inside INPUT"),
        ("photos t.parquet", "s3://bucket/t.parquet is a file"),
        ("photos tmp", "s3://bucket/tmp has other files in it"),
        ("photos broken", "s3://bucket/broken/_captions.json is broken"),
    ],
)
def test_no_key_comes_into_a_fault(
    arguments: str, said: str, folder: Path, tmp_path: Path, keyed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "00.jpg").write_bytes(b"no table")
    for name in ("empty", "tmp", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "tmp" / "x").touch()
    (tmp_path / "broken" / "_captions.json").touch()
    as_table(folder, tmp_path / "t.parquet")
    pq.write_table(pa.table({"x": pa.array([], pa.string())}), tmp_path / "none.parquet")
    source, output, *more = arguments.split()
    assert ray_data.main([keyed.format(source), keyed.format(output), *more]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(said, line), line
    assert not re.search("KEY|SECRET", line)


def test_a_worker_that_does_not_see_a_folder_refuses_and_tells_no_key(job: Job, tmp_path: Path, keyed: str) -> None:
    part = Part("part-1", files=("01.jpg",))
    gone = keyed.format("gone")
    for other in (replace(job, input=gone), replace(job, output=Output(gone, "jsonl"))):
        with pytest.raises(OSError, match="does not see s3://bucket/gone: "):
            Worker(other).caption(part)
    job.output.begin({"model": "x"})
    with pytest.raises(OptionsError, match=f"^s3://bucket/{Path(job.output.place).name} was begun with model"):
        Output(keyed.format(Path(job.output.place).name), "jsonl").begin({"model": "y"})


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


class _Breaks:
    """A file system whose writer is killed between writing and renaming."""

    def open_output_stream(self, path: str) -> Any:
        return Path(path).open("wb")

    def move(self, source: str, target: str) -> None:
        raise KeyboardInterrupt


def test_a_worker_writes_what_the_captioner_says_and_errors_in_rows(
    folder: Path, job: Job, captioner: Captioner
) -> None:
    (folder / "04.jpg").write_bytes(b"no image")
    (folder / "05.jpg").write_bytes((folder / "05.jpg").read_bytes()[:400])
    files = ("01.jpg", "02.jpg", "gone.jpg", "04.jpg", "05.jpg", "deep/er/00.jpg")
    assert Worker(job).caption(Part("part-1", files=files)) == (6, 3)
    written = rows(job.output, "part-1")
    assert [row["image"] for row in written] == list(files)
    assert [row["error"] is None for row in written] == [True, True, False, False, False, True]
    assert "no such file" in written[2]["error"]
    assert written[3]["caption"] is None
    good = captioner.caption([folder / name for name in ("01.jpg", "02.jpg", "deep/er/00.jpg")], Greedy())
    assert [row["caption"] for row in written if not row["error"]] == [caption.text for caption in good]
    assert all(row["alternatives"][0]["caption"] == row["caption"] for row in written if not row["error"])


def test_a_worker_leaves_a_finished_part_alone(job: Job) -> None:
    part = Part("part-1", files=("01.jpg", "gone.jpg"))
    assert Worker(job).caption(part) == (2, 1)
    file = Path(job.output.place) / "part-1.jsonl"
    os.utime(file, ns=(1, 1))
    assert Worker(job).caption(part) == (2, 1)
    assert file.stat().st_mtime_ns == 1


def test_a_part_that_brings_its_workers_down_ends_the_run_and_a_new_run_tries_again(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, other = Part("part-1", files=("01.jpg", "02.jpg")), Part("part-10", files=("03.jpg",))
    with monkeypatch.context() as patched:
        patched.setattr(Captioner, "iter_captions", lambda *_, **__: 1 / 0)
        for _ in range(ATTEMPTS):
            with pytest.raises(ZeroDivisionError):
                Worker(job).caption(part)
    with pytest.raises(OSError, match=f"{ATTEMPTS} workers died or failed at the same 2 images, 01.jpg to 02.jpg"):
        Worker(job).caption(part)
    assert Worker(job).caption(other)[0] == 1
    again = Output(job.output.place, job.output.format)
    again.begin({"model": "x"})
    assert Worker(replace(job, output=again)).caption(part) == (2, 0)


@pytest.mark.parametrize("column", ["picture", "path", "nested.bytes"])
def test_rows_of_parquet_are_captioned_from_bytes_or_paths_with_columns_kept(
    folder: Path, tmp_path: Path, job: Job, captioner: Captioner, column: str
) -> None:
    contents = [(folder / name).read_bytes() for name in NAMES]
    nested = pa.array([{"bytes": content, "path": None} for content in contents])
    as_table(folder, tmp_path / "t.parquet", id=pa.array(range(20)), nested=nested)
    of_table = replace(job, input=str(tmp_path / "t.parquet"), column=column, keep=("id",))
    of_table = replace(of_table, output=replace(job.output, format="parquet"))
    worker = Worker(of_table)
    parts = Tables.find(of_table.input, [column, "id"]).parts(9)
    assert [worker.caption(part) for part in parts] == [(9, 0), (9, 0), (2, 0)]
    written = [row for part in parts for row in rows(of_table.output, part.name)]
    assert [row["id"] for row in written] == list(range(20))
    images = [f"photos/{name}" for name in NAMES] if column == "path" else [f"#{i}" for i in range(20)]
    assert [row["image"] for row in written] == images
    expected = captioner.caption([folder / name for name in NAMES], Greedy())
    assert [row["caption"] for row in written] == [caption.text for caption in expected]


def test_a_null_in_parquet_is_a_row_with_an_error(folder: Path, tmp_path: Path, job: Job) -> None:
    table = pa.table({"a": pa.array([None, (folder / NAMES[0]).read_bytes(), b""]), "b": ["x.jpg", None, "http://x/y"]})
    pq.write_table(table, tmp_path / "t.parquet")
    for column, errors in (("a", 2), ("b", 3)):
        of_table = replace(job, input=str(tmp_path / "t.parquet"), column=column)
        [part] = Tables.find(of_table.input, [column]).parts(9)
        part = replace(part, name=f"part-{column}")
        assert Worker(of_table).caption(part) == (3, errors)
    assert "null" in rows(job.output, "part-a")[0]["error"]
    of_paths = rows(job.output, "part-b")
    assert [row["image"] for row in of_paths] == ["x.jpg", "#1", "http://x/y"]
    assert of_paths[2]["error"].startswith("cannot be read: http://x/y cannot be reached: ")


def test_trying_out_tells_what_is_wrong(job: Job) -> None:
    assert try_out(job).precision == "int8"
    assert "no-such-folder" in try_out(replace(job, bundle="no-such-folder")).fault
    assert "xpu" in try_out(replace(job, provider="xpu")).fault
    assert "zzyzx" in try_out(replace(job, decoding=Greedy(prefix="zzyzx"))).fault


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{gone} {out}", "there is no "),
        ("{empty} {out}", "no image file in"),
        ("s3x://bucket/x {out}", "cannot be reached"),
        ("{photos} {out} --column x", "no Parquet file"),
        ("{table} {out} --column x", "has no column 'x': its columns are picture, path, n"),
        ("{table} {out} --column n", "column 'n' of .* is int64: it must have images as bytes"),
        ("{table} {out} --column path --keep image", "OUTPUT already has a column of that name"),
        ("{table} {out} --column path --keep n,struct.n", "has no column 'struct.n': its columns are picture, path, n"),
        ("'' {out}", "INPUT is empty"),
        ("{photos} ''", "OUTPUT is empty"),
        ("{photos}/\udcff {out}", "is not UTF-8"),
        ("{photos} {out} --num-cpus nan", "--num-cpus must be a number from 1, not nan"),
        ("{photos} {out} --num-cpus inf", "--num-cpus must be a number from 1, not inf"),
        ("{photos} {out} --num-gpus inf", "--num-gpus must be a number from 0, not inf"),
        ("{photos} {out} --keep n", "--keep needs --column"),
        ("{photos} {photos}/00.jpg/x --column x", "is inside INPUT"),
        ("{photos} {photos}/deep/er/00.jpg", "is a file"),
        ("{photos} {photos}", "is inside INPUT"),
        ("{photos} {out} --batch-size 0", "--batch-size must be a number from 1"),
        ("{photos} {out} --temperature 2", "temperature needs decoding=sample"),
        ("{photos} {out} --beam-size 0", "--beam-size must be a whole number from 1 to 10,000, but it is 0"),
        ("{photos} {out} --beam-size x", "--beam-size must be a whole number of at most 18 digits, but it is .x."),
    ],
)
def test_a_fault_is_one_sentence_before_ray_starts(
    arguments: str, said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    as_table(folder, tmp_path / "t.parquet", n=pa.array(range(20)), struct=pa.array([{"n": 1}] * 20))
    places = {name: tmp_path / name for name in ("gone", "empty", "out", "photos")} | {"table": tmp_path / "t.parquet"}
    began = time.monotonic()
    assert ray_data.main(shlex.split(arguments.format(**places))) == 2
    assert time.monotonic() - began < 5
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(said, line), line
    assert not (tmp_path / "out").exists()


def test_a_token_that_ray_left_here_is_named_where_joining_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise ConnectionError("unreachable")

    monkeypatch.setattr("ray.init", fail)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    token = tmp_path / ".ray" / "auth_token"

    def said(address: str) -> str:
        with pytest.raises(OptionsError) as caught, cluster(address, {}):
            pass
        return str(caught.value)

    assert said("host:6379") == "no Ray cluster was found at host:6379: unreachable"
    token.parent.mkdir()
    token.touch()
    assert said("host:6379").endswith(f"if the cluster asks for a token, as {token} suggests, set RAY_AUTH_MODE=token")
    assert said("local") == "Ray cannot be started on this machine: unreachable"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert said("host:6379") == "no Ray cluster was found at host:6379: unreachable"

"""What a worker of a bulk run writes, and what it refuses."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra ray")

import pyarrow as pa
import pyarrow.parquet as pq

from engine import Captioner, Greedy, OptionsError
from serving.ray_output import Output
from serving.ray_parts import Part, Tables
from serving.ray_worker import ATTEMPTS, Job, Worker, try_out
from tests.serving.bulk import NAMES, as_table, rows


def test_a_worker_that_does_not_see_a_folder_refuses_and_tells_no_key(job: Job, tmp_path: Path, keyed: str) -> None:
    part = Part("part-1", files=("01.jpg",))
    gone = keyed.format("gone")
    for other in (replace(job, input=gone), replace(job, output=Output(gone, "jsonl"))):
        with pytest.raises(OSError, match="does not see s3://bucket/gone: "):
            Worker(other).caption(part)
    job.output.begin({"model": "x"})
    with pytest.raises(OptionsError, match=f"^s3://bucket/{Path(job.output.place).name} was begun with model"):
        Output(keyed.format(Path(job.output.place).name), "jsonl").begin({"model": "y"})


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

"""What `--features` adds to the output of bulk captioning, and that nothing changes without it."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray", reason="needs the extra ray")

import pyarrow as pa
import pyarrow.parquet as pq

from engine import Beam, Captioner, Greedy
from serving import ray_data
from serving.ray_data import command_line, job_of
from serving.ray_features import COLUMNS
from serving.ray_output import SCHEMA
from serving.ray_parts import Part, Tables
from serving.ray_worker import Job, Worker
from tests.serving.bulk import NAMES, as_table, rows


@pytest.fixture
def featured(job: Job, tiny_bundle: Path) -> Job:
    """The job by the tiny bundle, with features."""
    output = replace(job.output, format="parquet")
    return replace(job, bundle=str(tiny_bundle), precision="fp32", output=output, features=True)


def read_features(row: dict[str, bytes]) -> np.ndarray:
    return np.frombuffer(row["features"], "<f2").astype(np.float32)


def test_a_row_has_what_identifies_the_file_and_the_features_that_encode_gives(
    folder: Path, featured: Job, tiny_captioner: Captioner
) -> None:
    (folder / "04.jpg").write_bytes(b"no image")
    files = ("01.jpg", "gone.jpg", "04.jpg", "deep/er/00.jpg")
    assert Worker(featured).caption(Part("part-1", files=files)) == (4, 2)
    written = rows(featured.output, "part-1")
    assert [row["path"] for row in written] == list(files)
    for name, row in zip(files, written, strict=True):
        known = row["sha256"], row["size"], row["modified"]
        if name == "gone.jpg":
            assert known == (None, None, None)
        else:
            content, status = (folder / name).read_bytes(), (folder / name).stat()
            assert known == (hashlib.sha256(content).hexdigest(), len(content), status.st_mtime_ns)
    assert [row["features"] is None for row in written] == [False, True, True, False]
    good = [written[0], written[3]]
    expected = tiny_captioner.encode([folder / files[0], folder / files[3]])
    np.testing.assert_allclose([read_features(row) for row in good], expected, rtol=1e-3, atol=1e-4)
    captions = tiny_captioner.caption([folder / files[0], folder / files[3]], Greedy())
    assert [row["caption"] for row in good] == [caption.text for caption in captions]


@pytest.mark.parametrize("column", ["picture", "path"])
def test_rows_of_tables_have_the_path_from_inputs_folder_and_kept_columns(
    folder: Path, tmp_path: Path, featured: Job, tiny_captioner: Captioner, column: str
) -> None:
    (tmp_path / "tables" / "a").mkdir(parents=True)
    folder.rename(tmp_path / "tables" / "a" / "photos")
    moved = tmp_path / "tables" / "a" / "photos"
    as_table(moved, tmp_path / "tables" / "a" / "t.parquet", id=pa.array(range(20)))
    of_table = replace(featured, input=str(tmp_path / "tables"), column=column, keep=("id",))
    (part,) = Tables.find(of_table.input, [column, "id"]).parts(20)
    assert Worker(of_table).caption(part) == (20, 0)
    written = rows(of_table.output, part.name)
    assert [row["id"] for row in written] == list(range(20))
    as_paths = [f"a/photos/{name}" for name in NAMES]
    assert [row["path"] for row in written] == (as_paths if column == "path" else [None] * 20)
    assert [row["sha256"] for row in written] == [
        hashlib.sha256((moved / name).read_bytes()).hexdigest() for name in NAMES
    ]
    assert {row["modified"] is None for row in written} == {column == "picture"}
    expected = tiny_captioner.encode([moved / name for name in NAMES])
    np.testing.assert_allclose([read_features(row) for row in written], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("without_ray")
def test_record_and_files_name_the_bundle(folder: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    given = [str(folder), str(tmp_path / "out"), "--features", "--bundle", str(tiny_bundle), "--provider", "cpu"]
    assert ray_data.main(given) == 0
    record = json.loads((tmp_path / "out" / "_captions.json").read_text(encoding="utf-8"))
    name = json.loads((tiny_bundle / "manifest.json").read_text(encoding="utf-8"))["name"]
    digest = hashlib.sha256((tiny_bundle / "manifest.json").read_bytes()).hexdigest()
    assert record["features"] == {"bundle": name, "manifest sha256": digest, "root": str(folder)}
    for part in (tmp_path / "out").glob("part-*"):
        about = pq.read_schema(part).metadata
        assert (about[b"bundle"].decode(), about[b"manifest_sha256"].decode()) == (name, digest)
        numbers = {len(row["alternatives"]) for row in pq.read_table(part).to_pylist()}
        assert numbers == {3}
    assert ray_data.main(given) == 0  # it is continued, with nothing to do


@pytest.mark.usefixtures("without_ray")
def test_without_features_output_is_what_it_was_and_earlier_ones_go_on(
    folder: Path, tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(folder), str(tmp_path / "out"), "--bundle", str(tiny_bundle), "--provider", "cpu", "--part-size", "10"]
    assert ray_data.main(given) == 0
    first, second = sorted((tmp_path / "out").glob("part-*"))
    schema = pq.read_schema(first)
    assert (schema.names, schema.metadata) == (SCHEMA.names, None)
    file = tmp_path / "out" / "_captions.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    del record["features"]
    file.write_text(json.dumps(record), encoding="utf-8")
    second.unlink()
    assert ray_data.main(given) == 0
    assert second.exists()
    assert ray_data.main([*given, "--features"]) == 2
    assert "was begun with features null, and this run has features {" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "decoding"),
    [
        ("", Beam(num_hypotheses=3)),
        ("--beam-size 5", Beam(beam_size=5, num_hypotheses=3)),
        ("--beam-size 2", Beam(beam_size=2, num_hypotheses=2)),
        ("--num-hypotheses 1", Beam(num_hypotheses=1)),
        ("--decoding greedy", Greedy()),
    ],
)
def test_three_alternatives_are_kept_unless_somebody_chose(options: str, decoding: object) -> None:
    assert job_of(command_line().parse_args(["in", "out", "--features", *options.split()])).decoding == decoding
    assert job_of(command_line().parse_args(["in", "out"])).decoding == Beam()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--format jsonl", "--features needs --format parquet: jsonl would be several times as large"),
        ("--column x --keep id,sha256", "--keep sha256: OUTPUT already has a column of that name"),
    ],
)
def test_what_does_not_go_with_features_is_one_sentence(
    options: str, said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ray_data.main([str(folder), str(tmp_path / "out"), "--features", *options.split()]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_no_other_name_than_the_columns_is_taken() -> None:
    assert not {*COLUMNS} & {*SCHEMA.names}

"""The command of bulk captioning, without Ray: its words, its exit codes, and faults told before anything runs."""

import json
import os
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("ray", reason="needs the extra ray")

import pyarrow as pa
import pyarrow.parquet as pq

from engine import OptionsError
from serving import ray_data
from serving.ray_pool import cluster
from tests.serving.bulk import NAMES, as_table


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
def test_formats_that_are_named_are_read_and_a_run_goes_on_only_with_the_same(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.open(folder / NAMES[0]).save(folder / "drawn.pcx")
    given = command(folder, tmp_path / "out", "--formats", "pcx,jpeg", "--max-pixels", "100000000")
    assert ray_data.main(given) == 0
    assert captioned_in(tmp_path / "out")["drawn.pcx"]["caption"]
    assert ray_data.main(command(folder, tmp_path / "out")) == 2
    assert "begun with max pixels 100000000, formats" in (said := capsys.readouterr().err)
    assert "and this run has max pixels null, formats null" in said
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
        ("empty out --column x", r"no Parquet file .* in s3://bucket/empty"),
        ("photos/00.jpg out --column x", "s3://bucket/photos/00.jpg cannot be read as Parquet: "),
        ("t.parquet out --column x", "s3://bucket/t.parquet has no column"),
        ("none.parquet out --column x", "s3://bucket/none.parquet have no rows"),
        ("photos photos", "OUTPUT s3://bucket/photos is inside INPUT"),
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
        ("{photos} {out} --num-gpus inf", "--num-gpus must be a number from 0, not inf"),
        ("{photos} {out} --keep n", "--keep needs --column"),
        ("{photos} {photos}/00.jpg/x --column x", "is inside INPUT"),
        ("{photos} {photos}/deep/er/00.jpg", "is a file"),
        ("{photos} {photos}", "is inside INPUT"),
        ("{photos} {out} --batch-size 0", "--batch-size must be a number from 1"),
        ("{photos} {out} --temperature 2", "temperature needs decoding=sample"),
        ("{photos} {out} --beam-size 0", "--beam-size must be a whole number from 1 to 10,000, but it is 0"),
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

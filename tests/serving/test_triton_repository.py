"""The repository that is written for Triton: what Triton's own schema says of it, and how writing it can fail."""

import io
import json
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from engine import Captioner, OptionsError
from serving.triton.config import Settings
from serving.triton_repository import add_version, main, write

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "engine" / "models" / "everyday"


def parsed(text: str) -> Any:
    """Returns a config.pbtxt as Triton's own schema reads it, which refuses names that it does not know."""
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient is not installed")
    from google.protobuf import text_format

    return text_format.Parse(text, schema.ModelConfig())


def files(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one model."""
    write(tmp_path / "repository", Settings(), SHIPPED)
    return tmp_path / "repository"


def test_the_config_says_what_the_settings_say() -> None:
    settings = Settings(
        kind="gpu", instances=2, precision="fp16", threads=3, max_batch_size=16, max_wait_ms=1.5, max_rows=99
    )
    config = parsed(settings.text())
    assert (config.backend, config.max_batch_size) == ("python", 16)
    assert [(group.Kind.Name(group.kind), group.count) for group in config.instance_group] == [("KIND_GPU", 2)]
    assert config.dynamic_batching.max_queue_delay_microseconds == 1500
    assert {key: each.string_value for key, each in config.parameters.items()} == {
        "provider": "cuda",
        "precision": "fp16",
        "threads": "3",
        "max_rows": "99",
        "max_in_flight": "128",
        "max_pixels": "50000000",
        "timeout": "30.0",
    }


def test_a_config_is_read_as_it_was_written() -> None:
    settings = Settings(kind="gpu", provider="tensorrt", precision="fp16", max_batch_size=9, timeout=1.5, threads=2)
    assert Settings.read("captions", settings.text()) == settings
    assert Settings.read("captions", Settings(formats="JPEG,PNG").text()) == Settings(formats="JPEG,PNG")
    written = parsed(Settings(precision="int8", max_pixels=7).text())
    text_format = pytest.importorskip("google.protobuf.text_format")
    again = Settings.read("captions", text_format.MessageToString(written))  # as other tools lay it out
    assert again == Settings(precision="int8", max_pixels=7)


def test_the_queue_has_a_limit_a_timeout_and_two_priorities() -> None:
    batching = parsed(Settings(max_queue=7, timeout=2.5).text()).dynamic_batching
    policy = batching.default_queue_policy
    assert (batching.priority_levels, batching.default_priority_level) == (2, 2)
    assert policy.TimeoutAction.Name(policy.timeout_action) == "REJECT"
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (7, 2_500_000)
    assert policy.allow_timeout_override


def test_the_inputs_and_outputs_are_those_that_the_page_tells() -> None:
    config = parsed(Settings(versions=2).text())
    assert config.version_policy.latest.num_versions == 2
    assert [each.name for each in config.input] == ["image"]
    told = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "triton.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [each.name for each in config.output] == told


def test_the_warm_up_is_a_photograph_as_triton_keeps_texts(repository: Path) -> None:
    config = parsed((repository / "captions" / "config.pbtxt").read_text(encoding="utf-8"))
    named = config.model_warmup[0].inputs["image"].input_data_file
    data = (repository / "captions" / "warmup" / named).read_bytes()
    assert struct.unpack_from("<I", data)[0] == len(data) - 4
    assert Image.open(io.BytesIO(data[4:])).size == (640, 480)


def test_the_bundle_is_copied_and_opens(repository: Path) -> None:
    version = repository / "captions" / "1"
    assert files(version / "bundle") == files(SHIPPED)
    assert (version / "model.py").read_bytes() == (ROOT / "serving" / "triton" / "model.py").read_bytes()


def test_a_bundle_may_be_named_by_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "r"), "--bundle-path", "/on/the/server"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "r" / "captions" / "1")
    assert "not on this machine" in said.err
    assert (tmp_path / "r/captions/1/bundle.path").read_text(encoding="utf-8") == "/on/the/server\n"
    assert not (tmp_path / "r/captions/1/bundle").exists()


def test_a_model_that_exists_is_left_alone(repository: Path) -> None:
    before = files(repository)
    with pytest.raises(OptionsError, match="--overwrite"):
        write(repository, Settings(max_rows=1), SHIPPED)
    assert files(repository) == before


def test_overwrite_replaces_the_model_and_leaves_its_neighbours(repository: Path) -> None:
    write(repository, Settings(name="other"), SHIPPED)
    other = files(repository / "other")
    add_version(repository, "captions", SHIPPED)
    write(repository, Settings(max_rows=1), SHIPPED, overwrite=True)
    assert sorted(each.name for each in (repository / "captions").iterdir()) == ["1", "config.pbtxt", "warmup"]
    assert files(repository / "other") == other


def test_a_version_is_added_after_the_newest(repository: Path) -> None:
    (repository / "captions" / "9").mkdir()
    before = (repository / "captions" / "config.pbtxt").read_bytes()
    assert add_version(repository, "captions", SHIPPED) == repository / "captions" / "10"
    assert files(repository / "captions" / "10") == files(repository / "captions" / "1")
    assert (repository / "captions" / "config.pbtxt").read_bytes() == before


def test_a_version_is_tried_as_its_model_runs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "repository")
    assert main([output, "--precision", "int8", "--provider", "cpu"]) == 0
    exact = tmp_path / "bundle"
    shutil.copytree(SHIPPED, exact)
    manifest = json.loads((exact / "manifest.json").read_text(encoding="utf-8"))
    manifest["graphs"] = [graph for graph in manifest["graphs"] if graph["precision"] == "fp32"]
    manifest["variants"] = {name: each for name, each in manifest["variants"].items() if name == "fp32"}
    (exact / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    Captioner(exact, provider="cpu")
    before = files(tmp_path)
    capsys.readouterr()
    assert main([output, "--add-version", "--bundle", str(exact)]) == 2
    assert "has no precision 'int8'" in capsys.readouterr().err
    assert main([output, "--add-version", "--precision", "fp32", "--bundle", str(exact)]) == 2
    assert "--precision with --add-version: a version has the settings of its model" in capsys.readouterr().err
    config = tmp_path / "repository" / "captions" / "config.pbtxt"
    config.write_bytes(re.sub(rb'parameters { key: "timeout".*\n', b"", config.read_bytes()))
    assert main([output, "--add-version"]) == 2
    assert "lacks timeout; an earlier release may have written it: write the model again" in capsys.readouterr().err
    config.write_bytes(before["repository/captions/config.pbtxt"])
    assert files(tmp_path) == before
    assert main([output, "--add-version", "--name", "captions"]) == 0


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_fails_halfway_leaves_everything_as_it_was(
    repository: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    before = files(repository.parent)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OSError, match="No space"):
        write(repository, Settings(name="captions" if overwrite else "new"), SHIPPED, overwrite=overwrite)
    with pytest.raises(OSError, match="No space"):
        add_version(repository, "captions", SHIPPED)
    assert files(repository.parent) == before
    assert [each.name for each in repository.parent.iterdir()] == ["repository"]


def test_a_model_that_cannot_be_moved_into_place_gives_the_old_one_back(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = files(repository), Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "captions" and target.parent == repository:
            raise OSError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Permission denied"):
        write(repository, Settings(), SHIPPED, overwrite=True)
    assert files(repository) == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--name a/b", "--name a/b: must be letters"),
        ("--kind tpu", "--kind tpu: must be cpu or gpu"),
        ("--instances 0", "--instances 0: must be a whole number from 1"),
        ("--max-in-flight 8", "--max-in-flight 8: must be at least max_batch_size (32)"),
        ("--formats JPEG,", "--formats JPEG,: must be names of formats separated by commas"),
        ("--formats RAW", "'RAW' is not a format that Pillow reads"),
        ("--formats HEIF,JXL", "the warm-up image needs one of JPEG, PNG"),
        ("--max-batch-size 2147483648", "--max-batch-size 2147483648: must be a whole number from 1 to 2,147,483,647"),
        ("--timeout 1e-9", "--timeout 1e-09: must be a number of seconds from 0.001"),
        ("--timeout nan", "--timeout nan: must be a number of seconds from 0.001"),
        ("--max-wait-ms -1", "--max-wait-ms -1.0: must be a number from 0"),
        ("--threads 5000", "--threads 5000: must be a whole number from 0 to 4,096"),
        ("--provider cuda", "--provider cuda: must be one of auto, cpu, openvino with --kind cpu"),
        ("--provider cpu --kind gpu", "--provider cpu: must be one of auto, cuda"),
        ("--precision int3", "int3"),
        ("--bundle nowhere", "nowhere"),
        ("--bundle-path relative", "--bundle-path relative: must be an absolute path"),
        ("--add-version", "captions is not a model"),
    ],
)
def test_whatever_is_wrong_is_one_sentence_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, sentence: str
) -> None:
    assert main([str(tmp_path / "repository"), *options.split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    errors = [line for line in said.err.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert sentence in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_an_option_is_written_in_full(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "repository"), "--max-row", "3"])


def test_an_output_that_is_a_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert main([str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'file'} cannot be written: ")


def test_a_mount_point_is_refused_because_nothing_is_written_there_all_at_once() -> None:
    with pytest.raises(OptionsError, match="mount point"):
        write(Path("/proc"), Settings(), SHIPPED)


def test_no_command_of_the_page_ends_or_changes_the_shell_it_is_pasted_into() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "triton.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 5
    lines = [line for block in blocks for line in block.splitlines()]
    assert [line for line in lines if re.match(r"\s*(exec|exit|export|set|cd)\b", line)] == []


def test_the_command_of_the_page_writes_a_repository_whose_bundle_captions(tmp_path: Path, photos: list[bytes]) -> None:
    (block,) = re.findall(
        r"```bash\n(python -m serving\.triton_repository repository)\n```",
        (ROOT / "docs" / "triton.md").read_text(encoding="utf-8"),
    )
    command = [sys.executable, *block.split()[1:]]
    subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    written = Captioner(tmp_path / "repository" / "captions" / "1" / "bundle", provider="cpu")
    assert written.caption(photos[:1]) == Captioner(provider="cpu").caption(photos[:1])

"""Laws of checkpoints."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.bundle.vocabulary import Vocabulary
from training.files import write_json
from training.models import checkpoint
from training.models.checkpoint import CheckpointError, load_checkpoint
from training.models.decoder import CaptionDecoder, DecoderConfig

WORDS = Vocabulary.build(["a red circle", "a blue square"], min_count=1)
SIZES = DecoderConfig(6, len(WORDS), WORDS.pad_id, bottleneck=3, units=4, embedding=5, logit_hidden=5)


def write_run(folder: Path, config: DecoderConfig = SIZES) -> CaptionDecoder:
    torch.manual_seed(0)
    decoder = CaptionDecoder(config)
    folder.mkdir(exist_ok=True)
    encoder = {"name": "test_vit", "weights": "random"}
    write_json(folder / checkpoint.CONFIG, checkpoint.describe_run(config, encoder, {"seed": 1}))
    WORDS.save(folder / checkpoint.VOCABULARY)
    checkpoint.save_tensors(folder / checkpoint.BEST, checkpoint.decoder_tensors(decoder), {"epoch": 3})
    return decoder


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, tied: bool) -> None:
    saved = write_run(tmp_path, replace(SIZES, tied=tied))
    loaded = load_checkpoint(tmp_path)
    assert not loaded.decoder.training
    assert loaded.vocabulary == WORDS
    assert (loaded.encoder_name, loaded.encoder_weights) == ("test_vit", "random")
    assert loaded.config["training"] == {"seed": 1}
    assert all(map(torch.equal, saved.state_dict().values(), loaded.decoder.state_dict().values()))
    assert checkpoint.load_tensors(tmp_path / checkpoint.BEST)[1] == {"epoch": 3}


def go_on(folder: Path, before: Path, parts: dict[str, object], *, recorded: bool) -> None:
    """Writes a run that began with another, by a version that recorded the runs before it or by one that did not."""
    write_run(folder)
    config = json.loads((folder / checkpoint.CONFIG).read_text()) | parts
    config["from"] = checkpoint.begun_with(before, load_checkpoint(before))
    if not recorded:
        del config["from"]["runs"]
    write_json(folder / checkpoint.CONFIG, config)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_checkpoint_knows_the_runs_that_made_it(tmp_path: Path, recorded: bool) -> None:
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    write_run(a)
    go_on(b, a, {"training": {"seed": 2}}, recorded=recorded)
    go_on(c, b, {"training": {"seed": 2}, "scst": {"seed": 3}}, recorded=recorded)
    first = {"run": "a", "kind": "cross-entropy", "options": {"seed": 1}}
    second = {"run": "b", "kind": "cross-entropy", "options": {"seed": 2}}
    third = {"run": "c", "kind": "self-critical", "options": {"seed": 3}}
    assert load_checkpoint(a).runs == (first,)
    assert load_checkpoint(c).runs == (first, second, third)
    (b / checkpoint.BEST).unlink()
    known = (first, second) if recorded else (second | {"run": "not stated"},)
    assert load_checkpoint(c).runs == (*known, third)
    (a / checkpoint.BEST).unlink()
    write_run(b)
    go_on(c, b, {}, recorded=recorded)
    shutil.rmtree(b)
    known = (first | {"run": "b"},) if recorded else ({"run": "b", "kind": "not stated", "options": {}},)
    assert load_checkpoint(c).runs == (*known, first | {"run": "c"})


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    write_run(tmp_path, replace(SIZES, tied=True))
    assert "decoder.output.weight" not in checkpoint.load_tensors(tmp_path / checkpoint.BEST)[0]


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a run's folder"):
        load_checkpoint(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_run(tmp_path)
    content = (tmp_path / checkpoint.BEST).read_bytes()
    (tmp_path / checkpoint.BEST).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"best\.safetensors is not a readable checkpoint"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"last\.safetensors is not a readable checkpoint"):
        load_checkpoint(tmp_path, "last")
    (tmp_path / checkpoint.CONFIG).write_text("{")
    with pytest.raises(CheckpointError, match="is not a readable run's folder"):
        load_checkpoint(tmp_path)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    write_run(tmp_path)
    other = CaptionDecoder(replace(SIZES, units=5))
    checkpoint.save_tensors(tmp_path / checkpoint.BEST, checkpoint.decoder_tensors(other), {})
    with pytest.raises(CheckpointError, match=r"do not fit .*decoder\.initial\.bias"):
        load_checkpoint(tmp_path)

"""Laws of checkpoints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.bundle.vocabulary import Vocabulary
from training.files import write_json
from training.models import checkpoint
from training.models.checkpoint import CheckpointError, begin_with, load_checkpoint, make_decoder
from training.models.decoder import CaptionDecoder, DecoderConfig

WORDS = Vocabulary.build(["a red circle", "a blue square"], min_count=1)
SIZES = DecoderConfig(6, len(WORDS), WORDS.pad_id, bottleneck=3, units=4, embedding=5, logit_hidden=5)


def write_run(folder: Path, config: DecoderConfig = SIZES) -> CaptionDecoder:
    torch.manual_seed(0)
    decoder = make_decoder(config)
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


def test_a_checkpoint_knows_the_runs_that_made_it(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for seed, folder in enumerate(folders):
        write_run(folder)
        config = json.loads((folder / checkpoint.CONFIG).read_text()) | {"training": {"seed": seed}}
        if seed:
            config["from"] = checkpoint.begun_with(folders[seed - 1], load_checkpoint(folders[seed - 1]))
        if seed == 2:
            config["scst"] = {"samples": 5}
        write_json(folder / checkpoint.CONFIG, config)
    assert load_checkpoint(folders[2]).runs == (
        {"run": "a", "kind": "cross-entropy", "options": {"seed": 0}},
        {"run": "b", "kind": "cross-entropy", "options": {"seed": 1}},
        {"run": "c", "kind": "self-critical", "options": {"samples": 5}},
    )


@pytest.mark.parametrize("tied", [False, True])
def test_a_run_that_starts_from_another_has_its_words_as_embeddings_and_as_outputs(tmp_path: Path, tied: bool) -> None:
    before = write_run(tmp_path, replace(SIZES, tied=True))
    decoder = CaptionDecoder(replace(SIZES, tied=tied))
    begin_with(decoder, load_checkpoint(tmp_path), "fingerprint", tmp_path)
    assert (decoder.output.weight is decoder.embedding.weight) == tied
    for weight in (decoder.embedding.weight, decoder.output.weight):
        assert torch.equal(weight, before.embedding.weight)


def test_outputs_that_are_not_the_embeddings_cannot_become_tied(tmp_path: Path) -> None:
    write_run(tmp_path)
    with pytest.raises(CheckpointError, match="are not its embeddings: leave out --tied"):
        begin_with(CaptionDecoder(replace(SIZES, tied=True)), load_checkpoint(tmp_path), "fingerprint", tmp_path)


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

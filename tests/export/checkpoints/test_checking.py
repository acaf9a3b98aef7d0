"""Files of another shape are one error that lists everything; what projects do differently is accepted."""

import pickle
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from export.checkpoints.layouts import LAYOUTS
from export.errors import ExportError
from tests.export.checkpoints.cases import CASES, Case, ruotianluo, sgrvinod, yunjey
from tests.export.checkpoints.conftest import Read
from tests.export.checkpoints.foreign import write_pickled_object

SPOILED = {  # a matrix of each checkpoint
    "yunjey": "lstm.weight_ih_l0",
    "ruotianluo fc": "core.i2h.weight",
    "ruotianluo newfc": "_core.i2h.weight",
    "ruotianluo att2in2": "core.a2c.weight",
}


def _spoil(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Takes the output's bias away, adds a tensor, and makes one larger."""
    bias = next(bias for bias in ("linear.bias", "logit.bias", "fc.bias") if bias in state)
    changed = {key: value for key, value in state.items() if key != bias}
    return {**changed, name: torch.cat((state[name], state[name]), dim=1), "surprise.weight": torch.zeros(2)}


@pytest.mark.parametrize("kind", SPOILED)
def test_one_error_lists_what_is_missing_unknown_and_of_another_shape(kind: str, tmp_path: Path) -> None:
    case = CASES[kind](tmp_path)
    torch.save(_spoil(torch.load(case.source.checkpoint), SPOILED[kind]), case.source.checkpoint)
    with pytest.raises(ExportError) as caught:
        LAYOUTS[case.layout](case.source)
    text = str(caught.value)
    assert "bias is missing" in text
    assert "surprise.weight is unknown" in text
    assert f"{SPOILED[kind]} has the shape" in text
    assert str(case.source.checkpoint) in text


def test_faults_of_both_parts_and_of_the_words_are_in_the_same_error(tmp_path: Path) -> None:
    case = sgrvinod(tmp_path)
    encoder, decoder = _states_of(case)
    del encoder["resnet.1.weight"]
    torch.save({"encoder": encoder, "decoder": _spoil(decoder, "f_beta.weight")}, case.source.checkpoint)
    case.source.vocabulary.write_text('{"a": 1, "<start>": 2, "<end>": 2, "<unk>": 4}')
    with pytest.raises(ExportError) as caught:
        LAYOUTS["sgrvinod"](case.source)
    for fault in (
        "encoder.resnet.1.weight is missing",
        "decoder.fc.bias is missing",
        "decoder.surprise.weight is unknown",
        "decoder.f_beta.weight has the shape (2048, 16), not (2048, 8)",
        "no words have the ids 0, 3",
        "the words '<start>' and '<end>' both have the id 2",
        "the word map has no <pad>",
    ):
        assert fault in str(caught.value)


def test_a_part_that_is_missing_as_a_whole_is_named_once(tmp_path: Path) -> None:
    case = yunjey(tmp_path)
    torch.save({"bn.weight": torch.ones(6)}, case.source.encoder_weights or "")
    with pytest.raises(ExportError, match=r"all of encoder\.resnet\.\* \(\d+ tensors\) is missing"):
        LAYOUTS["yunjey"](case.source)


def _states_of(case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    read = LAYOUTS[case.layout](case.source)
    return dict(read.encoder.state_dict()), dict(read.decoder.state_dict())


def _same_as(read: Read, changed: Case) -> None:
    again = LAYOUTS[changed.layout](changed.source)
    for before, now in ((read.imported.encoder, again.encoder), (read.imported.decoder, again.decoder)):
        states = before.state_dict(), now.state_dict()
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def _under(part: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{part}.{name}": tensor for name, tensor in state.items()}


def _parallel(path: Path | str | None) -> None:
    assert path is not None
    torch.save({f"module.{name}": value for name, value in torch.load(path).items()}, path)


def test_the_prefix_of_data_parallel_is_accepted(tmp_path: Path, imported: Callable[[str], Read]) -> None:
    case = yunjey(tmp_path)
    _parallel(case.source.checkpoint)
    _parallel(case.source.encoder_weights)
    _same_as(imported("yunjey"), case)
    _same_as(imported("sgrvinod"), sgrvinod(tmp_path, parallel=True))
    case = ruotianluo(tmp_path)
    _parallel(case.source.checkpoint)
    _same_as(imported("ruotianluo fc"), case)


@pytest.mark.parametrize("form", ["state dicts", "named state dicts", "one state dict"])
def test_sgrvinods_parts_can_be_state_dicts(form: str, tmp_path: Path, imported: Callable[[str], Read]) -> None:
    case = sgrvinod(tmp_path)
    encoder, decoder = _states_of(case)
    content = {
        "state dicts": {"encoder": encoder, "decoder": decoder},
        "named state dicts": {"epoch": 1, "encoder_state_dict": encoder, "decoder_state_dict": decoder},
        "one state dict": {f"encoder.{n}": t for n, t in encoder.items()}
        | {f"decoder.{n}": t for n, t in decoder.items()},
    }[form]
    torch.save(content, case.source.checkpoint)
    _same_as(imported("sgrvinod"), case)


def test_weights_older_than_the_count_of_batches_are_accepted(tmp_path: Path, imported: Callable[[str], Read]) -> None:
    case = yunjey(tmp_path)
    path = case.source.encoder_weights or ""
    torch.save({n: t for n, t in torch.load(path).items() if not n.endswith("num_batches_tracked")}, path)
    _same_as(imported("yunjey"), case)


def test_a_vocabulary_of_another_run_is_an_error(tmp_path: Path) -> None:
    case = yunjey(tmp_path)
    fields = {"word2idx": {"<pad>": 0, "<start>": 1, "<end>": 2, "<unk>": 3}, "idx2word": {}, "idx": 4}
    write_pickled_object(case.source.vocabulary, "__main__", "Vocabulary", fields)
    with pytest.raises(ExportError, match="the vocabulary has 4 words, the decoder 12"):
        LAYOUTS["yunjey"](case.source)


def test_features_of_regions_and_other_models_are_refused(tmp_path: Path) -> None:
    case = ruotianluo(tmp_path)
    infos = {"opt": Namespace(caption_model="fc", input_fc_dir="data/cocobu_fc"), "vocab": {"1": "a"}}
    case.source.vocabulary.write_bytes(pickle.dumps(infos))
    with pytest.raises(ExportError, match="bottom-up features of regions, which need a detector"):
        LAYOUTS["ruotianluo"](case.source)
    infos["opt"] = Namespace(caption_model="transformer")
    case.source.vocabulary.write_bytes(pickle.dumps(infos))
    with pytest.raises(ExportError, match="of the kind transformer: only fc, newfc and att2in2 are read"):
        LAYOUTS["ruotianluo"](case.source)


def test_a_network_that_the_checkpoint_lacks_must_be_given(tmp_path: Path) -> None:
    for case in (yunjey(tmp_path), ruotianluo(tmp_path)):
        with pytest.raises(ExportError, match="--encoder-weights"):
            LAYOUTS[case.layout](replace(case.source, encoder_weights=None))


def test_a_network_of_other_features_is_an_error(tmp_path: Path) -> None:
    source = replace(ruotianluo(tmp_path).source, encoder_weights="random", encoder="resnet18")
    with pytest.raises(ExportError, match="the network has 512 channels, the model reads 2048"):
        LAYOUTS["ruotianluo"](source)

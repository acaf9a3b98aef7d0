"""Checkpoints on disk: tensors as safetensors, the rest as JSON, no pickle. Knows nothing of training loops.

A run's folder contains config.json, vocabulary.json, best.safetensors and last.safetensors, and encoder.safetensors if
the encoder was trained with the decoder. Tensor files are written atomically: after a kill at any moment there is the
old file or the new one.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.bundle.vocabulary import Vocabulary
from training.files import write_atomically
from training.models.attention import AttentionConfig, AttentionDecoder
from training.models.decoder import CaptionDecoder, DecoderConfig

CONFIG, VOCABULARY, BEST, LAST = "config.json", "vocabulary.json", "best.safetensors", "last.safetensors"
ENCODER = "encoder.safetensors"
TAIL = "decoder.tail."  # the trained part of an encoder, see training.models.finetune
FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another kind; the message names the file and the problem."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trained decoder (in eval mode, on the CPU) with everything needed to use it.

    `encoder_weights` is the run's option: "pretrained", "random" or a file's path; for an encoder that was trained with
    the decoder, the run's own file. `config` is config.json, with the encoder's fingerprint. `runs` are the runs that
    made the weights, oldest first and this one last, each with "run" (its name), "kind" and "options".
    """

    decoder: CaptionDecoder
    vocabulary: Vocabulary
    encoder_name: str
    encoder_weights: str
    config: dict[str, Any]
    runs: tuple[dict[str, Any], ...]


def describe_run(
    decoder: DecoderConfig, encoder: Mapping[str, object], training: Mapping[str, object]
) -> dict[str, Any]:
    """Returns the content of config.json; `encoder` has at least the keys name and weights."""
    sizes = {"kind": decoder.kind} | asdict(decoder)
    return {"format": FORMAT, "decoder": sizes, "encoder": dict(encoder), "training": dict(training)}


def make_decoder(sizes: DecoderConfig) -> CaptionDecoder:
    """Returns a new decoder of the kind that the sizes are for."""
    return AttentionDecoder(sizes) if isinstance(sizes, AttentionConfig) else CaptionDecoder(sizes)


def _sizes(described: Mapping[str, Any]) -> DecoderConfig:
    """Returns the sizes in config.json; without a kind, which earlier versions left out, they are the plain decoder's.

    Raises CheckpointError for a kind that this version does not know, TypeError and ValueError for other faults.
    """
    kinds: dict[str, type[DecoderConfig]] = {config.kind: config for config in (DecoderConfig, AttentionConfig)}
    sizes = dict(described)
    kind = sizes.pop("kind", DecoderConfig.kind)
    if kind not in kinds:
        raise CheckpointError(f'the decoder is of the kind "{kind}", but this version knows only {", ".join(kinds)}')
    return kinds[kind](**sizes)


def decoder_tensors(decoder: nn.Module) -> dict[str, Tensor]:
    """Returns the parameters of a decoder, or of what else is trained, by name after "decoder."; tied ones once."""
    return {f"decoder.{name}": parameter.detach() for name, parameter in decoder.named_parameters()}


def restore_decoder(decoder: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies tensors from `decoder_tensors` into a decoder. Raises CheckpointError if they do not fit.

    Embeddings of a tied decoder also become the output weights of one that is not tied.
    """
    parameters = decoder_tensors(decoder)
    found = {name: tensor for name, tensor in tensors.items() if name.startswith("decoder.")}
    untied = isinstance(decoder, CaptionDecoder) and not decoder.config.tied
    if untied and "decoder.embedding.weight" in found:
        found.setdefault("decoder.output.weight", found["decoder.embedding.weight"])
    wrong = sorted(
        name
        for name in parameters.keys() | found.keys()
        if name not in parameters or name not in found or parameters[name].shape != found[name].shape
    )
    if wrong:
        raise CheckpointError(f"the weights do not fit the decoder of {CONFIG}: {', '.join(wrong)}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(found[name])


def save_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, object]) -> None:
    """Writes tensors and JSON-able notes as one safetensors file, atomically."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(flat, metadata={"notes": json.dumps(notes)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `save_tensors` wrote. Raises CheckpointError if the file is missing or damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            notes = json.loads(file.metadata()["notes"])
            return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}") from error


def load_checkpoint(folder: str | os.PathLike[str], which: str = "best") -> Checkpoint:
    """Loads the "best" (lowest validation loss) or "last" checkpoint of a run's folder.

    Raises CheckpointError naming the file that is missing or damaged.
    """
    folder = Path(folder)
    if which not in ("best", "last"):
        raise CheckpointError(f'which must be "best" or "last", but it is "{which}"')
    if not (folder / CONFIG).is_file():
        raise CheckpointError(
            f"{folder} is not a run's folder: it has no {CONFIG}; make one with python -m training.train"
        )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if config["format"] != FORMAT:
            raise CheckpointError(f"{folder / CONFIG} has format {config['format']}, but this version reads {FORMAT}")
        vocabulary = Vocabulary.load(folder / VOCABULARY)
        decoder = make_decoder(_sizes(config["decoder"]))
        encoder_name, encoder_weights = config["encoder"]["name"], config["encoder"]["weights"]
        runs = _runs(folder, config)
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is not a readable run's folder: {error!r}") from error
    if len(vocabulary) != decoder.config.vocabulary_size:
        raise CheckpointError(
            f"{folder / VOCABULARY} has {len(vocabulary)} words, but the decoder has {decoder.config.vocabulary_size}"
        )
    tensors, notes = load_tensors(folder / (BEST if which == "best" else LAST))
    restore_decoder(decoder, {name: tensor for name, tensor in tensors.items() if not name.startswith(TAIL)})
    if encoder_weights == ENCODER:
        encoder_weights = str(folder / ENCODER)
        if not Path(encoder_weights).is_file():
            raise CheckpointError(
                f"{folder} has no {ENCODER}, the encoder that was trained with its decoder: copy it there"
            )
    if "encoder" in notes:
        config["encoder"]["fingerprint"] = notes["encoder"]
    return Checkpoint(decoder.eval(), vocabulary, encoder_name, encoder_weights, config, tuple(runs))


def _runs(folder: Path, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns `runs` of the checkpoints in a folder. Raises KeyError and TypeError for an invalid config.json."""
    kind, part = ("self-critical", "scst") if "scst" in config else ("cross-entropy", "training")
    own = {"run": folder.resolve().name, "kind": kind, "options": config.get(part, {})}
    return [*(config["from"]["runs"] if "from" in config else ()), own]


def begun_with(folder: Path, before: Checkpoint) -> dict[str, Any]:
    """Returns the entry "from" of config.json, for a run that starts from the best weights of the run in a folder."""
    digest = hashlib.sha256((folder / BEST).read_bytes()).hexdigest()
    return {"run": folder.resolve().name, "sha256": digest, "runs": list(before.runs)}


def begin_with(decoder: CaptionDecoder, before: Checkpoint, encoder: str, folder: Path) -> dict[str, Any]:
    """Copies the weights of another run's folder to a new decoder; returns the entry "from" of config.json.

    encoder: fingerprint of the encoder for the new decoder. Raises CheckpointError if sizes or encoder differ. Dropout
    may differ, and the trained part of the encoder is not changed.
    """
    if before.config["encoder"].get("fingerprint", encoder) != encoder:
        raise CheckpointError(
            f"the decoder in {folder} was trained with another encoder: pass that one with --encoder and "
            f"--encoder-weights ({before.encoder_name}, {before.encoder_weights})"
        )
    if decoder.config.tied and not before.decoder.config.tied:
        raise CheckpointError(f"the output weights in {folder} are not its embeddings: leave out --tied")
    if (kind := before.decoder.config.kind) != decoder.config.kind:
        why = "; attention that started from a decoder without it was no better than that" if kind == "lstm" else ""
        raise CheckpointError(
            f"the decoder in {folder} is of the kind {kind}: pass --decoder {kind}, or leave out --from{why}"
        )
    own, earlier = decoder_tensors(decoder), decoder_tensors(before.decoder)
    kept = {name: tensor for name, tensor in own.items() if name.startswith(TAIL)}
    restore_decoder(decoder, kept | earlier)
    return begun_with(folder, before)

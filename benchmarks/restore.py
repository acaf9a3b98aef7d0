"""A bundle's weights back in PyTorch. Reads the graphs' initialisers; runs nothing."""

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from engine.bundle import Bundle
from training.encoders import Encoder, load_encoder
from training.model import CaptionDecoder, DecoderConfig

PREFIX = "decoder."  # of the parameters in the graphs


def restore_encoder(bundle: Bundle) -> Encoder:
    """Loads the encoder whose weights the bundle names. Raises ValueError when they cannot be had, or are others."""
    said = bundle.manifest.provenance["encoder"]
    encoder = load_encoder(said["name"], said["weights"])
    if encoder.fingerprint != said["fingerprint"]:
        raise ValueError(f"the weights {said['weights']!r} of {encoder.name} are not those of {bundle.path}")
    return encoder


def restore_decoder(bundle: Bundle) -> CaptionDecoder:
    """Makes the decoder that the bundle was exported from, in eval mode; all sizes are read off the weights."""
    found = _initialisers(bundle)
    state = {name.removeprefix(PREFIX): tensor for name, tensor in found.items() if name.startswith(PREFIX)}
    # equal weights are stored once: tied embeddings go by either name, and the export adds the LSTM's two biases up
    for name, same in (("embedding.weight", "output.weight"), ("output.weight", "embedding.weight")):
        state.setdefault(name, state[same])
    units = state["initial.bias"].shape[0]
    if "lstm.bias_ih_l0" not in state:
        (bias,) = (
            tensor for name, tensor in found.items() if tensor.shape == (4 * units,) and not name.startswith(PREFIX)
        )
        state |= {"lstm.bias_ih_l0": bias, "lstm.bias_hh_l0": torch.zeros_like(bias)}
    vocabulary_size, embedding = state["embedding.weight"].shape
    config = DecoderConfig(
        feature_size=state["bottleneck.weight"].shape[1],
        vocabulary_size=vocabulary_size,
        pad_id=bundle.vocabulary.pad_id,
        bottleneck=state["bottleneck.bias"].shape[0],
        units=units,
        embedding=embedding,
        logit_hidden=state["logit_hidden.bias"].shape[0],
    )
    decoder = CaptionDecoder(config).eval().requires_grad_(False)
    decoder.load_state_dict(state)
    return decoder


def _initialisers(bundle: Bundle) -> dict[str, Tensor]:
    models = (onnx.load(bundle.path / bundle.graph(name).file) for name in ("decoder_init", "decoder_step"))
    return {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for model in models
        for tensor in model.graph.initializer
    }

"""Loads a bundle's weights into PyTorch modules, from the graphs' initialisers. Runs nothing."""

from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from engine.bundle.bundle import Bundle
from training.models import checkpoint
from training.models.attention import AttentionConfig
from training.models.decoder import CaptionDecoder, DecoderConfig
from training.models.encoders import Encoder, load_encoder

PREFIX = "decoder."  # of the parameters in the graphs
SIZED_BY = {"attention_size": "keys", "value_size": "values"}  # which layer of attention shows a size


def restore_encoder(bundle: Bundle) -> Encoder:
    """Makes the encoder that the bundle was exported from: its weights are the bundle's own where it was fine-tuned.

    Raises ValueError if they are not available, or differ.
    """
    said, grid = bundle.manifest.provenance["encoder"], len(bundle.manifest.feature_shape) > 1
    if said["weights"] == checkpoint.ENCODER:
        return _unfolded(bundle, load_encoder(said["name"], "random", grid=grid))
    encoder = load_encoder(said["name"], said["weights"], grid=grid)
    if encoder.fingerprint != said["fingerprint"]:
        raise ValueError(f"the weights {said['weights']!r} of {encoder.name} differ from those in {bundle.path}")
    return encoder


def _unfolded(bundle: Bundle, encoder: Encoder) -> Encoder:
    """Gives a network the graph's convolutions, into which the export folded batch normalisation, and leaves that idle.

    It runs all the same, as in the network that was exported, so that it costs what it costs there.
    """
    graph = onnx.load(bundle.path / bundle.graph("encoder").file).graph
    found = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    biases = {node.input[1]: node.input[2] for node in graph.node if node.op_type == "Conv"}
    state = {}
    convolution = ""
    for name, module in encoder.network.named_modules():
        if isinstance(module, nn.Conv2d):
            convolution = f"network.{name}.weight"
            state[f"{name}.weight"] = found[convolution]
        elif isinstance(module, nn.BatchNorm2d):
            bias = found[biases[convolution]]
            state |= {f"{name}.weight": torch.ones_like(bias), f"{name}.bias": bias}
            state |= {f"{name}.running_mean": torch.zeros_like(bias)}
            state |= {f"{name}.running_var": torch.full_like(bias, 1 - module.eps)}
    missing, _ = encoder.network.load_state_dict(state, strict=False)
    if lacking := [name for name in missing if not name.endswith("num_batches_tracked")]:
        raise ValueError(f"the encoder of {bundle.path} cannot be restored from its graph, which lacks {lacking[0]}")
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
    sizes: dict[str, Any] = {
        "feature_size": state["bottleneck.weight"].shape[1],
        "vocabulary_size": vocabulary_size,
        "pad_id": bundle.vocabulary.pad_id,
        "bottleneck": state["bottleneck.bias"].shape[0],
        "units": units,
        "embedding": embedding,
        "logit_hidden": state["logit_hidden.bias"].shape[0],
    }
    if "attention.keys.bias" in state:
        height, width, _ = bundle.manifest.feature_shape
        sizes |= {"height": height, "width": width}
        sizes |= {name: len(state[f"attention.{layer}.bias"]) for name, layer in SIZED_BY.items()}
        column = sizes["attention_size"], 1  # the export turns the weights of energies
        (energy,) = (tensor for name, tensor in found.items() if tensor.shape == column and not name.startswith(PREFIX))
        state["attention.energy.weight"] = energy.T
        config: DecoderConfig = AttentionConfig(**sizes)
    else:
        config = DecoderConfig(**sizes)
    decoder = checkpoint.make_decoder(config).eval().requires_grad_(False)
    decoder.load_state_dict(state)
    return decoder


def _initialisers(bundle: Bundle) -> dict[str, Tensor]:
    models = (onnx.load(bundle.path / bundle.graph(name).file) for name in ("decoder_init", "decoder_step"))
    return {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for model in models
        for tensor in model.graph.initializer
    }

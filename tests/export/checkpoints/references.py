"""Decoders of other projects written from their papers and layouts, in float64, without the importers' code.

Each takes the arrays of a checkpoint by the project's own names, and computes the log-probabilities of the next word
after a whole prefix, from its beginning. None keeps a state between calls.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from tests.export.checkpoints.search import Prefix

Weights = Mapping[str, Tensor]


def yunjey(weights: Weights, image: Tensor, prefix: Prefix) -> Tensor:
    """nn.LSTM over the image's vector and the embedded words."""
    units, layers = weights["lstm.weight_hh_l0"].shape[1], sum("weight_hh" in name for name in weights)
    lstm = nn.LSTM(image.shape[-1], units, layers, batch_first=True).double()
    lstm.load_state_dict({name[len("lstm.") :]: w.double() for name, w in weights.items() if name.startswith("lstm.")})
    sequence = torch.cat((image[None], weights["embed.weight"].double()[list(prefix)]))
    outputs, _ = lstm(sequence[None])
    return torch.log_softmax(weights["linear.weight"].double() @ outputs[0, -1] + weights["linear.bias"].double(), 0)


def sgrvinod(weights: Weights, image: Tensor, prefix: Prefix) -> Tensor:
    """Soft attention with a gate: equations 5 to 9 of Xu et al. and their section 4.2.1, with ReLU for tanh."""
    w = {name: value.double() for name, value in weights.items()}

    def affine(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    places = image.reshape(-1, image.shape[-1])
    h, c = affine("init_h", places.mean(0)), affine("init_c", places.mean(0))
    cell = nn.LSTMCell(w["decode_step.weight_ih"].shape[1], len(h)).double()
    cell.load_state_dict({name.split(".")[1]: value for name, value in w.items() if name.startswith("decode_step.")})
    for word in prefix:
        energies = [
            affine(
                "attention.full_att", (affine("attention.encoder_att", a) + affine("attention.decoder_att", h)).relu()
            )
            for a in places
        ]
        alpha = torch.softmax(torch.cat(energies), 0)
        z = torch.sigmoid(affine("f_beta", h)) * sum(p * a for p, a in zip(alpha, places, strict=True))
        h, c = cell(torch.cat((w["embedding.weight"][word], z)), (h, c))
    return torch.log_softmax(affine("fc", h), 0)


def _maxout(i2h: Tensor, a2c: Tensor | float, c: Tensor) -> tuple[Tensor, Tensor]:
    """Rennie et al., section 3.2: c = f c + i max(first, second), h = o tanh(c)."""
    n = len(c)
    i, f, o = (torch.sigmoid(i2h[k * n : (k + 1) * n]) for k in range(3))
    candidates = i2h[3 * n :] + a2c
    c = f * c + i * torch.stack((candidates[:n], candidates[n:])).amax(0)
    return o * c.tanh(), c


def ruotianluo_fc(weights: Weights, image: Tensor, prefix: Prefix) -> Tensor:
    """fc and newfc: the image is the first word."""
    w = {name: value.double() for name, value in weights.items()}
    core, embed = ("_core", "fc_embed") if "fc_embed.weight" in w else ("core", "img_embed")
    inputs = [w[f"{embed}.weight"] @ image + w[f"{embed}.bias"], *(w["embed.weight"][word] for word in prefix)]
    h = c = torch.zeros(w["logit.weight"].shape[1], dtype=torch.float64)
    for x in inputs:
        sums = w[f"{core}.i2h.weight"] @ x + w[f"{core}.i2h.bias"] + w[f"{core}.h2h.weight"] @ h + w[f"{core}.h2h.bias"]
        h, c = _maxout(sums, 0.0, c)
    return torch.log_softmax(w["logit.weight"] @ h + w["logit.bias"], 0)


def ruotianluo_att2in2(weights: Weights, image: Tensor, prefix: Prefix) -> Tensor:
    """att2in2: attention over the embedded grid enters the candidates only. A normalisation may come before it."""
    w = {name: value.double() for name, value in weights.items()}

    def affine(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        deviation = (w[f"{name}.running_var"] + 1e-5).sqrt()
        return (x - w[f"{name}.running_mean"]) / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]

    places = image.reshape(-1, image.shape[-1])
    if "att_embed.0.running_mean" in w:
        places = affine("att_embed.1", norm("att_embed.0", places)).relu()
        places = norm("att_embed.4", places) if "att_embed.4.weight" in w else places
    else:
        places = affine("att_embed.0", places).relu()
    h = c = torch.zeros(w["logit.weight"].shape[1], dtype=torch.float64)
    for word in prefix:
        scores = affine(
            "core.attention.alpha_net", (affine("ctx2att", places) + affine("core.attention.h2att", h)).tanh()
        )
        seen = torch.softmax(scores[:, 0], 0) @ places
        x = w["embed.0.weight"][word].relu()
        h, c = _maxout(affine("core.i2h", x) + affine("core.h2h", h), affine("core.a2c", seen), c)
    return torch.log_softmax(affine("logit", h), 0)


def keras_merge(weights: Mapping[str, np.ndarray], image: Tensor, prefix: Prefix, hard: bool = False) -> Tensor:
    """Keras's LSTM over the embedded words; its last output and the image's dense map are added."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def gate(x: np.ndarray) -> np.ndarray:
        return np.clip(0.2 * x + 0.5, 0, 1) if hard else 1 / (1 + np.exp(-x))

    seen = np.maximum(image.double().numpy() @ w["dense/kernel"] + w["dense/bias"], 0)
    units = len(w["lstm/recurrent_kernel"])
    h = c = np.zeros(units)
    for word in prefix:
        z = w["embedding/embeddings"][word] @ w["lstm/kernel"] + h @ w["lstm/recurrent_kernel"] + w["lstm/bias"]
        i, f, g, o = (z[k * units : (k + 1) * units] for k in range(4))
        c = gate(f) * c + gate(i) * np.tanh(g)
        h = gate(o) * np.tanh(c)
    hidden = np.maximum((seen + h) @ w["dense_1/kernel"] + w["dense_1/bias"], 0)
    return torch.log_softmax(torch.from_numpy(hidden @ w["dense_2/kernel"] + w["dense_2/bias"]), 0)

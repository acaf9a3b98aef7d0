"""The baseline of ONNX Runtime used plainly: session.run on the bundle's portable graphs, selection in numpy.

All log-probabilities and the state are copied to the host at each step. Knows nothing of PyTorch.
"""

import abc
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.baselines.base import Baseline
from benchmarks.baselines.search import State
from engine.bundle.bundle import Bundle


class HostDecoder(Baseline):
    """A decoder whose log-probabilities come to the host as numpy arrays."""

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        super().__init__(bundle, threads)
        state, context = bundle.manifest.state, bundle.manifest.context
        self.names = [*(each.name for each in state), *(each.name for each in context)]
        self.following = [each.next for each in state]

    @abc.abstractmethod
    def score(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Returns writable log-probabilities (rows, vocabulary) of all words, and the next state."""

    def step(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """See Decoder."""
        log_probs, state = self.score(token_ids, state)
        log_probs[:, self.never] = -np.inf
        return log_probs, state

    def best(self, log_probs: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See Decoder."""
        if k == 1:
            ids = log_probs.argmax(axis=1)[:, None]  # (rows, 1)
            return ids, np.take_along_axis(log_probs, ids, axis=1)
        ids = np.argpartition(log_probs, -k, axis=1)[:, -k:]  # (rows, k)
        best = np.take_along_axis(log_probs, ids, axis=1)
        order = np.argsort(-best, axis=1)
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(best, order, axis=1)

    def draw(self, log_probs: np.ndarray) -> np.ndarray:
        """See Decoder."""
        cumulative = np.exp(log_probs).cumsum(axis=1)  # (rows, vocabulary)
        draws = np.random.default_rng().random((len(log_probs), 1)) * cumulative[:, -1:]
        drawn: np.ndarray = (cumulative <= draws).sum(axis=1)
        return drawn


class PlainSession(HostDecoder):
    """A bundle's graphs of one precision in sessions with ONNX Runtime's own settings."""

    def __init__(self, bundle: Bundle, threads: int = 0, precision: str = "fp32") -> None:
        super().__init__(bundle, threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.encoder, self.init, self.decoder_step = (
            onnxruntime.InferenceSession(
                str(bundle.path / bundle.graph(name, precision).file), options, providers=["CPUExecutionProvider"]
            )
            for name in ("encoder", "decoder_init", "decoder_step")
        )

    def encode(self, pixels: Any) -> np.ndarray:
        """See Baseline."""
        features: np.ndarray = self.encoder.run(["features"], {"pixels": pixels})[0]
        return features

    def start(self, features: np.ndarray) -> State:
        """See Decoder."""
        return tuple(self.init.run(self.names, {"features": features}))

    def score(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """See HostDecoder."""
        inputs = {"token_ids": token_ids, **dict(zip(self.names, state, strict=True))}
        log_probs, *following = self.decoder_step.run(["log_probs", *self.following], inputs)
        return log_probs, (*following, *state[len(following) :])

"""The baseline of OpenVINO called directly on the bundle's graphs, selection in numpy.

`hint` is OpenVINO's: for latency a batch is one request; for throughput it is split into chunks for a queue of as many
requests as OpenVINO recommends. Knows nothing of PyTorch or ONNX Runtime.
"""

from typing import Any

import numpy as np
import openvino

from benchmarks.baselines.plain_session import HostDecoder
from benchmarks.baselines.search import State
from engine.bundle.bundle import Bundle

CHUNK = 4
"""Images of one request of the throughput queue: small enough that a batch of 8 gives both cores work."""


class DirectOpenvino(HostDecoder):
    """A bundle's graphs of one precision on OpenVINO's CPU device.

    execution: the type of float arithmetic, "f32" for exact results; None is OpenVINO's choice, which is bfloat16 if
    the processor has it.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 0,
        precision: str = "fp32",
        execution: str | None = "f32",
        hint: str = "LATENCY",
    ) -> None:
        super().__init__(bundle, threads)
        core, latency = openvino.Core(), {"PERFORMANCE_HINT": "LATENCY"}
        settings = {"INFERENCE_PRECISION_HINT": execution} if execution else {}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads  # type: ignore[assignment]

        def compiled(graph: str, hint: dict[str, str]) -> Any:
            model = core.read_model(bundle.path / bundle.graph(graph, precision).file)
            return core.compile_model(model, "CPU", settings | hint)

        self.throughput = hint == "THROUGHPUT"
        encoder = compiled("encoder", {"PERFORMANCE_HINT": hint})
        self.queue = openvino.AsyncInferQueue(encoder) if self.throughput else None
        self.encoder = encoder.create_infer_request()
        self.init, self.decoder_step = (
            compiled(graph, latency).create_infer_request() for graph in ("decoder_init", "decoder_step")
        )

    def encode(self, pixels: Any) -> np.ndarray:
        """See Baseline."""
        if self.queue is None:
            features: np.ndarray = self.encoder.infer({"pixels": pixels}, share_inputs=True)["features"]
            return features
        parts: dict[int, np.ndarray] = {}

        def keep(request: Any, place: int) -> None:
            parts[place] = request.get_output_tensor().data.copy()

        self.queue.set_callback(keep)
        for place in range(0, len(pixels), CHUNK):
            self.queue.start_async({"pixels": pixels[place : place + CHUNK]}, place)
        self.queue.wait_all()
        return np.concatenate([parts[place] for place in sorted(parts)])

    def start(self, features: np.ndarray) -> State:
        """See Decoder."""
        found = self.init.infer({"features": features})
        return tuple(found[name] for name in self.names)

    def score(self, token_ids: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """See HostDecoder."""
        given = {"token_ids": token_ids, **dict(zip(self.names, state, strict=True))}
        found = self.decoder_step.infer(given, share_inputs=True)
        following = tuple(found[name] for name in self.following)
        return found["log_probs"], (*following, *state[len(following) :])

"""An ONNX Runtime of any providers and devices, in which nothing runs."""

import types
from collections.abc import Callable
from typing import Any

from engine.bundle.manifest import GraphFile, Tensor
from engine.runtime.providers import PROVIDERS

CPU = "CPUExecutionProvider"
OPENVINO = PROVIDERS["openvino"]
TENSORRT = ("TensorrtExecutionProvider", "CUDAExecutionProvider", CPU)
ENCODER = GraphFile(
    "encoder", "fp32", "encoder.onnx", "0123456789abcdef" * 4, (), (Tensor("pixels", "uint8", ("batch", 8, 8, 3)),), ()
)
STEP = GraphFile(
    "search_step",
    "fp32",
    "search_step.onnx",
    "f" * 64,
    (),
    (
        Tensor("token_ids", "int64", ("rows",)),
        Tensor("hidden", "float32", ("state_rows", 5)),
        Tensor("bias", "float32", ("bias_rows", 9)),
        Tensor("k", "int64", (1,)),
    ),
    (),
)


class FakeRuntime:
    """An ONNX Runtime with the given built-in providers and plug-in devices, that refuses to register twice."""

    __version__ = "1.99"

    def __init__(self, built_in: tuple[str, ...] = (CPU,), devices: tuple[str, ...] = ()) -> None:
        self.built_in = built_in
        self.devices = [self.device(name, i) for i, name in enumerate(devices)]
        self.registered: list[tuple[str, str]] = []
        self.runs_on: list[str] | None = None
        self.fault: Exception | None = None
        self.assigned: dict[str, list[str]] = {}

    @staticmethod
    def device(name: str, number: int) -> Any:
        kind = types.SimpleNamespace(name="CPU" if name in (CPU, PROVIDERS["openvino"].ort_name) else "GPU")
        hardware = types.SimpleNamespace(type=kind, vendor="maker", device_id=number)
        return types.SimpleNamespace(ep_name=name, number=number, device=hardware)

    def get_available_providers(self) -> list[str]:
        return [*self.built_in, *(name for name, _ in self.registered)]

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if self.fault:
            raise self.fault
        assert name not in dict(self.registered), "ONNX Runtime refuses to register a library twice"
        self.registered.append((name, path))

    def get_ep_devices(self) -> list[Any]:
        there = {*self.built_in, *(name for name, _ in self.registered)}
        return [device for device in self.devices if device.ep_name in there]

    def SessionOptions(self) -> Any:  # noqa: N802
        made = types.SimpleNamespace(added=[], entries={})
        made.add_session_config_entry = made.entries.__setitem__
        made.add_provider_for_devices = lambda devices, options: made.added.append((devices, options))
        return made

    def InferenceSession(self, path: str, settings: Any, providers: Any = None, **how: bool) -> Any:  # noqa: N802
        assert how == {"enable_fallback": False}, "ONNX Runtime would print and go on elsewhere"
        if self.fault:
            raise self.fault
        wanted = [name for name, _ in providers] if providers else [d.ep_name for d in settings.added[0][0]]
        ran = self.runs_on or [*wanted, CPU]
        nodes = [
            types.SimpleNamespace(
                ep_name=name, get_nodes=lambda ops=ops: [types.SimpleNamespace(op_type=op) for op in ops]
            )
            for name, ops in self.assigned.items()
        ]
        return types.SimpleNamespace(
            path=path,
            settings=settings,
            providers=providers,
            get_providers=lambda: ran,
            get_provider_graph_assignment_info=lambda: nodes,
        )


Install = Callable[..., FakeRuntime]

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from onnx import ModelProto

from engine.bundle.bundle import Bundle
from export import bundle as exporting
from export import modules
from export import verify as verifying
from export.decoder import Layout, init_graph, step_graph
from export.encoder import encoder_graph
from tests.export.runs import OPTIONS, small_decoder, write_run
from training.models.decoder import CaptionDecoder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def decoder() -> CaptionDecoder:
    return small_decoder()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, decoder: CaptionDecoder) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "run", decoder)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Bundle:
    """A bundle over the smallest network of timm, verified in full."""
    output = tmp_path_factory.mktemp("bundle") / "bundle"
    checks = exporting.export_bundle(run, output, OPTIONS)
    assert all(check.passed for check in checks)
    return Bundle.load(output)


@pytest.fixture(scope="session")
def traced() -> dict[str, Callable[..., ModelProto]]:
    """Each tracing function, doing the work once for the sizes it meets: tests of the rest need not wait for it."""

    def once(trace: Callable[..., ModelProto]) -> Callable[..., ModelProto]:
        known: dict[bytes, ModelProto] = {}

        @functools.wraps(trace)
        def graph(module: torch.nn.Module, *layout: Layout) -> ModelProto:
            key = b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values())
            if key not in known:
                known[key] = trace(module, *layout)
            copy = ModelProto()
            copy.CopyFrom(known[key])
            return copy

        return graph

    return {trace.__name__: once(trace) for trace in (encoder_graph, init_graph, step_graph)}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, traced: dict[str, Callable[..., ModelProto]]) -> pytest.MonkeyPatch:
    """Exports without tracing anew, verified on fewer rows."""
    for name, graph in traced.items():
        monkeypatch.setattr(modules, name, graph)
    monkeypatch.setattr(verifying, "BATCH_SIZES", (1, 3))
    return monkeypatch

"""Engines built for a GPU: kept and used only where everything that went into them is the same."""

import ctypes
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.bundle.bundle import sha256
from engine.bundle.manifest import GraphFile, Tensor
from engine.errors import ProviderError
from engine.runtime import engine_cache, sessions
from engine.runtime.cuda import nvidia
from engine.runtime.engine_cache import Engines, saved_engine
from engine.runtime.options import RuntimeOptions
from engine.runtime.providers import PROVIDERS
from engine.runtime.sessions import open_session, save_engine
from tests.engine.runtime.fake_runtime import TENSORRT as BUILT_IN
from tests.engine.runtime.fake_runtime import FakeRuntime, Install

TENSORRT = PROVIDERS["tensorrt"]
ENCODER = GraphFile(
    "encoder",
    "fp32",
    "encoder.onnx",
    "a" * 64,
    ("encoder.weights",),
    (Tensor("pixels", "uint8", ("batch", 8, 8, 3)),),
    (Tensor("features", "float32", ("batch", 4)),),
)
STEP = replace(ENCODER, graph="search_step", file="search_step.onnx")


class Builder(FakeRuntime):
    """An ONNX Runtime whose TensorRT saves engines, and that notes what it opens."""

    def __init__(self) -> None:
        super().__init__(BUILT_IN)
        self.opened: list[str] = []
        self.options: list[dict[str, str]] = []
        self.inputs = ["pixels"]
        self.saves = True
        self.broken: set[str] = set()

    def InferenceSession(self, path: str, settings: Any, providers: Any = None, **how: bool) -> Any:  # noqa: N802
        self.opened.append(path)
        self.options.append(providers[0][1])
        if path in self.broken:
            raise RuntimeError("engine of another TensorRT")
        if settings.entries.get("ep.context_enable") == "1" and self.saves:
            assert settings.entries["ep.context_embed_mode"] == "1"
            Path(settings.entries["ep.context_file_path"]).write_bytes(b"engine")
        return types.SimpleNamespace(
            get_providers=lambda: [providers[0][0]],
            get_inputs=lambda: [types.SimpleNamespace(name=name) for name in self.inputs],
            get_outputs=lambda: [types.SimpleNamespace(name="features")],
        )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The machine as the engines see it; a test may change it."""
    there = {"gpu": "NVIDIA H100 (9.0)", "tensorrt": "101301"}
    monkeypatch.setattr(engine_cache, "gpu_name", lambda device_id: there["gpu"])
    monkeypatch.setattr(engine_cache, "load_tensorrt", lambda: there["tensorrt"])
    monkeypatch.setattr(sessions, "load_tensorrt", lambda: there["tensorrt"])
    return there


@pytest.fixture
def builder(install: Install, gpu: dict[str, str]) -> Builder:
    made = Builder()
    install(made)
    return made


@pytest.fixture
def bundle(tmp_path: Path, cache: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "encoder.weights").write_bytes(b"weights")
    return folder


def key(bundle: Path, graph: GraphFile = ENCODER, **options: Any) -> str:
    found = Engines.of(bundle, graph, TENSORRT, RuntimeOptions(**options))
    assert found is not None
    return found.fit.key


@pytest.mark.usefixtures("builder")
def test_whatever_goes_into_an_engine_is_in_its_key(bundle: Path, builder: Builder, gpu: dict[str, str]) -> None:
    keys = [key(bundle), key(bundle, fp16=True), key(bundle, profile_images=(1, 2, 4))]
    keys.append(key(bundle, replace(ENCODER, sha256="b" * 64)))
    keys.append(key(bundle, replace(ENCODER, precision="fp16")))
    gpu["gpu"] = "NVIDIA A10 (8.6)"
    keys.append(key(bundle))
    gpu["tensorrt"] = "101400"
    keys.append(key(bundle))
    builder.__version__ = "2.0"
    keys.append(key(bundle))
    (bundle / "encoder.weights").write_bytes(b"trained longer")  # TensorRT's own names would stay the same
    keys.append(key(bundle))
    assert len(set(keys)) == len(keys)
    assert key(bundle) == keys[-1]
    assert key(bundle, device_id=1) == keys[-1]  # another GPU of the same make


def test_engines_and_timings_lie_in_the_users_cache(bundle: Path, builder: Builder, gpu: dict[str, str]) -> None:
    open_session(bundle, ENCODER, TENSORRT, RuntimeOptions())
    options, cache = builder.options[-1], bundle.parent / "cache/engines"
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
    assert Path(options["trt_engine_cache_path"]) == cache / key(bundle)
    assert Path(options["trt_engine_cache_path"]).is_dir()
    timings = options["trt_timing_cache_path"]
    assert Path(timings).parent == cache
    open_session(bundle, replace(ENCODER, sha256="c" * 64), TENSORRT, RuntimeOptions())
    assert builder.options[-1]["trt_timing_cache_path"] == timings  # what was timed serves every model
    gpu["gpu"] = "NVIDIA A10 (8.6)"
    open_session(bundle, ENCODER, TENSORRT, RuntimeOptions())
    assert builder.options[-1]["trt_timing_cache_path"] != timings


def test_a_folder_can_be_chosen(bundle: Path, builder: Builder, tmp_path: Path) -> None:
    open_session(bundle, ENCODER, TENSORRT, RuntimeOptions(engine_cache=tmp_path / "mine"))
    assert builder.options[-1]["trt_engine_cache_path"] == str(tmp_path / "mine" / key(bundle))


def test_a_folder_that_cannot_be_written_is_a_warning(bundle: Path, builder: Builder) -> None:
    with pytest.warns(RuntimeWarning, match="engines cannot be saved .* builds them again"):
        open_session(bundle, ENCODER, TENSORRT, RuntimeOptions(engine_cache=bundle / "encoder.weights"))
    assert "trt_engine_cache_enable" not in builder.options[-1]


def test_without_a_cache_nothing_is_kept(bundle: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_cache, "cache_folder", lambda: None)
    open_session(bundle, ENCODER, TENSORRT, RuntimeOptions())
    assert "trt_engine_cache_enable" not in builder.options[-1]
    with pytest.raises(ProviderError, match="no cache folder to save engines in"):
        save_engine(bundle, ENCODER, TENSORRT, RuntimeOptions())


def test_only_what_builds_engines_has_them(bundle: Path, builder: Builder) -> None:
    assert save_engine(bundle, ENCODER, PROVIDERS["cpu"], RuntimeOptions()) is None
    assert save_engine(bundle, STEP, PROVIDERS["cuda"], RuntimeOptions()) is None
    assert builder.opened == []


def test_a_saved_engine_is_loaded_in_place_of_the_graph(bundle: Path, builder: Builder) -> None:
    saved = save_engine(bundle, ENCODER, TENSORRT, RuntimeOptions())
    assert saved is not None
    assert saved.read_bytes() == b"engine"
    open_session(bundle, ENCODER, TENSORRT, RuntimeOptions())
    assert builder.opened[-1] == str(saved)


def test_an_engine_for_something_else_is_never_loaded(
    bundle: Path, builder: Builder, gpu: dict[str, str], tmp_path: Path
) -> None:
    shipped = RuntimeOptions(engine_cache=tmp_path / "shipped")
    save_engine(bundle, ENCODER, TENSORRT, shipped)
    gpu["gpu"] = "NVIDIA A10 (8.6)"
    with pytest.warns(RuntimeWarning, match="engines saved in .*shipped differ in gpu; encoder is built again"):
        open_session(bundle, ENCODER, TENSORRT, shipped)
    assert builder.opened[-1] == str(bundle / "encoder.onnx")
    gpu["gpu"] = "NVIDIA H100 (9.0)"
    with pytest.warns(RuntimeWarning, match="differ in options"):
        open_session(bundle, ENCODER, TENSORRT, replace(shipped, fp16=True))
    assert builder.opened[-1] == str(bundle / "encoder.onnx")


@pytest.mark.parametrize("why", ["is corrupt", "engine of another TensorRT"])
def test_a_saved_engine_that_does_not_load_is_built_anew(bundle: Path, builder: Builder, why: str) -> None:
    saved = save_engine(bundle, ENCODER, TENSORRT, RuntimeOptions())
    assert saved is not None
    if why == "is corrupt":
        saved.write_bytes(b"engina")
    builder.broken.add(str(saved))
    with pytest.warns(RuntimeWarning, match=f"{why}; encoder is built again"):
        open_session(bundle, ENCODER, TENSORRT, RuntimeOptions())
    assert builder.opened[-1] == str(bundle / "encoder.onnx")


def test_an_engine_of_a_part_of_the_graph_is_not_kept(bundle: Path, builder: Builder) -> None:
    builder.inputs = ["pixels_cast"]
    with pytest.raises(ProviderError, match=r"only a part of encoder\.onnx"):
        save_engine(bundle, ENCODER, TENSORRT, RuntimeOptions())
    builder.inputs = ["pixels"]
    open_session(bundle, ENCODER, TENSORRT, RuntimeOptions())
    assert builder.opened[-1] == str(bundle / "encoder.onnx")


def test_a_provider_that_saves_nothing_says_so(bundle: Path, builder: Builder) -> None:
    builder.saves = False
    with pytest.raises(ProviderError, match=r"'tensorrt' saved no engine of encoder\.onnx"):
        save_engine(bundle, ENCODER, TENSORRT, RuntimeOptions())


def test_the_engine_that_sessions_load_is_known_by_its_content(bundle: Path, builder: Builder) -> None:
    assert saved_engine(bundle, ENCODER, TENSORRT, RuntimeOptions()) is None
    saved = save_engine(bundle, ENCODER, TENSORRT, RuntimeOptions())
    assert saved is not None
    assert saved_engine(bundle, ENCODER, TENSORRT, RuntimeOptions()) == sha256(saved)
    assert saved_engine(bundle, ENCODER, TENSORRT, RuntimeOptions(fp16=True)) is None
    assert saved_engine(bundle, ENCODER, PROVIDERS["cpu"], RuntimeOptions()) is None


def test_a_machine_without_nvidia_says_nothing_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert nvidia.gpu_name(0) is nvidia.driver_version() is nvidia.load_tensorrt() is None

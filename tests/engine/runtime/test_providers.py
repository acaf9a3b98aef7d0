"""Providers: one table, no silent fallback. What this machine lacks is played by a fake ONNX Runtime."""

import functools
import json
import sys
import threading
import time
import tomllib
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import Captioner, EngineError, OptionsError, ProviderError, RuntimeOptions
from engine.autotune.machine import gpus, installed_providers
from engine.bundle.bundle import Bundle
from engine.bundle.checks import GRAPHS
from engine.bundle.manifest import GraphFile, Tensor
from engine.runtime import options, providers, sessions
from engine.runtime.graphs import Graphs
from engine.runtime.placement import Placement, canonical
from engine.runtime.providers import (
    DECODERS,
    PROVIDERS,
    available_providers,
    built_in_providers,
    find_provider,
    is_available,
    plug_in_devices,
)
from engine.runtime.sessions import open_session

ROOT = Path(__file__).parents[3]
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


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for graphs that are never read, with a cache beside it."""
    monkeypatch.setenv("CAPTIONING_ENGINE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def slow_path(path: str) -> str:
    """Returns the path of a library after long enough for a second thread to ask too."""
    time.sleep(0.02)
    return path


def install(monkeypatch: pytest.MonkeyPatch, runtime: FakeRuntime, plug_in: str | None = None) -> FakeRuntime:
    """Puts a fake ONNX Runtime in the real one's place, with at most one plug-in module installed."""
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setattr(providers, "_register", functools.cache(providers._register.__wrapped__))
    for provider in PROVIDERS.values():
        if provider.plug_in:
            monkeypatch.setitem(sys.modules, provider.plug_in, None)
    if plug_in:
        module: Any = types.ModuleType(plug_in)
        module.__spec__ = types.SimpleNamespace(name=plug_in)
        module.get_library_path = functools.partial(slow_path, f"/lib/{plug_in}.so")
        monkeypatch.setitem(sys.modules, plug_in, module)
    return runtime


# --- the table


def test_every_provider_of_the_issue_is_in_the_table_and_its_extra_in_the_project() -> None:
    assert list(PROVIDERS) == ["cpu", "cuda", "tensorrt", "openvino", "tensorrt-rtx"]
    assert all(name == provider.name for name, provider in PROVIDERS.items())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {provider.extra for provider in PROVIDERS.values()} <= extras.keys()


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("graph", [ENCODER, STEP], ids=["encoder", "step"])
def test_options_are_texts_as_onnx_runtime_demands(name: str, graph: GraphFile) -> None:
    runtime = RuntimeOptions(threads=2, device_id=1, gpu_memory_limit=9, engine_cache=Path("/cache"))
    options = PROVIDERS[name].options(runtime, graph)
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in options.items())


def test_cuda_gets_device_memory_convolution_search_and_tf32() -> None:
    cuda = PROVIDERS["cuda"].options
    assert cuda(RuntimeOptions(), ENCODER) == {
        "device_id": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
    }
    chosen = RuntimeOptions(device_id=2, gpu_memory_limit=1 << 30, cudnn_conv_algo_search="EXHAUSTIVE", tf32=True)
    assert cuda(chosen, ENCODER) == {
        "device_id": "2",
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": "1073741824",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "use_tf32": "1",
    }


def test_only_the_graphs_that_run_often_are_captured_and_only_on_request() -> None:
    cuda = PROVIDERS["cuda"].options
    on = RuntimeOptions(cuda_graphs=True)
    start = replace(ENCODER, graph="decoder_init")
    assert [cuda(on, graph).get("enable_cuda_graph") for graph in (ENCODER, STEP, start)] == ["1", "1", None]
    assert "enable_cuda_graph" not in cuda(RuntimeOptions(), STEP)


def test_tensorrt_gets_device_precision_and_profiles() -> None:
    tensorrt = PROVIDERS["tensorrt"].options
    assert tensorrt(RuntimeOptions(device_id=1, profile_images=(1, 4, 8)), ENCODER) == {
        "device_id": "1",
        "trt_fp16_enable": "0",
        "trt_int8_enable": "0",
        "trt_profile_min_shapes": "pixels:1x8x8x3",
        "trt_profile_opt_shapes": "pixels:4x8x8x3",
        "trt_profile_max_shapes": "pixels:8x8x8x3",
    }
    modes = [
        (options["trt_fp16_enable"], options["trt_int8_enable"])
        for options in (
            tensorrt(RuntimeOptions(fp16=True), ENCODER),
            tensorrt(RuntimeOptions(), replace(ENCODER, precision="fp16")),
            tensorrt(RuntimeOptions(), replace(ENCODER, precision="int8")),
        )
    ]
    assert modes == [("1", "0"), ("1", "0"), ("0", "1")]


def test_a_profile_is_that_of_the_batches_and_one_for_smaller_batches_is_refused() -> None:
    assert RuntimeOptions().for_batches(40).profile_images == (1, 48, 48)
    assert RuntimeOptions(profile_images=(1, 24, 24)).for_batches(20).profile_images == (1, 24, 24)
    with pytest.raises(
        OptionsError, match=r"profile_images must be a profile whose last number is at least 24, for batch_size=20"
    ):
        RuntimeOptions(profile_images=(1, 20, 20)).for_batches(20)


def test_tensorrt_rtx_gets_device_and_profiles() -> None:
    assert PROVIDERS["tensorrt-rtx"].options(RuntimeOptions(device_id=3, profile_images=(2, 4, 8)), ENCODER) == {
        "device_id": "3",
        "nv_profile_min_shapes": "pixels:2x8x8x3",
        "nv_profile_opt_shapes": "pixels:4x8x8x3",
        "nv_profile_max_shapes": "pixels:8x8x8x3",
    }


def test_openvino_computes_in_f32_on_the_threads_given() -> None:
    openvino = PROVIDERS["openvino"].options
    plain, three = openvino(RuntimeOptions(), STEP), openvino(RuntimeOptions(threads=3), STEP)
    assert plain["device_type"] == three["device_type"] == "CPU"
    assert json.loads(plain["load_config"]) == {"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}
    assert json.loads(three["load_config"])["CPU"]["INFERENCE_NUM_THREADS"] == 3


# --- two halves


@pytest.mark.parametrize(
    ("name", "encoder", "decoder", "shown"),
    [
        ("cpu", "cpu", "cpu", "cpu"),
        ("cpu+cpu", "cpu", "cpu", "cpu"),
        ("cuda", "cuda", "cuda", "cuda"),
        ("cuda+cpu", "cuda", "cpu", "cuda+cpu"),
        ("tensorrt", "tensorrt", "cuda", "tensorrt+cuda"),
        ("tensorrt+cpu", "tensorrt", "cpu", "tensorrt+cpu"),
        ("openvino", "openvino", "cpu", "openvino+cpu"),
    ],
)
def test_each_half_of_a_model_has_its_provider(
    monkeypatch: pytest.MonkeyPatch, name: str, encoder: str, decoder: str, shown: str
) -> None:
    install(monkeypatch, FakeRuntime((*TENSORRT[:2], OPENVINO.ort_name, CPU)))
    placement = Placement.of(name)
    assert placement.name == canonical(name) == canonical(shown) == shown
    assert placement.provider("encoder").name == encoder
    assert {placement.provider(graph).name for graph in GRAPHS if graph != "encoder"} == {decoder}
    assert [provider.name for provider in placement.providers] == list(dict.fromkeys((encoder, decoder)))


def test_no_provider_leaves_its_decoder_to_one_with_memory_of_its_own() -> None:
    assert {PROVIDERS[provider.decoder].name for provider in PROVIDERS.values()} <= set(DECODERS)
    assert all(PROVIDERS[name].plug_in is None for name in DECODERS)


@pytest.mark.parametrize("name", ["cpu+openvino", "openvino+openvino", "cuda+tensorrt"])
def test_a_decoder_on_a_provider_of_encoders_is_refused_with_what_may_run_it(name: str) -> None:
    encoder, decoder = name.split("+")
    with pytest.raises(ProviderError, match=rf"{decoder}, which can only run encoders: choose {encoder}\+cpu or"):
        canonical(name)


@pytest.mark.parametrize("name", ["cpu+", "cpu+gpu", "+cpu", "cpu+cuda+cpu"])
def test_a_half_that_is_unknown_is_named(name: str) -> None:
    with pytest.raises(
        ProviderError, match=r"provider '(|gpu|cuda\+cpu)' is unknown: choose auto, .* encoder\+decoder"
    ):
        canonical(name)


def test_both_halves_have_to_be_here(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRuntime())
    with pytest.raises(ProviderError, match="provider 'cuda' is not available here"):
        Placement.of("cpu+cuda")


# --- asking for one


@pytest.mark.parametrize("name", ["gpu", "CUDA", "", None])
def test_an_unknown_provider_is_refused_with_those_there_are(tiny_bundle: Path, name: Any) -> None:
    with pytest.raises(ProviderError) as caught:
        Captioner(tiny_bundle, provider=name)
    assert f"provider {name!r} is unknown" in str(caught.value)
    assert all(known in str(caught.value) for known in ("auto", *PROVIDERS))
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, EngineError)


@pytest.mark.parametrize(
    ("name", "extra"),
    [("cuda", "gpu"), ("tensorrt", "gpu"), ("openvino", "openvino"), ("tensorrt-rtx", "tensorrt-rtx")],
)
def test_an_absent_provider_is_refused_with_what_is_there_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    install(monkeypatch, FakeRuntime())
    monkeypatch.setattr("engine.runtime.providers._on_intel", lambda: True)
    with pytest.raises(ProviderError) as caught:
        find_provider(name)
    message = str(caught.value)
    assert f"provider {name!r} is not available here (available: cpu)" in message
    assert message.endswith(f"python -m pip install '.[{extra}]' in a checkout")
    assert ("pip uninstall onnxruntime " in message) == (extra == "gpu")


def test_the_plug_in_of_openvino_is_advised_on_intel_only(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRuntime())
    monkeypatch.setattr("engine.runtime.providers._on_intel", lambda: False)
    with pytest.raises(ProviderError, match="runs on Intel processors only") as caught:
        find_provider("openvino")
    assert "'.[openvino]'" not in str(caught.value)
    assert "'.[openvino-x86]'" in str(caught.value)


def test_auto_tries_cuda_first_and_takes_the_cpu_where_cuda_does_not_start(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = install(monkeypatch, FakeRuntime(("TensorrtExecutionProvider", "CUDAExecutionProvider", CPU)))
    monkeypatch.setattr("engine.model.require_shown", lambda graphs, batch_size: False)  # nothing runs here
    assert Captioner(tiny_bundle).provider == "cuda"
    runtime.runs_on = [CPU]  # no driver: ONNX Runtime drops the provider
    with pytest.warns(RuntimeWarning, match="'cuda' could not be started .* trying cpu in fp32 next") as warned:
        assert Captioner(tiny_bundle).provider == "cpu"
    assert warned[0].filename == __file__  # the caller's line
    with pytest.raises(ProviderError, match="'cuda' could not be started"):
        Captioner(tiny_bundle, provider="cuda")


def test_where_nothing_runs_auto_says_so(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRuntime()).fault = RuntimeError("bad model")
    with pytest.raises(ProviderError, match=r"'cpu' cannot run encoder.onnx: bad model"):
        Captioner(tiny_bundle)


def test_without_onnx_runtime_the_way_to_it_is_one_sentence(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ProviderError, match=r"ONNX Runtime cannot be imported .*captioning-engine\[cpu\]"):
        Captioner(tiny_bundle, provider="cpu")


# --- sessions


def test_a_session_gets_its_provider_alone_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRuntime(("CUDAExecutionProvider", CPU)))
    runtime = RuntimeOptions(threads=3, device_id=1)
    session = open_session(Path("bundle"), ENCODER, PROVIDERS["cuda"], runtime)
    assert session.providers == [("CUDAExecutionProvider", PROVIDERS["cuda"].options(runtime, ENCODER))]
    assert Path(session.path) == Path("bundle/encoder.onnx")
    assert session.settings.intra_op_num_threads == 3


def test_threads_are_counted_and_not_left_to_onnx_runtime_which_would_tie_them_to_cores(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "whole_cores", lambda: 3)
    for asked, threads in ((0, 3), (1, 1)):
        graphs = Graphs(Bundle.load(tiny_bundle), Placement.of("cpu"), "fp32", RuntimeOptions(threads=asked))
        assert graphs.session("search_step").get_session_options().intra_op_num_threads == threads
        assert graphs.session("search_step") is graphs.session("search_step")


def test_two_threads_of_one_core_are_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, siblings in enumerate(("0,4", "1,5", "2", "3", "0,4", "1,5")):
        (tmp_path / f"cpu{number}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{number}/topology/thread_siblings_list").write_text(siblings)
    monkeypatch.setattr(options, "SIBLINGS", tmp_path)
    count = options.whole_cores
    for allowed, whole in (({0, 1, 2, 3, 4, 5}, 4), ({0, 4}, 1), ({3}, 1), ({1, 2}, 2)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, allowed=allowed: allowed, raising=False)
        assert count() == whole
    monkeypatch.setattr(options, "SIBLINGS", tmp_path / "nothing")
    assert count() == options.cores() == 2


def test_what_tensorrt_refuses_runs_on_cuda(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeRuntime(TENSORRT))
    session = open_session(bundle, ENCODER, PROVIDERS["tensorrt"], RuntimeOptions(device_id=1))
    assert [name for name, _ in session.providers] == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    assert [options["device_id"] for _, options in session.providers] == ["1", "1"]


def test_nodes_that_a_device_leaves_to_the_host_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = install(monkeypatch, FakeRuntime(("CUDAExecutionProvider", CPU)))
    cuda, options = PROVIDERS["cuda"], RuntimeOptions()
    runtime.assigned = {"CUDAExecutionProvider": ["Conv", "TopK"], CPU: ["Shape"]}
    session = open_session(Path("bundle"), ENCODER, cuda, options)
    assert session.settings.entries["session.record_ep_graph_assignment_info"] == "1"
    runtime.assigned[CPU] += ["TopK", "Gather", "TopK"]
    with pytest.warns(RuntimeWarning, match="'cuda' runs Gather, TopK of encoder.onnx on the host"):
        open_session(Path("bundle"), ENCODER, cuda, options)
    runtime.assigned = {CPU: ["Gather"]}
    open_session(Path("bundle"), ENCODER, PROVIDERS["cpu"], options)  # there they belong


@pytest.mark.parametrize(
    ("version", "entries"),
    [
        ("1.24.1", {"session.intra_op.allow_spinning": "0"}),
        ("1.26.0", {"session.intra_op.spin_duration_us": "200"}),
        ("1.32.0rc1", {"session.intra_op.spin_duration_us": "200"}),
    ],
)
def test_threads_do_not_spin_on_when_a_run_is_over(
    version: str, entries: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = install(monkeypatch, FakeRuntime())
    runtime.__version__ = version
    opened = open_session(Path("bundle"), ENCODER, PROVIDERS["cpu"], RuntimeOptions())
    assert opened.settings.entries == entries


# --- plug-ins


def with_openvino(monkeypatch: pytest.MonkeyPatch, *devices: str) -> FakeRuntime:
    return install(monkeypatch, FakeRuntime(devices=devices), OPENVINO.plug_in)


def test_a_plug_in_is_registered_once_in_a_process_even_by_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = with_openvino(monkeypatch, CPU, OPENVINO.ort_name)
    together = threading.Barrier(16)

    def ask(_: int) -> tuple[Any, ...]:
        together.wait()
        return plug_in_devices(OPENVINO)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    assert runtime.registered == [(OPENVINO.ort_name, f"/lib/{OPENVINO.plug_in}.so")]
    assert {tuple(device.number for device in devices) for devices in answers} == {(1,)}
    assert available_providers() == ["cpu", "openvino"]
    assert len(runtime.registered) == 1


def test_a_plug_in_is_no_built_in_provider_once_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    with_openvino(monkeypatch, CPU, OPENVINO.ort_name)
    for _ in range(2):  # ONNX Runtime lists what was registered among what it holds
        assert is_available(OPENVINO)
        assert built_in_providers() == [CPU]
    session = open_session(Path("bundle"), ENCODER, find_provider("openvino"), RuntimeOptions())
    assert session.providers is None
    assert session.settings.added


def test_a_plug_in_that_somebody_else_registered_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = with_openvino(monkeypatch, CPU, OPENVINO.ort_name)
    runtime.register_execution_provider_library(OPENVINO.ort_name, "/elsewhere.so")
    assert is_available(OPENVINO)
    assert runtime.registered == [(OPENVINO.ort_name, "/elsewhere.so")]


def test_what_a_machine_is_called_does_not_change_when_a_plug_in_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    with_openvino(monkeypatch, CPU, OPENVINO.ort_name)
    before = installed_providers(), gpus()
    assert is_available(OPENVINO)
    assert (installed_providers(), gpus()) == before


def test_a_provider_built_into_onnx_runtime_needs_no_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = install(monkeypatch, FakeRuntime((OPENVINO.ort_name, CPU)), OPENVINO.plug_in)
    session = open_session(Path("bundle"), ENCODER, find_provider("openvino"), RuntimeOptions())
    assert session.providers == [(OPENVINO.ort_name, OPENVINO.options(RuntimeOptions(), ENCODER))]
    assert runtime.registered == []


def test_a_plug_in_without_a_device_says_that_it_is_there_and_finds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with_openvino(monkeypatch, CPU)
    assert [is_available(OPENVINO) for _ in range(3)] == [False] * 3  # also once it is registered
    with pytest.raises(ProviderError, match=r"onnxruntime_ep_openvino is installed but offers no device.*Intel"):
        find_provider("openvino")


def test_a_plug_in_that_cannot_be_loaded_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with_openvino(monkeypatch).fault = RuntimeError("libopenvino.so: no such file")
    with pytest.raises(ProviderError, match=r"plug-in of provider 'openvino' cannot be loaded: libopenvino.so"):
        find_provider("openvino")


def test_a_broken_plug_in_does_not_speak_for_another_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    with_openvino(monkeypatch).fault = RuntimeError("libopenvino.so: no such file")
    with pytest.raises(ProviderError, match="provider 'cuda' is not available here"):
        find_provider("cuda")


def test_openvino_takes_the_processor_where_the_plug_in_offers_more(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = with_openvino(monkeypatch, OPENVINO.ort_name, OPENVINO.ort_name)
    runtime.devices[0].device.type.name = "GPU"
    session = open_session(Path("bundle"), ENCODER, find_provider("openvino"), RuntimeOptions())
    ((devices, _),) = session.settings.added
    assert devices == runtime.devices[1:]

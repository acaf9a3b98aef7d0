"""Providers: one table, no silent fallback. What this machine lacks is played by a fake ONNX Runtime."""

import sys
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engine import Captioner, EngineError, ProviderError, RuntimeOptions
from engine.autotune.machine import gpus, installed_providers
from engine.bundle.checks import GRAPHS
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
from tests.engine.runtime.fake_runtime import CPU, ENCODER, OPENVINO, TENSORRT, FakeRuntime, Install

ROOT = Path(__file__).parents[3]


def test_every_provider_of_the_issue_is_in_the_table_and_its_extra_in_the_project() -> None:
    assert list(PROVIDERS) == ["cpu", "cuda", "tensorrt", "openvino", "tensorrt-rtx"]
    assert all(name == provider.name for name, provider in PROVIDERS.items())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {provider.extra for provider in PROVIDERS.values()} <= extras.keys()


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
    install: Install, name: str, encoder: str, decoder: str, shown: str
) -> None:
    install(FakeRuntime((*TENSORRT[:2], OPENVINO.ort_name, CPU)))
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


@pytest.mark.parametrize("name", ["cpu+", "cpu+gpu", "+cpu"])
def test_a_half_that_is_unknown_is_named(name: str) -> None:
    with pytest.raises(ProviderError, match=r"provider '(|gpu)' is unknown: choose auto, .* encoder\+decoder"):
        canonical(name)


def test_more_than_two_halves_are_refused() -> None:
    with pytest.raises(ProviderError, match=r"'cpu\+cuda\+cpu' has too many parts: give one, or two as"):
        canonical("cpu+cuda+cpu")


def test_both_halves_have_to_be_here(install: Install) -> None:
    install(FakeRuntime())
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
    install: Install, monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    install(FakeRuntime())
    monkeypatch.setattr("engine.runtime.providers._on_intel", lambda: True)
    with pytest.raises(ProviderError) as caught:
        find_provider(name)
    message = str(caught.value)
    assert f"provider {name!r} is not available here (available: cpu)" in message
    assert message.endswith(f"python -m pip install '.[{extra}]' in a checkout")
    assert ("pip uninstall onnxruntime " in message) == (extra == "gpu")


def test_the_plug_in_of_openvino_is_advised_on_intel_only(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(FakeRuntime())
    monkeypatch.setattr("engine.runtime.providers._on_intel", lambda: False)
    with pytest.raises(ProviderError, match="runs on Intel processors only") as caught:
        find_provider("openvino")
    assert "'.[openvino]'" not in str(caught.value)
    assert "'.[openvino-x86]'" in str(caught.value)


def test_auto_tries_cuda_first_and_takes_the_cpu_where_cuda_does_not_start(
    tiny_bundle: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = install(FakeRuntime(("TensorrtExecutionProvider", "CUDAExecutionProvider", CPU)))
    monkeypatch.setattr("engine.model.require_shown", lambda graphs, batch_size: False)  # nothing runs here
    assert Captioner(tiny_bundle).provider == "cuda"
    runtime.runs_on = [CPU]  # no driver: ONNX Runtime drops the provider
    with pytest.warns(RuntimeWarning, match="'cuda' could not be started .* trying cpu in fp32 next") as warned:
        assert Captioner(tiny_bundle).provider == "cpu"
    assert warned[0].filename == __file__  # the caller's line
    with pytest.raises(ProviderError, match="'cuda' could not be started"):
        Captioner(tiny_bundle, provider="cuda")


def test_where_nothing_runs_auto_says_so(tiny_bundle: Path, install: Install) -> None:
    install(FakeRuntime()).fault = RuntimeError("bad model")
    with pytest.raises(ProviderError, match=r"'cpu' cannot run encoder.onnx: bad model"):
        Captioner(tiny_bundle)


def test_without_onnx_runtime_the_way_to_it_is_one_sentence(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ProviderError, match=r"ONNX Runtime cannot be imported .*: run python -m pip install '.\[cpu\]'"
    ):
        Captioner(tiny_bundle, provider="cpu")


# --- plug-ins


def test_a_plug_in_is_registered_once_in_a_process_even_by_many_threads(with_openvino: Install) -> None:
    runtime = with_openvino(CPU, OPENVINO.ort_name)
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


def test_a_plug_in_is_no_built_in_provider_once_it_is_registered(with_openvino: Install) -> None:
    with_openvino(CPU, OPENVINO.ort_name)
    for _ in range(2):  # ONNX Runtime lists what was registered among what it holds
        assert is_available(OPENVINO)
        assert built_in_providers() == [CPU]
    session = open_session(Path("bundle"), ENCODER, find_provider("openvino"), RuntimeOptions())
    assert session.providers is None
    assert session.settings.added


def test_a_plug_in_that_somebody_else_registered_is_used(with_openvino: Install) -> None:
    runtime = with_openvino(CPU, OPENVINO.ort_name)
    runtime.register_execution_provider_library(OPENVINO.ort_name, "/elsewhere.so")
    assert is_available(OPENVINO)
    assert runtime.registered == [(OPENVINO.ort_name, "/elsewhere.so")]


def test_what_a_machine_is_called_does_not_change_when_a_plug_in_is_registered(with_openvino: Install) -> None:
    with_openvino(CPU, OPENVINO.ort_name)
    before = installed_providers(), gpus()
    assert is_available(OPENVINO)
    assert (installed_providers(), gpus()) == before


def test_a_provider_built_into_onnx_runtime_needs_no_plug_in(install: Install) -> None:
    runtime = install(FakeRuntime((OPENVINO.ort_name, CPU)), OPENVINO.plug_in)
    session = open_session(Path("bundle"), ENCODER, find_provider("openvino"), RuntimeOptions())
    assert session.providers == [(OPENVINO.ort_name, OPENVINO.options(RuntimeOptions(), ENCODER))]
    assert runtime.registered == []


def test_a_plug_in_without_a_device_says_that_it_is_there_and_finds_none(
    with_openvino: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_openvino(CPU)
    monkeypatch.setattr("engine.runtime.providers._on_intel", lambda: True)
    assert [is_available(OPENVINO) for _ in range(3)] == [False] * 3  # also once it is registered
    with pytest.raises(ProviderError, match=r"onnxruntime_ep_openvino is installed but offers no device on this"):
        find_provider("openvino")


def test_a_plug_in_that_cannot_be_loaded_says_why(with_openvino: Install) -> None:
    with_openvino().fault = RuntimeError("libopenvino.so: no such file")
    with pytest.raises(ProviderError, match=r"plug-in of provider 'openvino' cannot be loaded: libopenvino.so"):
        find_provider("openvino")


def test_a_broken_plug_in_does_not_speak_for_another_provider(with_openvino: Install) -> None:
    with_openvino().fault = RuntimeError("libopenvino.so: no such file")
    with pytest.raises(ProviderError, match="provider 'cuda' is not available here"):
        find_provider("cuda")


def test_openvino_takes_the_processor_where_the_plug_in_offers_more(with_openvino: Install) -> None:
    runtime = with_openvino(OPENVINO.ort_name, OPENVINO.ort_name)
    runtime.devices[0].device.type.name = "GPU"
    session = open_session(Path("bundle"), ENCODER, find_provider("openvino"), RuntimeOptions())
    ((devices, _),) = session.settings.added
    assert devices == runtime.devices[1:]

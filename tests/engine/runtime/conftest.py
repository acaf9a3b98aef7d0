"""A fake ONNX Runtime in the real one's place."""

import functools
import sys
import time
import types
from typing import Any

import pytest

from engine.runtime import providers
from engine.runtime.providers import PROVIDERS
from tests.engine.runtime.fake_runtime import OPENVINO, FakeRuntime, Install


def slow_path(path: str) -> str:
    """Returns the path of a library after long enough for a second thread to ask too."""
    time.sleep(0.02)
    return path


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """install(runtime, plug_in) puts a fake ONNX Runtime in the real one's place; at most this plug-in is installed."""

    def install(runtime: FakeRuntime, plug_in: str | None = None) -> FakeRuntime:
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

    return install


@pytest.fixture
def with_openvino(install: Install) -> Install:
    """with_openvino(*devices) installs OpenVINO's plug-in."""
    return lambda *devices: install(FakeRuntime(devices=devices), OPENVINO.plug_in)

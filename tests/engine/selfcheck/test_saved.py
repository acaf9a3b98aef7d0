"""What passed is saved, for exactly the hardware, versions and options that it passed with."""

import json
from pathlib import Path

import pytest

from engine import RuntimeOptions
from engine.autotune.machine import runtime_facts
from engine.bundle.bundle import Bundle
from engine.cache import forget
from engine.runtime.graphs import Graphs
from engine.runtime.placement import Placement
from engine.runtime.providers import PROVIDERS
from engine.selfcheck import verify
from engine.selfcheck.verify import require_shown


def opened(bundle: Path) -> Graphs:
    return Graphs(Bundle.load(bundle), Placement.of("openvino"), "fp32", RuntimeOptions())


def test_the_version_of_a_plug_in_that_is_installed_is_known() -> None:
    pytest.importorskip("onnxruntime_ep_openvino", reason="no plug-in is installed")
    facts = runtime_facts([PROVIDERS["openvino"]], 0)
    assert facts["plug_ins"]["openvino"].count(".") >= 1
    assert facts["code"]


@pytest.mark.usefixtures("other")
def test_what_was_shown_is_not_shown_again(tiny_bundle: Path, runs: list[str], cache: Path) -> None:
    for _ in range(3):
        require_shown(opened(tiny_bundle))
    assert runs == ["openvino+cpu"]
    (file,) = (cache / "checks").iterdir()
    kept = json.loads(file.read_text())
    assert {each["graph"] for each in kept["differences"]} >= {"encoder", "search_step"}


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("changed", ["instructions", "processor"])
def test_other_hardware_is_shown_anew(
    tiny_bundle: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    require_shown(opened(tiny_bundle))
    monkeypatch.setattr(f"engine.autotune.machine.{changed}", lambda: "another")
    require_shown(opened(tiny_bundle))
    assert len(runs) == 2


@pytest.mark.usefixtures("other")
def test_options_that_decide_what_is_computed_are_shown_anew_and_others_not(tiny_bundle: Path, runs: list[str]) -> None:
    bundle, there = Bundle.load(tiny_bundle), Placement.of("openvino")
    for options in (RuntimeOptions(), RuntimeOptions(threads=1), RuntimeOptions(tf32=True), RuntimeOptions(fp16=True)):
        require_shown(Graphs(bundle, there, "fp32", options))
    assert len(runs) == 3


@pytest.mark.usefixtures("other")
def test_where_nothing_can_be_kept_it_is_shown_each_time(
    tiny_bundle: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CAPTIONING_ENGINE_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match=r"openvino\+cpu in fp32 cannot be saved: .* CAPTIONING_ENGINE_"):
            require_shown(opened(tiny_bundle))
    assert len(runs) == 2


@pytest.mark.usefixtures("other")
def test_forgetting_takes_what_was_shown_of_one_bundle(tiny_bundle: Path, runs: list[str]) -> None:
    require_shown(opened(tiny_bundle))
    assert forget(verify.KIND, Bundle.load(None).path) == 0
    assert forget(verify.KIND, tiny_bundle) == 1
    require_shown(opened(tiny_bundle))
    assert len(runs) == 2

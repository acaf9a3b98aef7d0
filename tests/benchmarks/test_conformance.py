"""Every provider that is here keeps every law, in every precision and with every kind of decoder."""

import numpy as np
import pytest

from benchmarks.conformance.__main__ import main
from benchmarks.conformance.case import BATCH, Case
from benchmarks.conformance.laws import LAWS, Law, check_laws
from engine import Captioner
from engine.bundle.bundle import Bundle
from engine.runtime.placement import canonical
from engine.runtime.providers import PROVIDERS, is_available

PLACEMENTS = dict.fromkeys(map(canonical, (*PROVIDERS, *(f"{name}+cpu" for name in PROVIDERS), "cpu+cuda")))
KINDS = {"shipped": Bundle.load().precisions, "attention": ("int8", "fp16"), "counting": ("fp32",)}
WAYS = [
    (name, kind, precision) for kind, precisions in KINDS.items() for precision in precisions for name in PLACEMENTS
]


@pytest.fixture(scope="module", params=WAYS, ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    provider, kind, precision = request.param
    if missing := [name for name in provider.split("+") if not is_available(PROVIDERS[name])]:
        pytest.skip(f"provider {missing[0]} is not available on this machine")
    bundle = None if kind == "shipped" else request.getfixturevalue(f"{kind}_bundle")
    return Case(Captioner(bundle, provider=provider, precision=precision, batch_size=BATCH))


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())
def test_law(case: Case, law: Law) -> None:
    law(case)


def test_a_broken_law_is_told_with_its_reason(tiny_captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Captioner.encode
    monkeypatch.setattr(Captioner, "encode", lambda self, batch: encode(self, batch) * np.float32(1.1))
    faults = {verdict.law: verdict.fault for verdict in check_laws(tiny_captioner)}
    assert faults["features are those of plain session run"] == "features are off by 0.1"
    assert faults["greedy is plain greedy"] == ""


def test_the_command_ends_with_1_for_a_broken_law_and_with_2_for_a_provider_that_does_not_open(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(case: Case) -> None:
        raise ValueError("a reason")

    monkeypatch.setattr("benchmarks.conformance.laws.LAWS", {"nothing is kept": fail})
    assert main([]) == 1
    assert capsys.readouterr().out == "cpu fp32: nothing is kept: a reason\n"
    monkeypatch.setattr("benchmarks.conformance.laws.LAWS", {"all is kept": lambda case: None})
    assert main(["--precision", "fp32", "int8"]) == 0
    assert main(["--provider", "cpu+openvino"]) == 2
    assert "can only run encoders" in capsys.readouterr().err

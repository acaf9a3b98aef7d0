"""What "auto" takes, on manifests and machines made up for each law."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import BundleError, Captioner, OptionsError, ProviderError, RuntimeOptions
from engine.autotune.cache_file import Measurements, Timing, save
from engine.autotune.select import AS_EXACT, Choice, Machine, Request, open_first, refused, select
from engine.bundle.bundle import Bundle
from engine.bundle.manifest import Defaults, GraphFile, ImageSpec, Manifest, Variant
from engine.bundle.vocabulary import RULES

GOOD = Machine(("cuda", "cpu"), None, True)
SEVEN_BITS = {"weight_bits": 7}


def bundle(**variants: Variant) -> Bundle:
    """A bundle with fp32 and the given precisions."""
    graphs = tuple(
        GraphFile("encoder", precision, f"{precision}.onnx", "", (), (), ())
        for precision in dict.fromkeys(("fp32", *variants))
    )
    spec = ImageSpec(4, 5, (0, 0, 0), (1, 1, 1))
    manifest = Manifest("tiny", "lite", (8,), (), (), (), 0, 9, RULES, spec, Defaults(), graphs, {}, variants)
    nothing: Any = None
    return Bundle(Path("tiny"), manifest, nothing)


def variant(cider: float | None = 0.5, record: dict[str, Any] | None = None, **speeds: float) -> Variant:
    return Variant(cider, speeds, record or {})


def measured(*timings: Timing) -> Machine:
    return replace(GOOD, measurements=Measurements("2026-11-22", timings, tried=("cpu", "cuda", "openvino")))


def tried(bundle: Bundle, machine: Machine = GOOD, **asked: Any) -> list[tuple[str, str, int]]:
    choices = [choice for choice in select(bundle, Request(**asked), machine) if choice.why != AS_EXACT]
    return [(choice.provider, choice.precision, choice.runtime.threads) for choice in choices]


# --- the documented order


def test_without_a_measurement_auto_is_cuda_then_cpu_in_fp32() -> None:
    assert tried(bundle(int8=variant())) == [("cuda", "fp32", 0), ("cpu", "fp32", 0)]
    assert tried(bundle(), Machine(("cpu",))) == [("cpu", "fp32", 0)]
    assert [choice.why for choice in select(bundle(), Request(), GOOD)] == ["default order"] * 2


def test_each_provider_gets_the_precision_that_the_bundle_calls_fastest_on_it() -> None:
    several = bundle(
        fp32=variant(cpu=90, cuda=900), int8=variant(0.4951, cpu=200, cuda=100), fp16=variant(cpu=80, cuda=1500)
    )
    assert tried(several) == [("cuda", "fp16", 0), ("cpu", "int8", 0)]
    assert tried(several, provider="cpu") == [("cpu", "int8", 0)]


@pytest.mark.parametrize("exact", [0.5, 0.494, 0.4715, 0.1])
def test_a_precision_may_cost_0_005_cider_to_the_digit(exact: float) -> None:
    just, more = variant(round(exact - 0.005, 4), cpu=200), variant(round(exact - 0.0051, 4), cpu=200)
    assert tried(bundle(fp32=variant(exact, cpu=90), int8=just), provider="cpu")[0][1] == "int8"
    assert tried(bundle(fp32=variant(exact, cpu=90), int8=more), provider="cpu")[0][1] == "fp32"


def test_a_precision_that_costs_more_than_0_005_cider_is_never_auto() -> None:
    fastest = measured(Timing("cpu", "int8", 0, 0.001, 0.001), Timing("cpu", "fp32", 0, 0.01, 0.01))
    assert tried(bundle(fp32=variant(), int8=variant(0.4949)), fastest)[0] == ("cpu", "fp32", 0)


@pytest.mark.parametrize(
    "variants",
    [
        {"int8": variant(cpu=200)},
        {"fp32": variant(), "int8": variant(cpu=200)},
        {"fp32": variant(cpu=90), "int8": variant(None, cpu=200)},
        {"fp32": variant(None, cpu=90), "int8": variant(cpu=200)},
        {"fp32": variant(cpu=90), "int8": variant(cuda=200)},
        {"fp32": variant(cpu=90), "int8": variant(float("nan"), cpu=200)},
    ],
    ids=["fp32 not described", "fp32 not timed", "no CIDEr", "no CIDEr of fp32", "timed elsewhere", "CIDEr is NaN"],
)
def test_what_was_not_measured_is_fp32(variants: dict[str, Variant]) -> None:
    assert tried(bundle(**variants), provider="cpu") == [("cpu", "fp32", 0)]


# --- the processor


def test_8_bit_weights_are_not_for_auto_where_the_processor_overflows_them() -> None:
    quick = bundle(fp32=variant(cpu=90), int8=variant(cpu=200))
    assert [tried(quick, replace(GOOD, vnni=vnni), provider="cpu")[0][1] for vnni in (True, None, False)] == [
        "int8",
        "fp32",
        "fp32",
    ]
    for record in ({}, {"weight_bits": 8}, {"weight_bits": "few"}, {"weight_bits": None}):
        said = bundle(fp32=variant(cpu=90), int8=variant(record=record, cpu=200))
        assert tried(said, replace(GOOD, vnni=False), provider="cpu")[0][1] == "fp32"
    seven = bundle(fp32=variant(cpu=90), int8=variant(record=SEVEN_BITS, cpu=200))
    assert [tried(seven, replace(GOOD, vnni=vnni), provider="cpu")[0][1] for vnni in (True, None, False)] == [
        "int8"
    ] * 3


def test_a_comparison_on_the_machine_answers_for_an_unknown_processor_but_not_for_one_known_to_overflow() -> None:
    manifest = bundle(fp32=variant(), int8=variant()).manifest
    assert refused(manifest, "int8", None, measured=True) == ""
    assert "might overflow" in refused(manifest, "int8", None)
    assert "lacks VNNI" in refused(manifest, "int8", False, measured=True)
    assert refused(manifest, "fp32", False) == ""


# --- what was measured


FP32, INT8 = Timing("cpu", "fp32", 0, 0.020, 0.010), Timing("cpu", "int8", 1, 0.012, 0.009)
INT8_2 = Timing("cpu", "int8", 0, 0.010, 0.009_5)
OPENVINO = Timing("openvino", "int8", 0, 0.011, 0.004)
TWO = bundle(fp32=variant(), int8=variant())


def test_the_fastest_that_was_measured_wins_for_one_image_and_for_many_each() -> None:
    machine = measured(FP32, INT8, INT8_2, OPENVINO)
    assert tried(TWO, machine, batch_size=32)[:2] == [("openvino", "int8", 0), ("cpu", "int8", 1)]
    assert tried(TWO, machine, batch_size=8)[0] == ("openvino", "int8", 0)
    assert tried(TWO, machine, batch_size=7)[:2] == [("cpu", "int8", 0), ("openvino", "int8", 0)]
    assert [select(TWO, Request(batch_size=n), machine)[0].why for n in (1, 8)] == [
        "tuned on 2026-11-22 for one image",
        "tuned on 2026-11-22 for many images at once",
    ]


def test_providers_that_were_not_measured_come_after_those_that_were() -> None:
    assert tried(TWO, measured(FP32, OPENVINO)) == [("openvino", "int8", 0), ("cpu", "fp32", 0), ("cuda", "fp32", 0)]


def test_a_provider_that_nobody_tried_keeps_its_place_in_the_documented_order() -> None:
    machine = replace(GOOD, measurements=Measurements("2026-11-22", (INT8,), tried=("cpu",)))
    assert tried(TWO, machine)[0] == ("cuda", "fp32", 0)
    assert tried(TWO, machine, provider="cpu") == [("cpu", "int8", 1)]


def test_behind_all_choices_comes_fp32_on_each_provider_unless_a_precision_was_asked_for() -> None:
    several = bundle(fp32=variant(cpu=90, cuda=900), int8=variant(cpu=200, cuda=1500))
    assert [(c.provider, c.precision) for c in select(several, Request(), GOOD)] == [
        ("cuda", "int8"),
        ("cpu", "int8"),
        ("cuda", "fp32"),
        ("cpu", "fp32"),
    ]
    alone = select(several, Request(provider="cpu"), measured(FP32, INT8))
    assert [(c.provider, c.precision) for c in alone] == [("cpu", "int8"), ("cpu", "fp32")]
    assert [c.precision for c in select(several, Request(precision="int8"), GOOD)] == ["int8", "int8"]
    assert len(select(bundle(), Request(), GOOD)) == 2


def test_what_is_asked_for_by_name_wins_over_what_was_measured() -> None:
    machine = measured(FP32, INT8, INT8_2, OPENVINO)
    assert tried(TWO, machine, provider="cpu") == [("cpu", "int8", 1)]
    assert tried(TWO, machine, precision="fp32") == [("cpu", "fp32", 0), ("cuda", "fp32", 0)]
    assert tried(TWO, machine, provider="cuda") == [("cuda", "fp32", 0)]
    assert tried(TWO, machine, provider="openvino", precision="fp32") == [("openvino+cpu", "fp32", 0)]
    assert tried(TWO, machine, provider="cpu", runtime=RuntimeOptions(threads=3)) == [("cpu", "int8", 3)]
    assert select(TWO, Request(provider="cpu", precision="fp32"), machine)[0].why == "asked for"


def test_a_precision_that_is_not_for_auto_runs_where_it_is_asked_for() -> None:
    poor = bundle(fp32=variant(), int8=variant(0.1))
    assert tried(poor, measured(FP32, OPENVINO), precision="int8")[0] == ("openvino", "int8", 0)


def test_the_other_runtime_options_stay() -> None:
    runtime = RuntimeOptions(device_id=3)
    (choice, *_) = select(TWO, Request(runtime=runtime), measured(INT8))
    assert choice.runtime == replace(runtime, threads=1)


@pytest.mark.parametrize("provider", ["auto", "cpu", "abacus"])
def test_an_unknown_precision_is_refused_with_those_there_are(provider: str) -> None:
    with pytest.raises(BundleError, match="no precision 'int4': choose auto, fp32, int8"):
        select(TWO, Request(provider=provider, precision="int4"), GOOD)


# --- trying


def choice(provider: str) -> Choice:
    return Choice(provider, "fp32", RuntimeOptions(), "")


def start(choice: Choice) -> str:
    if choice.provider.startswith("broken"):
        raise ProviderError(f"provider {choice.provider!r} has no driver")
    return choice.provider


def test_a_choice_that_does_not_start_is_told_and_the_next_tried() -> None:
    with pytest.warns(RuntimeWarning) as warned:
        found = open_first([choice("broken 1"), choice("broken 2"), choice("cpu"), choice("never tried")], start)
    assert found == (choice("cpu"), "cpu")
    assert [str(warning.message) for warning in warned] == [
        "provider 'broken 1' has no driver; trying broken 2 in fp32 next",
        "provider 'broken 2' has no driver; trying cpu in fp32 next",
    ]


def test_the_last_that_does_not_start_is_the_error() -> None:
    with pytest.raises(ProviderError, match="'broken' has no driver"):
        open_first([choice("broken")], start)
    with pytest.raises(ProviderError, match="no provider is available"):
        open_first([], start)


# --- the Captioner


@pytest.fixture
def tuned(tiny_bundle: Path, cache: Path) -> Path:
    """The tiny bundle on a machine where one thread was measured to be best for batches."""
    timings = (Timing("cpu", "fp32", 0, 0.001, 0.002), Timing("cpu", "fp32", 1, 0.002, 0.001))
    save(Bundle.load(tiny_bundle), Measurements("2026-11-22", timings))
    return tiny_bundle


def test_a_captioner_on_auto_takes_what_was_measured(tuned: Path) -> None:
    captioner = Captioner(tuned)
    assert (captioner.provider, captioner.precision) == ("cpu", "fp32")
    assert captioner.choice.runtime.threads == 1
    assert captioner.choice.why == "tuned on 2026-11-22 for many images at once"
    assert Captioner(tuned, batch_size=1).choice.runtime.threads == 0
    assert Captioner(tuned, provider="cpu").choice.runtime.threads == 1
    assert Captioner(tuned, runtime=RuntimeOptions(threads=2)).choice.runtime.threads == 2


def test_a_captioner_that_is_told_everything_asks_no_measurement(tuned: Path, cache: Path) -> None:
    (file,) = (cache / "tuning").iterdir()
    file.write_text("corrupt")  # would be warned of
    captioner = Captioner(tuned, provider="cpu", precision="fp32")
    assert captioner.choice.runtime == RuntimeOptions()
    assert captioner.choice.why == "asked for"


def test_a_captioner_of_a_machine_never_measured_follows_the_order(tiny_bundle: Path) -> None:
    assert Captioner(tiny_bundle).choice.why == "default order"
    with pytest.raises(BundleError, match="no precision 'int4': choose auto, fp32"):
        Captioner(tiny_bundle, precision="int4")
    with pytest.raises(OptionsError, match="batch_size"):
        Captioner(tiny_bundle, batch_size=0)

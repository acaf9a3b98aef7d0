"""Tuning, on captioners that take no time but say how much they took; once on a real one."""

import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from engine import Captioner, EngineError, ProviderError, RuntimeOptions
from engine.autotune import cache_file, measure
from engine.autotune.cache_file import Measurements, Timing
from engine.autotune.measure import NO_TIME, Budget, Entry, Tuning, Way, tune, ways
from engine.autotune.select import Request, select
from engine.bundle.bundle import Bundle
from engine.bundle.manifest import Defaults, Variant
from engine.cli import main
from engine.commands.tune import _to_keep
from engine.images.synthetic import draw_photographs

FIRST = Way("cpu", "fp32", 0)
ONE, INT8, HALF, OPENVINO = (
    Way("cpu", "fp32", 1),
    Way("cpu", "int8", 0),
    Way("cpu", "fp16", 0),
    Way("openvino", "int8", 0),
)
BATCH = 32


class Clock:
    """Seconds that pass only when a fake says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """A captioner that takes `alone` seconds for one image and `each` for each of a batch, and `start` to start."""

    def __init__(self, alone: float = 0.02, each: float = 0.01) -> None:
        self.alone, self.each, self.start = alone, each, 0.5
        self.fault: Exception | None = None
        self.clock = Clock()
        self.sizes: list[int] = []

    def caption(self, batch: Sequence[bytes], decoding: Any) -> list[Any]:
        if self.fault:
            raise self.fault
        self.sizes.append(len(batch))
        self.clock.now += self.alone if len(batch) == 1 else self.each * len(batch)
        return []


def a_bundle(**variants: Variant) -> Bundle:
    manifest: Any = SimpleNamespace(defaults=Defaults(), variants={"fp32": Variant(0.5), **variants})
    return cast(Bundle, SimpleNamespace(manifest=manifest, precisions=("fp32", *variants), path=Path("tiny")))


BUNDLE = a_bundle(int8=Variant(0.5, record={"weight_bits": 7}), fp16=Variant(0.5))


def race(fakes: dict[Way, Fake], seconds: float = 50, bundle: Bundle = BUNDLE) -> tuple[Tuning, float]:
    """Returns what tuning found among the fakes, the first being the reference, and the seconds that went by."""
    clock = Clock()

    def start(way: Way) -> Any:
        fake = fakes[way]
        fake.clock = clock
        clock.now += fake.start
        if isinstance(fake.fault, ProviderError):
            raise fake.fault
        return fake

    found = tune(bundle, list(fakes), Budget(seconds, start, clock=clock))
    return found, clock.now - 1000


def faults(found: Tuning) -> dict[Way, str]:
    return {entry.way: entry.error for entry in found.entries if entry.error}


@pytest.fixture(autouse=True)
def with_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "has_vnni", lambda: True)


# --- who wins


def test_the_fastest_wins_for_one_image_and_for_many_each() -> None:
    found, _ = race({FIRST: Fake(), ONE: Fake(0.03, 0.008), INT8: Fake(0.01, 0.009), HALF: Fake(0.03, 0.02)})
    assert found.images == BATCH
    assert found.best(1).way == INT8
    assert found.best(BATCH).way == ONE
    assert found.best(1).mean(1) == pytest.approx(0.01)
    assert found.best(BATCH).mean(BATCH) == pytest.approx(0.008)
    assert not faults(found)


def test_what_auto_may_not_take_is_measured_and_never_best() -> None:
    found, _ = race({FIRST: Fake(), INT8: Fake(0.001, 0.001)}, bundle=a_bundle(int8=Variant(0.4)))
    assert found.best(1).way == found.best(BATCH).way == FIRST
    assert found.entries[1].refused == "its CIDEr is 0.100 below fp32's"
    assert found.entries[1].mean(1) == pytest.approx(0.001)


def test_a_slow_moment_of_the_machine_does_not_decide() -> None:
    class Disturbed(Fake):
        def caption(self, batch: Sequence[bytes], decoding: Any) -> list[Any]:
            if len(self.sizes) in (20, 21, 22):
                self.clock.now += 5
            return super().caption(batch, decoding)

    found, _ = race({FIRST: Fake(), INT8: Disturbed(0.01, 0.005), HALF: Fake(0.011, 0.006)})
    assert found.best(1).way == found.best(BATCH).way == INT8


def test_those_far_from_the_best_run_once_and_those_close_to_it_in_turns() -> None:
    fakes = {FIRST: Fake(), ONE: Fake(0.004, 0.003), INT8: Fake(0.005, 0.003), HALF: Fake(0.015, 0.009)}
    found, _ = race(fakes)
    times = {entry.way: len(entry.samples[BATCH, 0]) for entry in found.entries}
    assert times[HALF] == 1
    assert times[FIRST] == times[ONE] == times[INT8] == measure.ROUNDS


# --- the budget


@pytest.mark.parametrize("seconds", [8, 20, 50])
@pytest.mark.parametrize("seed", range(5))
def test_the_budget_is_kept(seed: int, seconds: float) -> None:
    generator = np.random.default_rng(seed)
    speeds = generator.uniform(0.3, 1.5, (30, 2))
    fakes = {FIRST: Fake()} | {
        Way("cpu", "int8", i + 1): Fake(0.02 * a, 0.01 * b) for i, (a, b) in enumerate(speeds.tolist())
    }
    found, spent = race(fakes, seconds)
    assert spent <= seconds
    assert found.seconds == spent
    assert spent > 0.5 * seconds
    assert found.best(1).way
    if seconds == 8:
        assert any("no time was left" in fault for fault in faults(found).values())


def test_a_way_that_is_far_too_slow_is_given_up_within_the_budget() -> None:
    found, spent = race({FIRST: Fake(), INT8: Fake(0.8, 0.8), HALF: Fake(0.01, 0.005)}, 40)
    assert spent <= 40
    assert "too slow" in faults(found)[INT8]
    assert found.best(1).way == FIRST or not faults(found).get(HALF)


def test_a_slow_machine_is_measured_on_smaller_batches() -> None:
    found, spent = race({FIRST: Fake(0.3, 0.2), INT8: Fake(0.2, 0.1)})
    assert found.images == measure.FEWER
    assert found.best(found.images).way == INT8
    assert spent <= 50


def test_progress_rises_to_the_seconds_it_took() -> None:
    clock, seen = Clock(), list[float]()
    fake: Any = Fake()
    fake.clock = clock
    found = tune(BUNDLE, [FIRST, ONE], Budget(50, lambda way: fake, seen.append, clock))
    assert seen == sorted(seen)
    assert seen[-1] == found.seconds
    assert len(set(seen)) > measure.ROUNDS


# --- who takes part


def test_a_way_that_does_not_start_or_breaks_is_shown_and_not_fatal() -> None:
    absent, broken = Fake(), Fake()
    absent.fault, broken.fault = ProviderError("provider 'openvino'\n has no device"), RuntimeError()
    found, _ = race({FIRST: Fake(), OPENVINO: absent, HALF: broken, INT8: Fake(0.01, 0.005)})
    assert faults(found) == {OPENVINO: "provider 'openvino' has no device", HALF: "RuntimeError"}
    assert found.best(1).way == INT8


def test_what_cannot_be_compared_with_the_first_way_is_an_error() -> None:
    fake = Fake()
    fake.fault = ProviderError("no cpu")
    with pytest.raises(ProviderError, match="no cpu"):
        race({FIRST: fake, ONE: Fake()})


def test_every_provider_runs_in_every_precision_and_on_halves_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "cores", lambda: 6)
    monkeypatch.setattr(measure, "available_providers", lambda: ["cpu", "cuda", "tensorrt", "openvino"])
    found = ways(BUNDLE)
    assert found[0] == FIRST
    assert len(found) == len(set(found)) == 3 * (3 + 2 + 3)
    assert Counter(way.threads for way in found) == {0: 12, 3: 6, 1: 6}
    assert {way.provider for way in found} == {"cpu", "cuda", "cuda+cpu", "openvino+cpu"}
    assert {way.threads for way in found if way.provider.startswith("cuda")} == {0}
    named = ways(BUNDLE, ["tensorrt"])
    assert named == [FIRST, *(Way("tensorrt+cuda", precision, 0) for precision in BUNDLE.precisions)]


# --- the photographs


def test_photographs_are_of_a_cameras_size_and_weight_and_the_same_each_time() -> None:
    photographs = draw_photographs(4)
    assert photographs == draw_photographs(4)
    assert photographs != draw_photographs(4, seed=1)
    assert len(set(photographs)) == 4
    assert all(40_000 < len(photograph) < 120_000 for photograph in photographs)
    for photograph in photographs:
        image = Image.open(io.BytesIO(photograph))
        assert (image.format, image.size, image.mode) == ("JPEG", (640, 480), "RGB")


# --- the command


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CAPTIONING_ENGINE_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Makes `tune` find four ways without measuring; returns what it was called with."""
    asked: list[Any] = []

    def found(bundle: Bundle, candidates: Sequence[Way], budget: Budget) -> Tuning:
        asked.append((list(candidates), budget))
        fakes = {FIRST: Fake(), ONE: Fake(0.01, 0.008), INT8: Fake(0.02, 0.005), OPENVINO: Fake()}
        fakes[OPENVINO].fault = ProviderError("it has no device")
        return race(fakes, bundle=a_bundle(int8=Variant(0.4)))[0]

    monkeypatch.setattr("engine.commands.tune.tune", found)
    return asked


def test_the_command_prints_a_table_with_the_best_marked_and_keeps_the_answer(
    tiny_bundle: Path, cache: Path, made_up: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "--bundle", str(tiny_bundle), "--seconds", "30"]) == 0
    out, err = capsys.readouterr()
    head, *rows, units, last = out.splitlines()
    assert " ".join(head.split()) == "provider precision threads one image speed-up a batch of 32 speed-up"
    assert [" ".join(row.split()) for row in rows] == [
        "cpu int8 default 20.0 ms 1.00x 5.0 ms 2.00x not for auto: its CIDEr is 0.100 below fp32's",
        "cpu fp32 1 10.0 ms 2.00x 8.0 ms 1.25x <- auto for one image and batches",
        "cpu fp32 default 20.0 ms 1.00x 10.0 ms 1.00x",
        "openvino int8 default left out: it has no device",
    ]
    (file,) = (cache / "tuning").iterdir()
    assert units.endswith("speed-up over cpu fp32.")
    assert last.endswith(f"seconds and saved in {file}")
    assert err == ""
    assert made_up[0][1].seconds == 30
    kept = cache_file.load(Bundle.load(tiny_bundle))
    assert kept is not None
    assert {(t.precision, t.threads) for t in kept.timings} == {("fp32", 0), ("fp32", 1), ("int8", 0)}
    assert Captioner(tiny_bundle).choice.runtime.threads == 1
    assert main(["info", "--bundle", str(tiny_bundle)]) == 0
    told = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert told["threads"] == "1"
    assert told["chosen"] == f"tuned on {kept.date} for many images at once"


def test_json_is_one_object_with_every_way_and_the_two_answers(
    tiny_bundle: Path, cache: Path, made_up: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "--bundle", str(tiny_bundle), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["ways"]) == 4
    assert facts["batches"] == facts["one_image"] == facts["ways"][1]
    assert facts["ways"][1]["threads"] == 1
    assert facts["ways"][1]["seconds_an_image"].keys() == {
        f"{decoding}, {images} at once" for decoding in ("greedy", "beam") for images in (1, 32)
    }
    assert facts["ways"][2]["not_for_auto"] == "its CIDEr is 0.100 below fp32's"
    assert facts["ways"][3]["left_out"] == "it has no device"
    assert Path(facts["kept"]).is_relative_to(cache)


def test_clear_forgets_and_measures_nothing(
    tiny_bundle: Path, cache: Path, made_up: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tune", "--bundle", str(tiny_bundle)]
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--clear"]) == 0
    assert main([*command, "--clear"]) == 0
    assert capsys.readouterr().out == "saved results deleted: 1\nsaved results deleted: 0\n"
    assert len(made_up) == 1
    assert Captioner(tiny_bundle).choice.why == "default order"


def test_an_interrupt_leaves_the_answer_there_was(
    tiny_bundle: Path, cache: Path, made_up: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    command = ["tune", "--bundle", str(tiny_bundle)]
    assert main(command) == 0
    (file,) = (cache / "tuning").iterdir()
    before = file.read_bytes()

    def interrupt(bundle: Bundle, candidates: Sequence[Way], budget: Budget) -> Tuning:
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.commands.tune.tune", interrupt)
    assert main(command) == 130
    assert capsys.readouterr().err == "interrupted: nothing was saved; earlier results are unchanged\n"
    assert file.read_bytes() == before
    assert list((cache / "tuning").iterdir()) == [file]


def test_a_folder_that_cannot_be_written_is_told_after_the_table(
    tiny_bundle: Path, cache: Path, made_up: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (cache / "file").touch()
    monkeypatch.setenv("CAPTIONING_ENGINE_CACHE", str(cache / "file"))
    assert main(["tune", "--bundle", str(tiny_bundle)]) == 2
    out, err = capsys.readouterr()
    assert "<- auto for" in out
    assert err.startswith("error: the results cannot be saved: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--provider", "cpu,abacus"], "provider 'abacus' is unknown"),
        (["--bundle", "nowhere"], "nowhere is not a bundle"),
    ],
)
def test_wrong_usage_is_one_sentence(
    arguments: list[str], sentence: str, cache: Path, made_up: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert sentence in err
    assert not made_up


def test_each_way_is_made_as_it_says(tiny_bundle: Path, cache: Path, made_up: list[Any]) -> None:
    made: list[Any] = []
    factory: Callable[..., Any] = lambda bundle, **options: made.append((bundle, options))  # noqa: E731
    assert main(["tune", "--bundle", str(tiny_bundle)], factory) == 0
    (_, budget) = made_up[0]
    budget.start(Way("openvino", "int8", 3))
    options = {"provider": "openvino", "precision": "int8", "runtime": RuntimeOptions(threads=3)}
    assert made == [(tiny_bundle, options)]


def test_a_real_tuning_measures_the_tiny_bundle_and_auto_takes_its_answer(
    tiny_bundle: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "--bundle", str(tiny_bundle), "--provider", "cpu", "--seconds", "4", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    bundle = Bundle.load(tiny_bundle)
    for images, batch_size in (("one_image", 1), ("batches", 32)):
        choice = select(bundle, Request(batch_size=batch_size))[0]
        assert (choice.provider, choice.precision) == ("cpu", "fp32")
        assert choice.runtime.threads == facts[images]["threads"]
        assert choice.why.startswith("tuned on ")


def test_an_engine_error_on_the_way_leaves_nothing(tiny_bundle: Path, cache: Path) -> None:
    def missing(*_: object, **__: object) -> Any:
        raise EngineError("no runtime")

    assert main(["tune", "--bundle", str(tiny_bundle)], missing) == 2
    assert list(cache.iterdir()) == []


def test_half_an_answer_is_not_kept_and_another_provider_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    timings = Timing("cuda", "fp32", 0, 1.0, 1.0), Timing("cpu", "fp32", 0, 9.0, 9.0)
    earlier = Measurements("2026-01-01", timings, ("cpu", "cuda"))
    monkeypatch.setattr("engine.commands.tune.cache_file.load", lambda bundle: earlier)
    first = Entry(Way("cpu", "fp32", 0), samples={(images, i): [2.0] for images in (1, 8) for i in range(2)})
    late = Entry(Way("cpu", "int8", 0), error=NO_TIME)
    with pytest.raises(EngineError, match="no time was left for cpu int8"):
        _to_keep(BUNDLE, Tuning(entries=(first, late), images=8, seconds=1), "2026-11-22")
    late.way = Way("cpu", "int8", 1)  # a variation of threads may be left out
    answer = _to_keep(BUNDLE, Tuning(entries=(first, late), images=8, seconds=1), "2026-11-22")
    assert {(timing.provider, timing.latency) for timing in answer.timings} == {("cuda", 1.0), ("cpu", 2.0)}
    assert answer.tried == ("cpu", "cuda")

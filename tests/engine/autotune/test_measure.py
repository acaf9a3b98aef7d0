"""Tuning, on captioners that take no time but say how much they took."""

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import ProviderError
from engine.autotune import measure
from engine.autotune.measure import Budget, Tuning, Way, tune, ways
from engine.bundle.manifest import Variant
from engine.images.synthetic import draw_photographs
from tests.engine.autotune.fakes import BUNDLE, FIRST, HALF, INT8, ONE, OPENVINO, Clock, Fake, a_bundle, race

BATCH = 32


def faults(found: Tuning) -> dict[Way, str]:
    return {entry.way: entry.error for entry in found.entries if entry.error}


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


def test_photographs_are_of_a_cameras_size_and_weight_and_the_same_each_time() -> None:
    photographs = draw_photographs(4)
    assert photographs == draw_photographs(4)
    assert photographs != draw_photographs(4, seed=1)
    assert len(set(photographs)) == 4
    assert all(40_000 < len(photograph) < 120_000 for photograph in photographs)
    for photograph in photographs:
        image = Image.open(io.BytesIO(photograph))
        assert (image.format, image.size, image.mode) == ("JPEG", (640, 480), "RGB")

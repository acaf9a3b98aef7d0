"""Who gets rows, in which order, and who is counted as what: gates hold runs at a known place."""

from typing import Any

import numpy as np
import pytest

from engine import Beam, Caption, Captioner, ClosedError, DeadlineError, Greedy, Sample, Scheduler
from engine.scheduling.future import CaptionFuture
from engine.scheduling.request import Request
from engine.scheduling.running_batch import RunningBatch, shared_options
from tests.engine.gate import TIMEOUT, Gate
from tests.engine.scheduling.ways import LONG


def decoded(captioner: Captioner, image: np.ndarray, ways: list[Sample]) -> list[Caption]:
    """Returns captions of requests that are admitted in one call."""
    decoder, features = RunningBatch(captioner.model, 16), captioner.encode([image])
    requests = [Request(b"", way, way.num_samples, CaptionFuture(lambda: True)) for way in ways]
    answers: dict[Request, Any] = dict(decoder.admit([(request, features) for request in requests]))
    while len(decoder):
        answers |= dict(decoder.step()[0])
    return [answers[request] for request in requests]


@pytest.mark.parametrize("top_k", [0, 9])
def test_samples_that_share_a_search_have_each_the_words_of_its_own_seed_and_temperature(
    captioner: Captioner, image: np.ndarray, top_k: int
) -> None:
    hot = dict(enumerate((3.0, 3.0, 5.0, 4.0)))
    ways = [Sample(seed=seed, temperature=hot[seed], min_length=12, top_k=top_k, num_samples=2) for seed in hot]
    assert len(set(map(shared_options, ways))) == 1
    captions = decoded(captioner, image, ways)
    assert len({caption.text for caption in captions}) == len(ways)
    for way, caption in zip(ways, captions, strict=True):
        assert repr(caption) == repr(captioner.caption([image], way)[0])


def test_samples_without_a_seed_share_no_numbers(captioner: Captioner, image: np.ndarray) -> None:
    first, second = decoded(captioner, image, [Sample(temperature=3.0, min_length=12)] * 2)
    assert first.text != second.text


def test_no_step_has_more_rows_than_there_are(captioner: Captioner, image: np.ndarray) -> None:
    with Scheduler(captioner, max_rows=4) as scheduler:
        futures = [scheduler.submit(image, Beam(beam_size=3, min_length=15, max_length=16)) for _ in range(12)]
        assert all(future.result(TIMEOUT) for future in futures)
        rows = scheduler.stats().step_rows
    assert not sum(count for bound, count in zip(rows.bounds, rows.counts[1:], strict=True) if bound >= 4)


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_who_waits_behind_the_first_of_the_queue_is_woken_when_that_one_goes(
    captioner: Captioner, encoder: Gate, image: np.ndarray, how: str
) -> None:
    captioner.model.encoder.lanes = 2
    with Scheduler(captioner, max_rows=5) as scheduler:
        scheduler.submit(image, Beam(beam_size=3))
        encoder.wait()  # it holds three rows for as long as the gate is closed
        first = scheduler.submit(image, Beam(beam_size=5), timeout=None if how == "cancelled" else 0.2)
        scheduler.submit(image, Greedy())
        if how == "cancelled":
            assert first.cancel()
        else:
            assert isinstance(first.exception(TIMEOUT), DeadlineError)
        assert encoder.reached.acquire(timeout=TIMEOUT / 4)  # long before the gate gives up
        encoder.open.set()


def test_a_caption_that_comes_after_a_cancel_is_not_counted(
    captioner: Captioner, step: Gate, image: np.ndarray
) -> None:
    with Scheduler(captioner) as scheduler:
        future = scheduler.submit(image, Greedy(max_length=1))
        step.wait()
        assert future.cancel()
        step.open.set()
    stats = scheduler.stats()
    assert (stats.finished, stats.cancelled, sum(stats.waits.counts)) == (0, 1, 0)


def test_closing_can_give_up_what_is_in_a_step(captioner: Captioner, step: Gate, image: np.ndarray) -> None:
    scheduler = Scheduler(captioner)
    future = scheduler.submit(image, LONG)
    step.wait()
    scheduler.close(cancel=True, timeout=0)
    assert isinstance(future.exception(0), ClosedError)
    step.open.set()
    scheduler.close()
    stats = scheduler.stats()
    assert (stats.finished, stats.cancelled, stats.rows_in_use) == (0, 1, 0)

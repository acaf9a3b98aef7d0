"""The laws of the Scheduler: what a request is answered does not depend on who else is there, nor on when."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Beam, Caption, Captioner, ClosedError, Greedy, OptionsError, Sample, Scheduler
from engine.options import Decoding
from engine.scheduling.future import CaptionFuture
from engine.scheduling.request import Request
from engine.scheduling.running_batch import RunningBatch
from tests.engine.gate import TIMEOUT
from tests.engine.scheduling.ways import WAYS, same

at_leisure = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def captioner(tiny_bundle: Path) -> Captioner:
    return Captioner(tiny_bundle, provider="cpu", batch_size=8)


# --- whoever else is in the batch


@settings(at_leisure, max_examples=60)
@given(
    visits=st.lists(
        st.tuples(
            st.integers(0, 12),  # the step before which it comes
            st.integers(0, 5),
            st.sampled_from(WAYS),
            st.one_of(st.none(), st.integers(0, 6)),  # after how many more steps it is taken back
        ),
        min_size=1,
        max_size=12,
    )
)
def test_an_answer_is_that_of_a_lone_image_whoever_comes_and_goes(
    captioner: Captioner,
    images: list[np.ndarray],
    alone: Callable[[int, Decoding], Caption],
    visits: list[tuple[int, int, Decoding, int | None]],
) -> None:
    features = captioner.encode(images)
    decoder = RunningBatch(captioner.model, 128)
    requests = [Request(b"", way, 1, CaptionFuture(lambda: True)) for _, _, way, _ in visits]
    answers: dict[Request, object] = {}
    dropped = set()
    for step in range(200):
        decoder.drop(
            [requests[i] for i, (at, _, _, stay) in enumerate(visits) if stay is not None and at + stay == step]
        )
        arriving = [i for i, visit in enumerate(visits) if visit[0] == step and visit[3] != 0]
        assert not decoder.admit([(requests[i], features[visits[i][1] : visits[i][1] + 1]) for i in arriving])
        answers |= dict(decoder.step()[0])
    assert not len(decoder)
    for (_, image, way, stay), request in zip(visits, requests, strict=True):
        if request not in answers:
            assert stay is not None
            dropped.add(request)
            continue
        answer = answers[request]
        assert isinstance(answer, Caption)
        assert same(answer, alone(image, way))
    assert len(answers) + len(dropped) == len(visits)


@settings(at_leisure, max_examples=12)
@given(
    calls=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(WAYS), st.booleans()), min_size=1, max_size=40),
    max_rows=st.sampled_from([5, 16, 64]),
    threads=st.integers(1, 6),
)
def test_nor_does_it_from_pixels_on_for_threads_that_ask_and_take_back(
    captioner: Captioner,
    images: list[np.ndarray],
    alone: Callable[[int, Decoding], Caption],
    calls: list[tuple[int, Decoding, bool]],
    max_rows: int,
    threads: int,
) -> None:
    with Scheduler(captioner, max_rows=max_rows) as scheduler, ThreadPoolExecutor(threads) as pool:

        def ask(call: tuple[int, Decoding, bool]) -> CaptionFuture:
            future = scheduler.submit(images[call[0]], call[1])
            if call[2]:
                future.cancel()
            return future

        futures = list(pool.map(ask, calls))
        wait(futures, TIMEOUT)
        for (image, way, _), future in zip(calls, futures, strict=True):
            assert future.cancelled() or same(future.result(TIMEOUT), alone(image, way))
        stats = scheduler.stats()
    assert stats.accepted == len(calls) == stats.finished + stats.cancelled
    assert stats.finished == sum(not future.cancelled() for future in futures) == sum(stats.waits.counts)
    assert (stats.queue_depth, stats.failed, stats.expired, stats.refused) == (0, 0, 0, 0)


def test_rows_in_int8_do_not_depend_on_their_neighbours_either() -> None:
    captioner = Captioner(provider="cpu", precision="int8")
    photographs = sorted((Path(__file__).parents[3] / "samples").glob("*.jpg"))[:3]
    ways: list[Decoding] = [
        Greedy(),
        Beam(),
        Beam(beam_size=5, num_hypotheses=3),
        Sample(seed=1),
        Sample(seed=2, top_k=5),
    ]
    with Scheduler(captioner) as scheduler:
        futures = [(p, way, scheduler.submit(p, way)) for p in photographs for way in ways]
        for photograph, way, future in futures:
            assert same(future.result(TIMEOUT), captioner.caption([photograph], way)[0])


def test_what_is_given_may_be_changed_at_once(
    scheduler: Scheduler, images: list[np.ndarray], alone: Callable[[int, Decoding], Caption]
) -> None:
    mine = images[0].copy()
    future = scheduler.submit(mine)
    mine[:] = 0
    assert same(future.result(TIMEOUT), alone(0, Beam()))


def test_before_a_device_batches_form_by_size_or_by_wait(
    tiny_bundle: Path, images: list[np.ndarray], alone: Callable[[int, Decoding], Caption]
) -> None:
    captioner = Captioner(tiny_bundle, provider="cpu", batch_size=3)
    captioner.model.encoder.lanes = 0  # as one has that shares out its work itself
    with Scheduler(captioner, max_wait_ms=1000 * TIMEOUT) as scheduler:
        futures = [scheduler.submit(image) for image in images]  # nobody waits that long: the batches are full
        assert all(same(future.result(TIMEOUT / 2), alone(i, Beam())) for i, future in enumerate(futures))
        assert scheduler.stats().batch_sizes.total == 6
        assert sum(scheduler.stats().batch_sizes.counts) == 2
    with Scheduler(captioner, max_wait_ms=0) as scheduler:
        assert same(scheduler.submit(images[0]).result(TIMEOUT), alone(0, Beam()))


def test_timings_add_up_to_the_time_it_took(scheduler: Scheduler, images: list[np.ndarray]) -> None:
    future = scheduler.submit(images[0])
    future.result(TIMEOUT)
    assert future.timings is not None
    assert min(future.timings.queued, future.timings.encoding, future.timings.decoding) >= 0
    stats = scheduler.stats()
    assert stats.waits.total == pytest.approx(future.timings.queued)
    assert sum(stats.batch_sizes.counts) == stats.batch_sizes.total == 1
    assert stats.step_rows.total >= 3


# --- what is refused at once


@pytest.mark.parametrize(
    "way", [Greedy(prefix="zebra"), Greedy(max_length=1, prefix="there is"), Beam(beam_size=17), Sample(num_samples=17)]
)
def test_options_that_do_not_fit_are_refused_at_once(scheduler: Scheduler, way: Decoding) -> None:
    with pytest.raises(OptionsError):
        scheduler.submit(b"", way)
    assert scheduler.stats().accepted == 0


@pytest.mark.parametrize("told", [{"max_rows": 0}, {"max_queue": 0}, {"max_wait_ms": -1.0}, {"max_rows": True}])
def test_sizes_make_sense(captioner: Captioner, told: dict[str, float]) -> None:
    with pytest.raises(OptionsError, match=next(iter(told))):
        Scheduler(captioner, **told)  # type: ignore[arg-type]


# --- the end


def test_closing_finishes_what_was_accepted_and_leaves_no_thread(
    captioner: Captioner, images: list[np.ndarray], alone: Callable[[int, Decoding], Caption]
) -> None:
    before = set(threading.enumerate())
    scheduler = Scheduler(captioner)
    futures = [scheduler.submit(image, Beam()) for image in images * 3]
    scheduler.close()
    assert all(same(future.result(0), alone(i % 6, Beam())) for i, future in enumerate(futures))
    assert set(threading.enumerate()) <= before
    with pytest.raises(ClosedError):
        scheduler.submit(images[0])
    with pytest.raises(ClosedError):
        scheduler.swap(captioner)
    scheduler.close()


def test_what_was_cancelled_stays_cancelled(captioner: Captioner, images: list[np.ndarray]) -> None:
    with Scheduler(captioner, max_rows=1) as scheduler:
        futures = [scheduler.submit(image, Greedy()) for image in images]
        last = futures[-1]
        assert last.cancel()
        assert last.cancel()
        assert last.cancelled()
        with pytest.raises(CancelledError):
            last.result(0)
        assert wait([last], 0).done == {last}
        futures[0].result(TIMEOUT)
        assert not futures[0].cancel()


# --- another bundle


def test_a_swap_loses_no_request_and_each_goes_to_one_bundle(tiny_bundle: Path, images: list[np.ndarray]) -> None:
    old, new = (Captioner(tiny_bundle, provider="cpu", batch_size=8) for _ in range(2))
    swapped = threading.Event()
    with Scheduler(old) as scheduler:

        def load(seed: int) -> list[tuple[Captioner, CaptionFuture]]:
            sent: list[tuple[Captioner, CaptionFuture]] = []
            while not swapped.is_set() or len(sent) < 8:
                before = swapped.is_set()
                future = scheduler.submit(images[len(sent) % 6], Beam())
                sent.append((new if before else old, future))
                future.result(TIMEOUT)
            return sent

        with ThreadPoolExecutor(4) as pool:
            loads = [pool.submit(load, i) for i in range(4)]
            scheduler.swap(new)
            swapped.set()
            answered = [one for part in loads for one in part.result(TIMEOUT)]
        assert scheduler.captioner is new
        stats = scheduler.stats()
        assert stats.finished == stats.accepted == len(answered)
        expected = new.caption(images, Beam())
        assert {future.result(0).text for _, future in answered} <= {caption.text for caption in expected}
        scheduler.swap(tiny_bundle)
        assert scheduler.captioner.bundle.path == tiny_bundle
        assert scheduler.submit(images[0], Beam()).result(TIMEOUT) == expected[0]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("scheduler")]


def test_a_future_names_the_bundle_that_it_went_to(tiny_bundle: Path, images: list[np.ndarray]) -> None:
    tiny = Captioner(tiny_bundle, provider="cpu")
    with Scheduler(tiny) as scheduler:
        before = scheduler.submit(images[0])
        scheduler.swap(None)  # the one that ships
        after = scheduler.submit(images[0])
        names = [future.model for future in (before, after)]
        assert names == [tiny.bundle.manifest.name, scheduler.captioner.bundle.manifest.name]
        assert len({*names}) == 2
        assert before.result(TIMEOUT).text
        assert after.result(TIMEOUT).text

"""What those who ask do to the Scheduler: callbacks that exit or close, files that ask back, forks, waits for ever."""

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Captioner, ClosedError, EngineError, Greedy, ImageError, OptionsError, Scheduler
from engine.runtime.steps import Steps
from engine.scheduling.deadlines import Deadlines
from engine.scheduling.future import CaptionFuture
from engine.scheduling.request import Request
from engine.scheduling.workers import Workers
from tests.engine.gate import TIMEOUT
from tests.engine.script import run_script

LONG = Greedy(min_length=15, max_length=16)


@pytest.fixture
def scheduler(captioner: Captioner) -> Iterator[Scheduler]:
    opened = Scheduler(captioner)
    yield opened
    opened.close(cancel=True, timeout=TIMEOUT)


@pytest.fixture(scope="module")
def path(drawn_data: Path) -> Path:
    return sorted((drawn_data / "images").iterdir())[-1]


class Upload:
    """A file that owns the stream of its own caption."""

    stream: Any

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self) -> bytes:
        return self._content


# --- who is let go


def test_a_file_that_owns_its_stream_is_let_go_and_the_next_are_answered(
    scheduler: Scheduler, path: Path, image: np.ndarray
) -> None:
    gone = []
    for _ in range(8):
        upload = Upload(path.read_bytes())
        upload.stream = scheduler.stream(upload, LONG)  # type: ignore[arg-type]
        gone.append(weakref.ref(upload))
        del upload
    assert scheduler.submit(image).result(TIMEOUT)
    scheduler.close(timeout=TIMEOUT)
    assert scheduler.stats().cancelled + scheduler.stats().finished == 9
    gc.collect()
    assert not any(reference() for reference in gone)


def test_a_scheduler_that_its_own_futures_refer_to_is_dropped_all_the_same(
    captioner: Captioner, image: np.ndarray
) -> None:
    class Service:
        def __init__(self) -> None:
            self.scheduler = Scheduler(captioner)
            self.done = threading.Semaphore(0)

        def note(self, _: object) -> None:
            self.done.release()

    before = set(threading.enumerate())
    service = Service()
    service.scheduler.submit(image).add_done_callback(service.note)
    assert service.done.acquire(timeout=TIMEOUT)
    threads = set(threading.enumerate()) - before
    assert threads
    del service
    for _ in range(100):  # the last round of a thread may just be ending
        gc.collect()
        for thread in threads:
            thread.join(TIMEOUT / 1000)
        if not any(thread.is_alive() for thread in threads):
            break
    assert not any(thread.is_alive() for thread in threads)


def test_after_a_swap_the_model_before_is_let_go_though_its_captions_are_kept(
    tiny_bundle: Path, image: np.ndarray
) -> None:
    first, others = Captioner(tiny_bundle, provider="cpu"), set(threading.enumerate())
    before = weakref.ref(first)
    with Scheduler(first) as scheduler:
        kept = scheduler.submit(image)
        kept.result(TIMEOUT)
        threads = set(threading.enumerate()) - others
        del first
        scheduler.swap(tiny_bundle)
        for thread in threads:
            thread.join(TIMEOUT)
        del thread, threads
        gc.collect()
        assert before() is None
        assert kept.model
        assert scheduler.stats().finished == 1


def test_deadlines_of_what_is_answered_are_forgotten() -> None:
    deadlines = Deadlines()
    for _ in range(50):
        request = Request(b"", Greedy(), 1, CaptionFuture(lambda: True), deadline=3600.0)
        deadlines.add(request, unanswered=1)
        request.settled = True
    assert len(deadlines.passed(inf)) < 10


def test_a_step_with_a_bias_for_each_row_keeps_none_of_them(captioner: Captioner) -> None:
    manifest = captioner.bundle.manifest
    model = captioner.model.start_empty(8)
    assert isinstance(model, Steps)
    rows = model.admit([np.zeros((2, manifest.feature_shape[0]), np.float32)])
    bias = np.zeros((2, manifest.vocabulary_size), np.float32)
    model.step(np.ones(2, np.int64), rows, bias, 3)
    kept = weakref.ref(bias)
    del bias
    gc.collect()
    assert kept() is None


# --- callbacks


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError, KeyboardInterrupt])
def test_a_callback_that_exits_ends_no_thread(
    scheduler: Scheduler, image: np.ndarray, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def leave(_: object) -> None:
        raise error

    with caplog.at_level("ERROR"):
        future = scheduler.submit(image)
        future.add_done_callback(leave)
        for _ in range(3):
            assert scheduler.submit(image).result(TIMEOUT)
    assert future.result() == scheduler.submit(image).result(TIMEOUT)


@pytest.mark.parametrize("given", ["an image", "no image"])
def test_a_callback_may_close_while_others_wait_for_rows(captioner: Captioner, image: np.ndarray, given: str) -> None:
    scheduler, closed = Scheduler(captioner, max_rows=1), threading.Event()

    def close(_: object) -> None:
        scheduler.close()
        closed.set()

    first = scheduler.submit(image if given == "an image" else b"nothing", LONG)
    first.add_done_callback(close)
    others = []
    for _ in range(10):
        try:
            others.append(scheduler.submit(image, Greedy()))
        except ClosedError:
            break
    assert closed.wait(TIMEOUT)
    assert all(other.result(TIMEOUT) for other in others)
    if given == "an image":
        assert first.result()
    else:
        assert isinstance(first.exception(), ImageError)
    scheduler.close(timeout=TIMEOUT)
    with pytest.raises(ClosedError):
        scheduler.submit(image, Greedy())


# --- how long


def test_a_wait_longer_than_any_clock_is_a_wait(captioner: Captioner, image: np.ndarray) -> None:
    captioner.model.encoder.lanes = 0  # as before a device, where an encoder waits for others to come
    scheduler = Scheduler(captioner, max_wait_ms=1e15)
    one = scheduler.submit(image, timeout=1e10)
    others = [scheduler.submit(image) for _ in range(7)]  # a whole batch: it waits no longer
    assert all(future.result(TIMEOUT) for future in (one, *others))
    scheduler.close(timeout=1e300)


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "1", True])
def test_a_timeout_that_is_none_is_refused(scheduler: Scheduler, image: np.ndarray, timeout: Any) -> None:
    with pytest.raises(OptionsError, match="timeout"):
        scheduler.close(timeout=timeout)
    with pytest.raises(OptionsError, match="timeout"):
        scheduler.submit(image, timeout=timeout)
    assert scheduler.submit(image).result(TIMEOUT)


def test_closing_does_not_wait_for_a_swap_which_then_is_refused(
    captioner: Captioner, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    warming, go_on, told = threading.Event(), threading.Event(), []

    def warmup() -> None:
        warming.set()
        assert go_on.wait(TIMEOUT)

    monkeypatch.setattr(captioner, "warmup", warmup)
    scheduler, before = Scheduler(captioner), set(threading.enumerate())

    def swap() -> None:
        with pytest.raises(ClosedError) as raised:
            scheduler.swap(captioner)
        told.append(raised.value)

    swapping = threading.Thread(target=swap)
    swapping.start()
    assert warming.wait(TIMEOUT)
    scheduler.close(timeout=TIMEOUT)
    with pytest.raises(ClosedError):
        scheduler.submit(image)
    go_on.set()
    swapping.join(TIMEOUT)
    assert told
    assert not set(threading.enumerate()) - before


# --- what nobody foresaw


def test_a_thread_that_dies_takes_nobody_into_an_endless_wait(
    captioner: Captioner, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: died.set())
    monkeypatch.setattr(Workers, "_work", lambda *_: 1 / 0)
    scheduler = Scheduler(captioner)
    assert died.wait(TIMEOUT)
    with pytest.raises(ClosedError):
        scheduler.submit(image)
    scheduler.close(timeout=TIMEOUT)


class Exiting:
    """A file that ends the thread that reads it."""

    def read(self) -> bytes:
        raise SystemExit(1)


def test_a_file_that_exits_while_it_is_read_ends_no_thread(scheduler: Scheduler, image: np.ndarray) -> None:
    exits: Any = Exiting()
    for _ in range(4):  # more than there are encoders
        assert isinstance(scheduler.submit(exits).exception(TIMEOUT), EngineError)
    assert scheduler.submit(image).result(TIMEOUT)


# --- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    "how", ["atexit._run_exitfuncs()", "scheduler.close()", "del scheduler, futures; gc.collect()"]
)
def test_a_fork_with_requests_in_flight_neither_waits_nor_answers(tiny_bundle: Path, path: Path, how: str) -> None:
    code = f"""
        import atexit, gc, os, warnings
        from engine import Captioner, Greedy, Scheduler

        warnings.simplefilter("ignore")
        captioner = Captioner({str(tiny_bundle)!r}, provider="cpu")
        scheduler = Scheduler(captioner, max_rows=2)
        futures = [scheduler.submit({str(path)!r}, Greedy(min_length=15, max_length=16)) for _ in range(100)]
        child = os.fork()
        if not child:
            for future in futures:
                future.add_done_callback(lambda _: os._exit(1))
            {how}
            os._exit(0)  # as multiprocessing does: ONNX Runtime's own threads cannot be ended in a fork
        _, status = os.waitpid(child, 0)
        print(status, len([future.result(60) for future in futures]))
        scheduler.close()
    """
    done = run_script(code)
    assert done.stdout.split() == ["0", "100"], done.stderr

"""Code that interrupts the Scheduler anywhere, finalizers and signal handlers; and the end of the process."""

import gc
import logging
import textwrap
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Captioner, Greedy, Scheduler, SchedulerStats
from engine.scheduling.future import CaptionFuture
from engine.scheduling.request import Ledger
from tests.engine.gate import TIMEOUT
from tests.engine.script import run_script

ENDLESS = Greedy(min_length=900, max_length=1000)
IMAGE = np.zeros((64, 64, 3), np.uint8)
OPENED = """
import gc, sys, threading
import numpy as np
from engine import Beam, Captioner, Greedy, Scheduler

image = np.zeros((64, 64, 3), np.uint8)
"""


def interrupting(scheduler: Scheduler, work: Callable[[], Any]) -> Any:
    """Returns what work gives where it interrupts `stats` inside the scheduler's lock, as a finalizer may."""
    done: list[Any] = []
    real = Ledger.stats

    def stats(ledger: Ledger, **counts: int) -> SchedulerStats:
        patch.undo()
        done.append(work())
        return real(ledger, **counts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "stats", stats)
        thread = threading.Thread(target=scheduler.stats, daemon=True)
        thread.start()
        thread.join(TIMEOUT)
    assert done
    return done[0]


# --- the thread that is inside


def test_from_within_a_request_is_taken_back_a_moment_later(scheduler: Scheduler) -> None:
    future = scheduler.submit(IMAGE, ENDLESS)
    assert interrupting(scheduler, future.cancel) is False
    assert wait([future], TIMEOUT).done == {future}
    assert future.cancelled()
    assert future.cancel()


def test_from_within_stats_are_told(scheduler: Scheduler) -> None:
    assert interrupting(scheduler, scheduler.stats).accepted == 0


def test_from_within_closing_waits_for_nothing_and_comes_about(tiny_captioner: Captioner) -> None:
    before = set(threading.enumerate())
    scheduler = Scheduler(tiny_captioner)
    future, threads = scheduler.submit(IMAGE, ENDLESS), set(threading.enumerate()) - before
    assert interrupting(scheduler, lambda: scheduler.close(cancel=True)) is None
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert future.done()


@pytest.mark.parametrize("owner", ["coroutine", "finalizer"])
def test_what_is_collected_under_any_lock_may_cancel_and_ask_for_stats(tiny_bundle: Path, owner: str) -> None:
    code = f"""
        captioner = Captioner({str(tiny_bundle)!r}, provider="cpu")
        scheduler = Scheduler(captioner)

        class Finalizer:
            def __init__(self):
                self.future = scheduler.submit(image, Greedy(min_length=15, max_length=16))
                self.itself = self

            def __del__(self):
                self.future.cancel()
                scheduler.stats()

        class Pause:
            def __await__(self):
                yield

        async def coroutine(itself):
            async with scheduler.stream(image, Greedy(min_length=15, max_length=16)):
                await Pause()

        usual = gc.get_threshold()
        gc.set_threshold(5)
        for _ in range(100):
            if {owner!r} == "finalizer":
                Finalizer()
            else:
                itself = []
                itself.append(coroutine(itself))
                itself[0].send(None)
                del itself
            scheduler.stats()
        gc.set_threshold(*usual)
        print(bool(scheduler.submit(image).result(30)))
        scheduler.close()
        stats = scheduler.stats()
        print(stats.accepted == stats.finished + stats.cancelled == 101)
    """
    done = run_script(OPENED + textwrap.dedent(code))
    assert (done.stdout.split(), done.stderr) == (["True", "True"], "")


# --- who is let go


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_who_waits_for_a_cancelled_future_is_woken_whatever_its_callbacks_raise(error: type[BaseException]) -> None:
    def leave(_: object) -> None:
        raise error

    future = CaptionFuture(lambda: True)
    future.add_done_callback(leave)
    with pytest.raises(error):
        future.cancel()
    assert wait([future], 0).done == {future}


def test_a_dropped_request_whose_callback_exits_ends_no_thread(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(_: object) -> None:
        raise SystemExit

    future = scheduler.submit(IMAGE, ENDLESS)
    future.add_done_callback(leave)
    with caplog.at_level(logging.ERROR):
        interrupting(scheduler, future.cancel)
        assert wait([future], TIMEOUT).done
        assert scheduler.submit(IMAGE).result(TIMEOUT)
    assert "callback" in caplog.text


def test_threads_are_ended_where_one_of_them_cannot_be_started(
    tiny_captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, before = threading.Thread.start, set(threading.enumerate())

    def fail(thread: threading.Thread) -> None:
        if thread.name == "scheduler-decoder":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="new thread"):
        Scheduler(tiny_captioner)
    assert set(threading.enumerate()) <= before


# --- the end of the process


@pytest.mark.parametrize("last", ["sys.exit(3)", "scheduler.close(cancel=True, timeout=0)", "del scheduler"])
def test_an_exit_with_requests_in_flight_is_an_exit(tiny_bundle: Path, last: str) -> None:
    code = f"""
        scheduler = Scheduler(Captioner({str(tiny_bundle)!r}, provider="cpu"))
        futures = [scheduler.submit(image, Beam(beam_size=5, min_length=10)) for _ in range(60)]
        futures[3].result(30)
        {last}
    """
    done = run_script(OPENED + textwrap.dedent(code))
    assert (done.returncode, done.stderr) == (3 if "exit" in last else 0, "")


def test_an_exit_does_not_wait_for_a_file_that_has_no_end(tiny_bundle: Path) -> None:
    code = f"""
        from engine.scheduling import shutdown

        shutdown.AT_EXIT = 0.5
        scheduler, reading = Scheduler(Captioner({str(tiny_bundle)!r}, provider="cpu")), threading.Event()

        class File:
            def read(self):
                reading.set()
                threading.Event().wait()

        scheduler.submit(File())
        reading.wait()
    """
    done = run_script(OPENED + textwrap.dedent(code))
    assert (done.returncode, done.stderr) == (0, "")


def test_what_has_ended_is_kept_by_no_exit(tiny_bundle: Path) -> None:
    scheduler = Scheduler(Captioner(tiny_bundle, provider="cpu"))
    model = weakref.ref(scheduler.captioner.model)
    scheduler.close()
    del scheduler
    gc.collect()
    assert model() is None

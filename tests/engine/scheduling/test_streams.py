"""Streams, tasks and event loops: words come as they are decoded, and whoever leaves takes his request back."""

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from engine import DEFAULT_DECODING, Caption, Captioner, ClosedError, Greedy, ImageError, Scheduler
from engine.decoding.step_request import StepRequest
from engine.options import Decoding
from engine.scheduling.future import CaptionFuture
from tests.engine.gate import TIMEOUT, Gate
from tests.engine.scheduling.ways import LONG, WAYS, same


def test_any_event_loop_can_ask(
    scheduler: Scheduler, images: list[np.ndarray], alone: Callable[[int, Decoding], Caption]
) -> None:
    async def ask() -> list[Caption]:
        return await asyncio.gather(*(scheduler.caption(image) for image in images))

    with ThreadPoolExecutor(3) as pool:
        for captions in pool.map(lambda _: asyncio.run(ask()), range(3)):
            assert all(same(caption, alone(i, DEFAULT_DECODING)) for i, caption in enumerate(captions))


@pytest.mark.parametrize("way", WAYS, ids=range(len(WAYS)))
def test_a_stream_gives_the_words_of_the_caption(
    scheduler: Scheduler, images: list[np.ndarray], alone: Callable[[int, Decoding], Caption], way: Decoding
) -> None:
    async def words(image: int) -> list[str]:
        stream = scheduler.stream(images[image], way)
        found = [word async for word in stream]
        assert same(await stream.caption(), alone(image, way))
        assert stream.timings is not None
        return found

    async def every() -> list[list[str]]:
        return await asyncio.gather(*(words(image) for image in range(4)))

    for image, found in enumerate(asyncio.run(every())):
        assert found == [word for word in alone(image, way).tokens if word != "#END#"]


def test_a_task_may_hold_a_scheduler_open_and_its_loop_goes_on(tiny_captioner: Captioner) -> None:
    async def work() -> tuple[Scheduler, list[CaptionFuture]]:
        async with Scheduler(tiny_captioner) as scheduler:
            futures = [scheduler.submit(np.zeros((8, 8, 3), np.uint8)) for _ in range(20)]
            loop = asyncio.get_running_loop()
            turned = asyncio.Event()
            futures[-1].add_done_callback(lambda _: loop.call_soon_threadsafe(turned.set))
        await turned.wait()
        return scheduler, futures

    scheduler, futures = asyncio.run(work())
    assert all(future.done() and not future.cancelled() for future in futures)
    with pytest.raises(ClosedError):
        scheduler.submit(np.zeros((8, 8, 3), np.uint8))


def test_a_task_that_fails_gives_up_what_it_had_asked_for(tiny_captioner: Captioner) -> None:
    async def work(futures: list[CaptionFuture]) -> None:
        async with Scheduler(tiny_captioner, max_rows=1) as scheduler:
            futures.extend(scheduler.submit(np.zeros((8, 8, 3), np.uint8), Greedy()) for _ in range(30))
            raise KeyError("of the caller")

    futures: list[CaptionFuture] = []
    with pytest.raises(KeyError):
        asyncio.run(work(futures))
    assert all(future.done() for future in futures)
    assert any(isinstance(future.exception(), ClosedError) for future in futures if not future.cancelled())


def test_cancelling_the_task_cancels_the_request(captioner: Captioner, step: Gate, image: np.ndarray) -> None:
    async def leave(scheduler: Scheduler) -> None:
        task = asyncio.create_task(scheduler.caption(image, LONG))
        await asyncio.to_thread(step.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Scheduler(captioner) as scheduler:
        asyncio.run(leave(scheduler))
        assert scheduler.stats().cancelled == 1
        step.open.set()
        scheduler.submit(image).result(TIMEOUT)
        assert scheduler.stats().rows_in_use == 0


def test_words_come_before_the_caption_is_done(
    captioner: Captioner, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, steps, taken = StepRequest.run, [], threading.Event()

    def run(request: StepRequest, model: Any) -> Any:
        steps.append(request)
        if len(steps) == 4:
            assert taken.wait(TIMEOUT)  # the fourth word waits until somebody has the third
        return real(request, model)

    monkeypatch.setattr(StepRequest, "run", run)

    async def read(scheduler: Scheduler) -> list[str]:
        words = []
        async for word in scheduler.stream(image, LONG):
            words.append(word)
            if len(words) == 3:
                taken.set()
        return words

    with Scheduler(captioner) as scheduler:
        assert len(asyncio.run(read(scheduler))) >= 15


@pytest.mark.parametrize("how", ["break", "aclose", "with", "drop"])
def test_leaving_a_stream_early_cancels_it(captioner: Captioner, step: Gate, image: np.ndarray, how: str) -> None:
    async def read(scheduler: Scheduler) -> None:
        stream = scheduler.stream(image, LONG)
        await asyncio.to_thread(step.wait)
        if how == "aclose":
            await stream.aclose()
        elif how == "with":
            async with stream:
                pass
        elif how == "break":
            step.open.set()
            async for _ in stream:
                step.open.clear()
                break
        del stream
        gc.collect()

    with Scheduler(captioner) as scheduler:
        asyncio.run(read(scheduler))
        if how != "drop":  # which is seen at the next step
            stats = scheduler.stats()
            assert stats.cancelled + (how == "break" and stats.finished) == 1
        step.open.set()
    assert how == "break" or scheduler.stats().cancelled == 1


def test_a_stream_raises_what_befell_its_request(captioner: Captioner) -> None:
    async def read(scheduler: Scheduler) -> None:
        stream = scheduler.stream(b"no image")
        with pytest.raises(ImageError):
            async for _ in stream:
                pass
        with pytest.raises(ImageError):
            await stream.caption()

    with Scheduler(captioner) as scheduler:
        asyncio.run(read(scheduler))


def test_a_stream_that_was_dropped_holds_no_place_in_the_queue(
    captioner: Captioner, encoder: Gate, image: np.ndarray
) -> None:
    with Scheduler(captioner, max_queue=1) as scheduler:
        for _ in range(captioner.model.encoder.lanes):
            scheduler.submit(image)
            encoder.wait()
        scheduler.stream(image)
        again = scheduler.submit(image)
        assert (scheduler.stats().cancelled, scheduler.stats().refused) == (1, 0)
        encoder.open.set()
        assert again.result(TIMEOUT)

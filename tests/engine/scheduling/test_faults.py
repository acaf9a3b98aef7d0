"""What goes wrong befalls the request it belongs to: gates hold runs at a known place, nothing here waits for time."""

import os
from concurrent.futures import wait
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine import (
    Beam,
    Captioner,
    DeadlineError,
    DeviceError,
    EngineError,
    Greedy,
    ImageError,
    OverloadedError,
    Sample,
    Scheduler,
)
from engine.decoding.step_request import StepRequest
from tests.engine.gate import TIMEOUT, Gate
from tests.engine.scheduling.ways import LONG


def test_a_full_queue_refuses_at_once_and_takes_again_later(
    captioner: Captioner, encoder: Gate, image: np.ndarray
) -> None:
    lanes = captioner.model.encoder.lanes
    with Scheduler(captioner, max_queue=3) as scheduler:
        running = []
        for _ in range(lanes):
            running.append(scheduler.submit(image))
            encoder.wait()
        queued = [scheduler.submit(image) for _ in range(3)]
        for _ in range(2):
            with pytest.raises(OverloadedError, match="3 requests"):
                scheduler.submit(image)
        stats = scheduler.stats()
        assert (stats.queue_depth, stats.refused, stats.accepted) == (3, 2, lanes + 3)
        assert queued[1].cancel()
        again = scheduler.submit(image)
        encoder.open.set()
        for future in (*running, queued[0], queued[2], again):
            future.result(TIMEOUT)
        assert scheduler.stats().queue_depth == 0


class Poison(os.PathLike[str]):
    """A path that cannot even be said."""

    def __fspath__(self) -> str:
        raise KeyError("poison")


class Nameless:
    """A file whose name cannot be read, nor its bytes."""

    @property
    def name(self) -> str:
        raise RuntimeError("poison")

    def read(self) -> bytes:
        raise ValueError("broken")


def test_an_image_that_cannot_be_read_or_even_described_fails_alone(captioner: Captioner, image: np.ndarray) -> None:
    with Scheduler(captioner) as scheduler:
        given: list[Any] = [image, b"no image", image, "no such file.jpg", None, Poison(), Nameless(), image]
        futures = [scheduler.submit(one, Beam()) for one in given]
        expected = captioner.caption([image], Beam())[0]
        for one, future in zip(given, futures, strict=True):
            if one is image:
                assert future.result(TIMEOUT) == expected
            else:
                error = future.exception(TIMEOUT)
                assert isinstance(error, ImageError)
                assert error.entry is None
        assert scheduler.stats().failed == 5


@pytest.mark.parametrize("way", [Greedy(), Beam(beam_size=2), Sample(seed=1), Sample(seed=1, num_samples=2, top_k=3)])
def test_features_that_are_no_numbers_fail_alone(
    captioner: Captioner, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    real = captioner.model.encode
    black = np.zeros_like(image)

    def encode(images: list[Any], *, alone: bool) -> Any:
        encoded = real(images, alone=alone)
        for i, one in enumerate(images):
            if not np.asarray(one).any():
                np.asarray(encoded.features)[i] = np.nan
        return encoded

    expected = captioner.caption([image], way)[0]
    monkeypatch.setattr(captioner.model, "encode", encode)
    with Scheduler(captioner) as scheduler:
        futures = [(one is black, scheduler.submit(one, way)) for one in (image, black, image, black, image)]
        for poisoned, future in futures:
            if poisoned:
                with pytest.raises(EngineError, match="NaN"):
                    future.result(TIMEOUT)
            else:
                assert future.result(TIMEOUT) == expected
        assert scheduler.stats().rows_in_use == 0


def test_a_failed_run_of_the_encoder_fails_its_own_images_and_no_others(
    captioner: Captioner, encoder: Gate, image: np.ndarray
) -> None:
    with Scheduler(captioner) as scheduler:
        lost = scheduler.submit(image)
        encoder.wait()
        encoder.error = RuntimeError("device lost")
        encoder.open.set()
        with pytest.raises(DeviceError, match="device lost"):
            lost.result(TIMEOUT)
        assert isinstance(lost.exception().__cause__, RuntimeError)  # type: ignore[union-attr]
        assert scheduler.submit(image).result(TIMEOUT) == captioner.caption([image])[0]
        assert scheduler.stats().rows_in_use == 0


def test_a_failed_step_fails_those_in_it_and_the_next_ones_go_on(
    captioner: Captioner, step: Gate, image: np.ndarray
) -> None:
    with Scheduler(captioner) as scheduler:
        lost = scheduler.submit(image, LONG)
        step.wait()
        waiting = [scheduler.submit(image, Beam()) for _ in range(3)]  # not in that step
        step.error = RuntimeError("device lost")
        step.open.set()
        with pytest.raises(DeviceError, match="device lost"):
            lost.result(TIMEOUT)
        for future in waiting:
            assert future.result(TIMEOUT) == captioner.caption([image], Beam())[0]
        assert scheduler.stats().failed == 1


def test_after_a_failed_step_the_next_ones_get_new_state(
    captioner: Captioner, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, first = StepRequest.run, []

    def run(request: StepRequest, model: Any) -> Any:
        first.append(model)
        if model is first[0]:
            raise RuntimeError("this state is lost for good")
        return real(request, model)

    monkeypatch.setattr(StepRequest, "run", run)
    with Scheduler(captioner) as scheduler:
        assert isinstance(scheduler.submit(image).exception(TIMEOUT), DeviceError)
        assert scheduler.submit(image).result(TIMEOUT)


def test_a_run_of_one_kind_that_fails_leaves_the_others_alone(
    captioner: Captioner, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = StepRequest.run

    def run(request: StepRequest, model: Any) -> Any:
        if request.kind.method == "draw":
            raise RuntimeError("no such kernel")
        return real(request, model)

    monkeypatch.setattr(StepRequest, "run", run)
    with Scheduler(captioner) as scheduler:
        futures = [scheduler.submit(image, way) for way in (LONG, Sample(seed=1), LONG, Sample(seed=2), LONG)]
        wait(futures, TIMEOUT)
        assert [type(future.exception()) for future in futures[1::2]] == [DeviceError] * 2
        assert [future.exception() for future in futures[::2]] == [None] * 3


def test_rows_of_what_is_cancelled_are_free_at_the_next_step(
    captioner: Captioner, step: Gate, image: np.ndarray
) -> None:
    with Scheduler(captioner, max_rows=4) as scheduler:
        running = scheduler.submit(image, Beam(beam_size=4, min_length=900, max_length=1000))
        step.wait()
        waiting = scheduler.submit(image, LONG)
        assert scheduler.stats().rows_in_use == 4
        assert scheduler.stats().queue_depth == 1  # no row is free for it
        assert running.cancel()
        step.open.set()
        waiting.result(TIMEOUT)
        stats = scheduler.stats()
        assert (stats.rows_in_use, stats.cancelled, stats.finished) == (0, 1, 1)
        assert sum(stats.step_rows.counts) < 30  # nobody waited for it to end by itself


def test_what_is_cancelled_while_it_is_encoded_is_not_decoded(
    captioner: Captioner, encoder: Gate, image: np.ndarray
) -> None:
    with Scheduler(captioner, max_rows=1) as scheduler:
        future = scheduler.submit(image, Greedy())
        encoder.wait()
        assert future.cancel()
        waiting = scheduler.submit(image, Greedy(max_length=1))
        encoder.open.set()
        waiting.result(TIMEOUT)
        stats = scheduler.stats()
        assert (stats.finished, stats.cancelled, stats.rows_in_use) == (1, 1, 0)
        assert stats.step_rows.total == 1


def test_a_deadline_ends_what_waits(captioner: Captioner, encoder: Gate, image: np.ndarray) -> None:
    lanes = captioner.model.encoder.lanes
    with Scheduler(captioner) as scheduler:
        running = []
        for _ in range(lanes):
            running.append(scheduler.submit(image))
            encoder.wait()
        late = scheduler.submit(image, timeout=0.001)
        with pytest.raises(DeadlineError):
            late.result(TIMEOUT)  # although no encoder is free to see to it
        with pytest.raises(TimeoutError):
            late.result(TIMEOUT)
        stats = scheduler.stats()
        assert (stats.queue_depth, stats.expired) == (0, 1)
        encoder.open.set()
        for future in running:
            future.result(TIMEOUT)


def test_a_deadline_ends_what_is_decoded_and_frees_its_rows(
    captioner: Captioner, step: Gate, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Scheduler(captioner, max_rows=1) as scheduler:
        late = scheduler.submit(image, LONG, timeout=1000 * TIMEOUT)
        step.wait()
        waiting = scheduler.submit(image, Greedy())
        over = SimpleNamespace(monotonic=lambda: 1e12)  # its time is over while it is in a step
        monkeypatch.setattr("engine.scheduling.workers.time", over)
        step.open.set()
        with pytest.raises(DeadlineError):
            late.result(TIMEOUT)
        waiting.result(TIMEOUT)
        stats = scheduler.stats()
        assert (stats.rows_in_use, stats.expired, stats.finished) == (0, 1, 1)

"""Where more images are queued than the cores can encode, a step waits for company: that is cheaper, and never long."""

import threading
import time
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from PIL import Image

from engine import Beam, Captioner, Greedy, Scheduler
from engine.options import Decoding
from engine.pipeline import Encoded
from engine.scheduling import line as scheduling
from engine.scheduling.decoder import Decoder

TIMEOUT = 60  # seconds that no answer takes
LENGTH = 16
LONG = Greedy(min_length=LENGTH - 1, max_length=LENGTH)


@pytest.fixture
def captioner(tiny_bundle: Path) -> Captioner:
    return Captioner(tiny_bundle, provider="cpu", batch_size=8)


@pytest.fixture(scope="module")
def photos(drawn_data: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted((drawn_data / "images").iterdir())[:6]]


class Held:
    """A file whose owner takes his time."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.asked, self.given = threading.Event(), threading.Event()

    def read(self) -> bytes:
        self.asked.set()
        self.given.wait(TIMEOUT)
        return self._content


def test_many_that_wait_share_steps_and_get_what_they_get_alone(
    captioner: Captioner, photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder is made slow beside a step, as it is with photographs."""
    encode = captioner._pipeline.encode

    def slowly(images: Any, **how: Any) -> Encoded:
        time.sleep(0.005 * len(images))
        return encode(images, **how)

    monkeypatch.setattr(captioner._pipeline, "encode", slowly)
    ways: list[Decoding] = [LONG, Beam(beam_size=3)]
    expected = [[captioner.caption([photo], way)[0] for photo in photos] for way in ways]
    steps = {}
    for company in (0, scheduling.COMPANY):
        monkeypatch.setattr(scheduling, "COMPANY", company)
        with Scheduler(captioner) as scheduler:
            futures = [scheduler.submit(photos[i % 6], ways[i % 2]) for i in range(120)]
            for i, future in enumerate(futures):
                assert future.result(TIMEOUT).text == expected[i % 2][i % 6].text
            steps[company] = sum(scheduler.stats().step_rows.counts)
    assert steps[scheduling.COMPANY] < 0.5 * steps[0]


def test_encoders_that_are_stuck_hold_up_a_step_for_the_time_set_and_no_longer(
    captioner: Captioner, photos: list[np.ndarray], drawn_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()
    step = Decoder.step

    def held(decoder: Decoder) -> Any:
        begun.set()
        go.wait(TIMEOUT)
        return step(decoder)

    monkeypatch.setattr(Decoder, "step", held)
    content = next((drawn_data / "images").iterdir()).read_bytes()
    with Scheduler(captioner) as scheduler:
        files = [Held(content) for _ in range(scheduler._line._lanes)]
        try:
            first = scheduler.submit(photos[0], LONG)
            assert begun.wait(TIMEOUT)
            stuck = [scheduler.submit(cast(BinaryIO, file)) for file in files]
            assert all(file.asked.wait(TIMEOUT) for file in files)
            queued = [scheduler.submit(photo) for photo in photos]
            start = time.monotonic()
            go.set()
            assert first.result(TIMEOUT).text
            taken = time.monotonic() - start
            assert not any(future.done() for future in [*stuck, *queued])
        finally:
            go.set()
            for file in files:
                file.given.set()
        assert all(future.result(TIMEOUT).text for future in [*stuck, *queued])
    waits = LENGTH - 2  # the first step had begun, and the last may have been for the full stop
    assert waits * scheduling.PATIENCE < taken < TIMEOUT / 10


def test_encoders_are_not_woken_by_a_step_that_frees_nothing(
    captioner: Captioner, photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would take the lock that the next step needs, and a core's attention."""
    with Scheduler(captioner) as scheduler:
        line = scheduler._line
        scheduler.submit(photos[0]).result(TIMEOUT)
        woken: list[None] = []
        notify = line._to_encode.notify_all

        def note() -> None:
            woken.append(None)
            notify()

        monkeypatch.setattr(line._to_encode, "notify_all", note)
        scheduler.submit(photos[1], LONG).result(TIMEOUT)
        assert sum(scheduler.stats().step_rows.counts) > LENGTH
        assert len(woken) == 1
        monkeypatch.undo()

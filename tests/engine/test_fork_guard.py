"""Laws of forks: what has threads says at once that it does not survive one."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine import Captioner, EngineError, Scheduler


def told_in_a_child(call: Callable[[], object]) -> str:
    """Returns what the EngineError of a call in a forked child says, nothing if there was none."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:  # no pytest and no return from here on
        try:
            call()
        except EngineError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


# the warning is what the law is about: a fork beside threads
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_child_is_told_to_open_its_own(tiny_bundle: Path) -> None:
    captioner = Captioner(tiny_bundle, provider="cpu")
    image = np.zeros((8, 8, 3), np.uint8)
    features = captioner.encode([image] * 3)
    with Scheduler(captioner) as scheduler:
        calls: list[Callable[[], object]] = [
            lambda: captioner.caption([image] * 3),
            lambda: captioner.encode([image]),
            lambda: captioner.caption_features(features),
            lambda: scheduler.submit(image),
        ]
        told = [told_in_a_child(call) for call in calls]
    captioner.caption([image])  # the parent goes on
    assert all("threads do not survive a fork, so open a Captioner in each process" in text for text in told[:3])
    assert "open a Scheduler in each process" in told[3]

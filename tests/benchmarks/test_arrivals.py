"""The benchmark of arrivals counts right, and passes over nothing that went wrong."""

from concurrent.futures import Future
from typing import Any

import pytest

from benchmarks.arrivals import HOPELESS, ONE, SCHEDULER, STATIC, Arrivals, ExpectedCaptions, held, latencies, summary
from benchmarks.load.batching import Batches, Scheduled
from benchmarks.photographs import photographs
from engine import Caption, Captioner, Greedy
from engine.options import Decoding

ARRIVALS = Arrivals(((b"", Greedy()), (b"", Greedy())), (0.0, 0.001))
CAPTION = Caption("a cat", -1.0, -2.0, ("a", "cat"), (-1.0, -1.0), finished=True, alternatives=())


class Served:
    """A server that answers at once."""

    def __init__(self, *answers: Caption | Exception) -> None:
        self._answers = list(answers)

    def submit(self, image: bytes, way: Decoding) -> Future[Caption]:
        future: Future[Caption] = Future()
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future

    def close(self) -> None:
        pass


def points(**p99: list[float | None]) -> list[dict[str, Any]]:
    servers = {"one": ONE, "static": STATIC, "scheduler": SCHEDULER}
    return [
        {"side": servers[name], "load": float(i), "rate": 10.0 * i, "p99": value}
        for name, values in p99.items()
        for i, value in enumerate(values, start=1)
    ]


def test_each_request_has_its_time() -> None:
    found = latencies(Served(CAPTION, CAPTION), ARRIVALS, ["a cat"] * 2)
    assert found is not None
    assert len(found) == 2


@pytest.mark.parametrize(
    ("answer", "expected", "told"),
    [(ValueError("no device"), "a cat", "request 1.*no device"), (CAPTION, "a dog", "request 1.*'a cat'.*'a dog'")],
)
def test_what_goes_wrong_fails_the_run(answer: Any, expected: str, told: str) -> None:
    with pytest.raises(RuntimeError, match=told):
        latencies(Served(CAPTION, answer), ARRIVALS, ["a cat", expected])


def test_a_batch_that_fails_answers_its_requests() -> None:
    server = Batches(Captioner(provider="cpu"), most=4, window=0.0)
    try:
        with pytest.raises(RuntimeError, match="failed"):
            latencies(server, ARRIVALS)
    finally:
        server.close()


@pytest.mark.parametrize("name", [ONE, STATIC, SCHEDULER])
def test_all_sides_say_what_the_captioner_says(name: str) -> None:
    captioner, images = Captioner(provider="cpu"), photographs(2)
    arrivals = Arrivals.draw(images, 100.0, 0.2, 0)
    server = (
        Scheduled(captioner, max_queue=HOPELESS)
        if name == SCHEDULER
        else Batches(captioner, most=1 if name == ONE else 8, window=0.01)
    )
    try:
        assert latencies(server, arrivals, ExpectedCaptions(captioner, images).of(arrivals))
    finally:
        server.close()


def test_the_rate_held_is_the_last_before_the_first_that_is_not() -> None:
    assert held(points(one=[0.1, 0.2, 0.3, 0.1]), ONE, 0.2) == 20.0
    assert held(points(one=[0.1, None, 0.1]), ONE, 0.2) == 10.0
    assert held(points(one=[0.3]), ONE, 0.2) == 0.0
    assert held(points(static=[0.1]), ONE, 0.2) == 0.0


def test_the_summary_says_where_the_scheduler_is_not_better() -> None:
    found = points(one=[0.1, 0.9, None], static=[0.1, 0.2, None], scheduler=[0.09, 0.2, 0.3])
    lines = summary({"points": found, "bound": 0.2})
    assert "one at a time 10.0, static batches 20.0, scheduler 20.0; 2.00 x" in lines[0]
    assert "one at a time 10.0, static batches 20.0, scheduler 30.0; 3.00 x" in lines[1]
    assert lines[2].startswith("p99 below that of static batches at 1 of 2 rates")

"""What becomes of requests when the engine fails, is full or hangs, or when the client goes away."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from engine import Captioner, ClosedError, DeadlineError, DeviceError, OptionsError, OverloadedError
from serving.http import work
from serving.http.app import create_app
from serving.http.clients import EventStream
from serving.http.limits import Limits
from serving.http.reports import Report
from tests.serving.calls import ask, events, problem, started, with_client
from tests.serving.stand_in import StandIn

JPEG = {"Content-Type": "image/jpeg"}


def post_both(app: FastAPI, photos: list[bytes], stand_in: StandIn, then: Any) -> list[httpx.Response]:
    """Asks both routes and does something once the work was accepted."""

    async def use(client: httpx.AsyncClient) -> list[httpx.Response]:
        answers = []
        for path in ("/v1/captions", "/v1/captions/stream"):
            before = len(stand_in.futures)
            asking = asyncio.create_task(client.post(path, content=photos[0], headers=JPEG))
            while len(stand_in.futures) == before and not asking.done():
                await asyncio.sleep(0)
            then()
            answers.append(await asking)
        return answers

    return with_client(app, use)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (DeadlineError("at /secret/path"), 504, "deadline"),
        (DeviceError("at /secret/path"), 503, "device"),
        (ClosedError("at /secret/path"), 503, "closing"),
        (RuntimeError("at /secret/path"), 500, "internal"),
    ],
)
def test_errors_of_the_engine_have_a_status_and_tell_no_secrets(
    captioner: Captioner, photos: list[bytes], error: Exception, status: int, kind: str
) -> None:
    stand_in = StandIn(captioner)
    for answer in post_both(create_app(stand_in, warm=False), photos, stand_in, lambda: stand_in.fail(error)):
        assert "secret" not in problem(answer, status, kind)["detail"]
        assert "Traceback" not in answer.text
        assert answer.headers.get("retry-after") == ("1" if status == 503 else None)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [(OverloadedError("full"), 429, "overloaded"), (ClosedError("closed"), 503, "closing")],
)
@pytest.mark.parametrize("path", ["/v1/captions", "/v1/captions/stream"])
def test_a_refusal_says_when_to_come_again(
    captioner: Captioner, photos: list[bytes], path: str, error: Exception, status: int, kind: str
) -> None:
    app = create_app(StandIn(captioner, room=0, refusal=error), warm=False)
    answer = ask(app, "POST", path, content=photos[0], headers=JPEG)
    problem(answer, status, kind)
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("error", [OverloadedError("full"), OptionsError("no")])
def test_of_several_images_all_are_accepted_or_none(
    captioner: Captioner, photos: list[bytes], error: Exception
) -> None:
    stand_in = StandIn(captioner, room=2, refusal=error)
    files = [("images", ("x.jpg", photo)) for photo in photos]
    answer = ask(create_app(stand_in, warm=False), "POST", "/v1/captions", files=files)
    assert answer.status_code in (429, 422)
    assert [future.cancelled() for future in stand_in.futures] == [True, True]


def test_a_stream_whose_client_takes_no_more_ends_its_work_at_once() -> None:
    ended: list[str] = []

    async def words() -> AsyncGenerator[str, None]:
        try:
            yield "dog"
            yield "runs"
        finally:
            ended.append("work")

    async def receive() -> Any:
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if b"dog" in message.get("body", b""):
            raise OSError("the connection is gone")

    async def run() -> None:
        work = words()  # which is kept here: no collection of garbage ends it
        with pytest.raises(OSError, match="gone"):
            await EventStream("a", work, Report("id"))({"type": "http"}, receive, send)
        assert ended == ["work"]

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_scheduler_that_hangs_does_not_hang_its_callers(
    captioner: Captioner, photos: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "GRACE", 0.05)
    stand_in = StandIn(captioner)
    app = create_app(stand_in, limits=Limits(timeout=0.05), warm=False)
    for answer in post_both(app, photos, stand_in, lambda: None):
        problem(answer, 504, "deadline")
    assert all(future.cancelled() for future in stand_in.futures)
    assert stand_in.timeouts == [0.05, 0.05]


def test_a_word_is_sent_before_the_next_is_known_and_a_late_error_is_an_event(
    captioner: Captioner, photos: list[bytes]
) -> None:
    stand_in = StandIn(captioner)
    app = create_app(stand_in, warm=False)
    sent: list[bytes] = []

    async def run() -> None:
        arrived = asyncio.Event()

        async def send(message: Any) -> None:
            sent.append(message.get("body", b""))
            arrived.set()

        async def until(text: bytes) -> None:
            while text not in b"".join(sent):
                await arrived.wait()
                arrived.clear()

        asking = started(app, "/v1/captions/stream", photos[0], send, gone=asyncio.Event())
        while not stand_in.words and not asking.done():
            await asyncio.sleep(0)
        for word in ("a", "dog"):
            stand_in.words[0].put([word])
            await until(f'"{word}"'.encode())
        stand_in.fail(DeadlineError("late"))
        await asking

    asyncio.run(asyncio.wait_for(run(), 10))
    *words, (name, told) = events(b"".join(sent).decode())
    assert [data["word"] for _, data in words] == ["a", "dog"]
    assert (name, told["status"]) == ("error", 504)


@pytest.mark.parametrize(
    ("path", "words"), [("/v1/captions", []), ("/v1/captions/stream", []), ("/v1/captions/stream", ["a"])]
)
def test_a_client_that_goes_away_cancels_its_work(
    captioner: Captioner, photos: list[bytes], path: str, words: list[str]
) -> None:
    stand_in = StandIn(captioner)
    app = create_app(stand_in, warm=False)

    async def run() -> None:
        async def send(message: Any) -> None:
            pass

        gone = asyncio.Event()
        asking = started(app, path, photos[0], send, gone)
        while not stand_in.futures and not asking.done():
            await asyncio.sleep(0)
        for queue in stand_in.words:
            queue.put(words)
        gone.set()
        await asking

    asyncio.run(asyncio.wait_for(run(), 10))
    assert [future.cancelled() for future in stand_in.futures] == [True]
    assert 'status="499"} 1' in ask(app, "GET", "/metrics").text

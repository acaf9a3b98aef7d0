"""Clients that wait or disconnect: work stops when the client is gone, and events are sent as they happen."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serving.http.answers import Captioned
from serving.http.problems import Problem
from serving.http.reports import Report

T = TypeVar("T")


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Returns the result of the work. If the client disconnects, cancels it and raises starlette's ClientDisconnect.

    The body of the request must have been read.
    """
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """Words, then the caption, as server-sent events, each sent at once; an error becomes the last event."""

    media_type = "text/event-stream"

    def __init__(self, first: str | Captioned, rest: AsyncGenerator[str | Captioned, None], report: Report) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # so that no proxy holds words back
        self._work = rest
        self._lines = self._events(first, rest, report)
        super().__init__(self._lines, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events, and ends the work in any case."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._lines.aclose()
            await self._work.aclose()

    async def _events(
        self, first: str | Captioned, rest: AsyncGenerator[str | Captioned, None], report: Report
    ) -> AsyncGenerator[str, None]:
        yield _event(first)
        try:
            async for each in rest:
                yield _event(each)
        except Problem as problem:
            yield _encode("error", report.tell(problem, "event").body(report.request_id))


def _event(each: str | Captioned) -> str:
    return _encode("word", {"word": each}) if isinstance(each, str) else _encode("caption", each)


def _encode(name: str, data: BaseModel | dict[str, str]) -> str:
    text = data.model_dump_json() if isinstance(data, BaseModel) else json.dumps(data)
    return f"event: {name}\ndata: {text}\n\n"

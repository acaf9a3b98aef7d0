"""Asks an ASGI application without a network, from tests that are not asynchronous."""

import asyncio
import io
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from engine import PhotoIndex

T = TypeVar("T")


def with_client(app: FastAPI, use: Callable[[httpx.AsyncClient], Awaitable[T]]) -> T:
    """Runs `use` with a client of the application."""

    async def run() -> T:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=30) as client:
            return await use(client)

    return asyncio.run(run())


def ask(app: FastAPI, method: str, path: str, **request: Any) -> httpx.Response:
    """Returns the answer to one request."""
    return with_client(app, lambda client: client.request(method, path, **request))


def started(
    app: FastAPI, path: str, photo: bytes, send: Callable[[Any], Awaitable[None]], gone: asyncio.Event
) -> "asyncio.Task[None]":
    """Posts a photograph and passes each message of the answer to `send`; the client leaves when `gone` is set."""
    messages = [{"type": "http.request", "body": photo, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "query_string": b"", "scheme": "http"}
    scope |= {"headers": [(b"content-type", b"image/jpeg")], "http_version": "1.1", "asgi": {"version": "3.0"}}
    return asyncio.create_task(app(scope, receive, send))


def events(text: str) -> list[tuple[str, Any]]:
    """Returns the server-sent events of a body."""
    parts = [part.split("\n") for part in text.split("\n\n") if part]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


def problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """Returns the body of an answer that has to be a problem of a kind."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body.keys() == {"type", "title", "status", "detail", "request_id"}
    assert body["type"] == (kind if kind == "about:blank" else f"urn:captioning:{kind}")
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["detail"]
    return body


def logged(text: io.StringIO) -> list[dict[str, Any]]:
    """Returns what the fixture `lines` holds, once all is written."""
    (handler,) = logging.getLogger("serving.http").handlers
    handler.close()
    return [json.loads(line) for line in text.getvalue().splitlines()]


def parsed(text: str) -> dict[str, dict[str, float]]:
    """Returns name -> labels -> value, as Prometheus' own parser reads them; every sample has its help and type."""
    values: dict[str, dict[str, float]] = {}
    names: list[str] = []
    for family in text_string_to_metric_families(text):
        names.append(family.name)
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            assert labels not in values.setdefault(sample.name, {})
            values[sample.name][labels] = sample.value
    assert len(names) == len(set(names))
    return values


def id_of(index: PhotoIndex, path: Path) -> int:
    """Returns the number of the photograph in a file."""
    photo = index.caption(path)
    assert photo
    return photo.id


def told(answer: httpx.Response) -> list[tuple[int, float]]:
    """Returns the number and the score of each photograph of an answer."""
    assert answer.status_code == 200, answer.text
    return [(each["id"], each["score"]) for each in answer.json()["photos"]]

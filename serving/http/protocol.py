"""uvicorn's protocol with more limits: on headers, on requests sent ahead, and on idle and slow clients.

A client has some seconds for the headers of each request, and as many until the next one, or to accept what it is sent.
Data that is not a valid request is answered with a problem here, because the application never sees it.
"""

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.http.logs import log
from serving.http.problems import MEDIA_TYPE, http_problem

MAX_AHEAD = 16  # requests on a connection that wait behind the current one
MAX_HEAD = 64 * 1024  # bytes of request line and headers, after the packet in which they begin
TOLD = ("Invalid HTTP request", "Unsupported upgrade", "No supported WebSocket")  # has a line of ours, or needs none

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent


def protocol(seconds: float) -> type[asyncio.Protocol]:
    """Returns uvicorn's HTTP protocol, which closes connections that do nothing for some seconds."""
    logging.getLogger("uvicorn.error").addFilter(_is_news)

    class Protocol(HttpToolsProtocol):
        _late: asyncio.TimerHandle | None = None  # closes the connection if no headers have arrived by then
        _stuck: asyncio.TimerHandle | None = None  # closes the connection if the client reads nothing until then
        _head: int | None = None  # bytes of the headers that are arriving
        _begun = False  # whether they began in the current packet

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect()

        def on_message_begin(self) -> None:
            if len(self.pipeline) == MAX_AHEAD:
                raise BufferError("too many requests were sent ahead")  # refuses the rest of the packet
            super().on_message_begin()
            self._head, self._begun = 0, True
            self._expect()

        def on_header(self, name: bytes, value: bytes) -> None:
            if self._head is not None:  # trailers after a chunked body are of no use, and have no limit
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._head = None
            self._arrived()
            version = self.parser.get_http_version()
            given = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
            if any(value != b"chunked" for value in given):
                raise ValueError("an unknown transfer coding")  # a 400, like all errors here
            if version != "1.0" and [name for name, _ in self.headers].count(b"host") != 1:
                raise ValueError("no host, or several")
            super().on_headers_complete()
            if version == "1.0":
                self.cycle.__class__ = _Unchunked

        def data_received(self, data: bytes) -> None:
            self._begun = False
            super().data_received(data)
            if self._head is not None and not self._begun:
                self._head += len(data)
                if self._head > MAX_HEAD and not self.transport.is_closing():
                    self._refuse(431)

        def send_400_response(self, msg: str) -> None:
            self._refuse(400)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            working = self.cycle is not None and not self.cycle.response_complete  # on a request that was sent ahead
            if self._head is None and not working and not self.transport.is_closing():
                self._expect()  # the rest of a body, or line ends, do not count as a next request

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stuck = self.loop.call_later(seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._taken()

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrived()
            self._taken()
            super().connection_lost(exc)

        def _refuse(self, status: int) -> None:
            problem = http_problem(status, uuid.uuid4().hex)
            client = self.client[0] if self.client else ""
            log.warning("no request", extra={"request_id": problem.request_id, "status": status, "client": client})
            body = problem.model_dump_json().encode()
            lines = (
                f"HTTP/1.1 {status} {problem.title}",
                f"content-type: {MEDIA_TYPE}",
                f"content-length: {len(body)}",
                f"x-request-id: {problem.request_id}",
                "connection: close\r\n\r\n",
            )
            self.transport.write("\r\n".join(lines).encode() + body)
            self.transport.close()

        def _expect(self) -> None:
            self._arrived()
            self._late = self.loop.call_later(seconds, self.transport.close)

        def _taken(self) -> None:
            if self._stuck:
                self._stuck.cancel()
                self._stuck = None

        def _arrived(self) -> None:
            if self._late:
                self._late.cancel()
                self._late = None

    return Protocol


class _Unchunked(RequestResponseCycle):
    """Answers an HTTP/1.0 client, which knows no chunks: an answer without a length ends with the connection."""

    _endless = False

    async def send(self, message: "ASGISendEvent") -> None:
        if message["type"] == "http.response.start":
            self._endless = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
            self.chunked_encoding = False if self._endless else None
        elif message["type"] == "http.response.body" and self._endless:
            self.expected_content_length = len(message.get("body", b""))  # the rest, for uvicorn's check of the length
        await super().send(message)


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(TOLD)

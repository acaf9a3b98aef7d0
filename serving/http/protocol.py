"""uvicorn's protocol with limits on headers, which it has not: bytes, and seconds in which they have to arrive."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 1024  # bytes of request line and headers, counted by packets


def protocol(seconds: float) -> type[asyncio.Protocol]:
    """Returns uvicorn's HTTP protocol, whose clients have to send the headers of each request in some seconds."""

    class Protocol(HttpToolsProtocol):
        _late: asyncio.TimerHandle | None = None
        _head: int | None = None  # bytes of the headers that are coming

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._late = self.loop.call_later(seconds, transport.close)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._head = 0
            if not self._late:
                self._late = self.loop.call_later(seconds, self.transport.close)

        def on_headers_complete(self) -> None:
            self._head = None
            self._arrived()
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._head is not None:
                self._head += len(data)
                if self._head > MAX_HEAD and not self.transport.is_closing():
                    self.send_400_response("The headers are too large.")

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrived()
            super().connection_lost(exc)

        def _arrived(self) -> None:
            if self._late:
                self._late.cancel()
                self._late = None

    return Protocol

"""uvicorn's protocol with a time limit for headers, which uvicorn has not: a connection that only drips is closed."""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol


def protocol(seconds: float) -> type[asyncio.Protocol]:
    """Returns uvicorn's HTTP protocol, each request of which has to send its headers in some seconds."""
    base: Any = AutoHTTPProtocol

    class Protocol(base):  # type: ignore[misc]
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._expect_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._idle():
                self._expect_headers()  # of the next request, which has begun
            elif self._late:
                self._late.cancel()
                self._late = None

        def connection_lost(self, exc: Exception | None) -> None:
            if self._late:
                self._late.cancel()
            super().connection_lost(exc)

        def _idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _expect_headers(self) -> None:
            if self._late is None:
                self._late = self.loop.call_later(seconds, self._close)

        def _close(self) -> None:
            if self._idle() and not self.transport.is_closing():
                self.transport.close()

    return Protocol

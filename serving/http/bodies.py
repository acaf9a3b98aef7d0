"""Request bodies -> images and options, within limits that are checked while the bytes arrive. Decodes no image.

Everything stays in memory, within a budget for all requests together, so a full disk does no harm.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from serving.http.limits import Limits
from serving.http.problems import RETRY, Problem

MAX_FIELDS = 64
MAX_FIELD_BYTES = 16 * 1024
LINGER = 2.0  # seconds to read and discard the rest of a refused body, so that the client reads the answer
IMAGES = "images"  # the name of the files


@dataclass(frozen=True, slots=True)
class Upload:
    """The content of a request: image files, and options as names and texts, in their order."""

    images: list[bytes]
    options: list[tuple[str, str]]


class Budget:
    """The bytes of bodies that the service may hold at the same time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.held = 0

    def take(self, count: int) -> None:
        """Takes some bytes, which the caller gives back. Raises Problem if there are not enough."""
        if self.held + count > self.size:
            raise Problem("overloaded", "the memory for uploads is full: try again later", RETRY)
        self.held += count


class Bodies:
    """Reads the bodies of requests."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.budget = Budget(limits.max_held_bytes)

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[Upload]:
        """Reads the body of a request; its bytes count towards the budget until the end of the context.

        Raises Problem, and starlette's ClientDisconnect.
        """
        chunks = _Chunks(request, self.limits, self.budget)
        try:
            try:
                async with asyncio.timeout(self.limits.upload_timeout):
                    upload = await self._upload(request, chunks)
            except TimeoutError:
                raise Problem("slow", f"the body took longer than {self.limits.upload_timeout:g} seconds") from None
            except Problem:
                if not chunks.awaited:
                    await chunks.throw_away()
                raise
            yield upload
        finally:
            self.budget.held -= chunks.taken

    async def _upload(self, request: Request, chunks: "_Chunks") -> Upload:
        kind = parse_options_header(request.headers.get("content-type"))[0].decode("latin-1")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem("media-type", "the body is compressed: send it without Content-Encoding")
        chunks.check_announced()
        query = request.query_params.multi_items()
        if kind == "multipart/form-data":
            images, fields = await _multipart(request.headers, chunks, self.limits.max_images)
            return Upload(images, query + fields)
        if kind.startswith("image/") or kind == "application/octet-stream":
            return Upload([b"".join([chunk async for chunk in chunks.read()])], query)
        sent = f"the Content-Type is {kind}" if kind else "the request has no Content-Type"
        raise Problem("media-type", f"{sent}: send multipart/form-data, image/* or application/octet-stream")


class _Chunks:
    """The chunks of one body, counted as they arrive."""

    def __init__(self, request: Request, limits: Limits, budget: Budget) -> None:
        self._request = request
        self._stream = request.stream()
        self._most = limits.max_bytes
        self._budget = budget
        self.taken = 0
        self.awaited = request.headers.get("expect", "").lower() == "100-continue"
        """Whether the client sends its body only after it is asked to."""

    def check_announced(self) -> None:
        """Raises Problem if Content-Length says that the body is too large."""
        length = self._request.headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self._most:
            raise self._too_large()

    async def read(self) -> AsyncGenerator[bytes, None]:
        """Yields the chunks. Raises Problem as soon as they are too many bytes."""
        self.awaited = False
        async for chunk in self._stream:
            if self.taken + len(chunk) > self._most:
                raise self._too_large()
            self._budget.take(len(chunk))
            self.taken += len(chunk)
            yield chunk

    async def throw_away(self) -> None:
        """Reads the rest for a moment: if the connection closed while the client sends, it would not get the answer."""
        try:
            async with asyncio.timeout(LINGER):
                async for _ in self._stream:
                    pass
        except TimeoutError:
            pass

    def _too_large(self) -> Problem:
        return Problem("too-large", f"the body has more than {self._most:,} bytes", {"Connection": "close"})


async def _multipart(headers: Headers, chunks: _Chunks, max_images: int) -> tuple[list[bytes], list[tuple[str, str]]]:
    """Returns the image files and the fields of a form. Raises Problem."""
    parser = _Parser(headers, chunks.read(), max_images)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem("body", f"the multipart body is broken: {error.message}") from error
    except ValueError as error:  # a charset that Python knows, but not for text
        raise Problem("body", "the multipart body is broken: its text cannot be decoded") from error
    images: list[bytes] = []
    fields: list[tuple[str, str]] = []
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile) != (name == IMAGES):
                what = "is a file" if name != IMAGES else "is not a file (it has no filename)"
                raise Problem("body", f"the part {name!r} {what}: send images as files called {IMAGES!r}")
            if isinstance(value, UploadFile):
                images.append(await value.read())
            else:
                fields.append((name, value))
    finally:
        await form.close()
    if not images:
        raise Problem("body", f"no image was sent: the form needs a file called {IMAGES!r}")
    if len(images) > max_images:
        raise _too_many(max_images)
    return images, fields


class _Parser(MultiPartParser):
    """Starlette's parser, but it writes no files, stops at too many parts and accepts only complete bodies."""

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], max_images: int) -> None:
        most = max_images + MAX_FIELDS
        chunks = self._whole(stream)
        super().__init__(headers, chunks, max_files=most, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
        self.spool_max_size = 0  # no limit, so nothing is written to disk
        self._ended = False
        self._max_images = max_images
        self._parts = 0

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > self._max_images + MAX_FIELDS:
            raise _too_many(self._max_images)
        super().on_part_begin()

    def on_end(self) -> None:
        self._ended = True

    async def _whole(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not self._ended:
            raise MultiPartException("it ends before its closing boundary")


def _too_many(max_images: int) -> Problem:
    return Problem("too-large", f"a request may have at most {max_images} images and {MAX_FIELDS} fields")

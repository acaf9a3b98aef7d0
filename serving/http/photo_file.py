"""From a photograph's open file to an answer that no browser can take for anything but a picture. Knows no index."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from typing import BinaryIO
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

UNKNOWN = "application/octet-stream"
HEAD = 32  # bytes that tell the format
CHUNK = 256 * 1024
KINDS = (
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"RIFF....WEBP", "image/webp"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "image/tiff"),
    (rb"....ftyp(?:avif|avis)", "image/avif"),
    (rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", "image/heic"),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "image/jp2"),
    (rb"BM", "image/bmp"),
)
"""How files begin. None of these types lets a browser run what is in the file; all others are offered as a download."""
FILE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, max-age=3600",
    "Vary": "Authorization",  # a browser must not show what it kept to somebody without the token
}


def media_type_of(head: bytes) -> str:
    """Returns the media type of a photograph by its first bytes."""
    return next((kind for begins, kind in KINDS if re.match(begins, head, re.DOTALL)), UNKNOWN)


def base_name(path: str) -> str:
    """Returns a file's name without its folders, in characters that JSON and headers can hold."""
    return os.path.basename(path).encode(errors="backslashreplace").decode()  # noqa: PTH119 - Path takes "a/" for "a"


class PhotoFile(StreamingResponse):
    """The bytes of a file, whose end closes it, whatever happens."""

    def __init__(self, file: BinaryIO, name: str, tag: str) -> None:
        """name: of the file, for those who save it. tag: the ETag."""
        self._file = file
        kind = media_type_of(file.read(HEAD))
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        told = {
            "Content-Length": str(length),
            "Content-Disposition": f"inline; filename*=UTF-8''{quote(name, safe='')}",
        }
        super().__init__(self._chunks(), headers=FILE_HEADERS | told | {"ETag": tag}, media_type=kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while chunk := await asyncio.to_thread(self._file.read, CHUNK):
            yield chunk


def small_picture(content: bytes, tag: str) -> Response:
    """Returns the answer with a thumbnail."""
    return Response(content, headers=FILE_HEADERS | {"ETag": tag}, media_type="image/jpeg")


def unchanged(given: str | None, tag: str) -> Response | None:
    """Returns the answer for a client that has this version already, by its If-None-Match; None for others."""
    held = {each.strip().removeprefix("W/") for each in (given or "").split(",")}
    return Response(status_code=304, headers=FILE_HEADERS | {"ETag": tag}) if held & {tag, "*"} else None

"""Whatever is sent, the answer is a caption or a problem, and never a failure of the service."""

import asyncio
import io
import random
from collections.abc import AsyncIterator
from urllib.parse import quote

import httpx
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.decoding_options import OPTIONS
from tests.serving.calls import ask

PATHS = st.sampled_from(["/v1/captions", "/v1/captions/stream"])
SEARCHES = st.sampled_from(
    ["/v1/search", "/v1/similar", "/v1/photos/{}", "/v1/photos/{}/thumbnail", "/v1/photos/{}/file", "/v1/photos/1{}"]
)
WANTED = st.sampled_from(["q", "id", "limit"]) | st.text(max_size=5)
KINDS = st.sampled_from(
    [
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        "image/png",
        "application/octet-stream",
        "text/plain",
        "",
    ]
) | st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=40)
NAMES = st.sampled_from(["decoding", "images", *OPTIONS]) | st.text(max_size=10)
VALUES = (
    st.sampled_from(
        ["greedy", "beam", "sample", "nan", "-inf", "1e999", "-0", "0x10", "1_0", "9" * 4400, "\0", "💥", ""]
    )
    | st.integers().map(str)
    | st.floats().map(str)
    | st.text(max_size=30)
)


def photo() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((40, 30), 50).convert("RGB").save(file, "JPEG")
    return file.getvalue()


PHOTO = photo()


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Cuts, flips, doubles or stuffs bytes."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        what = draw(st.sampled_from(["cut", "flip", "double", "stuff", "drop"]))
        if what == "cut":
            del data[at:]
        elif what == "flip" and at < len(data):
            data[at] ^= draw(st.integers(1, 255))
        elif what == "double":
            data[at:at] = data[: draw(st.integers(0, 200))]
        elif what == "stuff":
            data[at:at] = draw(
                st.binary(max_size=20) | st.sampled_from([b"\r\n", b"--b", b"\r\n--b--\r\n", b"\r\n\r\n"])
            )
        else:
            del data[at : at + draw(st.integers(0, 50))]
    return bytes(data)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A form, an image or anything, more or less damaged."""
    if draw(st.booleans()):
        return draw(damaged(PHOTO) | st.binary(max_size=300))
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        name = draw(NAMES).encode("utf-8", "replace")
        filename = draw(st.sampled_from([b"", b'; filename="x.jpg"', b'; filename=""', b"; filename*=utf-8''x"]))
        head = b'--b\r\nContent-Disposition: form-data; name="' + name + b'"' + filename + b"\r\n\r\n"
        content = draw(st.sampled_from([PHOTO, b""]) | VALUES.map(lambda text: text.encode("utf-8", "replace")))
        parts.append(head + content + b"\r\n")
    return draw(damaged(b"".join(parts) + b"--b--\r\n"))


def send(app: FastAPI, path: str, kind: str, query: list[tuple[str, str]], body: bytes) -> httpx.Response:
    async def chunks() -> AsyncIterator[bytes]:
        step = random.Random(len(body)).randint(1, 200)
        for at in range(0, len(body), step):
            yield body[at : at + step]

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = [(b"content-type", kind.encode("latin-1"))] if kind else []
            return await client.post(path, params=httpx.QueryParams(tuple(query)), headers=headers, content=chunks())

    return asyncio.run(run())


def is_told_well(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        body = answer.json()
        assert body["status"] == answer.status_code
        assert "0x7" not in body["detail"]
        assert "Traceback" not in body["detail"]
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert "event: error" not in answer.text


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=PATHS, kind=KINDS, query=st.lists(st.tuples(NAMES, VALUES), max_size=4), body=bodies())
def test_no_body_and_no_option_ends_in_a_500(
    app: FastAPI, path: str, kind: str, query: list[tuple[str, str]], body: bytes
) -> None:
    query = [(name, value.encode("utf-8", "replace").decode()) for name, value in query if name not in SLOW]
    is_told_well(send(app, path, kind, query, body))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=SEARCHES, number=VALUES, query=st.lists(st.tuples(WANTED, VALUES), max_size=4))
def test_no_search_and_no_number_ends_in_a_500(
    search_app: FastAPI, path: str, number: str, query: list[tuple[str, str]]
) -> None:
    query = [(name, value.encode("utf-8", "replace").decode()) for name, value in query]
    number = quote(number.encode("utf-8", "replace"), safe="")
    is_told_well(ask(search_app, "GET", path.format(number), params=httpx.QueryParams(tuple(query))))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(kind=KINDS, query=st.lists(st.tuples(WANTED, VALUES), max_size=2), body=bodies())
def test_no_image_to_compare_ends_in_a_500(
    search_app: FastAPI, kind: str, query: list[tuple[str, str]], body: bytes
) -> None:
    query = [(name, value.encode("utf-8", "replace").decode()) for name, value in query]
    is_told_well(send(search_app, "/v1/similar", kind, query, body))


SLOW = {"num_samples", "beam_size", "num_hypotheses", "max_length"}  # all fine, and all may take long


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=damaged(PHOTO), kind=st.sampled_from(["image/jpeg", "application/octet-stream"]))
def test_no_damaged_photograph_ends_in_a_500(app: FastAPI, body: bytes, kind: str) -> None:
    is_told_well(send(app, "/v1/captions", kind, [("max_length", "3")], body))

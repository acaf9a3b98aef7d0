"""No request costs more than the limits say, and what makes no sense is refused in plain words, while it comes."""

import asyncio
import io
import re
import struct
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from engine import Captioner, OptionsError, Sample, Scheduler
from serving.decoding_options import read_decoding
from serving.http.app import create_app
from serving.http.limits import Limits
from tests.serving.calls import ask, problem, with_client
from tests.serving.stand_in import StandIn

JPEG = {"Content-Type": "image/jpeg"}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def part(name: str, content: bytes, filename: str | None = "x") -> bytes:
    named = f'; filename="{filename}"' if filename else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + content + b"\r\n"


def chunk(name: bytes, data: bytes) -> bytes:
    """Returns a chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width: int, height: int) -> bytes:
    """Returns a PNG of a few bytes that says it has very many pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.fixture
def small(scheduler: Scheduler) -> FastAPI:
    """A service that takes little."""
    return create_app(scheduler, limits=Limits(max_bytes=50_000, max_images=2, upload_timeout=0.2), warm=False)


class Counted:
    """A body in chunks, with no length told, that knows how much of it was taken."""

    def __init__(self, chunks: int, chunk: bytes = b"x" * 1000, start: bytes = b"") -> None:
        self.chunks, self.chunk, self.start = chunks, chunk, start
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.start
        for _ in range(self.chunks):
            self.taken += 1
            yield self.chunk


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_kept(small: FastAPI) -> None:
    answer = ask(small, "POST", "/v1/captions", content=b"x" * 50_001, headers=JPEG)
    assert "50,000 bytes" in problem(answer, 413, "too-large")["detail"]
    assert ask(small, "POST", "/v1/captions", content=b"x" * 50_000, headers=JPEG).status_code == 422


@pytest.mark.parametrize(("headers", "start"), [(JPEG, b""), (FORM, part("images", b"")[:-2])])
def test_a_body_of_unknown_length_is_refused_at_its_limit(
    small: FastAPI, headers: dict[str, str], start: bytes
) -> None:
    problem(ask(small, "POST", "/v1/captions", content=Counted(60, start=start), headers=headers), 413, "too-large")


@pytest.mark.parametrize("length", ["-1", "9" * 5000, "٣"])
def test_a_length_that_is_no_length_harms_nobody(small: FastAPI, length: str) -> None:
    headers = [(b"content-type", b"image/png"), (b"content-length", length.encode())]
    assert ask(small, "POST", "/v1/captions", content=Counted(1), headers=headers).status_code in (413, 422)


def test_too_many_images_or_fields_are_refused(small: FastAPI) -> None:
    three = b"".join(part("images", b"x") for _ in range(3)) + b"--b--\r\n"
    problem(ask(small, "POST", "/v1/captions", content=three, headers=FORM), 413, "too-large")
    many = b"".join(part("suppress", b"x", None) for _ in range(100)) + b"--b--\r\n"
    assert ask(small, "POST", "/v1/captions", content=many, headers=FORM).status_code in (400, 413)


def test_a_body_that_stops_coming_is_given_up(small: FastAPI) -> None:
    class Stalled(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.Event().wait()

    problem(ask(small, "POST", "/v1/captions", content=Stalled(), headers=JPEG), 408, "slow")


def test_all_bodies_together_have_a_budget_that_is_given_back(captioner: Captioner, photos: list[bytes]) -> None:
    stand_in = StandIn(captioner)
    app = create_app(stand_in, limits=Limits(max_bytes=len(photos[0]), max_held_bytes=len(photos[0]) + 10), warm=False)

    async def use(client: httpx.AsyncClient) -> list[httpx.Response]:
        first = asyncio.create_task(client.post("/v1/captions", content=photos[0], headers=JPEG))
        while not stand_in.futures and not first.done():
            await asyncio.sleep(0)
        refused = await client.post("/v1/captions", content=photos[0], headers=JPEG)
        stand_in.answer()
        done = await first
        held = await client.get("/metrics")
        return [done, refused, held]

    done, refused, held = with_client(app, use)
    assert done.status_code == 200
    problem(refused, 429, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert "http_held_bytes 0.0\n" in held.text


def test_a_stream_keeps_nothing_of_its_photograph_once_the_scheduler_has_it(captioner: Captioner) -> None:
    stand_in = StandIn(captioner)  # which keeps nothing either
    app = create_app(stand_in, warm=False)

    async def use(client: httpx.AsyncClient) -> tuple[int, str]:
        await client.get("/metrics")  # so that what is made once is made
        before = tracemalloc.get_traced_memory()[0]
        body = Counted(8000)  # 8 MB
        asking = asyncio.create_task(client.post("/v1/captions/stream", content=body, headers=JPEG))
        while not stand_in.words and not asking.done():
            await asyncio.sleep(0.001)
        stand_in.words[0].put(["a"])
        while "http_held_bytes 0.0\n" not in (told := await client.get("/metrics")).text:
            await asyncio.sleep(0.001)
        kept = tracemalloc.get_traced_memory()[0] - before
        stand_in.answer()
        await asking
        return kept, told.text

    tracemalloc.start()
    try:
        kept, _ = with_client(app, use)
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000


def test_a_budget_below_one_body_is_refused() -> None:
    with pytest.raises(OptionsError, match="max_held_bytes must be at least max_bytes"):
        Limits(max_bytes=1000, max_held_bytes=999)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (JPEG | {"Content-Length": "60000"}, 413),
        ({"Content-Type": "text/plain"}, 415),
        (JPEG | {"Authorization": "Bearer wrong"}, 401),
    ],
)
def test_a_client_that_waits_with_its_body_is_refused_without_it(
    scheduler: Scheduler, headers: dict[str, str], status: int
) -> None:
    app = create_app(scheduler, limits=Limits(max_bytes=50_000), tokens=[b"right"], warm=False)
    body = Counted(60)
    given = {"Authorization": "Bearer right"} | headers | {"Expect": "100-continue"}
    answer = ask(app, "POST", "/v1/captions", content=body, headers=given)
    assert answer.status_code == status
    assert answer.headers["connection"] == "close"
    assert body.taken == 0


@pytest.mark.parametrize("size", [(2_147_483_647, 2_147_483_647), (2001, 2000)])
def test_a_bomb_of_pixels_is_not_unpacked(app: FastAPI, size: tuple[int, int]) -> None:
    told = problem(ask(app, "POST", "/v1/captions", content=bomb(*size), headers=JPEG), 422, "image")
    if size[0] < 2**31 - 1:
        assert told["detail"].endswith("more than the limit of 4,000,000")  # without advice for programmers


def test_a_format_that_photographs_do_not_come_in_is_refused_without_advice_for_programmers(app: FastAPI) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "QOI")
    told = problem(ask(app, "POST", "/v1/captions", content=file.getvalue(), headers=JPEG), 422, "image")
    assert told["detail"] == "the image is a file in the format QOI, which is not read by default"


def test_a_bomb_of_text_is_told_in_plain_words(app: FastAPI) -> None:
    packed = zlib.compress(b"a" * 2_000_000)
    head = bomb(10, 10)[:33]
    for text in (chunk(b"zTXt", b"x\0\0" + packed), chunk(b"iCCP", b"x\0\0" + packed)):
        content = head + text + bomb(10, 10)[33:]
        told = problem(ask(app, "POST", "/v1/captions", content=content, headers=JPEG), 422, "image")
        assert "too large when unpacked" in told["detail"]


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({}, b"x"),
        ({"Content-Type": "application/json"}, b'{"image": "http://example.com/cat.jpg"}'),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"images=x"),
        ({"Content-Type": "image/png", "Content-Encoding": "gzip"}, b"x"),
    ],
)
def test_other_bodies_are_not_taken(app: FastAPI, headers: dict[str, str], content: bytes) -> None:
    problem(ask(app, "POST", "/v1/captions", content=content, headers=headers), 415, "media-type")


whole = part("images", b"x") + part("decoding", b"beam", None) + b"--b--\r\n"
BROKEN = {
    "cut in a header": whole[:30],
    "cut in a file": whole[:75],
    "cut in its end": whole[:-4],
    "empty": b"",
    "no boundary": b"hello",
    "no image": part("decoding", b"beam", None) + b"--b--\r\n",
    "a file of another name": part("image", b"x") + b"--b--\r\n",
    "an option that is a file": part("images", b"x") + part("decoding", b"beam") + b"--b--\r\n",
    "an option as large as an image": part("images", b"x") + part("prefix", b"a" * 20_000, None) + b"--b--\r\n",
    "headers without end": b"--b\r\n" + b"X: y\r\n" * 1000,
    "a part without a name": b"--b\r\nContent-Type: image/png\r\n\r\nx\r\n--b--\r\n",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_forms_are_told_so(app: FastAPI, fault: str) -> None:
    problem(ask(app, "POST", "/v1/captions", content=BROKEN[fault], headers=FORM), 400, "body")


@pytest.mark.parametrize("kind", ["", "; boundary=", "; boundary=" + "b" * 300, "; boundary=b; charset=idna"])
def test_forms_with_strange_boundaries_are_told_so(app: FastAPI, kind: str) -> None:
    body = part("decoding", b"\xff.\xfe" * 100, None) + part("images", b"x") + b"--b--\r\n"
    answer = ask(app, "POST", "/v1/captions", content=body, headers={"Content-Type": f"multipart/form-data{kind}"})
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize(
    "options",
    [
        {"decoding": "magic"},
        {"decoding": ["greedy", "beam"]},
        {"colour": "red"},
        {"temperature": "0.5"},
        {"decoding": "beam", "beam_size": "0"},
        {"decoding": "beam", "beam_size": "3.0"},
        {"decoding": "beam", "beam_size": "٣"},
        {"decoding": "beam", "beam_size": "9" * 5000},
        {"decoding": "beam", "beam_size": "999999999999999999"},
        {"decoding": "sample", "temperature": "nan"},
        {"decoding": "sample", "temperature": "-1e400"},
        {"decoding": "sample", "temperature": ""},
        {"decoding": "sample", "temperature": " 1"},
        {"decoding": "sample", "temperature": "1_0"},
        {"decoding": "sample", "temperature": "0x1p3"},
        {"decoding": ["sample"], "seed": ["1", "2"]},
        {"style": "shouted"},
        {"prefix": "xyzzy plugh"},
    ],
)
def test_options_without_sense_are_told_so(app: FastAPI, photos: list[bytes], options: dict[str, Any]) -> None:
    answer = ask(app, "POST", "/v1/captions", content=photos[0], headers=JPEG, params=options)
    told = problem(answer, 422, "options")
    assert len(told["detail"]) <= 300
    assert not re.search(r"Greedy|Beam|Sample|Scheduler|\(\)", told["detail"])  # names of Python's


def test_a_stream_refuses_them_before_it_begins(app: FastAPI, photos: list[bytes]) -> None:
    for options in ({"decoding": "magic"}, {"decoding": "sample", "num_samples": "1000000"}):
        answer = ask(app, "POST", "/v1/captions/stream", content=photos[0], headers=JPEG, params=options)
        problem(answer, 422, "options")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"decoding": "sample", "seed": "-3"}, "seed=-3: seed must be a whole number from 0"),
        ({"decoding": "beam", "beam_size": "1000"}, "beam_size=1000: beam_size must be at most 256, which is "),
    ],
)
def test_a_refused_option_is_named_with_its_value_and_what_it_must_be(
    app: FastAPI, photos: list[bytes], options: dict[str, str], told: str
) -> None:
    answer = ask(app, "POST", "/v1/captions", content=photos[0], headers=JPEG, params=options)
    assert told in problem(answer, 422, "options")["detail"]


@pytest.mark.parametrize(
    "options",
    [
        {"decoding": "sample", "temperature": "1e-300", "seed": "1"},
        {"decoding": "sample", "temperature": "1e300", "seed": "999999999999999999"},
        {"decoding": "sample", "top_k": "999999999999999999", "top_p": "1e-300"},
        {"no_repeat_ngram_size": "999999999999999999"},
    ],
)
def test_options_at_the_edge_of_sense_are_captioned(app: FastAPI, photos: list[bytes], options: dict[str, str]) -> None:
    answer = ask(app, "POST", "/v1/captions", content=photos[0], headers=JPEG, params=options)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("number", ["1", "+1.", ".5", "1.50", "5e-1", "1E+0"])
def test_numbers_are_read_in_every_plain_form(number: str) -> None:
    decoding = read_decoding([("decoding", "sample"), ("temperature", number)])
    assert decoding == Sample(temperature=float(number))

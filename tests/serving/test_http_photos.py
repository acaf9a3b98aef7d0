"""Photographs of an index over HTTP: only they are shown, and only as pictures; and what those who run it rely on."""

import asyncio
import io
import os
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from engine import Captioner, PhotoIndex, Results, Scheduler, StoreError
from engine.search import thumbnails
from serving.http import photographs
from serving.http.__main__ import main
from serving.http.app import create_app
from serving.http.limits import Limits
from serving.http.photo_file import base_name, media_type_of
from serving.http.photographs import Photographs
from tests.serving.calls import ask, id_of, logged, parsed, problem, told, with_client
from tests.serving.conftest import SAMPLES

PICTURES = ["/v1/photos/{}/thumbnail", "/v1/photos/{}/file"]


def test_a_thumbnail_is_made_once_and_kept_by_the_browser_too(
    own: FastAPI, index: PhotoIndex, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    make = thumbnails.as_jpeg

    def counted(source: Any, side: int, **limits: Any) -> bytes:
        made.append(side)
        return make(source, side, **limits)

    monkeypatch.setattr(thumbnails, "as_jpeg", counted)
    path = PICTURES[0].format(id_of(index, album / "cat.jpg"))
    first = ask(own, "GET", path)
    assert first.headers["content-type"] == "image/jpeg"
    assert first.headers["cache-control"].startswith("private, max-age=")
    assert first.headers["vary"] == "Authorization"
    small = Image.open(io.BytesIO(first.content))
    whole = Image.open(io.BytesIO((album / "cat.jpg").read_bytes()))
    assert max(small.size) == 480
    assert small.width / small.height == pytest.approx(whole.width / whole.height, rel=0.01)
    assert ask(own, "GET", path).content == first.content
    assert made == [480]
    for known in (first.headers["etag"], f'"x", W/{first.headers["etag"]}', "*"):
        again = ask(own, "GET", path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    assert ask(own, "GET", path, headers={"If-None-Match": '"x"'}).status_code == 200
    head = ask(own, "HEAD", path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", first.headers["etag"])


def test_a_file_is_shown_byte_for_byte_and_nothing_in_it_can_run(own: FastAPI, index: PhotoIndex, album: Path) -> None:
    picture = Image.open(SAMPLES / "rocket.jpg").resize((64, 48))
    picture.save(album / "disguised.jpg", "GIF", comment=b"<script>alert(1)</script>")
    name = 'a "b"\r\nSet-Cookie: c;\u2028ü\udcff.jpg'
    os.rename(album / "coffee.jpg", os.fsencode(album / name))  # noqa: PTH104
    index.add([album])
    for path, kind, shown in (
        (album / "cat.jpg", "image/jpeg", "cat.jpg"),
        (album / "disguised.jpg", "image/gif", "disguised.jpg"),
        (album / name, "image/jpeg", "a%20%22b%22%0D%0ASet-Cookie%3A%20c%3B%E2%80%A8%C3%BC%5Cudcff.jpg"),
    ):
        answer = ask(own, "GET", PICTURES[1].format(id_of(index, path)))
        assert answer.content == path.read_bytes()
        assert answer.headers["content-length"] == str(len(answer.content))
        assert answer.headers["content-type"] == kind
        assert answer.headers["content-disposition"] == f"inline; filename*=UTF-8''{shown}"
        assert "set-cookie" not in answer.headers
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        same = ask(own, "GET", str(answer.url), headers={"If-None-Match": answer.headers["etag"]})
        assert same.status_code == 304


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"<html><script>",
        b"<?xml version='1.0'?><svg",
        b"\xef\xbb\xbf<svg",
        b"%PDF-1.7",
        b"#!/bin/sh",
        b"RIFF1234WAVE",
    ],
)
def test_what_is_no_photograph_has_no_type_that_a_browser_shows(head: bytes) -> None:
    assert media_type_of(head) == "application/octet-stream"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000"])
def test_the_type_is_that_of_the_content(kind: str) -> None:
    file = io.BytesIO()
    try:
        Image.new("RGB", (32, 32)).save(file, kind)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {kind}")
    named = {"JPEG2000": "image/jp2"}.get(kind, f"image/{kind.lower()}")
    assert media_type_of(file.getvalue()[:32]) == named


def test_a_name_has_no_folders_and_only_characters_that_json_can_hold() -> None:
    assert base_name("/home/anna/\udcffa.jpg") == "\\udcffa.jpg"


def test_a_photograph_that_is_gone_says_so_until_the_index_forgets_it(
    own: FastAPI, index: PhotoIndex, album: Path
) -> None:
    number = id_of(index, album / "cat.jpg")
    paths = [path.format(number) for path in PICTURES]
    etags = [ask(own, "GET", path).headers["etag"] for path in paths]
    (album / "cat.jpg").unlink()
    for path, etag in zip(paths, etags, strict=True):
        for headers in ({}, {"If-None-Match": etag}):
            detail = problem(ask(own, "GET", path, headers=headers), 404, "photo")["detail"]
            assert detail == f"the file of photograph {number} is gone, or was changed since it was indexed"
    assert ask(own, "GET", f"/v1/photos/{number}").status_code == 200
    index.add([album])
    for path in (*paths, f"/v1/photos/{number}", f"/v1/similar?id={number}"):
        problem(ask(own, "GET", path), 404, "photo")
    assert number not in [id_ for id_, _ in told(ask(own, "GET", "/v1/search?q=a+dog+and+a+man"))]


def test_what_takes_the_place_of_a_photograph_is_never_shown(own: FastAPI, index: PhotoIndex, album: Path) -> None:
    path = album / "cat.jpg"
    number, size = id_of(index, path), path.stat().st_size
    secret = album.parent / "secret"
    secret.write_bytes(b"secret" * (size // 6) + b"s" * (size % 6))
    path.unlink()
    path.symlink_to(secret)
    for picture in PICTURES:
        assert b"secretsecret" not in ask(own, "GET", picture.format(number)).content
        problem(ask(own, "GET", picture.format(number)), 404, "photo")


# ---- operated


def test_an_index_that_cannot_be_read_is_a_problem_whose_cause_is_only_in_the_log(
    own: FastAPI, index: PhotoIndex, monkeypatch: pytest.MonkeyPatch, lines: io.StringIO
) -> None:
    def fail(*_: object) -> Results:
        raise StoreError(f"{index.path}: the disk could not be read")

    monkeypatch.setattr(index, "search", fail)
    answer = ask(own, "GET", "/v1/search?q=dog")
    assert index.path not in problem(answer, 503, "store")["detail"]
    assert answer.headers["retry-after"] == "1"
    assert any(index.path in line.get("trace", "") for line in logged(lines))


def test_too_many_searches_are_refused_and_a_slow_one_ends(
    own: FastAPI, index: PhotoIndex, vector_scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, results, running = threading.Event(), index.search("dog"), threading.Semaphore(0)

    def wait(*_: object) -> Results:
        running.release()
        go.wait(30)
        return results

    monkeypatch.setattr(index, "search", wait)
    monkeypatch.setattr(photographs, "ROOM", 2)
    app = create_app(vector_scheduler, warm=False, index=index)

    async def use(client: httpx.AsyncClient) -> None:
        first = [asyncio.create_task(client.get("/v1/search?q=dog")) for _ in range(2)]
        for _ in first:
            await asyncio.to_thread(running.acquire, timeout=30)
        refused = await client.get("/v1/search?q=dog")
        problem(refused, 429, "overloaded")
        assert refused.headers["retry-after"] == "1"
        go.set()
        assert [(await each).status_code for each in first] == [200, 200]
        assert (await client.get("/v1/search?q=dog")).status_code == 200

    with_client(app, use)
    go.clear()
    hasty = create_app(vector_scheduler, warm=False, index=index, limits=Limits(timeout=0.05))
    detail = problem(ask(hasty, "GET", "/v1/search?q=dog"), 504, "deadline")["detail"]
    assert detail == "the index did not answer within 0.05 seconds"
    go.set()


def test_the_metrics_know_routes_and_no_numbers(vector_scheduler: Scheduler, samples_index: PhotoIndex) -> None:
    app = create_app(vector_scheduler, warm=False, index=samples_index)
    for path in ("/v1/photos/1", "/v1/photos/2", "/v1/photos/1/thumbnail", "/v1/photos/77777/file", "/v1/photos/x"):
        ask(app, "GET", path)
    requests = parsed(ask(app, "GET", "/metrics").text)["http_requests_total"]
    assert requests == {
        'method="GET",path="/v1/photos/{id}",status="200"': 2,
        'method="GET",path="/v1/photos/{id}/thumbnail",status="200"': 1,
        'method="GET",path="/v1/photos/{id}/file",status="404"': 1,
        'method="GET",path="other",status="404"': 1,
    }


def test_when_the_model_changes_the_index_is_searched_with_the_new_one(
    index: PhotoIndex, vector_captioner: Captioner, attention_bundle: Path, album: Path
) -> None:
    other = Captioner(attention_bundle, provider="cpu", precision="fp32")
    with Scheduler(vector_captioner) as scheduler:
        app = create_app(scheduler, warm=False, index=index)
        assert ask(app, "GET", "/v1/search?q=dog").json()["left_out"] == 0
        scheduler.swap(other)
        answer = ask(app, "GET", "/v1/search?q=dog").json()
        assert (answer["photos"], answer["left_out"]) == ([], 2)
        assert index._stores == []  # nobody else has it
        assert answer["model"] == other.bundle.manifest.name
        problem(ask(app, "GET", "/v1/photos/1"), 404, "photo")
        with PhotoIndex(index.path, other) as again:
            again.add([album])
        assert ask(app, "GET", "/v1/photos/1").status_code == 200


def test_warm_up_reads_the_index_and_the_end_closes_it(
    index: PhotoIndex, vector_scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    search = index.search

    def noted(text: str, limit: int = 20) -> Results:
        asked.append(text)
        return search(text, limit)

    monkeypatch.setattr(index, "search", noted)
    held = Photographs(index, vector_scheduler, 30)
    asyncio.run(held.warm_up())
    assert asked == ["a photograph"]
    assert index._stores
    held.close()
    assert index._stores == []


def test_no_index_where_one_is_named_ends_the_start_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], attention_bundle: Path
) -> None:
    options = ["--port", "0", "--bundle", str(attention_bundle), "--precision", "fp32"]
    assert main([*options, "--index", str(tmp_path / "none.db")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: there is no index {tmp_path / 'none.db'}: `python -m engine index PHOTOS")
    (tmp_path / "text.db").write_text("no index " * 100, encoding="utf-8")
    assert main([*options, "--index", str(tmp_path / "text.db")]) == 2
    assert "is no index of photographs" in capsys.readouterr().err

"""Photographs of an index over HTTP: found as the engine finds them, and only its own are shown."""

import asyncio
import io
import os
import shutil
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote

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
from tests.serving.calls import ask, logged, parsed, problem, with_client
from tests.serving.conftest import SAMPLES

JPEG = {"Content-Type": "image/jpeg"}
ROUTES = [
    ("GET", "/v1/search?q=dog"),
    ("GET", "/v1/similar?id=1"),
    ("POST", "/v1/similar"),
    ("GET", "/v1/photos/1"),
    ("GET", "/v1/photos/1/thumbnail"),
    ("GET", "/v1/photos/1/file"),
]
PICTURES = ["/v1/photos/{}/thumbnail", "/v1/photos/{}/file"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two photographs."""
    (tmp_path / "private").mkdir()
    for name in ("cat.jpg", "coffee.jpg"):
        shutil.copyfile(SAMPLES / name, tmp_path / "private" / name)
    return tmp_path / "private"


@pytest.fixture
def index(folder: Path, vector_captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> PhotoIndex:
    """An index of that folder, and an empty cache."""
    monkeypatch.setenv("CAPTIONING_ENGINE_CACHE", str(folder.parent / "cache"))
    index = PhotoIndex(folder.parent / "photos.db", vector_captioner)
    index.add([folder])
    return index


@pytest.fixture
def own(index: PhotoIndex, vector_scheduler: Scheduler) -> FastAPI:
    """The service with that index."""
    return create_app(vector_scheduler, warm=False, index=index)


def id_of(index: PhotoIndex, path: Path) -> int:
    photo = index.caption(path)
    assert photo
    return photo.id


def told(answer: httpx.Response) -> list[tuple[int, float]]:
    """Returns the number and the score of each photograph of an answer."""
    assert answer.status_code == 200, answer.text
    return [(each["id"], each["score"]) for each in answer.json()["photos"]]


def expected(results: Results) -> list[tuple[int, float]]:
    return [(found.photo.id, round(found.score, 4)) for found in results]


# ---- found


@pytest.mark.parametrize("query", ["a man and a dog", "dogs", "cat word7", "ein Hund", "two men near the blue house"])
@pytest.mark.parametrize("limit", [None, 1, 4, 1000])
def test_a_search_is_the_engines(search_app: FastAPI, samples_index: PhotoIndex, query: str, limit: int | None) -> None:
    answer = ask(search_app, "GET", "/v1/search", params={"q": query} | ({"limit": limit} if limit else {}))
    assert told(answer) == expected(samples_index.search(query, limit or 20))
    assert answer.json()["left_out"] == 0
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert answer.json()["model"] == samples_index.captioner.bundle.manifest.name


def test_likeness_is_the_engines(search_app: FastAPI, samples_index: PhotoIndex, photos: list[bytes]) -> None:
    number = id_of(samples_index, SAMPLES / "cat.jpg")
    answer = ask(search_app, "GET", f"/v1/similar?id={number}&limit=3")
    assert told(answer) == expected(samples_index.similar(number, 3))
    assert number not in [id_ for id_, _ in told(answer)]
    whole = expected(samples_index.similar(photos[0], 4))
    assert whole[0][0] == number  # itself: the service does not know where the upload comes from
    ways: list[dict[str, Any]] = [
        {"content": photos[0], "headers": JPEG, "params": {"limit": 4}},
        {"files": [("images", ("a.jpg", photos[0]))], "data": {"limit": "4"}},
    ]
    for way in ways:
        assert told(ask(search_app, "POST", "/v1/similar", **way)) == whole


def test_a_record_is_the_engines_without_folders(own: FastAPI, index: PhotoIndex, folder: Path) -> None:
    shutil.copyfile(folder / "cat.jpg", folder / "copy.jpg")
    index.add([folder])
    photo = index.caption(folder / "cat.jpg")
    assert photo
    record = ask(own, "GET", f"/v1/photos/{photo.id}").json()
    assert record["name"] == "cat.jpg"
    assert record["copies"] == 2
    assert {name: record[name] for name in ("id", "sha256", "size", "modified")} == {
        name: getattr(photo, name) for name in ("id", "sha256", "size", "modified")
    }
    assert [each["caption"] for each in record["alternatives"]] == [each.text for each in photo.alternatives]
    assert record["caption"] == photo.text
    for path in ("/v1/search?q=a+dog", f"/v1/similar?id={photo.id}", f"/v1/photos/{photo.id}", "/v1/model"):
        assert str(folder.parent) not in ask(own, "GET", path).text


def test_what_another_process_indexes_is_found_at_once(own: FastAPI, index: PhotoIndex, folder: Path) -> None:
    number = id_of(index, folder / "cat.jpg")
    assert len(told(ask(own, "GET", f"/v1/similar?id={number}"))) == 1
    shutil.copyfile(SAMPLES / "rocket.jpg", folder / "rocket.jpg")
    with PhotoIndex(index.path, index.captioner) as other:
        other.add([folder])
    assert len(told(ask(own, "GET", f"/v1/similar?id={number}"))) == 2


def test_the_model_says_what_can_be_searched(search_app: FastAPI, app: FastAPI) -> None:
    for service, there in ((search_app, True), (app, False)):
        model = ask(service, "GET", "/v1/model").json()
        assert (model["search"], model["similar"]) == (there, there)


# ---- refused


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_an_index_every_route_says_so(app: FastAPI, method: str, path: str) -> None:
    body: dict[str, Any] = {"content": b"x", "headers": JPEG} if method == "POST" else {}
    assert "--index" in problem(ask(app, method, path, **body), 404, "index")["detail"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_needs_the_token_and_no_other_site_may_ask(
    vector_scheduler: Scheduler, samples_index: PhotoIndex, photos: list[bytes], method: str, path: str
) -> None:
    guarded = create_app(vector_scheduler, warm=False, index=samples_index, tokens=[b"first"], hosts=["here"])
    body = {"content": photos[0]} if method == "POST" else {}
    headers = JPEG | {"Host": "here", "Authorization": "Bearer first"}
    assert ask(guarded, method, path, headers=headers, **body).status_code == 200
    problem(ask(guarded, method, path, headers=headers | {"Authorization": "Bearer second"}, **body), 401, "token")
    problem(ask(guarded, method, path, headers=headers | {"Host": "evil.example"}, **body), 421, "host")
    foreign = headers | {"Sec-Fetch-Site": "cross-site"}
    problem(ask(guarded, method, path, headers=foreign, **body), 403, "cross-site")


def test_a_model_without_vectors_finds_words_and_says_that_it_cannot_compare(
    attention_bundle: Path, folder: Path, tmp_path: Path, photos: list[bytes]
) -> None:
    captioner = Captioner(attention_bundle, provider="cpu", precision="fp32")
    index = PhotoIndex(tmp_path / "plain.db", captioner)
    index.add([folder])
    with Scheduler(captioner) as scheduler:
        plain = create_app(scheduler, warm=False, index=index)
        model = ask(plain, "GET", "/v1/model").json()
        assert (model["search"], model["similar"]) == (True, False)
        text = index.photo(1)
        assert text
        assert told(ask(plain, "GET", "/v1/search", params={"q": text.text}))
        problem(ask(plain, "GET", "/v1/similar?id=1"), 422, "vectors")
        problem(ask(plain, "POST", "/v1/similar", content=photos[0], headers=JPEG), 422, "vectors")


HOSTILE = ["0", "-1", "10000", "1.0", "1e0", "+1", " 1", "1 ", "01", "0x1", "9" * 400, str(2**63), "one", "None", "١"]


@pytest.mark.parametrize("number", [*HOSTILE, "..", "%2e%2e", "1%00", "1;", "*", "cat.jpg", "%2Fetc%2Fpasswd", "1' --"])
def test_only_numbers_of_the_index_open_anything(search_app: FastAPI, number: str) -> None:
    for path in ("/v1/photos/{}", *PICTURES):
        answer = ask(search_app, "GET", path.format(number))
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/photos/../../../../etc/passwd",
        "/v1/photos/1/../../../etc/passwd",
        "/v1/photos/..%2f..%2f..%2f..%2fetc%2fpasswd/file",
        "/v1/photos/%2fetc%2fpasswd/file",
        "/v1/photos//etc/passwd/file",
        "/v1/photos/1/file/etc/passwd",
        "/v1/photos/1/file/..",
    ],
)
def test_no_path_of_a_request_is_a_path_of_a_file(search_app: FastAPI, path: str) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    # as servers give it: a client would follow the dots itself
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": unquote(path), "raw_path": path.encode()}
    scope |= {"query_string": b"", "headers": [], "scheme": "http", "http_version": "1.1", "asgi": {"version": "3.0"}}
    asyncio.run(search_app(scope, receive, send))
    assert sent[0]["status"] == 404
    assert b"root:" not in b"".join(each.get("body", b"") for each in sent)


@pytest.mark.parametrize("number", HOSTILE)
def test_likeness_to_what_is_not_there_is_a_problem(search_app: FastAPI, number: str) -> None:
    answer = ask(search_app, "GET", "/v1/similar", params={"id": number})
    problem(answer, *((404, "photo") if number.isascii() and number.lstrip("-").isdecimal() else (422, "options")))


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "1e3", "", " 5", "5.0", "nan", "٥", "9" * 400])
def test_a_limit_is_a_whole_number_within_bounds(search_app: FastAPI, photos: list[bytes], limit: str) -> None:
    for path in ("/v1/search?q=dog", "/v1/similar?id=1"):
        answer = ask(search_app, "GET", f"{path}&limit={limit}")
        assert "limit must be a whole number from 1 to 1,000" in problem(answer, 422, "options")["detail"]
    answer = ask(search_app, "POST", "/v1/similar", params={"limit": limit}, content=photos[0], headers=JPEG)
    assert "limit must be a whole number" in problem(answer, 422, "options")["detail"]


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/v1/search", "q is missing: say what the photographs show"),
        ("/v1/similar", "id is missing: name a photograph of the index"),
        ("/v1/search?q=dog&q=cat", "q is given more than once: give it once"),
        ("/v1/search?q=dog&lmit=3", "there is no option 'lmit' here: q and limit are all"),
        ("/v1/similar?id=1&path=/etc/passwd", "there is no option 'path' here: id and limit are all"),
    ],
)
def test_wrong_options_are_named(search_app: FastAPI, path: str, detail: str) -> None:
    assert problem(ask(search_app, "GET", path), 422, "options")["detail"] == detail


@pytest.mark.parametrize(
    "query",
    [
        *(
            "",
            " ",
            "*",
            '"',
            "'; DROP TABLE photos; --",
            'a" OR "b',
            "dog NEAR/2 cat",
            "folded:dog",
            "🐕",
            "a\0b",
            "%",
            "\\",
        ),
        *("dog " * 60, "dog " * 10_000, "x" * 60_000, "\u202edog", "ſtraße"),
    ],
)
def test_a_hostile_query_is_an_answer_or_one_sentence(search_app: FastAPI, query: str) -> None:
    answer = ask(search_app, "GET", "/v1/search", params={"q": query})
    if answer.status_code != 200:
        assert "\n" not in problem(answer, 422, "options")["detail"]


def test_a_body_without_one_image_is_a_problem(search_app: FastAPI, photos: list[bytes]) -> None:
    two = [("images", ("a.jpg", photos[0])), ("images", ("b.jpg", photos[1]))]
    problem(ask(search_app, "POST", "/v1/similar", files=two), 400, "body")
    problem(ask(search_app, "POST", "/v1/similar", content=b"<svg/>", headers=JPEG), 422, "image")
    problem(
        ask(search_app, "POST", "/v1/similar", content=photos[0], headers={"Content-Type": "text/html"}),
        415,
        "media-type",
    )
    answer = ask(search_app, "POST", "/v1/similar", content=photos[0], headers=JPEG, params={"id": 1})
    problem(answer, 422, "options")


def test_the_limits_of_bodies_hold_here_too(vector_scheduler: Scheduler, samples_index: PhotoIndex) -> None:
    small = create_app(vector_scheduler, warm=False, index=samples_index, limits=Limits(max_bytes=1000))
    problem(ask(small, "POST", "/v1/similar", content=b"x" * 1001, headers=JPEG), 413, "too-large")


# ---- shown


def test_a_thumbnail_is_made_once_and_kept_by_the_browser_too(
    own: FastAPI, index: PhotoIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    make = thumbnails.as_jpeg

    def counted(source: Any, side: int, **limits: Any) -> bytes:
        made.append(side)
        return make(source, side, **limits)

    monkeypatch.setattr(thumbnails, "as_jpeg", counted)
    path = PICTURES[0].format(id_of(index, folder / "cat.jpg"))
    first = ask(own, "GET", path)
    assert first.headers["content-type"] == "image/jpeg"
    assert first.headers["cache-control"].startswith("private, max-age=")
    assert first.headers["vary"] == "Authorization"
    small = Image.open(io.BytesIO(first.content))
    whole = Image.open(io.BytesIO((folder / "cat.jpg").read_bytes()))
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


def test_a_file_is_shown_byte_for_byte_and_nothing_in_it_can_run(own: FastAPI, index: PhotoIndex, folder: Path) -> None:
    picture = Image.open(SAMPLES / "rocket.jpg").resize((64, 48))
    picture.save(folder / "disguised.jpg", "GIF", comment=b"<script>alert(1)</script>")
    name = 'a "b"\r\nSet-Cookie: c;\u2028ü\udcff.jpg'
    os.rename(folder / "coffee.jpg", os.fsencode(folder / name))  # noqa: PTH104
    index.add([folder])
    for path, kind, shown in (
        (folder / "cat.jpg", "image/jpeg", "cat.jpg"),
        (folder / "disguised.jpg", "image/gif", "disguised.jpg"),
        (folder / name, "image/jpeg", "a%20%22b%22%0D%0ASet-Cookie%3A%20c%3B%E2%80%A8%C3%BC%5Cudcff.jpg"),
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
    own: FastAPI, index: PhotoIndex, folder: Path
) -> None:
    number = id_of(index, folder / "cat.jpg")
    paths = [path.format(number) for path in PICTURES]
    etags = [ask(own, "GET", path).headers["etag"] for path in paths]
    (folder / "cat.jpg").unlink()
    for path, etag in zip(paths, etags, strict=True):
        for headers in ({}, {"If-None-Match": etag}):
            detail = problem(ask(own, "GET", path, headers=headers), 404, "photo")["detail"]
            assert detail == f"the file of photograph {number} is gone, or was changed since it was indexed"
    assert ask(own, "GET", f"/v1/photos/{number}").status_code == 200
    index.add([folder])
    for path in (*paths, f"/v1/photos/{number}", f"/v1/similar?id={number}"):
        problem(ask(own, "GET", path), 404, "photo")
    assert number not in [id_ for id_, _ in told(ask(own, "GET", "/v1/search?q=a+dog+and+a+man"))]


def test_what_takes_the_place_of_a_photograph_is_never_shown(own: FastAPI, index: PhotoIndex, folder: Path) -> None:
    path = folder / "cat.jpg"
    number, size = id_of(index, path), path.stat().st_size
    secret = folder.parent / "secret"
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
    index: PhotoIndex, vector_captioner: Captioner, attention_bundle: Path, folder: Path
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
            again.add([folder])
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

"""Photographs of an index over HTTP: found as the engine finds them, and only its own are shown."""

import asyncio
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi import FastAPI

from engine import Captioner, PhotoIndex, Results, Scheduler
from serving.http.app import create_app
from serving.http.limits import Limits
from tests.serving.calls import ask, id_of, problem, told
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


def test_a_record_is_the_engines_without_folders(own: FastAPI, index: PhotoIndex, album: Path) -> None:
    shutil.copyfile(album / "cat.jpg", album / "copy.jpg")
    index.add([album])
    photo = index.caption(album / "cat.jpg")
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
        assert str(album.parent) not in ask(own, "GET", path).text


def test_what_another_process_indexes_is_found_at_once(own: FastAPI, index: PhotoIndex, album: Path) -> None:
    number = id_of(index, album / "cat.jpg")
    assert len(told(ask(own, "GET", f"/v1/similar?id={number}"))) == 1
    shutil.copyfile(SAMPLES / "rocket.jpg", album / "rocket.jpg")
    with PhotoIndex(index.path, index.captioner) as other:
        other.add([album])
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
    attention_bundle: Path, album: Path, tmp_path: Path, photos: list[bytes]
) -> None:
    captioner = Captioner(attention_bundle, provider="cpu", precision="fp32")
    index = PhotoIndex(tmp_path / "plain.db", captioner)
    index.add([album])
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

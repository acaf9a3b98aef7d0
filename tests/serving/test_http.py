"""What the HTTP service answers is what the engine says, in any way of asking."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from engine import Beam, Captioner, Greedy, Sample
from serving.decoding_options import schemas
from serving.http import attention, page_files
from serving.http.page_files import PAGE
from tests.serving.calls import ask, events, problem

JPEG = {"Content-Type": "image/jpeg"}


def form(photos: list[bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{i}.jpg", photo)) for i, photo in enumerate(photos)]


DECODINGS: list[tuple[dict[str, Any], Any]] = [
    ({}, Beam()),
    ({"decoding": "greedy", "max_length": 5, "style": "sentence"}, Greedy(max_length=5, style="sentence")),
    ({"decoding": "beam"}, Beam()),
    (
        {"decoding": "beam", "beam_size": 4, "num_hypotheses": 3, "length_penalty": 0.5},
        Beam(beam_size=4, num_hypotheses=3, length_penalty=0.5),
    ),
    (
        {"decoding": "sample", "temperature": 1.3, "top_k": 40, "top_p": 0.9, "seed": 3, "num_samples": 4},
        Sample(temperature=1.3, top_k=40, top_p=0.9, seed=3, num_samples=4),
    ),
    (
        {"suppress": ["man", "boy"], "prefix": "a", "no_repeat_ngram_size": 2, "min_length": 4, "bad_endings": ""},
        Beam(suppress=("man", "boy"), prefix="a", no_repeat_ngram_size=2, min_length=4, bad_endings=()),
    ),
]


@pytest.mark.parametrize(("options", "decoding"), DECODINGS)
def test_captions_are_those_of_the_engine_in_the_order_of_the_images(
    app: FastAPI, captioner: Captioner, photos: list[bytes], options: dict[str, Any], decoding: Any
) -> None:
    answer = ask(app, "POST", "/v1/captions", files=form(photos), data=options)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["model"] == captioner.bundle.manifest.name
    for entry, expected in zip(body["captions"], captioner.caption(photos, decoding), strict=True):
        assert entry["caption"] == expected.text
        assert entry["log_prob"] == pytest.approx(expected.log_prob, abs=1e-4)
        assert entry["score"] == pytest.approx(expected.score, abs=1e-4)
        assert entry["finished"] is expected.finished
        assert [one["caption"] for one in entry["alternatives"]] == [one.text for one in expected.alternatives]
        assert entry["timings_ms"].keys() == {"queued", "encoding", "decoding"}


@pytest.mark.parametrize("options", [DECODINGS[1][0], DECODINGS[-1][0]])
def test_a_raw_body_with_query_parameters_says_the_same_as_a_form(
    app: FastAPI, photos: list[bytes], options: dict[str, Any]
) -> None:
    raw = ask(app, "POST", "/v1/captions", content=photos[0], headers=JPEG, params=options)
    sent = ask(app, "POST", "/v1/captions", files=form(photos[:1]), data=options)
    assert raw.status_code == sent.status_code == 200
    assert [without_times(e) for e in raw.json()["captions"]] == [without_times(e) for e in sent.json()["captions"]]


def without_times(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "timings_ms"}


@pytest.mark.parametrize("options", [{}, DECODINGS[1][0], DECODINGS[-2][0]])
def test_a_stream_gives_the_words_and_then_what_a_plain_request_gives(
    app: FastAPI, photos: list[bytes], options: dict[str, Any]
) -> None:
    streamed = ask(app, "POST", "/v1/captions/stream", files=form(photos[:1]), data=options)
    plain = ask(app, "POST", "/v1/captions", files=form(photos[:1]), data=options)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *words, (name, caption) = events(streamed.text)
    assert name == "caption"
    assert without_times(caption) == without_times(plain.json()["captions"][0])
    assert {name for name, _ in words} <= {"word"}
    said = " ".join(data["word"] for _, data in words)
    assert said.lower().removesuffix(".") == caption["caption"].lower().removesuffix(".")


def test_bounds_and_defaults_in_the_description_are_the_engines(app: FastAPI) -> None:
    described = schemas(max_rows=256)
    bounds = {
        "min_length": {"minimum": 0, "maximum": 10**18 - 1},
        "temperature": {"exclusiveMinimum": 0},
        "top_p": {"exclusiveMinimum": 0, "maximum": 1},
        "num_samples": {"minimum": 1, "maximum": 256},
    }
    for name, expected in bounds.items():
        assert {key: value for key, value in described[name].items() if "inimum" in key or "aximum" in key} == expected
    assert described["top_p"]["default"] == Sample().top_p
    assert "default" not in described["beam_size"]
    assert "left out: the bundle's default;" in described["bad_endings"]["description"]
    assert "only with decoding=sample" in described["seed"]["description"]
    route = ask(app, "GET", "/openapi.json").json()["paths"]["/v1/captions"]["post"]
    assert {each["name"]: each["schema"] for each in route["parameters"]} == described | {
        attention.NAME: attention.SCHEMA
    }


def test_a_bad_image_among_others_stands_in_its_place(app: FastAPI, captioner: Captioner, photos: list[bytes]) -> None:
    answer = ask(app, "POST", "/v1/captions", files=form([photos[0], b"no image", photos[1]]))
    first, bad, last = answer.json()["captions"]
    assert answer.status_code == 200
    assert [first["caption"], last["caption"]] == [one.text for one in captioner.caption(photos[:2])]
    assert bad.keys() == {"error"}
    assert (bad["error"]["status"], bad["error"]["type"]) == (422, "urn:captioning:image")
    assert bad["error"]["request_id"] == answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/captions", "/v1/captions/stream"])
def test_a_bad_image_alone_is_a_problem(app: FastAPI, path: str, photos: list[bytes]) -> None:
    for image in (b"", b"no image", photos[0][:200]):
        problem(ask(app, "POST", path, content=image, headers=JPEG), 422, "image")


def test_a_path_or_an_address_is_no_image_and_is_not_looked_up(app: FastAPI) -> None:
    for text in (b"samples/cat.jpg", b"http://127.0.0.1:9/cat.jpg", b"file:///etc/passwd"):
        told = problem(ask(app, "POST", "/v1/captions", content=text, headers=JPEG), 422, "image")
        assert text.decode() not in told["detail"]
        problem(ask(app, "POST", "/v1/captions", files=[("images", (None, text))]), 400, "body")


def test_the_model_tells_what_the_service_takes(app: FastAPI, captioner: Captioner) -> None:
    body = ask(app, "GET", "/v1/model").json()
    assert body["name"] == captioner.bundle.manifest.name
    assert (body["provider"], body["precision"]) == (captioner.provider, captioner.precision)
    assert body["defaults"]["beam_size"] == captioner.bundle.manifest.defaults.beam_size
    assert body["limits"]["max_pixels"] == captioner.max_pixels


def test_unknown_paths_and_methods_are_problems(app: FastAPI) -> None:
    problem(ask(app, "GET", "/v1/nothing"), 404, "about:blank")
    answer = ask(app, "GET", "/v1/captions")
    problem(answer, 405, "about:blank")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/", "/readyz", "/metrics", "/openapi.json", "/v1/captions", "/no"])
def test_head_is_get_without_a_body(app: FastAPI, path: str) -> None:
    got, head = ask(app, "GET", path), ask(app, "HEAD", path)
    assert head.status_code == got.status_code
    assert head.content == b""
    varying = {"x-request-id"} | ({"content-length"} if path == "/metrics" else set())
    told = [{name: value for name, value in each.headers.items() if name not in varying} for each in (got, head)]
    assert told[0] == told[1]
    assert "content-length" in head.headers


def test_what_takes_get_takes_head_and_says_so(app: FastAPI) -> None:
    answer = ask(app, "DELETE", "/healthz")
    problem(answer, 405, "about:blank")
    assert answer.headers["allow"] == "GET, HEAD"


def test_answers_are_not_kept_and_tell_nobody_where_they_come_from(app: FastAPI, photos: list[bytes]) -> None:
    stream = ask(app, "POST", "/v1/captions/stream", content=photos[0], headers=JPEG)
    plain = ask(app, "POST", "/v1/captions", content=photos[0], headers=JPEG)
    for answer in (stream, plain, ask(app, "GET", "/v1/model"), ask(app, "GET", "/nothing")):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert stream.headers["x-accel-buffering"] == "no"  # which nginx would hold back


def test_a_request_id_is_kept_where_it_can_do_no_harm(app: FastAPI) -> None:
    assert ask(app, "GET", "/healthz", headers={"X-Request-ID": "job-7.a"}).headers["x-request-id"] == "job-7.a"
    for bad in ("two words", "x" * 65, 'quote"', ""):
        given = ask(app, "GET", "/healthz", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert given != bad
        assert len(given) == 32


def test_the_page_may_talk_to_nobody_else(app: FastAPI) -> None:
    folder = Path(page_files.__file__).with_name("page")
    assert {name for name, _ in PAGE.values()} == {file.name for file in folder.iterdir()}
    for path in PAGE:
        answer = ask(app, "GET", path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "connect-src 'self'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"

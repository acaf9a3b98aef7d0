"""Where the model looked, over HTTP: what the engine says, for those who ask."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI

from engine import Beam, Captioner, Scheduler
from serving.http.app import create_app
from tests.serving.calls import ask, events, problem

JPEG = {"Content-Type": "image/jpeg"}
PATHS = ["/v1/captions", "/v1/captions/stream"]


@pytest.fixture(scope="module")
def attentive(attention_bundle: Path) -> Iterator[FastAPI]:
    """A service of a model with attention."""
    with Scheduler(Captioner(attention_bundle, provider="cpu", precision="fp32")) as scheduler:
        yield create_app(scheduler, warm=False)


def entry(app: FastAPI, path: str, **request: Any) -> dict[str, Any]:
    """Returns the caption of the only or the first photograph."""
    answer = ask(app, "POST", path, **request)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = events(answer.text)[-1][1] if path.endswith("stream") else answer.json()["captions"][0]
    return told


@pytest.mark.parametrize("path", PATHS)
def test_each_word_comes_with_the_engines_map(
    attentive: FastAPI, attention_bundle: Path, photos: list[bytes], path: str
) -> None:
    captioner = Captioner(attention_bundle, provider="cpu", precision="fp32")
    (expected,) = captioner.caption(photos[:1], Beam(min_length=4), attention=True)
    assert expected.attention is not None
    assert len(expected.attention) > 1
    asked = {"attention": "true", "min_length": "4"}
    ways: list[dict[str, Any]] = [
        {"files": [("images", ("a.jpg", photos[0]))], "data": asked},
        {"content": photos[0], "headers": JPEG, "params": asked},
    ]
    for way in ways:
        told = entry(attentive, path, **way)
        assert told["caption"] == expected.text
        assert [each["word"] for each in told["attention"]] == list(expected.tokens[: len(expected.attention)])
        maps = np.array([each["map"] for each in told["attention"]])
        assert maps.shape == expected.attention.shape
        np.testing.assert_allclose(maps, expected.attention, atol=2e-4)
        assert (maps == maps.round(4)).all()


def test_each_of_several_photographs_has_its_own(attentive: FastAPI, photos: list[bytes]) -> None:
    files = [("images", (f"{i}.jpg", photo)) for i, photo in enumerate(photos[:2])]
    answer = ask(attentive, "POST", PATHS[0], files=files, data={"attention": "true"})
    first, second = (each["attention"] for each in answer.json()["captions"])
    assert first != second


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("params", [{}, {"attention": "false"}])
def test_without_being_asked_there_is_none(
    attentive: FastAPI, app: FastAPI, photos: list[bytes], path: str, params: dict[str, str]
) -> None:
    for service in (attentive, app):
        assert entry(service, path, content=photos[0], headers=JPEG, params=params)["attention"] is None


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("attention=yes", "attention must be true or false, not 'yes'"),
        ("attention=", "attention must be true or false, not ''"),
        ("attention=true&attention=true", "attention is given 2 times: give it once"),
    ],
)
def test_another_value_is_a_problem(
    attentive: FastAPI, photos: list[bytes], path: str, query: str, detail: str
) -> None:
    told = problem(ask(attentive, "POST", f"{path}?{query}", content=photos[0], headers=JPEG), 400, "attention")
    assert told["detail"] == detail


def test_a_form_and_its_address_count_together(attentive: FastAPI, photos: list[bytes]) -> None:
    files = [("images", ("a.jpg", photos[0]))]
    answer = ask(attentive, "POST", f"{PATHS[0]}?attention=true", files=files, data={"attention": "true"})
    assert problem(answer, 400, "attention")["detail"].startswith("attention is given 2 times")


@pytest.mark.parametrize("path", PATHS)
def test_a_model_without_attention_says_so(app: FastAPI, captioner: Captioner, photos: list[bytes], path: str) -> None:
    request = {"content": photos[0], "headers": JPEG}
    told = problem(ask(app, "POST", f"{path}?attention=true", **request), 400, "attention")
    assert told["detail"].startswith(f"the model {captioner.bundle.manifest.name} has no attention")
    # what is wrong besides keeps its own kind
    problem(ask(app, "POST", f"{path}?attention=true&prefix=xyzzy", **request), 422, "options")


def test_the_model_says_whether_it_has_attention_and_what_it_sees(attentive: FastAPI, app: FastAPI) -> None:
    with_it, without = (ask(each, "GET", "/v1/model").json() for each in (attentive, app))
    assert (with_it["attention"], without["attention"]) == (True, False)
    assert (with_it["image_resize"], with_it["image_size"]) == ("squash", [48, 64])

"""The page shows where a model with attention looked, and nothing of it for other models."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engine import Beam, Captioner
from tests.serving.page.conftest import Watch
from tests.serving.page.photographs import button, card, choose, photograph
from tests.serving.page.stand_in import MODEL, Reply, StandIn, caption, words
from tests.serving.process import Service

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

expect = pytest.importorskip("playwright.sync_api").expect
SAMPLES = Path(__file__).parents[3] / "samples"
TEAL, DARK = (0, 128, 128), (0, 26, 26)  # the photograph of 64 x 48, and a fifth of it
LEFT = [[1.0, 0.0], [0.0, 0.0]]
EVEN = [[0.25, 0.25], [0.25, 0.25]]
TOP = [[0.5, 0.5], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
CAT = [{"word": "grey", "map": LEFT}, {"word": "cat", "map": EVEN}]
PIXELS = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"


def attends(stand_in: StandIn, *answers: list[dict[str, Any]], resize: str = "squash") -> None:
    """Gives the service a model with attention, whose captions have these maps."""
    stand_in.model = MODEL | {"attention": True, "image_resize": resize, "image_size": [48, 48]}
    for looked in answers:
        text = " ".join(each["word"] for each in looked)
        stand_in.replies.append(Reply((words(text), caption(text, attention=looked))))


def summary(page: "Page") -> "Locator":
    """Returns what opens the copies of the photograph."""
    return card(page).locator("summary", has_text="Where it looked")


def pixels(copy: "Locator") -> np.ndarray:
    """Returns the colours (height, width, 3) of a copy of the photograph."""
    return np.array(copy.evaluate(PIXELS)).reshape(48, 64, 4)[..., :3]


def alike(colour: np.ndarray, other: tuple[int, int, int]) -> bool:
    """Tells whether two colours are the same, but for rounding and a little light at the edge of a map."""
    return bool(np.abs(colour - other).max() < 12)


def test_a_model_without_attention_shows_nothing_new(page: "Page", stand_in: StandIn) -> None:
    choose(page)
    expect(card(page)).to_have_attribute("data-state", "done")
    expect(summary(page)).to_be_hidden()
    assert "attention" not in stand_in.asked[0].query


def test_a_keyboard_opens_a_copy_for_each_word(open_page: Callable[..., "Page"], stand_in: StandIn) -> None:
    attends(stand_in, CAT)
    page = open_page(stand_in.url)
    choose(page)
    expect(card(page)).to_have_attribute("data-state", "done")
    assert stand_in.asked[0].query["attention"] == "true"
    assert "attention" not in card(page).locator(".status").inner_text()
    assert card(page).locator("canvas").count() == 0  # not before somebody asks
    summary(page).focus()
    page.keyboard.press("Enter")
    grey = card(page).get_by_role("img", name="grey: it looked most at the top left")
    expect(grey).to_be_visible()
    expect(card(page).get_by_role("img", name="cat: it looked most")).to_be_visible()
    seen = pixels(grey)
    assert alike(seen[2, 2], TEAL)
    assert alike(seen[46, 62], DARK)
    assert DARK[1] + 20 < seen[4, 32, 1] < TEAL[1] - 20  # no step between the cells
    page.keyboard.press("Enter")
    expect(grey).to_be_hidden()


@pytest.mark.parametrize(
    ("resize", "looked", "bright", "dark"),
    [
        ("squash", EVEN, [(1, 1), (62, 46)], []),
        ("crop", EVEN, [(10, 1), (53, 46)], [(4, 24), (60, 24)]),  # it saw the 48 pixels in the middle
        ("letterbox", EVEN, [(1, 1), (62, 46)], []),
        ("squash", TOP, [(1, 1), (62, 4)], [(32, 40)]),
        ("letterbox", TOP, [], [(32, 20), (32, 40)]),  # the top of what it saw is mostly the bar above the photograph
    ],
)
def test_the_map_lies_where_the_model_saw_it(
    open_page: Callable[..., "Page"],
    stand_in: StandIn,
    resize: str,
    looked: list[list[float]],
    bright: list[tuple[int, int]],
    dark: list[tuple[int, int]],
) -> None:
    attends(stand_in, [{"word": "cat", "map": looked}], resize=resize)
    page = open_page(stand_in.url)
    choose(page)
    summary(page).click()
    copy = card(page).get_by_role("img", name="cat:")
    expect(copy).to_be_visible()
    seen = pixels(copy)
    assert all(alike(seen[y, x], TEAL) for x, y in bright)
    assert all(alike(seen[y, x], DARK) for x, y in dark)


def test_what_is_open_follows_the_next_caption(open_page: Callable[..., "Page"], stand_in: StandIn) -> None:
    attends(stand_in, CAT, [{"word": "dog", "map": EVEN}], [])
    page = open_page(stand_in.url)
    choose(page)
    summary(page).click()
    expect(card(page).locator("canvas")).to_have_count(2)
    button(page, "Again").click()
    expect(card(page).get_by_role("img", name="dog:")).to_be_visible()
    expect(card(page).locator("canvas")).to_have_count(1)
    button(page, "Again").click()
    expect(card(page)).to_have_attribute("aria-busy", "false")
    expect(summary(page)).to_be_hidden()  # no words, no maps


def test_a_photograph_that_the_browser_cannot_show_has_no_copies(
    open_page: Callable[..., "Page"], stand_in: StandIn
) -> None:
    attends(stand_in, CAT)
    page = open_page(stand_in.url)
    page.set_input_files("#files", [photograph("cat.png", b"a format of its own")])
    summary(page).click()
    expect(card(page).get_by_text("This browser cannot show the photograph.")).to_be_visible()


def test_a_model_that_lost_its_attention_is_asked_without(
    open_page: Callable[..., "Page"], stand_in: StandIn, watch: Watch
) -> None:
    watch.expected = ("status of 400",)
    attends(stand_in)
    page = open_page(stand_in.url)
    expect(page.locator("#model")).to_be_visible()
    stand_in.model = MODEL
    told = {"type": "urn:captioning:attention", "title": "No", "status": 400, "detail": "no", "request_id": "f00d"}
    stand_in.replies.append(Reply((json.dumps(told).encode(),), 400, {"Content-Type": "application/problem+json"}))
    choose(page)
    expect(card(page).locator(".caption")).to_have_text("A grey cat.")
    assert ["attention" in asked.query for asked in stand_in.asked] == [True, False]


def test_whoever_gives_the_token_late_sees_it_too(
    open_page: Callable[..., "Page"], stand_in: StandIn, watch: Watch
) -> None:
    watch.expected = ("status of 401",)
    stand_in.token = "secret"
    attends(stand_in)
    page = open_page(stand_in.url)
    choose(page)
    expect(card(page)).to_have_attribute("data-state", "failed")
    attends(stand_in, CAT)
    page.get_by_label("Bearer token").fill("secret")
    page.get_by_role("button", name="Use it").click()
    expect(summary(page)).to_be_visible()


@pytest.mark.parametrize("width", [320, 360])
def test_on_a_phone_the_copies_fit(open_page: Callable[..., "Page"], stand_in: StandIn, width: int) -> None:
    attends(stand_in, [*CAT, {"word": "long" * 40, "map": EVEN}])
    page = open_page(stand_in.url, is_mobile=True, has_touch=True, viewport={"width": width, "height": 740})
    choose(page)
    summary(page).tap()
    expect(card(page).locator("canvas")).to_have_count(3)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    for copy in card(page).locator("canvas").all():
        box = copy.bounding_box()
        assert box is not None
        assert box["width"] >= 100
        assert box["width"] / box["height"] == pytest.approx(64 / 48, abs=0.02)


@pytest.fixture(scope="module")
def attentive(browser: "Browser", attention_bundle: Path) -> Iterator[Service]:
    """The real service with a model that has attention."""
    with Service("--bundle", str(attention_bundle), "--precision", "fp32") as service:
        service.wait_for("ready")
        yield service


def test_the_words_are_the_engines(
    open_page: Callable[..., "Page"], attentive: Service, attention_bundle: Path
) -> None:
    path, decoding = SAMPLES / "coffee.jpg", Beam(min_length=5)
    (same,) = Captioner(attention_bundle, provider="cpu", precision="fp32").caption([path], decoding, attention=True)
    assert same.attention is not None
    page = open_page(f"{attentive.url}/")
    page.locator("#shared").evaluate("fold => fold.open = true")
    page.get_by_label("Min length").fill("5")
    page.set_input_files("#files", path)
    opener = card(page, path.name).locator("summary", has_text="Where it looked")
    opener.click()
    copies = card(page, path.name).get_by_role("img", name="it looked most")
    expect(copies).to_have_count(len(same.attention))
    labels = copies.evaluate_all("copies => copies.map((copy) => copy.ariaLabel.split(':')[0])")
    assert labels == list(same.tokens[: len(same.attention)])

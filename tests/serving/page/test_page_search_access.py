"""Search on the page for everybody: keyboard, screen reader, small windows, little contrast."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving.page.photographs import card, choose
from tests.serving.page.searching import field, opener, search, tiles
from tests.serving.page.stand_in import StandIn, as_json, found, problem
from tests.serving.page.test_page_access import CONTRASTS

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.serving.page.conftest import Watch

expect = pytest.importorskip("playwright.sync_api").expect
PHONE: dict[str, Any] = {"is_mobile": True, "has_touch": True, "viewport": {"width": 360, "height": 740}}
pytestmark = pytest.mark.usefixtures("beach")


def test_a_keyboard_is_enough(page: "Page", stand_in: StandIn) -> None:
    expect(field(page)).to_be_visible()
    page.keyboard.press("/")
    expect(field(page)).to_be_focused()
    page.keyboard.type("beach/dog")
    page.keyboard.press("Enter")
    assert field(page).input_value() == "beach/dog"
    expect(tiles(page)).to_have_count(24)
    columns = tiles(page).evaluate_all("all => all.filter((one) => one.offsetTop === all[0].offsetTop).length")
    assert columns > 2
    page.keyboard.press("ArrowDown")
    for key, number in (
        ("ArrowRight", 2),
        ("ArrowDown", 2 + columns),
        ("ArrowLeft", 1 + columns),
        ("ArrowUp", 1),
        ("ArrowUp", 1),
        ("ArrowLeft", 1),
        ("End", 24),
        ("ArrowDown", 24),
        ("Home", 1),
    ):
        page.keyboard.press(key)
        expect(opener(page, number)).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="More like 1.png")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("button", name="More like 2.png")).to_be_focused()
    page.keyboard.press("/")
    expect(field(page)).to_be_focused()
    assert page.evaluate("getSelection().toString()") == "beach/dog"
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Choose photographs")).to_be_visible()
    expect(field(page)).to_have_value("")
    expect(field(page)).to_be_focused()
    assert page.url == stand_in.url


def test_a_slash_in_another_field_is_a_slash(page: "Page") -> None:
    page.locator("#shared").evaluate("fold => fold.open = true")
    prefix = page.get_by_label("Prefix")
    prefix.press("/")
    expect(prefix).to_have_value("/")
    expect(prefix).to_be_focused()


def test_clearing_brings_the_captions_back(page: "Page") -> None:
    choose(page)
    expect(card(page).locator(".caption")).to_have_text("A grey cat.")
    search(page, "dogs")
    expect(card(page)).to_be_hidden()
    page.get_by_role("button", name="Clear").click()
    expect(card(page)).to_be_visible()
    expect(field(page)).to_be_focused()
    search(page, "dogs")
    expect(tiles(page)).to_have_count(24)
    search(page, "  ")
    expect(card(page)).to_be_visible()
    search(page, "dogs")
    choose(page, "new.png")  # pasted or dropped
    expect(card(page, "new.png")).to_be_visible()


def test_every_control_has_a_name_and_the_count_is_said(page: "Page") -> None:
    search(page, "dogs")
    expect(tiles(page)).to_have_count(24)
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    seen = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    assert [role for role, name in seen if role in {"button", "searchbox", "image", "heading"} and not name] == []
    names = [name for role, name in seen if role == "button"]
    assert len(names) > 48
    assert len(set(names)) == len(names)
    assert {"search", "searchbox", "status", "list", "listitem"} <= {role for role, _ in seen}


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_the_grid_fits_any_window(open_page: Callable[..., "Page"], stand_in: StandIn, width: int) -> None:
    stand_in.index = [found(1, "long" * 50, name="n" * 90 + ".jpg"), *(found(number) for number in range(2, 9))]
    page = open_page(stand_in.url, viewport={"width": width, "height": 740})
    search(page, "word" * 40)
    expect(tiles(page)).to_have_count(8)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    columns = tiles(page).evaluate_all("all => all.filter((one) => one.offsetTop === all[0].offsetTop).length")
    assert columns == {320: 2, 360: 2}.get(width, columns) >= 2


def test_a_phone_has_large_targets(open_page: Callable[..., "Page"], stand_in: StandIn) -> None:
    page = open_page(stand_in.url, **PHONE)
    field(page).tap()
    search(page, "dogs")
    expect(tiles(page)).to_have_count(24)
    page.get_by_role("button", name="More like 3.png").tap()
    expect(page.get_by_role("heading", name="More like 3.png")).to_be_visible()
    for each in page.locator("#search button:visible, #search input, .tile button:visible").all():
        box = each.bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert box["width"] >= 44
    opener(page, 1).tap()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(
    open_page: Callable[..., "Page"], stand_in: StandIn, watch: "Watch", scheme: str
) -> None:
    watch.expected = ("status of 422", "status of 404")
    page = open_page(stand_in.url, color_scheme=scheme, reduced_motion="reduce")
    stand_in.searches.append(as_json({"photos": [found(1), found(77)], "left_out": 3}))
    search(page, "dogs")
    expect(tiles(page).last.locator(".frame")).to_have_text("The file is gone")
    told = dict(page.evaluate(CONTRASTS))
    stand_in.searches.append(problem(422, "An option makes no sense", "the query has no words"))
    search(page, "?")
    expect(page.get_by_role("alert").filter(has_text="no words")).to_be_visible()
    told |= dict(page.evaluate(CONTRASTS))
    assert {"The file is gone", "the query has no words", "Search", "1.png", "a dog runs on beach 1"} <= told.keys()
    assert {text: contrast for text, contrast in told.items() if contrast < 4.5} == {}

"""The page for everybody: keyboard, screen reader, small windows, little contrast, no motion; and its own rules."""

import time
from collections.abc import Callable
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from serving.http.page_options import fill
from tests.serving.page.photographs import button, card, choose, photograph
from tests.serving.page.stand_in import PAGE, Gate, Reply, StandIn, caption, problem, words

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.serving.page.conftest import Watch

expect = pytest.importorskip("playwright.sync_api").expect

CONTRASTS = """
() => {
    const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
    const light = (colour) => numbers(colour).slice(0, 3)
        .map((value) => value / 255)
        .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
        .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
    const ground = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const colour = getComputedStyle(each).backgroundColor;
            if (numbers(colour)[3] !== 0) return colour;
        }
    };
    const told = [];
    for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || element.closest(".unseen") || !element.checkVisibility({ opacityProperty: true })) continue;
        const [one, other] = [getComputedStyle(element).color, ground(element)].map(light);
        const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        told.push([element.textContent.trim().slice(0, 40), contrast]);
    }
    return told;
}
"""


def test_a_keyboard_is_enough(page: "Page", stand_in: StandIn) -> None:
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Choose photographs")).to_be_focused()
        page.keyboard.press("Enter")
    chooser.value.set_files([photograph("a.png"), photograph("b.png")])
    expect(page.locator("[data-state=done]")).to_have_count(2)
    reach(page, "[type=radio]:checked")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Sample")).to_be_checked()
    page.keyboard.press("Tab")
    expect(page.get_by_role("slider", name="Temperature")).to_be_focused()
    page.keyboard.press("ArrowRight")
    gate = Gate()
    stand_in.replies.append(Reply((gate, caption("Now by chance."))))
    reach(page, ".again")
    page.keyboard.press("Enter")
    expect(button(page, "Cancel", "a.png")).to_be_focused()  # it took the other's place
    gate.opened.set()
    expect(button(page, "Again", "a.png")).to_be_focused()
    assert stand_in.asked[-1].query["temperature"] == "0.8"
    reach(page, ".remove")
    page.keyboard.press("Enter")
    expect(button(page, "Remove", "b.png")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Choose photographs")).to_be_focused()


def reach(page: "Page", selector: str) -> None:
    """Presses Tab until the focus is there."""
    for _ in range(20):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {selector}")


def test_the_focus_stays_where_it_is_while_captions_come(page: "Page", stand_in: StandIn) -> None:
    gate = Gate()
    stand_in.replies.append(Reply((words("a"), gate, caption("A cat."))))
    seed = page.get_by_role("slider", name="Beam size")
    seed.focus()
    choose(page)
    expect(card(page).locator(".caption")).to_have_text("a")
    gate.opened.set()
    expect(card(page)).to_have_attribute("data-state", "done")
    expect(seed).to_be_focused()


@pytest.mark.parametrize("way", ["Greedy", "Beam", "Sample"])
def test_every_control_has_a_name(page: "Page", way: str) -> None:
    page.get_by_role("radio", name=way).check()
    choose(page)
    expect(card(page)).to_have_attribute("data-state", "done")
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "radio", "slider", "spinbutton", "textbox", "meter", "image", "article", "log", "dialog"}
    seen = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    assert [role for role, name in seen if role in roles - {"log"} and not name] == []
    assert {"button", "radio", "meter", "image", "article", "log"} <= {role for role, _ in seen}
    names = [name for role, name in seen if role == "button"]
    assert len(set(names)) == len(names)


def test_the_words_are_in_no_live_region(page: "Page") -> None:
    choose(page)
    expect(card(page)).to_have_attribute("data-state", "done")
    assert page.locator("[aria-live] .card, [role=log] .card, [role=status] .card").count() == 0
    assert page.locator("#news").get_attribute("aria-live") == "polite"


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_no_window_scrolls_sideways(
    open_page: Callable[..., "Page"], stand_in: StandIn, watch: "Watch", width: int
) -> None:
    watch.expected = ("status of 422",)
    page = open_page(stand_in.url, viewport={"width": width, "height": 740})
    long = "a very-" + "long" * 40 + " word"
    stand_in.replies.extend([Reply((caption(long, 0.5, ((long, 0.25), ("A dog.", 1.0))),)), problem(422, long, long)])
    choose(page, "long" * 30 + ".png")
    expect(page.locator("[data-state=done]")).to_have_count(1)
    choose(page, "broken.png")
    expect(page.locator("[data-state=failed]")).to_have_count(1)
    for way in ("Greedy", "Beam", "Sample"):
        page.locator("#options-fold").evaluate("fold => fold.open = true")
        page.get_by_role("radio", name=way).check()
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert page.locator("button:visible").count() > 5
    for each in page.locator("button:visible").all():
        box = each.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


@pytest.mark.parametrize("size", [(1366, 650), (1280, 600)])
def test_every_control_can_be_reached_in_the_low_window_of_a_laptop(
    open_page: Callable[..., "Page"], stand_in: StandIn, size: tuple[int, int]
) -> None:
    width, height = size
    page = open_page(stand_in.url, viewport={"width": width, "height": height})
    choose(page, *(f"{number}.png" for number in range(5)))
    expect(page.locator("[data-state=done]")).to_have_count(5)
    page.get_by_role("radio", name="Sample").check()
    page.evaluate("scrollTo(0, 0)")
    box = page.locator(".side").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 50, 300)
    page.mouse.wheel(0, 100)  # over the controls, these are what moves
    until = time.monotonic() + 5
    while not page.locator(".side").evaluate("side => side.scrollTop"):  # the page allows no predicate of a string
        assert time.monotonic() < until
        page.wait_for_timeout(20)
    page.locator(".side").evaluate("side => side.scrollTo(0, side.scrollHeight)")
    page.evaluate("scrollTo(0, 300)")  # where the controls stand still beside the captions
    again = page.get_by_role("button", name="Caption all again").bounding_box()
    assert again is not None
    assert 0 < again["y"] < again["y"] + again["height"] <= height


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(
    open_page: Callable[..., "Page"], stand_in: StandIn, watch: "Watch", scheme: str
) -> None:
    watch.expected = ("status of 422", "status of 401")
    stand_in.token = "secret"
    page = open_page(stand_in.url, color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator("#token-form")).to_be_visible()
    stand_in.token = ""
    stand_in.replies.append(problem(422, "The image cannot be captioned", "the image is cut off"))
    choose(page, "a.png")
    expect(page.locator("[data-state=failed]")).to_have_count(1)
    choose(page)
    expect(card(page)).to_have_attribute("data-state", "done")
    page.get_by_role("radio", name="Sample").check()
    told = dict(page.evaluate(CONTRASTS))
    assert {"A grey cat.", "Choose photographs", "Greedy", "the image is cut off", "62%"} <= told.keys()
    assert {text: contrast for text, contrast in told.items() if contrast < 4.5} == {}


def test_nothing_moves_for_those_who_ask_for_it(open_page: Callable[..., "Page"], stand_in: StandIn) -> None:
    for motion, moves in (("no-preference", True), ("reduce", False)):
        gate = Gate()
        stand_in.replies.append(Reply((words("a"), gate, caption("A cat."))))
        page = open_page(stand_in.url, reduced_motion=motion)
        choose(page)
        expect(card(page).locator(".caption")).to_have_text("a")
        assert (page.evaluate("document.getAnimations().length") > 0) is moves
        gate.opened.set()
        expect(card(page)).to_have_attribute("data-state", "done")


def test_the_watch_hears_a_violation_and_another_host(page: "Page", watch: "Watch", stand_in: StandIn) -> None:
    page.evaluate("document.body.setAttribute('style', 'color: red')")
    page.evaluate("fetch('http://localhost:9/').catch(() => 0)")
    until, wanted = time.monotonic() + 15, {"policy: style-src-attr", "policy: connect-src"}
    while not wanted <= set(watch.faults) and time.monotonic() < until:  # the browser tells when it comes to it
        page.wait_for_timeout(20)
    assert wanted <= set(watch.faults)
    watch.addresses.append("http://localhost:9/")
    with pytest.raises(AssertionError):
        watch.verify(stand_in.url)
    watch.faults.clear()
    watch.addresses.clear()


def test_the_page_has_no_inline_script_and_no_inline_style() -> None:
    faults: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            faults.extend(f"<{tag} {name}>" for name, _ in attrs if name == "style" or name.startswith("on"))
            if tag == "style" or (tag == "script" and not dict(attrs).get("src")):
                faults.append(f"<{tag}>")

    Reader().feed(fill((PAGE / "index.html").read_text(encoding="utf-8"), max_rows=256))
    assert faults == []
    assert not any("innerHTML" in script.read_text(encoding="utf-8") for script in PAGE.glob("*.js"))

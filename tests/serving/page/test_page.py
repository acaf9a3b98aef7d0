"""The page with a service that answers as it should: photographs come in, words come out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.serving.page.photographs import button, card, choose, news, png
from tests.serving.page.stand_in import Gate, Reply, StandIn, caption, event, words

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = pytest.importorskip("playwright.sync_api").expect


def test_a_chosen_photograph_goes_to_the_service_byte_for_byte(page: "Page", stand_in: StandIn) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose photographs").click()
    assert chooser.value.is_multiple()
    choose(page)
    expect(card(page).locator(".caption")).to_have_text("A grey cat.")
    (asked,) = stand_in.asked
    assert asked.body == png()
    assert asked.headers["content-type"] == "image/png"
    assert "authorization" not in asked.headers


def test_words_appear_as_they_arrive_and_are_announced_once_whole(page: "Page", stand_in: StandIn) -> None:
    first, second = Gate(), Gate()
    stand_in.replies.append(Reply((words("a"), first, words("grey cat"), second, caption("A grey cat."))))
    choose(page)
    text = card(page).locator(".caption")
    expect(text).to_have_text("a")
    expect(card(page)).to_have_attribute("aria-busy", "true")
    first.opened.set()
    expect(text).to_have_text("a grey cat")
    assert news(page) == []
    second.opened.set()
    expect(text).to_have_text("A grey cat.")
    expect(card(page)).to_have_attribute("aria-busy", "false")
    assert news(page) == ["cat.png: A grey cat. Confidence 62%."]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_an_answer_is_understood_however_it_is_cut_and_its_lines_end(
    page: "Page", stand_in: StandIn, newline: str
) -> None:
    split = json.dumps({"word": "süß"}, indent=0, ensure_ascii=False).replace("\n", "\ndata: ")
    whole = f': a comment\n\nid: 7\nevent: word\ndata: {split}\n\nevent:word\ndata:{{"word":"cat"}}\n\n'
    answer = (whole.encode() + event("other", 1) + caption("Süß cat.") + b": end\n").replace(b"\n", newline.encode())
    gate = Gate()
    stand_in.replies.append(Reply((*(bytes([byte]) for byte in answer[:160]), answer[160:-40], gate, answer[-40:])))
    choose(page)
    expect(card(page).locator(".caption")).to_have_text("süß cat")
    gate.opened.set()
    expect(card(page).locator(".caption")).to_have_text("Süß cat.")


def test_alternatives_and_confidence_are_shown_with_bars(page: "Page") -> None:
    choose(page)
    meters = card(page).get_by_role("meter")
    expect(meters).to_have_count(3)
    expect(page.get_by_text("Confidence is the estimated probability")).to_be_visible()
    assert [meter.evaluate("meter => meter.value") for meter in meters.all()] == [0.62, 0.4, 0.05]
    expect(card(page).locator(".figure")).to_have_text(["62%", "40%", "5%"])
    expect(card(page).get_by_role("listitem")).to_contain_text(["A cat sleeps.", "A dog."])
    expect(meters.nth(1)).to_have_attribute("aria-label", "Confidence in A cat sleeps.")
    expect(card(page).locator(".status")).to_contain_text("30 ms (queue 1.0, encoder 20, decoder 9.0)")


def test_a_model_without_confidence_shows_log_probabilities(page: "Page", stand_in: StandIn) -> None:
    stand_in.replies.append(Reply((caption("A cat.", None, (("A dog.", None),)),)))
    choose(page)
    expect(card(page).locator("li .figure")).to_have_text("log p −7.50")
    expect(card(page).get_by_role("meter")).to_have_count(0)


def test_each_photograph_has_a_card_and_four_are_under_way_at_once(page: "Page", stand_in: StandIn) -> None:
    names = [f"{number}.png" for number in range(6)]
    gates = [Gate() for _ in names]
    stand_in.replies.extend(Reply((gate, words("a cat"), caption("A cat."))) for gate in gates)
    choose(page, *names)
    expect(page.locator("#cards h3")).to_have_text(names)
    for gate in gates[:4]:
        assert gate.reached.wait(15)
    expect(page.locator(".status", has_text="Waiting for its turn")).to_have_count(2)
    assert len(stand_in.asked) == 4
    for gate in gates:
        gate.opened.set()
    expect(page.locator("[data-state=done]")).to_have_count(6)
    choose(page, "newest.png")
    expect(page.locator("#cards h3")).to_have_text(["newest.png", *names])


def test_cancelling_hangs_up_and_the_next_photograph_starts(page: "Page", stand_in: StandIn) -> None:
    gate = Gate()
    stand_in.replies.append(Reply((words("a"), gate)))
    choose(page)
    expect(card(page).locator(".caption")).to_have_text("a")
    button(page, "Cancel").click()
    assert gate.gone.wait(15)
    expect(card(page).locator(".status")).to_have_text("Cancelled")
    assert news(page) == ["cat.png: cancelled"]
    button(page, "Again").click()
    expect(card(page).locator(".caption")).to_have_text("A grey cat.")


@pytest.mark.parametrize("way", ["greedy", "beam", "sample"])
def test_the_options_of_the_chosen_decoding_are_sent_and_no_others(page: "Page", stand_in: StandIn, way: str) -> None:
    expect(page.locator("#model")).to_have_text("stand-in · int8 · cpu")
    page.get_by_role("radio", name=way.capitalize()).check()
    if way == "beam":
        page.get_by_role("slider", name="Beam size").fill("7")
    if way == "sample":
        page.get_by_role("slider", name="Temperature").fill("1.3")
        page.get_by_role("spinbutton", name="Seed").fill("11")
    choose(page)
    expect(card(page)).to_have_attribute("data-state", "done")
    beam = {"beam_size": "7", "num_hypotheses": "7", "length_penalty": "0.5"}  # the last is the model's default
    sample = {"temperature": "1.3", "num_samples": "3", "seed": "11"}
    expected = {"greedy": {}, "beam": beam, "sample": sample}[way]
    assert stand_in.asked[-1].query == {"decoding": way, "style": "sentence", **expected}


def test_all_are_captioned_again_with_the_options_of_now(page: "Page", stand_in: StandIn) -> None:
    choose(page, "a.png", "b.png")
    expect(page.locator("[data-state=done]")).to_have_count(2)
    page.get_by_role("radio", name="Greedy").check()
    page.get_by_role("button", name="Caption all again").click()
    expect(page.locator(".status", has_text="Greedy")).to_have_count(2)
    assert [asked.query["decoding"] for asked in stand_in.asked] == ["beam", "beam", "greedy", "greedy"]
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator("#empty")).to_be_visible()


def test_a_picture_in_the_clipboard_is_pasted(open_page: Callable[..., "Page"], stand_in: StandIn) -> None:
    page = open_page(stand_in.url, permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (bytes) => {
            const picture = new Blob([new Uint8Array(bytes)], {type: "image/png"});
            await navigator.clipboard.write([new ClipboardItem({"image/png": picture})]);
        }""",
        list(png()),
    )
    page.keyboard.press("Control+V")
    expect(page.locator(".caption")).to_have_text("A grey cat.")
    assert stand_in.asked[0].headers["content-type"] == "image/png"
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#toast")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == "A grey cat."


def test_files_are_dropped_anywhere_and_the_page_stays(page: "Page", stand_in: StandIn, tmp_path: Path) -> None:
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for path in paths:
        path.write_bytes(png())
    drag(page, [str(path) for path in paths])
    expect(page.locator("#cards h3")).to_have_text(["one.png", "two.png"])
    expect(page.locator("[data-state=done]")).to_have_count(2)
    drag(page, [str(tmp_path)])
    expect(page.locator("#toast")).to_have_text("Drop photographs, not folders.")
    assert page.url == stand_in.url


def drag(page: "Page", paths: list[str]) -> None:
    """Drags files from the desktop onto the page's lower corner."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": paths, "dragOperationsMask": 1}
    for step in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": step, "x": 1200, "y": 700, "data": data})
    session.detach()


def test_the_camera_takes_a_photograph(open_page: Callable[..., "Page"], stand_in: StandIn) -> None:
    page = open_page(stand_in.url, permissions=["camera"])
    opener = page.get_by_role("button", name="Camera", exact=True)
    opener.click()
    page.get_by_role("button", name="Take photograph").click()
    expect(page.locator(".caption")).to_have_text("A grey cat.")
    assert stand_in.asked[0].body.startswith(b"\xff\xd8")
    expect(opener).to_be_focused()
    assert page.evaluate("document.querySelector('#view').srcObject") is None


def test_a_phone_is_asked_for_its_own_camera(open_page: Callable[..., "Page"], stand_in: StandIn) -> None:
    page = open_page(stand_in.url, is_mobile=True, has_touch=True, viewport={"width": 360, "height": 740})
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Camera", exact=True).tap()
    assert chooser.value.element.get_attribute("capture") == "environment"

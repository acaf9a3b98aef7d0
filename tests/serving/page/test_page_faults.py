"""The page when the service refuses, fails or is gone: its words are shown, and there is a way on."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.serving.page.conftest import Watch
from tests.serving.page.photographs import button, card, choose, news
from tests.serving.page.stand_in import Gate, Reply, StandIn, event, problem, words

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = pytest.importorskip("playwright.sync_api").expect
BROKEN = "The image cannot be captioned", "the image is cut off"


def test_a_problem_is_shown_in_the_services_own_words(page: "Page", stand_in: StandIn, watch: Watch) -> None:
    watch.expected = ("status of 422",)
    stand_in.replies.append(problem(422, *BROKEN))
    choose(page)
    fault = card(page).locator(".fault")
    expect(fault.locator("strong")).to_have_text(BROKEN[0])
    expect(fault.locator(".detail")).to_have_text(BROKEN[1])
    expect(fault.locator(".id")).to_have_text("Request f00d")
    assert news(page) == [f"cat.png: {BROKEN[1]}"]
    button(page, "Again").click()
    expect(card(page).locator(".caption")).to_have_text("A grey cat.")
    expect(fault).to_be_hidden()


def test_a_problem_amid_the_words_is_shown_too(page: "Page", stand_in: StandIn) -> None:
    told = {"title": "The caption took too long", "status": 504, "detail": "no time is left", "request_id": "beef"}
    stand_in.replies.append(Reply((words("a grey"), event("error", told))))
    choose(page)
    expect(card(page).locator(".fault")).to_contain_text("The caption took too long")
    expect(card(page).locator(".fault")).to_contain_text("Request beef")
    expect(card(page).locator(".caption")).to_be_empty()


def test_an_answer_that_breaks_off_is_no_caption(page: "Page", stand_in: StandIn) -> None:
    stand_in.replies.append(Reply((words("a grey"),)))
    choose(page)
    expect(card(page).locator(".fault")).to_contain_text("The answer broke off")


def test_a_refusal_without_a_problem_shows_its_status(page: "Page", stand_in: StandIn, watch: Watch) -> None:
    watch.expected = ("status of 502",)
    stand_in.replies.append(Reply((b"<h1>proxy</h1>",), 502))
    choose(page)
    expect(card(page).locator(".fault strong")).to_have_text("502 Bad Gateway")


def test_a_service_that_is_gone_is_said_to_be_gone(page: "Page", watch: Watch) -> None:
    watch.expected = ("ERR_CONNECTION_REFUSED",)
    page.route("**/v1/captions/stream*", lambda route: route.abort("connectionrefused"))
    choose(page)
    expect(card(page).locator(".fault")).to_contain_text("could not be reached")


def test_a_busy_service_is_asked_again_after_the_time_it_names(page: "Page", stand_in: StandIn, watch: Watch) -> None:
    watch.expected = ("status of 429",)
    page.clock.install()
    stand_in.replies.append(problem(429, "The service is busy", "the queue is full", **{"Retry-After": "3"}))
    choose(page)
    expect(card(page).locator(".status")).to_have_text("The service is busy: trying again in 3 s")
    page.clock.run_for(1000)
    expect(card(page).locator(".status")).to_have_text("The service is busy: trying again in 2 s")
    page.clock.run_for(1000)
    assert len(stand_in.asked) == 1
    page.clock.run_for(1000)
    expect(card(page).locator(".caption")).to_have_text("A grey cat.")
    assert len(stand_in.asked) == 2
    assert news(page) == ["cat.png: A grey cat. Confidence 62%."]


def test_waiting_for_a_busy_service_can_be_cancelled(page: "Page", stand_in: StandIn, watch: Watch) -> None:
    watch.expected = ("status of 429",)
    page.clock.install()
    stand_in.replies.append(problem(429, "The service is busy", "the queue is full", **{"Retry-After": "2"}))
    choose(page)
    expect(card(page).locator(".status")).to_contain_text("trying again")
    button(page, "Cancel").click()
    page.clock.run_for(5000)
    expect(card(page).locator(".status")).to_have_text("Cancelled")
    assert len(stand_in.asked) == 1


def test_the_token_is_asked_for_only_when_the_service_wants_one(page: "Page") -> None:
    choose(page)
    expect(card(page)).to_have_attribute("data-state", "done")
    expect(page.locator("#token-form")).to_be_hidden()


def test_a_refused_photograph_is_captioned_once_the_token_is_right(
    open_page: Callable[..., "Page"], stand_in: StandIn, watch: Watch
) -> None:
    watch.expected = ("status of 401",)
    stand_in.token = "sesame"
    page = open_page(stand_in.url)
    field = page.get_by_label("Bearer token")
    expect(field).to_be_focused()  # nothing else had the focus
    choose(page)
    expect(card(page).locator(".fault")).to_contain_text("The token is wrong")
    for token, state in (("wrong", "failed"), ("sesame", "done")):
        asked = len(stand_in.asked)
        field.fill(token)
        field.press("Enter")
        expect(card(page)).to_have_attribute("data-state", state)
        assert len(stand_in.asked) > asked
        expect(page.get_by_role("button", name="Choose photographs")).to_be_focused()
        expect(field).to_be_visible(visible=state == "failed")
    assert stand_in.asked[-1].headers["authorization"] == "Bearer sesame"
    expect(page.locator("#model")).to_have_text("stand-in · int8 · cpu")


@pytest.mark.parametrize("token", ["two words", "bad\u200btoken"])
def test_a_token_that_no_header_can_hold_is_told_so_and_not_sent(
    open_page: Callable[..., "Page"], stand_in: StandIn, watch: Watch, token: str
) -> None:
    watch.expected = ("status of 401",)
    stand_in.token = "sesame"
    page = open_page(stand_in.url)
    field = page.get_by_label("Bearer token")
    expect(field).to_be_focused()
    asked = len(watch.addresses)
    field.fill(token)
    field.press("Enter")
    expect(field).to_be_visible()
    assert "ASCII letters, digits and punctuation" in field.evaluate("field => field.validationMessage")
    assert len(watch.addresses) == asked
    field.fill(" sesame ")
    field.press("Enter")
    expect(page.locator("#model")).to_have_text("stand-in · int8 · cpu")


def test_a_number_that_the_browser_cannot_read_is_told_so_and_not_left_out(page: "Page", stand_in: StandIn) -> None:
    page.get_by_role("radio", name="Sample").check()
    seed = page.get_by_role("spinbutton", name="Seed")
    seed.press_sequentially("ab-e")
    fault = "Seed is not a whole number: write one, or leave it empty."
    expect(page.get_by_role("alert").filter(has_text=fault)).to_be_visible()
    choose(page)
    expect(card(page).locator(".fault")).to_contain_text(fault)
    assert stand_in.asked == []
    seed.fill("7")
    expect(page.locator("#options-fault")).to_be_hidden()
    button(page, "Again").click()
    expect(card(page).locator(".caption")).to_have_text("A grey cat.")
    assert stand_in.asked[0].query["seed"] == "7"
    seed.press_sequentially("e")
    page.get_by_role("radio", name="Greedy").check()  # which has no seed
    button(page, "Again").click()
    expect(card(page).locator(".caption")).to_have_text("A grey cat.")


def test_a_removed_card_hangs_up(page: "Page", stand_in: StandIn) -> None:
    gate = Gate()
    stand_in.replies.append(Reply((gate,)))
    choose(page)
    assert gate.reached.wait(15)
    button(page, "Remove").click()
    assert gate.gone.wait(15)
    expect(page.locator("#empty")).to_be_visible()
    assert news(page) == []


@pytest.mark.parametrize(("header", "seconds"), [("0", 1), ("soon", 2), ("Thu, 01 Jan 1970 00:00:00 GMT", 1), ("", 1)])
def test_a_busy_service_is_never_asked_again_within_a_second(
    page: "Page", stand_in: StandIn, watch: Watch, header: str, seconds: int
) -> None:
    watch.expected = ("status of 429",)
    page.clock.install()
    stand_in.replies.append(problem(429, "The service is busy", "the queue is full", **{"Retry-After": header}))
    choose(page)
    expect(card(page).locator(".status")).to_have_text(f"The service is busy: trying again in {seconds} s")


def test_a_failed_device_is_asked_again_only_by_hand(page: "Page", stand_in: StandIn, watch: Watch) -> None:
    watch.expected = ("status of 503",)
    stand_in.replies.append(problem(503, "The computation failed", "the run failed on its device: try again"))
    choose(page)
    expect(card(page).locator(".fault")).to_contain_text("The computation failed")
    assert len(stand_in.asked) == 1

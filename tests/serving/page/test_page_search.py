"""The page of a service with an index: words in, photographs out; by keyboard, on a phone, and with faults."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from engine import Captioner, PhotoIndex
from tests.serving.page.conftest import Watch
from tests.serving.page.photographs import card, choose
from tests.serving.page.searching import asked, field, opener, search, tiles
from tests.serving.page.stand_in import MODEL, Gate, Reply, StandIn, as_json, found, problem
from tests.serving.process import Service

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = pytest.importorskip("playwright.sync_api").expect
SAMPLES = Path(__file__).parents[3] / "samples"
pytestmark = pytest.mark.usefixtures("beach")


# ---- without an index


def test_without_an_index_there_is_no_search_field(open_page: Callable[..., "Page"], stand_in: StandIn) -> None:
    for model in (MODEL, MODEL | {"search": False, "similar": False}):
        stand_in.model = model
        page = open_page(f"{stand_in.url}#q=dog")
        expect(page.locator("#model")).to_be_visible()
        expect(page.locator("#search")).to_be_hidden()
        page.keyboard.press("/")
        choose(page)
        expect(card(page).locator(".caption")).to_have_text("A grey cat.")
    assert stand_in.sought == []


# ---- found


def test_words_bring_photographs_with_their_captions_in_the_services_order(page: "Page", stand_in: StandIn) -> None:
    stand_in.index = [found(3, "a dog"), found(1, "two dogs", copies=3), found(2, "a <b>beach</b> & dog")]
    search(page, "dogs on a beach")
    expect(tiles(page)).to_have_count(3)
    assert asked(stand_in) == [{"q": "dogs on a beach", "limit": "24"}]
    expect(page.locator(".said")).to_have_text(["a dog", "two dogs", "a <b>beach</b> & dog"])
    expect(page.locator(".tile .name")).to_have_text(["3.png", "1.png and 2 copies", "2.png"])
    expect(page.get_by_role("status")).to_have_text("3 photographs, the best first.")
    expect(page.get_by_role("heading", name="Photographs of “dogs on a beach”")).to_be_visible()
    expect(page.locator(".tile img[src]")).to_have_count(3)
    widths = page.locator(".tile img").evaluate_all(
        "all => Promise.all(all.map((one) => one.decode().then(() => one.naturalWidth)))"
    )
    assert widths == [33, 31, 32]  # each its own
    expect(page.get_by_role("button", name="Choose photographs")).to_be_hidden()


def test_only_the_pictures_near_the_window_are_fetched(page: "Page", stand_in: StandIn) -> None:
    page.set_viewport_size({"width": 360, "height": 400})
    search(page, "dogs")
    expect(page.locator(".tile img[src]").first).to_be_visible()
    assert 2 <= page.locator(".tile img[src]").count() < 16
    tiles(page).last.scroll_into_view_if_needed()
    expect(tiles(page).last.locator("img[src]")).to_be_visible()


def test_more_are_shown_on_demand(page: "Page", stand_in: StandIn) -> None:
    search(page, "dogs")
    expect(tiles(page)).to_have_count(24)
    stand_in.index[:2] = reversed(stand_in.index[:2])  # a larger limit may change an order
    page.get_by_role("button", name="Show more").click()
    expect(tiles(page)).to_have_count(30)
    assert asked(stand_in)[-1] == {"q": "dogs", "limit": "48"}
    expect(page.locator(".tile .name")).to_have_text([f"{number}.png" for number in range(1, 31)])
    expect(opener(page, 25)).to_be_focused()
    expect(page.get_by_role("status")).to_have_text("30 photographs, the best first.")
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()


def test_more_like_one_can_be_asked_and_back_leads_back(page: "Page", stand_in: StandIn) -> None:
    search(page, "dogs")
    page.get_by_role("button", name="More like 7.png").click()
    expect(page.get_by_role("heading", name="More like 7.png: “a dog runs on beach 7”")).to_be_focused()
    expect(tiles(page)).to_have_count(24)
    assert asked(stand_in)[-1] == {"id": "7", "limit": "24"}
    expect(opener(page, 7)).to_have_count(0)
    assert page.url.endswith("#like=7")
    page.go_back()
    expect(page.get_by_role("heading", name="Photographs of “dogs”")).to_be_visible()
    expect(opener(page, 7)).to_be_visible()
    expect(field(page)).to_have_value("dogs")
    page.go_back()
    expect(page.get_by_role("button", name="Choose photographs")).to_be_visible()
    expect(field(page)).to_have_value("")
    page.go_forward()
    expect(tiles(page)).to_have_count(24)


def test_a_model_that_cannot_compare_offers_nothing_more(open_page: Callable[..., "Page"], stand_in: StandIn) -> None:
    stand_in.model = MODEL | {"search": True, "similar": False}
    page = open_page(stand_in.url)
    search(page, "dogs")
    expect(tiles(page)).to_have_count(24)
    assert not any(each.is_visible() for each in page.get_by_text("More like this").all())


@pytest.mark.parametrize("text", ["two dogs & a cat", "50% of #1 + ü", "<script>alert(1)</script>", "a=b&like=3", '"'])
def test_the_query_is_in_the_address_and_can_be_kept(
    open_page: Callable[..., "Page"], page: "Page", stand_in: StandIn, text: str
) -> None:
    search(page, text)
    expect(tiles(page)).to_have_count(24)
    kept = page.url
    assert kept.startswith(f"{stand_in.url}#q=")
    later = open_page(kept)
    expect(tiles(later)).to_have_count(24)
    expect(field(later)).to_have_value(text)
    assert asked(stand_in) == [{"q": text, "limit": "24"}] * 2
    assert later.title().startswith(text)


def test_a_slow_answer_never_takes_the_place_of_a_later_one(page: "Page", stand_in: StandIn) -> None:
    gate = Gate()
    stand_in.searches.append(Reply((gate, *as_json({"photos": [found(9)], "left_out": 0}).pieces)))
    search(page, "slow")
    assert gate.reached.wait(15)
    expect(page.locator("#found")).to_have_attribute("aria-busy", "true")
    stand_in.index = [found(4)]
    search(page, "quick")
    expect(opener(page, 4)).to_be_visible()
    assert gate.gone.wait(15)
    gate.opened.set()
    expect(page.locator("#found")).to_have_attribute("aria-busy", "false")
    expect(tiles(page)).to_have_count(1)


def test_a_photograph_opens_large_and_the_focus_comes_back(page: "Page", stand_in: StandIn) -> None:
    search(page, "dogs")
    opener(page, 5).click()
    dialog = page.get_by_role("dialog", name="a dog runs on beach 5")
    expect(dialog).to_contain_text("a dog sleeps")
    link = dialog.get_by_role("link", name="Save the file")
    expect(link).to_have_attribute("download", "5.png")
    image = dialog.get_by_role("img", name="a dog runs on beach 5")
    assert image.evaluate("one => one.decode().then(() => one.naturalWidth)") == 35
    assert [path for path, _ in stand_in.sought if path.endswith("file")] == ["/v1/photos/5/file"]
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(opener(page, 5)).to_be_focused()
    expect(tiles(page)).to_have_count(24)  # the key closed the photograph and nothing else
    opener(page, 5).press("Enter")
    dialog.get_by_role("button", name="More like this").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("heading", name="More like 5.png")).to_be_visible()


def test_a_file_that_is_gone_keeps_its_place(page: "Page", stand_in: StandIn, watch: Watch) -> None:
    watch.expected = ("status of 404",)
    stand_in.index = [found(1)]
    stand_in.searches.append(as_json({"photos": [found(1), found(77)], "left_out": 0}))
    search(page, "dogs")
    expect(tiles(page).last.locator(".frame")).to_have_text("The file is gone")
    expect(tiles(page).first.locator("img[src]")).to_be_visible()
    tiles(page).last.locator(".open").click()
    expect(page.locator("#viewer-status")).to_have_text("its file is gone")


# ---- when something is wrong


def test_nothing_found_is_said_in_one_sentence(page: "Page", stand_in: StandIn) -> None:
    stand_in.index = []
    search(page, "unicorns")
    expect(page.get_by_role("status")).to_have_text("No photograph was found: try other words.")
    stand_in.index = [found(1)]  # which has a thumbnail
    stand_in.searches.append(as_json({"photos": [found(1)], "left_out": 1200}))
    search(page, "dogs")
    text = "1 photograph. 1,200 photographs of another model are not searched until indexed again."
    expect(page.get_by_role("status")).to_have_text(text)


def test_a_problem_is_said_in_the_services_words_and_the_next_search_works(
    page: "Page", stand_in: StandIn, watch: Watch
) -> None:
    watch.expected = ("status of 422", "status of 503", "status of 404")
    fault = page.locator("#found-fault")
    for refusal in (problem(422, "No", "the query has no words"), problem(503, "No", "the index cannot be read")):
        stand_in.searches.append(refusal)
        search(page, f"query {refusal.status}")
        expect(fault).to_have_text({422: "the query has no words", 503: "the index cannot be read"}[refusal.status])
        expect(page.get_by_role("status")).to_have_text("")
        expect(tiles(page)).to_have_count(0)
    search(page, "dogs")
    expect(tiles(page)).to_have_count(24)
    expect(fault).to_be_hidden()
    page.goto(f"{stand_in.url}#like=99")
    expect(fault).to_have_text("its file is gone")


def test_a_service_that_is_gone_is_said_to_be_gone(page: "Page", watch: Watch) -> None:
    watch.expected = ("ERR_CONNECTION_REFUSED",)
    page.route("**/v1/search*", lambda route: route.abort("connectionrefused"))
    search(page, "dogs")
    expect(page.locator("#found-fault")).to_contain_text("could not be reached")


def test_a_bookmark_waits_for_the_token_and_pictures_come_with_it(
    open_page: Callable[..., "Page"], stand_in: StandIn, watch: Watch
) -> None:
    watch.expected = ("status of 401",)
    stand_in.token = "sesame"
    page = open_page(f"{stand_in.url}#q=dogs")
    page.get_by_label("Bearer token").fill("sesame")
    page.get_by_role("button", name="Use it").click()
    expect(tiles(page)).to_have_count(24)
    expect(tiles(page).first.locator("img[src]")).to_be_visible()
    stand_in.token = "another"  # the operator changed it
    search(page, "cats")
    expect(page.get_by_label("Bearer token")).to_be_visible()
    page.get_by_label("Bearer token").fill("another")
    page.get_by_label("Bearer token").press("Enter")
    expect(tiles(page)).to_have_count(24)
    assert asked(stand_in)[-1]["q"] == "cats"


# ---- with the real service


@pytest.fixture(scope="module")
def service(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with an index of the samples."""
    path = tmp_path_factory.mktemp("service") / "photos.db"
    with PhotoIndex(path, Captioner(provider="cpu")) as index:
        index.add([SAMPLES])
    with Service("--index", str(path)) as service:
        service.wait_for("ready")
        yield service


def test_what_it_finds_is_what_the_engine_finds(
    open_page: Callable[..., "Page"], service: Service, tmp_path: Path
) -> None:
    with PhotoIndex(tmp_path / "photos.db", Captioner(provider="cpu")) as index:
        index.add([SAMPLES])
        results = index.search("a cat by a window")
    page = open_page(f"{service.url}/")
    search(page, "a cat by a window")
    expect(page.locator(".said")).to_have_text([each.photo.text for each in results])
    expect(page.locator(".tile .name")).to_have_text([Path(each.photo.path).name for each in results])
    expect(tiles(page).first.locator("img[src]")).to_be_visible()
    tiles(page).first.locator(".open").click()
    image = page.get_by_role("dialog").get_by_role("img")
    expect(page.get_by_role("link", name="Save the file")).to_be_visible()
    expect(page.locator("#viewer-status")).to_have_text("")
    with Image.open(results[0].photo.path) as same:
        assert image.evaluate("one => one.decode().then(() => one.naturalWidth)") == same.width

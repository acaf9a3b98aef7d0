"""The page of a service with an index: words in, photographs out; by keyboard, on a phone, and with faults."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from engine import Captioner, PhotoIndex
from tests.serving.page.conftest import Watch
from tests.serving.page.photographs import card, choose
from tests.serving.page.stand_in import MODEL, Gate, Reply, StandIn, as_json, found, problem
from tests.serving.page.test_page_access import CONTRASTS
from tests.serving.process import Service

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

expect = pytest.importorskip("playwright.sync_api").expect
SAMPLES = Path(__file__).parents[3] / "samples"
PHONE: dict[str, Any] = {"is_mobile": True, "has_touch": True, "viewport": {"width": 360, "height": 740}}


@pytest.fixture(autouse=True)
def beach(stand_in: StandIn) -> None:
    """Gives the stand-in an index of thirty photographs, which can be compared."""
    stand_in.model = MODEL | {"search": True, "similar": True}
    stand_in.index = [found(number) for number in range(1, 31)]


@pytest.fixture
def page(open_page: Callable[..., "Page"], stand_in: StandIn) -> "Page":
    """The page, with its search field."""
    page = open_page(stand_in.url)
    expect(field(page)).to_be_visible()
    return page


def field(page: "Page") -> "Locator":
    return page.get_by_role("searchbox", name="Find photographs by words")


def tiles(page: "Page") -> "Locator":
    return page.locator(".tile")


def opener(page: "Page", number: int) -> "Locator":
    return page.get_by_role("button", name=f"a dog runs on beach {number} {number}.png", exact=True)


def search(page: "Page", text: str) -> None:
    field(page).fill(text)
    field(page).press("Enter")


def asked(stand_in: StandIn) -> list[dict[str, str]]:
    """Returns the queries of all searches."""
    return [query for path, query in stand_in.sought if path in ("/v1/search", "/v1/similar")]


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


# ---- by keyboard


def test_a_keyboard_is_enough(page: "Page", stand_in: StandIn) -> None:
    page.locator("body").press("/")
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


# ---- for all windows


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
    open_page: Callable[..., "Page"], stand_in: StandIn, watch: Watch, scheme: str
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


# ---- when something is wrong


def test_nothing_found_is_said_in_one_sentence(page: "Page", stand_in: StandIn) -> None:
    stand_in.index = []
    search(page, "unicorns")
    expect(page.get_by_role("status")).to_have_text("No photograph was found: try other words.")
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

"""The page with the real service and the model that ships: what it shows is what the engine says."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from engine import Beam, Captioner
from tests.serving.page.conftest import Watch
from tests.serving.page.photographs import button, card, news, photograph
from tests.serving.process import Service

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = pytest.importorskip("playwright.sync_api").expect
SAMPLES = Path(__file__).parents[3] / "samples"
TOKEN = "correct-horse"
LONG = 60_000  # ms


@pytest.fixture(scope="module")
def service(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a token, in which one image waits and the next one is refused."""
    file = tmp_path_factory.mktemp("service") / "tokens"
    file.write_text(f"{TOKEN}\n", encoding="utf-8")
    with Service("--token-file", str(file), "--max-queue", "1") as service:
        service.wait_for("ready")
        yield service


@pytest.fixture
def page(open_page: Callable[..., "Page"], service: Service, watch: Watch) -> "Page":
    """The page, with the token entered."""
    watch.expected = ("status of 401",)
    page = open_page(f"{service.url}/")
    page.get_by_label("Bearer token").fill(TOKEN)
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#model")).to_contain_text("int8 · cpu")
    return page


def test_the_caption_and_its_alternatives_are_the_engines(page: "Page", captioner: Captioner) -> None:
    path = SAMPLES / "coffee.jpg"
    defaults = captioner.bundle.manifest.defaults
    (same,) = captioner.caption([path], Beam(num_hypotheses=defaults.beam_size, style="sentence"))
    page.set_input_files("#files", path)
    expect(card(page, path.name)).to_have_attribute("data-state", "done")
    expect(card(page, path.name).locator(".caption")).to_have_text(same.text)
    others = card(page, path.name).get_by_role("listitem").all_inner_texts()
    assert len(others) == len(same.alternatives) - 1
    assert all(other.text in shown for other, shown in zip(same.alternatives[1:], others, strict=True))
    assert news(page)[0].startswith(f"{path.name}: {same.text}")


@pytest.mark.parametrize("way", ["Greedy", "Beam", "Sample"])
def test_the_service_takes_every_option_that_the_page_offers(page: "Page", way: str) -> None:
    page.get_by_role("radio", name=way).check()
    for slider in page.get_by_role("slider").all():
        if not slider.is_visible():
            continue
        for end in ("min", "max"):
            slider.fill(slider.get_attribute(end) or "")
            page.set_input_files("#files", SAMPLES / "cat.jpg")
            expect(card(page, "cat.jpg").first).to_have_attribute("data-state", "done")
    page.set_input_files("#files", SAMPLES / "cat.jpg")
    expect(page.locator("[data-state=done]")).to_have_count(page.locator(".card").count())


def test_errors_are_the_services_own_words(page: "Page", service: Service, watch: Watch) -> None:
    watch.expected += ("status of 422",)
    broken = (SAMPLES / "cat.jpg").read_bytes()[:500]
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "image/png"}
    said = httpx.post(f"{service.url}/v1/captions/stream", content=broken, headers=headers, timeout=30).json()
    page.set_input_files("#files", [photograph("broken.jpg", broken)])
    fault = card(page, "broken.jpg").locator(".fault")
    expect(fault.locator("strong")).to_have_text(said["title"])
    expect(fault.locator(".detail")).to_have_text(said["detail"])
    page.get_by_role("radio", name="Sample").check()
    page.get_by_role("spinbutton", name="Top k").fill("-1")
    button(page, "Again", "broken.jpg").click()
    expect(fault.locator(".detail")).to_contain_text("top_k")

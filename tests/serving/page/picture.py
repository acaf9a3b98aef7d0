"""Draws the page for the documentation: `python -m tests.serving.page.picture docs/page.png [dark] [phone] [search]`.

Starts the service with the model that ships; captions the photographs of samples/, or searches in an index of them.
"""

import shutil
import sys
import tempfile
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from engine import Captioner, PhotoIndex
from tests.serving.page.conftest import NAMES
from tests.serving.process import ROOT, Service

QUERY = "animals in a field"
PHOTOGRAPHS = ("coffee", "photographer", "rocket", "astronaut", "cat")


def main(target: str, scheme: Literal["light", "dark"], width: int, search: bool) -> None:
    """Writes a PNG of 256 colours."""
    path = next(filter(None, map(shutil.which, NAMES)))
    with ExitStack() as stack:
        options = (
            ("--index", index_of_samples(Path(stack.enter_context(tempfile.TemporaryDirectory())))) if search else ()
        )
        service, playwright = stack.enter_context(Service(*options)), stack.enter_context(sync_playwright())
        service.wait_for("ready")
        browser = playwright.chromium.launch(executable_path=path)
        phone = width < 600
        page = browser.new_page(
            viewport={"width": width, "height": 800}, color_scheme=scheme, is_mobile=phone, has_touch=phone
        )
        page.goto(service.url)
        (show_found if search else show_captions)(page)
        # photographs are loaded and decoded as they come into the window, but the picture shows all of them
        page.evaluate(
            "Promise.all([...document.images].filter(one => one.src).map(one => {"
            " one.loading = 'eager'; one.decoding = 'sync'; return one.decode(); }))"
        )
        shot = page.screenshot(full_page=True, animations="disabled")
        browser.close()
    picture = Image.open(BytesIO(shot)).convert("RGB")
    palette = picture.quantize(256, method=Image.Quantize.MEDIANCUT)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)


def index_of_samples(folder: Path) -> str:
    """Makes an index in a folder and returns its file."""
    with PhotoIndex(folder / "photos.db", Captioner(provider="cpu")) as index:
        index.add([ROOT / "samples"])
    return index.path


def show_captions(page: Page) -> None:
    """Captions photographs."""
    page.set_input_files("#files", [ROOT / "samples" / f"{name}.jpg" for name in PHOTOGRAPHS])
    expect(page.locator("[data-state=done]")).to_have_count(len(PHOTOGRAPHS), timeout=60_000)


def show_found(page: Page) -> None:
    """Searches, and waits for the thumbnails, those below the window too."""
    page.get_by_role("searchbox").fill(QUERY)
    page.keyboard.press("Enter")
    expect(page.locator(".tile").first).to_be_visible()
    page.locator(".tile").last.scroll_into_view_if_needed()
    expect(page.locator(".tile img:not([src])")).to_have_count(0)
    page.evaluate("scrollTo(0, 0)")


if __name__ == "__main__":
    chosen = sys.argv[1:]
    main(chosen[0], "dark" if "dark" in chosen else "light", 360 if "phone" in chosen else 1280, "search" in chosen)

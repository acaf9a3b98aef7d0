"""Draws the page for the documentation: `python -m tests.serving.page.picture docs/page.png [dark] [phone]`.

Starts the service with the model that ships and captions the photographs of samples/.
"""

import shutil
import sys
from io import BytesIO
from typing import Literal

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from tests.serving.page.conftest import NAMES
from tests.serving.process import ROOT, Service

PHOTOGRAPHS = ("coffee", "photographer", "rocket", "astronaut", "cat")


def main(target: str, scheme: Literal["light", "dark"], width: int) -> None:
    """Writes a PNG of 256 colours."""
    path = next(filter(None, map(shutil.which, NAMES)))
    with Service() as service, sync_playwright() as playwright:
        service.wait_for("ready")
        browser = playwright.chromium.launch(executable_path=path)
        phone = width < 600
        page = browser.new_page(
            viewport={"width": width, "height": 800}, color_scheme=scheme, is_mobile=phone, has_touch=phone
        )
        page.goto(service.url)
        page.set_input_files("#files", [ROOT / "samples" / f"{name}.jpg" for name in PHOTOGRAPHS])
        expect(page.locator("[data-state=done]")).to_have_count(len(PHOTOGRAPHS), timeout=60_000)
        # photographs are loaded and decoded as they come into the window, but the picture shows all of them
        page.evaluate(
            "Promise.all([...document.images].map(one => {"
            " one.loading = 'eager'; one.decoding = 'sync'; return one.decode(); }))"
        )
        shot = page.screenshot(full_page=True, animations="disabled")
        browser.close()
    picture = Image.open(BytesIO(shot)).convert("RGB")
    palette = picture.quantize(256, method=Image.Quantize.MEDIANCUT)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)


if __name__ == "__main__":
    chosen = sys.argv[1:]
    main(chosen[0], "dark" if "dark" in chosen else "light", 360 if "phone" in chosen else 1280)

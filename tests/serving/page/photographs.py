"""Photographs to upload, drawn; and the parts of the page that tests look at."""

from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import FilePayload, Locator, Page


def png() -> bytes:
    """Returns the bytes of a plain picture."""
    held = BytesIO()
    Image.new("RGB", (64, 48), "teal").save(held, "PNG")
    return held.getvalue()


def photograph(name: str, content: bytes | None = None) -> "FilePayload":
    """Returns a file as a browser's file chooser takes it."""
    return {"name": name, "mimeType": "image/png", "buffer": png() if content is None else content}


def choose(page: "Page", *names: str) -> None:
    """Chooses photographs by these names."""
    page.set_input_files("#files", [photograph(name) for name in names or ("cat.png",)])


def card(page: "Page", name: str = "cat.png") -> "Locator":
    """Returns the card of a photograph."""
    return page.get_by_role("article", name=name, exact=True)


def button(page: "Page", label: str, name: str = "cat.png") -> "Locator":
    """Returns a button of a card."""
    return page.get_by_role("button", name=f"{label} {name}", exact=True)


def news(page: "Page") -> list[str]:
    """Returns what a screen reader was told."""
    return page.locator("#news p").all_inner_texts()

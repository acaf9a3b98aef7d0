"""The files of the page: where each is served, and under which policy. Knows no requests."""

from collections.abc import Mapping
from importlib.resources import files

from serving.http import page_options

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": CSP, "Cache-Control": "no-cache"}
_SCRIPTS = ("page", "service", "news", "attention", "search", "grid")
PAGE: Mapping[str, tuple[str, str]] = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in _SCRIPTS},
}
"""Paths, and the name and media type of the file behind each."""


def read_page_file(path: str, max_rows: int) -> str | None:
    """Returns the content of a file of the page, with its options filled in; None if the page is not installed."""
    file = files("serving.http") / "page" / PAGE[path][0]
    return page_options.fill(file.read_text(encoding="utf-8"), max_rows) if file.is_file() else None

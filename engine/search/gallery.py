"""A page of the photographs that a search found, in one file. Knows no index."""

import base64
import errno
import html
from pathlib import Path

from engine.errors import ImageError
from engine.images.formats import FORMATS
from engine.images.load import MAX_PIXELS
from engine.search.photo import Found, Results, is_uri
from engine.search.thumbnails import SIDE, as_jpeg, open_photo

STYLE = """
body { font: 16px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #222; }
ol { list-style: none; display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1.2rem;
  margin: 0; padding: 0; }
img, .none { width: 100%; aspect-ratio: 4 / 3; object-fit: cover; background: #eee; border-radius: 4px; }
.none { display: grid; place-items: center; color: #666; }
p { margin: .3rem 0 0; overflow-wrap: anywhere; }
small { color: #666; }
a { color: inherit; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } small, .none { color: #aaa; }
  img, .none { background: #333; } }
"""


def write_gallery(path: Path, title: str, results: Results) -> None:
    """Writes the page, in place of an earlier one only when it is complete. Raises OSError.

    A photograph that cannot be read any more keeps its place and its caption.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is no regular file, so no page is written there", str(path))
    path = path.resolve()  # a link stays one
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", errors="replace") as file:
        file.write(
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">\n'
            f"<title>{html.escape(title)}</title><style>{STYLE}</style><h1>{html.escape(title)}</h1>\n"
            f"<p>{_said(results)}</p>\n<ol>\n"
        )
        for found in results:
            file.write(f"<li>{_tile(found)}</li>\n")
        file.write("</ol></html>\n")
    partial.replace(path)


def _said(results: Results) -> str:
    if not results:
        return "No photograph was found."
    count = "1 photograph" if len(results) == 1 else f"{len(results):,} photographs"
    return f"{count}, the best first."


def _tile(found: Found) -> str:
    photo = found.photo
    said = html.escape(photo.text)
    elsewhere = is_uri(photo.path)
    try:
        if elsewhere:
            raise ImageError("it is not on this machine", source=photo.path)
        with open_photo(photo) as file:
            picture = base64.b64encode(as_jpeg(file, SIDE, max_pixels=MAX_PIXELS, formats=FORMATS)).decode()
        shown = f'<img alt="{said}" loading="lazy" src="data:image/jpeg;base64,{picture}">'
    except ImageError as error:
        shown = f'<div class="none">{html.escape(error.reason)}</div>'
    name = html.escape(photo.path)
    copies = "" if len(photo.paths) == 1 else f" and {len(photo.paths) - 1} more"
    if not elsewhere:
        shown = f'<a href="{html.escape(Path(photo.path).as_uri())}">{shown}</a>'
    return f"{shown}<p>{said}</p><p><small>{name}{copies}</small></p>"

"""A place of a page that shows a picture, and the same in HTML. Knows no files."""

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from engine.writing.document import Edit
from engine.writing.markup import SPACE, Tag, regions, tags

CODE = {"pre", "code", "template"}
DECORATIVE = {"presentation", "none"}
COMPUTED = re.compile(r"(?:.*[^\w-])?alt\W*|[{<].*")
"""Attributes of templates that give an alt text when the page is made, such as `:alt`, `[attr.alt]` and `{{ all }}`."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture on a page that has no alt text. source: its URL. start: where it stands.

    is_decorative: it is marked as one that says nothing, and has to stay like that. place: what an alt text replaces.
    before, after: what surrounds it. escape: how it is written there.
    """

    source: str
    start: int
    is_decorative: bool
    place: tuple[int, int]
    before: str
    after: str
    escape: Callable[[str], str]

    def filled(self, alt: str) -> Edit:
        """Returns what gives the picture this alt text."""
        words = " ".join(alt.split())
        return Edit(*self.place, f"{self.before}{self.escape(words)}{self.after}")


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures on a page without an alt text. base: the URL that theirs are relative to, "" for the page's own."""

    shown: list[Shown]
    base: str = ""


def html_pictures(text: str, *, fill_empty: bool = False) -> Pictures:
    """Finds the pictures of an HTML page. fill_empty: alt="" does not mark a picture as decorative."""
    found = list(tags(text))
    code = regions(found, CODE)
    base = next((href for tag in found if tag.name == "base" and (href := tag.get("href")) is not None), "")
    shown = [one for tag in found if tag.start not in code for one in image_tag(tag, fill_empty=fill_empty)]
    return Pictures(shown, base)


def image_tag(tag: Tag, *, fill_empty: bool) -> Iterator[Shown]:
    """Yields what an <img> tag shows, if it is one that has a picture and no alt text.

    alt="" says that a picture is decorative, and alt without a value is the same by the HTML standard. White space
    alone says nothing.
    """
    source, alt = tag.get("src"), tag.get("alt")
    if tag.name != "img" or tag.is_end or not source or not source.strip(SPACE) or (alt and alt.strip()):
        return
    if any(name != "alt" and COMPUTED.fullmatch(name) for name in tag.attributes):
        return
    role = {word.lower() for word in (tag.get("role") or "").split()}
    is_hidden = (tag.get("aria-hidden") or "").strip().lower() == "true"
    is_decorative = bool(role & DECORATIVE) or is_hidden or (alt == "" and not fill_empty)
    if alt is None:
        image = tag.attributes["src"]
        quote = image.quote or '"'
        yield Shown(source, tag.start, is_decorative, (image.end, image.end), f" alt={quote}", quote, _escape(quote))
        return
    attribute = tag.attributes["alt"]
    quote = attribute.quote or '"'
    place = (attribute.start, attribute.end)
    yield Shown(source, tag.start, is_decorative, place, f"alt={quote}", quote, _escape(quote))


def _escape(quote: str) -> Callable[[str], str]:
    sign, name = ('"', "&quot;") if quote == '"' else ("'", "&#39;")
    return lambda words: html.escape(words, quote=False).replace(sign, name)

"""Tags of HTML with the places of their attributes. Knows no meaning of any tag.

The tokens are those of the HTML standard ("13.2.5 Tokenization"), from which the parser of Python's library differs by
version, and which it gives without the places of attributes.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape

SPACE = "\t\n\f\r "
TAG_NAME = re.compile(rf"</?([a-zA-Z][^{SPACE}/>]*)")
ATTRIBUTE = re.compile(
    rf"[{SPACE}/]*(?P<name>=?[^{SPACE}/>=]*)"
    rf"(?:[{SPACE}]*=[{SPACE}]*(?P<value>\"[^\"]*\"|'[^']*'|(?![\"'])[^{SPACE}>]*))?"
)
UNCLOSED = re.compile(rf"[{SPACE}]*=")  # the value after it has a quotation mark that nothing closes
RAW = {"script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"}
"""Elements that hold text and no tags."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute. start, end: of all of it; value: unescaped; quote: the mark around it, "" if there is none."""

    name: str
    start: int
    end: int
    value: str
    value_start: int
    quote: str


@dataclass(frozen=True, slots=True)
class Tag:
    """A start or end tag. name: in lower case. attributes: by name in lower case, of each the first."""

    name: str
    is_end: bool
    start: int
    end: int
    attributes: dict[str, Attribute]

    def get(self, name: str) -> str | None:
        """Returns the value of an attribute, or None if the tag does not have it."""
        return self.attributes[name].value if name in self.attributes else None


def tag_at(text: str, start: int) -> Tag | None:
    """Returns the tag that begins here; None if this is none, or none that ends."""
    name = TAG_NAME.match(text, start)
    if name is None:
        return None
    attributes: dict[str, Attribute] = {}
    place = name.end()
    while (found := ATTRIBUTE.match(text, place)) and found["name"]:
        place = found.end()
        value = found["value"] or ""
        if found["value"] is None and UNCLOSED.match(text, place):
            return None
        quote = value[:1] if value[:1] in ('"', "'") else ""
        value_start = (found.start("value") if found["value"] is not None else place) + len(quote)
        plain = unescape(value.strip(quote) if quote else value)
        attribute = Attribute(found["name"].lower(), found.start("name"), place, plain, value_start, quote)
        attributes.setdefault(attribute.name, attribute)
    end = found.end() if found else place
    if text[end : end + 1] != ">":
        return None
    return Tag(name[1].lower(), text[start + 1] == "/", start, end + 1, attributes)


def comment_end(text: str, start: int) -> int | None:
    """Returns where a comment, doctype or processing instruction that begins here ends; None if none does."""
    if text.startswith("<!--", start):
        if short := re.compile("<!--(?:>|->)").match(text, start):
            return short.end()
        ends = re.compile("--!?>").search(text, start + 4)
        return ends.end() if ends else len(text)
    if text.startswith(("<!", "<?"), start) or (text.startswith("</", start) and not TAG_NAME.match(text, start)):
        return (text.find(">", start) + 1) or len(text)
    return None


def tags(text: str) -> Iterator[Tag]:
    """Yields the tags of a document, without those in comments, and without what only looks like tags in scripts."""
    place = text.find("<")
    while place >= 0:
        after = comment_end(text, place)
        if after is None and TAG_NAME.match(text, place):
            if (tag := tag_at(text, place)) is None:
                return  # it runs to the end of the document
            yield tag
            after = raw_end(text, tag)
        place = text.find("<", place + 1 if after is None else after)


def raw_end(text: str, tag: Tag) -> int:
    """Returns where tags go on after this one: after the text of an element that has no tags in it."""
    if tag.name == "plaintext" and not tag.is_end:
        return len(text)
    if tag.name not in RAW or tag.is_end:
        return tag.end
    closing = re.compile(rf"</{tag.name}(?=[{SPACE}/>])", re.IGNORECASE).search(text, tag.end)
    return closing.start() if closing else len(text)


@dataclass(frozen=True, slots=True)
class Regions:
    """Stretches of a text, in order and apart."""

    starts: list[int]
    ends: list[int]

    def __contains__(self, place: int) -> bool:
        before = bisect_left(self.ends, place + 1)  # the first one that ends after the place
        return before < len(self.starts) and self.starts[before] <= place


def regions(tags_in_order: list[Tag], names: set[str]) -> Regions:
    """Returns where the elements of these names are; one that is never closed is none."""
    open_: list[Tag] = []
    outer: list[tuple[int, int]] = []
    for tag in tags_in_order:
        if tag.name not in names:
            continue
        if not tag.is_end:
            open_.append(tag)
        elif any(tag.name == other.name for other in open_[-50:]):  # deeper than people nest: a bound on time
            while (opened := open_.pop()).name != tag.name:
                pass
            while outer and outer[-1][0] > opened.start:
                outer.pop()
            outer.append((opened.start, tag.end))
    return Regions([start for start, _ in outer], [end for _, end in outer])

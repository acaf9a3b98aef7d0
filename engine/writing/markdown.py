"""The pictures of a Markdown page that have no alt text: `![](x.jpg)`, `![][x]` and <img>. Knows no files.

Markdown has no way to say that a picture is decorative, so that an empty text is one that is missing.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from html import unescape

from engine.writing.markdown_blocks import Blocks, blocks
from engine.writing.markup import comment_end, raw_end, tag_at
from engine.writing.pictures import CODE, Pictures, Shown, image_tag

GAP = r"[ \t]*(?:\r?\n[ \t]*)?"
TARGET = r"(?:<(?P<quoted>[^<>\n]*)>|(?P<plain>(?:[^\s()\\<]|\\.)(?:[^\s()\\]|\\.|\((?:[^\s()\\]|\\.)*\))*))"
TITLE = r"(?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|\((?:[^()\\]|\\.)*\))"
IMAGE = re.compile(
    rf"!\[(?P<alt>{GAP})\](?:\({GAP}{TARGET}(?:{GAP}(?<=\s){TITLE})?{GAP}\)|\[(?P<label>(?:[^\[\]\\]|\\.)+)\])",
    re.DOTALL,
)
DEFINITION = re.compile(rf"^ {{0,3}}\[(?P<label>(?:[^\[\]\\]|\\.)+)\]:{GAP}{TARGET}", re.MULTILINE)
ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
SPECIAL = re.compile(r"[\\`*_\[\]<>&~|!$]")


def markdown_pictures(text: str, *, fill_empty: bool = False) -> Pictures:
    """Finds the pictures of a Markdown page. fill_empty: alt="" of an <img> does not mark it as decorative."""
    page = blocks(text)
    targets: dict[str, str] = {}
    begins = set(page.breaks)
    for definition in DEFINITION.finditer(page.text):
        if definition.start() in begins:  # not in the middle of a paragraph
            begins.add(page.text.find("\n", definition.end()) + 1)
            targets.setdefault(_label(definition["label"]), _target(definition))
    return Pictures(list(_Reader(page).shown(targets, fill_empty)))


class _Reader:
    """Reads a page from left to right: of what overlaps, what begins first counts."""

    def __init__(self, page: Blocks) -> None:
        self.text, self.breaks, self.html = page.text, page.breaks, page.html
        self.ticks: dict[int, list[int]] = defaultdict(list)  # where runs of so many begin
        for run in re.finditer("`+", self.text):
            self.ticks[len(run[0])].append(run.start())
        self.unclosed: set[str] = set()  # elements that are closed nowhere from here on

    def shown(self, targets: dict[str, str], fill_empty: bool) -> Iterator[Shown]:
        """Yields the pictures. targets: URLs by label."""
        place, sign = 0, re.compile(r"[\\`<]|!\[")
        while begin := sign.search(self.text, place):
            start, place = begin.start(), begin.end()
            if begin[0] != "<" and start in self.html:
                continue
            if begin[0] == "\\":
                place = start + 2
            elif begin[0] == "`":
                place = self.code_end(start)
            elif begin[0] == "<":
                tag = tag_at(self.text, start)
                if (after := comment_end(self.text, start)) is not None:
                    place = after
                elif tag is not None and tag.end <= self.block_end(start):
                    yield from image_tag(tag, fill_empty=fill_empty)
                    code_end = None if tag.is_end else self.code_element_end(tag.name, tag.end)
                    place = code_end or raw_end(self.text, tag)
            elif (found := IMAGE.match(self.text, start)) and found.end() <= self.block_end(start):
                place = found.end()
                source = targets.get(_label(found["label"])) if found["label"] else _target(found)
                if source:
                    yield Shown(source, start, False, found.span("alt"), "", "", escape_markdown)

    def block_end(self, place: int) -> int:
        after = bisect_right(self.breaks, place)
        return self.breaks[after] if after < len(self.breaks) else len(self.text)

    def code_end(self, start: int) -> int:
        """Returns where a code span that begins here ends, or where its backticks do if nothing closes it."""
        length = len(self.text[start : start + 1])
        while self.text.startswith("`", start + length):
            length += 1
        runs = self.ticks[length]
        after = bisect_right(runs, start)
        is_closed = after < len(runs) and runs[after] < self.block_end(start)
        return (runs[after] if is_closed else start) + length

    def code_element_end(self, name: str, place: int) -> int | None:
        """Returns where an element that shows code ends; None if it is another or is not closed."""
        if name not in CODE or name in self.unclosed:
            return None
        closing = re.compile(rf"</{name}\s*>", re.IGNORECASE).search(self.text, place)
        if closing is None:
            self.unclosed.add(name)
        return closing.end() if closing else None


def escape_markdown(words: str) -> str:
    """Returns text in which no sign means anything."""
    return SPECIAL.sub(r"\\\g<0>", words)


def _target(found: re.Match[str]) -> str:
    raw = found["quoted"] if found["plain"] is None else found["plain"]
    return unescape(ESCAPED.sub(r"\1", raw))


def _label(label: str) -> str:
    return " ".join(label.split()).casefold()

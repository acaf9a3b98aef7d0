"""The blocks of a Markdown page: which lines are code, and where paragraphs begin. Knows nothing of what is in a line.

Quotes, lists, fences, indented code and blocks of HTML are those of CommonMark 0.31, sections 4 and 5.
"""

import re
from dataclasses import dataclass, field

from engine.writing.markup import Regions, tag_at

QUOTE = re.compile(r" {0,3}> ?")
ITEM = re.compile(r" {0,3}(?:[-+*]|\d{1,9}[.)])(?: {1,4}(?=\S)|(?: (?= {4}))| *$)")
RULE = re.compile(r" {0,3}([-*_])(?: *\1){2,} *$")
HEADING = re.compile(r" {0,3}#{1,6}(?: |$)")
FENCE = re.compile(r" {0,3}(?:(?P<ticks>`{3,})[^`]*$|(?P<waves>~{3,}))")
BLANK = re.compile(r"^\s*$")
UNTIL = {  # how blocks of HTML begin, and what is in the last line of each
    re.compile(r" {0,3}<(?:pre|script|style|textarea)(?:[ >]|$)", re.I): re.compile(
        r"</(?:pre|script|style|textarea)>", re.I
    ),
    re.compile(r" {0,3}<!--"): re.compile("-->"),
    re.compile(r" {0,3}<\?"): re.compile(r"\?>"),
    re.compile(r" {0,3}<![a-zA-Z]"): re.compile(">"),
    re.compile(
        r" {0,3}</?(?:address|article|aside|base|basefont|blockquote|body|caption|center|col|colgroup|dd|details|dialog"
        r"|dir|div|dl|dt|fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]|head|header|hr|html|iframe|legend"
        r"|li|link|main|menu|menuitem|nav|noframes|ol|optgroup|option|p|param|search|section|summary|table|tbody|td"
        r"|tfoot|th|thead|title|tr|track|ul)(?:\s|/?>|$)",
        re.I,
    ): BLANK,
}
ALONE = re.compile(r" {0,3}(?P<tag></?[a-zA-Z][a-zA-Z0-9-]*(?:[\s/][^<>]*)?>)\s*$")
"""A tag that has a line for itself begins a block of HTML too, though not within a paragraph."""
FRONT_MATTER = re.compile(
    r"(?:---[ \t]*\r?\n(?=[\"'\w][^\n:]*:|#).*?^---|\+\+\+[ \t]*\r?\n.*?^\+\+\+)[ \t]*\r?$\n?", re.MULTILINE | re.DOTALL
)
CODE, HTML, TEXT = "code", "html", "text"


@dataclass(frozen=True, slots=True)
class Blocks:
    """A page whose code is spaces, in the same places. breaks: where lines begin that go on with no paragraph.

    html: lines in which only tags mean something.
    """

    text: str
    breaks: list[int]
    html: Regions


@dataclass(slots=True)
class _Reader:
    """Where the reader is. containers: 0 for each quote it is in, and the indentation of each list item's content."""

    containers: list[int] = field(default_factory=list)
    fence: str = ""  # that has to be closed
    fence_depth: int = 0
    until: re.Pattern[str] | None = None
    in_paragraph: bool = False
    is_item_empty: bool = False  # so far: a blank line ends it

    def enter(self, line: str) -> tuple[str, int]:
        """Returns what is in the containers that are open, and how many of them this line is in."""
        for count, width in enumerate(self.containers):
            if width == 0 and (quote := QUOTE.match(line)):
                line = line[quote.end() :]
            elif width and (not line.strip() or line[:width].isspace()):
                line = line[width:]
            else:
                return line, count
        return line, len(self.containers)

    def read(self, line: str) -> tuple[str, bool]:
        """Takes the next line. Returns what it is, and whether it goes on with a paragraph or a block of HTML."""
        line, depth = self.enter(line)
        if self.fence:
            if depth >= self.fence_depth or not line.strip():
                mark = re.match(r" {0,3}(`{3,}|~{3,}) *$", line)
                if mark and mark[1].startswith(self.fence):
                    self.fence = ""
                return CODE, False
            self.fence = ""
        if self.until and depth == len(self.containers):
            if self.until.search(line):
                self.until = None
            return HTML, True
        self.until = None
        was_in_paragraph, self.in_paragraph = self.in_paragraph, False
        if not line.strip():
            if self.is_item_empty:
                self.containers.pop()
            self.is_item_empty = False
            return TEXT, False
        inner, opened = self.open(line, depth, was_in_paragraph)
        self.is_item_empty = opened > 0 and not inner.strip() and self.containers[-1] > 0
        begins = opened or any(sign.match(inner) for sign in (HEADING, RULE, FENCE, *UNTIL))
        if depth < len(self.containers) - opened and (begins or not was_in_paragraph):  # no lazy continuation
            del self.containers[depth : len(self.containers) - opened]
        goes_on = was_in_paragraph and not begins
        if inner.startswith("    ") and not goes_on:
            return CODE, False
        if fence := FENCE.match(inner):
            self.fence, self.fence_depth = fence["ticks"] or fence["waves"], len(self.containers)
            return CODE, False
        if (end := _html_end(inner, in_paragraph=goes_on)) is not None:
            self.until = None if end.search(inner) else end
            return HTML, False
        self.in_paragraph = bool(inner.strip()) and not (HEADING.match(inner) or RULE.match(inner))
        return TEXT, goes_on

    def open(self, line: str, depth: int, in_paragraph: bool) -> tuple[str, int]:
        """Opens the quotes and list items that begin in a line; returns what is in them, and how many there are."""
        opened = 0
        while not (line.startswith("    ") or RULE.match(line)):
            if found := QUOTE.match(line):
                self.containers.append(0)
            elif (found := ITEM.match(line)) and (line[found.end() :].strip() or not in_paragraph):
                self.containers.append(max(found.end(), 2))
            else:
                break
            line, opened = line[found.end() :], opened + 1
        return line, opened


def _html_end(line: str, *, in_paragraph: bool) -> re.Pattern[str] | None:
    """Returns what ends the block of HTML that begins in a line; None if none does."""
    for start, end in UNTIL.items():
        if start.match(line):
            return end
    alone = None if in_paragraph else ALONE.match(line)
    tag = alone and tag_at(line, alone.start("tag"))
    return BLANK if tag and tag.end == len(line.rstrip()) else None


def blocks(text: str) -> Blocks:
    """Reads a page."""
    front = FRONT_MATTER.match(text)
    begin = front.end() if front else 0
    parts, breaks, html = [_blank(text[:begin])], [begin], Regions([], [])
    reader, place = _Reader(), begin
    for line in re.findall(r"[^\n]*\n|[^\n]+", text[begin:]):
        kind, goes_on = reader.read(line.rstrip("\r\n").expandtabs(4))
        parts.append(_blank(line) if kind == CODE else line)
        if not goes_on:
            breaks.append(place)
        if kind == HTML:
            html.starts.append(place)
            html.ends.append(place + len(line))
        place += len(line)
    return Blocks("".join(parts), breaks, html)


def _blank(text: str) -> str:
    return re.sub(r"[^\r\n]", " ", text)

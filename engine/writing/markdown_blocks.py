"""The blocks of a Markdown page: which lines are code, and where paragraphs begin. Knows nothing of what is in a line.

Quotes, lists, fences, indented code and blocks of HTML are those of CommonMark 0.31, sections 4 and 5.
"""

import re
from dataclasses import dataclass, field

QUOTE = re.compile(r" {0,3}> ?")
ITEM = re.compile(r" {0,3}(?:[-+*]|\d{1,9}[.)])(?: {1,4}(?=\S)|(?: (?= {4}))| *$)")
RULE = re.compile(r" {0,3}([-*_])(?: *\1){2,} *$")
HEADING = re.compile(r" {0,3}#{1,6}(?: |$)")
FENCE = re.compile(r" {0,3}(?:(?P<ticks>`{3,})[^`]*$|(?P<waves>~{3,}))")
UNTIL = {  # blocks of HTML that blank lines do not end, and what does
    re.compile(r" {0,3}<(?:pre|script|style|textarea)(?:[ >]|$)", re.I): re.compile(
        r"</(?:pre|script|style|textarea)>", re.I
    ),
    re.compile(r" {0,3}<!--"): re.compile("-->"),
    re.compile(r" {0,3}<\?"): re.compile(r"\?>"),
}
FRONT_MATTER = re.compile(r"(---|\+\+\+)[ \t]*\r?\n.*?^\1[ \t]*\r?$\n?", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Blocks:
    """A page whose code is spaces, in the same places. breaks: where lines begin that go on with no paragraph."""

    text: str
    breaks: list[int]


@dataclass(slots=True)
class _Reader:
    """Where the reader is. containers: 0 for each quote it is in, and the indentation of each list item's content."""

    containers: list[int] = field(default_factory=list)
    fence: str = ""  # that has to be closed
    fence_depth: int = 0
    until: re.Pattern[str] | None = None
    in_paragraph: bool = False

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

    def read(self, line: str) -> tuple[bool, bool]:
        """Takes the next line. Returns whether it is code, and whether it goes on with a paragraph."""
        line, depth = self.enter(line)
        if self.fence:
            if depth >= self.fence_depth or not line.strip():
                mark = re.match(r" {0,3}(`{3,}|~{3,}) *$", line)
                if mark and mark[1].startswith(self.fence):
                    self.fence = ""
                return True, False
            self.fence = ""
        if self.until:
            if self.until.search(line):
                self.until = None
            return False, True
        was_in_paragraph, self.in_paragraph = self.in_paragraph, False
        if not line.strip():
            return False, False
        inner, opened = self.open(line, depth, was_in_paragraph)
        begins = opened or HEADING.match(inner) or RULE.match(inner) or FENCE.match(inner)
        if depth < len(self.containers) - opened and (begins or not was_in_paragraph):  # no lazy continuation
            del self.containers[depth : len(self.containers) - opened]
        goes_on = was_in_paragraph and not begins
        if inner.startswith("    ") and not goes_on:
            return True, False
        if fence := FENCE.match(inner):
            self.fence, self.fence_depth = fence["ticks"] or fence["waves"], len(self.containers)
            return True, False
        for start, end in UNTIL.items():
            if (found := start.match(inner)) and not end.search(inner, found.end()):
                self.until = end
        self.in_paragraph = bool(inner.strip()) and not (HEADING.match(inner) or RULE.match(inner))
        return False, goes_on

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


def blocks(text: str) -> Blocks:
    """Reads a page."""
    front = FRONT_MATTER.match(text)
    begin = front.end() if front else 0
    parts, breaks = [_blank(text[:begin])], [begin]
    reader, place = _Reader(), begin
    for line in re.findall(r"[^\n]*\n|[^\n]+", text[begin:]):
        is_code, goes_on = reader.read(line.rstrip("\r\n").expandtabs(4))
        parts.append(_blank(line) if is_code else line)
        if not goes_on:
            breaks.append(place)
        place += len(line)
    return Blocks("".join(parts), breaks)


def _blank(text: str) -> str:
    return re.sub(r"[^\r\n]", " ", text)

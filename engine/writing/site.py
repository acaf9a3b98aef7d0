"""A folder of HTML and Markdown pages: which pictures on them have no alt text, and which files these are.

Opens no picture, and leaves nothing of the folder: neither by .. nor by links.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

from engine.errors import DocumentError
from engine.writing.document import Document, read_file
from engine.writing.markdown import markdown_pictures
from engine.writing.markup import SPACE
from engine.writing.pictures import Pictures, Shown, html_pictures

HTML, MARKDOWN = (".html", ".htm", ".xhtml"), (".md", ".markdown")
PASSED_OVER = ("node_modules",)  # pages of other people's packages
REMOTE, DECORATIVE = "on another site", "decorative"
OUTSIDE, OTHER = "outside the folder", "not named like a photograph"
SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//")
CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
ANY = "latin-1"  # every file is text in it, and signs of ASCII are themselves


@dataclass(frozen=True, slots=True)
class Use:
    """A photograph on a page, in the line of this number. picture: its file."""

    shown: Shown
    line: int
    picture: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page, and the photographs on it that have no alt text."""

    path: Path
    document: Document
    uses: list[Use]

    def filled(self, alts: Mapping[str, str]) -> bytes:
        """Returns the page with alt texts, by picture; where there is none, nothing is filled."""
        edits = [use.shown.filled(CONTROL.sub(" ", alts[use.picture])) for use in self.uses if use.picture in alts]
        if self.document.encoding == ANY:  # it may be meant in another one: only ASCII is sure
            edits = [replace(edit, new=edit.new.encode("ascii", "xmlcharrefreplace").decode()) for edit in edits]
        return self.document.edited(edits)


@dataclass(slots=True)
class Site:
    """What was found. left: pictures without an alt text that stay as they are, by reason. lost: those whose file is
    not there, as "page:line: URL". failed: pages that cannot be read, each with its reason.
    """

    folder: Path
    suffixes: Collection[str]
    fill_empty: bool = False
    pages: list[Page] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def read(self) -> None:
        """Reads every page of the folder. suffixes: those of photographs."""
        for path in self._files():
            try:
                self.pages.append(self._page(path))
            except DocumentError as error:
                self.failed.append((str(path), str(error)))

    def _files(self) -> Iterator[Path]:
        seen: set[str] = set()

        def note(error: OSError) -> None:
            self.failed.append((str(error.filename), f"cannot be read: {error.strerror or error}"))

        for folder, subfolders, names in os.walk(self.folder, onerror=note):
            subfolders[:] = sorted(one for one in subfolders if not one.startswith(".") and one not in PASSED_OVER)
            for name in sorted(names):
                path = Path(folder, name)
                if path.suffix.lower() not in HTML + MARKDOWN or name.startswith("."):
                    continue
                real = os.path.realpath(path)
                if real not in seen and self._holds(real):  # a link into the folder leads to a page that is read anyway
                    seen.add(real)
                    yield path

    def _page(self, path: Path) -> Page:
        data = read_file(path)
        is_html = path.suffix.lower() in HTML
        document = Document.of(data, _encodings(data) if is_html else ("utf-8", ANY))
        pictures = (html_pictures if is_html else markdown_pictures)(document.text, fill_empty=self.fill_empty)
        uses, line, counted = [], 1, 0
        for shown in pictures.shown:
            line += document.text.count("\n", counted, shown.start)
            counted = shown.start
            if shown.is_decorative:
                self.left[DECORATIVE] += 1
            elif (picture := self._picture(shown, pictures, path)) in (REMOTE, OUTSIDE, OTHER):
                self.left[picture] += 1
            elif not os.path.isfile(picture):  # noqa: PTH113 - Path raises on some names
                self.lost.append(f"{path}:{line}: {shown.source}")
            else:
                uses.append(Use(shown, line, picture))
        return Page(path, document, uses)

    def _picture(self, shown: Shown, pictures: Pictures, page: Path) -> str:
        """Returns the path of a picture, which may not be there, or why it is left alone."""
        folder = str(page.parent)
        for url in (pictures.base, shown.source) if pictures.base else (shown.source,):
            url = re.sub(r"[\t\r\n]", "", url.strip(SPACE)).replace("\\", "/")  # as browsers do
            if SCHEME.match(url):
                return REMOTE
            path = os.fsdecode(unquote_to_bytes(re.split("[?#]", url, maxsplit=1)[0]))
            start = str(self.folder) if path.startswith("/") else folder
            target = os.path.normpath(os.path.join(start, path.lstrip("/")))  # noqa: PTH118 - Path keeps ..
            folder = target if path.endswith("/") or not path else os.path.dirname(target)  # noqa: PTH120
        if Path(target).suffix.lower() not in self.suffixes:
            return OTHER
        if not self._holds(os.path.abspath(target), os.path.abspath(self.folder)):  # noqa: PTH100 - follows links
            return OUTSIDE
        if "\0" not in target and not self._holds(os.path.realpath(target)):
            return OUTSIDE
        return target

    def _holds(self, path: str, folder: str = "") -> bool:
        """Says whether a path, which has to be absolute and without .., is in the folder."""
        folder = folder or os.path.realpath(self.folder)
        return path.startswith(folder.rstrip(os.sep) + os.sep)


def _encodings(data: bytes) -> tuple[str, ...]:
    """Returns encodings to read an HTML page in: what it declares in its first 1,024 bytes, as browsers have it."""
    found = CHARSET.search(data, 0, 1024)
    declared = found[1].decode().lower() if found else "utf-8"
    return ("utf-8" if declared.startswith(("utf-", "utf_")) else declared, "utf-8", ANY)

"""`caption --alt-text`: fills the alt texts that the pages of a site lack. Owns the output and the exit code."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from engine.captioner import Captioner
from engine.commands.destinations import suffixes_of
from engine.commands.lines import explanation, one_line, trusted
from engine.commands.progress import Progress
from engine.errors import DocumentError, ImageError, OptionsError
from engine.options import Decoding
from engine.writing.document import check_writable, read_file, replace_file
from engine.writing.site import Page, Site

INTERRUPTED = 130  # 128 + the signal, as shells have it


def fill(arguments: argparse.Namespace, decoding: Decoding, open_captioner: Callable[[], Captioner]) -> int:
    """Writes the alt texts, each page as soon as its pictures are captioned, and says what was left and why."""
    site = Site(arguments.alt_text, suffixes_of(arguments), fill_empty=arguments.fill_empty)
    site.read()
    if not site.pages and not site.failed:
        raise OptionsError(f"no HTML or Markdown file was found in {site.folder}: name the folder that holds the pages")
    if arguments.style is None:
        decoding = replace(decoding, style="sentence")
    work = _Work(site, arguments.min_confidence, arguments.dry_run)
    pages = [page for page in site.pages if page.uses and work.may_write(page)]
    pictures = list(dict.fromkeys(use.picture for page in pages for use in page.uses))
    interrupted = False
    try:
        if pictures:
            work.run(pages, pictures, open_captioner(), decoding)
    except KeyboardInterrupt:
        interrupted = True
    work.tell()
    if interrupted:
        print(f"interrupted: {work.done} of {len(pictures)} pictures captioned", file=sys.stderr)
        return INTERRUPTED
    return 1 if work.failed or site.failed or site.lost else 0


@dataclass(slots=True)
class _Work:
    """What was done. alts: the alt text of each picture that has one. failed, doubted: the others."""

    site: Site
    least: float | None
    dry: bool
    alts: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    doubted: set[str] = field(default_factory=set)
    done: int = 0
    filled: int = 0
    changed: int = 0

    def may_write(self, page: Page) -> bool:
        """Says whether a page can be written to, before its pictures are captioned; notes it if not."""
        try:
            check_writable(page.path)
        except DocumentError as error:
            self.site.failed.append((str(page.path), str(error)))
            return False
        return True

    def run(self, pages: list[Page], pictures: list[str], captioner: Captioner, decoding: Decoding) -> None:
        """Captions each picture once, in the order of the pages, and writes each page when it has all of its own."""
        progress = Progress(len(pictures), sys.stderr, "{done:,} of {total:,} pictures, {rate:.1f} a second")
        waiting = iter(pictures)
        results = captioner.iter_captions(pictures, decoding, on_error="return", attention=False)
        try:
            progress.show(0)
            for page in pages:
                while any(use.picture not in self.alts.keys() | self.failed | self.doubted for use in page.uses):
                    picture, result = next(waiting), next(results)
                    progress.clear()
                    if isinstance(result, ImageError):
                        self.failed[picture] = explanation(result)
                    elif trusted(result, self.least):
                        self.alts[picture] = result.text
                    else:
                        self.doubted.add(picture)
                    self.done += 1
                    progress.show(self.done)
                progress.clear()
                self.write(page)
        finally:
            progress.clear()

    def write(self, page: Page) -> None:
        """Writes a page, or prints its diff."""
        filled = [use for use in page.uses if use.picture in self.alts]
        if not filled:
            return
        before, after = page.document.edited(()), page.filled(self.alts)
        if self.dry:
            name = page.path.relative_to(self.site.folder).as_posix()
            for part in _diff(name, before, after):
                sys.stdout.buffer.write(part)
            sys.stdout.flush()
        else:
            try:
                if read_file(page.path) != before:
                    raise DocumentError("has changed while its pictures were captioned: run this again")
                replace_file(page.path, after)
            except DocumentError as error:
                self.site.failed.append((str(page.path), str(error)))
                return
            for use in filled:
                where = f"{one_line(str(page.path))}:{use.line}"
                print(f"{where}\t{one_line(use.picture)}\t{self.alts[use.picture]}", flush=True)
        self.filled += len(filled)
        self.changed += 1

    def tell(self) -> None:
        """Prints what was filled, what was left and why, and what was not found, on standard error."""

        def say(text: str, lines: Iterator[str] | None = None) -> None:
            print(text, *(f"  {one_line(line)}" for line in lines or ()), sep="\n", file=sys.stderr)

        pages = f"in {self.changed:,} of {_counted(len(self.site.pages), 'page')}"
        say(f"{_counted(self.filled, 'alt text')} {'would be written' if self.dry else 'written'} {pages}")
        if self.site.left:
            reasons = "; ".join(f"{count:,} {reason}" for reason, count in sorted(self.site.left.items()))
            say(f"{_counted(self.site.left.total(), 'picture')} left alone: {reasons}")
        if self.doubted:
            say(f"{_counted(len(self.doubted), 'picture')} left alone: confidence below {self.least:g}")
        if self.site.lost:
            say(f"{_counted(len(self.site.lost), 'picture')} not found:", iter(self.site.lost))
        for what, failed in (("picture", self.failed.items()), ("page", self.site.failed)):
            if failed:
                lines = (f"{path}: {reason}" for path, reason in failed)
                say(f"{_counted(len(failed), what)} left as before:", lines)


def _counted(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"


def _diff(name: str, before: bytes, after: bytes) -> Iterator[bytes]:
    """Yields a unified diff that `patch -p1` and `git apply` take, in the encoding of the page."""
    old, new = (re.findall(rb"[^\n]*\n|[^\n]+", data) for data in (before, after))
    path = name.encode(errors="surrogateescape")
    for line in difflib.diff_bytes(difflib.unified_diff, old, new, b"a/" + path, b"b/" + path):
        yield line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"

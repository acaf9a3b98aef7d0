"""Captions without their photographs: JSON lines of {"image", "captions"}, plain or gzipped.

They teach words and sentence structure; training.data.text_features makes features in place of the photographs.
"""

import gzip
import json
import zlib
from pathlib import Path

from engine.bundle.vocabulary import split
from training.data.examples import DataError, DataReport, Example

GZIP = b"\x1f\x8b"


def read_sentences(path: Path, *, strict: bool = False) -> tuple[tuple[Example, ...], DataReport]:
    """Returns the captions of each photograph, and a report of skipped lines.

    Raises DataError for a file that cannot be read or has no usable line, and for any problem under `strict`.
    """
    report = DataReport(str(path), strict=strict)
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        record = _record(line)
        if record is None:
            report.add("broken lines", f"line {number}", repr(line[:40]))
            continue
        name, texts = record
        if usable := [text.strip() for text in texts if split(text)]:
            captions.setdefault(name, []).extend(usable)
        else:
            report.add("photographs without sentences", f"line {number} ({name})")
    examples = tuple(Example(name, tuple(texts)) for name, texts in captions.items())
    report.images, report.captions = len(examples), sum(len(example.captions) for example in examples)
    report.check()
    if not examples:
        raise DataError(f'{path} has no line like {{"image": "1.jpg", "captions": ["a dog runs"]}}\n{report}')
    return examples, report


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if content.startswith(GZIP) else content).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as sentences: {error}") from error


def _record(line: str) -> tuple[str, list[str]] | None:
    """Returns a line's photograph and captions, or None if it is broken."""
    try:
        match json.loads(line):
            case {"image": str() as name, "captions": list() as texts} if all(isinstance(each, str) for each in texts):
                "\n".join([name, *texts]).encode()  # a lone surrogate, which JSON can escape, cannot be encoded
                return name, texts
    except (ValueError, RecursionError):
        pass
    return None

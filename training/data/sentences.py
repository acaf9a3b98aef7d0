"""Sentences about photographs that are not here: JSON lines of {"image", "captions"}, plain or gzipped.

They teach words and how sentences go; see training.data.text_features for what stands in the photographs' place.
"""

import gzip
import json
from pathlib import Path

from engine.bundle.vocabulary import split
from training.data.examples import DataError, DataReport, Example

GZIP = b"\x1f\x8b"


def read_sentences(path: Path, *, strict: bool = False) -> tuple[tuple[Example, ...], DataReport]:
    """Returns the captions of each photograph, and a report of the lines that were left out.

    Raises DataError for a file that cannot be read or holds nothing usable, and for any fault under `strict`.
    """
    report = DataReport(str(path), strict=strict)
    captions: dict[str, list[str]] = {}
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content.startswith(GZIP) else content).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as sentences: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            name, texts = record["image"], record["captions"]
            assert isinstance(name, str)
            assert all(isinstance(each, str) for each in [*texts])
            assert isinstance(texts, list)
        except (ValueError, KeyError, TypeError, AssertionError):
            report.add("broken lines", f"line {number}", repr(line[:40]))
            continue
        if usable := [each.strip() for each in texts if split(each)]:
            captions.setdefault(name, []).extend(usable)
        else:
            report.add("photographs without sentences", f"line {number} ({name})")
    examples = tuple(Example(name, tuple(texts)) for name, texts in captions.items())
    report.images, report.captions = len(examples), sum(len(example.captions) for example in examples)
    report.check()
    if not examples:
        raise DataError(f'{path} holds no line like {{"image": "1.jpg", "captions": ["a dog runs"]}}\n{report}')
    return examples, report

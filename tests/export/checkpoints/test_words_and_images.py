"""Words, special ids and the rule for photographs are the project's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.bundle.manifest import ImageSpec
from export.checkpoints.imported import KARPATHY, by_id
from export.checkpoints.layouts import LAYOUTS
from export.checkpoints.yunjey import NLTK
from tests.export.checkpoints.cases import CASES
from tests.export.checkpoints.conftest import Read

IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
IMAGES = {
    "yunjey": ImageSpec(224, 224, *IMAGENET, resample="lanczos"),
    "sgrvinod": ImageSpec(256, 256, *IMAGENET, resample="bilinear"),
    "ruotianluo fc": ImageSpec(448, 448, *IMAGENET, resample="bilinear"),
    "ruotianluo att2in2": ImageSpec(448, 448, *IMAGENET, resample="bilinear"),
    "keras-merge": ImageSpec(224, 224, (123.68, 116.779, 103.939), (1.0, 1.0, 1.0), resample="nearest"),
}
SPECIAL = {  # start, end, pad, unk
    "yunjey": (1, 2, 0, 3),
    "sgrvinod": (10, 11, 0, 9),
    "ruotianluo fc": (0, 0, None, 11),
    "keras-merge": (10, 11, 0, None),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_photographs_are_fitted_as_the_project_does(kind: str, tmp_path: Path) -> None:
    case = CASES[kind](tmp_path)
    assert LAYOUTS[case.layout](replace(case.source, size=None)).image == IMAGES[kind]


@pytest.mark.parametrize("kind", SPECIAL)
def test_the_special_words_are_the_projects(kind: str, imported: Callable[[str], Read]) -> None:
    words = imported(kind).imported.words
    assert (words.start, words.end, words.pad, words.unk) == SPECIAL[kind]
    assert len(set(words.words)) == len(words.words) == 12
    assert words.end not in words.never


def test_sentences_are_split_as_the_project_does() -> None:
    assert KARPATHY.split("A dog's T-shirt, red.") == ["a", "dogs", "tshirt", "red"]
    assert NLTK.split("A dog's t-shirt doesn't fit, yet.") == [
        *("a", "dog", "'s", "t-shirt", "does", "n't", "fit", ",", "yet", ".")
    ]


def test_kerass_splitting_is_that_of_the_tokenizer(imported: Callable[[str], Read]) -> None:
    splitting = imported("keras-merge").imported.words.splitting
    assert splitting.split("startseq A dog's t-shirt, red. endseq") == [
        "startseq",
        "a",
        "dog's",
        "t",
        "shirt",
        "red",
        "endseq",
    ]


def test_ids_with_holes_and_doubles_are_all_listed() -> None:
    words, faults = by_id({"a": 1, "b": 1, "c": 4}, {0: "<pad>"})
    assert faults == ["the words 'a' and 'b' both have the id 1", "no words have the ids 2, 3"]
    assert len(words) == 3

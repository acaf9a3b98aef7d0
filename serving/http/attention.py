"""Whether a request asks where the model looked. No decoding option: no caption changes by it."""

from collections.abc import Iterable
from typing import Any

from serving.http.problems import Problem

NAME = "attention"
SCHEMA: dict[str, Any] = {
    "type": "boolean",
    "default": False,
    "description": "whether captions say where the model looked for each word; only for models with attention",
}


def split_attention(options: Iterable[tuple[str, str]]) -> tuple[bool, list[tuple[str, str]]]:
    """Returns whether the options of a request ask for attention, and the other options. Raises Problem."""
    given, others = [], []
    for name, text in options:
        if name == NAME:
            given.append(text)
        else:
            others.append((name, text))
    if len(given) > 1:
        raise Problem(NAME, f"{NAME} is given {len(given)} times: give it once")
    if given and given[0] not in ("true", "false"):
        raise Problem(NAME, f"{NAME} must be true or false, not {given[0]!r}")
    return given == ["true"], others

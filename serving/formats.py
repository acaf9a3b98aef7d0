"""The formats that a service reads, as its options name them: `JPEG,PNG,WEBP`. Checks no names: the Captioner does."""

from typing import Any

from PIL import Image


def format_names(text: str | None) -> tuple[str, ...]:
    """Returns the names in a text, Pillow's; none where it is None."""
    return () if text is None else tuple(text.upper().split(","))


def as_argument(names: tuple[str, ...]) -> dict[str, Any]:
    """Returns what a Captioner is given: where there are no names, its own default holds."""
    return {"formats": names} if names else {}


def file_suffixes(names: tuple[str, ...]) -> frozenset[str]:
    """Returns what files of these formats end in, such as "tga", by Pillow's own list."""
    known = Image.registered_extensions() if names else {}
    return frozenset(suffix.removeprefix(".") for suffix, name in known.items() if name in names)

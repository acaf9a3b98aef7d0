"""The formats that a service reads, as its options name them: `JPEG,PNG,WEBP`. Checks no names: the Captioner does."""

from typing import Any


def format_names(text: str | None) -> tuple[str, ...]:
    """Returns the names in a text, Pillow's; none where it is None."""
    return () if text is None else tuple(text.upper().split(","))


def as_argument(names: tuple[str, ...]) -> dict[str, Any]:
    """Returns what a Captioner is given: where there are no names, its own default holds."""
    return {"formats": names} if names else {}

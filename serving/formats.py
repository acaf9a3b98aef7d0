"""Image formats as the options of services name them: `JPEG,PNG,WEBP`. The Captioner checks the names."""

from typing import Any


def format_names(text: str | None) -> tuple[str, ...]:
    """Returns the names in a text, in capitals as Pillow has them; none if it is None."""
    return () if text is None else tuple(text.upper().split(","))


def as_argument(names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the arguments for a Captioner: none without names, so that its own default applies."""
    return {"formats": names} if names else {}

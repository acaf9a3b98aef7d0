"""What one request, and all together, may cost the service. Other modules enforce these limits."""

from dataclasses import dataclass, field, fields, replace

from engine import OptionsError

MAX_PIXELS = 50_000_000
"""Of one image. Decoded, it takes 10 MB for a JPEG, 200 for a PNG, 400 for a PNG with alpha, and never more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of the service; each is an option of the command line with the same name. Raises OptionsError."""

    max_bytes: int = field(default=32 * 1024**2, metadata={"help": "most bytes of a request's body"})
    max_images: int = field(default=16, metadata={"help": "most images in a request"})
    max_held_bytes: int = field(default=512 * 1024**2, metadata={"help": "most bytes of all bodies in memory"})
    timeout: float = field(default=30.0, metadata={"help": "seconds that captioning may take once the body is there"})
    upload_timeout: float = field(default=30.0, metadata={"help": "seconds in which a request must arrive"})

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not 0 < value < float("inf"):
                told = f"{each.name} must be a number above 0"
                raise OptionsError(told, name=each.name, value=value, owner="Limits")
        if self.max_held_bytes < self.max_bytes:
            told = f"max_held_bytes must be at least max_bytes ({self.max_bytes}); else such a body is never accepted"
            raise OptionsError(told, name="max_held_bytes", value=self.max_held_bytes, owner="Limits")

    def for_queue(self, most: int) -> "Limits":
        """Returns the limits with no more images in a request than may wait, or it would never be accepted."""
        return replace(self, max_images=max(1, min(self.max_images, most)))

"""How an image of any shape fills the shape that a model takes. Owns the geometry; touches no pixels."""

from dataclasses import dataclass

from engine.bundle.manifest import RESIZE_RULES

Size = tuple[int, int]
"""Width and height."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The part of an image of this size that is shown, None for all of it, and the size that the part is resized to."""

    image: Size
    part: Box | None
    target: Size

    def box(self, decoded: Size) -> Box | None:
        """Returns the part's place in the image as it was decoded, which may be smaller."""
        if self.part is None or decoded == self.image:
            return self.part
        (width, height), (across, down) = self.image, decoded
        left, top, right, bottom = self.part
        # multiplied first: a whole side stays whole, where a rounded quotient may put the box outside the image
        return left * across / width, top * down / height, right * across / width, bottom * down / height


def squash(image: Size, target: Size) -> Fit:
    """The whole image, whatever becomes of its aspect ratio."""
    return Fit(image, None, target)


def crop(image: Size, target: Size) -> Fit:
    """The largest part of the target's aspect ratio, in the middle."""
    (width, height), (across, down) = image, target
    if width * down == height * across:
        return Fit(image, None, target)
    if width * down > height * across:
        margin = (width - height * across / down) / 2
        return Fit(image, (margin, 0, width - margin, height), target)
    margin = (height - width * down / across) / 2
    return Fit(image, (0, margin, width, height - margin), target)


def letterbox(image: Size, target: Size) -> Fit:
    """The whole image in its own aspect ratio, as large as the target holds it."""
    (width, height), (across, down) = image, target
    if width * down > height * across:
        return Fit(image, None, (across, max(1, round(height * across / width))))
    return Fit(image, None, (max(1, round(width * down / height)), down))


RULES = dict(zip(RESIZE_RULES, (squash, crop, letterbox), strict=True))

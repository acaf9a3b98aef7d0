"""How an image is fitted to the shape that a model needs: geometry only, no pixels."""

from dataclasses import dataclass

from engine.bundle.manifest import RESIZE_RULES

Size = tuple[int, int]
"""Width and height."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The part of an image that is shown, None for all of it, and the size that it is resized to."""

    image: Size
    part: Box | None
    target: Size

    def box(self, decoded: Size) -> Box | None:
        """Returns the part in an image that was decoded at this size, which may be smaller."""
        if self.part is None or decoded == self.image:
            return self.part
        (width, height), (across, down) = self.image, decoded
        left, top, right, bottom = self.part
        # multiply first: a rounded quotient could put the box outside the image
        return left * across / width, top * down / height, right * across / width, bottom * down / height


def squash(image: Size, target: Size) -> Fit:
    """The whole image, ignoring its aspect ratio."""
    return Fit(image, None, target)


def crop(image: Size, target: Size) -> Fit:
    """The largest part in the middle that has the target's aspect ratio."""
    (width, height), (across, down) = image, target
    if width * down == height * across:
        return Fit(image, None, target)
    if width * down > height * across:
        margin = (width - height * across / down) / 2
        return Fit(image, (margin, 0, width - margin, height), target)
    margin = (height - width * down / across) / 2
    return Fit(image, (0, margin, width, height - margin), target)


def letterbox(image: Size, target: Size) -> Fit:
    """The whole image in its own aspect ratio, as large as fits into the target."""
    (width, height), (across, down) = image, target
    if width * down > height * across:
        return Fit(image, None, (across, max(1, round(height * across / width))))
    return Fit(image, None, (max(1, round(width * down / height)), down))


RULES = dict(zip(RESIZE_RULES, (squash, crop, letterbox), strict=True))

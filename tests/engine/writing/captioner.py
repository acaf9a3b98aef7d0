"""A captioner that says what a test wants it to."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from engine import Caption, Hypothesis, ImageError


@dataclass
class Saying:
    """Says `says` of each image, or `text`; an image named broken.jpg cannot be read."""

    text: str = "a dog"
    says: dict[str, str] = field(default_factory=dict)
    confidences: dict[str, float] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    decoding: Any = None
    opened: int = 0
    bundle: Any = field(
        default_factory=lambda: SimpleNamespace(manifest=SimpleNamespace(name="tiny", confidence=object()))
    )

    def __call__(self, *_: Any, **__: Any) -> Any:
        self.opened += 1
        return self

    def iter_captions(
        self, images: Iterable[str], decoding: Any, *, on_error: str, attention: bool
    ) -> Iterator[Caption | ImageError]:
        self.decoding = decoding
        for path in images:
            self.asked.append(path)
            name = Path(path).name
            if name == "broken.jpg" or not Path(path).exists():
                yield ImageError("is broken", source=path)
                continue
            said = Hypothesis(self.says.get(name, self.text), -1, -1, (), (), True)
            yield Caption.best_of([replace(said, confidence=self.confidences.get(name, 0.5))])

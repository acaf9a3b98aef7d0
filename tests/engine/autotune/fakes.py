"""Captioners that take no time but say how much they took, and a race of them."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from engine import ProviderError
from engine.autotune.measure import Budget, Tuning, Way, tune
from engine.bundle.bundle import Bundle
from engine.bundle.manifest import Defaults, Variant

FIRST = Way("cpu", "fp32", 0)
ONE, INT8, HALF, OPENVINO = (
    Way("cpu", "fp32", 1),
    Way("cpu", "int8", 0),
    Way("cpu", "fp16", 0),
    Way("openvino", "int8", 0),
)


class Clock:
    """Seconds that pass only when a fake says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """A captioner that takes `alone` seconds for one image and `each` for each of a batch, and `start` to start."""

    def __init__(self, alone: float = 0.02, each: float = 0.01) -> None:
        self.alone, self.each, self.start = alone, each, 0.5
        self.fault: Exception | None = None
        self.clock = Clock()
        self.sizes: list[int] = []

    def caption(self, batch: Sequence[bytes], decoding: Any) -> list[Any]:
        if self.fault:
            raise self.fault
        self.sizes.append(len(batch))
        self.clock.now += self.alone if len(batch) == 1 else self.each * len(batch)
        return []


def a_bundle(**variants: Variant) -> Bundle:
    manifest: Any = SimpleNamespace(defaults=Defaults(), variants={"fp32": Variant(0.5), **variants})
    return cast(Bundle, SimpleNamespace(manifest=manifest, precisions=("fp32", *variants), path=Path("tiny")))


BUNDLE = a_bundle(int8=Variant(0.5, record={"weight_bits": 7}), fp16=Variant(0.5))


def race(fakes: dict[Way, Fake], seconds: float = 50, bundle: Bundle = BUNDLE) -> tuple[Tuning, float]:
    """Returns what tuning found among the fakes, the first being the reference, and the seconds that went by."""
    clock = Clock()

    def start(way: Way) -> Any:
        fake = fakes[way]
        fake.clock = clock
        clock.now += fake.start
        if isinstance(fake.fault, ProviderError):
            raise fake.fault
        return fake

    found = tune(bundle, list(fakes), Budget(seconds, start, clock=clock))
    return found, clock.now - 1000

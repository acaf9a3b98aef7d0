"""Measures each precision of a bundle: CIDEr of its captions, and images per second. Changes nothing.

Everything runs through the engine with the bundle's default decoding, the same for all precisions.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from engine import Beam, Captioner, ProviderError
from engine.bundle.bundle import Bundle
from engine.bundle.manifest import Variant
from engine.runtime.placement import canonical
from engine.runtime.providers import available_providers
from export.errors import ExportError
from training.data.datasets import DataError, Dataset, open_dataset
from training.evaluate import evaluate
from training.metrics.scores import MetricsError

SPEED_IMAGES = 64
ROUNDS = 5


def measure(folder: Path, data: Sequence[Path]) -> dict[str, Variant]:
    """Returns the bundle's variants with CIDEr on data sets' dev lists and speed on this machine.

    CIDEr: on all dev photographs, with the CPU provider; for several data sets the unweighted mean. Images per second,
    by provider: from photograph files of the first data set to captions, as the median of rounds in which the
    precisions alternate. Providers that cannot run a precision are skipped. Raises ExportError if a data set cannot be
    used, or if the CPU computes a precision wrongly.
    """
    manifest, precisions = Bundle.load(folder).manifest, Bundle.load(folder).precisions
    try:
        datasets = [open_dataset(each, "val") for each in data]
        scores = {name: _cider(folder, name, datasets) for name in precisions}
    except (DataError, MetricsError, ProviderError) as error:
        raise ExportError(f"the precisions cannot be measured: {error}") from error
    speeds: dict[str, dict[str, float]] = {name: {} for name in precisions}
    for provider in available_providers():
        for name, value in _speeds(folder, provider, precisions, datasets[0]).items():
            speeds[name][canonical(provider)] = value
    records = {name: manifest.variants[name].record if name in manifest.variants else {} for name in precisions}
    return {name: Variant(scores[name], speeds[name], records[name]) for name in precisions}


def _cider(folder: Path, precision: str, datasets: Sequence[Dataset]) -> float:
    captioner = Captioner(folder, provider="cpu", precision=precision)
    return round(statistics.fmean(evaluate(captioner, each, Beam()).scores.cider for each in datasets), 4)


def _speeds(folder: Path, provider: str, precisions: tuple[str, ...], dataset: Dataset) -> dict[str, float]:
    examples = itertools.islice(itertools.cycle(dataset.examples), SPEED_IMAGES)
    photographs = [dataset.read(example.name) for example in examples]
    captioners = {}
    for name in precisions:
        try:
            captioners[name] = Captioner(folder, provider=provider, precision=name)
        except ProviderError as error:  # it does not start, or fails the self-check
            print(f"note: no speed of {name} on {provider} is recorded: {error}", file=sys.stderr)
    seconds: dict[str, list[float]] = {name: [] for name in captioners}
    for turn in tqdm(range(ROUNDS + 1), f"speed, {provider}", disable=None):
        for name, captioner in captioners.items():
            began = time.perf_counter()
            captioner.caption(photographs, Beam(), on_error="return")
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - began)
    return {name: round(SPEED_IMAGES / statistics.median(times), 1) for name, times in seconds.items()}

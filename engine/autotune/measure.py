"""Measures which combination of provider, precision and threads is fastest here, for one image and for many.

It times real work, from JPEG bytes to sentences, within a budget of seconds. A combination that fails the self-check
against the CPU (see `selfcheck`) does not start; it is skipped and reported. Stores, prints and chooses nothing.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.autotune.cache_file import Timing
from engine.autotune.machine import has_vnni
from engine.autotune.select import refused
from engine.bundle.bundle import Bundle
from engine.captioner import Captioner
from engine.images.synthetic import draw_photographs
from engine.options import Beam, Decoding, Greedy
from engine.runtime.options import cores
from engine.runtime.placement import canonical
from engine.runtime.providers import PROVIDERS, available_providers

BUILDERS = ("tensorrt", "tensorrt-rtx")  # take minutes to start unless their engines are cached
DECODINGS: tuple[Decoding, ...] = (Greedy(), Beam())
PHOTOGRAPHS = 8  # different ones
FEW = 4  # of these are captioned one by one in each round
MANY, FEWER = 32, 8  # images per batch; FEWER if MANY would take longer than BATCH_SECONDS
BATCH_SECONDS = 2.0
CLOSE = 1.3  # combinations slower than the best by this factor stop after the first round
ROUNDS = 9
NO_TIME = "no time was left to measure it: raise --seconds"
FIRST_ROUND = 0.75  # of the budget; the rest is for repeating the best


@dataclass(frozen=True, slots=True)
class Way:
    """One combination of provider, precision and threads (RuntimeOptions.threads)."""

    provider: str
    precision: str
    threads: int

    def __str__(self) -> str:
        return f"{self.provider} {self.precision}" + (f" on {self.threads} threads" if self.threads else "")


@dataclass(slots=True)
class Entry:
    """A combination and its timings: seconds per image, by (images at once, index of the decoding)."""

    way: Way
    error: str = ""  # why it was not measured
    refused: str = ""  # why "auto" does not choose it, however fast it is
    samples: dict[tuple[int, int], list[float]] = field(default_factory=dict)

    def seconds(self, images: int, decoding: int) -> float:
        """Returns the median for this many images at once; of an even number of samples, the lower middle one."""
        return statistics.median_low(self.samples[images, decoding])

    def mean(self, images: int) -> float:
        """Returns the mean over the decodings, which ranks the combinations."""
        return statistics.fmean(self.seconds(images, decoding) for decoding in range(len(DECODINGS)))

    def timing(self, images: int) -> Timing:
        """Returns what is saved of it; `images` is the batch size."""
        return Timing(self.way.provider, self.way.precision, self.way.threads, self.mean(1), self.mean(images))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The results, with the baseline first. images: the batch size."""

    entries: tuple[Entry, ...]
    images: int
    seconds: float

    @property
    def measured(self) -> list[Entry]:
        """The entries that were measured."""
        return [entry for entry in self.entries if not entry.error]

    def best(self, images: int) -> Entry:
        """Returns the fastest entry that "auto" may choose."""
        return min((entry for entry in self.measured if not entry.refused), key=lambda entry: entry.mean(images))


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds that tuning may take.

    start opens a captioner for a combination; show is told the seconds spent so far.
    """

    seconds: float
    start: Callable[[Way], Captioner]
    show: Callable[[float], None] = lambda seconds: None
    clock: Callable[[], float] = time.perf_counter


def ways(bundle: Bundle, providers: Sequence[str] = ()) -> list[Way]:
    """Returns what is worth measuring, the most promising first: fp32 on the CPU, then each provider and precision.

    providers: those to try, named as for Captioner; by default all available ones, except those that take minutes to
    build engines, and GPU providers also with the decoder on the CPU. Thread counts are halved from the number of
    cores; a GPU does not use them.
    """
    here = [name for name in available_providers() if name not in BUILDERS]
    names = dict.fromkeys(map(canonical, providers or [*here, *(f"{name}+cpu" for name in here)]))
    halves = [count for i in range(1, 4) if (count := cores() >> i)]
    found = [Way("cpu", "fp32", 0)]
    for threads in (0, *halves):
        for name in names:
            encoder = PROVIDERS[name.partition("+")[0]]
            if threads and (encoder.device != "cpu" or encoder.cache is not None):
                continue
            found += [Way(name, precision, threads) for precision in bundle.precisions]
    return list(dict.fromkeys(found))


def tune(bundle: Bundle, candidates: Sequence[Way], budget: Budget) -> Tuning:
    """Measures the combinations within the budget; the first is the baseline.

    The first round starts each one and times it once. Those close to the best are then timed in turns until the rounds
    or the seconds run out. One that does not start is not an error: its entry says why. Raises what the first raises.
    """
    measuring = _Measuring(bundle, candidates[0], budget)
    for way in candidates[1:]:
        measuring.enter(way)
    measuring.repeat()
    return Tuning(entries=tuple(measuring.entries), images=measuring.images, seconds=measuring.spent())


class _Measuring:
    """The combinations still running, with their captioners; the first one always stays."""

    def __init__(self, bundle: Bundle, first: Way, budget: Budget) -> None:
        self._bundle, self._budget, self._began = bundle, budget, budget.clock()
        self._photographs = draw_photographs(PHOTOGRAPHS)
        captioner = budget.start(first)
        self._time(captioner, 1, DECODINGS[-1])  # opens everything that is opened on first use
        self.images = MANY if self._time(captioner, 1, DECODINGS[-1]) * MANY <= BATCH_SECONDS else FEWER
        self.entries = [Entry(first)]
        self._running = [(self.entries[0], captioner)]
        self._measure(*self._running[0])
        self._longest = self.spent()  # to start and time one combination

    def spent(self) -> float:
        """Returns and shows the seconds since the start."""
        spent = self._budget.clock() - self._began
        self._budget.show(spent)
        return spent

    def enter(self, way: Way) -> None:
        """Starts a combination and times it once; it stays if it is close to the best."""
        entry, began = Entry(way), self.spent()
        self.entries.append(entry)
        if began + self._longest > FIRST_ROUND * self._budget.seconds:
            entry.error = NO_TIME
            return
        try:
            captioner = self._budget.start(way)
            entry.refused = refused(self._bundle.manifest, way.precision, has_vnni(), measured=True)
            ready = way.provider == "cpu" or self._measure(Entry(way), captioner)  # others prepare for each size
            if not (ready and self._measure(entry, captioner)):
                entry.error = "it is too slow to be measured in time"
        except Exception as error:  # whatever one provider raises, measure the others
            entry.error = " ".join(str(error).split()) or type(error).__name__
        if not entry.error:
            self._running.append((entry, captioner))
            self._running[1:] = [pair for pair in self._running[1:] if self._is_close(pair[0])]
        self._longest = max(self._longest, self.spent() - began)

    def repeat(self) -> None:
        """Times the remaining combinations in turns, until the rounds or the seconds run out."""
        for _ in range(ROUNDS - 1):
            for entry, captioner in self._running:
                if not self._measure(entry, captioner):
                    return

    def _measure(self, entry: Entry, captioner: Captioner) -> bool:
        """Times each decoding for one image and for a batch; returns False, and adds nothing, if there was no time."""
        if entry.samples and self.spent() + self._cost(entry) > self._budget.seconds:
            return False
        alone = [self._time(captioner, 1, decoding) for decoding in DECODINGS]
        unknown = not entry.samples and len(self.entries) > 1  # the first has to be measured, however long it takes
        if unknown and self.spent() + sum(alone) * self.images > self._budget.seconds:
            return False
        many = [self._time(captioner, self.images, decoding) for decoding in DECODINGS]
        for images, times in ((1, alone), (self.images, many)):
            for i, seconds in enumerate(times):
                entry.samples.setdefault((images, i), []).append(seconds)
        return True

    def _cost(self, entry: Entry) -> float:
        """Returns the seconds that one more measurement takes."""
        return len(DECODINGS) * (FEW * entry.mean(1) + self.images * entry.mean(self.images))

    def _time(self, captioner: Captioner, images: int, decoding: Decoding) -> float:
        """Returns seconds per image for this many at once; for one image, the mean over several different ones."""
        photographs = (self._photographs * images)[: max(images, FEW)]
        batches = [photographs] if images > 1 else [[photograph] for photograph in photographs]
        began = self._budget.clock()
        for batch in batches:
            captioner.caption(batch, decoding)
        return (self._budget.clock() - began) / len(photographs)

    def _is_close(self, entry: Entry) -> bool:
        rivals = [rival for rival, _ in self._running if not rival.refused]
        return any(
            entry.mean(images) <= CLOSE * min(rival.mean(images) for rival in rivals) for images in (1, self.images)
        )

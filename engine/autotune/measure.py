"""Measures which way of running is the fastest here: provider x precision x threads, for one image and for many.

On real work, from JPEG bytes to sentences, within a budget of seconds. A way that was not shown to compute what the CPU
computes does not start (see `selfcheck`): it is left out, and named. Owns the measurement; stores, prints and chooses
nothing.
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

BUILDERS = ("tensorrt", "tensorrt-rtx")  # take minutes to start, unless what they built before lies ready
DECODINGS: tuple[Decoding, ...] = (Greedy(), Beam())
PHOTOGRAPHS = 8  # different ones
FEW = 4  # of them that are captioned one by one in a round
MANY, FEWER = 32, 8  # images of a batch; fewer where many would take longer than BATCH_SECONDS
BATCH_SECONDS = 2.0
CLOSE = 1.3  # ways this much slower than the best of the first round run in no other
ROUNDS = 9
NO_TIME = "no time was left: give it more --seconds"
FIRST_ROUND = 0.75  # of the budget; the rest is for repeating what came first


@dataclass(frozen=True, slots=True)
class Way:
    """One way of running; threads is RuntimeOptions.threads."""

    provider: str
    precision: str
    threads: int

    def __str__(self) -> str:
        return f"{self.provider} {self.precision}" + (f" on {self.threads} threads" if self.threads else "")


@dataclass(slots=True)
class Entry:
    """A way with what was measured of it: seconds an image, for (images at once, index of the decoding)."""

    way: Way
    fault: str = ""  # why nothing was measured
    refused: str = ""  # why "auto" does not take it, however fast
    samples: dict[tuple[int, int], list[float]] = field(default_factory=dict)

    def seconds(self, images: int, decoding: int) -> float:
        """Returns the median for so many images at once; of an even number of samples the lower, which no pause hit."""
        return statistics.median_low(self.samples[images, decoding])

    def mean(self, images: int) -> float:
        """Returns the mean over the decodings, by which ways are ranked."""
        return statistics.fmean(self.seconds(images, decoding) for decoding in range(len(DECODINGS)))

    def timing(self, images: int) -> Timing:
        """Returns what is kept of it; `images` is the size of the batch."""
        return Timing(self.way.provider, self.way.precision, self.way.threads, self.mean(1), self.mean(images))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What was found: the way that the others are compared with comes first. images: of a batch."""

    entries: tuple[Entry, ...]
    images: int
    seconds: float

    @property
    def measured(self) -> list[Entry]:
        """The entries with figures."""
        return [entry for entry in self.entries if not entry.fault]

    def best(self, images: int) -> Entry:
        """Returns the fastest that "auto" may take."""
        return min((entry for entry in self.measured if not entry.refused), key=lambda entry: entry.mean(images))


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds that a tuning may take; start makes a captioner for a way, show hears how many seconds are over."""

    seconds: float
    start: Callable[[Way], Captioner]
    show: Callable[[float], None] = lambda seconds: None
    clock: Callable[[], float] = time.perf_counter


def ways(bundle: Bundle, providers: Sequence[str] = ()) -> list[Way]:
    """Returns what is worth measuring, the likely first: fp32 on the CPU, then each provider in each precision.

    providers: those to try, as Captioner takes them; left out, all that run here but for those that build for minutes
    before they start, a GPU's also with the decoder on the CPU. Threads are tried by halves of the cores; a GPU has no
    use for them.
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
    """Measures the ways, the first of which is what the others have to equal; returns within the budget.

    A first round starts each and times it once; those that came close to the best then run in turns until the rounds or
    the seconds are over. One that does not start is no error: its entry says why. Raises what the first way raises.
    """
    race = _Race(bundle, candidates[0], budget)
    for way in candidates[1:]:
        race.enter(way)
    race.repeat()
    return Tuning(entries=tuple(race.entries), images=race.images, seconds=race.spent())


class _Race:
    """The ways that still run, with their captioners; the first never leaves."""

    def __init__(self, bundle: Bundle, first: Way, budget: Budget) -> None:
        self._bundle, self._budget, self._began = bundle, budget, budget.clock()
        self._photographs = draw_photographs(PHOTOGRAPHS)
        captioner = budget.start(first)
        self._time(captioner, 1, DECODINGS[-1])  # opens what is opened when it is first needed
        self.images = MANY if self._time(captioner, 1, DECODINGS[-1]) * MANY <= BATCH_SECONDS else FEWER
        self.entries = [Entry(first)]
        self._running = [(self.entries[0], captioner)]
        self._measure(*self._running[0])
        self._longest = self.spent()  # to start and time one way

    def spent(self) -> float:
        """Returns the seconds since the beginning, and shows them."""
        spent = self._budget.clock() - self._began
        self._budget.show(spent)
        return spent

    def enter(self, way: Way) -> None:
        """Starts a way and times it once; it stays if it is close to the best."""
        entry, began = Entry(way), self.spent()
        self.entries.append(entry)
        if began + self._longest > FIRST_ROUND * self._budget.seconds:
            entry.fault = NO_TIME
            return
        try:
            captioner = self._budget.start(way)
            entry.refused = refused(self._bundle.manifest, way.precision, has_vnni(), measured=True)
            ready = way.provider == "cpu" or self._measure(Entry(way), captioner)  # others prepare for each size
            if not (ready and self._measure(entry, captioner)):
                entry.fault = "it is too slow to be measured in time"
        except Exception as error:  # whatever a provider raises, the other ways are measured
            entry.fault = " ".join(str(error).split()) or type(error).__name__
        if not entry.fault:
            self._running.append((entry, captioner))
            self._running[1:] = [pair for pair in self._running[1:] if self._is_close(pair[0])]
        self._longest = max(self._longest, self.spent() - began)

    def repeat(self) -> None:
        """Times the ways that are left in turns, until the rounds or the seconds are over."""
        for _ in range(ROUNDS - 1):
            for entry, captioner in self._running:
                if not self._measure(entry, captioner):
                    return

    def _measure(self, entry: Entry, captioner: Captioner) -> bool:
        """Times each decoding for one image and for a batch; says whether there was time for it, else adds nothing."""
        if entry.samples and self.spent() + self._cost(entry) > self._budget.seconds:
            return False
        alone = [self._time(captioner, 1, decoding) for decoding in DECODINGS]
        unknown = not entry.samples and len(self.entries) > 1  # the first has to be measured, whatever it takes
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
        """Returns seconds an image for so many at once; one is timed several times, each another."""
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

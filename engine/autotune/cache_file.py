"""Reads and writes the results of `tune` in the user's cache. Measures and chooses nothing.

Each file is valid for one bundle, one set of versions and one set of hardware, recorded in its name and its content. If
any of them changes, the file is not found, so several environments of one user do not interfere.
"""

import json
import warnings
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

from engine.autotune.machine import fingerprint
from engine.bundle.bundle import Bundle
from engine.cache import VARIABLE, result_file, result_files, store
from engine.errors import EngineError
from engine.validation import is_int, is_number

KIND = "tuning"


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast one configuration ran here: seconds per image, alone (latency) and in a batch (throughput).

    threads is RuntimeOptions.threads: 0 is the default.
    """

    provider: str
    precision: str
    threads: int
    latency: float
    throughput: float

    def __post_init__(self) -> None:
        known = isinstance(self.provider, str) and isinstance(self.precision, str) and is_int(self.threads, 0)
        if not known or not all(is_number(x) and 0 < x < inf for x in (self.latency, self.throughput)):
            raise ValueError(f"{self} is not a valid timing")


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured and when (ISO 8601); only configurations that passed the self-check.

    tried: the providers that were tried, including those that could not be measured.
    """

    date: str
    timings: tuple[Timing, ...]
    tried: tuple[str, ...] = ()


def load(bundle: Bundle) -> Measurements | None:
    """Returns what was measured for the bundle with these versions on this machine; None if nothing was measured.

    A file that cannot be read gives a RuntimeWarning and is ignored.
    """
    if not result_files(KIND, bundle.path):
        return None  # the usual case, without the cost of a fingerprint
    here = fingerprint(bundle)
    path = result_file(KIND, bundle.path, here)
    if path is None or not path.is_file():
        return None
    try:
        data = json.loads(path.read_bytes())
        timings = tuple(Timing(**timing) for timing in data["timings"])
        if not isinstance(data["date"], str) or not timings:
            raise ValueError("it has no date or no timings")
        return Measurements(data["date"], timings, tuple(map(str, data["tried"])))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        sentence = f"{path} is ignored: it cannot be read ({error!r}); `python -m engine tune` writes it again"
        warnings.warn(sentence, RuntimeWarning, stacklevel=2)
        return None


def save(bundle: Bundle, measurements: Measurements) -> Path:
    """Writes the file atomically and returns its path. Raises EngineError if it cannot be written."""
    here = fingerprint(bundle)
    path = result_file(KIND, bundle.path, here)
    data = {**asdict(measurements), "fingerprint": here}
    if path is None or not store(path, json.dumps(data, indent=1).encode()):
        where = "this user has no cache folder" if path is None else f"{path} cannot be written"
        raise EngineError(f"the results cannot be saved: {where}; set {VARIABLE} to a folder that can be written")
    return path

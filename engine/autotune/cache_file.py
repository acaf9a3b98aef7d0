"""What `tune` found on this machine, kept in the user's cache: read, written, forgotten. Measures and chooses nothing.

Each file answers for one bundle with one set of versions on one set of hardware, which its name and its text both say:
where any of them has changed, the file is not found, and two environments of one user do not disturb each other.
"""

import json
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

from engine.autotune.machine import fingerprint
from engine.bundle.bundle import MANIFEST_FILE, Bundle, sha256
from engine.cache import VARIABLE, cache_folder, store
from engine.errors import EngineError
from engine.validation import is_int, is_number


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast one way of running was here: seconds an image, alone (latency) and in a batch (throughput).

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
            raise ValueError(f"{self} is no timing")


@dataclass(frozen=True, slots=True)
class Answer:
    """What was measured, when (ISO 8601): only ways of running that were shown to compute what they ought to.

    tried: the providers that were to be measured, also where they could not.
    """

    date: str
    timings: tuple[Timing, ...]
    tried: tuple[str, ...] = ()


def load(bundle: Bundle) -> Answer | None:
    """Returns what was measured for the bundle with these versions on this machine; None if nothing was.

    A file that cannot be understood is a RuntimeWarning, and as if it were not there.
    """
    if not _files(bundle):
        return None  # the usual case costs no fingerprint
    here = fingerprint(bundle)
    path = _path(bundle, here)
    if path is None or not path.is_file():
        return None
    try:
        data = json.loads(path.read_bytes())
        if data["fingerprint"] != here:
            return None
        timings = tuple(Timing(**timing) for timing in data["timings"])
        if not isinstance(data["date"], str) or not timings:
            raise ValueError("it holds no date or no timing")
        return Answer(data["date"], timings, tuple(map(str, data["tried"])))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        sentence = f"{path} is ignored, it cannot be understood ({error!r}); `python -m engine tune` writes it again"
        warnings.warn(sentence, RuntimeWarning, stacklevel=2)
        return None


def save(bundle: Bundle, answer: Answer) -> Path:
    """Writes the file whole or not at all and returns its path. Raises EngineError where no file can be written."""
    here = fingerprint(bundle)
    path = _path(bundle, here)
    data = {**asdict(answer), "fingerprint": here}
    if path is None or not store(path, json.dumps(data, indent=1).encode()):
        where = "this user has no folder for caches" if path is None else f"{path} cannot be written"
        raise EngineError(f"what was measured cannot be kept: {where}; let {VARIABLE} name a folder that can be")
    return path


def forget(bundle: Bundle) -> int:
    """Deletes what was measured for a bundle, with whatever versions and hardware; returns the number of files."""
    files = _files(bundle)
    for path in files:
        with suppress(FileNotFoundError):
            path.unlink()
    return len(files)


def _path(bundle: Bundle, here: dict[str, Any]) -> Path | None:
    import hashlib  # as it takes its time: `import engine` hashes nothing

    folder = cache_folder()
    digest = hashlib.sha256(json.dumps(here, sort_keys=True).encode()).hexdigest()
    return folder and folder / "tuning" / f"{_prefix(bundle)}-{digest[:16]}.json"


def _prefix(bundle: Bundle) -> str:
    return sha256(bundle.path / MANIFEST_FILE)[:16]


def _files(bundle: Bundle) -> list[Path]:
    folder = cache_folder()
    if folder is None:
        return []
    try:
        return sorted((folder / "tuning").glob(f"{_prefix(bundle)}-*.json"))
    except OSError:  # a folder that may not be read
        return []

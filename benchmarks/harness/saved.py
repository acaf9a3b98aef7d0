"""Saved runs: the setting, and a row for each pair. Owns the JSON format; measures nothing."""

import importlib.metadata
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.harness.interleave import Ratios
from engine.autotune.machine import processor

PACKAGES = ("torch", "onnxruntime", "openvino", "numpy", "Pillow")


@dataclass(frozen=True, slots=True)
class Setting:
    """Where, when and of what the numbers are."""

    commit: str
    date: str
    processor: str
    cores: int
    threads: int  # 0 for as many as each library takes
    versions: dict[str, str]
    bundle: str


@dataclass(frozen=True, slots=True)
class Row:
    """One workload by two competitors: median milliseconds of a call, and the baseline's time over the engine's.

    ratios are the first quartile, the median and the third quartile over the rounds.
    """

    model: str
    work: str
    batch: int
    engine: str
    baseline: str
    engine_ms: float
    baseline_ms: float
    ratios: Ratios
    rounds: int

    @property
    def key(self) -> str:
        """What a row of another run must share to be compared."""
        return f"{self.model}: {self.work}, batch {self.batch}, {self.engine} against {self.baseline}"


@dataclass(frozen=True, slots=True)
class Run:
    """All that one command measured."""

    setting: Setting
    rows: tuple[Row, ...]

    def save(self, path: Path) -> None:
        """Writes the run as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Run":
        """Reads what `save` wrote. Raises ValueError for anything else."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            rows = (Row(**row | {"ratios": tuple(row["ratios"])}) for row in data["rows"])
            return cls(Setting(**data["setting"]), tuple(rows))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is not a run saved by `python -m benchmarks.ratio --json`") from error


def setting(bundle: str, threads: int = 0) -> Setting:
    """Describes this machine now."""
    return Setting(
        commit=_commit(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=processor(),
        cores=os.cpu_count() or 1,
        threads=threads,
        versions={name: version for name in PACKAGES if (version := _version(name))},
        bundle=bundle,
    )


def describe(setting: Setting) -> str:
    """Returns one line on what the numbers were taken with."""
    versions = ", ".join(f"{name} {version}" for name, version in setting.versions.items())
    threads = f", {setting.threads} threads" if setting.threads else ""
    when = f"commit {setting.commit}, {setting.date[:10]}"
    return f"{setting.processor}, {setting.cores} cores{threads}; {versions}; bundle {setting.bundle}; {when}"


def unlike(here: Setting, there: Setting) -> Sequence[str]:
    """Returns the names of what two settings do not share of machine and versions."""
    names = ("processor", "cores", "threads", "versions")
    return [name for name in names if getattr(here, name) != getattr(there, name)]


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""

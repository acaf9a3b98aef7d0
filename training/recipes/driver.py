"""The driver of recipes: runs this project's commands in stages, each stage once, and continues after interruptions.

A recipe's folder contains recipe.json (options, progress and machine), log.txt (what was run and printed) and a folder
for each stage. Knows no models: every stage can be run by hand.
"""

import argparse
import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import platform
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from engine.autotune.machine import processor
from engine.commands.parser import Parser, whole
from training.data.datasets import SPLITS, DataError, open_dataset
from training.data.subset import write_subsets
from training.files import write_json
from training.outcome import outcome
from training.recipes.command import start, together, words_of

WEIGHTS = ("pretrained", "random")
RECORD, LOG, LOCK, PROVENANCE = "recipe.json", "log.txt", ".lock", "provenance.json"
PATIENCE = 10.0  # seconds to wait for another process to release the folder
PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxscript", "pycocoevalcap", "timm", "torch", "torchvision")
SMALLER = {  # for --smoke, appended to a command's options, of which the last counts
    "training.train": " --epochs 2 --batches 20 --batch-size 20 --warmup 5",
    "training.scst": " --epochs 1 --batches 3 --batch-size 8 --warmup 0",
    "training.joint": " --epochs 2 --batch-size 20 --paraphrases 20 --warmup 5",
    "training.balance": " --images 12",
    "export.to_onnx --checkpoint": " --calibration-images 32",
}
IN_PROCESSES = "training.train", "training.scst"  # commands that --processes concerns
NOT_SMOKED = "confidence"
"""The stage that --smoke skips: confidence cannot be fitted if no caption is good."""


class RecipeError(RuntimeError):
    """A recipe that cannot start or continue; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A bundle and the stages that make it; each stage is a list of command lines without `python -m`.

    DATA, OUTPUT, WEIGHTS, DEVICE and THREADS in the lines are replaced by the recipe's options. A last word in
    brackets, such as [--resume], is used if the line's --output exists already. data, sentences: what DATA contains.
    """

    name: str
    bundle: str
    stages: Mapping[str, Sequence[str]]
    data: tuple[str, ...] = ("",)
    sentences: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def options(self, *, smoke: bool) -> dict[str, list[str]]:
        """Returns the lines of all stages; `smoke`: with very little work in each."""
        stages = {name: [*lines] for name, lines in self.stages.items() if not (smoke and name == NOT_SMOKED)}
        for lines in stages.values() if smoke else ():
            for number, line in enumerate(lines):
                less = next((less for start, less in SMALLER.items() if line.startswith(start)), "")
                command, bracket, again = line.partition(" [")
                lines[number] = command + less + bracket + again
        return stages


def main(recipe: Recipe, arguments: Sequence[str] | None = None) -> int:
    """Runs a recipe's command; returns 0, 1 for a named error, 2 for unusable options, 130 after Ctrl-C."""
    parser = command_line(recipe)
    words = sys.argv[1:] if arguments is None else arguments
    given = parser.parse_args(words)
    if given.encoder_weights not in WEIGHTS and not Path(given.encoder_weights).is_file():
        names = ", ".join(WEIGHTS)
        parser.error(
            f"--encoder-weights must be one of {names} or a file, but there is no file {given.encoder_weights}"
        )
    again = f"{parser.prog} {shlex.join(words)}"
    return outcome(lambda: _run(recipe, given), DataError, RecipeError, interrupted=lambda: f"continue with {again}")


def command_line(recipe: Recipe) -> Parser:
    """Returns the parser of a recipe's command."""
    parser = Parser(
        prog=f"python -m training.recipes.{recipe.name}",
        description=f"Makes the bundle {recipe.bundle}: trains, exports, measures. After Ctrl-C or a kill, the same "
        "command continues where it stopped.",
    )
    holds = (
        ", ".join(filter(None, (*recipe.data, *recipe.sentences)))
        or "a data set in the layout of COCO 2014 or Flickr8k"
    )
    weights = '"pretrained", "random" or a file (default: pretrained)'
    processes = "processes that train together, by torchrun, each with --threads threads (default: 1)"
    smoke = "test that everything runs, with a few photographs and batches, in some minutes"
    add = parser.add_argument
    add("--data", type=Path, required=True, help=f"folder with {holds}")
    add("--output", type=Path, required=True, help="folder for this recipe and its bundle")
    add("--encoder-weights", default="pretrained", help=weights)
    add("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="device for training (default: cpu)")
    add("--threads", type=whole(0), default=2, help="CPU threads; other numbers change the last digits (default: 2)")
    add("--processes", type=whole(1), default=1, help=processes)
    add("--smoke", action="store_true", help=smoke)
    return parser


def _run(recipe: Recipe, given: argparse.Namespace) -> None:
    data, output, weights = given.data.resolve(), given.output.resolve(), given.encoder_weights
    wanted: dict[str, Any] = {"recipe": recipe.name, "smoke": given.smoke, "encoder_weights": weights}
    if weights not in WEIGHTS:
        wanted["encoder_weights"] = {"name": Path(weights).name, "sha256": _sha256(Path(weights).read_bytes())}
        weights = str(Path(weights).resolve())
    wanted |= {"options": recipe.options(smoke=given.smoke), "data": dict(_described(data, recipe))}
    values = {"DATA": str(data), "OUTPUT": str(output), "WEIGHTS": weights}
    values |= {"DEVICE": given.device, "THREADS": str(given.threads)}
    if output.is_dir() and not (output / RECORD).is_file() and any(path.name != LOCK for path in output.iterdir()):
        raise RecipeError(f"{output} is not the folder of a recipe (no {RECORD}): choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    with _locked(output) as lock:
        work = _Work(output, values, given.processes, lock, _begun(output, wanted))
        write_json(output / RECORD, work.record)
        if given.smoke:
            values["DATA"] = str(output / "data")
            if not work.record["stages"]:  # of other data, if it is there
                shutil.rmtree(values["DATA"], ignore_errors=True)
            write_subsets(data, output / "data", recipe.data, recipe.sentences)
        write_json(output / PROVENANCE, recipe.provenance)
        for number, (name, lines) in enumerate(wanted["options"].items(), 1):
            work.do(f"stage {number} of {len(wanted['options'])}, {name}", name, lines)
    print(f"done: the bundle is {given.output / 'bundle'}")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[IO[str]]:
    """Locks a folder as long as this process or one of its stages runs; yields the lock file."""
    with (folder / LOCK).open("a+", encoding="utf-8") as file:  # the system releases the lock even after a kill
        until = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > until:
                    file.seek(0)
                    raise RecipeError(
                        f"{file.read() or 'another process'} is using {folder}: wait until it ends, or stop it"
                    ) from error
                time.sleep(0.2)
        file.truncate(0)
        yield file


def _begun(output: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record to start or continue with. Raises RecipeError if stages ran with other options.

    Options of a stage that has made nothing yet may change: one can see what a stage gives before choosing the next.
    """
    path, earlier, stages = output / RECORD, {**wanted}, {}
    try:
        if path.is_file():
            earlier = json.loads(path.read_text(encoding="utf-8"))
            stages = dict(earlier.pop("stages"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(f"{path} is unreadable ({error!r}): delete {output} to start again") from error
    made = [name for name in stages if (output / name).exists()]
    was, now = ([*_facts(_concerning(made, record))] for record in (earlier, wanted))
    if earlier == wanted:
        return {**wanted, "stages": stages}
    if was != now and made:
        gone, come = ("; ".join(one for one in these if one not in those) for these, those in ((was, now), (now, was)))
        raise RecipeError(
            f"{output} was started with other options or data ({gone or 'less'}, and now {come or 'less'}): choose "
            f"another folder, or delete {', '.join(made)} in this one to start again"
        )
    return {**wanted, "stages": {name: stages[name] for name in made}}


def _concerning(stages: Sequence[str], record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record with the options of these stages only."""
    options = record.get("options", {})
    return {**record, "options": {name: lines for name, lines in options.items() if name in stages}}


def _facts(value: object, name: str = "") -> Iterator[str]:
    """Yields the entries of a record, with each command-line option as one entry."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _facts(one, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list):
        yield from (f"{name} {option}" for line in value for option in line.split(" --"))
    else:
        yield f"{name} {value}"


@dataclass(frozen=True, slots=True)
class _Work:
    """Runs the stages of a recipe. values: replacements for DATA, OUTPUT and the like."""

    output: Path
    values: dict[str, str]
    processes: int
    lock: IO[str]
    record: dict[str, Any]

    def do(self, title: str, name: str, lines: Sequence[str]) -> None:
        """Runs a stage unless it is finished. Raises RecipeError."""
        noted = self.record["stages"].setdefault(name, {"begun": 0, "seconds": 0.0, "finished": False, "made_on": []})
        if noted["finished"]:
            print(f"{title}: finished before, in {noted['seconds']:.0f} s", flush=True)
            return
        noted["begun"] += 1
        self._say(f"{title}: {'started' if noted['begun'] == 1 else 'continued'}")
        made_on = _machine() | {"device": self.values["DEVICE"], "threads": int(self.values["THREADS"])}
        if self.processes > 1:
            made_on["processes"] = self.processes
        if made_on not in noted["made_on"][-1:]:  # another machine changes the last digits
            noted["made_on"].append(made_on)
        write_json(self.output / RECORD, self.record)
        began = time.perf_counter()
        try:
            for line in lines:
                module, *_ = words = words_of(line, self.values)
                if module in IN_PROCESSES:
                    words = together(words, self.processes)
                self._say(f"{name}: python -m {shlex.join(words)}")
                if status := start(words, lambda said: self._say(f"{name}: {said}"), self.lock):
                    raise RecipeError(
                        f"{module} ended with status {status} in the stage {name}; its output says why: fix that "
                        "and run the same command again, which continues here"
                    )
            noted["finished"] = True
        finally:
            noted["seconds"] = round(noted["seconds"] + time.perf_counter() - began, 3)
            write_json(self.output / RECORD, self.record)
            self._say(f"{title}: {'finished' if noted['finished'] else 'stopped'} after {noted['seconds']:.0f} s")

    def _say(self, line: str) -> None:
        """Prints a line and logs it, without this machine's paths in the log."""
        print(line, flush=True)
        places = {self.values[word]: word for word in ("DATA", "OUTPUT", "WEIGHTS") if "/" in self.values[word]}
        places |= {sys.prefix: "PYTHON", str(Path.cwd()): "."}
        for path in sorted(places, key=len, reverse=True):
            line = re.sub(rf"{re.escape(path)}(?![\w.-])", places[path], line)
        with (self.output / LOG).open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {line}".rstrip() + "\n")


def _described(data: Path, recipe: Recipe) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the size and a fingerprint of each list of photographs and sentences. Raises DataError."""
    for name, split in itertools.product(recipe.data, SPLITS):
        dataset = open_dataset(data / name, split)
        content = json.dumps([[example.name, example.captions] for example in dataset.examples])
        counts = {"images": dataset.report.images, "captions": dataset.report.captions}
        yield f"{name}/{split}".lstrip("/"), counts | {"sha256": _sha256(content.encode())}
    for name in recipe.sentences:
        yield name, {"sha256": _sha256((data / name).read_bytes())}


def _machine() -> dict[str, Any]:
    """Returns the processor and the versions of Python and the installed packages."""
    there = {each.name: each.version for each in metadata.distributions()}
    versions = {"python": platform.python_version()} | {name: there[name] for name in PACKAGES if name in there}
    system = f"{platform.system()} {platform.machine()}"
    return {"processor": processor(), "cores": os.cpu_count(), "system": system, "versions": versions}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

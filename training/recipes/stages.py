"""Stages that are run once each, in order: skipped when finished, gone on with when interrupted. Knows no models.

A recipe's folder holds recipe.json (what it is made of, how far it came, and on what) and log.txt (what was printed,
with the time and the stage); each stage keeps what it makes in a folder of its own, which has its name.
"""

import contextlib
import fcntl
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from training.files import write_json
from training.recipes.process import run_module

RECORD, LOG, LOCK = "recipe.json", "log.txt", ".lock"
PATIENCE = 10.0
"""Seconds in which a stage whose recipe was killed must have ended."""


class RecipeError(RuntimeError):
    """A recipe that cannot begin or go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Command:
    """`python -m module arguments`; `again` comes last where the folder `makes` has something in it already."""

    module: str
    arguments: tuple[str, ...]
    makes: Path | None = None
    again: str = ""

    def line(self) -> tuple[str, ...]:
        """Returns the arguments for what is there now."""
        there = self.makes is not None and self.makes.is_dir() and any(self.makes.iterdir())
        return (*self.arguments, self.again) if there else self.arguments


@dataclass(frozen=True, slots=True)
class Stage:
    """Commands that make one thing. All are run again when the stage was interrupted, so each must bear that."""

    name: str
    commands: tuple[Command, ...]
    folder: Path | None = None  # to be there before its commands


class RecipeFolder:
    """A recipe's folder while the recipe works in it."""

    def __init__(self, output: Path, hidden: Mapping[Path, str]) -> None:
        """`hidden`: paths and the words that stand for them in the log, where they are written from the root."""
        self.output = output
        self._hidden = {str(path.resolve()): word for path, word in hidden.items()}
        self._lock = -1
        self.record: dict[str, Any] = {}
        self._about: dict[str, Any] = {}

    @contextlib.contextmanager
    def opened(self, made_of: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[None]:
        """Keeps other processes out of the folder, and begins or goes on with its record.

        made_of: what makes the bundle, which must be what it was from the moment on when a stage made something; about:
        what each stage is made on, noted when it begins. Raises RecipeError.
        """
        self._check_folder()
        self.output.mkdir(parents=True, exist_ok=True)
        with _locked(self.output) as self._lock:
            earlier = self._read()
            wanted, self._about = (json.loads(json.dumps(each)) for each in (made_of, about))
            stages = earlier.get("stages", {})
            if earlier and (differences := list(_differences(earlier, wanted))):
                if made := [name for name in stages if (self.output / name).exists()]:
                    raise RecipeError(
                        f"{self.output} was begun with other ingredients ({'; '.join(differences)}): name another "
                        f"folder, or delete {', '.join(made)} in this one to begin anew"
                    )
                earlier, stages = {}, {}
            self.record = {**earlier, **wanted, "stages": stages}
            self._save()
            yield

    def run(self, stages: Sequence[Stage], after: Callable[[Stage], None]) -> None:
        """Runs what is left to run; `after` is called behind each stage that ends now. Raises RecipeError."""
        for number, stage in enumerate(stages, 1):
            noted = self.record["stages"].setdefault(stage.name, {"begun": 0, "seconds": 0.0, "finished": False})
            title = f"stage {number} of {len(stages)}, {stage.name}"
            if noted["finished"]:
                self.say(stage.name, f"{title}: finished before, in {noted['seconds']:.0f} s")
                continue
            noted["begun"] += 1
            self.say(stage.name, f"{title}: {'begins' if noted['begun'] == 1 else 'goes on'}")
            self._note_means(stage.name, noted.setdefault("made_on", []))
            self._save()
            began = time.perf_counter()
            if stage.folder is not None:
                stage.folder.mkdir(exist_ok=True)
            try:
                for command in stage.commands:
                    self._execute(stage, command)
                after(stage)
                noted["finished"] = True
            finally:
                noted["seconds"] = round(noted["seconds"] + time.perf_counter() - began, 1)
                self._save()
                how = "finished" if noted["finished"] else "stopped"
                self.say(stage.name, f"{title}: {how} after {noted['seconds']:.0f} s")

    def _note_means(self, stage: str, made_on: list[dict[str, Any]]) -> None:
        """Notes what a stage begins or goes on with; says so where that is not what it was."""
        changed = list(_differences(made_on[-1], self._about)) if made_on else []
        if changed or not made_on:
            made_on.append(self._about)
        if changed:
            self.say(stage, f"goes on with other means ({'; '.join(changed)}): its last digits may differ")

    def say(self, stage: str, line: str) -> None:
        """Prints a line and logs it."""
        print(line, flush=True)
        self._log(stage, line)

    def _execute(self, stage: Stage, command: Command) -> None:
        arguments = command.line()
        self.say(stage.name, f"$ python -m {command.module} {self._masked(shlex.join(arguments))}")
        status = run_module(command.module, arguments, lambda line: self._log(stage.name, line), [self._lock])
        if status:
            raise RecipeError(
                f"{command.module} ended with status {status} in the stage {stage.name}; what it printed says why and "
                f"stands in {self.output / LOG} too: put it right and start the same command again, which goes on here"
            )

    def _log(self, stage: str, line: str) -> None:
        with (self.output / LOG).open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {stage}: {self._masked(line)}".rstrip() + "\n")

    def _masked(self, text: str) -> str:
        for path, word in self._hidden.items():
            text = re.sub(rf"{re.escape(path)}(?![\w.-])", word, text)
        return text

    def _check_folder(self) -> None:
        if self.output.exists() and not self.output.is_dir():
            raise RecipeError(f"{self.output} is a file, and a recipe needs a folder: name another one")
        taken = self.output.is_dir() and any(path.name != LOCK for path in self.output.iterdir())
        if taken and not (self.output / RECORD).is_file():
            raise RecipeError(f"{self.output} holds something else than a recipe (no {RECORD}): name another folder")

    def _read(self) -> dict[str, Any]:
        path = self.output / RECORD
        if not path.is_file():
            return {}
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            assert isinstance(record["stages"], dict)
        except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            raise RecipeError(f"{path} is unreadable ({error!r}): delete {self.output} to begin anew") from error
        return dict(record)

    def _save(self) -> None:
        write_json(self.output / RECORD, self.record)


def _differences(earlier: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Names what differs of the values wanted."""
    for name, value in wanted.items():
        was = earlier.get(name)
        if isinstance(value, dict) and isinstance(was, dict):
            yield from _differences(was, value, f"{prefix}{name}.")
        elif was != value:
            yield f"{prefix}{name} was {was!r} and is {value!r}"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Keeps a folder locked as long as this process or a stage of it lives; gives the descriptor that does it."""
    with (folder / LOCK).open("w") as file:  # left where it is: the system lets go of it even after a kill
        until = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise RecipeError(
                        f"another process works in {folder}: wait for its end or name another folder"
                    ) from error
                time.sleep(0.2)
        yield file.fileno()

"""The pool of workers on a Ray cluster, and how far it is. Owns all that speaks to Ray; knows no command line."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import ray
from ray.exceptions import GetTimeoutError

from engine import OptionsError
from serving.ray_parts import Part, one_line
from serving.ray_worker import Job, Opened, Worker, try_out

STARTS = 600.0  # seconds that a cluster may take to find or start a machine for the first worker
TELLS = 10.0  # seconds between two lines of progress where no terminal shows it
TASKS = 1000  # at least: Ray reports progress task by task, and a task is a few parts where there are more
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do from some release on; it warns until then
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what goes wrong comes as an exception too
}
RETRIES = 20  # of a task whose worker died: machines that are taken away are no fault, an image that kills workers is


@contextmanager
def cluster(address: str | None, needs: dict[str, Any]) -> Iterator[None]:
    """Connects to a cluster, or starts Ray on this machine; leaves nothing behind.

    Raises OptionsError, also where this machine alone has not what a worker needs; a cluster may grow.
    """
    if address is None:
        address = os.environ.get("RAY_ADDRESS") or "local"
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        quiet["include_dashboard"] = False
    started = not ray.is_initialized()
    try:
        if started:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise OptionsError(f"no Ray cluster can be reached at {address}: {one_line(error)}") from error
    try:
        if address == "local" and not room(needs):
            raise OptionsError(f"a worker needs {_plain(needs)}, and this machine has less")
        yield
    finally:
        if started:
            ray.shutdown()


def opened_by_a_worker(job: Job, needs: dict[str, Any]) -> Opened:
    """Opens the captioner in a worker, where the model, its provider and a GPU have to be. Raises OptionsError."""
    waiting = ray.remote(**needs)(try_out).remote(job)
    for seconds in (TELLS, STARTS):
        try:
            opened: Opened = ray.get(waiting, timeout=seconds)
            break
        except GetTimeoutError:
            print(f"waiting for a worker with {_plain(needs)} to start", file=sys.stderr)
    else:
        raise OptionsError(f"the cluster had no {_plain(needs)} free for {STARTS:.0f} seconds: see `ray status`")
    if opened.fault:
        raise OptionsError(opened.fault)
    return opened


def room(needs: dict[str, Any]) -> int:
    """Returns how many workers fit into the cluster as it is now."""
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fits = [
        there.get(name, 0) / needs[need] for name, need in (("CPU", "num_cpus"), ("GPU", "num_gpus")) if needs[need]
    ]
    return int(min(fits))


def caption(job: Job, parts: list[Part], needs: dict[str, Any], most: int) -> int:
    """Captions the parts, shows how far it is, and returns how many images have errors."""
    if not parts:
        return 0
    import ray.data  # half a second, and only now needed

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [
        {"name": part.name, "files": part.files, "table": part.table, "start": part.start, "stop": part.stop}
        for part in parts
    ]
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), max(TASKS, 32 * most))).map_batches(
        Worker,
        fn_constructor_args=(job,),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=most, initial_size=max(1, min(most, room(needs), len(parts)))
        ),
        ray_remote_args_fn=lambda: {"max_task_retries": RETRIES},
        **needs,
    )
    progress = Progress(sum(map(len, parts)), sys.stderr)
    try:
        for row in dataset.iter_rows():
            progress.add(row["images"], row["errors"])
    finally:
        progress.close()
    return progress.errors


class Progress:
    """How many images are done: one line of a terminal, or a line every few seconds of a log."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self.total, self.stream, self.done, self.errors = total, stream, 0, 0
        self._terminal = stream.isatty()
        self._start = self._told = time.monotonic()

    def add(self, images: int, errors: int) -> None:
        """Counts the images of a part."""
        self.done += images
        self.errors += errors
        now = time.monotonic()
        if self._terminal or now - self._told >= TELLS:
            self._told = now
            rate = self.done / max(now - self._start, 1e-3)
            text = f"{self.done:,} of {self.total:,} images, {rate:.1f} a second, {self.errors:,} errors"
            print(f"\r{text}\x1b[K" if self._terminal else text, end="" if self._terminal else "\n", file=self.stream)
            self.stream.flush()

    def close(self) -> None:
        """Leaves the line to what is printed next."""
        if self._terminal and self.done:
            print(file=self.stream)


def _plain(needs: dict[str, Any]) -> str:
    return " and ".join(f"{count:g} {name[4:-1].upper()}" for name, count in needs.items() if count)

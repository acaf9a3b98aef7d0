"""The pool of workers on a Ray cluster. Owns all that speaks to Ray; knows no command line."""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError

from engine import OptionsError
from serving.ray_parts import Part
from serving.ray_places import one_line
from serving.ray_worker import Job, Opened, Worker, try_out

STARTS = 600.0  # seconds that a cluster may take to find or start a machine for the first worker
SLOW = 10.0  # seconds after which a start is announced as slow
TASKS = 1000  # at least: Ray reports progress task by task, and a task is a few parts where there are more
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do from some release on; it warns until then
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what goes wrong comes as an exception too
}


@contextmanager
def cluster(address: str | None, needs: dict[str, Any]) -> Iterator[None]:
    """Connects to a cluster, or starts Ray on this machine; leaves nothing behind. For the main thread.

    Raises OptionsError, also where this machine alone has not what a worker needs; a cluster may grow. A SIGTERM
    meanwhile does what it did before, or, while Ray starts, raises KeyboardInterrupt.
    """
    if address is None:
        address = os.environ.get("RAY_ADDRESS") or "local"
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        quiet["include_dashboard"] = False
    started = not ray.is_initialized()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if started:
            ray.init(address=address, **quiet)
    except SystemExit as error:  # what Ray makes of a SIGTERM
        raise KeyboardInterrupt from error
    except Exception as error:  # Ray raises bare ones too
        what = (
            "Ray cannot be started on this machine" if address == "local" else f"no Ray cluster is found at {address}"
        )
        raise OptionsError(f"{what}: {one_line(error)}{_token_hint(address)}") from error
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own, set as it starts, would abort this process
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
    for seconds in (SLOW, STARTS):
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


def captioned(
    job: Job, parts: Sequence[Part], needs: dict[str, Any], most: int, worker: type[Worker] = Worker
) -> Iterator[tuple[int, int]]:
    """Captions the parts with up to `most` workers; yields of each part its images and errors, in any order."""
    if not parts:
        return
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
        worker,
        fn_constructor_args=(job,),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=most, initial_size=max(1, min(most, room(needs), len(parts)))
        ),
        **needs,
    )
    for row in dataset.iter_rows():
        yield row["images"], row["errors"]


def _token_hint(address: str) -> str:
    """Returns what to do where a cluster may want the token that Ray left here when it first started."""
    token = Path.home() / ".ray" / "auth_token"
    if address == "local" or "RAY_AUTH_MODE" in os.environ or not token.exists():
        return ""
    return f"; if the cluster asks for a token, as {token} suggests, set RAY_AUTH_MODE=token"


def _plain(needs: dict[str, Any]) -> str:
    return " and ".join(f"{count:g} {name[4:-1].upper()}" for name, count in needs.items() if count)

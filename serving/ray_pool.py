"""The pool of workers on a Ray cluster. Contains all calls of Ray; knows no command line."""

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

STARTS = 600.0  # seconds for a cluster to find or start a machine for the first worker
SLOW = 10.0  # seconds until a message says that a worker is being waited for
TASKS = 1000  # at least: Ray reports progress by task, and with more parts than this a task is several of them
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the default of a later release; Ray warns until then
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # errors arrive as exceptions too
}


@contextmanager
def cluster(address: str | None, needs: dict[str, Any]) -> Iterator[None]:
    """Connects to a cluster, or starts Ray on this machine and stops it at the end. Only for the main thread.

    Raises OptionsError, also if this machine alone is too small for a worker; a cluster may grow. SIGTERM keeps its
    handler, but raises KeyboardInterrupt while Ray starts.
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
    except SystemExit as error:  # Ray raises it for SIGTERM
        raise KeyboardInterrupt from error
    except Exception as error:  # Ray also raises Exception itself
        what = (
            "Ray cannot be started on this machine" if address == "local" else f"no Ray cluster was found at {address}"
        )
        raise OptionsError(f"{what}: {one_line(error)}{_token_hint(address)}") from error
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)  # the one that Ray sets as it starts would abort this process
    try:
        if address == "local" and not room(needs):
            raise OptionsError(f"a worker needs {_plain(needs)}, but this machine has less")
        yield
    finally:
        if started:
            ray.shutdown()


def opened_by_a_worker(job: Job, needs: dict[str, Any]) -> Opened:
    """Opens the captioner in a worker, because that machine needs the model and the provider. Raises OptionsError."""
    waiting = ray.remote(**needs)(try_out).remote(job)
    for seconds in (SLOW, STARTS):
        try:
            opened: Opened = ray.get(waiting, timeout=seconds)
            break
        except GetTimeoutError:
            print(f"waiting for a worker with {_plain(needs)}", file=sys.stderr)
    else:
        raise OptionsError(f"the cluster had no {_plain(needs)} free for {STARTS:.0f} seconds: see `ray status`")
    if opened.fault:
        raise OptionsError(opened.fault)
    return opened


def room(needs: dict[str, Any]) -> int:
    """Returns how many workers fit into the cluster at its present size."""
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fits = [
        there.get(name, 0) / needs[need] for name, need in (("CPU", "num_cpus"), ("GPU", "num_gpus")) if needs[need]
    ]
    return int(min(fits))


def captioned(
    job: Job, parts: Sequence[Part], needs: dict[str, Any], most: int, worker: type[Worker] = Worker
) -> Iterator[tuple[int, int]]:
    """Captions the parts with up to `most` workers; yields the numbers of images and errors of each, in any order."""
    if not parts:
        return
    import ray.data  # takes half a second

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
    """Returns advice if the cluster may ask for the token that Ray once wrote on this machine."""
    token = Path.home() / ".ray" / "auth_token"
    if address == "local" or "RAY_AUTH_MODE" in os.environ or not token.exists():
        return ""
    return f"; if the cluster asks for a token, as {token} suggests, set RAY_AUTH_MODE=token"


def _plain(needs: dict[str, Any]) -> str:
    return " and ".join(f"{count:g} {name[4:-1].upper()}" for name, count in needs.items() if count)

"""A Ray cluster of several nodes on this machine."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

STARTS = 300  # seconds
SMALL = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
SETTINGS = {
    "RAY_enable_worker_prestart": "0",  # processes that nobody asked for cost seconds
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0",  # 15 is Ray's default: whatever else runs here would then come first
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def local_cluster(nodes: int, cpus: int) -> Iterator[Any]:
    """Gives a Ray cluster with nodes of some CPUs each on this machine, to nobody connected; then ends all of it."""
    from ray.cluster_utils import Cluster

    before = {name: os.environ.get(name) for name in SETTINGS}
    os.environ.update(SETTINGS)
    cluster = Cluster()
    try:
        for _ in range(nodes):
            with _patience():
                cluster.add_node(num_cpus=cpus, object_store_memory=100 * 2**20, **SMALL)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _patience() -> Iterator[None]:
    """Lets a node take minutes to start: Ray gives it 30 seconds, which is not enough where others work too."""
    from ray._private import services

    ask: Any = services.get_node

    def ask_again(*arguments: Any, **named: Any) -> Any:
        end = time.monotonic() + STARTS
        while True:
            try:
                return ask(*arguments, **named)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    services.get_node = ask_again
    try:
        yield
    finally:
        services.get_node = ask

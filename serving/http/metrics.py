"""Counters of the service and of its scheduler in Prometheus' text format. Owns names and texts; measures nothing."""

import os
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from engine import Histogram, SchedulerStats

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
GAUGES = {
    "queue_depth": "Images that wait.",
    "rows_in_use": "Sentences that grow right now.",
    "max_rows": "Most sentences that may grow at once.",
}
HISTOGRAMS = {
    "waits": ("wait_seconds", "Time from a request to the start of its encoder run."),
    "encodes": ("encode_seconds", "Time that encoder runs took."),
    "decodes": ("decode_seconds", "Time from the first to the last word of a caption."),
    "batch_sizes": ("batch_images", "Images in an encoder run."),
    "step_rows": ("step_rows", "Sentences in a decoder step."),
}


class Metrics:
    """What requests did. Belongs to one event loop."""

    def __init__(self) -> None:
        self.started = time.time()
        self.in_progress = 0
        self.bytes_received = 0
        self._requests: dict[tuple[str, str, int], int] = {}
        self._problems: dict[tuple[str, str], int] = {}
        self._seconds: dict[str, tuple[list[int], float]] = {}

    def add(self, method: str, path: str, status: int, seconds: float) -> None:
        """Counts an answered request; path is one of the service's own, so that strangers cannot make up labels."""
        key = (method, path, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        counts, total = self._seconds.get(path, ([0] * (len(BOUNDS) + 1), 0.0))
        counts[bisect_left(BOUNDS, seconds)] += 1
        self._seconds[path] = (counts, total + seconds)

    def add_problems(self, problems: Iterable[tuple[str, str]]) -> None:
        """Counts problems that a request was told, each as (kind, where)."""
        for each in problems:
            self._problems[each] = self._problems.get(each, 0) + 1

    def render(self, stats: SchedulerStats, *, held_bytes: int, lost_log_lines: int) -> str:
        """Returns everything."""
        return "".join(f"{line}\n" for line in self._lines(stats, held_bytes, lost_log_lines))

    def _lines(self, stats: SchedulerStats, held_bytes: int, lost_log_lines: int) -> Iterator[str]:
        labelled = (
            (f'method="{method}",path="{path}",status="{status}"', count)
            for (method, path, status), count in sorted(self._requests.items())
        )
        yield from _family("http_requests_total", "counter", "Requests, by method, path and status.", labelled)
        problems = ((f'type="{kind}",in="{where}"', count) for (kind, where), count in sorted(self._problems.items()))
        told = "Problems that clients were told, as the answer, an entry of it, or an event of a stream."
        yield from _family("http_problems_total", "counter", told, problems)
        yield from _head("http_request_seconds", "histogram", "Time from a request's headers to the end of its answer.")
        for path, (counts, total) in sorted(self._seconds.items()):
            yield from _histogram("http_request_seconds", Histogram(BOUNDS, tuple(counts), total), f'path="{path}"')
        yield from _one("http_requests_in_progress", "gauge", "Requests under way.", self.in_progress)
        yield from _one("http_received_bytes_total", "counter", "Bytes of bodies received.", self.bytes_received)
        yield from _one("http_held_bytes", "gauge", "Bytes of bodies in memory.", held_bytes)
        yield from _one("log_lines_lost_total", "counter", "Lines that could not be logged.", lost_log_lines)
        for each in fields(stats):
            value = getattr(stats, each.name)
            if each.name in HISTOGRAMS:
                name, text = HISTOGRAMS[each.name]
                yield from _head(f"caption_{name}", "histogram", text)
                yield from _histogram(f"caption_{name}", value)
            elif each.name in GAUGES:
                yield from _one(f"caption_{each.name}", "gauge", GAUGES[each.name], value)
            elif isinstance(value, int):
                text = f"Images {each.name} since the start."
                yield from _one(f"caption_{each.name}_total", "counter", text, value)
        yield from _process(self.started)


def _process(started: float) -> Iterator[str]:
    yield from _one("process_cpu_seconds_total", "counter", "Processor time.", time.process_time())
    yield from _one("process_start_time_seconds", "gauge", "When the process started, in seconds since 1970.", started)
    with suppress(OSError):  # Linux only
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        memory = pages * os.sysconf("SC_PAGE_SIZE")
        yield from _one("process_resident_memory_bytes", "gauge", "Memory in use.", memory)
        opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names, no paths
        yield from _one("process_open_fds", "gauge", "Open files and connections.", opened)


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _family(name: str, kind: str, text: str, values: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield from _head(name, kind, text)
    yield from (f"{name}{{{labels}}} {value}" if labels else f"{name} {value}" for labels, value in values)


def _one(name: str, kind: str, text: str, value: float) -> Iterator[str]:
    yield from _family(name, kind, text, [("", value)])


def _histogram(name: str, histogram: Histogram, labels: str = "") -> Iterator[str]:
    more, alone = (f"{labels},", f"{{{labels}}}") if labels else ("", "")
    seen = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        seen += count
        yield f'{name}_bucket{{{more}le="{bound}"}} {seen}'
    yield f"{name}_sum{alone} {histogram.total}"
    yield f"{name}_count{alone} {seen}"

"""The service's metrics for Prometheus: counts of requests, and the statistics of the scheduler. Measures nothing."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    generate_latest,
)
from prometheus_client import Histogram as RequestHistogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from engine import Histogram, Scheduler

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
GAUGES = {
    "queue_depth": "Images that wait.",
    "rows_in_use": "Sentences that are being decoded.",
    "max_rows": "Most sentences that may be decoded at the same time.",
}
HISTOGRAMS = {
    "waits": ("wait_seconds", "Time from a request to the start of its encoder run."),
    "encodes": ("encode_seconds", "Time that encoder runs took."),
    "decodes": ("decode_seconds", "Time from the first to the last word of a caption."),
    "batch_sizes": ("batch_images", "Images in an encoder run."),
    "step_rows": ("step_rows", "Sentences in a decoder step."),
}
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Metrics:
    """The metrics of one service, in a registry of its own, because a process may have several services."""

    def __init__(self, scheduler: Scheduler, *, held_bytes: Callable[[], int], lost_lines: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        told = "Problems sent to clients, as the answer, in an entry of it, or in an event of a stream."
        asked = "Requests, by method, path and status."
        took = "Time from the headers of a request to the end of its answer."
        self._requests = Counter("http_requests", asked, ("method", "path", "status"), registry=registry)
        self._problems = Counter("http_problems", told, ("type", "in"), registry=registry)
        self._seconds = RequestHistogram("http_request_seconds", took, ("path",), registry=registry, buckets=BOUNDS)
        self.in_progress = Gauge("http_requests_in_progress", "Requests in progress.", registry=registry)
        self.bytes_received = Counter("http_received_bytes", "Bytes of bodies received.", registry=registry)
        Gauge("http_held_bytes", "Bytes of bodies in memory.", registry=registry).set_function(held_bytes)
        registry.register(_Scheduler(scheduler, lost_lines))
        ProcessCollector(registry=registry)

    def add(self, method: str, path: str, status: int, seconds: float) -> None:
        """Counts an answered request. path: one of the service's own, so that clients cannot invent labels."""
        self._requests.labels(method, path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def add_problems(self, problems: Iterable[tuple[str, str]]) -> None:
        """Counts the problems of a request, each as (kind, where)."""
        for kind, where in problems:
            self._problems.labels(kind, where).inc()

    def render(self) -> bytes:
        """Returns everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _Scheduler(Collector):
    """The current statistics of a scheduler, and the number of lines that the log lost."""

    def __init__(self, scheduler: Scheduler, lost_lines: Callable[[], int]) -> None:
        self._scheduler, self._lost_lines = scheduler, lost_lines

    def collect(self) -> Iterator[Family]:
        """Yields every family."""
        yield CounterMetricFamily("log_lines_lost", "Lines that could not be logged.", self._lost_lines())
        stats = self._scheduler.stats()
        for each in fields(stats):
            value = getattr(stats, each.name)
            if isinstance(value, Histogram):
                name, text = HISTOGRAMS[each.name]
                yield HistogramMetricFamily(f"caption_{name}", text, _buckets(value), value.total)
            elif each.name in GAUGES:
                yield GaugeMetricFamily(f"caption_{each.name}", GAUGES[each.name], value)
            else:
                yield CounterMetricFamily(f"caption_{each.name}", f"Images {each.name} since the start.", value)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Returns pairs of a bound and the number of values up to it, as Prometheus counts."""
    bounds = (*map(str, histogram.bounds), "+Inf")
    return [(bound, sum(histogram.counts[: i + 1])) for i, bound in enumerate(bounds)]

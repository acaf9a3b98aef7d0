"""Overloads the HTTP service for half an hour: `python -m benchmarks.soak` (`--minutes`, `--output FOLDER`).

Measures the capacity, then sends 1.2 times as many requests as a Poisson process: captions with all options, streams,
several images, bad images, callers that disconnect and slow callers. Checks that there are no errors but refusals, that
captions equal the Captioner's, that each request is answered once (by callers, counters and log), and that memory stays
flat. Prints a table, writes soak.json and soak.png, and returns 1 if a check failed.
"""

import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from benchmarks.load.callers import Callers
from benchmarks.load.service import Service
from benchmarks.load.traffic import OPTIONS, Requests
from engine import Captioner
from engine.commands.parser import Parser, number, whole
from serving.decoding_options import read_decoding

matplotlib.use("Agg")
from matplotlib import pyplot

EXCESS = 1.2  # times the capacity
WARM_UP = 0.2  # of the time, at most 5 minutes: memory may rise until then
FLAT = 0.03  # most that memory may rise from then to the end, of what it was


def main(argv: Sequence[str] | None = None) -> int:
    """Runs everything; returns the exit code."""
    parser = Parser(prog="python -m benchmarks.soak", description="A soak test of the HTTP service.")
    parser.add_argument("--minutes", type=number(0, above=True), default=30.0)
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--output", type=Path, default=Path(), metavar="FOLDER", help="for soak.json and soak.png")
    arguments = parser.parse_args(argv)
    requests = Requests.drawn()
    expected = expected_captions(requests)
    with tempfile.TemporaryDirectory() as folder, Service(Path(folder) / "log") as service:
        found = asyncio.run(soak(service, requests, expected, arguments.minutes * 60, arguments.seed))
        time.sleep(1)  # the callers have just closed their connections
        found["open_files"] = service.size()[1]
        found["exit_code"] = service.stop()
        found["lines"] = service.lines_by_request()
    checks = judge(found)
    found["lines"] = len(found["lines"])
    found["sent_ids"] = len(found["sent_ids"])
    arguments.output.mkdir(parents=True, exist_ok=True)
    record = json.dumps(found | {"checks": checks}, indent=1)
    (arguments.output / "soak.json").write_text(record + "\n", encoding="utf-8")
    draw(found, arguments.output / "soak.png")
    print(table(found, checks))
    return 0 if all(checks.values()) else 1


def expected_captions(requests: Requests) -> dict[tuple[int, str], str]:
    """Captions every photograph in every way, by the Captioner alone."""
    captioner = Captioner(provider="cpu")
    found = {}
    for way, query in OPTIONS.items():
        decoding = read_decoding([tuple(pair.split("=", 1)) for pair in query.split("&")])  # type: ignore[misc]
        for photo, file in enumerate(requests.files):  # one by one, because rounding in batches would count as a fault
            found[photo, way] = captioner.caption([file], decoding)[0].text
    return found


async def soak(
    service: Service, requests: Requests, expected: dict[tuple[int, str], str], seconds: float, seed: int
) -> dict[str, Any]:
    """Measures the capacity, loads the service for some seconds, and returns what was seen."""
    chance = random.Random(seed)
    async with Callers(service.url, requests, expected, chance) as callers:
        capacity = await callers.capacity(min(20.0, max(3.0, seconds / 10)))
        print(f"capacity: {capacity:.1f} requests a second", file=sys.stderr, flush=True)
        callers.reset()
        before = service.metrics()
        memory: list[tuple[float, float, float, float]] = []
        watching = asyncio.create_task(watch(service, memory))
        began = time.monotonic()
        due, tasks, calls = began, set(), 0
        while time.monotonic() < began + seconds:
            due += chance.expovariate(EXCESS * capacity)
            await asyncio.sleep(due - time.monotonic())
            task = asyncio.create_task(callers.one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            calls += 1
        await asyncio.gather(*tasks)
        lasted = time.monotonic() - began
        while service.metrics()["http_requests_in_progress"] > 1:  # callers that went away are still noticed
            await asyncio.sleep(0.1)
        watching.cancel()
        after = service.metrics()
    return {
        "capacity": capacity,
        "calls": calls,
        "calls_meant": EXCESS * capacity * seconds,
        "seconds": lasted,
        "outcomes": callers.outcomes(),
        "faults": callers.faults[:50],
        "sent_ids": callers.sent,
        "latencies_ms": callers.latencies(),
        "server": {name: after[name] - before.get(name, 0.0) for name in after if name.endswith("_total")},
        "waiting": after["caption_queue_depth"] + after["caption_rows_in_use"] + after["http_held_bytes"],
        "memory": memory,
    }


async def watch(service: Service, memory: list[tuple[float, float, float, float]]) -> None:
    """Notes seconds, bytes of memory, open files and threads, about once a second."""
    began = time.monotonic()
    while True:
        memory.append((round(time.monotonic() - began, 1), *service.size()))
        await asyncio.sleep(1)


def judge(found: dict[str, Any]) -> dict[str, bool]:
    """Returns which checks passed."""
    server, outcomes = found["server"], found["outcomes"]
    ended = sum(server[f"caption_{name}_total"] for name in ("finished", "failed", "cancelled", "expired"))
    first, last = rise(found["memory"])
    return {
        "no error that is not a refusal": not found["faults"],
        "callers kept their rate": found["calls"] > 0.9 * found["calls_meant"],
        "the load was more than the service bears: some were refused": outcomes.get("refused", 0) > 0,
        "every accepted request ended once (counters)": server["caption_accepted_total"] == ended,
        "nothing is left waiting": found["waiting"] == 0,
        "each request has one line in the log, also if its caller left: none has two": max(found["lines"].values()) == 1
        and all(found["lines"].get(each) == 1 for each in found["sent_ids"]),
        f"memory rose by less than {FLAT:.0%} after the warm-up": last - first < FLAT * first,
        "open files are as few as at the start": found["open_files"] < found["memory"][0][2] + 16,
        "SIGTERM ended it with exit code 0": found["exit_code"] == 0,
    }


def rise(memory: list[tuple[float, float, float, float]]) -> tuple[float, float]:
    """Returns the median of memory in the tenth after the warm-up, and in the last tenth, in bytes."""
    lasted = memory[-1][0]
    warm = min(WARM_UP * lasted, 300.0)
    parts = ((warm, warm + lasted / 10), (0.9 * lasted, lasted + 1))
    medians = []
    for low, high in parts:
        values = sorted(size for moment, size, *_ in memory if low <= moment <= high)
        medians.append(values[len(values) // 2])
    return medians[0], medians[1]


def slope(memory: list[tuple[float, float, float, float]]) -> tuple[float, float]:
    """Returns how much memory rises after the warm-up, in bytes an hour, and the standard error of that.

    Least squares over the medians of tenths of what is left: neighbouring seconds are not independent.
    """
    warm = min(WARM_UP * memory[-1][0], 300.0)
    parts = np.array_split(np.array([(moment, size) for moment, size, *_ in memory if moment >= warm]), 10)
    hours, sizes = np.array([np.median(part, axis=0) for part in parts]).T / [[3600], [1]]
    (rises, _), covariance = np.polyfit(hours, sizes, 1, cov=True)
    return float(rises), float(np.sqrt(covariance[0, 0]))


def draw(found: dict[str, Any], path: Path) -> None:
    """Writes the chart of memory."""
    moments, sizes, files, threads = zip(*found["memory"], strict=True)
    minutes = [moment / 60 for moment in moments]
    figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    axes.plot(minutes, [size / 2**20 for size in sizes], color="black", label="resident memory")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes")
    axes.set_ylabel("MiB")
    right = axes.twinx()
    right.plot(minutes, files, color="C0", linewidth=0.8, label="open files and connections")
    right.plot(minutes, threads, color="C1", linewidth=0.8, label="threads")
    right.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=3, fontsize=9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def table(found: dict[str, Any], checks: dict[str, bool]) -> str:
    """Returns what was seen, as Markdown."""
    memory = found["memory"]
    first, last = rise(memory)
    rows = {
        "capacity, requests/s": f"{found['capacity']:.1f}",
        "sent in": f"{found['seconds'] / 60:.1f} minutes",
        **{name: f"{count:,}" for name, count in sorted(found["outcomes"].items())},
        "p50, p99 of answers, ms": " / ".join(f"{value:.0f}" for value in found["latencies_ms"]),
        "memory after the warm-up, at the end": f"{first / 2**20:.0f} / {last / 2**20:.0f} MiB",
        "memory's slope after the warm-up": "{:+.0f} ± {:.0f} MiB an hour".format(*(x / 2**20 for x in slope(memory))),
        **{check: "yes" if passed else "NO" for check, passed in checks.items()},
    }
    lines = ["| what | seen |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join([*lines, *(f"- {fault}" for fault in found["faults"][:10])])


if __name__ == "__main__":
    sys.exit(main())

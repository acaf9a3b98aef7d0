"""What those who run the service rely on: readiness, counters, the log, and why it does not start."""

import asyncio
import io
import logging
import re
import threading
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from engine import Captioner, DeviceError, Scheduler
from serving.http.__main__ import main
from serving.http.app import create_app
from serving.http.limits import Limits
from serving.http.logs import MAX_WAITING, JsonLines
from tests.serving.calls import ask, events, logged, parsed, problem, with_client
from tests.serving.stand_in import StandIn


@pytest.mark.parametrize(("queue", "images"), [(3, 3), (16, 16), (1000, 16)])
def test_no_request_may_hold_more_images_than_may_wait(scheduler: Scheduler, queue: int, images: int) -> None:
    app = create_app(scheduler, limits=Limits().for_queue(queue), warm=False)
    assert ask(app, "GET", "/v1/model").json()["limits"]["max_images"] == images
    form = ask(app, "GET", "/openapi.json").json()["paths"]["/v1/captions"]["post"]["requestBody"]["content"]
    assert form["multipart/form-data"]["schema"]["properties"]["images"]["maxItems"] == images
    files = [("images", ("x.jpg", b"x"))] * (images + 1)
    problem(ask(app, "POST", "/v1/captions", files=files), 413, "too-large")


def test_the_service_is_ready_only_after_its_warm_up(
    captioner: Captioner, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm, warmed = asyncio.Event(), []
    loop: asyncio.AbstractEventLoop | None = None

    def warmup(**options: Any) -> None:
        warmed.append(options)
        assert loop
        asyncio.run_coroutine_threadsafe(warm.wait(), loop).result(10)

    monkeypatch.setattr(captioner, "warmup", warmup)
    app = create_app(scheduler)

    async def use(client: httpx.AsyncClient) -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        async with app.router.lifespan_context(app):
            before = await client.get("/readyz")
            assert (await client.get("/healthz")).status_code == 200
            warm.set()
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.001)
        problem(before, 503, "closing")
        problem(await client.get("/readyz"), 503, "closing")

    with_client(app, use)
    assert {type(one).__name__ for options in warmed for one in options["decodings"]} == {"Greedy", "Beam", "Sample"}


def test_a_failed_warm_up_never_becomes_ready(
    captioner: Captioner, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, lines: io.StringIO
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(captioner, "warmup", fail)
    app = create_app(scheduler)

    async def use(client: httpx.AsyncClient) -> httpx.Response:
        async with app.router.lifespan_context(app):
            while "no memory" not in lines.getvalue():
                await asyncio.sleep(0.001)
            return await client.get("/readyz")

    problem(with_client(app, use), 503, "closing")
    assert any("warm-up failed" in line["event"] and "no memory" in line["trace"] for line in logged(lines))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--bundle", "nowhere"], "nowhere is not a bundle"),
        (["--host", "256.0.0.1"], "cannot listen on 256.0.0.1 port 0"),
        (["--port", "70000"], "--port must be from 0 to 65535, but it is 70000"),
        (["--max-bytes", "0"], "--max-bytes must be a number above 0, but it is 0"),
        (["--max-held-bytes", "1000"], "--max-held-bytes must be at least --max-bytes"),
        (["--timeout", "nan"], "--timeout must be a number above 0, but it is nan"),
        (["--provider", "abacus"], "abacus"),
        (["--max-rows", "0"], "--max-rows must be a whole number from 1, but it is 0"),
        (["--batch-size", "0"], "--batch-size must be a whole number from 1, but it is 0"),
        (["--token-file", "nowhere"], "cannot be read"),
        (["--formats", "jpeg,raw"], "'RAW' is not a format that Pillow reads"),
    ],
)
def test_a_service_that_cannot_start_says_why_in_one_sentence(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--port", "0", *options]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


JPEG = {"Content-Type": "image/jpeg"}


def test_counters_count_what_happened(scheduler: Scheduler, photos: list[bytes]) -> None:
    app = create_app(scheduler, warm=False)
    before = parsed(ask(app, "GET", "/metrics").text)["caption_finished_total"][""]
    for _ in range(3):
        ask(app, "POST", "/v1/captions", content=photos[0], headers=JPEG)
    ask(app, "POST", "/v1/captions", content=b"x", headers=JPEG)
    ask(app, "GET", "/anything")
    ask(app, "BREW", "/healthz")
    values = parsed(ask(app, "GET", "/metrics").text)
    requests = values["http_requests_total"]
    assert requests['method="POST",path="/v1/captions",status="200"'] == 3
    assert requests['method="POST",path="/v1/captions",status="422"'] == 1
    assert requests['method="GET",path="other",status="404"'] == 1
    assert requests['method="other",path="/healthz",status="405"'] == 1
    assert values["caption_finished_total"][""] == before + 3
    assert values["http_received_bytes_total"][""] == 3 * len(photos[0]) + 1
    assert values["process_resident_memory_bytes"][""] > 1e6


def test_metrics_have_the_names_that_dashboards_ask_for(app: FastAPI) -> None:
    families = {family.name for family in text_string_to_metric_families(ask(app, "GET", "/metrics").text)}
    http = "requests problems request_seconds requests_in_progress received_bytes held_bytes"
    images = "accepted finished failed cancelled expired refused queue_depth rows_in_use max_rows"
    times = "wait_seconds encode_seconds decode_seconds batch_images step_rows"
    process = "cpu_seconds start_time_seconds resident_memory_bytes open_fds"
    groups = {"http": http, "caption": f"{images} {times}", "process": process, "log": "lines_lost"}
    assert {f"{group}_{name}" for group, names in groups.items() for name in names.split()} <= families


def test_buckets_rise_and_end_at_the_count(app: FastAPI, photos: list[bytes]) -> None:
    ask(app, "POST", "/v1/captions", content=photos[0], headers=JPEG)
    values = parsed(ask(app, "GET", "/metrics").text)
    families = [name.removesuffix("_count") for name in values if name.endswith("_count")]
    assert {"http_request_seconds", "caption_wait_seconds", "caption_step_rows"} <= set(families)
    for name in families:
        rows: dict[str, list[float]] = {}
        for labels, value in values[f"{name}_bucket"].items():
            rows.setdefault(re.sub('le="[^"]+",?', "", labels), []).append(value)
        assert rows.keys() == values[f"{name}_count"].keys()
        for row, buckets in rows.items():
            assert buckets == sorted(buckets)
            assert buckets[-1] == values[f"{name}_count"][row]


def test_each_request_is_one_line_of_json_without_its_secrets(
    scheduler: Scheduler, photos: list[bytes], lines: io.StringIO
) -> None:
    app = create_app(scheduler, tokens=[b"hush"], warm=False)
    headers = JPEG | {"Authorization": "Bearer hush", "X-Request-ID": "seven"}
    ask(app, "POST", "/v1/captions", content=photos[0], headers=headers, params={"prefix": "a"})
    (line,) = logged(lines)
    assert line["time"].endswith("Z")
    assert (line["event"], line["request_id"], line["path"]) == ("request", "seven", "/v1/captions")
    assert (line["method"], line["status"], line["bytes"]) == ("POST", 200, len(photos[0]))
    assert line["seconds"] > 0
    assert "hush" not in lines.getvalue()


def test_an_error_nobody_foresaw_is_traced_in_the_log_and_nowhere_else(
    captioner: Captioner, photos: list[bytes], lines: io.StringIO
) -> None:
    stand_in = StandIn(captioner, room=0, refusal=ZeroDivisionError("a secret"))
    answer = ask(create_app(stand_in, warm=False), "POST", "/v1/captions", content=photos[0], headers=JPEG)
    told = problem(answer, 500, "internal")
    assert "secret" not in answer.text
    traces = [line for line in logged(lines) if "trace" in line]
    assert [line["request_id"] for line in traces] == [told["request_id"]]
    assert "ZeroDivisionError: a secret" in traces[0]["trace"]


def test_an_error_within_a_stream_is_logged_and_counted(
    captioner: Captioner, photos: list[bytes], lines: io.StringIO
) -> None:
    stand_in = StandIn(captioner)
    app = create_app(stand_in, warm=False)

    async def use(client: httpx.AsyncClient) -> tuple[str, str]:
        asking = asyncio.create_task(client.post("/v1/captions/stream", content=photos[0], headers=JPEG))
        while not stand_in.words:
            await asyncio.sleep(0)
        stand_in.words[0].put(["a"])
        await asyncio.sleep(0.05)  # the first word gives the answer its status
        stand_in.fail(ZeroDivisionError("/a/secret"))
        return (await asking).text, (await client.get("/metrics")).text

    text, counters = with_client(app, use)
    (_, word), (name, told) = events(text)
    assert (word, name) == ({"word": "a"}, "error")
    assert "secret" not in text
    assert told["type"] == "urn:captioning:internal"
    traced, request, _ = logged(lines)
    assert traced["request_id"] == request["request_id"] == told["request_id"]
    assert "/a/secret" in traced["trace"]
    assert (request["status"], request["problems"]) == (200, ["internal"])
    assert parsed(counters)["http_problems_total"] == {'in="event",type="internal"': 1}


def test_a_device_that_fails_one_image_of_several_is_logged_and_counted(
    captioner: Captioner, photos: list[bytes], lines: io.StringIO
) -> None:
    stand_in = StandIn(captioner)
    app = create_app(stand_in, warm=False)

    async def use(client: httpx.AsyncClient) -> tuple[httpx.Response, str]:
        files = [("images", ("x.jpg", photo)) for photo in photos]
        asking = asyncio.create_task(client.post("/v1/captions", files=files))
        while len(stand_in.futures) < 3:
            await asyncio.sleep(0)
        stand_in.futures[1].set_exception(DeviceError("/a/secret"))
        stand_in.answer()
        return await asking, (await client.get("/metrics")).text

    answer, counters = with_client(app, use)
    first, failed, last = answer.json()["captions"]
    assert first["caption"] == last["caption"] == "a dog"
    assert failed["error"]["type"] == "urn:captioning:device"
    traced, request, _ = logged(lines)
    assert traced["request_id"] == answer.json()["request_id"]
    assert "/a/secret" in traced["trace"]
    assert (request["status"], request["problems"]) == (200, ["device"])
    assert parsed(counters)["http_problems_total"] == {'in="entry",type="device"': 1}


def test_a_line_of_the_log_is_of_bounded_length(app: FastAPI, lines: io.StringIO) -> None:
    ask(app, "GET", "/" + "x" * 60_000)
    (line,) = logged(lines)
    assert line["path"] == "/" + "x" * 199


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_lines_that_cannot_be_written_are_lost_and_counted() -> None:
    handler = JsonLines(Full())
    for _ in range(3):
        handler.handle(logging.makeLogRecord({"msg": "x"}))
    handler.close()
    assert handler.lost == 3


def test_a_reader_of_the_log_that_stalls_stalls_nobody() -> None:
    go, writing = threading.Event(), threading.Event()

    class Stalled(io.StringIO):
        def write(self, text: str) -> int:
            writing.set()
            go.wait(10)
            return len(text)

    handler = JsonLines(Stalled())
    handler.handle(logging.makeLogRecord({"msg": "x"}))
    assert writing.wait(10)
    for _ in range(MAX_WAITING + 5):
        handler.handle(logging.makeLogRecord({"msg": "x"}))
    assert handler.lost == 5
    go.set()
    handler.close()

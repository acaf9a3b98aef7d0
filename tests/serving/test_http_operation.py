"""What those who run the service rely on: tokens, readiness, counters, logs, the command line."""

import asyncio
import io
import json
import logging
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from engine import Captioner, ClosedError, DeviceError, OptionsError, Scheduler
from serving.http.__main__ import _bind, _hosts, _limits, _parser, _take_descriptors, main
from serving.http.app import create_app
from serving.http.logs import MAX_WAITING, JsonLines
from serving.http.tokens import read_tokens
from tests.serving.calls import ask, events, problem, with_client
from tests.serving.stand_in import StandIn

JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture
def guarded(scheduler: Scheduler) -> FastAPI:
    """A service with two tokens."""
    return create_app(scheduler, tokens=[b"first", b"second"], warm=False)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged."""
    text = io.StringIO()
    handler = JsonLines(text)
    logger = logging.getLogger("serving.http")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield text
    logger.removeHandler(handler)
    handler.close()


def logged(text: io.StringIO) -> list[dict[str, Any]]:
    (handler,) = logging.getLogger("serving.http").handlers
    handler.close()  # which waits until all is written
    return [json.loads(line) for line in text.getvalue().splitlines()]


@pytest.mark.parametrize("given", [None, "Bearer third", "Bearer ", "Bearer firstsecond", "Basic first", "first", "é"])
@pytest.mark.parametrize("path", ["/v1/model", "/metrics", "/v1/captions", "/nothing"])
def test_without_a_right_token_nothing_is_told(guarded: FastAPI, path: str, given: str | None) -> None:
    headers = {"Authorization": given.encode("latin-1")} if given else {}
    answer = ask(guarded, "POST" if path == "/v1/captions" else "GET", path, headers=headers)
    problem(answer, 401, "token")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("given", ["Bearer first", "bearer second"])
def test_any_of_the_tokens_opens(guarded: FastAPI, given: str) -> None:
    assert ask(guarded, "GET", "/v1/model", headers={"Authorization": given}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/healthz", "/openapi.json"])
def test_probes_and_the_page_need_no_token(guarded: FastAPI, path: str) -> None:
    assert ask(guarded, "GET", path).status_code == 200


def test_mounted_in_another_application_the_service_is_itself(scheduler: Scheduler, photos: list[bytes]) -> None:
    other = FastAPI()
    other.mount("/cap", create_app(scheduler, tokens=[b"first"], warm=False))
    for path in ("/", "/page.js", "/healthz", "/readyz", "/openapi.json"):
        assert ask(other, "GET", f"/cap{path}").status_code == 200
    for path in ("/v1/model", "/metrics", "/cap/healthz", "//healthz"):
        problem(ask(other, "GET", f"/cap{path}"), 401, "token")
    headers = JPEG | {"Authorization": "Bearer first"}
    assert ask(other, "POST", "/cap/v1/captions", content=photos[0], headers=headers).status_code == 200
    requests = parsed(ask(other, "GET", "/cap/metrics", headers=headers).text)["http_requests_total"]
    assert requests['method="POST",path="/v1/captions",status="200"'] == 1


def test_a_redirect_sends_nobody_to_the_host_that_a_header_names(app: FastAPI) -> None:
    for path in ("/v1/model/", "/healthz/", "/v1/captions/"):
        answer = ask(app, "GET", path, headers={"Host": "elsewhere.example"})
        problem(answer, 404, "about:blank")
        assert "location" not in answer.headers


ASKED = [  # headers, and whether the page of the service may have sent them
    ({}, True),
    ({"Origin": "http://test"}, True),
    ({"Origin": "http://TEST:80"}, True),
    ({"Origin": "https://captions.example", "Host": "captions.example"}, True),
    ({"Origin": "https://captions.example", "Host": "captions.example:443"}, True),
    ({"Origin": "http://captions.example:8000", "Host": "captions.example:8000"}, True),
    ({"Origin": "https://captions.example", "Sec-Fetch-Site": "same-origin"}, True),  # by a proxy that changes Host
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": ""}, False),
    ({"Origin": "http://test", "Sec-Fetch-Site": "cross-site"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": ""}, False),
    ({"Origin": "http://evil.example"}, False),
    ({"Origin": "http://test:8000"}, False),
    ({"Origin": "http://localhost:9"}, False),
    ({"Origin": "http://["}, False),
]


@pytest.mark.parametrize(("headers", "may"), ASKED)
def test_only_the_services_own_page_may_ask(captioner: Captioner, headers: dict[str, str], may: bool) -> None:
    app = create_app(StandIn(captioner, room=0, refusal=ClosedError("asked")), warm=False)
    for path in ("/v1/captions", "/v1/captions/stream"):
        answer = ask(app, "POST", path, content=b"x", headers=JPEG | headers)
        problem(answer, *((503, "closing") if may else (403, "cross-site")))
    assert ask(app, "GET", "/", headers=headers).status_code == 200  # a link to the page


@pytest.mark.parametrize("host", ["captions.example", "127.0.0.1:8000", "localhost:8000", "LOCALHOST.", "[::1]:8000"])
def test_a_service_with_names_answers_to_them_and_to_its_addresses(scheduler: Scheduler, host: str) -> None:
    app = create_app(scheduler, hosts=["Captions.Example."], warm=False)
    assert ask(app, "GET", "/v1/model", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "captions.example.x", "["]
)
def test_a_name_that_leads_here_for_a_while_opens_nothing(scheduler: Scheduler, host: str) -> None:
    app = create_app(scheduler, hosts=["captions.example"], warm=False)
    for path in ("/", "/v1/model", "/metrics", "/openapi.json"):
        told = problem(ask(app, "GET", path, headers={"Host": host, "Sec-Fetch-Site": "same-origin"}), 421, "host")
        assert "--allowed-host" in told["detail"]
    for any_name in (None, ["*"]):
        app = create_app(scheduler, hosts=any_name, warm=False)
        assert ask(app, "GET", "/v1/model", headers={"Host": host}).status_code == 200


def test_pages_of_an_allowed_host_may_ask_through_a_proxy_that_changes_the_host(captioner: Captioner) -> None:
    stand_in = StandIn(captioner, room=0, refusal=ClosedError("asked"))
    app = create_app(stand_in, hosts=["captions.example"], warm=False)
    headers = JPEG | {"Host": "127.0.0.1:8000", "Origin": "https://captions.example:8443"}
    problem(ask(app, "POST", "/v1/captions", content=b"x", headers=headers), 503, "closing")


@pytest.mark.parametrize(
    ("host", "allowed", "expected"),
    [
        ("127.0.0.1", [], []),
        ("localhost", [], []),
        ("0.0.0.0", [], None),
        ("0.0.0.0", ["a"], ["a"]),
        ("127.0.0.1", ["a", "b"], ["a", "b"]),
    ],
)
def test_a_service_that_only_this_machine_reaches_has_only_its_names(
    host: str, allowed: list[str], expected: list[str] | None
) -> None:
    options = vars(_parser().parse_args([part for name in allowed for part in ("--allowed-host", name)]))
    with _bind(host, 0) as listener:
        assert _hosts(listener, options["allowed_host"]) == expected


@pytest.mark.parametrize(("queue", "images"), [(3, 3), (16, 16), (1000, 16)])
def test_no_request_may_hold_more_images_than_may_wait(scheduler: Scheduler, queue: int, images: int) -> None:
    arguments = vars(_parser().parse_args(["--max-queue", str(queue)]))
    limits = _limits(arguments, {"max_queue": queue})
    app = create_app(scheduler, limits=limits, warm=False)
    assert ask(app, "GET", "/v1/model").json()["limits"]["max_images"] == images
    form = ask(app, "GET", "/openapi.json").json()["paths"]["/v1/captions"]["post"]["requestBody"]["content"]
    assert form["multipart/form-data"]["schema"]["properties"]["images"]["maxItems"] == images
    files = [("images", ("x.jpg", b"x"))] * (images + 1)
    problem(ask(app, "POST", "/v1/captions", files=files), 413, "too-large")


def test_the_service_takes_all_the_descriptors_that_it_may_have() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 900), hard))
        _take_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_tokens_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAPTIONING_TOKEN", raising=False)
    assert read_tokens() == []
    file = tmp_path / "tokens"
    file.write_text("one\n\n two \n")
    assert read_tokens(str(file)) == [b"one", b"two"]
    monkeypatch.setenv("CAPTIONING_TOKEN", "three")
    assert read_tokens() == [b"three"]
    file.write_text("\n")
    with pytest.raises(ValueError, match="holds no token"):
        read_tokens(str(file))
    with pytest.raises(ValueError, match="cannot be read"):
        read_tokens(str(tmp_path / "none"))


@pytest.mark.parametrize("token", ["two words", "voilà", "a\x0b", "\x0ca", "\ufeffa", "a\u00a0", "a\0"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_told(
    tmp_path: Path, scheduler: Scheduler, token: str
) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"good\n{token}\n")
    with pytest.raises(OptionsError, match=r"token 2 of the file .* cannot be sent") as told:
        read_tokens(str(file))
    assert token not in str(told.value).replace(str(file), "")
    with pytest.raises(OptionsError):
        create_app(scheduler, tokens=[token.encode()], warm=False)
    with pytest.raises(OptionsError):
        create_app(scheduler, tokens=[b""], warm=False)  # which `Bearer ` would match


@pytest.mark.parametrize("given", [b"Bearer first\xa0", b"Bearer \x85first"])
def test_only_spaces_and_tabs_stand_around_a_token(guarded: FastAPI, given: bytes) -> None:
    problem(ask(guarded, "GET", "/v1/model", headers={"Authorization": given}), 401, "token")
    assert ask(guarded, "GET", "/v1/model", headers={"Authorization": "Bearer  first "}).status_code == 200


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


def parsed(text: str) -> dict[str, dict[str, float]]:
    """Returns name -> labels -> value, as Prometheus' own parser reads them; every sample has its help and type."""
    values: dict[str, dict[str, float]] = {}
    names: list[str] = []
    for family in text_string_to_metric_families(text):
        names.append(family.name)
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            assert labels not in values.setdefault(sample.name, {})
            values[sample.name][labels] = sample.value
    assert len(names) == len(set(names))
    return values


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


@pytest.mark.parametrize("error", [DeviceError("/a/secret"), ZeroDivisionError("/a/secret")])
def test_an_error_within_a_stream_is_logged_and_counted(
    captioner: Captioner, photos: list[bytes], lines: io.StringIO, error: Exception
) -> None:
    stand_in = StandIn(captioner)
    app = create_app(stand_in, warm=False)

    async def use(client: httpx.AsyncClient) -> tuple[str, str]:
        asking = asyncio.create_task(client.post("/v1/captions/stream", content=photos[0], headers=JPEG))
        while not stand_in.words:
            await asyncio.sleep(0)
        stand_in.words[0].put(["a"])
        await asyncio.sleep(0.05)  # the first word gives the answer its status
        stand_in.fail(error)
        return (await asking).text, (await client.get("/metrics")).text

    text, counters = with_client(app, use)
    (_, word), (name, told) = events(text)
    assert (word, name) == ({"word": "a"}, "error")
    assert "secret" not in text
    told_kind = told["type"].removeprefix("urn:captioning:")
    traced, request, _ = logged(lines)
    assert traced["request_id"] == request["request_id"] == told["request_id"]
    assert "/a/secret" in traced["trace"]
    assert (request["status"], request["problems"]) == (200, [told_kind])
    assert parsed(counters)["http_problems_total"] == {f'in="event",type="{told_kind}"': 1}


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
    import threading

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


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--bundle", "nowhere"], "nowhere is not a bundle"),
        (["--host", "256.0.0.1"], "cannot listen on 256.0.0.1 port 0"),
        (["--port", "70000"], "--port must be from 0 to 65535, but it is 70000"),
        (["--port", "-1"], "--port must be from 0 to 65535, but it is -1"),
        (["--max-bytes", "0"], "--max-bytes must be a number above 0, but it is 0"),
        (["--max-held-bytes", "1000"], "--max-held-bytes must be at least --max-bytes"),
        (["--timeout", "nan"], "--timeout must be a number above 0, but it is nan"),
        (["--provider", "abacus"], "abacus"),
        (["--max-rows", "0"], "--max-rows must be a whole number from 1, but it is 0"),
        (["--batch-size", "0"], "--batch-size must be a whole number from 1, but it is 0"),
        (["--token-file", "nowhere"], "cannot be read"),
        (["--formats", "jpeg,raw"], "'RAW' is not a format that Pillow reads"),
        (["--formats", ""], "'' is not a format that Pillow reads"),
    ],
)
def test_a_service_that_cannot_start_says_why_in_one_sentence(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--port", "0", *options]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1

"""A real service among real troubles: signals, clients that go away or dawdle, full disks, files that vanish."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from unittest.mock import Mock, call

import httpx
import pytest

from engine import Captioner
from serving.http.__main__ import _swap, main
from tests.serving.calls import events
from tests.serving.process import Service

JPEG = {"Content-Type": "image/jpeg"}
SLOW = {"decoding": "sample", "num_samples": "100", "min_length": "900", "max_length": "1000", "seed": "1"}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service that gives up slow uploads."""
    with Service("--upload-timeout", "1", "--max-bytes", "1000000") as service:
        service.wait_for("ready")  # which takes memory
        yield service


def ask_slowly(service: Service, photo: bytes) -> socket.socket:
    """Sends a request that takes long, and returns its connection once it is being worked on."""
    accepted = service.metric("caption_accepted_total")
    connection = socket.create_connection(("127.0.0.1", service.port))
    query = "&".join(f"{name}={value}" for name, value in SLOW.items())
    connection.sendall(head(f"/v1/captions?{query}", photo) + photo)
    until(lambda: service.metric("caption_accepted_total") > accepted)
    return connection


def until(condition: object, seconds: float = 90) -> None:
    """Waits until a condition in another process holds."""
    end = time.monotonic() + seconds
    assert callable(condition)
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)


def read_all(connection: socket.socket) -> bytes:
    with connection:
        connection.settimeout(60)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_client_that_goes_away_frees_its_place(service: Service, photos: list[bytes]) -> None:
    cancelled = service.metric("caption_cancelled_total")
    ask_slowly(service, photos[0]).close()
    until(lambda: service.metric("caption_cancelled_total") == cancelled + 1)
    until(lambda: service.metric("caption_rows_in_use") == 0)


def test_a_client_that_leaves_a_stream_frees_its_place(service: Service, photos: list[bytes]) -> None:
    cancelled = service.metric("caption_cancelled_total")
    params = SLOW | {"temperature": "0.1"}  # all samples begin with the same word, so that it is told at once
    with httpx.stream(
        "POST", f"{service.url}/v1/captions/stream", content=photos[0], headers=JPEG, params=params, timeout=60
    ) as answer:
        first = next(answer.iter_lines())
    assert first == "event: word"
    until(lambda: service.metric("caption_cancelled_total") == cancelled + 1)


def head(path: str, photo: bytes, version: str = "1.1", more: str = "") -> bytes:
    """Returns what comes before a photograph."""
    told = f"Host: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: {len(photo)}\r\n{more}"
    return f"POST {path} HTTP/{version}\r\n{told}\r\n".encode()


def told(service: Service, sent: bytes) -> tuple[bytes, bytes]:
    """Returns headers and body of what one connection is answered."""
    connection = socket.create_connection(("127.0.0.1", service.port))
    connection.sendall(sent)
    headers, _, body = read_all(connection).partition(b"\r\n\r\n")
    return headers.lower(), body


def test_no_answer_names_the_server_and_its_version(service: Service) -> None:
    for path in ("/healthz", "/nothing"):
        assert "server" not in httpx.get(f"{service.url}{path}").headers


def test_head_says_how_long_a_body_would_be_and_the_connection_goes_on(service: Service) -> None:
    with httpx.Client() as client:
        for path in ("/", "/healthz"):
            length = len(client.get(f"{service.url}{path}").content)
            answer = client.head(f"{service.url}{path}")
            assert (answer.status_code, answer.headers["content-length"]) == (200, str(length))


def test_a_client_of_http_1_0_is_streamed_to_without_chunks(service: Service, photos: list[bytes]) -> None:
    headers, body = told(service, head("/v1/captions/stream", photos[0], "1.0") + photos[0])
    assert headers.startswith(b"http/1.1 200 ")
    assert b"transfer-encoding" not in headers
    assert b"\r\nconnection: close" in headers
    *words, (name, caption) = events(body.decode())
    assert name == "caption"
    assert " ".join(data["word"] for _, data in words) == caption["caption"]
    headers, body = told(service, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert b"\r\ncontent-length: 15\r\n" in headers
    assert body == b'{"status":"ok"}'


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /v1/captions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/captions HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n",
        b"\0" * 2000,
    ],
    ids=["no host", "two hosts", "a coding nobody can undo", "an unknown coding", "zeros"],
)
def test_garbage_and_requests_that_could_mean_two_things_are_refused(service: Service, sent: bytes) -> None:
    headers, body = told(service, sent)
    assert headers.startswith(b"http/1.1 400 ")
    assert json.loads(body)["type"] == "about:blank"


def test_a_client_that_waits_with_its_body_reads_its_refusal_at_once(service: Service, photos: list[bytes]) -> None:
    expect = "Expect: 100-continue\r\n"
    began = time.monotonic()
    headers, _ = told(service, head("/v1/captions", b"x" * 2_000_000, more=expect))
    assert headers.startswith(b"http/1.1 413 ")
    assert b"\r\nconnection: close" in headers
    assert time.monotonic() < began + 1.5  # what is thrown away is read for 2 s
    close = "Connection: close\r\n"
    headers, _ = told(service, head("/v1/captions", photos[0], more=expect + close) + photos[0])
    assert headers.startswith(b"http/1.1 100 ")


def test_a_name_that_leads_here_for_a_while_opens_nothing(service: Service) -> None:
    for host, status in (("evil.example", 421), (f"localhost:{service.port}", 200)):
        assert httpx.get(f"{service.url}/v1/model", headers={"Host": host}).status_code == status


def test_what_is_no_request_is_one_line_of_the_log(service: Service) -> None:
    while not service.lines.empty():
        service.lines.get()
    told(service, b"GET / HTTP/9.9\r\n\r\n")
    httpx.get(f"{service.url}/healthz")
    first, second = (service.lines.get(timeout=30) for _ in range(2))
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert [first["event"], second["event"]] == ["no request", "request"]
    assert first["client"] == second["client"] == "127.0.0.1"


def test_a_client_that_dawdles_with_its_body_is_told_and_let_go(service: Service) -> None:
    connection = socket.create_connection(("127.0.0.1", service.port))
    connection.sendall(
        b"POST /v1/captions HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\nx"
    )
    connection.settimeout(30)
    assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
    connection.close()


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nX-Slow: "])
def test_a_client_that_dawdles_with_its_headers_is_let_go(service: Service, sent: bytes) -> None:
    connection = socket.create_connection(("127.0.0.1", service.port))
    connection.sendall(sent)
    assert read_all(connection) == b""


def test_a_client_that_sends_headers_without_end_is_let_go(service: Service) -> None:
    connection = socket.create_connection(("127.0.0.1", service.port))
    with contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        for _ in range(100_000):
            connection.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
        raise AssertionError("100 MB of headers were taken")
    connection.close()


def test_a_client_that_sends_trailers_without_end_costs_no_memory_and_is_let_go(service: Service) -> None:
    before = service.metric("process_resident_memory_bytes")
    connection = socket.create_connection(("127.0.0.1", service.port))
    with contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        began = time.monotonic()
        while time.monotonic() < began + 30:
            connection.sendall(b"a: b\r\n" * 20_000)
        raise AssertionError("trailers were taken for half a minute")
    connection.close()
    assert service.metric("process_resident_memory_bytes") < before + 50e6


@pytest.mark.parametrize(
    ("chunked", "after"), [(False, b"\r\n"), (True, b"1\r\na\r\n")], ids=["line ends", "a body that goes on"]
)
def test_a_client_that_holds_on_after_its_answer_is_let_go(service: Service, chunked: bool, after: bytes) -> None:
    connection = socket.create_connection(("127.0.0.1", service.port))
    more = b"Transfer-Encoding: chunked\r\n" if chunked else b""
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + more + b"\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    connection.sendall(after)
    read_all(connection)  # to the end that the service makes


def test_a_client_that_does_not_read_is_let_go(service: Service) -> None:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect(("127.0.0.1", service.port))
    while not service.lines.empty():
        service.lines.get()
    asking = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connection.sendall(asking)
    while service.wait_for("request")["seconds"] < 0.9:  # the last answer finds no room until it is given up
        connection.sendall(asking)
    with pytest.raises(ConnectionError):
        until(lambda: connection.sendall(asking), 10)
    connection.close()


def test_some_requests_may_be_sent_ahead(service: Service) -> None:
    connection = socket.create_connection(("127.0.0.1", service.port))
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 16)
    assert read_all(connection).count(b"HTTP/1.1 200 ") == 16


def test_requests_sent_ahead_without_end_cost_no_memory(service: Service) -> None:
    before = service.metric("process_resident_memory_bytes")
    connection = socket.create_connection(("127.0.0.1", service.port))
    with contextlib.suppress(ConnectionError):
        for _ in range(50):
            connection.sendall(b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5000)
        raise AssertionError("250,000 requests were taken")
    connection.close()
    assert service.metric("process_resident_memory_bytes") < before + 20e6


def test_a_client_that_sends_too_much_reads_why(service: Service) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    for body in (chunks(), b"x" * 2_500_000):
        answer = httpx.post(f"{service.url}/v1/captions", content=body, headers=JPEG, timeout=30)
        assert answer.status_code == 413
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("sent", "status"), [(b"GET / HTTP/9.9\r\n\r\n", 400), (b"x" * 65_537, 431)], ids=["no HTTP", "too long a header"]
)
def test_what_cannot_become_a_request_is_answered_with_a_problem(service: Service, sent: bytes, status: int) -> None:
    connection = socket.create_connection(("127.0.0.1", service.port))
    if status == 431:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Long: ")
        httpx.get(f"{service.url}/healthz")  # after its answer the above was read: the rest comes in other packets
    connection.sendall(sent)
    head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\ncontent-type: application/problem+json\r\n" in head
    told = json.loads(body)
    assert (told["type"], told["status"]) == ("about:blank", status)
    assert f"\r\nx-request-id: {told['request_id']}\r\n".encode() in head


def test_a_large_body_is_no_part_of_the_headers_that_follow_it(service: Service, photos: list[bytes]) -> None:
    photo = photos[0] + b"\0" * 66_000
    connection = socket.create_connection(("127.0.0.1", service.port))
    service.process.send_signal(signal.SIGSTOP)  # so that all comes in one packet
    connection.sendall(head("/v1/captions", photo) + photo + b"GET /healthz HT")
    service.process.send_signal(signal.SIGCONT)
    assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_the_port_of_another_service_cannot_be_taken(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", str(service.port)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: cannot listen on 127.0.0.1 port {service.port}: Address already in use")
    assert told.count("\n") == 1
    assert httpx.get(f"{service.url}/healthz").status_code == 200


def test_sigterm_under_load_answers_everything_accepted(photos: list[bytes]) -> None:
    async def load(url: str, stop: asyncio.Event) -> list[object]:
        async with httpx.AsyncClient(timeout=60) as client:
            asking = [client.post(f"{url}/v1/captions", content=photo, headers=JPEG) for photo in photos * 8]
            tasks = [asyncio.ensure_future(each) for each in asking]
            await stop.wait()
            return await asyncio.gather(*tasks, return_exceptions=True)

    with Service() as service:

        async def run() -> tuple[list[object], int]:
            stop = asyncio.Event()
            loading = asyncio.create_task(load(service.url, stop))
            while await asyncio.to_thread(service.metric, "caption_accepted_total") < 24:
                await asyncio.sleep(0.01)
            ending = asyncio.create_task(asyncio.to_thread(service.terminate))
            stop.set()
            return await loading, await ending

        answers, code = asyncio.run(run())
    assert code == 0
    assert [answer.status_code if isinstance(answer, httpx.Response) else answer for answer in answers] == [200] * 24


def test_sigterm_finishes_a_stream_and_an_upload_that_is_half_sent(photos: list[bytes]) -> None:
    photo = photos[0]
    with Service() as service:
        service.wait_for("ready")
        streamed, uploaded = (socket.create_connection(("127.0.0.1", service.port)) for _ in range(2))
        for connection in (streamed, uploaded):
            connection.settimeout(60)
        uploaded.sendall(head("/v1/captions", photo) + photo[:1000])
        until(lambda: service.metric("http_requests_in_progress") == 2)  # this upload, and what asks
        streamed.sendall(head("/v1/captions/stream?min_length=900&max_length=1000", photo) + photo)
        begun = streamed.recv(65536)
        assert begun.startswith(b"HTTP/1.1 200 ")
        service.process.send_signal(signal.SIGTERM)
        service.wait_for("Shutting down")
        uploaded.sendall(photo[1000:])
        assert read_all(uploaded).startswith(b"HTTP/1.1 200 ")
        whole = begun + read_all(streamed)
        assert whole.count(b"event: word") >= 900
        assert whole.count(b"event: caption") == 1
        assert whole.endswith(b"0\r\n\r\n")
        assert service.process.wait(60) == 0


def test_a_service_that_is_killed_gives_no_wrong_answer_and_its_port_is_free_at_once(photos: list[bytes]) -> None:
    with Service() as service:
        connection = ask_slowly(service, photos[0])
        service.process.kill()
        with contextlib.suppress(ConnectionResetError):
            assert read_all(connection) == b""
    with Service(port=service.port) as second:
        answer = httpx.post(f"{second.url}/v1/captions", content=photos[0], headers=JPEG, timeout=60)
    assert answer.status_code == 200


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_for_logs_stops_nobody(photos: list[bytes]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Path("/dev/full").open("wb") as full, Service(port=port, stderr=full) as service:
        until(lambda: answers(service))
        answer = httpx.post(f"{service.url}/v1/captions", content=photos[0], headers=JPEG, timeout=60)
        assert answer.status_code == 200
        until(lambda: service.metric("log_lines_lost_total") > 2)
        assert service.terminate() == 0


def answers(service: Service) -> bool:
    try:
        return httpx.get(f"{service.url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def movable(captioner: Captioner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    """A warmed up service, and its bundle, which is a copy."""
    bundle = tmp_path_factory.mktemp("movable") / "bundle"
    shutil.copytree(captioner.bundle.path, bundle)
    with Service("--bundle", str(bundle)) as service:
        service.wait_for("ready")
        yield service, bundle


def test_sighup_goes_over_to_the_bundle_that_now_lies_there_and_loses_nothing(
    movable: tuple[Service, Path], photos: list[bytes]
) -> None:
    service, bundle = movable
    manifest = json.loads((bundle / "manifest.json").read_text())

    def replace(text: str, event: str) -> None:
        (bundle / "manifest.json").write_text(text)
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(event)

    def model() -> str:
        return str(httpx.get(f"{service.url}/v1/model", timeout=30).json()["name"])

    async def caption_until(url: str, done: asyncio.Event) -> list[httpx.Response]:
        answers = []
        async with httpx.AsyncClient(timeout=60) as client:
            while not done.is_set():
                answers.append(await client.post(f"{url}/v1/captions", content=photos[0], headers=JPEG))
        return answers

    async def run() -> list[httpx.Response]:
        done = asyncio.Event()
        asking = asyncio.create_task(caption_until(service.url, done))
        text = json.dumps(manifest | {"name": "the next"})
        await asyncio.to_thread(replace, text, "the model was replaced")
        assert await asyncio.to_thread(model) == "the next"
        await asyncio.to_thread(replace, "{", "the model was not replaced")
        assert await asyncio.to_thread(model) == "the next"
        done.set()
        return await asking

    answers = asyncio.run(run())
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["model"] for answer in answers} >= {manifest["name"]}


def test_bundles_are_opened_one_after_the_other_and_the_last_good_one_serves() -> None:
    asked: SimpleQueue[bool] = SimpleQueue()
    for each in (True, True, True, False):
        asked.put(each)
    first, last, scheduler = Mock(), Mock(), Mock()
    _swap(asked, scheduler, Mock(side_effect=[first, OSError("no bundle"), last]))
    assert scheduler.mock_calls == [call.swap(first), call.swap(last)]


def test_a_sighup_while_the_service_starts_is_kept_until_it_can_be_followed(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    os.mkfifo(tokens)
    service = Service("--token-file", str(tokens))
    with tokens.open("w") as file:  # which waits until the service reads it, before it opens the model
        service.process.send_signal(signal.SIGHUP)
        file.write("secret\n")
    with service:
        service.wait_for("the model was replaced")
        assert service.terminate() == 0


def test_a_bundle_that_is_removed_is_not_missed(movable: tuple[Service, Path], photos: list[bytes]) -> None:
    service, bundle = movable
    shutil.rmtree(bundle)  # for good: this is the last test of this bundle
    for decoding in ("greedy", "beam", "sample"):
        url = f"{service.url}/v1/captions?decoding={decoding}"
        answer = httpx.post(url, content=photos[0], headers=JPEG, timeout=60)
        assert answer.status_code == 200, answer.text

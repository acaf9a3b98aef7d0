"""A real service and its clients: those that go away, dawdle, send too much, or send what is no request."""

import contextlib
import json
import resource
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving.http.__main__ import main
from tests.serving.calls import events
from tests.serving.connection import JPEG, SLOW, ask_slowly, head, read_all, until
from tests.serving.process import Service


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service that gives up slow uploads, started with few file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 900), hard))
    try:
        started = Service("--upload-timeout", "1", "--max-bytes", "1000000")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with started as service:
        service.wait_for("ready")  # which takes memory
        yield service


def test_the_service_takes_all_the_descriptors_that_it_may_have(service: Service) -> None:
    soft, hard = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard


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
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 2000,
    ],
    ids=["no host", "two hosts", "a coding nobody can undo", "an unknown coding", "no HTTP", "zeros"],
)
def test_garbage_and_requests_that_could_mean_two_things_are_refused(service: Service, sent: bytes) -> None:
    headers, body = told(service, sent)
    assert headers.startswith(b"http/1.1 400 ")
    assert b"\r\ncontent-type: application/problem+json\r\n" in headers
    told_of = json.loads(body)
    assert (told_of["type"], told_of["status"]) == ("about:blank", 400)
    assert f"\r\nx-request-id: {told_of['request_id']}\r\n".encode() in headers


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
    told(service, b"GET / HTTP/9.9\r\n\r\n")
    last = httpx.get(f"{service.url}/healthz").headers["x-request-id"]
    lines: list[dict[str, Any]] = []
    while not lines or lines[-1].get("request_id") != last:  # those of earlier tests may come late
        line = service.lines.get(timeout=30)
        assert line is not None, "the service ended"
        if isinstance(line, dict):  # Uvicorn's are text
            lines.append(line)
    first, second = lines[-2:]
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


def test_headers_that_are_too_long_are_answered_with_a_problem(service: Service) -> None:
    connection = socket.create_connection(("127.0.0.1", service.port))
    connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Long: ")
    httpx.get(f"{service.url}/healthz")  # after its answer the above was read: the rest comes in other packets
    connection.sendall(b"x" * 65_537)
    head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body)["status"] == 431


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

"""A service that is ended, killed or given another bundle while it works, and whose files vanish or disks fill."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engine import Captioner
from tests.serving.connection import JPEG, ask_slowly, head, read_all, until
from tests.serving.process import Service


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
        await asyncio.to_thread(replace, "{", "the model was not replaced")
        assert await asyncio.to_thread(model) == manifest["name"]
        await asyncio.to_thread(replace, json.dumps(manifest | {"name": "the next"}), "the model was replaced")
        assert await asyncio.to_thread(model) == "the next"
        done.set()
        return await asking

    answers = asyncio.run(run())
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["model"] for answer in answers} >= {manifest["name"]}


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

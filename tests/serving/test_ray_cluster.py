"""Bulk captioning and Ray Serve on a real cluster of two nodes: killed drivers, killed nodes, every image once."""

import io
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray", reason="needs the extra ray")

import ray

from engine import Beam, Captioner, Greedy
from serving import ray_data
from serving.ray_pool import captioned
from tests.drawn import COLOURS, SHAPES, draw
from tests.serving.calls import events
from tests.serving.local_cluster import local_cluster
from tests.serving.ray_nodes import DOOMED, HangsOnDoomedNode

pytestmark = [
    # what ray.data and ray.serve do themselves as they are imported
    pytest.mark.filterwarnings(r"ignore:`use_\w+` is deprecated:DeprecationWarning"),
    # the port that a node finds for itself is asked for with a socket that ray does not close
    pytest.mark.filterwarnings(
        r"ignore:Exception ignored in. <socket\..*laddr=\('0.0.0.0', 0\)>:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field` is deprecated:DeprecationWarning"),
]
ROOT = Path(__file__).parents[2]
IMAGES, PART = 300, 10
OPTIONS = f"--format jsonl --part-size {PART} --provider cpu --precision int8 --decoding greedy --concurrency 4".split()
TOKEN = "secret"
WAIT = 180  # seconds: for a machine on which others work
SLOW = ("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name in SLOW:  # Serve would start its proxy anew again and again
            patch.setenv(name, str(WAIT))
        with local_cluster(nodes=2, cpus=2) as nodes:
            yield nodes


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn photographs, two of which cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(11)
    for i in range(IMAGES - 2):
        draw(list(COLOURS)[i % 4], SHAPES[i % 3], generator).save(folder / f"{i:03d}.jpg")
    (folder / "bad.jpg").write_bytes(b"no image")
    (folder / "empty.png").touch()
    return folder


def finished(output: Path) -> dict[str, int]:
    """Returns when each finished part was written."""
    return {file.name: file.stat().st_mtime_ns for file in output.glob("part-*.jsonl")}


def wait_for(happened: Any, what: str) -> None:
    deadline = time.monotonic() + WAIT
    while not happened():
        assert time.monotonic() < deadline, f"no {what} in {WAIT} seconds"
        time.sleep(0.05)


def test_every_image_is_captioned_once_though_driver_and_node_are_killed(
    cluster: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output, notes = tmp_path / "out", tmp_path / "notes"
    command = [str(photos), str(output), *OPTIONS, "--address", cluster.address]

    # a driver that is killed, with its parts under way
    driver = [sys.executable, "-m", "serving.ray_data", *command]
    with subprocess.Popen(driver, cwd=ROOT, stderr=subprocess.DEVNULL) as running:
        try:
            wait_for(lambda: len(finished(output)) >= 3 or running.poll() is not None, "finished part")
        finally:
            running.kill()
    first = finished(output)
    assert 3 <= len(first) < IMAGES / PART

    # Ctrl-C as soon as there is progress
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with monkeypatch.context() as patch:
        patch.setattr("serving.ray_data.Progress.add", lambda *_: signal.raise_signal(signal.SIGINT))
        assert ray_data.main(command) == 130
    signal.signal(signal.SIGINT, inherited)
    assert not ray.is_initialized()
    assert "interrupted: " in capsys.readouterr().err
    second = finished(output)
    assert len(first) < len(second) < IMAGES / PART

    # a node that is killed in the middle of a part
    doomed = next(iter(cluster.worker_nodes))
    notes.mkdir()
    (notes / DOOMED).write_text(doomed.node_id)
    killer = threading.Thread(target=lambda: _kill(cluster, doomed, notes / "hangs"))
    killer.start()
    monkeypatch.setattr(ray_data, "captioned", partial(captioned, worker=HangsOnDoomedNode))
    code = ray_data.main(command)
    killer.join()
    assert (notes / "killed").exists()
    told = capsys.readouterr().err
    assert code == 1, told  # two images are no images
    assert re.search(rf"^{(IMAGES // PART - len(second)) * PART} of {IMAGES} images to do", told, re.MULTILINE), told

    files = {name: time for name, time in finished(output).items() if name in second}
    assert files == second, "what was finished was not done again"
    rows = [json.loads(line) for file in output.glob("part-*.jsonl") for line in file.read_text().splitlines()]
    assert sorted(row["image"] for row in rows) == sorted(file.name for file in photos.iterdir())
    assert {row["image"] for row in rows if row["error"]} == {"bad.jpg", "empty.png"}
    assert sorted(path.name for path in output.iterdir() if path.name[0] in "._") == ["_captions.json"]
    some = [row for row in rows if not row["error"]][::50]
    expected = Captioner(provider="cpu", precision="int8").caption([photos / row["image"] for row in some], Greedy())
    assert [row["caption"] for row in some] == [caption.text for caption in expected]


def _kill(cluster: Any, node: Any, hangs: Path) -> None:
    wait_for(hangs.exists, "worker on the node to be killed")
    cluster.remove_node(node, allow_graceful=False)
    (hangs.parent / "killed").touch()


def test_faults_of_a_worker_are_one_sentence(cluster: Any, photos: Path, tmp_path: Path, capsys: Any) -> None:
    command = [str(photos), str(tmp_path / "out"), *OPTIONS, "--address", cluster.address, "--bundle", "no/bundle"]
    assert ray_data.main(command) == 2
    [line] = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("error: ")
    assert "no/bundle" in line
    assert not (tmp_path / "out").exists()


def test_a_driver_that_is_asked_to_end_says_how_to_go_on(cluster: Any, photos: Path, tmp_path: Path) -> None:
    """Ray replaces whoever handles SIGTERM by one that aborts."""
    output = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "serving.ray_data",
        str(photos),
        str(output),
        *OPTIONS,
        "--address",
        cluster.address,
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        try:
            wait_for(lambda: finished(output) or running.poll() is not None, "finished part")
            running.terminate()
            told = running.communicate(timeout=WAIT)[1]
        finally:
            running.kill()
    assert running.returncode == 130, told
    assert told.splitlines()[-1] == "interrupted: finished parts are kept, and the same command continues from there"
    assert len(finished(output)) < IMAGES / PART


def test_ray_serve_answers_as_the_engine_does(cluster: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import serve

    from serving.ray_serve import Options, app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        options = Options.model_validate({"provider": "cpu", "precision": "int8", "max_replicas": "2"})
        monkeypatch.setenv("CAPTIONING_TOKEN", TOKEN)
        serve.run(app(options), name="captions", route_prefix="/")
        url, image = f"http://127.0.0.1:{port}", (photos / "007.jpg").read_bytes()
        status, answer = _post(f"{url}/v1/captions?decoding=beam&beam_size=3", image)
        assert status == 200, answer
        expected = Captioner(provider="cpu", precision="int8").caption([io.BytesIO(image)], Beam(beam_size=3))[0]
        assert json.loads(answer)["captions"][0]["caption"] == expected.text
        streamed = events(_post(f"{url}/v1/captions/stream?decoding=beam&beam_size=3", image)[1])
        assert streamed[-1][1]["caption"] == expected.text
        status, answer = _post(f"{url}/v1/captions", b"no image")
        assert 400 <= status < 500
        assert "detail" in json.loads(answer)
        status, answer = _post(f"{url}/v1/captions", image, token="another")
        assert status == 401
        with urllib.request.urlopen(f"{url}/readyz", timeout=WAIT) as ready:
            assert ready.status == 200
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def _post(url: str, image: bytes, token: str = TOKEN) -> tuple[int, str]:
    headers = {"Content-Type": "application/octet-stream", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, image, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()

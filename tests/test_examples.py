"""The examples run as they stand, say what the engine says, and are what the pages show."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from engine import Beam, Captioner, Greedy, Scheduler
from tests.bundles import write_changed_bundle

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
GUIDE, OWN = ((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("embedding.md", "bring-your-own.md"))
PHOTOS = [str(ROOT / "samples" / name) for name in ("cat.jpg", "rocket.jpg")]
PATIENCE = 300.0  # seconds until a test gives up


def environment(**more: str) -> dict[str, str]:
    """The environment of an example, as if the engine were installed; no Ray cluster of anybody else's."""
    return {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        "PYTHONPATH": str(ROOT),
    } | more


def run(name: str, *arguments: str, **more: str) -> str:
    """Returns what an example prints."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(**more), timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def server(name: str, *arguments: str) -> Iterator[str]:
    """Runs an example, gives the address that it listens on, and ends it and every process it started."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    ) as process:
        assert process.stderr is not None
        try:
            said = ""
            for line in process.stderr:
                said += line
                place = re.search(r"running on (http://127\.0\.0\.1:\d+)", said)  # LitServe says so before it is true
                if place and "startup complete" in said:
                    yield place[1]
                    break
            else:
                pytest.fail(said)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):  # LitServe's processes outlive a SIGTERM to their parent
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner()


@pytest.fixture(scope="module")
def expected(captioner: Captioner) -> list[str]:
    return [captioner.caption([path])[0].text for path in PHOTOS]


def lines(*columns: list[str]) -> str:
    return "".join("\t".join(line) + "\n" for line in zip(*columns, strict=True))


@pytest.mark.parametrize("name", ["plain_function", "thread_pool", "process_pool"])
def test_an_example_prints_the_captions(name: str, expected: list[str]) -> None:
    assert run(name, *PHOTOS) == lines(PHOTOS, expected)


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        (
            path.stem,
            re.findall(r"^(?:import|from) (ray|tritonclient)", path.read_text(encoding="utf-8"), re.MULTILINE)[:1],
        )
        for path in sorted(EXAMPLES.glob("*.py"))
        if "IMAGE…" in path.read_text(encoding="utf-8")
    ],
)
def test_an_example_without_photographs_says_how_it_is_run(name: str, needs: list[str]) -> None:
    for module in needs:
        pytest.importorskip(module)
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=PATIENCE)
    assert done.returncode == 1
    assert f"python examples/{name}.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_tasks_of_asyncio_get_captions_and_words(captioner: Captioner, expected: list[str]) -> None:
    beams = [captioner.caption([path], Beam(beam_size=3))[0].text for path in PHOTOS]
    *captions, words = run("asyncio_tasks", *PHOTOS).splitlines(keepends=True)
    assert "".join(captions) == lines(PHOTOS, beams)
    assert words.split() == expected[0].split()


def test_a_fastapi_application_answers_and_refuses(expected: list[str]) -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("fastapi")
    with server("fastapi_app", "0") as url, httpx.Client(base_url=url, timeout=PATIENCE) as client:
        answers = [client.post("/describe", content=Path(path).read_bytes()) for path in PHOTOS]
        assert [answer.json() for answer in answers] == [{"caption": text} for text in expected]
        bad = client.post("/describe", content=b"no image")
        assert (bad.status_code, bad.json()) == (422, {"error": "ImageError"})


def test_litserve_answers_with_the_scheduler_in_its_worker(expected: list[str]) -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("litserve")
    with socket.create_server(("127.0.0.1", 0)) as place:  # LitServe takes no port 0
        port = place.getsockname()[1]
    with server("litserve_server", str(port)) as url, httpx.Client(base_url=url, timeout=PATIENCE) as client:
        for path, text in zip(PHOTOS, expected, strict=True):
            answer = client.post("/predict", files={"image": Path(path).read_bytes()})
            assert answer.json() == {"caption": text}
        bad = client.post("/predict", files={"image": b"no image"})
        assert (bad.status_code, bad.json()["detail"]) == (422, "ImageError")


@pytest.fixture
def ray_address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Ray cluster that nobody else finds: its folder is its own, and short, as paths of sockets are."""
    pytest.importorskip("ray.data")
    from tests.serving.local_cluster import local_cluster

    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        with local_cluster(nodes=1, cpus=2) as cluster:
            yield cluster.address


def test_ray_captions_in_a_pool_of_processes(tmp_path: Path, ray_address: str, expected: list[str]) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    paths = [*PHOTOS, str(tmp_path / "broken.jpg")]
    printed = run("ray_batches", ray_address, *paths)
    assert sorted(printed.splitlines()) == sorted(lines(paths, [*expected, ""]).splitlines())


def test_a_client_of_triton_gets_the_captions(tmp_path: Path) -> None:
    triton = pytest.importorskip("tests.serving.triton_server")
    from serving.triton_repository import main

    triton.environment()
    settings = ["--provider", "cpu", "--precision", "fp32"]
    assert main([str(tmp_path / "repository"), *settings]) == 0
    (tmp_path / "repository" / "captions" / "engine").symlink_to(ROOT / "engine")  # as if it were installed
    with triton.served(tmp_path) as served:
        printed = run("triton_client", served.address("http"), *PHOTOS)
    exact = Captioner(provider="cpu", precision="fp32")
    assert printed == lines(PHOTOS, [caption.text for caption in exact.caption(PHOTOS, Beam(beam_size=3))])


def test_a_new_bundle_is_rolled_out(tmp_path: Path, captioner: Captioner, expected: list[str]) -> None:
    new = write_changed_bundle(tmp_path / "new")
    changed = [Captioner(new).caption([path])[0].text for path in PHOTOS]
    printed = run("rolling_out", str(captioner.bundle.path), str(new), *PHOTOS)
    assert printed == lines(PHOTOS, expected, changed)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_measured_of_workers_that_open_a_captioner_after_the_fork() -> None:
    printed = run("memory_per_process", "--workers", "2", "--threads", "1", "--start", "fork")
    found = re.fullmatch(r"RSS (\d+) MB a process, PSS (\d+) MB; together (\d+) MB\n", printed)
    assert found is not None
    resident, share, together = map(int, found.groups())
    assert resident > share > 0
    assert together == pytest.approx(2 * share, abs=2)


def test_a_captioner_of_ones_own_is_exported_captions_and_serves_http(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    from serving.http.app import create_app
    from tests.serving.calls import ask

    said = run("bring_your_own", str(tmp_path / "own"), *PHOTOS)
    captioner = Captioner(tmp_path / "own", provider="cpu")
    captions = captioner.caption(PHOTOS, Greedy(max_length=6))
    expected = [f"{path}\t{caption.text}" for path, caption in zip(PHOTOS, captions, strict=True)]
    assert said.splitlines()[-2:] == expected
    query = "decoding=greedy&max_length=6&attention=true"
    with Scheduler(captioner) as scheduler:
        app = create_app(scheduler, warm=False)
        for path, caption in zip(PHOTOS, captions, strict=True):
            photo = {"content": Path(path).read_bytes(), "headers": {"Content-Type": "image/jpeg"}}
            (answer,) = ask(app, "POST", f"/v1/captions?{query}", **photo).json()["captions"]
            assert answer["caption"] == caption.text
            assert [each["word"] for each in answer["attention"]] == caption.text.split()


def shown() -> list[tuple[str, str]]:
    """Returns (file, code) of each Python block of the pages; the line before it names the file."""
    block = r"\[examples/(\w+\.py)\]\(\.\./examples/\1\)[^\n]*\n+```python\n(.*?)```"
    return re.findall(block, GUIDE + OWN, re.DOTALL)


def test_pages_show_every_example_as_it_is() -> None:
    assert (GUIDE + OWN).count("```python\n") == len(shown())
    for name, code in shown():
        assert code in (EXAMPLES / name).read_text(encoding="utf-8"), f"{name} is not what its page shows"
    assert {name for name, _ in shown()} | {"memory_per_process.py"} == {path.name for path in EXAMPLES.glob("*.py")}

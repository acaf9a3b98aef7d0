"""A real Triton server loads the repository and answers from it, over HTTP and gRPC."""

import contextlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Beam, Captioner, Greedy, Sample
from serving.triton_repository import main
from tests.serving.triton_server import PAGE, PATIENCE, ROOT, Server, environment, image_input, protocol, served, shell

PROTOCOLS = "http", "grpc"
SHIPPED = ROOT / "engine" / "models" / "everyday"
SETTINGS = ["--provider=cpu", "--precision=fp32", "--max-batch-size=8", "--max-in-flight=8"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the model `captions`, and a model beside it whose warm-up is no photograph, not loaded."""
    environment()
    folder = tmp_path_factory.mktemp("triton")
    for name in ("captions", "cold"):
        assert main([str(folder / "repository"), "--name", name, *SETTINGS]) == 0
        (folder / "repository" / name / "engine").symlink_to(ROOT / "engine")  # as if it were installed
    photograph = folder / "repository" / "cold" / "warmup" / "photograph"
    photograph.write_bytes(b"\x04\0\0\0none")
    with served(folder) as server:
        yield server


@pytest.fixture(scope="module")
def exact() -> Captioner:
    """The captioner that the server's answers are compared with."""
    return Captioner(SHIPPED, provider="cpu", precision="fp32")


def ask(server: Server, name: str, images: list[bytes], parameters: dict[str, Any] | None = None, **named: Any) -> Any:
    with protocol(name).InferenceServerClient(server.address(name)) as client:
        return client.infer("captions", [image_input(name, images)], parameters=parameters, **named)


def refused(server: Server, name: str, *given: Any, **named: Any) -> tuple[str, str]:
    """Returns the status and the sentence that a request is refused with."""
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException) as caught:
        ask(server, name, *given, **named)
    return str(caught.value.status()), str(caught.value.message())


def statistics(server: Server) -> Any:
    with protocol("grpc").InferenceServerClient(server.address("grpc")) as client:
        return client.get_inference_statistics("captions").model_stats[0]


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize(
    ("parameters", "decoding"),
    [
        (None, Beam()),
        (
            {"decoding": "beam", "beam_size": 4, "num_hypotheses": 3, "length_penalty": 0.5},
            Beam(beam_size=4, num_hypotheses=3, length_penalty=0.5),
        ),
        (
            {"decoding": "sample", "temperature": 0.7, "seed": 5, "num_samples": 3, "style": "sentence"},
            Sample(temperature=0.7, seed=5, num_samples=3, style="sentence"),
        ),
    ],
)
def test_one_model_answers_every_way_as_the_captioner_does(
    server: Server,
    exact: Captioner,
    photos: list[bytes],
    name: str,
    parameters: dict[str, Any] | None,
    decoding: Greedy | Beam | Sample,
) -> None:
    expected = exact.caption(photos, decoding)
    result = ask(server, name, photos, parameters)
    assert [text.decode() for text in result.as_numpy("caption")[:, 0]] == [caption.text for caption in expected]
    for output in ("confidence", "log_prob"):
        values = [getattr(caption, output) for caption in expected]
        assert result.as_numpy(output)[:, 0] == pytest.approx(values, abs=1e-3, nan_ok=True)
    lists = [json.loads(text) for text in result.as_numpy("alternatives")[:, 0]]
    assert [[each["caption"] for each in several] for several in lists] == [
        [each.text for each in caption.alternatives] for caption in expected
    ]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_client_may_ask_for_one_output(server: Server, photos: list[bytes], name: str) -> None:
    wanted = [protocol(name).InferRequestedOutput("log_prob")]
    result = ask(server, name, photos[:1], outputs=wanted)
    assert result.as_numpy("log_prob").shape == (1, 1)
    assert result.as_numpy("caption") is None


@pytest.mark.parametrize(("name", "status"), [("http", "400"), ("grpc", "StatusCode.INVALID_ARGUMENT")])
def test_an_option_that_makes_no_sense_is_one_sentence(
    server: Server, photos: list[bytes], name: str, status: str
) -> None:
    code, said = refused(server, name, photos[:1], {"decoding": "sample", "temperature": -0.5})
    assert code == status
    assert "temperature must be a number above 0" in said


def test_a_burst_forms_batches_in_which_a_bad_image_fails_alone(
    server: Server, exact: Captioner, photos: list[bytes]
) -> None:
    before = statistics(server)
    ways: list[dict[str, Any]] = [{}, {"decoding": "greedy"}, {"decoding": "beam", "beam_size": 5}]
    decodings: list[Greedy | Beam | Sample] = [Beam(), Greedy(), Beam(beam_size=5)]
    expected = {
        (photo, way): exact.caption([photos[photo]], decoding)[0].text
        for photo in range(3)
        for way, decoding in enumerate(decodings)
    }

    def one(i: int) -> None:
        name = PROTOCOLS[i % 2]
        if i % 8 == 5:
            code, sentence = refused(server, name, [b"no image"])
            assert code in ("400", "StatusCode.INVALID_ARGUMENT")
            assert "is not an image" in sentence
        else:
            result = ask(server, name, [photos[i % 3]], ways[i // 3 % 3])
            assert result.as_numpy("caption")[0, 0].decode() == expected[i % 3, i // 3 % 3]

    with ThreadPoolExecutor(18) as pool:
        assert len(list(pool.map(one, range(36)))) == 36
    after = statistics(server)
    requests = after.inference_count - before.inference_count
    assert requests == 36
    assert after.execution_count - before.execution_count < requests
    assert max(each.batch_size for each in after.batch_stats) > 1


def test_a_request_that_waited_too_long_is_refused(server: Server, photos: list[bytes]) -> None:
    assert refused(server, "http", photos[:1], timeout=1)[0] == "503"
    assert refused(server, "grpc", photos[:1], timeout=1)[0] == "StatusCode.UNAVAILABLE"


def test_priority_one_overtakes_what_waits(server: Server, photos: list[bytes]) -> None:
    done: list[str] = []
    finished = threading.Semaphore(0)

    def note(who: str, result: Any, error: Any) -> None:
        done.append(who if error is None else str(error))
        finished.release()

    with protocol("grpc").InferenceServerClient(server.address("grpc")) as client:

        def send(who: str, priority: int) -> None:
            client.async_infer(
                "captions",
                [image_input("grpc", photos[:1])],
                lambda result, error: note(who, result, error),
                priority=priority,
            )

        for _ in range(48):
            send("bulk", 2)
        send("urgent", 1)
        for _ in range(49):
            assert finished.acquire(timeout=PATIENCE)
    assert sorted(set(done)) == ["bulk", "urgent"]
    assert done.index("urgent") <= 32  # it came as the last of 49


def test_a_client_that_cancels_gives_its_places_back(server: Server, photos: list[bytes]) -> None:
    long = {"max_length": 1000, "min_length": 999}
    with protocol("grpc").InferenceServerClient(server.address("grpc")) as client:
        image = image_input("grpc", photos[:1] * 8)  # all the places that there are
        for _ in range(3):
            client.async_infer("captions", [image], lambda *_: None, parameters=long).cancel()
    assert ask(server, "grpc", photos[:1], client_timeout=PATIENCE).as_numpy("caption").shape == (1, 1)


def test_the_warm_up_comes_before_a_model_is_ready(server: Server) -> None:
    log = server.lines()
    ready = next(i for i, line in enumerate(log) if "successfully loaded 'captions'" in line)
    warmed = [i for i, line in enumerate(log) if "'captions' instance captions_0_0 is running warmup sample" in line]
    assert len(warmed) == 1
    assert warmed[0] < ready


def test_the_python_of_the_page_prints_a_caption(
    server: Server, exact: Captioner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert "localhost:8000" in code
    monkeypatch.chdir(ROOT)
    exec(compile(code.replace("localhost:8000", server.address("http")), "docs/triton.md", "exec"), {})
    photograph = (ROOT / "samples" / "cat.jpg").read_bytes()
    expected = exact.caption([photograph], Beam(beam_size=4, num_hypotheses=2))[0]
    assert capsys.readouterr().out.strip() == expected.text


def test_a_new_version_takes_over_and_no_request_is_lost(
    server: Server, exact: Captioner, photos: list[bytes], tmp_path: Path
) -> None:
    """Near the end of the file: the server has version 2 after it."""
    bundle = tmp_path / "bundle"
    shutil.copytree(SHIPPED, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["defaults"]["max_length"] = 3  # so that its answers are told apart
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    old = exact.caption(photos[:1])[0].text
    new = exact.caption(photos[:1], Beam(max_length=3))[0].text
    assert old != new
    over, said = threading.Event(), []

    def keep_asking() -> list[str]:
        answers = []
        while not over.is_set():
            answers.append(ask(server, "http", photos[:1]).as_numpy("caption")[0, 0].decode())
        return answers

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(keep_asking) for _ in range(2)]
        try:
            assert main([str(server.repository), "--add-version", "--bundle", str(bundle)]) == 0
            with protocol("http").InferenceServerClient(server.address("http"), network_timeout=PATIENCE) as client:
                client.load_model("captions")
                assert client.is_model_ready("captions", "2")
        finally:
            over.set()
        said = [answer for each in asking for answer in each.result()]
    assert set(said) <= {old, new}
    assert old in said
    assert ask(server, "grpc", photos[:1]).as_numpy("caption")[0, 0].decode() == new
    assert np.isfinite(ask(server, "grpc", photos[:1]).as_numpy("log_prob")).all()


def test_a_model_whose_warm_up_fails_is_never_ready(server: Server) -> None:
    """The very last one: on a busy machine this Triton (2.51) dies itself of a warm-up that failed."""
    from tritonclient.utils import InferenceServerException

    with protocol("http").InferenceServerClient(server.address("http"), network_timeout=15) as client:
        with pytest.raises((InferenceServerException, OSError)):
            client.load_model("cold")
        with contextlib.suppress(OSError):  # a dead server is not ready either
            assert not client.is_model_ready("cold")
    assert "'cold' instance cold_0_0 failed to run warmup sample" in "".join(server.lines())


def test_the_page_adds_a_version_with_the_same_commands() -> None:
    block = shell("A new version", "--add-version")
    assert block.splitlines() == [
        "python -m serving.triton_repository repository --add-version",
        "curl --fail --request POST localhost:8000/v2/repository/models/captions/load",
    ]

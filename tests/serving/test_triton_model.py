"""The model inside the repository, on a stand-in for Triton's Python backend: what it does with requests."""

import importlib.util
import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import Beam, Captioner, DeviceError, Greedy, OptionsError, Sample
from tests.serving.triton_stand_in import PATIENCE, Error, Request, stand_in

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "serving" / "triton" / "model.py"


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """model.py as a repository has it, in a version's folder whose bundle is named by its path."""
    version = tmp_path_factory.mktemp("repository") / "captions" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_bytes(MODEL.read_bytes())
    (version / "bundle.path").write_text(f"{ROOT / 'engine/models/everyday'}\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("model_of_a_version", version / "model.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "triton_python_backend_utils", stand_in())
        spec.loader.exec_module(loaded)
        yield loaded


def started(module: Any, max_in_flight: int, timeout: float = PATIENCE) -> Any:
    settings = {"provider": "cpu", "precision": "auto", "threads": 0, "max_rows": 64, "max_in_flight": max_in_flight}
    settings |= {"max_pixels": 1_000_000, "timeout": timeout, "formats": "JPEG,PNG"}
    parameters = {name: {"string_value": str(value)} for name, value in settings.items()}
    config = json.dumps({"parameters": parameters, "max_batch_size": 4})
    instance = module.TritonPythonModel()
    instance.initialize({"model_config": config, "model_instance_kind": "CPU", "model_instance_device_id": "0"})
    return instance


@pytest.fixture(scope="module")
def model(module: Any) -> Iterator[Any]:
    """A running model with room for four images."""
    instance = started(module, 4)
    yield instance
    instance.finalize()


@pytest.mark.parametrize(
    ("parameters", "decoding"),
    [
        ({}, Beam()),
        ({"decoding": "beam", "beam_size": 4, "num_hypotheses": 3}, Beam(beam_size=4, num_hypotheses=3)),
        (
            {"decoding": "sample", "temperature": 0.7, "seed": 3, "num_samples": 2, "style": "sentence"},
            Sample(temperature=0.7, seed=3, num_samples=2, style="sentence"),
        ),
        ({"suppress": "a man", "max_length": 5}, Beam(suppress=("a", "man"), max_length=5)),
        ({"decoding": "greedy", "bad_endings": ""}, Greedy(bad_endings=())),
    ],
)
def test_an_answer_is_what_the_captioner_says(
    model: Any, captioner: Captioner, photos: list[bytes], parameters: dict[str, Any], decoding: Greedy | Beam | Sample
) -> None:
    request = Request(photos, parameters)
    model.execute([request])
    outputs = request.outputs()
    expected = captioner.caption(photos, decoding)
    assert [text.decode() for text in outputs["caption"][:, 0]] == [caption.text for caption in expected]
    assert outputs["log_prob"][:, 0] == pytest.approx([caption.log_prob for caption in expected], abs=1e-3)
    lists = [json.loads(text) for text in outputs["alternatives"][:, 0]]
    assert [[each["caption"] for each in several] for several in lists] == [
        [each.text for each in caption.alternatives] for caption in expected
    ]
    for column, several in zip(outputs["confidence"][:, 0], lists, strict=True):
        assert several[0]["confidence"] == (None if np.isnan(column) else column)


def test_the_scheduler_gets_requests_of_every_kind_at_once(model: Any, photos: list[bytes]) -> None:
    requests = [Request(photos[:1], {"decoding": way}) for way in ("greedy", "beam", "sample")]
    model.execute(requests)
    assert all(request.outputs()["caption"].shape == (1, 1) for request in requests)


def test_a_bad_image_fails_its_own_request_and_no_other(model: Any, photos: list[bytes]) -> None:
    requests = [Request(photos[:1]), Request([photos[0], b"no image"]), Request(photos[1:2])]
    model.execute(requests)
    error = requests[1].error()
    assert error.code == Error.INVALID_ARG
    assert "entry 1" in str(error)
    assert requests[0].outputs()["caption"].shape == requests[2].outputs()["caption"].shape == (1, 1)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"colour": "red"}, "'colour' is not an option: the options are decoding, max_length, "),
        ({"decoding": "beam", "beam_size": "3"}, "beam_size must be a whole number from 1"),
        ({"decoding": 3}, "decoding must be one of"),
        ({"suppress": 3}, "suppress must be a sequence of words"),
    ],
)
def test_an_option_that_makes_no_sense_is_one_sentence(
    model: Any, photos: list[bytes], parameters: dict[str, Any], sentence: str
) -> None:
    request = Request(photos[:1], parameters)
    model.execute([request])
    error = request.error()
    assert error.code == Error.INVALID_ARG
    assert sentence in str(error)


def test_a_format_that_the_repository_does_not_name_is_refused(model: Any, photos: list[bytes]) -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(photos[0])).save(file, "BMP")
    request = Request([file.getvalue()])
    model.execute([request])
    error = request.error()
    assert error.code == Error.INVALID_ARG
    assert "BMP" in str(error)


@pytest.fixture
def full(model: Any, photos: list[bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Request, threading.Event]]:
    """A request that takes all the places there are, and what lets it go on: at the latest when the test is done."""
    doors, submit = threading.Event(), model.scheduler.submit

    def held(*given: Any, **named: Any) -> Any:
        assert doors.wait(PATIENCE)
        return submit(*given, **named)

    request = Request([photos[0]] * 4)
    with monkeypatch.context() as patch:
        patch.setattr(model.scheduler, "submit", held)
        model.execute([request])
        yield request, doors
        assert doors.is_set() or not request.answered.is_set()
        doors.set()
        assert len(request.outputs()["caption"]) == 4


def test_execute_waits_for_room_and_takes_the_next_request_when_there_is_some(
    model: Any, photos: list[bytes], full: tuple[Request, threading.Event]
) -> None:
    """So that what comes beyond waits in Triton's queue, where its priorities and timeouts hold."""
    request, doors = full
    beyond = Request(photos[:1])
    waiting = threading.Thread(target=model.execute, args=([beyond],))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    assert not request.answered.is_set()
    doors.set()
    waiting.join(PATIENCE)
    assert len(beyond.outputs()["caption"]) == 1


@pytest.mark.usefixtures("full")
def test_the_time_of_a_request_counts_while_it_waits_for_room(model: Any, photos: list[bytes]) -> None:
    first, behind = Request(photos[:1], timeout=300_000), Request(photos[:1], timeout=100_000)
    began = time.monotonic()
    model.execute([first, behind])
    for request in (first, behind):
        error = request.error()
        assert error.code == Error.UNAVAILABLE
        assert "time of the request was over" in str(error)
    assert 0.3 <= time.monotonic() - began < PATIENCE / 2


@pytest.mark.usefixtures("full")
def test_a_request_that_is_cancelled_while_it_waits_for_room_waits_no_longer(model: Any, photos: list[bytes]) -> None:
    first, behind = Request(photos[:1]), Request(photos[:1])
    waiting = threading.Thread(target=model.execute, args=([first, behind],))
    waiting.start()
    behind.gone = True
    assert behind.error().code == Error.CANCELLED
    assert not first.answered.is_set()
    first.gone = True
    assert first.error().code == Error.CANCELLED
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


def test_a_request_that_names_no_time_has_that_of_the_settings(module: Any, photos: list[bytes]) -> None:
    instance = started(module, 4, timeout=0.2)
    try:
        long = {"max_length": 1000, "min_length": 999, "decoding": "beam", "beam_size": 20}
        short, patient = Request(photos[:1] * 4, long), Request(photos[:1], timeout=int(PATIENCE * 1e6))
        instance.execute([short])
        assert short.error().code == Error.UNAVAILABLE
        instance.execute([patient])
        assert patient.outputs()["caption"].shape == (1, 1)
    finally:
        instance.finalize()


def failing(error: Exception) -> Callable[..., Any]:
    def submit(*_: Any, **__: Any) -> Any:
        raise error

    return submit


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (DeviceError("the device failed"), Error.INTERNAL, "the device failed"),
        (OptionsError("too wide"), Error.INVALID_ARG, "too wide"),
        (RuntimeError("/secret/path"), Error.INTERNAL, "the model failed on this request"),
    ],
)
def test_every_failure_is_answered_and_frees_its_place(
    model: Any, photos: list[bytes], monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, sentence: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(model.scheduler, "submit", failing(error))
        for _ in range(9):  # more than there are places
            request = Request(photos[:1])
            model.execute([request])
            answer = request.error()
            assert (answer.code, sentence in str(answer), "/secret" in str(answer)) == (code, True, False)
    request = Request(photos[:1])
    model.execute([request])
    assert request.outputs()["caption"].shape == (1, 1)


@pytest.mark.parametrize("unreadable", ["images", "written", "microseconds"])
def test_a_request_that_cannot_be_read_fails_alone_and_keeps_no_place(
    model: Any, photos: list[bytes], unreadable: str
) -> None:
    for _ in range(5):  # more than there are places
        requests = [Request(photos[:1]) for _ in range(3)]
        setattr(requests[1], unreadable, None)
        model.execute(requests)
        assert requests[1].error().code == Error.INTERNAL
        assert requests[0].outputs()["caption"].shape == requests[2].outputs()["caption"].shape == (1, 1)


def test_an_answer_that_cannot_be_sent_is_logged(module: Any, model: Any, photos: list[bytes]) -> None:
    class Deaf(Request):
        def send(self, response: Any, flags: int) -> None:
            self.answered.set()
            raise RuntimeError("nobody listens")

    deaf, unreadable = Deaf(photos[:1]), Deaf(photos[:1])
    unreadable.images = np.array([], np.object_)
    model.execute([deaf, unreadable])
    assert deaf.answered.wait(PATIENCE)
    after = Request(photos[:1] * 4)  # all the places that there are
    model.execute([after])
    assert after.outputs()["caption"].shape == (4, 1)
    assert sum("nobody listens" in line for line in module.triton.logged) == 2


def test_a_photograph_with_more_pixels_than_the_setting_is_refused(model: Any) -> None:
    file = io.BytesIO()
    Image.new("RGB", (1001, 1000)).save(file, "PNG")
    request = Request([file.getvalue()])
    model.execute([request])
    error = request.error()
    assert error.code == Error.INVALID_ARG
    assert str(error).endswith("more than the limit of 1,000,000")  # without advice for programmers


def test_a_cancelled_request_gives_its_images_up(
    model: Any, photos: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    futures: list[Any] = []
    submitted = threading.Semaphore(0)

    def never(*_: Any, **__: Any) -> Any:
        from concurrent.futures import Future

        futures.append(Future())
        submitted.release()
        return futures[-1]

    monkeypatch.setattr(model.scheduler, "submit", never)
    request = Request(photos[:2])
    model.execute([request])
    for _ in range(2):
        assert submitted.acquire(timeout=PATIENCE)
    request.gone = True
    assert request.error().code == Error.CANCELLED
    assert [future.cancelled() for future in futures] == [True, True]


def test_finalize_finishes_what_was_taken_on_and_leaves_no_thread(module: Any, photos: list[bytes]) -> None:
    before = set(threading.enumerate())
    instance = started(module, 4)
    requests = [Request(photos[:1]) for _ in range(4)]
    instance.execute(requests)
    instance.finalize()
    assert all(request.outputs()["caption"].shape == (1, 1) for request in requests)
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert {name for name in left if not name.startswith("captioner")} == set()  # a captioner's go with itself

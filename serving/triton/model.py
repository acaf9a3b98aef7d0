"""The model that Triton's Python backend runs: requests in, captions out.

Copied as it is into each version of a model repository. Owns how a request becomes calls of `engine.Scheduler` and how
their results become a response; knows nothing of HTTP, gRPC, queues and priorities, which are Triton's, and nothing of
batches, which are the scheduler's. `execute` returns before the captions are there: Triton then goes on handing over
requests, which join those under way. It waits while `max_in_flight` images are under way, and so fills Triton's queue.
"""

import json
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from engine import (
    Caption,
    Captioner,
    CaptionFuture,
    ClosedError,
    DeadlineError,
    DecodingOption,
    EngineError,
    Hypothesis,
    ImageError,
    OptionsError,
    OverloadedError,
    RuntimeOptions,
    Scheduler,
)
from serving.decoding_options import Decoding, make_decoding
from serving.formats import as_argument, format_names

LOOK = 0.05  # seconds between two looks whether a request that waits, or is under way, still has its client


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A request as it came. until: when its time is over, by the monotonic clock."""

    sender: Any
    images: list[bytes]
    parameters: str
    until: float

    def left(self) -> float:
        """Returns its seconds. Raises DeadlineError where there are none, CancelledError where its client has gone."""
        if self.sender.is_cancelled():
            raise CancelledError("the client has cancelled this request")
        left = self.until - time.monotonic()
        if left <= 0:
            raise DeadlineError("the request's time was over before it was captioned")
        return left


class TritonPythonModel:
    """One instance of the model: a captioner, its scheduler, and a thread for each request under way."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens and warms up the bundle; the server calls the version ready only after this. Raises EngineError."""
        config = json.loads(args["model_config"])
        given = {name: each["string_value"] for name, each in config["parameters"].items()}
        device = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else 0
        captioner = Captioner(
            _bundle(Path(__file__).parent),
            provider=given["provider"],
            precision=given["precision"],
            batch_size=config["max_batch_size"],
            max_pixels=int(given["max_pixels"]),
            **as_argument(format_names(given.get("formats"))),
            runtime=RuntimeOptions(threads=int(given["threads"]), device_id=device),
        )
        captioner.warmup()
        most = int(given["max_in_flight"])
        self._timeout = float(given["timeout"])
        self._free, self._freed = most, threading.Condition()
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="request")
        # Triton's batcher has waited for more images already
        self._scheduler = Scheduler(captioner, max_rows=int(given["max_rows"]), max_queue=most, max_wait_ms=0)

    def execute(self, requests: Sequence[Any]) -> None:
        """Takes requests on, in order and as there is room; each is answered by its own sender when it is done."""
        waiting = [asked for request in requests if (asked := self._read(request))]
        while waiting:
            if self._takes(len(waiting[0].images)):
                self._threads.submit(self._answer, waiting.pop(0))
            else:
                waiting = [asked for asked in waiting if _lives(asked)]

    def _read(self, request: Any) -> Asked | None:
        """Returns a request, whose time counts from now; None where it cannot be read, which is answered at once."""
        sender = request.get_response_sender()
        try:
            images = list(triton.get_input_tensor_by_name(request, "image").as_numpy()[:, 0])
            timeout = request.timeout() / 1e6 or self._timeout
            return Asked(sender, images, request.parameters(), time.monotonic() + timeout)
        except Exception as error:  # left to Triton, it would be the answer of its neighbours too
            _send(sender, _failure(error))
            return None

    def _takes(self, images: int) -> bool:
        """Says whether there is room for so many images, or there was before it was time to look; then it is taken."""
        with self._freed:
            room = self._freed.wait_for(lambda: self._free >= images, LOOK)
            self._free -= images if room else 0
        return room

    def finalize(self) -> None:
        """Finishes what was taken on, and ends every thread."""
        self._threads.shutdown()
        self._scheduler.close()

    def _answer(self, asked: Asked) -> None:
        """Sends the captions of a request's images, or the one error that it fails with."""
        try:
            response = _response(self._captions(asked, make_decoding(json.loads(asked.parameters), _value)))
        except Exception as error:  # whatever it is, a request that is never answered would hang its client
            response = _failure(error)
        finally:
            with self._freed:
                self._free += len(asked.images)
                self._freed.notify()
        _send(asked.sender, response)

    def _captions(self, asked: Asked, decoding: Decoding) -> list[Caption]:
        """Returns the images' captions. Raises the first image's error, and gives up the other images."""
        futures: list[CaptionFuture] = []
        try:
            timeout = asked.left()
            futures.extend(self._scheduler.submit(image, decoding, timeout=timeout) for image in asked.images)
            for entry, future in enumerate(futures):
                while wait([future], LOOK).not_done:
                    if asked.sender.is_cancelled():
                        raise CancelledError("the client has cancelled this request")
                error = future.exception()
                if isinstance(error, ImageError) and len(futures) > 1:
                    raise error.at(entry)
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


def _value(option: DecodingOption, given: object) -> object:
    """Returns an option's value: Triton's parameters know no lists, so words come as one text with spaces between."""
    return tuple(given.split()) if option.kind is tuple and isinstance(given, str) else given


def _bundle(version: Path) -> Path:
    """Returns the folder of a version's bundle: its own copy, or the one that its file bundle.path names."""
    named = version / "bundle.path"
    return Path(named.read_text(encoding="utf-8").strip()) if named.exists() else version / "bundle"


def _response(captions: Sequence[Caption]) -> Any:
    """Returns the outputs, each (images, 1)."""
    lists = [json.dumps([_plain(each) for each in caption.alternatives]) for caption in captions]
    outputs = {
        "caption": np.array([caption.text.encode() for caption in captions], np.object_),
        "confidence": np.array([caption.confidence for caption in captions], np.float64),
        "log_prob": np.array([caption.log_prob for caption in captions], np.float64),
        "alternatives": np.array([text.encode() for text in lists], np.object_),
    }
    return triton.InferenceResponse([triton.Tensor(name, column[:, None]) for name, column in outputs.items()])


def _plain(hypothesis: Hypothesis) -> dict[str, Any]:
    confidence = None if math.isnan(hypothesis.confidence) else hypothesis.confidence  # JSON has no NaN
    return {"caption": hypothesis.text, "confidence": confidence, "log_prob": hypothesis.log_prob}


def _send(sender: Any, response: Any) -> None:
    """Sends the one answer of a request."""
    try:
        sender.send(response, flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    except Exception as error:
        triton.Logger.log_error(f"an answer could not be sent: {error!r}")


def _lives(asked: Asked) -> bool:
    """Says whether a request has time and a client; one that has not is answered."""
    try:
        asked.left()
    except Exception as error:
        _send(asked.sender, _failure(error))
        return False
    return True


def _failure(error: Exception) -> Any:
    """Returns the answer of a request that ended with an error, which it tells where it is the engine's own."""
    codes, sentence = triton.TritonError, str(error)
    code = codes.INTERNAL
    if isinstance(error, ImageError | OptionsError):
        code = codes.INVALID_ARG
        if isinstance(error, ImageError):  # without advice to programs, which no client can follow
            sentence = str(ImageError(error.reason, source=error.source, entry=error.entry))
    elif isinstance(error, OverloadedError | DeadlineError | ClosedError):
        code = codes.UNAVAILABLE
    elif isinstance(error, CancelledError):
        code = codes.CANCELLED
    elif not isinstance(error, EngineError):
        triton.Logger.log_error(f"a request failed: {error!r}")
        sentence = "the model failed on this request: its server's log says why"
    return triton.InferenceResponse(error=triton.TritonError(sentence, code))

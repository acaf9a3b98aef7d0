"""The model that Triton's Python backend runs: requests in, captions out.

This file is copied into each version of a model repository. It turns requests into calls of `engine.Scheduler`, and
results into responses. HTTP, gRPC, queues and priorities are Triton's; batches are the scheduler's. `execute` returns
before the captions are there, so that Triton sends more requests, which join the running ones. While `max_in_flight`
images are running it waits, so that further requests stay in Triton's queue.
"""

import json
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
from serving.sentence import sentence

LOOK = 0.05  # seconds between two checks whether the client of a waiting or running request is still there


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A request. until: its deadline on the monotonic clock."""

    sender: Any
    images: list[bytes]
    parameters: str
    until: float

    def left(self) -> float:
        """Returns the seconds left. Raises DeadlineError if there are none, CancelledError if the client is gone."""
        if self.sender.is_cancelled():
            raise CancelledError("the client has cancelled this request")
        left = self.until - time.monotonic()
        if left <= 0:
            raise DeadlineError("the time of the request was over before it was captioned")
        return left


class TritonPythonModel:
    """One instance of the model: a captioner, its scheduler, and a thread for each running request."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens and warms up the bundle; the version is ready only after this. Raises EngineError."""
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
        # Triton's batcher has already waited for more images
        self.scheduler = Scheduler(captioner, max_rows=int(given["max_rows"]), max_queue=most, max_wait_ms=0)

    def execute(self, requests: Sequence[Any]) -> None:
        """Accepts requests in order, waiting for room; each is answered through its own sender when it is done."""
        waiting = [asked for request in requests if (asked := self._read(request))]
        while waiting:
            if self._takes(len(waiting[0].images)):
                self._threads.submit(self._answer, waiting.pop(0))
            else:
                waiting = [asked for asked in waiting if _lives(asked)]

    def _read(self, request: Any) -> Asked | None:
        """Reads a request, whose time starts now; one that cannot be read is answered at once and gives None."""
        sender = request.get_response_sender()
        try:
            images = list(triton.get_input_tensor_by_name(request, "image").as_numpy()[:, 0])
            timeout = request.timeout() / 1e6 or self._timeout
            return Asked(sender, images, request.parameters(), time.monotonic() + timeout)
        except Exception as error:  # Triton would answer the whole batch with it
            _send(sender, _failure(error))
            return None

    def _takes(self, images: int) -> bool:
        """Waits up to LOOK seconds for room for some images; takes it and returns True if there is enough."""
        with self._freed:
            room = self._freed.wait_for(lambda: self._free >= images, LOOK)
            self._free -= images if room else 0
        return room

    def finalize(self) -> None:
        """Finishes the accepted requests, and ends every thread."""
        self._threads.shutdown()
        self.scheduler.close()

    def _answer(self, asked: Asked) -> None:
        """Sends the captions of a request, or the error with which it failed."""
        try:
            response = _response(self._captions(asked, make_decoding(json.loads(asked.parameters), value_of)))
        except Exception as error:  # the client must get an answer, whatever it is
            response = _failure(error)
        finally:
            with self._freed:
                self._free += len(asked.images)
                self._freed.notify()
        _send(asked.sender, response)

    def _captions(self, asked: Asked, decoding: Decoding) -> list[Caption]:
        """Returns the captions of all images. Raises the error of the first that fails, and cancels the others."""
        futures: list[CaptionFuture] = []
        try:
            timeout = asked.left()
            futures.extend(self.scheduler.submit(image, decoding, timeout=timeout) for image in asked.images)
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


def value_of(option: DecodingOption, given: object) -> object:
    """Returns the value of an option: Triton's parameters have no lists, so words come as one text with spaces."""
    return tuple(given.split()) if option.kind is tuple and isinstance(given, str) else given


def _bundle(version: Path) -> Path:
    """Returns the folder of a version's bundle: its own copy, or the folder named in its file bundle.path."""
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
    written = sentence(hypothesis)
    return {name: written[name] for name in ("caption", "confidence", "log_prob")}


def _send(sender: Any, response: Any) -> None:
    """Sends the only answer of a request."""
    try:
        sender.send(response, flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    except Exception as error:
        triton.Logger.log_error(f"a response could not be sent: {error!r}")


def _lives(asked: Asked) -> bool:
    """Returns whether a request still has time and a client; otherwise answers it."""
    try:
        asked.left()
    except Exception as error:
        _send(asked.sender, _failure(error))
        return False
    return True


def _failure(error: Exception) -> Any:
    """Returns the response to a request that failed. The client may read only the engine's own errors."""
    codes, told = triton.TritonError, str(error)
    code = codes.INTERNAL
    if isinstance(error, ImageError | OptionsError):
        code = codes.INVALID_ARG
        if isinstance(error, ImageError):  # without advice that only the caller of the engine can follow
            told = str(ImageError(error.reason, source=error.source, entry=error.entry))
    elif isinstance(error, OverloadedError | DeadlineError | ClosedError):
        code = codes.UNAVAILABLE
    elif isinstance(error, CancelledError):
        code = codes.CANCELLED
    elif not isinstance(error, EngineError):
        triton.Logger.log_error(f"a request failed: {error!r}")
        told = "the model failed on this request; the log of the server says why"
    return triton.InferenceResponse(error=triton.TritonError(told, code))

"""One request's answer: a Future that can be cancelled at any stage, and how long the stages took."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from engine.result import Caption


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in seconds: waiting for the encoder, reading and encoding, and writing."""

    queued: float
    encoding: float
    decoding: float


class CaptionFuture(Future[Caption]):
    """A caption to come. Unlike others of its kind it can be cancelled until it is done, running or not.

    model: the name of the bundle that the request went to, which a `swap` does not change. timings: how long each stage
    took, once there is a caption; None before, and for a request that failed.
    """

    def __init__(self, withdraw: Callable[[], bool], model: str = "") -> None:
        """withdraw() takes the request back, and says whether it came before the answer."""
        super().__init__()
        self.model = model
        self.timings: Timings | None = None
        self._withdraw = withdraw

    def cancel(self) -> bool:
        """Takes the request back; its rows are free at the next step. False where the answer came first."""
        if self._withdraw():
            super().cancel()
            self.set_running_or_notify_cancel()
        return self.cancelled()

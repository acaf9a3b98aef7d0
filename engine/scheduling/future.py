"""One request's answer: a Future that can be cancelled at any stage, and how long the stages took."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
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
        self._withdraw: Callable[[], bool] | None = withdraw

    def cancel(self) -> bool:
        """Takes the request back; its rows are free at the next step. False where the answer came first."""
        withdraw = self._withdraw
        if withdraw is not None and withdraw():
            self._withdraw = None
            super().cancel()
            self.set_running_or_notify_cancel()
        return self.cancelled()

    def _answer(self, answer: Caption | Exception) -> None:
        """Sets the result, or the exception: the scheduler calls it."""
        self._withdraw = None  # it keeps no request, line or model
        try:
            if isinstance(answer, Caption):
                self.set_result(answer)
            else:
                self.set_exception(answer)
        except InvalidStateError:  # somebody else has set it
            pass
        except BaseException:  # SystemExit of a callback, too: it would end the thread that answers all others
            logging.getLogger(__name__).exception("a callback of a caption failed; the scheduler goes on")

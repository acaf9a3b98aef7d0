"""One request's answer: a Future that can be cancelled at any stage, and how long the stages took."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

from engine.result import Caption

CALLBACK_FAILED = "a callback of a caption failed; the scheduler goes on"


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in seconds: waiting for the encoder, reading and encoding, and writing."""

    queued: float
    encoding: float
    decoding: float


class CaptionFuture(Future[Caption]):
    """A caption to come. Unlike others of its kind it can be cancelled until it is done, and running() is never True.

    model: the name of the bundle that the request went to, which a `swap` does not change. timings: how long each stage
    took, once there is a caption; None before, and for a request that failed.
    """

    def __init__(self, withdraw: Callable[[], bool], model: str = "") -> None:
        """withdraw() takes the request back, and says whether this call did: it sets _withdrawn then."""
        super().__init__()
        self.model = model
        self.timings: Timings | None = None
        self._withdraw: Callable[[], bool] | None = withdraw
        self._withdrawn = False  # guarded by the lock of who withdraws

    def cancel(self) -> bool:
        """Takes the request back; its rows are free at the next step. False where the answer came first.

        False, too, for a finalizer or a signal handler that has interrupted this thread inside the scheduler: then the
        request is taken back a moment later, unless its answer comes first.
        """
        withdraw = self._withdraw
        if withdraw is not None and withdraw():
            self._withdraw = None
            try:
                super().cancel()
            finally:  # whatever a callback raised: others wait for this
                self.set_running_or_notify_cancel()
        return self._withdrawn

    def _drop(self) -> None:
        """Cancels on behalf of somebody else, who is to hear what callbacks raise no more than whoever calls this."""
        try:
            self.cancel()
        except BaseException:
            logging.getLogger(__name__).exception(CALLBACK_FAILED)

    def _finish(self, outcome: Caption | Exception) -> None:
        """Sets the result, or the exception: the scheduler calls it."""
        self._withdraw = None  # it keeps no request, thread or model
        try:
            if isinstance(outcome, Caption):
                self.set_result(outcome)
            else:
                self.set_exception(outcome)
        except InvalidStateError:  # somebody else has set it
            pass
        except BaseException:  # SystemExit of a callback, too: it would end the thread that answers all others
            logging.getLogger(__name__).exception(CALLBACK_FAILED)

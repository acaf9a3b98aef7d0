"""The future of one request: it can be cancelled at any stage, and records how long the stages took."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

from engine.result import Caption

CALLBACK_FAILED = "a callback of a caption raised an exception; the scheduler continues"


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in seconds: waiting for the encoder, reading and encoding, and writing."""

    queued: float
    encoding: float
    decoding: float


class CaptionFuture(Future[Caption]):
    """The future of a caption. Unlike other futures it can be cancelled until it is done; running() is never True.

    model: the name of the bundle that the request was sent to, unchanged by a later `swap`. timings: how long each
    stage took, once the caption is done; None before, and for failed requests.
    """

    def __init__(self, withdraw: Callable[[], bool], model: str = "") -> None:
        """withdraw() cancels the request and returns whether this call did so; it then sets _withdrawn."""
        super().__init__()
        self.model = model
        self.timings: Timings | None = None
        self._withdraw: Callable[[], bool] | None = withdraw
        self._withdrawn = False  # guarded by the lock that withdraw() takes

    def cancel(self) -> bool:
        """Cancels the request; its rows are free at the next step. Returns False if it is already done.

        Also returns False in a finalizer or signal handler that interrupted this thread inside the scheduler: the
        request is then cancelled a moment later, unless it is done first.
        """
        withdraw = self._withdraw
        if withdraw is not None and withdraw():
            self._withdraw = None
            try:
                super().cancel()
            finally:  # whatever a callback raised, others wait for this
                self.set_running_or_notify_cancel()
        return self._withdrawn

    def _drop(self) -> None:
        """Cancels on behalf of another thread; exceptions in callbacks reach neither that thread nor this one."""
        try:
            self.cancel()
        except BaseException:
            logging.getLogger(__name__).exception(CALLBACK_FAILED)

    def _finish(self, outcome: Caption | Exception) -> None:
        """Sets the result or the exception; called by the scheduler."""
        self._withdraw = None  # drop the references to request, threads and model
        try:
            if isinstance(outcome, Caption):
                self.set_result(outcome)
            else:
                self.set_exception(outcome)
        except InvalidStateError:  # it was set elsewhere
            pass
        except BaseException:  # even SystemExit of a callback: it would end the thread that serves all requests
            logging.getLogger(__name__).exception(CALLBACK_FAILED)

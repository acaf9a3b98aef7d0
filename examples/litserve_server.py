"""LitServe: the scheduler is in its worker process, and runs the requests together.

python examples/litserve_server.py [PORT]; POST /predict takes a form with a file `image`.
"""

import sys

import litserve
from fastapi import HTTPException

from engine import Caption, Captioner, DeadlineError, EngineError, ImageError, OverloadedError, Scheduler

STATUS = {ImageError: 422, OverloadedError: 429, DeadlineError: 504}


class Captions(litserve.LitAPI):  # type: ignore[misc]  # litserve has no types
    """LitServe awaits `predict` of many requests at the same time, so that none has to wait for a batch."""

    def setup(self, device: str) -> None:
        """Runs once in each worker."""
        captioner = Captioner()
        captioner.warmup()
        self.scheduler = Scheduler(captioner)

    async def decode_request(self, request: litserve.Request) -> bytes:
        """Returns the file; LitServe hands over the form as a request."""
        return bytes(request["image"].file.read())

    async def predict(self, image: bytes) -> Caption:
        """Returns the caption. Raises HTTPException with a status for each kind of EngineError."""
        try:
            return await self.scheduler.caption(image, timeout=10)
        except EngineError as error:
            status = next((STATUS[kind] for kind in STATUS if isinstance(error, kind)), 503)
            raise HTTPException(status, type(error).__name__) from error

    async def encode_response(self, caption: Caption) -> dict[str, str]:
        """Returns the response, which is sent as JSON."""
        return {"caption": caption.text}


if __name__ == "__main__":
    server = litserve.LitServer(Captions(enable_async=True), accelerator="cpu")
    server.run(host="127.0.0.1", port=int((sys.argv[1:] or ["8000"])[0]), generate_client_file=False)

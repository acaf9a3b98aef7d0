"""The HTTP server that a user would write first, for comparison: FastAPI and the Captioner, one image at a time.

`python -m benchmarks.load.one_at_a_time PORT`. It accepts the same raw bodies and options as `serving.http`.
"""

import sys
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool

from engine import Captioner
from serving.decoding_options import Decoding, read_decoding

captioner = Captioner(provider="cpu")
turn = threading.Lock()
app = FastAPI()


def caption(image: bytes, decoding: Decoding) -> dict[str, Any]:
    """Captions an image when it is its turn."""
    with turn:
        best = captioner.caption([image], decoding)[0]
    return {"captions": [{"caption": best.text, "log_prob": best.log_prob}]}


@app.post("/v1/captions")
async def captions(request: Request) -> dict[str, Any]:
    """Answers one request."""
    image, decoding = await request.body(), read_decoding(request.query_params.multi_items())
    return await run_in_threadpool(caption, image, decoding)


@app.get("/readyz")
async def readyz() -> str:
    """Answers once the server listens; the model was warmed up before."""
    return "ready"


if __name__ == "__main__":
    captioner.warmup([1])
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)

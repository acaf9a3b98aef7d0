"""Captions in your own FastAPI application: python examples/fastapi_app.py [PORT]."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from engine import Captioner, DeadlineError, EngineError, ImageError, OverloadedError, Scheduler

STATUS = {ImageError: 422, OverloadedError: 429, DeadlineError: 504}  # the client's fault, and two temporary ones


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens a captioner in each worker, after the fork; at the end, finishes the accepted requests."""
    captioner = Captioner()
    await asyncio.to_thread(captioner.warmup)
    app.state.scheduler = Scheduler(captioner)
    yield
    await asyncio.to_thread(app.state.scheduler.close)


app = FastAPI(lifespan=lifespan)


@app.post("/describe")
async def describe(request: Request) -> dict[str, str]:
    """Captions the image that is the request's body."""
    caption = await request.app.state.scheduler.caption(await request.body(), timeout=5)
    return {"caption": caption.text}


@app.exception_handler(EngineError)
async def refuse(request: Request, error: EngineError) -> JSONResponse:
    """Answers a request that failed, with a status for each kind of error."""
    status = next((STATUS[kind] for kind in STATUS if isinstance(error, kind)), 503)
    return JSONResponse({"error": type(error).__name__}, status, {"Retry-After": "1"} if status == 429 else None)


if __name__ == "__main__":
    uvicorn.run(app, port=int((sys.argv[1:] or ["8000"])[0]))

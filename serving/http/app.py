"""The service as an ASGI application: its routes. Other modules read, caption and count."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from engine import Beam, Greedy, PhotoIndex, Sample, Scheduler
from serving.decoding_options import read_decoding
from serving.http import description, metrics, page_files
from serving.http.answers import Answer, Model, State
from serving.http.attention import split_attention
from serving.http.bodies import Bodies
from serving.http.clients import EventStream, while_connected
from serving.http.gate import Gate
from serving.http.hosts import Hosts
from serving.http.limits import Limits
from serving.http.logs import log, lost_lines
from serving.http.photographs import Photographs
from serving.http.problems import Problem, http_problem, respond
from serving.http.reports import Report
from serving.http.search import add_search
from serving.http.tokens import check_tokens
from serving.http.work import Work

WARM = (Greedy(), Beam(), Sample(seed=0))  # after these, no file of the bundle is needed any more


def create_app(
    scheduler: Scheduler,
    *,
    limits: Limits | None = None,
    tokens: Sequence[bytes] = (),
    hosts: Collection[str] | None = None,
    warm: bool = True,
    index: PhotoIndex | None = None,
) -> FastAPI:
    """Returns the service for a scheduler, which the caller closes.

    tokens: bearer tokens, of which a request must have one; without any, the service is open to all. hosts: host
    names that requests may use, besides localhost and IP addresses; None for any. warm: warm up the captioner when the
    application starts, and be ready after that; an application that is mounted in another never starts. index: the
    photographs that can be searched, with the scheduler's captioner; it is closed when the application ends. Raises
    OptionsError.
    """
    limits, known = limits or Limits(), Hosts(hosts)
    check_tokens(tokens)
    bodies, work = Bodies(limits), Work(scheduler, limits.timeout)
    photographs = Photographs(index, scheduler, limits.timeout) if index else None
    counts = metrics.Metrics(scheduler, held_bytes=lambda: bodies.budget.held, lost_lines=lost_lines)
    max_rows = scheduler.stats().max_rows
    routes = description.Routes(limits, max_rows, guarded=bool(tokens), named=not known.all)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.ready = not warm
        warming = asyncio.create_task(_warm_up(app, scheduler, photographs)) if warm else None
        yield
        app.state.ready = False
        if warming:
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)
        if photographs:
            await asyncio.to_thread(photographs.close)

    app = FastAPI(
        title="Captions",
        version="1",
        description=description.text(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat any host name from the request
    )
    app.state.ready = not warm

    @app.post("/v1/captions", response_model=Answer, **routes.captions(many=True))
    async def captions(request: Request) -> Response:
        """Caption one or more images."""
        async with bodies.read(request) as upload:
            attention, options = split_attention(upload.options)
            captioning = work.caption(upload.images, read_decoding(options), _report(request), attention=attention)
            answer = await while_connected(request, captioning)
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.post("/v1/captions/stream", **routes.captions(many=False))
    async def stream(request: Request) -> Response:
        """Caption one image, word by word."""
        async with bodies.read(request) as upload:
            if len(upload.images) != 1:
                raise Problem("body", f"{len(upload.images)} images were sent, but only one can be streamed")
            attention, options = split_attention(upload.options)
            words = work.words(upload.images[0], read_decoding(options), attention=attention)
            try:
                first = await while_connected(request, anext(words))  # an error until here can set the status
            except BaseException:
                await words.aclose()
                raise
        return EventStream(first, words, _report(request))

    @app.get("/v1/model", **routes.plain(Model))
    async def model() -> Model:
        """Describe the model and the limits of requests."""
        return _model(scheduler, limits, photographs)

    @app.get("/healthz", **routes.plain(State, is_open=True))
    async def healthz() -> State:
        """Answer if the process is alive."""
        return State(status="ok")

    @app.get("/readyz", **routes.plain(State, 503, is_open=True))
    async def readyz() -> State:
        """Answer if the model is warmed up."""
        if not app.state.ready:
            raise Problem("closing", "the model is not warmed up yet")
        return State(status="ready")

    @app.get("/metrics", **routes.text(metrics.MEDIA_TYPE))
    async def show_metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(counts.render(), media_type=metrics.MEDIA_TYPE)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"  # the gate turns HEAD into GET
        return respond(http_problem(error.status_code, _report(request).request_id), headers)

    add_search(app, photographs, bodies, routes)
    for path in page_files.PAGE:
        _add_page(app, path, max_rows)
    paths = frozenset(route.path for route in app.routes if hasattr(route, "path"))
    app.add_middleware(Gate, metrics=counts, tokens=tokens, paths=paths, hosts=known)
    return app


async def _warm_up(app: FastAPI, scheduler: Scheduler, photographs: Photographs | None) -> None:
    try:
        for decoding in WARM:  # one by one, so that a shutdown waits for only one of them
            await asyncio.to_thread(scheduler.captioner.warmup, decodings=(decoding,))
        if photographs:
            await photographs.warm_up()
    except Exception:
        log.exception("warm-up failed: the service will not be ready")
    else:
        app.state.ready = True
        log.info("ready")


def _add_page(app: FastAPI, path: str, max_rows: int) -> None:
    """Serves a file of the page, read once; nothing if the page is not installed."""
    content = page_files.read_page_file(path, max_rows)
    if content is None:
        return
    _, media_type = page_files.PAGE[path]

    @app.get(path, include_in_schema=False)
    async def page() -> Response:
        return Response(content, headers=page_files.HEADERS, media_type=media_type)


def _model(scheduler: Scheduler, limits: Limits, photographs: Photographs | None) -> Model:
    captioner = scheduler.captioner
    manifest = captioner.bundle.manifest
    defaults = manifest.defaults
    return Model(
        name=manifest.name,
        encoder=manifest.encoder,
        provider=captioner.provider,
        precision=captioner.precision,
        vocabulary_size=manifest.vocabulary_size,
        image_size=[manifest.image.height, manifest.image.width],
        image_resize=manifest.image.resize,
        attention=bool(manifest.attention),
        calibrated=bool(manifest.confidence),
        search=photographs is not None,
        similar=photographs is not None and photographs.compares,
        defaults={name: getattr(defaults, name) for name in defaults.__slots__},
        limits={name: getattr(limits, name) for name in limits.__slots__} | {"max_pixels": captioner.max_pixels},
    )


def _report(request: Request) -> Report:
    report: Report = request.state.report
    return report

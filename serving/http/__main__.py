"""`python -m serving.http`: the command line of the service. Owns its options, its start and its end."""

import inspect
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

from engine import Captioner, EngineError, OptionsError, PhotoIndex, RuntimeOptions, Scheduler
from serving.parser import Parser, explained

try:
    import uvicorn
    from fastapi import FastAPI
    from prometheus_client import disable_created_metrics

    from serving.formats import as_argument, format_names
    from serving.http.app import WARM, create_app
    from serving.http.hosts import names_for
    from serving.http.limits import MAX_PIXELS, Limits
    from serving.http.logs import log, start
    from serving.http.protocol import protocol
    from serving.http.tokens import TOKEN, read_tokens
except ModuleNotFoundError as missing:
    if (missing.name or "").split(".")[0] in ("engine", "serving"):
        raise
    sys.exit(f"error: the HTTP service needs {missing.name}: run python -m pip install '.[serve]' in a checkout")

SCHEDULER = ("max_rows", "max_queue", "max_wait_ms")
MAX_QUEUE: int = inspect.signature(Scheduler).parameters["max_queue"].default


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT, and returns the exit code.

    0: all accepted requests were finished; 2: the service could not start, and one sentence says why.
    """
    arguments = vars(command_line().parse_args(argv))
    asked: SimpleQueue[bool] = SimpleQueue()
    signal.signal(signal.SIGHUP, lambda *_: asked.put(True))  # an early one waits until there is a model
    try:
        given = {name: arguments[name] for name in SCHEDULER if arguments[name] is not None}
        limits = Limits(**{each.name: arguments[each.name] for each in fields(Limits)})
        limits = limits.for_queue(given.get("max_queue", MAX_QUEUE))
        tokens = read_tokens(arguments["token_file"])
        _take_descriptors()
        with _bind(arguments["host"], arguments["port"]) as listener:
            load = partial(
                Captioner,
                arguments["bundle"],
                provider=arguments["provider"],
                precision=arguments["precision"],
                batch_size=arguments["batch_size"],
                max_pixels=arguments["max_pixels"],
                **as_argument(format_names(arguments["formats"])),
                runtime=RuntimeOptions(threads=arguments["threads"]),
            )
            hosts = names_for(listener.getsockname()[0], arguments["allowed_host"])
            captioner = load()
            opened = [_open_index(arguments["index"], captioner)]  # popped: nothing here keeps a model that is replaced
            with Scheduler(captioner, **given) as scheduler:
                del captioner
                app = create_app(scheduler, limits=limits, tokens=tokens, hosts=hosts, index=opened.pop())
                _serve(scheduler, listener, app, limits, load, asked)
    except (EngineError, OSError) as error:
        print(f"error: {explained(error)}", file=sys.stderr)
        return 2
    return 0


def _open_index(place: str | None, captioner: Captioner) -> PhotoIndex | None:
    """Opens an index; one that is not there or cannot be read shows at once. Raises StoreError."""
    if place is None:
        return None
    index = PhotoIndex(place, captioner)
    index.counts()
    return index


def _serve(
    scheduler: Scheduler,
    listener: socket.socket,
    app: FastAPI,
    limits: Limits,
    load: Callable[[], Captioner],
    asked: "SimpleQueue[bool]",
) -> None:
    lines = start(sys.stderr)
    # otherwise each counter has a second series with the time when it was created
    disable_created_metrics()  # type: ignore[no-untyped-call]
    config = uvicorn.Config(
        app,
        http=protocol(limits.upload_timeout),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(limits.timeout + limits.upload_timeout) + 5,
    )
    server = uvicorn.Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn replaces these, and raises the signals again
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    swaps = Thread(target=_swap, args=(asked, scheduler, load), name="swaps")
    host, port = listener.getsockname()[:2]
    log.info("listening", extra={"host": host, "port": port, "model": scheduler.captioner.bundle.manifest.name})
    swaps.start()
    try:
        server.run(sockets=[listener])
    finally:
        asked.put(False)
        swaps.join()  # the interpreter may crash if it ends while a model is loading
        log.info("stopped")
        lines.close()


def _swap(asked: "SimpleQueue[bool]", scheduler: Scheduler, load: Callable[[], Captioner]) -> None:
    """For each True in the queue, changes to the model now in the bundle's folder; after an error keeps the old one.

    One at a time: of two at once, the older could take longer to load, and would serve in the end.
    """
    while asked.get():
        try:
            captioner = load()
            captioner.warmup(decodings=WARM)
            scheduler.swap(captioner)
        except Exception as error:
            log.error("the model was not replaced", extra={"why": str(error)})
        else:
            log.info("the model was replaced", extra={"model": captioner.bundle.manifest.name})


def _take_descriptors() -> None:
    """Raises the limit of open files and connections as far as allowed: the default is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # macOS allows fewer than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _bind(host: str, port: int) -> socket.socket:
    """Takes the port before the model is loaded, so that a conflict shows at once. Raises OSError, OptionsError."""
    if not 0 <= port <= 65535:  # others would be taken modulo 65536
        raise OptionsError("port must be from 0 to 65535", name="port", value=port)
    try:
        family, kind, protocol_number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol_number)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(f"cannot listen on {host} port {port}: {why}; use --host and --port to choose others") from error
    return listener


def command_line() -> Parser:
    """Returns the parser of the command."""
    parser = Parser(prog="python -m serving.http", description="Captions photographs over HTTP.")
    option = parser.add_argument
    option("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    option("--port", type=int, default=8000, help="port; 0 is any free one (default: %(default)s)")
    option("--bundle", metavar="FOLDER", help="the model (default: the one that ships)")
    text = "index of photographs to search, a file that `python -m engine index` made, or a postgresql:// address"
    option("--index", metavar="FILE", help=text)
    option("--provider", default="auto", metavar="NAME", help="what to run on (default: %(default)s)")
    option("--precision", default="auto", metavar="NAME", help="precision of the model (default: %(default)s)")
    option("--threads", type=int, default=0, metavar="N", help="CPU threads (default: one for each core)")
    option("--batch-size", type=int, default=32, metavar="N", help="most images of an encoder run (%(default)s)")
    option("--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help="most pixels of an image (%(default)s)")
    text = "read only these formats, by Pillow's names (default: the usual formats of photographs)"
    option("--formats", metavar="NAME[,NAME]", help=text)
    option("--max-rows", type=int, metavar="N", help="most sentences that are decoded at the same time")
    option("--max-queue", type=int, metavar="N", help="most images that wait; others are refused")
    option("--max-wait-ms", type=float, metavar="MS", help="longest time that an image waits for others")
    for each in fields(Limits):
        kind: Any = type(each.default)
        text = f"{each.metadata['help']} (default: {each.default})"
        option(f"--{each.name.replace('_', '-')}", type=kind, default=each.default, metavar="N", help=text)
    text = "a host name that requests may use, besides localhost and IP addresses; * for any; may be repeated"
    option("--allowed-host", action="append", default=[], metavar="NAME", help=text)
    option("--token-file", metavar="FILE", help=f"bearer tokens, one per line (default: the variable {TOKEN})")
    return parser


if __name__ == "__main__":
    sys.exit(main())

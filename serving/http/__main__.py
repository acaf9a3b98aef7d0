"""`python -m serving.http`: the command line of the service. Owns its options, its start and how it ends."""

import argparse
import inspect
import ipaddress
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

from engine import Captioner, EngineError, OptionsError, RuntimeOptions, Scheduler

try:
    import uvicorn
    from fastapi import FastAPI
    from prometheus_client import disable_created_metrics

    from serving.formats import as_argument, format_names
    from serving.http.app import WARM, create_app
    from serving.http.limits import MAX_PIXELS, Limits
    from serving.http.logs import log, start
    from serving.http.protocol import protocol
    from serving.http.tokens import TOKEN, read_tokens
except ModuleNotFoundError as missing:
    if (missing.name or "").split(".")[0] in ("engine", "serving"):
        raise
    sys.exit(f"error: the HTTP service needs {missing.name}: run python -m pip install '.[serve]' in a checkout")

SCHEDULER = ("max_rows", "max_queue", "max_wait_ms")


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT, and returns the exit code.

    0: everything accepted was finished; 2: the service could not start, told in one sentence.
    """
    arguments = vars(_parser().parse_args(argv))
    asked: SimpleQueue[bool] = SimpleQueue()
    signal.signal(signal.SIGHUP, lambda *_: asked.put(True))  # one that comes before there is a model waits for it
    try:
        given = {name: arguments[name] for name in SCHEDULER if arguments[name] is not None}
        limits = _limits(arguments, given)
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
            hosts = _hosts(listener, arguments["allowed_host"])
            with Scheduler(load(), **given) as scheduler:
                app = create_app(scheduler, limits=limits, tokens=tokens, hosts=hosts)
                _serve(scheduler, listener, app, limits, load, asked)
    except (EngineError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _serve(
    scheduler: Scheduler,
    listener: socket.socket,
    app: FastAPI,
    limits: Limits,
    load: Callable[[], Captioner],
    asked: "SimpleQueue[bool]",
) -> None:
    lines = start(sys.stderr)
    # a second series beside each, that nobody asked for
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
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn takes them over, and raises them again at its end
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    swaps = Thread(target=_swap, args=(asked, scheduler, load), name="swaps")
    host, port = listener.getsockname()[:2]
    log.info("listening", extra={"host": host, "port": port, "model": scheduler.captioner.bundle.manifest.name})
    swaps.start()
    try:
        server.run(sockets=[listener])
    finally:
        asked.put(False)
        swaps.join()  # an interpreter that ends under a model that loads may crash
        log.info("stopped")
        lines.close()


def _swap(asked: "SimpleQueue[bool]", scheduler: Scheduler, load: Callable[[], Captioner]) -> None:
    """Goes over to what lies in the bundle's folder each time that it is asked to; where that is no good, all stays.

    One after the other: of two at once, the older could load for longer, and serve in the end.
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


def _limits(arguments: dict[str, Any], given: dict[str, Any]) -> Limits:
    """Returns the limits: of a request's images no more than may wait, or one of more would never be taken."""
    limits = Limits(**{each.name: arguments[each.name] for each in fields(Limits)})
    most = given.get("max_queue", inspect.signature(Scheduler).parameters["max_queue"].default)
    return replace(limits, max_images=max(1, min(limits.max_images, most)))


def _hosts(listener: socket.socket, allowed: list[str]) -> list[str] | None:
    """Returns the names by which the service may be asked; None, any, where others than this machine reach it."""
    near = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback
    return allowed if allowed or near else None


def _take_descriptors() -> None:
    """Lets the process have as many connections and files open as it may: the default is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # macOS has a bound below what it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _bind(host: str, port: int) -> socket.socket:
    """Takes the port before the model is loaded: who cannot have it should know at once.

    Raises OSError and OptionsError.
    """
    if not 0 <= port <= 65535:  # others would be taken modulo 65536
        raise OptionsError(f"--port {port}: a port is 0 to 65535")
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
        raise OSError(f"cannot listen on {host} port {port}: {why}; choose others with --host and --port") from error
    return listener


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.http", description="Captions photographs over HTTP.")
    option = parser.add_argument
    option("--host", default="127.0.0.1", help="address to listen on; %(default)s is the default")
    option("--port", type=int, default=8000, help="0: any that is free; %(default)s is the default")
    option("--bundle", metavar="FOLDER", help="the model to use; the one that ships if left out")
    option("--provider", default="auto", metavar="NAME", help="what to run on; auto is the default")
    option("--precision", default="auto", metavar="NAME", help="auto is the default")
    option("--threads", type=int, default=0, metavar="N", help="CPU threads; 0, the default, is one for each core")
    option("--batch-size", type=int, default=32, metavar="N", help="most images of an encoder run; %(default)s")
    option("--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help="most pixels of an image; %(default)s")
    text = "read these formats and no others, by Pillow's names; left out, those that photographs come in"
    option("--formats", metavar="NAME[,NAME]", help=text)
    option("--max-rows", type=int, metavar="N", help="most sentences that grow at once")
    option("--max-queue", type=int, metavar="N", help="most images that wait; more are refused")
    option("--max-wait-ms", type=float, metavar="MS", help="longest wait for more images than one")
    for each in fields(Limits):
        kind: Any = type(each.default)
        text = f"{each.metadata['help']}; {each.default} is the default"
        option(f"--{each.name.replace('_', '-')}", type=kind, default=each.default, metavar="N", help=text)
    text = "a name by which it may be asked, besides localhost and IP addresses; * for any; may be repeated"
    option("--allowed-host", action="append", default=[], metavar="NAME", help=text)
    option("--token-file", metavar="FILE", help=f"bearer tokens, one a line; or the variable {TOKEN}")
    return parser


if __name__ == "__main__":
    sys.exit(main())

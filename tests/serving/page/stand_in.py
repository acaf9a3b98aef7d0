"""A service that speaks the page's contract and answers what a test wrote: faults, pauses and odd chunks on demand.

Serves the real page with the real policy. It captions nothing and knows no browser.
"""

import json
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from PIL import Image

from serving.http.page_files import CSP
from serving.http.page_files import PAGE as FILES
from serving.http.page_options import fill

PAGE = Path(__file__).parents[3] / "serving" / "http" / "page"
MODEL = {
    "name": "stand-in",
    "precision": "int8",
    "provider": "cpu",
    "calibrated": True,
    "defaults": {"beam_size": 4, "length_penalty": 0.5},
}
PATIENCE = 20.0  # seconds after which a test that forgot to open a gate goes on


@dataclass
class Gate:
    """A place in an answer where it stops until the test opens it, or the client goes away."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)


@dataclass
class Reply:
    """An answer: its body is sent piece by piece."""

    pieces: tuple[bytes | Gate, ...]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What the page sent."""

    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


def event(name: str, data: object) -> bytes:
    """Returns a server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def words(text: str) -> bytes:
    """Returns an event for each word."""
    return b"".join(event("word", {"word": word}) for word in text.split())


def caption(
    text: str,
    confidence: float | None = 0.62,
    others: tuple[tuple[str, float | None], ...] = (),
    attention: list[dict[str, Any]] | None = None,
) -> bytes:
    """Returns the event that ends an answer."""
    sentences = [{"caption": one, "confidence": sure, "log_prob": -7.5} for one, sure in ((text, confidence), *others)]
    times = {"queued": 1.0, "encoding": 20.0, "decoding": 9.0}
    return event("caption", {**sentences[0], "alternatives": sentences, "attention": attention, "timings_ms": times})


def problem(status: int, title: str, detail: str, **headers: str) -> Reply:
    """Returns a refusal in the form of RFC 9457."""
    said = {"type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": "f00d"}
    return Reply((json.dumps(said).encode(),), status, {"Content-Type": "application/problem+json", **headers})


def found(number: int, text: str = "", **more: object) -> dict[str, Any]:
    """Returns a photograph as a search finds it."""
    said = {"caption": text or f"a dog runs on beach {number}", "confidence": 0.5, "log_prob": -7.5}
    others = [said, {"caption": "a dog sleeps", "confidence": 0.25, "log_prob": -9.5}]
    facts = {"id": number, "name": f"{number}.png", "copies": 1, "sha256": f"{number:064x}", "size": 9, "modified": 1.5}
    return {**said, **facts, "alternatives": others, "score": 1 / number, **more}


def picture(number: int) -> bytes:
    """Returns a picture, whose width tells its number."""
    held = BytesIO()
    Image.new("RGB", (30 + number, 30), "teal").save(held, "PNG")
    return held.getvalue()


def as_json(told: object) -> Reply:
    """Returns an answer in JSON."""
    return Reply((json.dumps(told).encode(),), 200, {"Content-Type": "application/json"})


class StandIn:
    """The replies to come, first asked, first answered; when none is left, each photograph shows a grey cat.

    index: the photographs that every search finds, and that are like every other. searches: replies in place of that.
    sought: what was asked of the index.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.replies: deque[Reply] = deque()
        self.asked: list[Asked] = []
        self.token = ""
        self.model: dict[str, Any] = MODEL
        self.index: list[dict[str, Any]] = []
        self.searches: deque[Reply] = deque()
        self.sought: list[tuple[str, dict[str, str]]] = []

    def search(self, path: str, query: dict[str, str]) -> Reply:
        """Returns the answer to a question about the index."""
        *_, number, what = ["", *path.split("/")]
        if path in ("/v1/search", "/v1/similar"):
            self.sought.append((path, query))
            if self.searches:
                return self.searches.popleft()
            photos = [each for each in self.index if str(each["id"]) != query.get("id")]
            return as_json({"photos": photos[: int(query["limit"])], "left_out": 0})
        known = {str(each["id"]): each for each in self.index}
        if what in known:
            return as_json(known[what])
        self.sought.append((path, query))
        if number in known and what in ("thumbnail", "file"):
            return Reply((picture(int(number)),), 200, {"Content-Type": "image/png"})
        return problem(404, "There is no such photograph", "its file is gone")

    def reply(self, asked: Asked) -> Reply:
        """Returns the answer to a request."""
        self.asked.append(asked)
        if self.refuses(asked.headers):
            return problem(401, "The token is wrong", "Give the bearer token of this service.")
        if self.replies:
            return self.replies.popleft()
        return Reply((words("a grey cat"), caption("A grey cat.", 0.62, (("A cat sleeps.", 0.4), ("A dog.", 0.05)))))

    def refuses(self, headers: dict[str, str]) -> bool:
        """Tells whether the token is missing or wrong."""
        return bool(self.token) and headers.get("authorization") != f"Bearer {self.token}"


@contextmanager
def serving() -> Iterator[StandIn]:
    """Serves on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path in FILES:
                name, kind = FILES[path]
                headers = {"Content-Type": kind, "Content-Security-Policy": CSP}
                content = fill((PAGE / name).read_text(encoding="utf-8"), max_rows=256)
                self.answer(Reply((content.encode(),), 200, headers))
            elif path == "/v1/model" and stand_in.refuses(self.lower_headers()):
                self.answer(problem(401, "The token is missing", "Give the bearer token of this service."))
            elif path == "/v1/model":
                self.answer(as_json(stand_in.model))
            elif path.startswith("/v1/") and stand_in.refuses(self.lower_headers()):
                self.answer(problem(401, "The token is wrong", "Give the bearer token of this service."))
            elif path.startswith("/v1/"):
                self.answer(stand_in.search(path, dict(parse_qsl(urlsplit(self.path).query))))
            else:
                self.answer(problem(404, "Not Found", "Nothing is here."))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            address = urlsplit(self.path)
            assert address.path == "/v1/captions/stream"
            self.answer(stand_in.reply(Asked(dict(parse_qsl(address.query)), self.lower_headers(), body)))

        def lower_headers(self) -> dict[str, str]:
            return {name.lower(): value for name, value in self.headers.items()}

        def answer(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in {"Content-Type": "text/event-stream", **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for piece in reply.pieces:
                    if isinstance(piece, bytes):
                        self.wfile.write(piece)
                    else:
                        self.wait(piece)
            except ConnectionError:
                pass

        def wait(self, gate: Gate) -> None:
            gate.reached.set()
            watcher = threading.Thread(target=self.watch, args=(gate,), daemon=True)
            watcher.start()
            gate.opened.wait(PATIENCE)

        def watch(self, gate: Gate) -> None:
            connection: socket.socket = self.connection
            try:
                left = connection.recv(1) == b""
            except OSError:
                left = True
            if left:
                gate.gone.set()
                gate.opened.set()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a browser that hangs up is no error here

    with Server(("127.0.0.1", 0), Handler) as server:
        stand_in = StandIn(f"http://127.0.0.1:{server.server_address[1]}/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield stand_in
        finally:
            server.shutdown()
            thread.join()

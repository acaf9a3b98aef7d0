"""What every request passes through: its id, checks of host and token, counters, a line in the log, error handling."""

import re
import time
import uuid
from collections.abc import Sequence
from hmac import compare_digest

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.hosts import Hosts
from serving.http.logs import log
from serving.http.metrics import Metrics
from serving.http.page_files import PAGE
from serving.http.problems import Problem
from serving.http.reports import Report

ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
OPEN = {*PAGE, "/healthz", "/readyz", "/openapi.json"}  # to callers without a token
PHOTOGRAPHS = "/v1/search", "/v1/similar", "/v1/photos/"  # what they are is nobody's business but the page's
NUMBER = re.compile(r"(?<=/)[0-9]+(?=/|$)")
GONE = 499  # nginx's status for a client that did not wait
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Gate:
    """ASGI middleware around the service. tokens: a request must have one of them; without any, all are let in."""

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, tokens: Sequence[bytes], paths: frozenset[str], hosts: Hosts
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.tokens = tokens
        self.paths = paths
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = _Visit(scope, receive, send)
        self.metrics.in_progress.inc()
        try:
            await self._enter(visit)
        finally:
            self.metrics.in_progress.dec()
            self._note(visit)

    async def _enter(self, visit: "_Visit") -> None:
        try:
            self._check(visit)
            await self.app(visit.asked, visit.receive, visit.send)
        except ClientDisconnect:
            pass
        except Exception as error:
            problem = visit.report.tell(error, "answer")
            if not visit.status:
                await problem.response(visit.report.request_id)(visit.scope, visit.receive, visit.send)

    def _check(self, visit: "_Visit") -> None:
        self.hosts.check_host(visit.headers)
        if visit.scope["method"] == "POST" or visit.path.startswith(PHOTOGRAPHS):
            self.hosts.check_site(visit.headers)
        if self.tokens and visit.path not in OPEN and not self._knows(visit.headers.get("authorization", "")):
            challenge = {"WWW-Authenticate": "Bearer"}
            raise Problem("token", "send the header `Authorization: Bearer` with a token of this service", challenge)

    def _knows(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        given = token.strip(" \t").encode("latin-1")
        matches = [compare_digest(given, known) for known in self.tokens]  # all, so that the time reveals nothing
        return scheme.lower() == "bearer" and any(matches)

    def _note(self, visit: "_Visit") -> None:
        status = visit.status if visit.complete else GONE
        seconds = time.perf_counter() - visit.began
        path = NUMBER.sub("{id}", visit.path)
        path = path if path in self.paths else "other"
        method = visit.scope["method"] if visit.scope["method"] in METHODS else "other"
        self.metrics.add(method, path, status, seconds)
        self.metrics.add_problems(visit.report.problems)
        self.metrics.bytes_received.inc(visit.received)
        client = visit.scope.get("client") or ("",)
        said = {"request_id": visit.report.request_id, "method": method, "path": visit.scope["path"][:200]}
        said |= {"status": status, "problems": [kind for kind, _ in visit.report.problems]}
        log.info("request", extra=said | {"seconds": round(seconds, 6), "bytes": visit.received, "client": client[0]})


class _Visit:
    """One request and the state of its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.began = time.perf_counter()
        self.headers = Headers(scope=scope)
        named = self.headers.get("x-request-id", "")
        self.report = Report(named if ID.fullmatch(named) else uuid.uuid4().hex)
        scope.setdefault("state", {})["report"] = self.report
        self.scope = scope
        self.path = scope["path"].removeprefix(scope.get("root_path", ""))  # without the path at which it is mounted
        self.status = 0
        self.complete = False
        self.received = 0
        self._head = scope["method"] == "HEAD"
        self._waits = self.headers.get("expect", "").lower() == "100-continue"  # until it is asked for its body
        self._receive, self._send = receive, send

    @property
    def asked(self) -> Scope:
        """The scope for the service: HEAD becomes GET, whose body is then left out."""
        return {**self.scope, "method": "GET"} if self._head else self.scope

    async def receive(self) -> Message:
        """Counts the bytes that arrive."""
        self._waits = False
        message = await self._receive()
        self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Adds the headers of every answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.report.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers.setdefault("Cache-Control", "no-store")
            if self._waits:  # the client may or may not send its body now
                headers["Connection"] = "close"
        elif self._head:
            message = {**message, "body": b""}
        await self._send(message)
        self.complete = message["type"] == "http.response.body" and not message.get("more_body", False)

"""Errors as RFC 9457 problems: which error is which status, and what a stranger may read of it. Knows no routes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from pydantic import BaseModel, Field
from starlette.responses import Response

from engine import ClosedError, DeadlineError, DeviceError, ImageError, OptionsError, OverloadedError

MEDIA_TYPE = "application/problem+json"
RETRY = {"Retry-After": "1"}  # seconds: each batch that starts makes room in the queue
LONGEST_DETAIL = 300  # characters: a message may quote what the client sent
FOR_PROGRAMS = re.compile(r"; (raise max_pixels|name it in formats) if you trust it$|: pip install .* brings it$")
"""Advice of the engine's, which no client can follow."""


class ProblemBody(BaseModel):
    """An RFC 9457 problem. `type` and `title` are the same for all problems of one kind, `detail` is this one's."""

    type: str = Field(examples=["urn:captioning:image"])
    title: str = Field(examples=["The image cannot be captioned"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["2,048 bytes: is not an image of a known format, or its header is broken"])
    request_id: str = Field(examples=["5f0c1b6e0d7a4c3f9a55a2d7b1c9e8f4"])


TITLES = {
    "image": (422, "The image cannot be captioned"),
    "options": (422, "An option is unknown or has a value that makes no sense"),
    "body": (400, "The body cannot be read"),
    "too-large": (413, "The request is larger than the service takes"),
    "media-type": (415, "The body is of a type that the service does not take"),
    "slow": (408, "The body did not arrive in time"),
    "token": (401, "The bearer token is missing or wrong"),
    "cross-site": (403, "A page of another site may not ask"),
    "host": (421, "The request is meant for another host"),
    "overloaded": (429, "The service is busy"),
    "closing": (503, "The service is not available"),
    "device": (503, "The computation failed"),
    "deadline": (504, "The caption took too long"),
    "internal": (500, "The service failed"),
}


@dataclass(slots=True)
class Problem(Exception):  # noqa: N818 - the RFC's word
    """What went wrong, as a client may read it; kind is a key of TITLES."""

    kind: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return TITLES[self.kind][0]

    def body(self, request_id: str) -> ProblemBody:
        """Returns the JSON body."""
        status, title = TITLES[self.kind]
        detail = printable(self.detail)
        return ProblemBody(
            type=f"urn:captioning:{self.kind}", title=title, status=status, detail=detail, request_id=request_id
        )

    def response(self, request_id: str) -> Response:
        """Returns the response."""
        return respond(self.body(request_id), self.headers)


def respond(body: ProblemBody, headers: Mapping[str, str]) -> Response:
    """Returns a response with a problem's body and status."""
    return Response(body.model_dump_json(), body.status, dict(headers), MEDIA_TYPE)


def http_problem(status: int, request_id: str) -> ProblemBody:
    """Returns the problem of a status that says all there is to say: no such path, wrong method."""
    phrase = HTTPStatus(status)
    return ProblemBody(
        type="about:blank", title=phrase.phrase, status=status, detail=phrase.description, request_id=request_id
    )


def problem_of(error: BaseException) -> Problem:
    """Returns what a client may know of an error.

    Only messages that speak of what the client sent pass; those of devices and of faults of ours may hold paths.
    """
    match error:
        case Problem():
            return error
        case ImageError():
            return Problem("image", f"the image {FOR_PROGRAMS.sub('', error.reason)}")
        case OptionsError():
            return Problem("options", str(error))
        case OverloadedError():
            return Problem("overloaded", "as many images are waiting as the service holds: try again later", RETRY)
        case ClosedError():
            return Problem("closing", "the service is shutting down: try again later", RETRY)
        case DeadlineError() | TimeoutError():
            return Problem("deadline", "the time for a request passed before its captions were done")
        case DeviceError():
            return Problem("device", "the run that held this image failed on its device: try again", RETRY)
    return Problem("internal", "an error that nobody foresaw; the service's log tells more under this request_id")


def printable(text: str) -> str:
    """Returns text of bounded length on one line, without addresses of objects."""
    text = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>|0x[0-9a-fA-F]{6,}", "…", text)
    text = "".join(sign if sign.isprintable() else " " for sign in text)
    return text if len(text) <= LONGEST_DETAIL else text[: LONGEST_DETAIL - 1] + "…"

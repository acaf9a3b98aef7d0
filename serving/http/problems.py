"""Errors as RFC 9457 problems: the status of each, and what a client may read about it. Knows no routes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from pydantic import BaseModel, Field
from starlette.responses import Response

from engine import ClosedError, DeadlineError, DeviceError, ImageError, OptionsError, OverloadedError, StoreError

MEDIA_TYPE = "application/problem+json"
RETRY = {"Retry-After": "1"}  # seconds: each new batch makes room in the queue
LONGEST_DETAIL = 300  # characters: a message may quote text from the client


class ProblemBody(BaseModel):
    """An RFC 9457 problem. All problems of a kind have the same `type` and `title`; `detail` describes this one."""

    type: str = Field(examples=["urn:captioning:image"])
    title: str = Field(examples=["The image cannot be captioned"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["2,048 bytes: is not an image of a known format, or its header is broken"])
    request_id: str = Field(examples=["5f0c1b6e0d7a4c3f9a55a2d7b1c9e8f4"])


TITLES = {
    "image": (422, "The image cannot be captioned"),
    "options": (422, "An option is unknown or has a value that makes no sense"),
    "body": (400, "The body cannot be read"),
    "photo": (404, "There is no such photograph"),
    "index": (404, "The service has no index of photographs"),
    "vectors": (422, "The model cannot compare photographs"),
    "attention": (400, "The value of attention is wrong, or the model has no attention"),
    "too-large": (413, "The request is too large"),
    "media-type": (415, "The body has a type that the service does not accept"),
    "slow": (408, "The body did not arrive in time"),
    "token": (401, "The bearer token is missing or wrong"),
    "cross-site": (403, "Pages of other sites may not use the service"),
    "host": (421, "The request is for another host"),
    "overloaded": (429, "The service is busy"),
    "closing": (503, "The service is not available"),
    "device": (503, "The computation failed"),
    "store": (503, "The index of photographs cannot be read"),
    "deadline": (504, "The answer took too long"),
    "internal": (500, "The service failed"),
}


@dataclass(slots=True)
class Problem(Exception):  # noqa: N818 - the RFC's word
    """An error in words for the client. kind: a key of TITLES."""

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
    """Returns the problem for a status that needs no details: unknown path, wrong method."""
    phrase = HTTPStatus(status)
    return ProblemBody(
        type="about:blank", title=phrase.phrase, status=status, detail=phrase.description, request_id=request_id
    )


def problem_of(error: BaseException) -> Problem:
    """Returns what a client may know about an error.

    Only messages about what the client sent are passed on; those of devices and of bugs may contain paths.
    """
    match error:
        case Problem():
            return error
        case ImageError():
            return Problem("image", f"the image {error.reason}")
        case OptionsError():
            return Problem("options", str(error))
        case OverloadedError():
            return Problem("overloaded", "the queue is full: try again later", RETRY)
        case ClosedError():
            return Problem("closing", "the service is shutting down: try again later", RETRY)
        case DeadlineError() | TimeoutError():
            return Problem("deadline", "the time for the request was over before its answer was done")
        case DeviceError():
            return Problem("device", "the computation for this image failed on its device: try again", RETRY)
        case StoreError():
            return Problem("store", "the index cannot be read at present: the service's log has details", RETRY)
    return Problem("internal", "an unexpected error; the service's log has details under this request_id")


def printable(text: str) -> str:
    """Returns text on one line, shortened if necessary, without addresses of objects."""
    text = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>|0x[0-9a-fA-F]{6,}", "…", text)
    text = "".join(sign if sign.isprintable() else " " for sign in text)
    return text if len(text) <= LONGEST_DETAIL else text[: LONGEST_DETAIL - 1] + "…"

"""The parts of the OpenAPI description that FastAPI cannot derive: bodies, options, problems, examples."""

from dataclasses import dataclass
from typing import Any

from fastapi import Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from serving import decoding_options
from serving.http import attention
from serving.http.bodies import IMAGES
from serving.http.limits import Limits
from serving.http.problems import MEDIA_TYPE, TITLES, ProblemBody

BEARER = Security(HTTPBearer(scheme_name="bearer", auto_error=False))  # only a description: the gate checks tokens
EVENTS = """event: word
data: {"word": "a"}

event: word
data: {"word": "dog"}

event: caption
data: {"caption": "a dog", "confidence": 0.71, "score": -2.1, "log_prob": -2.1, "finished": true, "alternatives": \
[{"caption": "a dog", "confidence": 0.71, "score": -2.1, "log_prob": -2.1}], "attention": null, \
"timings_ms": {"queued": 1.9, "encoding": 22.4, "decoding": 9.7}}

"""
EVENT = {
    "description": "One event; data is JSON: {word} for word, what /v1/captions has for caption, a problem for error.",
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["word", "caption", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}
NUMBER = {"type": "integer", "minimum": 1, "description": "the number of a photograph"}
Parameter = tuple[str, bool, dict[str, Any], object]  # name, whether it is required, schema and example
EXAMPLES = {
    "greedy": {"summary": "The likeliest word at each step", "value": {"decoding": "greedy"}},
    "beam": {
        "summary": "Beam search with three alternatives",
        "value": {"decoding": "beam", "beam_size": 5, "num_hypotheses": 3, "length_penalty": 0.7},
    },
    "sample": {
        "summary": "Sampling that can be repeated",
        "value": {"decoding": "sample", "temperature": 0.8, "top_p": 0.9, "seed": 7},
    },
}


def text() -> str:
    """Returns the introduction of the description."""
    return (
        "Photographs in, English sentences out. Errors are RFC 9457 problems. Every answer has X-Request-ID, "
        "which a caller may choose (up to 64 letters, digits, dots, dashes and underscores).\n\n## Options\n\n"
        + decoding_options.description()
    )


@dataclass(frozen=True, slots=True)
class Routes:
    """Describes routes for FastAPI. guarded: a token is required; named: only some host names are accepted."""

    limits: Limits
    max_rows: int
    guarded: bool
    named: bool

    def captions(self, *, many: bool) -> dict[str, Any]:
        """Describes a route that captions: many images as JSON, or one image as events."""
        schemas = decoding_options.schemas(self.max_rows) | {attention.NAME: attention.SCHEMA}
        body = self._image_body(schemas, self.limits.max_images if many else 1)
        body["multipart/form-data"]["examples"] = EXAMPLES
        query = [
            {"name": name, "in": "query", "required": False, "schema": schema, "explode": True}
            for name, schema in schemas.items()
        ]
        described = self._route(400, 403, 408, 413, 415, 422, 429, 503, 504)
        responses = described["responses"]
        if not many:
            events = {"schema": EVENT, "examples": {"words": {"value": EVENTS}}}
            told = "Events: word for each word, then caption with the complete caption, or error with a problem."
            responses[200] = {"description": told, "content": {"text/event-stream": events}}
        return described | {"openapi_extra": {"parameters": query, "requestBody": {"required": True, "content": body}}}

    def search(self, most: int, limit: int) -> dict[str, Any]:
        """Describes the route that finds photographs by words; limit: how many if left out."""
        text = {"type": "string", "minLength": 1, "description": "what the photographs show"}
        return self._asks([("q", True, text, "two dogs on a beach"), _limit(most, limit)], 422)

    def like_photo(self, most: int, limit: int) -> dict[str, Any]:
        """Describes the route that finds photographs by one of the index."""
        return self._asks([("id", True, NUMBER, 17), _limit(most, limit)], 422)

    def like_image(self, most: int, limit: int) -> dict[str, Any]:
        """Describes the route that finds photographs by an image."""
        name, _, schema, _ = _limit(most, limit)
        described = self._asks([_limit(most, limit)], 400, 403, 408, 413, 415, 422)
        body = self._image_body({name: schema}, 1)
        return described | {
            "openapi_extra": described["openapi_extra"] | {"requestBody": {"required": True, "content": body}}
        }

    def photo(self) -> dict[str, Any]:
        """Describes the route with the record of a photograph."""
        parameter = {"name": "id", "in": "path", "required": True, "schema": NUMBER}
        return self._route(403, 404, 429, 503, 504) | {"openapi_extra": {"parameters": [parameter]}}

    def picture(self, media_type: str) -> dict[str, Any]:
        """Describes a route with a picture of a photograph."""
        described = self.photo()
        picture = {media_type: {"schema": {"type": "string", "format": "binary"}}}
        described["responses"][200] = {"description": "The picture", "content": picture}
        described["responses"][304] = {"description": "It is the one that If-None-Match names"}
        return described

    def plain(self, model: type[BaseModel], *statuses: int, is_open: bool = False) -> dict[str, Any]:
        """Describes a route that returns JSON. is_open: callers without a token may use it."""
        return {"response_model": model} | self._route(*statuses, is_open=is_open)

    def text(self, media_type: str) -> dict[str, Any]:
        """Describes a route that returns text."""
        described = self._route()
        content = {media_type.split(";")[0]: {"schema": {"type": "string"}}}
        described["responses"][200] = {"description": "Counters", "content": content}
        return described

    def _image_body(self, schemas: dict[str, Any], most: int) -> dict[str, Any]:
        """Describes a body with up to `most` images, and fields with these schemas."""
        image = {"type": "string", "format": "binary"}
        raw = {"schema": image | {"description": f"One image file, up to {self.limits.max_bytes:,} bytes."}}
        several = {"type": "array", "items": image, "minItems": 1, "maxItems": most}
        form = {
            "type": "object",
            "properties": {IMAGES: several, **schemas},
            "required": [IMAGES],
            "additionalProperties": False,
        }
        return {"multipart/form-data": {"schema": form}, "application/octet-stream": raw, "image/*": raw}

    def _asks(self, parameters: list[Parameter], *statuses: int) -> dict[str, Any]:
        """Describes a route that asks the index, with query parameters."""
        query = [
            {"name": name, "in": "query", "required": required, "schema": schema, "example": example}
            for name, required, schema, example in parameters
        ]
        described = self._route(403, 404, 429, 503, 504, *statuses)
        return described | {"openapi_extra": {"parameters": query}}

    def _route(self, *statuses: int, is_open: bool = False) -> dict[str, Any]:
        guarded = self.guarded and not is_open
        titles: dict[int, list[str]] = {}
        for status, title in TITLES.values():
            titles.setdefault(status, []).append(title)
        always = {500} | ({401} if guarded else set()) | ({421} if self.named else set())
        schema = {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}
        responses: dict[int | str, dict[str, Any]] = {
            status: {"description": "; ".join(titles[status]), "content": {MEDIA_TYPE: {"schema": schema}}}
            for status in sorted(always.union(statuses))
        }
        if 429 in responses:
            wait = {"schema": {"type": "integer"}, "description": "Seconds to wait before the next try."}
            responses[429]["headers"] = {"Retry-After": wait}
        return {"responses": responses, "dependencies": [BEARER] if guarded else []}


def _limit(most: int, limit: int) -> Parameter:
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": limit, "description": "most photographs"}
    return "limit", False, schema, limit

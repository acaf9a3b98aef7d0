"""The OpenAPI description, as far as FastAPI does not see it: bodies, options, problems, examples. Answers nothing."""

from typing import Any

from pydantic import BaseModel

from serving.http import options
from serving.http.bodies import IMAGES
from serving.http.limits import Limits
from serving.http.problems import MEDIA_TYPE, TITLES, ProblemBody

EVENTS = """event: word
data: {"word": "a"}

event: word
data: {"word": "dog"}

event: caption
data: {"caption": "a dog", "confidence": 0.71, "score": -2.1, "log_prob": -2.1, "finished": true, "alternatives": \
[{"caption": "a dog", "confidence": 0.71, "score": -2.1, "log_prob": -2.1}], "timings_ms": {"queued": 1.9, \
"encoding": 22.4, "decoding": 9.7}}

"""
EVENT = {
    "description": "Each event; data is JSON: {word} for word, a caption as /v1/captions has it, a problem for error.",
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["word", "caption", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}
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
    """Returns what the service says of itself."""
    return (
        "Photographs in, English sentences out. Errors are RFC 9457 problems. Every answer carries X-Request-ID, "
        "which a caller may choose (up to 64 letters, digits, dots, dashes and underscores).\n\n## Options\n\n"
        + options.description()
    )


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the responses of some statuses, for FastAPI."""
    titles: dict[int, list[str]] = {}
    for status, title in TITLES.values():
        titles.setdefault(status, []).append(title)
    schema = {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}
    return {
        status: {"description": "; ".join(titles[status]), "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({401, 500, *statuses})
    }


def captions(limits: Limits, *, many: bool) -> dict[str, Any]:
    """Returns the description of a route that captions, for FastAPI: many images as JSON, or one as events."""
    schemas = options.schemas()
    image = {"type": "string", "format": "binary"}
    raw = {"schema": image | {"description": f"One image file, up to {limits.max_bytes:,} bytes."}}
    several = {"type": "array", "items": image, "minItems": 1, "maxItems": limits.max_images if many else 1}
    form = {
        "schema": {
            "type": "object",
            "properties": {IMAGES: several, **schemas},
            "required": [IMAGES],
            "additionalProperties": False,
        },
        "examples": EXAMPLES,
    }
    query = [
        {"name": name, "in": "query", "required": False, "schema": schema, "explode": True}
        for name, schema in schemas.items()
    ]
    body = {"multipart/form-data": form, "application/octet-stream": raw, "image/*": raw}
    responses: dict[int | str, dict[str, Any]] = problems(400, 403, 408, 413, 415, 422, 429, 503, 504)
    responses[429]["headers"] = {
        "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait before trying again."}
    }
    described: dict[str, Any] = {
        "responses": responses,
        "openapi_extra": {"parameters": query, "requestBody": {"required": True, "content": body}},
    }
    if not many:
        events = {"schema": EVENT, "examples": {"words": {"value": EVENTS}}}
        told = "Events: word for each word, then caption with the whole, or error with a problem."
        responses[200] = {"description": told, "content": {"text/event-stream": events}}
    return described


def plain(model: type[BaseModel], *statuses: int) -> dict[str, Any]:
    """Returns the description of a route that tells something, for FastAPI."""
    return {"response_model": model, "responses": problems(*statuses)}


def text_response(media_type: str) -> dict[str, Any]:
    """Returns the description of a route that answers with text, for FastAPI."""
    content = {media_type.split(";")[0]: {"schema": {"type": "string"}}}
    return {"responses": problems() | {200: {"description": "Counters", "content": content}}}

"""The JSON of photographs in an index, and how the engine's become it. Tells names of files, and no folders."""

from math import isfinite

from pydantic import BaseModel, Field

from engine import Photo, Results, Sentence
from serving.http.photo_file import base_name


class Said(BaseModel):
    """A sentence of a photograph. confidence is null if the model is not calibrated."""

    caption: str = Field(examples=["a dog runs over the grass"])
    confidence: float | None = Field(examples=[0.71])
    log_prob: float = Field(examples=[-5.2])


class Photograph(BaseModel):
    """A photograph in the index, with its caption.

    id: the same as long as the photograph is in the index. name: of its file, of several equal ones the first. copies:
    files with these bytes. size: in bytes. modified: seconds since 1970. alternatives: best first, caption included.
    """

    id: int = Field(examples=[17])
    name: str = Field(examples=["beach.jpg"])
    copies: int
    caption: str = Field(examples=["a dog runs over the grass"])
    confidence: float | None = Field(examples=[0.71])
    log_prob: float = Field(examples=[-5.2])
    alternatives: list[Said]
    sha256: str
    size: int
    modified: float


class FoundPhotograph(Photograph):
    """A photograph that was found. score: higher is better; scores of different searches cannot be compared."""

    score: float = Field(examples=[0.52])


class FoundPhotographs(BaseModel):
    """What a search found, best first. left_out: photographs that were not searched: another model captioned them."""

    model: str = Field(examples=["everyday"])
    request_id: str = Field(examples=["5f0c1b6e0d7a4c3f9a55a2d7b1c9e8f4"])
    photos: list[FoundPhotograph]
    left_out: int


def photograph(photo: Photo) -> Photograph:
    """Returns a photograph in the form of the answer."""
    said = [_said(each) for each in photo.alternatives]
    return Photograph(
        **dict(said[0]),
        id=photo.id,
        name=base_name(photo.path),
        copies=len(photo.paths),
        sha256=photo.sha256,
        size=photo.size,
        modified=photo.modified,
        alternatives=said,
    )


def found(results: Results, model: str, request_id: str) -> FoundPhotographs:
    """Returns the answer to a search. model: the name of the one that captioned the photographs."""
    photos = [FoundPhotograph(**dict(photograph(each.photo)), score=round(each.score, 4)) for each in results]
    return FoundPhotographs(model=model, request_id=request_id, photos=photos, left_out=results.left_out)


def _said(one: Sentence) -> Said:
    confidence = one.confidence if isfinite(one.confidence) else None
    return Said(caption=one.text, confidence=confidence, log_prob=one.log_prob)

"""The JSON of the service's answers, and how captions become it. Knows no requests."""

from pydantic import BaseModel, Field

from engine import Caption, Timings
from serving.http.problems import ProblemBody
from serving.sentence import sentence

DIGITS = 4  # of a number of a map


class Sentence(BaseModel):
    """A sentence. confidence is null if the model is not calibrated; score ranks the sentences of one image."""

    caption: str = Field(examples=["a dog runs over the grass"])
    confidence: float | None = Field(examples=[0.71])
    score: float | None = Field(examples=[-5.2])
    log_prob: float | None = Field(examples=[-5.2])


class TimingsMs(BaseModel):
    """Milliseconds that a request took in each stage."""

    queued: float = Field(examples=[1.9])
    encoding: float = Field(examples=[22.4])
    decoding: float = Field(examples=[9.7])


class Looked(BaseModel):
    """Where the model looked for a word: a grid over the image as the model saw it, in rows, which sums to 1."""

    word: str = Field(examples=["dog"])
    map: list[list[float]] = Field(examples=[[[0.1, 0.2], [0.3, 0.4]]])


class Captioned(Sentence):
    """The caption of an image. finished: false if max_length cut it off. alternatives: best first, caption included.

    attention: of the caption's words, if asked for.
    """

    finished: bool
    alternatives: list[Sentence]
    attention: list[Looked] | None
    timings_ms: TimingsMs | None


class Failed(BaseModel):
    """Why one of several images has no caption."""

    error: ProblemBody


class Answer(BaseModel):
    """The captions of a request, in the order of its images."""

    model: str = Field(examples=["everyday"])
    request_id: str = Field(examples=["5f0c1b6e0d7a4c3f9a55a2d7b1c9e8f4"])
    captions: list[Captioned | Failed]


class Model(BaseModel):
    """The model, and the limits of requests."""

    name: str
    encoder: str
    provider: str
    precision: str
    vocabulary_size: int
    image_size: list[int] = Field(description="height and width to which images are resized")
    image_resize: str = Field(description="how: squash, crop or letterbox")
    attention: bool = Field(description="whether requests may ask where the model looked")
    calibrated: bool = Field(description="whether captions have a confidence")
    search: bool = Field(description="whether the service has an index of photographs to search")
    similar: bool = Field(description="whether photographs of the index can be found by likeness")
    defaults: dict[str, object] = Field(description="values of options that are left out")
    limits: dict[str, int | float] = Field(description="bytes and images of a request, seconds, pixels of an image")


class State(BaseModel):
    """The state of the service."""

    status: str = Field(examples=["ok"])


def captioned(caption: Caption, timings: Timings | None) -> Captioned:
    """Returns a caption in the form of the answer."""
    return Captioned(
        **sentence(caption),
        finished=caption.finished,
        alternatives=[Sentence(**sentence(one)) for one in caption.alternatives],
        attention=_looked(caption),
        timings_ms=_milliseconds(timings) if timings else None,
    )


def _looked(caption: Caption) -> list[Looked] | None:
    if caption.attention is None:
        return None
    maps = caption.attention.astype(float).round(DIGITS).tolist()
    # the tokens of a finished sentence end in one that is no word and has no map
    return [Looked(word=word, map=rows) for word, rows in zip(caption.tokens, maps, strict=False)]


def _milliseconds(timings: Timings) -> TimingsMs:
    stages = {"queued": timings.queued, "encoding": timings.encoding, "decoding": timings.decoding}
    return TimingsMs(**{name: round(1000 * seconds, 3) for name, seconds in stages.items()})

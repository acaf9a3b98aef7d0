"""The JSON that the service answers with: its records, and how they are made of captions. Knows no requests."""

from pydantic import BaseModel, Field

from engine import Caption, Timings
from serving.http.problems import ProblemBody
from serving.sentence import sentence


class Sentence(BaseModel):
    """A sentence. confidence is null where the model is not calibrated; score ranks the sentences of one image."""

    caption: str = Field(examples=["a dog runs over the grass"])
    confidence: float | None = Field(examples=[0.71])
    score: float | None = Field(examples=[-5.2])
    log_prob: float | None = Field(examples=[-5.2])


class TimingsMs(BaseModel):
    """Milliseconds that a request waited and computed."""

    queued: float = Field(examples=[1.9])
    encoding: float = Field(examples=[22.4])
    decoding: float = Field(examples=[9.7])


class Captioned(Sentence):
    """The caption of an image; finished is false where max_length cut it off; alternatives hold it too, best first."""

    finished: bool
    alternatives: list[Sentence]
    timings_ms: TimingsMs | None


class Failed(BaseModel):
    """Why one of several images has no caption."""

    error: ProblemBody


class Answer(BaseModel):
    """The captions of a request, in the order of its images."""

    model: str = Field(examples=["flickr8k"])
    request_id: str = Field(examples=["5f0c1b6e0d7a4c3f9a55a2d7b1c9e8f4"])
    captions: list[Captioned | Failed]


class Model(BaseModel):
    """The model that answers, and what the service takes."""

    name: str
    encoder: str
    provider: str
    precision: str
    vocabulary_size: int
    image_size: list[int] = Field(description="height and width that images are brought to")
    calibrated: bool = Field(description="whether captions have a confidence")
    defaults: dict[str, object] = Field(description="what options mean that are left out")
    limits: dict[str, int | float] = Field(description="bytes and images of a request, seconds, pixels of an image")


class State(BaseModel):
    """How the service is."""

    status: str = Field(examples=["ok"])


def captioned(caption: Caption, timings: Timings | None) -> Captioned:
    """Returns a caption as it is answered."""
    return Captioned(
        **sentence(caption),
        finished=caption.finished,
        alternatives=[Sentence(**sentence(one)) for one in caption.alternatives],
        timings_ms=_milliseconds(timings) if timings else None,
    )


def _milliseconds(timings: Timings) -> TimingsMs:
    stages = {"queued": timings.queued, "encoding": timings.encoding, "decoding": timings.decoding}
    return TimingsMs(**{name: round(1000 * seconds, 3) for name, seconds in stages.items()})

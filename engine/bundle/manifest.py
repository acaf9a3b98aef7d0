"""The manifest of a bundle as typed records. Owns the JSON's shape; touches no file."""

import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

FORMAT_VERSION = 4
RESIZE_RULES = ("squash", "crop", "letterbox")
RESAMPLE_FILTERS = ("nearest", "box", "bilinear", "bicubic", "lanczos")
DTYPES = ("float32", "float16", "int64", "int32")
"""Types that state and context may have."""
Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How an image becomes the encoder's input: resized to height x width, then (pixel - mean) / std.

    mean and std are per channel, red green blue, in units of uint8 pixels (0 to 255). resize is one of RESIZE_RULES:
    "squash" shows all of the image and does not keep its aspect ratio, "crop" shows the largest part in its middle
    that has the aspect ratio of height x width, "letterbox" shows all of it with `fill` on two sides. resample is one
    of RESAMPLE_FILTERS, as Pillow has them.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: str = "squash"
    resample: str = "bicubic"

    @property
    def fill(self) -> tuple[int, int, int]:
        """The mean as a colour, which the encoder sees as nothing."""
        red, green, blue = (min(255, max(0, round(level))) for level in self.mean)
        return red, green, blue


@dataclass(frozen=True, slots=True)
class Defaults:
    """What decoding options mean when the caller leaves them out. bad_endings: words that no caption may end in."""

    max_length: int = 20
    beam_size: int = 3
    length_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    bad_endings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a graph; a str in `shape` names a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class StateTensor:
    """A part of the state that a decoder carries from word to word, one row for each sentence.

    The graph decoder_init returns it as `name`; a step takes it as `name` and returns it as `next`. shape: of a row.
    """

    name: str
    next: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ContextTensor:
    """What a decoder reads of an image at every step, such as an attention grid; the sentences of an image share it.

    The graph decoder_init returns it as `name`, and the steps take it as `name`. shape: of an image's row.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """What the special words of a vocabulary are, and how text is split into words.

    start, end: begin and end every sentence, and may be the same word. pad, unk: stand for padding and for unknown
    words; the same as end where a vocabulary has none. pattern: a regular expression that matches one word of a text,
    which is lower-cased first if lowercase is set.
    """

    start: str
    end: str
    pad: str
    unk: str
    pattern: str
    lowercase: bool


@dataclass(frozen=True, slots=True)
class GraphFile:
    """One ONNX file: which graph it is, in which precision, and the external weight files (`data`) it needs."""

    graph: str
    precision: str
    file: str
    sha256: str
    data: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """What a precision of the bundle was measured to be worth; `precision="auto"` chooses by it.

    cider: on the dev split, by the default decoding, the mean over data sets where there are several; None where nobody
    measured it. images_per_second: by provider, on the machine that exported. record: how the variant was made, for
    people: calibration, layers left in fp32.
    """

    cider: float | None = None
    images_per_second: dict[str, float] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a bundle says of itself. The dictionaries at the end are records for people, not settings.

    feature_shape: of an image's features. vector_size: of the vectors by which images and texts are compared; 0 if the
    bundle has no graphs for them. attention: the shape of the map of the image that decoder_step returns as
    `attention`; empty if the decoder has none. confidence: what a caption's confidence is computed with; empty where
    nobody calibrated it. quality: scores as training.evaluate writes them, or by the name of the data where they are of
    several data sets.
    """

    name: str
    encoder: str
    feature_shape: tuple[int, ...]
    state: tuple[StateTensor, ...]
    context: tuple[ContextTensor, ...]
    attention: tuple[int, ...]
    vector_size: int
    vocabulary_size: int
    words: Words
    image: ImageSpec
    defaults: Defaults
    graphs: tuple[GraphFile, ...]
    data_sha256: dict[str, str]
    variants: dict[str, Variant] = field(default_factory=dict)
    confidence: dict[str, float] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the manifest as plain JSON values, the format version first."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Manifest":
        """Reads what `to_dict` wrote. Raises ValueError that lists every missing, unknown or mistyped field."""
        problems: list[str] = []
        manifest = _read(cls, {k: v for k, v in data.items() if k != "format_version"}, "manifest", problems)
        if problems:
            raise ValueError("; ".join(problems))
        return typing.cast(Manifest, manifest)


def _read(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    """Converts a JSON value to the annotated type `kind`, adding a sentence to `problems` for each misfit."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        return _read_record(kind, value, where, problems)
    if origin is tuple and isinstance(value, list | tuple):
        if arguments[-1] is Ellipsis:
            return tuple(_read(arguments[0], item, f"{where}[{i}]", problems) for i, item in enumerate(value))
        if len(value) == len(arguments):
            pairs = zip(arguments, value, strict=True)
            return tuple(_read(part, item, f"{where}[{i}]", problems) for i, (part, item) in enumerate(pairs))
    elif origin is dict and isinstance(value, dict):
        return {key: _read(arguments[1], item, f"{where}.{key}", problems) for key, item in value.items()}
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif kind is Any or (origin is types.UnionType and isinstance(value, arguments)):
        return value
    elif isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    problems.append(f"{where} is {value!r}, which is not {getattr(kind, '__name__', kind)}")
    return None


def _read_record(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{where} is {value!r}, which is not an object")
        return None
    types_by_name = typing.get_type_hints(kind)
    known = {f.name for f in fields(kind)}
    problems += [f"{where}.{name} is unknown" for name in sorted(value.keys() - known)]
    missing = sorted(known - value.keys())
    problems += [f"{where}.{name} is missing" for name in missing]
    there = sorted(known & value.keys())
    parts = {name: _read(types_by_name[name], value[name], f"{where}.{name}", problems) for name in there}
    return None if missing else kind(**parts)

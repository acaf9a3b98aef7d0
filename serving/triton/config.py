"""The settings of a model, their checks, and the config.pbtxt that passes them to Triton. Writes no file."""

import json
import re
from dataclasses import dataclass, field, fields
from typing import Any

from engine import OptionsError
from serving.http.limits import MAX_PIXELS

PROVIDERS = {"cpu": ("auto", "cpu", "openvino"), "gpu": ("auto", "cuda", "tensorrt", "tensorrt-rtx")}
MOST_THREADS = 4096
WARMUP = "photograph"  # the file in the folder warmup/ that Triton sends to a version before it is ready
ENGINE = "provider", "precision", "threads", "max_rows", "max_in_flight", "max_pixels", "timeout"
"""The settings in the model's parameters; formats only if there are any, because other tools drop empty texts."""
PARAMETER = re.compile(r'key:\s*"(\w+)"\s*value:?\s*\{\s*string_value:\s*"([^"]*)"')
NUMBERED = re.compile(r"\b(max_batch_size|kind):\s*(?:KIND_)?(\w+)")
TEMPLATE = """\
# Written by `python -m serving.triton_repository`; docs/triton.md explains each line.
backend: "python"
max_batch_size: {max_batch_size}
input [ {{ name: "image" data_type: TYPE_STRING dims: [ 1 ] }} ]
output [
  {{ name: "caption" data_type: TYPE_STRING dims: [ 1 ] }},
  {{ name: "confidence" data_type: TYPE_FP64 dims: [ 1 ] }},
  {{ name: "log_prob" data_type: TYPE_FP64 dims: [ 1 ] }},
  {{ name: "alternatives" data_type: TYPE_STRING dims: [ 1 ] }}
]
version_policy {{ latest {{ num_versions: {versions} }} }}
instance_group [ {{ kind: KIND_{kind} count: {instances} }} ]
dynamic_batching {{
  max_queue_delay_microseconds: {delay}
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {timeout}
    allow_timeout_override: true
    max_queue_size: {max_queue}
  }}
}}
model_warmup [ {{
  name: "{warmup}"
  batch_size: 1
  inputs {{ key: "image" value {{ data_type: TYPE_STRING dims: [ 1 ] input_data_file: "{warmup}" }} }}
}} ]
"""


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a model repository is written with; each is an option of the command line. Raises OptionsError."""

    name: str = _setting("captions", "the model's name")
    kind: str = _setting("cpu", "cpu or gpu")
    instances: int = _setting(1, "processes, on each GPU with --kind gpu")
    provider: str = _setting("auto", "the engine's provider; with --kind gpu auto is cuda, so that nothing falls back")
    precision: str = _setting("auto", "a precision of the bundle, or auto")
    threads: int = _setting(0, "CPU threads of an instance; 0: one for each core")
    max_batch_size: int = _setting(32, "most images of a request, and of one run of the encoder")
    max_wait_ms: float = _setting(2.0, "longest time that Triton waits for more requests")
    max_rows: int = _setting(256, "most sentences that are decoded at the same time in an instance")
    max_in_flight: int = _setting(128, "most images that an instance works on; others wait in Triton's queue")
    max_pixels: int = _setting(MAX_PIXELS, "most pixels of an image")
    formats: str = _setting("", "read only these formats, by Pillow's names (JPEG,PNG); empty: those of photographs")
    max_queue: int = _setting(256, "most requests of a priority that wait in Triton's queue")
    timeout: float = _setting(30.0, "seconds for waiting there, then for captioning, unless a request has its own")
    versions: int = _setting(1, "newest versions that are served")

    def __post_init__(self) -> None:
        named = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name) is not None
        self._require("name", named, "letters, digits, '_', '-' and '.', without '-' or '.' at the start")
        self._require("kind", self.kind in PROVIDERS, "cpu or gpu")
        for name in ("instances", "max_batch_size", "max_rows", "max_in_flight", "max_pixels", "max_queue", "versions"):
            self._require(name, 1 <= getattr(self, name) < 2**31, f"a whole number from 1 to {2**31 - 1:,}")
        self._require("threads", 0 <= self.threads <= MOST_THREADS, f"a whole number from 0 to {MOST_THREADS:,}")
        named = re.fullmatch(r"([A-Za-z0-9]+(,[A-Za-z0-9]+)*)?", self.formats) is not None
        self._require("formats", named, "names of formats separated by commas, such as JPEG,PNG")
        self._require("max_wait_ms", 0 <= self.max_wait_ms <= 60_000, "a number from 0 to 60,000")
        self._require("timeout", 0.001 <= self.timeout <= 86_400, "a number of seconds from 0.001 to 86,400")
        enough = self.max_in_flight >= self.max_batch_size
        self._require("max_in_flight", enough, f"at least max_batch_size ({self.max_batch_size})")
        fitting = PROVIDERS[self.kind]
        known = self.provider.partition("+")[0] in fitting  # "cuda+cpu": the decoder on another
        self._require("provider", known, f"one of {', '.join(fitting)} with --kind {self.kind}")

    def text(self) -> str:
        """Returns the config.pbtxt."""
        body = TEMPLATE.format(
            max_batch_size=self.max_batch_size,
            versions=self.versions,
            kind=self.kind.upper(),
            instances=self.instances,
            delay=round(self.max_wait_ms * 1000),
            timeout=round(self.timeout * 1e6),
            max_queue=self.max_queue,
            warmup=WARMUP,
        )
        model: dict[str, Any] = {name: getattr(self, name) for name in ENGINE}
        if self.formats:
            model["formats"] = self.formats
        if (self.kind, self.provider) == ("gpu", "auto"):
            model["provider"] = "cuda"
        lines = (
            f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(str(value))} }} }}\n"
            for key, value in model.items()
        )
        return body + "".join(lines)

    @classmethod
    def read(cls, name: str, text: str) -> "Settings":
        """Reads the engine's settings from a config.pbtxt; the others have their defaults. Raises OptionsError."""
        said = dict(PARAMETER.findall(text)) | {key: value.lower() for key, value in NUMBERED.findall(text)}
        if missing := [key for key in ("kind", "max_batch_size", *ENGINE) if key not in said]:
            raise OptionsError(
                f"config.pbtxt of the model {name} lacks {', '.join(missing)}; an earlier release may have written it: "
                "write the model again with --overwrite"
            )
        kinds: dict[str, Any] = {each.name: type(each.default) for each in fields(cls)}
        try:
            return cls(name=name, **{key: kinds[key](value) for key, value in said.items() if key in kinds})
        except ValueError as error:
            raise OptionsError(f"config.pbtxt of the model {name} cannot be read: {error}") from error

    def _require(self, name: str, condition: bool, what: str) -> None:
        if not condition:
            raise OptionsError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be {what}")

"""A model's settings and the config.pbtxt that says them to Triton. Owns their checks; writes no file."""

import json
import re
from dataclasses import dataclass, fields
from typing import Any

from engine import OptionsError

PROVIDERS = {"cpu": ("auto", "cpu", "openvino"), "gpu": ("auto", "cuda", "tensorrt", "tensorrt-rtx")}
MOST_THREADS = 4096
WARMUP = "photograph"  # the file in the folder warmup/ that Triton sends before a version is ready
ENGINE = "provider", "precision", "threads", "max_rows", "max_in_flight", "max_pixels", "timeout"
"""The settings that the model's parameters say; formats only where they are named, as other tools drop empty texts."""
PARAMETER = re.compile(r'key:\s*"(\w+)"\s*value:?\s*\{\s*string_value:\s*"([^"]*)"')
NUMBERED = re.compile(r"\b(max_batch_size|kind):\s*(?:KIND_)?(\w+)")
TEMPLATE = """\
# Written by `python -m serving.triton_repository`; what each line means is told in docs/triton.md.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a model repository is written with. Raises OptionsError.

    name: the model's name. provider, precision, threads: as the engine has them; kind: "cpu" or "gpu", where "gpu"
    makes provider "auto" mean "cuda", so that nothing falls back in silence. instances: processes, on each GPU if kind
    is "gpu". max_batch_size: most images of a request, and of an encoder's run. max_wait_ms: longest time that Triton
    waits for more requests. max_rows: most sentences that grow at once. max_in_flight: most images under way in an
    instance; what comes beyond waits in Triton's queue. max_pixels: most of an image. formats: those that are read, by
    Pillow's names with commas between; "" are those that photographs come in. max_queue: most requests of a priority
    that wait in Triton's queue, timeout: seconds that one may wait there, and again seconds in which it has to be
    captioned, unless it says otherwise. versions: newest versions that are served.
    """

    name: str = "captions"
    kind: str = "cpu"
    instances: int = 1
    provider: str = "auto"
    precision: str = "auto"
    threads: int = 0
    max_batch_size: int = 32
    max_wait_ms: float = 2.0
    max_rows: int = 256
    max_in_flight: int = 128
    max_pixels: int = 50_000_000
    formats: str = ""
    max_queue: int = 256
    timeout: float = 30.0
    versions: int = 1

    def __post_init__(self) -> None:
        named = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name) is not None
        self._require("name", named, "letters, digits, '_', '-' and '.', not starting with '-' or '.'")
        self._require("kind", self.kind in PROVIDERS, "cpu or gpu")
        for name in ("instances", "max_batch_size", "max_rows", "max_in_flight", "max_pixels", "max_queue", "versions"):
            self._require(name, 1 <= getattr(self, name) < 2**31, f"a whole number from 1 to {2**31 - 1:,}")
        self._require("threads", 0 <= self.threads <= MOST_THREADS, f"a whole number from 0 to {MOST_THREADS:,}")
        named = re.fullmatch(r"([A-Za-z0-9]+(,[A-Za-z0-9]+)*)?", self.formats) is not None
        self._require("formats", named, "names of formats with commas between, such as JPEG,PNG")
        self._require("max_wait_ms", 0 <= self.max_wait_ms <= 60_000, "a number from 0 to 60,000")
        self._require("timeout", 0.001 <= self.timeout <= 86_400, "seconds from 0.001, up to a day")
        enough = self.max_in_flight >= self.max_batch_size
        self._require("max_in_flight", enough, f"at least max_batch_size ({self.max_batch_size})")
        fitting = PROVIDERS[self.kind]
        known = self.provider.partition("+")[0] in fitting  # "cuda+cpu": the decoder on another
        self._require("provider", known, f"one of {', '.join(fitting)}, as kind is {self.kind}")

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
        """Returns what a config.pbtxt says of the engine; the other settings are defaults. Raises OptionsError."""
        said = dict(PARAMETER.findall(text)) | {key: value.lower() for key, value in NUMBERED.findall(text)}
        if missing := [key for key in ("kind", "max_batch_size", *ENGINE) if key not in said]:
            raise OptionsError(
                f"config.pbtxt of the model {name} does not say {', '.join(missing)}, as an earlier release wrote it: "
                "write the model again with --overwrite"
            )
        kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(cls)}
        try:
            return cls(name=name, **{key: kinds[key](value) for key, value in said.items() if key in kinds})
        except ValueError as error:
            raise OptionsError(f"config.pbtxt of the model {name} cannot be read: {error}") from error

    def _require(self, name: str, condition: bool, what: str) -> None:
        if not condition:
            raise OptionsError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be {what}")

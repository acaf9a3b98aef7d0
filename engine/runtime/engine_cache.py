"""Engines that a provider built for one graph, one GPU and one set of options: where they are and when they fit.

An engine is used only if everything that it was built from is unchanged. The provider's own cache does not check that:
it would load an engine of the same architecture with other weights.
"""

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.bundle.checks import digest, sha256
from engine.bundle.manifest import GraphFile
from engine.cache import cache_folder, store
from engine.runtime.cuda.nvidia import gpu_name, load_tensorrt
from engine.runtime.options import RuntimeOptions
from engine.runtime.providers import Provider, ProviderOptions, onnxruntime, plug_in_version

MODEL_FILE, RECORD_FILE = "engine.onnx", "engine.json"


@dataclass(frozen=True, slots=True)
class Fit:
    """Everything that an engine was built for."""

    graph: str
    precision: str
    model: str  # SHA-256 of the graph and its weights
    provider: str
    options: str  # of the provider, as JSON
    onnxruntime: str
    builder: str  # the version of TensorRT or of the plug-in
    gpu: str

    @property
    def key(self) -> str:
        """The name of the engine's folder."""
        return f"{self.graph}-{self.precision}-{digest(json.dumps(asdict(self), sort_keys=True))[:16]}"

    def differences(self, other: dict[str, str]) -> list[str]:
        """Returns the names of the fields in which another engine differs."""
        return [name for name, value in asdict(self).items() if other.get(name) != value]


@dataclass(frozen=True, slots=True)
class Engines:
    """The folder of engines, and which engine in it is wanted."""

    folder: Path
    fit: Fit
    own_folder: bool  # chosen by the user: an engine there that does not fit is worth a warning

    @classmethod
    def of(cls, bundle: Path, graph: GraphFile, provider: Provider, options: RuntimeOptions) -> "Engines | None":
        """Returns where a graph's engine belongs; None if the provider builds none or there is no cache folder."""
        if provider.cache is None:
            return None
        if options.engine_cache is not None:
            folder = Path(options.engine_cache)
        elif (cache := cache_folder()) is not None:
            folder = cache / "engines"
        else:
            return None
        data = [sha256(bundle / name) for name in graph.data]
        settings = provider.options(options, graph)
        del settings["device_id"]  # an engine runs on any GPU of the same kind
        fit = Fit(
            graph=graph.graph,
            precision=graph.precision,
            model=digest(" ".join([graph.sha256, *data])),
            provider=provider.name,
            options=json.dumps(settings, sort_keys=True),
            onnxruntime=str(onnxruntime().__version__),
            builder=(plug_in_version(provider) if provider.plug_in else load_tensorrt()) or "unknown",
            gpu=gpu_name(options.device_id) or "unknown",
        )
        return cls(folder.absolute(), fit, own_folder=options.engine_cache is not None)

    @property
    def place(self) -> Path:
        """The folder of this one engine."""
        return self.folder / self.fit.key

    def cache_options(self, provider: Provider) -> ProviderOptions:
        """Returns the options that make a provider save what it builds; none if the folder cannot be written."""
        assert provider.cache is not None, "only a provider that builds has engines"
        timings = self.folder / f"timings-{digest(f'{self.fit.builder} {self.fit.gpu}')[:16]}"
        try:
            for folder in (self.place, timings):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            warnings.warn(
                f"engines cannot be saved in {self.folder} ({error.strerror}), so each process builds them again; set "
                "RuntimeOptions(engine_cache=...) or CAPTIONING_ENGINE_CACHE to a folder that can be written",
                RuntimeWarning,
                stacklevel=2,
            )
            return {}
        return provider.cache(str(self.place), str(timings))

    def saved(self) -> Path | None:
        """Returns the model that `keep` saved for exactly this fit, if intact; warns about one that does not fit."""
        model, record = self.place / MODEL_FILE, _read(self.place / RECORD_FILE)
        if record is not None and not self.fit.differences(record) and model.is_file():
            if sha256(model) == record.get("sha256"):
                return model
            self._warn(f"{model} is corrupt")
        elif self.own_folder:
            others = [_read(path) for path in sorted(self.folder.glob(f"*/{RECORD_FILE}"))]
            same = [other for other in others if other and other.get("graph") == self.fit.graph]
            if same:
                nearest = min((self.fit.differences(other) for other in same), key=len)
                self._warn(f"the engines saved in {self.folder} differ in {', '.join(nearest)}")
        return None

    def keep(self, model: Path) -> Path:
        """Moves a model that the provider saved into the folder, and returns its path. Raises OSError."""
        self.place.mkdir(parents=True, exist_ok=True)
        kept = self.place / MODEL_FILE
        (self.place / RECORD_FILE).unlink(missing_ok=True)
        data = model.read_bytes()
        record = {**asdict(self.fit), "sha256": digest(data)}
        text = json.dumps(record, indent=2) + "\n"
        if not (store(kept, data) and store(self.place / RECORD_FILE, text.encode())):
            raise OSError(f"{self.place} cannot be written")
        return kept

    def _warn(self, why: str) -> None:
        warnings.warn(f"{why}; {self.fit.graph} is built again", RuntimeWarning, stacklevel=4)


def saved_engine(bundle: Path, graph: GraphFile, provider: Provider, options: RuntimeOptions) -> str | None:
    """Returns the SHA-256 of the saved engine that sessions of a graph will load; None if there is none."""
    engines = Engines.of(bundle, graph, provider, options)
    record = None if engines is None else _read(engines.place / RECORD_FILE)
    return None if record is None else record.get("sha256")


def _read(path: Path) -> dict[str, str] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None

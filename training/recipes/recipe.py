"""What a bundle is made with, as one value, and the stages that make it. Runs nothing.

Stages are commands of this project, started as processes: each can be tried alone, and training imports no export.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from engine.bundle.manifest import Defaults
from training.options import ScstOptions, TrainingOptions
from training.recipes.stages import Command, Stage

CROSS_ENTROPY, FINE_TUNING, SELF_CRITICAL, BUNDLE = "cross-entropy", "fine-tuning", "self-critical", "bundle"
CONFIDENCE, SCORES, FEATURES = "confidence", "scores", "features"
PROVENANCE, REPORT = "provenance.json", "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides a bundle besides the data and the machine. None leaves a stage out."""

    name: str
    bundle: str  # the bundle's name
    cross_entropy: TrainingOptions
    fine_tuning: TrainingOptions | None = None  # of the encoder, begun with the decoder of the stage before
    self_critical: ScstOptions | None = None
    defaults: Defaults = Defaults()  # noqa: RUF009 - frozen
    precisions: tuple[str, ...] = ("fp32", "int8")
    calibration_images: int = 256  # that INT8 is calibrated on
    quantile: float | None = None  # of people's captions that one must reach to be good, for the confidence
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "fp32" not in self.precisions:
            raise ValueError(f"precisions must hold fp32, which the scores are of, but they are {self.precisions}")

    def ingredients(self) -> dict[str, Any]:
        """Returns the recipe as JSON can hold it, files of weights by their names alone."""
        content = asdict(self)
        weights = Path(self.cross_entropy.encoder_weights)
        for stage in ("cross_entropy", "fine_tuning"):
            if content[stage] is not None:
                content[stage]["encoder_weights"] = weights.name
        return content

    def smaller(self) -> "Recipe":
        """Returns the recipe with next to no work in each stage, for a bundle that is worth nothing.

        Without the confidence, which cannot be told from captions none of which is good.
        """
        training = _smaller(self.cross_entropy)
        tuning = self.fine_tuning and _smaller(self.fine_tuning)
        critical = self.self_critical and replace(self.self_critical, epochs=1, batches=3, batch_size=8, warmup=0)
        return replace(
            self,
            cross_entropy=training,
            fine_tuning=tuning,
            self_critical=critical,
            calibration_images=32,
            quantile=None,
        )

    def stages(self, data: Path, output: Path, *, device: str, threads: int) -> tuple[Stage, ...]:
        """Returns the stages that make the bundle of a data set's folder in the folder `output`."""
        given = {"data": data, "features": output / FEATURES, "device": device, "threads": threads}
        runs = tuple(word for name, value in given.items() for word in (f"--{name}", str(value)))
        run, bundle = output / CROSS_ENTROPY, output / BUNDLE
        stages = [_training(run, "training.train", (*runs, *flags(self.cross_entropy)))]
        if self.fine_tuning is not None:
            run, first = output / FINE_TUNING, run
            stages.append(_training(run, "training.train", ("--from", str(first), *runs, *flags(self.fine_tuning))))
        if self.self_critical is not None:
            run, first = output / SELF_CRITICAL, run
            stages.append(_training(run, "training.scst", ("--from", str(first), *runs, *flags(self.self_critical))))
        stages.append(self._export(run, bundle, data))
        shared = ("--bundle", str(bundle), "--data", str(data))
        if self.quantile is not None:
            folder = output / CONFIDENCE
            found = str(folder / "confidence.json")
            plot = ("--quantile", str(self.quantile), "--plot", str(folder / "reliability.png"))
            stages.append(
                Stage(
                    CONFIDENCE,
                    (
                        Command("training.calibrate", (*shared, "--output", found, *plot)),
                        Command("export.to_onnx", ("--output", str(bundle), "--confidence", found)),
                    ),
                    folder,
                )
            )
        folder = output / SCORES
        found = str(folder / "scores.json")
        how = ("--precision", "fp32", "--provider", "cpu", "--output", found)
        pages = ("--results-out", str(folder / "captions.json"), "--report", str(output / REPORT))
        stages.append(
            Stage(
                SCORES,
                (
                    Command("training.evaluate", (*shared, *how, *pages)),
                    Command("export.to_onnx", ("--output", str(bundle), "--quality", found)),
                ),
                folder,
            )
        )
        return tuple(stages)

    def _export(self, run: Path, bundle: Path, data: Path) -> Stage:
        arguments = ["--checkpoint", str(run), "--output", str(bundle), "--name", self.bundle, *flags(self.defaults)]
        arguments += ["--provenance", str(bundle.with_name(PROVENANCE)), "--precision", ",".join(self.precisions)]
        if "int8" in self.precisions:
            arguments += ["--calibration", str(data), "--calibration-images", str(self.calibration_images)]
        arguments += ["--measure", str(data)]
        return Stage(BUNDLE, (Command("export.to_onnx", tuple(arguments), bundle, "--overwrite"),))


def _smaller(training: TrainingOptions) -> TrainingOptions:
    warmup = min(5, training.warmup)  # or what there is to learn in were over before the rate has risen
    return replace(training, epochs=2, batches=20, batch_size=20, warmup=warmup, jitter=min(1, training.jitter))


def _training(run: Path, module: str, arguments: tuple[str, ...]) -> Stage:
    return Stage(run.name, (Command(module, ("--output", str(run), *arguments), run, "--resume"),))


def flags(options: Any) -> Iterator[str]:
    """Yields command-line options for the fields of a dataclass whose values are not their defaults."""
    for option in fields(options):
        value, name = getattr(options, option.name), option.name.replace("_", "-")
        if value == option.default:
            continue
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        else:
            yield f"--{name}={','.join(value) if isinstance(value, tuple) else value}"

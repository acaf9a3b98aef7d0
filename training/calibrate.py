"""The calibration command: python -m training.calibrate --bundle FOLDER --data FOLDER --output confidence.json.

Captions the images of data sets with the engine and fits the model of engine.confidence to predict which captions are
good. Printed and plotted figures are cross-validated: each confidence comes from a model that has not seen the image.
`export.to_onnx --confidence` stores the coefficients, which are fitted to all captions, in a bundle.

Several data sets are fitted together, each in proportion to its photographs, and measured together and separately.
CIDEr is computed within each set, because how rare a word is must not depend on the other sets. The threshold for a
good caption is the same for all sets, taken from all people's captions together: the engine does not know which set a
photograph is like, so a confidence has to mean the same for each.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine import Captioner, EngineError
from engine.commands.parser import Parser
from engine.confidence import FEATURES
from training.confidence.logistic import PENALTY, coefficients, fit, fit_folds, folds_of, held_out
from training.confidence.reliability import Reliability, measure
from training.confidence.scored_captions import CalibrationError, ScoredCaptions, caption_and_score, human_ciders
from training.data.datasets import SPLITS, DataError, open_dataset
from training.data.mixture import Part, titles_of
from training.files import check_outputs, write_atomically, write_json
from training.metrics.java import MetricsError, package
from training.metrics.tokens import find_tokeniser
from training.outcome import outcome

DEFAULT_FEATURES = ("per_root_length",)
FOLDS, SEED, FEWEST = 5, 0, 50


@dataclass(frozen=True, slots=True)
class Calibration:
    """The fitted model and its figures: on the captions it was fitted to, and elsewhere."""

    coefficients: dict[str, float]  # for engine.confidence
    found: Reliability
    apart: dict[str, Reliability]  # by data set, if there are several
    elsewhere: dict[str, Reliability]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a named error, 130 after Ctrl-C."""
    parser = command_line()
    given = parser.parse_args(arguments)
    if not 0 < given.quantile < 1:
        parser.error(f"--quantile must be between 0 and 1, but it is {given.quantile:g}")
    if unknown := [name for name in given.features if name not in FEATURES]:
        parser.error(f"unknown --features {', '.join(unknown)}: choose from {', '.join(FEATURES)}")
    check_outputs(parser, given, "--output", "--plot")
    return outcome(lambda: _run(given), EngineError, DataError, MetricsError, CalibrationError)


def _run(given: argparse.Namespace) -> None:
    package()  # fails early, with install instructions
    titles = titles_of([Part(folder) for folder in given.data])
    datasets = {title: open_dataset(part.path, given.split) for part, title in titles.items()}
    first = Captioner(given.bundle, provider="cpu", precision="fp32")
    tokeniser = find_tokeniser()
    if tokeniser.note:
        print(f"note: {tokeniser.note}", file=sys.stderr)
    references = {
        title: tokeniser({example.name: example.captions for example in dataset.examples})
        for title, dataset in datasets.items()
    }
    people = np.concatenate([human_ciders(of_set) for of_set in references.values()])
    threshold = float(np.quantile(people, given.quantile))
    scored: dict[str, dict[str, ScoredCaptions]] = {}
    for precision in first.bundle.precisions:
        captioner = first if precision == "fp32" else Captioner(given.bundle, provider="cpu", precision=precision)
        for title, dataset in datasets.items():
            for way, captions in caption_and_score(captioner, dataset, references[title], tokeniser).items():
                scored.setdefault(way, {})[title] = captions
    calibration = calibrate(scored, threshold, given.features)
    good = f"its CIDEr reaches {threshold:.3f}, as that of {1 - given.quantile:.0%} of people's captions does"
    print(f"a caption is good if {good}\n{table(calibration)}")
    name = first.bundle.manifest.name
    write_json(
        given.output,
        {
            "coefficients": calibration.coefficients,
            "good": f"a caption is good if {good}",
            "bundle": name,
            "data": ", ".join(folder.resolve().name for folder in given.data),
            "split": given.split,
            "method": f"logistic regression, L2 {PENALTY:g} on standardised features, {FOLDS} folds, seed {SEED}",
            "cross_validated": calibration.found.record(),
            "apart": {title: one.record() for title, one in calibration.apart.items()},
            "elsewhere": {way: one.record() for way, one in calibration.elsewhere.items()},
        },
    )
    print(f"written to {given.output}")
    if given.plot is not None:
        from training.reports.reliability_chart import draw_reliability  # matplotlib is needed only here

        images = sum(len(dataset.examples) for dataset in datasets.values())
        title = f"{name}: confidence on {images:,} images ({SPLITS[given.split]}), cross-validated"
        write_atomically(given.plot, draw_reliability(title, threshold, calibration.found, calibration.apart))
        print(f"drawn in {given.plot}")


def calibrate(
    scored: Mapping[str, Mapping[str, ScoredCaptions]], threshold: float, names: Sequence[str]
) -> Calibration:
    """Fits the model to the first of several decodings of the same images, for each data set, and measures it on all.

    An image's confidences come from models fitted to other images, for every decoding. Raises CalibrationError if too
    few captions are good, or too few are not.
    """
    first = next(iter(scored.values()))
    together = {way: ScoredCaptions.joined([*captions.values()]) for way, captions in scored.items()}
    fitted = next(iter(together.values()))
    good = fitted.ciders >= threshold
    if min(good.sum(), (~good).sum()) < FEWEST:
        raise CalibrationError(
            f"{int(good.sum())} of {len(good)} captions are good (CIDEr of {threshold:.3f} or more), but at least "
            f"{FEWEST} good and {FEWEST} other ones are needed: use more images or another --quantile"
        )
    folds = folds_of(good, FOLDS, SEED)

    sets = np.repeat(np.arange(len(first)), [len(captions.ciders) for captions in first.values()])  # (images,)
    models = fit_folds(fitted.features(names), good, folds)

    def measured(captions: ScoredCaptions, rows: NDArray[np.bool_] | slice = slice(None)) -> Reliability:
        confidences = held_out(models, captions.features(names), folds)
        return measure(confidences[rows], captions.ciders[rows], threshold)

    elsewhere = {way: measured(one) for way, one in together.items()}
    return Calibration(
        coefficients=_rounded(threshold, names, *coefficients(fit(fitted.features(names), good))),
        found=elsewhere[next(iter(scored))],
        apart={title: measured(fitted, sets == place) for place, title in enumerate(first)} if len(first) > 1 else {},
        elsewhere=elsewhere,
    )


def _rounded(threshold: float, names: Sequence[str], intercept: float, weights: Sequence[float]) -> dict[str, float]:
    values = {"threshold": threshold, "intercept": intercept, **dict(zip(names, weights, strict=True))}
    return {name: float(f"{value:.6g}") for name, value in values.items()}


def table(calibration: Calibration) -> str:
    """Returns the figures as text."""
    found = calibration.found
    low, high = found.rank_interval
    lines = [
        f"rank correlation of confidence and CIDEr {found.rank_correlation:.3f} ({low:.3f} to {high:.3f}), area under "
        f"the ROC curve {found.area:.3f}, log loss {found.log_loss:.3f}, calibration error "
        f"{found.calibration_error:.3f} ({found.by_chance:.3f} by chance alone)",
        "",
        "confidence  captions   good  CIDEr",
        *(f"{one.confidence:10.3f}  {one.captions:8}  {one.good:5.1%}  {one.cider:5.3f}" for one in found.bins),
        "",
        *_abstention("", found),
        *(line for title, one in calibration.apart.items() for line in _abstention(f"  {title}", one)),
        "elsewhere: CIDEr, good, mean confidence, rank correlation, calibration error (by chance alone)",
        *(
            f"  {way}: {one.cider:.3f}, {one.good:.1%}, {one.confidence:.3f}, {one.rank_correlation:.3f}, "
            f"{one.calibration_error:.3f} ({one.by_chance:.3f})"
            for way, one in (calibration.apart | calibration.elsewhere).items()
        ),
        "",
        ", ".join(f"{name} {value:g}" for name, value in calibration.coefficients.items()),
    ]
    return "\n".join(lines)


def _abstention(title: str, found: Reliability) -> list[str]:
    """Returns, as text, what is left if captions of lower confidence are withheld."""
    return [
        f"at least        kept   good  CIDEr{title}",
        *(f"{one.least:10.1f}  {one.share:8.1%}  {one.good:5.1%}  {one.cider:5.3f}" for one in found.kept),
        "",
    ]


def command_line() -> Parser:
    """Returns the parser of the command."""
    parser = Parser(
        prog="python -m training.calibrate",
        description="Fits the confidence of captions: the probability that a caption is as good as people's.",
    )
    parser.add_argument("--bundle", type=Path, help="bundle to calibrate (default: the one that ships)")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        action="append",
        metavar="FOLDER",
        help="COCO 2014 or Flickr8k folder; repeat it to fit several together and measure each separately",
    )
    parser.add_argument("--split", choices=("train", "val"), default="val", help="train or validation list (val)")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for coefficients and figures")
    parser.add_argument("--plot", type=Path, help="PNG file for the reliability plot")
    parser.add_argument(
        "--quantile",
        type=float,
        default=0.5,
        help="a good caption reaches this quantile of people's CIDEr (default: 0.5)",
    )
    parser.add_argument(
        "--features",
        type=lambda names: tuple(names.split(",")),
        default=DEFAULT_FEATURES,
        metavar="NAME[,NAME]",
        help=f"features to compute the confidence from (default: {','.join(DEFAULT_FEATURES)})",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

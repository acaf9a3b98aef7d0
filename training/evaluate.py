"""The evaluation command: python -m training.evaluate --bundle FOLDER --data FOLDER --split val.

Captions a data set's images with the engine (or reads existing captions) and compares them with people's captions:
scores with confidence intervals, statistics of the captions, and a page to look at.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine import Beam, Captioner, EngineError, Greedy, ImageError
from engine.bundle.manifest import Defaults
from engine.options import Decoding
from training.data.datasets import SPLITS, DataError, Dataset, open_dataset
from training.data.sentences import read_sentences
from training.evaluate_options import read_arguments
from training.files import write_atomically, write_json
from training.metrics.quality import assess
from training.metrics.results import read_results, write_results
from training.metrics.scores import MetricsError, Scores, score_captions
from training.outcome import outcome
from training.reports.quality_report import Page, choose, write_page

ALTERNATIVES = 4  # other sentences on the page, for each photograph


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of captioning a data set."""

    captions: dict[str, str]  # image -> sentence
    refused: dict[str, str]  # image -> why it could not be read
    scores: Scores
    seconds: float  # reading, decoding and captioning all images
    confidences: dict[str, float] = field(default_factory=dict)  # image -> 0 to 1; empty if the bundle has none


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a named error, 130 after Ctrl-C."""
    given = read_arguments(arguments)
    return outcome(lambda: _run(given), EngineError, DataError, MetricsError)


def _run(given: argparse.Namespace) -> None:
    dataset = open_dataset(given.data, given.split, strict=given.strict)
    decoding = _decoding(given)
    captioner: Captioner | None = None
    if given.results is not None:
        captions = read_results(given.results, dataset, given.limit)
        dataset.report.check()
        evaluation = Evaluation(captions, {}, score_captions(_references(dataset, captions), captions), 0.0)
    else:
        captioner = Captioner(
            given.bundle, provider=given.provider, precision=given.precision, batch_size=given.batch_size
        )
        evaluation = evaluate(captioner, dataset, decoding, limit=given.limit)
    quality = assess(
        evaluation.captions,
        _references(dataset, evaluation.captions),
        _training_captions(given),
        evaluation.scores,
        resamples=given.resamples,
        seed=given.seed,
    )
    made = _made(captioner, decoding, given.results)
    images = len(evaluation.captions)
    print(dataset.report)
    for name, reason in evaluation.refused.items():
        print(f"left out {name}: {reason}", file=sys.stderr)
    said = made["decoding"] if captioner is None else f"{made['decoding']}, {captioner.provider} {captioner.precision}"
    print(f"{images:,} images of {given.data} ({SPLITS[given.split]}), {said}")
    print(quality)
    speed = None if captioner is None else round(images / evaluation.seconds, 2)
    if speed is not None:
        print(f"{evaluation.seconds:.1f} s, {speed:.1f} images/s")
    record = {
        **made,
        "data": given.data.resolve().name,
        "split": given.split,
        "images": images,
        "seconds": round(evaluation.seconds, 3),
        "images_per_second": speed,
        **quality.record(),
        "refused": evaluation.refused,
        "confidences": evaluation.confidences,
    }
    write_json(given.output, record)
    print(f"written to {given.output}")
    if given.results_out is not None:
        write_results(given.results_out, evaluation.captions)
        print(f"captions written to {given.results_out}")
    if given.report is not None:
        choice = choose(quality, given.show, seed=given.seed)
        shown = {name: evaluation.captions[name] for name in choice.all()}
        facts = {
            "Captions by": made["bundle"] or given.results.name,
            "Data": f"{given.data.resolve().name}, {SPLITS[given.split]}",
            "Photographs": f"{images:,}",
            "Made with": said,
        }
        if captioner is None:
            facts["Alternatives"] = "none: a result file has one caption for each photograph"
        elif given.greedy:
            facts["Alternatives"] = "none: greedy search keeps only one sentence"
        page = Page(
            "How good are the captions?",
            facts,
            {} if captioner is None else _alternatives(captioner, dataset, decoding, shown),
            evaluation.confidences,
        )
        write_atomically(given.report, write_page(page, quality, choice, dataset.read).encode())
        print(f"page written to {given.report}")


def evaluate(captioner: Captioner, dataset: Dataset, decoding: Decoding, *, limit: int | None = None) -> Evaluation:
    """Captions the first `limit` images (None: all) and scores them; broken ones are added to the data set's report.

    Raises MetricsError when no image can be read, and DataError for a broken one when the report is strict.
    """
    examples = dataset.examples[:limit]
    unreadable: dict[str, str] = {}

    def photographs() -> Iterator[bytes]:
        for example in examples:
            try:
                yield dataset.read(example.name)
            except OSError as error:
                unreadable[example.name] = str(error)
                yield b""  # the engine refuses empty images and continues

    began = time.perf_counter()
    results = captioner.iter_captions(photographs(), decoding, on_error="return")
    bar = tqdm(results, total=len(examples), desc="captions", unit="image", disable=None)
    captions: dict[str, str] = {}
    refused: dict[str, str] = {}
    confidences: dict[str, float] = {}
    for example, result in zip(examples, bar, strict=True):
        if isinstance(result, ImageError):
            refused[example.name] = unreadable.get(example.name, result.reason)
            dataset.report.add("broken images", example.name, refused[example.name])
            dataset.report.check()
        else:
            captions[example.name] = result.text
            if math.isfinite(result.confidence):
                confidences[example.name] = result.confidence
    seconds = time.perf_counter() - began
    return Evaluation(captions, refused, score_captions(_references(dataset, captions), captions), seconds, confidences)


def _references(dataset: Dataset, captions: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Returns people's captions of the images that have one."""
    return {example.name: example.captions for example in dataset.examples if example.name in captions}


def _alternatives(
    captioner: Captioner, dataset: Dataset, decoding: Decoding, captions: Mapping[str, str]
) -> dict[str, list[str]]:
    """Returns a beam's alternatives to these captions, best first: image -> sentences.

    Greedy decoding has no alternatives.
    """
    if not isinstance(decoding, Beam):
        return {}
    size = decoding.beam_size or captioner.bundle.manifest.defaults.beam_size
    wide = replace(decoding, beam_size=max(size, ALTERNATIVES + 1), num_hypotheses=ALTERNATIVES + 1)
    found = captioner.caption([dataset.read(name) for name in captions], wide)
    return {
        name: [other.text for other in result.alternatives if other.text != caption][:ALTERNATIVES]
        for (name, caption), result in zip(captions.items(), found, strict=True)
    }


def _training_captions(given: argparse.Namespace) -> list[str] | None:
    """Returns the captions of the data set's training images and the sentences, None where there are none."""
    examples = [example for path in given.sentences for example in read_sentences(path)[0]]
    try:
        examples += open_dataset(given.data, "train").examples
    except DataError:
        if not examples:
            return None
    return [caption for example in examples for caption in example.captions]


def _made(captioner: Captioner | None, decoding: Decoding, results: Path) -> dict[str, Any]:
    """Returns how the captions were made, for scores.json."""
    if captioner is None:
        return {"bundle": None, "decoding": f"captions of {results.name}", "provider": None, "precision": None}
    manifest = captioner.bundle.manifest
    return {
        "bundle": manifest.name,
        "decoding": _describe(decoding, manifest.defaults),
        "provider": captioner.provider,
        "precision": captioner.precision,
    }


def _decoding(given: argparse.Namespace) -> Decoding:
    rules = {"no_repeat_ngram_size": given.no_repeat_ngram_size, "bad_endings": given.bad_endings}
    if given.greedy:
        return Greedy(**rules)
    return Beam(beam_size=given.beam, length_penalty=given.length_penalty, **rules)


def _describe(decoding: Decoding, defaults: Defaults) -> str:
    """Describes the decoding with its values, including the bundle's defaults."""

    def used(name: str) -> Any:
        own = getattr(decoding, name)
        return getattr(defaults, name) if own is None else own

    said = "greedy"
    if isinstance(decoding, Beam):
        said = f"beam {used('beam_size')}, length penalty {used('length_penalty'):g}"
    if used("no_repeat_ngram_size"):
        said += f", no {used('no_repeat_ngram_size')} words twice"
    return said + (f", {len(used('bad_endings'))} bad endings" if used("bad_endings") else "")


if __name__ == "__main__":
    sys.exit(main())

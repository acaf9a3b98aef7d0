"""Reads scores.json from training.evaluate, to compare runs. Knows the file's format, computes nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.files import read_json
from training.metrics.counts import BLEU_COLUMNS, BLEU_NAMES, METEOR_COLUMNS, ImageCounts, Rows
from training.metrics.java import MetricsError


@dataclass(frozen=True, slots=True)
class ScoreFile:
    """What a comparison needs from a file: its name, what was scored, captions (image -> sentence), counts."""

    name: str
    data: str
    split: str
    tokeniser: str
    captions: dict[str, str]
    counts: ImageCounts


def counts_record(counts: ImageCounts) -> dict[str, dict[str, str]]:
    """Returns the counts behind corpus scores: metric -> image -> integers, separated by spaces."""
    tables = {"BLEU": counts.bleu} | ({} if counts.meteor is None else {"METEOR": counts.meteor})
    return {
        metric: {
            name: " ".join(f"{value:.17g}" for value in row) for name, row in zip(counts.images, rows, strict=True)
        }
        for metric, rows in tables.items()
    }


def read_scores(path: Path) -> ScoreFile:
    """Reads a file. Raises MetricsError if it is not a scores file, or so old that it has no scores per image."""
    content = read_json(path, MetricsError)
    try:
        counts = _image_counts(content["per_image"], content["counts"])
        captions = {name: str(content["captions"][name]) for name in counts.images}
        return ScoreFile(
            str(path), str(content["data"]), str(content["split"]), str(content["tokeniser"]), captions, counts
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise MetricsError(
            f"{path} does not contain the scores of each image: write it again with python -m training.evaluate"
        ) from error


def _image_counts(per_image: dict[str, dict[str, float]], counts: dict[str, dict[str, str]]) -> ImageCounts:
    images = tuple(per_image)
    metrics = per_image[images[0]]
    means = [name for name in metrics if name not in (*BLEU_NAMES, "METEOR")]
    return ImageCounts(
        images,
        _rows(images, counts["BLEU"], BLEU_COLUMNS),
        _rows(images, counts["METEOR"], METEOR_COLUMNS) if "METEOR" in counts else None,
        {name: np.array([float(per_image[image][name]) for image in images]) for name in means},
    )


def _rows(images: tuple[str, ...], counts: dict[str, str], columns: int) -> Rows:
    rows = np.array([[float(number) for number in counts[image].split()] for image in images])
    if rows.shape != (len(images), columns):
        raise ValueError(f"each image needs {columns} counts")
    return rows


def in_order_of(images: tuple[str, ...], counts: ImageCounts) -> ImageCounts:
    """Returns the same counts with the images in another order."""
    places = {name: place for place, name in enumerate(counts.images)}
    order: Any = [places[name] for name in images]
    meteor = None if counts.meteor is None else counts.meteor[order]
    means = {name: values[order] for name, values in counts.means.items()}
    return ImageCounts(images, counts.bleu[order], meteor, means)

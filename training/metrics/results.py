"""Result files in COCO's format: a JSON list of {"image_id", "caption"}. Knows no metric.

A COCO image has the integer id in its file name (COCO_val2014_000000391895.jpg is 391895); any other
image is identified by its file name.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from training.data.datasets import Dataset
from training.files import read_json, write_json
from training.metrics.java import MetricsError

COCO_NAME = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})\.jpe?g")


def image_id(name: str) -> int | str:
    """Returns an image's id in result files: COCO's number, or the file name."""
    found = COCO_NAME.fullmatch(name)
    return int(found[1]) if found else name


def write_results(path: Path, captions: Mapping[str, str]) -> None:
    """Writes captions (image -> sentence) as a result file, atomically. Raises OSError."""
    write_json(path, [{"image_id": image_id(name), "caption": caption} for name, caption in captions.items()])


def read_results(path: Path, dataset: Dataset, limit: int | None = None) -> dict[str, str]:
    """Reads existing captions for a data set's first `limit` images (None: all), in the data set's order.

    Ids may be COCO's integers, file names, or a part of either ("391895", a name without its suffix). Images without a
    result and results of unknown images are skipped and added to the data set's report. Raises MetricsError if the file
    is not a result file, contains something that is not text, names an image twice, or none of the data set's images.
    """
    rows = read_json(path, MetricsError)
    if not isinstance(rows, list):
        raise MetricsError(f'{path} is not a result file: it must contain a list of {{"image_id", "caption"}}')
    names = _names(dataset)
    captions: dict[str, str] = {}
    for position, row in enumerate(rows):
        match row:
            case {"image_id": int() | str() as given, "caption": str() as caption} if not isinstance(given, bool):
                name = names.get(str(given))
            case _:
                raise MetricsError(f'{path}: entry {position} is not {{"image_id", "caption"}}: {str(row)[:60]}')
        if any("\ud800" <= letter <= "\udfff" for letter in f"{given}{caption}"):  # JSON may escape a lone surrogate
            raise MetricsError(
                f"{path}: entry {position} contains half a character (a lone surrogate): {ascii(row)[:60]}"
            )
        if name is None:
            dataset.report.add("results of unknown images", str(given))
        elif name in captions:
            raise MetricsError(f"{path} has two captions for {given}, but a result file must have one for each image")
        else:
            captions[name] = caption
    if not captions:
        raise MetricsError(f"{path} has no caption for any of the {len(dataset.examples):,} images")
    wanted = [example.name for example in dataset.examples[:limit]]
    for name in wanted:
        if name not in captions:
            dataset.report.add("images without a result", name)
    return {name: captions[name] for name in wanted if name in captions}


def _names(dataset: Dataset) -> dict[str, str]:
    """Returns every possible id of an image -> its name; whole names win over parts."""
    whole = {example.name: example.name for example in dataset.examples}
    stems = {Path(name).stem: name for name in whole}
    return stems | {str(image_id(name)): name for name in whole} | whole

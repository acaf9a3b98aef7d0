"""Makes small data sets from a few images and sentences of others, to try things on. Knows no training."""

import csv
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.data.datasets import open_dataset
from training.data.flickr import HEADER
from training.data.sentences import GZIP

IMAGES = {"train": 120, "val": 40}
SENTENCES = 200  # lines


def write_subsets(data: Path, folder: Path, datasets: Sequence[str], sentences: Sequence[str]) -> None:
    """Copies the first entries of everything in `data` to the same places in `folder`. Raises DataError, OSError."""
    for name in datasets:
        write_subset(data / name, folder / name, IMAGES)
    for name in sentences:
        content, place = (data / name).read_bytes(), folder / name
        lines = (gzip.decompress(content) if content.startswith(GZIP) else content).splitlines(keepends=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"".join(lines[:SENTENCES]))


def write_subset(data: Path, folder: Path, images: Mapping[str, int]) -> None:
    """Writes the first `images` images of each split, in the layout of Flickr8k, unless it was done before.

    Raises DataError and OSError.
    """
    done = folder / "complete"
    if done.is_file():
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(HEADER)
        for split, count in images.items():
            dataset = open_dataset(data, split)
            chosen = dataset.examples[:count]
            for example in chosen:
                name = Path(example.name).name
                (folder / "images" / name).write_bytes(dataset.read(example.name))
                rows.writerows((name, " ".join(caption.split())) for caption in example.captions)
            listed = "".join(f"{Path(example.name).name}\n" for example in chosen)
            (folder / f"{split}.txt").write_text(listed, encoding="utf-8")
    done.touch()

"""Opens captioned data sets, after recognising a folder's layout. Knows no format's details."""

from pathlib import Path

from training.data.coco import CocoDataset
from training.data.examples import DataError, DataReport, Dataset, Example
from training.data.flickr import FlickrDataset

__all__ = ["DataError", "DataReport", "Dataset", "Example", "open_dataset"]

SPLITS = {"train": "train list", "val": "validation list"}  # what reports call them


def open_dataset(path: str | Path, split: str, *, strict: bool = False) -> Dataset:
    """Opens the "train" or "val" part of a COCO 2014 or Flickr8k-like folder.

    Entries with problems are skipped and listed in the data set's report; `strict` makes them errors.
    Raises DataError when the layout is not recognised, a list is unreadable or nothing usable is found.
    """
    folder = Path(path)
    if split not in SPLITS:
        raise DataError(f"the split {split!r} is not one of {', '.join(SPLITS)}")
    report = DataReport(f"{folder} ({SPLITS[split]})", strict=strict)
    dataset: Dataset
    if not folder.is_dir():
        raise DataError(f"{folder} cannot be opened: there is no such folder")
    if (folder / "captions.csv").is_file():
        dataset = FlickrDataset(folder, split, report)
    elif CocoDataset.recognises(folder, split):
        dataset = CocoDataset(folder, split, report)
    else:
        raise DataError(
            f"{folder} is not a known data set: looked for captions.csv with {split}.txt and images/, and for "
            f"captions_train-val2014.zip or captions_{split}2014.json (COCO 2014, also under annotations/)"
        )
    report.images = len(dataset.examples)
    report.captions = sum(len(example.captions) for example in dataset.examples)
    report.check()
    if not dataset.examples:
        raise DataError(f"no image with a caption is left to use\n{report}")
    return dataset

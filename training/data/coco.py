"""COCO 2014 captions as downloaded: image archives read in place or unpacked folders, and the captions JSON."""

import json
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from engine.bundle.vocabulary import split as split_words
from training.data.examples import DataError, DataReport, Example

CAPTIONS_ARCHIVE = "captions_train-val2014.zip"


class CocoDataset:
    """The images of train2014 or val2014 that have captions, ordered by file name."""

    def __init__(self, folder: Path, split: str, report: DataReport) -> None:
        """Reads captions and image names; faults go to the report. Raises DataError if a part is unreadable."""
        self.report = report
        self._images = _open_images(folder, split)
        self._stamps = self._images.stamps()
        names = dict(self._image_names(document := _read_captions(folder, split)))
        captions: dict[str, list[str]] = {name: [] for name in names.values()}
        for name, caption in self._captions(document, names):
            captions[name].append(caption)
        for name in captions:
            if name not in self._stamps:
                report.add("images that are missing", name)
            elif not captions[name]:
                report.add("images without captions", name)
        self.examples = tuple(
            Example(name, tuple(captions[name]), self._stamps[name])
            for name in sorted(captions)
            if captions[name] and name in self._stamps
        )

    @staticmethod
    def recognises(folder: Path, split: str) -> bool:
        """Returns whether the folder contains COCO 2014 captions of this split."""
        return any(path.is_file() for path in (folder / CAPTIONS_ARCHIVE, *_json_paths(folder, split)))

    def read(self, name: str) -> bytes:
        """Returns an image's encoded bytes. Thread-safe. Raises OSError."""
        return self._images.read(name)

    def _image_names(self, document: dict[str, list[Any]]) -> Iterator[tuple[int | str, str]]:
        for position, row in enumerate(document["images"]):
            match row:
                case {"id": int() | str() as image_id, "file_name": str() as name}:
                    yield image_id, name
                case _:
                    self.report.add("broken image rows", f"images[{position}]", repr(row)[:40])

    def _captions(self, document: dict[str, list[Any]], names: dict[int | str, str]) -> Iterator[tuple[str, str]]:
        for position, row in enumerate(document["annotations"]):
            where = f"annotations[{position}]"
            match row:
                case {"image_id": int() | str() as image_id} if image_id not in names:
                    self.report.add("captions of unknown images", where, f"image_id {image_id}")
                case {"image_id": int() | str() as image_id, "caption": str() as caption}:
                    name = names[image_id]
                    if not split_words(caption):
                        self.report.add("empty captions", f"{where} ({name})")
                    elif name not in self._stamps:
                        self.report.add("captions whose image is missing", f"{where} ({name})")
                    else:
                        yield name, " ".join(caption.split())
                case _:
                    self.report.add("broken annotation rows", where, repr(row)[:40])


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def stamps(self) -> dict[str, str]:
        stats = ((file.name, file.stat()) for file in self.path.iterdir())
        return {name: f"{stat.st_size}-{stat.st_mtime_ns}" for name, stat in stats}

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class _Archive:
    # One handle behind a lock: a handle per thread would parse the directory of 80,000 entries again and keep it,
    # while reading a stored JPEG takes a small part of the time that decoding it does.
    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        try:
            self.archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} cannot be read as a zip archive: {error}") from error
        self.entries = {
            PurePosixPath(entry.filename).name: entry for entry in self.archive.infolist() if not entry.is_dir()
        }

    def stamps(self) -> dict[str, str]:
        return {name: f"{entry.file_size}-{entry.CRC:08x}" for name, entry in self.entries.items()}

    def read(self, name: str) -> bytes:
        try:
            with self.lock:
                return self.archive.read(self.entries[name])
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise OSError(f"{name} in {self.path} is damaged: {error}") from error


def _open_images(folder: Path, split: str) -> "_Archive | _Folder":
    archive, unpacked = folder / f"{split}2014.zip", folder / f"{split}2014"
    if archive.is_file():
        return _Archive(archive)
    if unpacked.is_dir():
        return _Folder(unpacked)
    raise DataError(f"{folder} has COCO captions but neither {archive.name} nor the folder {unpacked.name}/")


def _json_paths(folder: Path, split: str) -> tuple[Path, ...]:
    name = f"captions_{split}2014.json"
    return folder / "annotations" / name, folder / name


def _read_captions(folder: Path, split: str) -> dict[str, list[Any]]:
    """Returns the captions document: "images" and "annotations" are lists. Raises DataError."""
    plain = next((path for path in _json_paths(folder, split) if path.is_file()), None)
    member = f"annotations/captions_{split}2014.json"
    source = str(plain or f"{folder / CAPTIONS_ARCHIVE} ({member})")
    try:
        if plain:
            text = plain.read_bytes()
        else:
            with zipfile.ZipFile(folder / CAPTIONS_ARCHIVE) as archive:
                text = archive.read(member)
        document = json.loads(text)
    except KeyError as error:
        raise DataError(f"{folder / CAPTIONS_ARCHIVE} does not contain {member}") from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{source} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source} is not valid JSON: {error}") from error
    match document:
        case {"images": list() as images, "annotations": list() as annotations}:
            return {"images": images, "annotations": annotations}
    raise DataError(f"{source} is not a COCO captions file: it needs the lists 'images' and 'annotations'")

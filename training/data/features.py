"""Image features, computed once: a memory-mapped float16 file with its index. Knows no captions and no decoder.

A folder contains `features.npy`, one row per image, and `index.json` with the names of the rows and a fingerprint of
everything that the features depend on. During computation there is `progress.json` instead of the index, so that a
killed run continues after its last flushed batch with bit-identical results, and `.lock` keeps other processes out.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from engine.bundle.manifest import ImageSpec
from engine.errors import ImageError
from training.data.batches import Features
from training.data.examples import Dataset
from training.data.views import View
from training.files import write_json
from training.models.compiled import Function, compiled, eager
from training.models.encoders import Encoder, EncoderError

FORMAT_VERSION = 1
MATRIX, INDEX, PROGRESS, LOCK = "features.npy", "index.json", "progress.json", ".lock"
BATCHES_AHEAD = 2
WORTH_COMPILING = 500
"""From this many images on, compiling the encoder saves more time than it takes."""


@dataclass(frozen=True, eq=False)
class FeatureStore(Features):
    """The features of a data set's images: `matrix` float16 (len(names), *output_shape), a read-only memory map."""

    names: tuple[str, ...]
    matrix: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> "FeatureStore":
        """Opens a finished store. Raises OSError or ValueError if there is none."""
        names = tuple(json.loads((folder / INDEX).read_text(encoding="utf-8"))["names"])
        # Rows of images that turned out to be broken are left over at the end of the file.
        return cls(names, np.load(folder / MATRIX, mmap_mode="r")[: len(names)])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """See Features."""
        found: np.ndarray = self.matrix[rows]
        return found


def compute_features(
    dataset: Dataset,
    encoder: Encoder,
    folder: Path,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    progress: bool = True,
    view: View = View(),  # noqa: B008 - frozen
) -> FeatureStore:
    """Returns the features of every image that can be decoded, computing those that are not in the folder yet.

    Broken images are added to the data set's report, which is raised as a DataError under `strict`. view: how each
    image is shown; every view needs a separate folder. workers: decoding threads, by default one per core. Raises
    BlockingIOError while another process fills the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = _fingerprint(dataset, encoder, view)
    state = _finished(folder, fingerprint)
    if not state:
        with _locked(folder):
            state = _finished(folder, fingerprint)  # another process may have finished in the meantime
            if not state:
                workers = workers or max(2, os.cpu_count() or 2)
                state = _fill(dataset, encoder, folder, fingerprint, batch_size, workers, progress, view)
    _report_broken(dataset, state["broken"])
    return FeatureStore.open(folder)


def _finished(folder: Path, fingerprint: str) -> dict[str, Any]:
    """Returns the folder's index if it is for exactly these features, else {}."""
    state = _read_json(folder / INDEX)
    return state if state.get("fingerprint") == fingerprint and (folder / MATRIX).is_file() else {}


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / LOCK).open("w") as file:  # never deleted: the system releases the lock even after a kill
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"another process is computing the features in {folder}: wait until it ends or use another folder"
            ) from error
        yield


def _fill(
    dataset: Dataset,
    encoder: Encoder,
    folder: Path,
    fingerprint: str,
    batch_size: int,
    workers: int,
    progress: bool,
    view: View,
) -> dict[str, Any]:
    """Computes what is missing and returns the finished index."""
    names = [example.name for example in dataset.examples]
    device = encoder.mean.device
    run = eager(encoder, device)
    # By all images, not by those left: a continued run must compute exactly as before the kill.
    compiling = device.type == "cpu" and len(names) >= WORTH_COMPILING and encoder.compilable
    wanted = {"fingerprint": fingerprint, "method": f"{'compiled' if compiling else 'eager'} on {device.type}"}
    earlier = _read_json(folder / INDEX) or _read_json(folder / PROGRESS)
    if progress and earlier and not wanted.items() <= earlier.items():
        same = earlier.get("fingerprint") == fingerprint
        what = "were partly computed in another way" if same else "are for other images or another encoder"
        print(f"the features in {folder} {what}: computing them again", flush=True)
    state, matrix = _begin(folder, wanted, (len(names), *encoder.output_shape))
    batches = _decoded(dataset, names[state["done"] :], encoder.image, batch_size, workers, view)
    hidden = None if progress else True  # None: hidden unless stderr is a terminal
    bar = tqdm(total=len(names), initial=state["done"], desc="features", unit="image", disable=hidden)
    with bar, contextlib.closing(batches):
        for results in batches:
            start = state["done"] - len(state["broken"])
            pixels = [result for result in results if isinstance(result, np.ndarray)]
            if compiling and pixels:  # repeat images in place of broken ones: the compiled batch size is fixed
                run, compiling = compiled(encoder, np.resize(pixels, (batch_size, *pixels[0].shape))), False
            if pixels:
                matrix[start : start + len(pixels)] = _encode(run, encoder.name, np.stack(pixels))
                matrix.flush()
            for name, result in zip(names[state["done"] :], results, strict=False):
                if isinstance(result, str):
                    state["broken"][name] = result
            state["done"] += len(results)
            write_json(folder / PROGRESS, state)  # after the rows themselves, so that counted rows are on the disk
            _report_broken(dataset, state["broken"])
            bar.update(len(results))
    state["names"] = [name for name in names if name not in state["broken"]]
    write_json(folder / INDEX, state)
    (folder / PROGRESS).unlink()
    return state


def _begin(folder: Path, wanted: dict[str, Any], shape: tuple[int, ...]) -> tuple[dict[str, Any], np.memmap]:
    """Returns the progress and the matrix to fill: those of an interrupted run if they fit, or new ones."""
    (folder / INDEX).unlink(missing_ok=True)  # before the first row changes: an index must match its matrix
    state = _read_json(folder / PROGRESS)
    if wanted.items() <= state.items() and (folder / MATRIX).is_file():
        return state, np.lib.format.open_memmap(folder / MATRIX, mode="r+")
    (folder / PROGRESS).unlink(missing_ok=True)
    (folder / MATRIX).unlink(missing_ok=True)  # a new file: processes that mapped the old one keep it intact
    matrix = np.lib.format.open_memmap(folder / MATRIX, mode="w+", dtype=np.float16, shape=shape)
    state = {"format": FORMAT_VERSION, **wanted, "done": 0, "broken": {}}
    write_json(folder / PROGRESS, state)
    return state, matrix


def _decoded(
    dataset: Dataset, names: Sequence[str], image: ImageSpec, batch_size: int, workers: int, view: View
) -> Generator[list[np.ndarray | str]]:
    """Yields batches of decoded images (height, width, 3) in order; a broken image is replaced by the reason."""

    def decode(name: str) -> np.ndarray | str:
        try:
            return view.pixels(name, dataset.read(name), image)
        except ImageError as error:
            return error.reason
        except OSError as error:
            return str(error)

    pool = ThreadPoolExecutor(workers, "decode")
    ahead: deque[list[Future[np.ndarray | str]]] = deque()
    try:
        for start in range(0, len(names), batch_size):
            ahead.append([pool.submit(decode, name) for name in names[start : start + batch_size]])
            if len(ahead) > BATCHES_AHEAD:
                yield [future.result() for future in ahead.popleft()]
        for futures in ahead:
            yield [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)


def _encode(run: Function, name: str, pixels: np.ndarray) -> np.ndarray:
    features = run(pixels)
    if np.abs(features).max() > np.finfo(np.float16).max or not np.isfinite(features).all():
        raise EncoderError(f"{name} gives features too large for float16: check its weights")
    return features.astype(np.float16)  # (batch, *output_shape)


def _fingerprint(dataset: Dataset, encoder: Encoder, view: View) -> str:
    depends_on = {
        "format": FORMAT_VERSION,
        "encoder": [encoder.name, encoder.fingerprint],
        "image": [asdict(encoder.image), view.recipe],
        "files": [[example.name, example.stamp] for example in dataset.examples],
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def _report_broken(dataset: Dataset, broken: dict[str, str]) -> None:
    for name, reason in broken.items():
        dataset.report.add("broken images", name, reason)
    dataset.report.check()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}

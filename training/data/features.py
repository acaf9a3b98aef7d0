"""Image features, computed once: a memory-mapped float16 file with its index. Knows no captions and no decoder.

A folder holds `features.npy`, one row per image, and `index.json` with the names of the rows and a fingerprint of all
that the features depend on. While the work lasts `progress.json` stands in the index's place, so that a killed run
goes on behind its last flushed batch, in the same way to the last bit, and `.lock` keeps a second process out.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from engine.bundle.manifest import ImageSpec
from engine.errors import ImageError
from training.data.examples import Dataset
from training.data.views import View
from training.files import write_json
from training.models.compiled import Function, compiled, eager
from training.models.encoders import Encoder, EncoderError

FORMAT_VERSION = 1
MATRIX, INDEX, PROGRESS, LOCK = "features.npy", "index.json", "progress.json", ".lock"
BATCHES_AHEAD = 2
WORTH_COMPILING = 500
"""Images from which on the seconds that compiling an encoder takes are won back."""


@dataclass(frozen=True, slots=True)
class FeatureStore:
    """The features of a data set's images: `matrix` float16 (len(names), *output_shape), a read-only memory map."""

    names: tuple[str, ...]
    matrix: np.ndarray
    _rows: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", {name: row for row, name in enumerate(self.names)})

    @classmethod
    def open(cls, folder: Path) -> "FeatureStore":
        """Opens a finished store. Raises OSError or ValueError when there is none."""
        names = tuple(json.loads((folder / INDEX).read_text(encoding="utf-8"))["names"])
        # Rows of images that turned out to be broken are left over at the end of the file.
        return cls(names, np.load(folder / MATRIX, mmap_mode="r")[: len(names)])

    def row(self, name: str) -> int:
        """Returns an image's row. Raises KeyError for one that is not in the store, such as a broken one."""
        return self._rows[name]

    def __contains__(self, name: str) -> bool:
        return name in self._rows


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
    """Returns the features of every image that can be decoded, computing what the folder does not hold yet.

    Broken images go to the data set's report, which under `strict` is raised as a DataError. view: what is seen of
    each image; every view needs a folder of its own. workers: threads that decode, by default one for each core.
    Raises BlockingIOError while another process fills the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = _fingerprint(dataset, encoder, view)
    state = _finished(folder, fingerprint)
    if not state:
        with _locked(folder):
            state = _finished(folder, fingerprint)  # another process may have come to its end meanwhile
            if not state:
                workers = workers or max(2, os.cpu_count() or 2)
                state = _fill(dataset, encoder, folder, fingerprint, batch_size, workers, progress, view)
    _report_broken(dataset, state["broken"])
    return FeatureStore.open(folder)


def _finished(folder: Path, fingerprint: str) -> dict[str, Any]:
    """Returns the folder's index when it vouches for just these features, else {}."""
    state = _read_json(folder / INDEX)
    return state if state.get("fingerprint") == fingerprint and (folder / MATRIX).is_file() else {}


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / LOCK).open("w") as file:  # left where it is: the system lets go of it even after a kill
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"another process is computing the features in {folder}: wait for its end or name another folder"
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
    # By all images, not by those left: what goes on behind a kill must compute like what came before it.
    compiling = device.type == "cpu" and len(names) >= WORTH_COMPILING
    wanted = {"fingerprint": fingerprint, "method": f"{'compiled' if compiling else 'eager'} on {device.type}"}
    earlier = _read_json(folder / INDEX) or _read_json(folder / PROGRESS)
    if progress and earlier and not wanted.items() <= earlier.items():
        same = earlier.get("fingerprint") == fingerprint
        what = "were half computed in another way" if same else "are of other images or another encoder"
        print(f"the features in {folder} {what}: computing them anew", flush=True)
    state, matrix = _begin(folder, wanted, (len(names), *encoder.output_shape))
    batches = _decoded(dataset, names[state["done"] :], encoder.image, batch_size, workers, view)
    hidden = None if progress else True  # None: where stderr is no terminal
    bar = tqdm(total=len(names), initial=state["done"], desc="features", unit="image", disable=hidden)
    with bar, contextlib.closing(batches):
        for results in batches:
            start = state["done"] - len(state["broken"])
            pixels = [result for result in results if isinstance(result, np.ndarray)]
            if compiling and pixels:  # some of the batch may be broken, so it is made whole again by repeating
                run, compiling = compiled(encoder, np.resize(pixels, (batch_size, *pixels[0].shape))), False
            if pixels:
                matrix[start : start + len(pixels)] = _encode(run, encoder.name, np.stack(pixels))
                matrix.flush()
            for name, result in zip(names[state["done"] :], results, strict=False):
                if isinstance(result, str):
                    state["broken"][name] = result
            state["done"] += len(results)
            write_json(folder / PROGRESS, state)  # after the rows themselves: what it counts is on the disk
            _report_broken(dataset, state["broken"])
            bar.update(len(results))
    state["names"] = [name for name in names if name not in state["broken"]]
    write_json(folder / INDEX, state)
    (folder / PROGRESS).unlink()
    return state


def _begin(folder: Path, wanted: dict[str, Any], shape: tuple[int, ...]) -> tuple[dict[str, Any], np.memmap]:
    """Returns where the work stands and the matrix to fill: what an interrupted run left if it fits, or new ones."""
    (folder / INDEX).unlink(missing_ok=True)  # before the first row changes: an index vouches for its matrix
    state = _read_json(folder / PROGRESS)
    if wanted.items() <= state.items() and (folder / MATRIX).is_file():
        return state, np.lib.format.open_memmap(folder / MATRIX, mode="r+")
    (folder / PROGRESS).unlink(missing_ok=True)
    (folder / MATRIX).unlink(missing_ok=True)  # a new file: whoever has the old one mapped keeps it whole
    matrix = np.lib.format.open_memmap(folder / MATRIX, mode="w+", dtype=np.float16, shape=shape)
    state = {"format": FORMAT_VERSION, **wanted, "done": 0, "broken": {}}
    write_json(folder / PROGRESS, state)
    return state, matrix


def _decoded(
    dataset: Dataset, names: Sequence[str], image: ImageSpec, batch_size: int, workers: int, view: View
) -> Generator[list[np.ndarray | str]]:
    """Yields batches of decoded images (height, width, 3) in order; a broken image's place holds the reason."""

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
        raise EncoderError(f"{name} gives features beyond what float16 holds; were its weights right?")
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

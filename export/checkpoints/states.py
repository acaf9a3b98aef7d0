"""State dicts of other projects: reading files, comparing names and shapes, one error for all that is wrong."""

import pickle
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from export.errors import ExportError

State = Mapping[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)
PARALLEL = "module."  # what DataParallel puts before each name
UNCOUNTED = "num_batches_tracked"  # absent before PyTorch 0.4.1, and needed for training only


def read_state(path: Path) -> State:
    """Reads a state dict from .safetensors or torch's format, without running code of it. Raises ExportError."""
    try:
        if path.suffix == ".safetensors":
            return plain(safetensors.torch.load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error}") from error
    except pickle.UnpicklingError as error:
        raise ExportError(
            f"{path} contains more than a state dict, which could run code, so it was not read and nothing of it was "
            "run: save only module.state_dict()"
        ) from error
    except Exception as error:  # both readers may raise nearly anything on a damaged file
        raise ExportError(f"{path} cannot be read as PyTorch weights ({type(error).__name__})") from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not is_state(loaded):
        raise ExportError(f"{path} contains no state dict (names and tensors)")
    return plain(loaded)


def is_state(value: object) -> bool:
    """Returns whether a value is names and tensors."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


def plain(state: State) -> State:
    """Returns a state dict without the prefix of DataParallel, if all names have it."""
    if all(name.startswith(PARALLEL) for name in state):
        return {name.removeprefix(PARALLEL): tensor for name, tensor in state.items()}
    return state


def size(state: State, *places: tuple[str, int]) -> int:
    """Returns the first size found among these (name, dimension), or 1: then all of these tensors are missing."""
    for name, dimension in places:
        if name in state and state[name].ndim > dimension:
            return state[name].shape[dimension]
    return 1


def count(state: State, prefix: str, suffix: str = "") -> int:
    """Returns how many numbered parts a state dict has: one more than the largest number after the prefix."""
    rests = [name.removeprefix(prefix) for name in state if name.startswith(prefix) and name.endswith(suffix)]
    numbers = [int(rest.partition(".")[0]) for rest in rests if rest.partition(".")[0].isdigit()]
    return max(numbers, default=-1) + 1


def misfits(module: nn.Module, state: State, prefix: str = "") -> list[str]:
    """Lists every name that is missing, unknown or of another shape. prefix: of the file's names, for the reader."""
    wanted = {name: tensor for name, tensor in module.state_dict().items() if not name.endswith(UNCOUNTED)}
    given = {name: tensor for name, tensor in state.items() if not name.endswith(UNCOUNTED)}
    faults = [f"{name} is missing" for name in _grouped(prefix, wanted, given)]
    faults += [f"{name} is unknown" for name in _grouped(prefix, given, wanted)]
    return faults + [
        f"{prefix}{name} has the shape {tuple(given[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in given and given[name].shape != tensor.shape
    ]


def load(module: Module, state: State) -> Module:
    """Loads a state dict that has no misfits, and returns the module in eval mode."""
    own = module.state_dict()
    module.load_state_dict({name: state.get(name, tensor) for name, tensor in own.items()})
    return module.requires_grad_(False).eval()


def require_none(faults: Sequence[str], source: str, layout: str) -> None:
    """Raises one ExportError that lists all faults, if there are any."""
    if faults:
        raise ExportError(f"{source} does not have the layout of {layout}: {'; '.join(faults)}")


def _grouped(prefix: str, names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Returns the names that are not among the others; a part of which all are is written once, with its count."""
    known = {name.partition(".")[0] for name in others}
    absent = set(names) - set(others)
    result = []
    for part, group in groupby((name for name in names if name in absent), lambda name: name.partition(".")[0]):
        members = list(group)
        whole = part not in known and len(members) > 4
        result += [f"all of {prefix}{part}.* ({len(members)} tensors)"] if whole else [prefix + m for m in members]
    return result

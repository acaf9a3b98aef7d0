"""PyTorch checkpoints that contain whole modules, read as plain tensors without running code of them.

torch.load(weights_only=True) refuses such files, and without weights_only it runs what they name. Both of PyTorch's
formats are read: the zip archive (since 1.6) and the older sequence of pickles. Nothing of torch's own reader is used.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from export.checkpoints.pickles import Reader, Record, Refused, refusal
from export.checkpoints.states import State, is_state, plain
from export.errors import ExportError

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older format
DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def _tensor(values: Tensor, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *rest: object) -> Tensor:
    """A tensor on a piece of a storage, which is held as a vector; torch checks that the piece is inside."""
    return values.as_strided(shape, strides, offset)


def _parameter(values: Tensor, *rest: object) -> Tensor:
    return values


TORCH = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
}


class _ModuleReader(Reader):
    """Reads objects of any classes as Records, and tensors as tensors."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, classes=None)

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "torch" and name in DTYPES:
            return DTYPES[name]
        return TORCH.get(f"{module}.{name}") or super().find_class(module, name)


class _ZipReader(_ModuleReader):
    """Reads the pickle of an archive, in which each storage is a file."""

    def __init__(self, archive: zipfile.ZipFile, pickled: str) -> None:
        super().__init__(archive.open(pickled))
        self.archive = archive
        self.folder = pickled.removesuffix("data.pkl")
        self.storages: dict[str, Tensor] = {}

    def persistent_load(self, pid: Any) -> Tensor:
        """Returns a storage as a vector."""
        _, dtype, key, *_ = pid
        if key not in self.storages:
            content = bytearray(self.archive.read(f"{self.folder}data/{key}"))
            self.storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self.storages[key]


class _LegacyReader(_ModuleReader):
    """Reads the main pickle of the older format; the numbers of its storages follow it and are filled in later."""

    def __init__(self, file: IO[bytes], file_size: int) -> None:
        super().__init__(file)
        self.file_size = file_size
        self.storages: dict[str, Tensor] = {}

    def persistent_load(self, pid: Any) -> object:
        """Returns a storage as a vector; for the source code of a module, which older files also have, its class."""
        if pid[0] == "module":
            return pid[1]
        _, dtype, key, _, length, *view = pid
        if key not in self.storages:
            if not 0 <= length * dtype.itemsize <= self.file_size:
                raise ValueError("a tensor is larger than the file")
            self.storages[key] = torch.zeros(length, dtype=dtype)
        whole = self.storages[key]
        return whole[view[0][1] : view[0][1] + view[0][2]] if view and view[0] else whole


def read_modules(path: Path) -> Any:
    """Reads what torch.save wrote: modules as Records, tensors as tensors. Raises ExportError in one sentence."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                return _ZipReader(archive, pickled).load()
        with path.open("rb") as file:
            return _read_legacy(file, path.stat().st_size)
    except Refused as refused:
        raise refusal(path, refused, "checkpoint") from None
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # a damaged file can raise nearly anything
        raise ExportError(f"{path} cannot be read as a PyTorch checkpoint ({type(error).__name__})") from error


def _read_legacy(file: IO[bytes], file_size: int) -> Any:
    if Reader(file).load() != MAGIC:
        raise ValueError("not a checkpoint")
    Reader(file).load(), Reader(file).load()  # the version, and facts of the machine
    reader = _LegacyReader(file, file_size)
    content = reader.load()
    for key in Reader(file).load():
        values = reader.storages[key]
        length = int.from_bytes(file.read(8), "little")
        if length != len(values):
            raise ValueError("the length of a storage is not the one announced")
        if length:
            values.copy_(torch.frombuffer(bytearray(file.read(length * values.itemsize)), dtype=values.dtype))
    return content


def state_of(value: object) -> State | None:
    """Returns the state dict of a module that was read as a Record, or a state dict itself; None for all else."""
    if isinstance(value, Record):
        found = dict(_walk(value, "", ()))
        return plain(found) if found else None
    return plain(value) if is_state(value) else None  # type: ignore[arg-type]


def _walk(module: Record, prefix: str, above: tuple[int, ...]) -> list[tuple[str, Tensor]]:
    unsaved = module.fields.get("_non_persistent_buffers_set", ())
    own: dict[str, Any] = {**_part(module, "_parameters"), **_part(module, "_buffers")}
    found = [(prefix + name, value) for name, value in own.items() if isinstance(value, Tensor) and name not in unsaved]
    for name, part in _part(module, "_modules").items():
        if isinstance(part, Record) and id(part) not in above:  # a damaged file can contain a module in itself
            found += _walk(part, f"{prefix}{name}.", (*above, id(module)))
    return found


def _part(module: Record, field: str) -> Mapping[str, Any]:
    value = module.fields.get(field, {})
    return value if isinstance(value, Mapping) else {}

"""Pickles that are read and never executed. Knows which plain containers are harmless; knows no checkpoint.

A pickle is a program: it can name any function of any installed package and have it called. This reader calls none.
Objects of a project's own classes become Records, which have fields and no behaviour.
"""

import pickle
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO, Any

from export.errors import ExportError

PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg", "UserDict": "collections"}
UNREAD = ("numpy.", "torch.device", "torch.Size", "torch.dtype")
"""Values of these are needed nowhere: they become Records that ignore what they are made from."""


class Record:
    """What a pickle says of an object of a foreign class: its fields. There is a subclass for each class."""

    origin = ""
    fields: dict[str, Any]

    def __new__(cls, *arguments: object) -> "Record":
        """Refuses arguments: a class that is called with some could as well be a function."""
        if arguments and not cls.origin.startswith(UNREAD):
            raise Refused(cls.origin)
        record = super().__new__(cls)
        record.fields = {}
        return record

    def __init__(self, *arguments: object) -> None:
        """Takes what __new__ did."""

    def __setstate__(self, state: object) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        self.fields = {str(name): value for part in parts if isinstance(part, dict) for name, value in part.items()}


class Refused(pickle.UnpicklingError):
    """Something in a pickle that is not plain data; the message is its dotted name."""


class Reader(pickle.Unpickler):
    """Reads a pickle of containers, numbers, strings and Records of the classes whose names are in `classes`.

    classes: names without their modules, which differ between versions of a project; None for any name.
    """

    def __init__(self, file: IO[bytes], classes: Collection[str] | None = ()) -> None:
        super().__init__(file, encoding="latin-1")  # the bytes of Python 2's strings
        self.classes = classes
        self.records: dict[str, type[Record]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Returns the harmless stand-in for a name. Raises Refused for all others."""
        full = f"{PYTHON_2.get(module, module)}.{name}"
        if full in HARMLESS:
            return HARMLESS[full]
        if self.classes is None or name in self.classes or full.startswith(UNREAD):
            return self.records.setdefault(full, type(name, (Record,), {"origin": full}))
        raise Refused(full)


def _rebuilt(kind: type[Record], base: object = object, state: object = None) -> Record:
    """How Python 2, and the oldest protocols, make an object."""
    if not (isinstance(kind, type) and issubclass(kind, Record)):
        raise Refused(str(kind))
    return kind()


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """How the oldest protocols write bytes."""
    return text.encode("latin-1")


HARMLESS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": defaultdict,
    "collections.Counter": Counter,
    "copyreg._reconstructor": _rebuilt,
    "_codecs.encode": _encoded,
    **{f"builtins.{kind.__name__}": kind for kind in (int, float, str, list, tuple, dict, set, frozenset, object)},
}


def read_pickle(path: Path, classes: Collection[str], what: str) -> Any:
    """Reads a pickle. what: what it should be, as in "vocabulary". Raises ExportError in one sentence."""
    try:
        with path.open("rb") as file:
            return Reader(file, classes).load()
    except Refused as refused:
        raise refusal(path, refused, what) from None
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ExportError(f"{path} is not a {what}: it cannot be read as a pickle ({error})") from error


def refusal(path: Path, refused: Refused, what: str) -> ExportError:
    """Returns the error for a pickle that names something else than data."""
    return ExportError(
        f"{path} asks for {refused}, which does not belong in a {what} and could run code, so it was not read "
        "and nothing of it was run"
    )

"""What may not break without a new version: names, parameters and attributes that docs/versions.md promises.

A line that is new is a minor change. A line that goes or changes is a breaking one, which the changelog has to tell.
`python -m tests.test_public_api > tests/public_api.txt` writes down what there is.
"""

import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engine

PROMISED = Path(__file__).with_name("public_api.txt")


MADE_BY_THE_ENGINE = {"CaptionFuture", "CaptionStream"}  # nobody else calls these classes


def parameters(value: Any) -> str:
    """Returns the names of a call's parameters; "=" follows those that may be left out."""
    signature = inspect.signature(value)
    said, keyword = [], False
    for each in signature.parameters.values():
        if each.name in ("self", "cls"):
            continue
        if each.kind is each.KEYWORD_ONLY and not keyword:
            said.append("*")
            keyword = True
        said.append(each.name + ("=" if each.default is not each.empty else ""))
    return f"({', '.join(said)})"


def members(kind: type) -> Iterator[str]:
    """Yields the public methods and properties that the engine itself gives a class."""
    ours = [base for base in kind.__mro__ if base.__module__.split(".")[0] == "engine"]
    for name in sorted({name for base in ours for name in vars(base) if not name.startswith("_")}):
        value = getattr(kind, name)
        if callable(value):
            yield f"{kind.__name__}.{name}{parameters(value)}"
        elif isinstance(value, property):
            yield f"{kind.__name__}.{name}"


def surface() -> list[str]:
    """Returns a line for each public class with its promised parents, and for each of its members."""
    lines = []
    for name in sorted(engine.__all__):
        kind = getattr(engine, name)
        if not inspect.isclass(kind):
            lines.append(name + (parameters(kind) if callable(kind) else f": {type(kind).__name__}"))
            continue
        if issubclass(kind, Exception):
            parents = [base.__name__ for base in kind.__mro__[1:] if issubclass(base, Exception)]
            lines.append(f"{name} is {', '.join(parents)}")
        else:
            lines.append(name + ("" if name in MADE_BY_THE_ENGINE else parameters(kind)))
        lines.extend(members(kind))
    captioner = engine.Captioner(provider="cpu")
    return [*lines, *(f"Captioner().{name}" for name in sorted(vars(captioner)) if not name.startswith("_"))]


def test_nothing_that_was_promised_is_gone_or_changed() -> None:
    assert surface() == PROMISED.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    "value",
    [
        engine.Beam(beam_size=4, suppress=("dog",)),
        engine.Caption.best_of([engine.Hypothesis("a dog", -1.0, -2.0, ("a", "dog"), (-1.0, -1.0), False)]),
        engine.ImageError("is empty", source="a.jpg", entry=3),
        engine.OptionsError("top_k must be a whole number from 0", name="top_k", value=-1, owner="Sample"),
        engine.OverloadedError("too many"),
        engine.DeadlineError("too late"),
    ],
)
def test_options_captions_and_errors_cross_processes(value: object) -> None:
    copy = pickle.loads(pickle.dumps(value))
    assert (type(copy), repr(copy)) == (type(value), repr(value))
    assert getattr(copy, "__dict__", {}) == getattr(value, "__dict__", {})


if __name__ == "__main__":
    print("\n".join(surface()))

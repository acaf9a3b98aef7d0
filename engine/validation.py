"""Checks of values that callers give: one sentence naming record, field and value."""

from math import inf, isfinite
from numbers import Integral, Real

from engine.errors import OptionsError


def require(condition: bool, owner: str, name: str, value: object, what: str) -> None:
    """Raises OptionsError, saying what `name` must be, unless the condition holds."""
    if not condition:
        raise OptionsError(f"{name} must be {what}", name=name, value=value, owner=owner)


def is_int(value: object, low: float = -inf) -> bool:
    """Says whether a value is a whole number (numpy's too, but no bool) from `low`."""
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= low


def is_number(value: object) -> bool:
    """Says whether a value is a finite number and no bool."""
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def plain(value: object) -> object:
    """Returns a number as Python's own int or float, so that no narrow numpy type decides the arithmetic later."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)

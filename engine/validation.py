"""Checks of values that callers pass; each error names the class, the field and the value."""

from math import inf, isfinite
from numbers import Integral, Real

from engine.errors import OptionsError


def require(condition: bool, owner: str, name: str, value: object, what: str) -> None:
    """Raises OptionsError, saying what `name` must be, unless the condition is true."""
    if not condition:
        raise OptionsError(f"{name} must be {what}", name=name, value=value, owner=owner)


def is_int(value: object, low: float = -inf) -> bool:
    """Returns whether a value is an integer of at least `low`, numpy's included but no bool."""
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= low


def is_number(value: object) -> bool:
    """Returns whether a value is a finite number and not a bool."""
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def plain(value: object) -> object:
    """Converts a number to Python's int or float, so that no narrow numpy type limits later arithmetic."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)

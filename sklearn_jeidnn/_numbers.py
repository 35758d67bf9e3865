"""Check numbers that a user gives (Python only)."""

import math
from numbers import Integral, Real
from typing import Any


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return isinstance(value, Integral) or math.isfinite(value)


def check_number(
    value: Any,
    name: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    whole: bool = False,
) -> None:
    """Refuse what is not a finite number in an interval, and name the parameter.

    Parameters
    ----------
    value : object
    name : str
        Of the parameter.
    least, above : float or None
        Lower bound, which is allowed or not.
    most, below : float or None
        Upper bound, which is allowed or not.
    whole : bool, default=False
        Whether the number must be an integer.
    """
    if is_number(value) and (isinstance(value, Integral) or not whole):
        low = (least is None or value >= least) and (above is None or value > above)
        high = (most is None or value <= most) and (below is None or value < below)
        if low and high:
            return
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    allowed = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
    kind = "whole number" if whole else "finite number"
    raise ValueError(f"{name}={value!r} is not allowed; give a {kind} {allowed}".rstrip() + ".")


def check_probability(value: Any, name: str) -> None:
    """Refuse what is not a number above 0 and below 1."""
    check_number(value, name, above=0, below=1)

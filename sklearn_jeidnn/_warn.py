"""Warn the line of the user's code that called the package."""

import sys
import warnings

# Modules between a user's line and the code that warns.
SKIPPED = (__name__.partition(".")[0], "sklearn.base", "contextlib")


def warn_caller(message: str) -> None:
    """Give a ``UserWarning`` that names the first line outside of this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(SKIPPED):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level + 1)

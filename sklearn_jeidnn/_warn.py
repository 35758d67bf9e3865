"""Warn the line of the user's code that called the package."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar

# Modules between a user's line and the code that warns.
SKIPPED = (__name__.partition(".")[0], "sklearn.base", "contextlib")
_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


def warn_caller(message: str) -> None:
    """Give a ``UserWarning`` that names the first line outside of this package."""
    collected = _collected.get()
    if collected is not None:
        collected.append(message)
        return
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(SKIPPED):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level + 1)


@contextlib.contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect this thread's messages instead of warning, for whom they concern is not who wrote the code."""
    found: list[str] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)

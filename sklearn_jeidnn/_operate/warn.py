"""Warn the line of the user's code that called the package."""

from .._warn import warn_caller

__all__ = ["warn_caller"]

"""Fit a cascade to samples, as the estimator's parameters say."""

from .cascade import FittedCascade, fit_cascade
from .spec import CascadeSpec

__all__ = ["CascadeSpec", "FittedCascade", "fit_cascade"]

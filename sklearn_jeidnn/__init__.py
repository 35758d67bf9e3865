"""Neural classifiers that spend only as much computation on a row as that row needs."""

from ._classifier import EarlyExitClassifier

__version__ = "0.1.0"

__all__ = ["EarlyExitClassifier", "__version__"]

"""Neural classifiers that spend on a sample only as much computation as it needs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._classifier import EarlyExitClassifier

__version__ = "0.1.0"

__all__ = ["EarlyExitClassifier", "__version__"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to load: only when the estimator is first asked for (PEP 562).
    if name == "EarlyExitClassifier":
        from ._classifier import EarlyExitClassifier

        return EarlyExitClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""What to say where networks may have learned from the samples that are to calibrate (NumPy only)."""

from typing import Any

WHAT_TO_DO = (
    "Samples that a network learned from calibrate nothing, so no guarantee holds: prediction sets, probabilities and "
    "limits speak of samples that it knows. Give samples that no network learned from as X_val and y_val (if they are "
    "part of X, split them off beforehand), or to conformalize."
)


def check_certifiable(leakage: str | None, confidence: Any, name: str = "risk_confidence") -> None:
    """Refuse to certify a limit if networks may have learned from the samples that would test it.

    Parameters
    ----------
    leakage : str or None
        Why they may have; None if nothing says so.
    confidence : float or None
        As the user asks for it.
    name : str, default="risk_confidence"
        Of the parameter.
    """
    if leakage is not None and confidence is not None:
        raise ValueError(f"{name}={confidence!r} cannot be given: {leakage}. {WHAT_TO_DO}")

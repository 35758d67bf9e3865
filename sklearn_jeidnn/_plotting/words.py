"""Numbers and names as a reader takes them in."""

import math

POLICY_WORDS = {
    "learned": "learned gates",
    "confidence": "threshold on confidence",
    "entropy": "threshold on entropy",
    "margin": "threshold on margin",
    "patience": "patience",
    "confidence_per_exit": "confidence, a threshold for each exit",
    "entropy_per_exit": "entropy, a threshold for each exit",
    "margin_per_exit": "margin, a threshold for each exit",
}
LONGEST_NAME = 34
# No-break, so that a number stays with its sign.
PERCENT = "\N{NO-BREAK SPACE}%"


def percent(share: float) -> str:
    """A share in percent, two digits and more: 0.0781 -> "7.8 %"."""
    if not math.isfinite(share):
        return "?"
    points = 100 * share
    if points >= 10 or points == 0:
        return f"{points:.0f}{PERCENT}"
    return f"{points:.2g}{PERCENT}"


def percent_with_decimal(share: float) -> str:
    """A share in percent, one decimal: 0.9778 -> "97.8 %"."""
    return f"{100 * share:.1f}{PERCENT}" if math.isfinite(share) else "?"


def counted(n: int, noun: str = "sample") -> str:
    """1 -> "1 sample", 2 -> "2 samples"."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """A name of at most so many letters; its end says most."""
    return name if len(name) <= longest else "\N{HORIZONTAL ELLIPSIS}" + name[1 - longest :]

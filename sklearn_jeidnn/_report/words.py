"""Numbers in words: shares, costs, counts, and what they mean."""

import math

from .points import Share

NO_BREAK = "\u00a0"
NOTHING = "–"


def percent(share: float | None, digits: int = 1) -> str:
    if share is None or math.isnan(share):
        return NOTHING
    return f"{100 * share:.{digits}f}{NO_BREAK}%"


def cost_text(cost: float) -> str:
    return f"{cost:.3f}" if cost < 0.1 else f"{cost:.2f}"


def count(n: int, noun: str = "") -> str:
    """A number, with its noun in the singular or the plural."""
    return f"{n:,}" + (f"{NO_BREAK}{noun}{'s' * (n != 1)}" if noun else "")


def interval(share: Share | None) -> str:
    """The interval that goes with a share of samples."""
    if share is None or not share.n_samples:
        return ""
    return f"95{NO_BREAK}% interval: {100 * share.low:.1f} to {100 * share.high:.1f}{NO_BREAK}%"


def set_size(size: float | None) -> str:
    return NOTHING if size is None else f"{size:.2f}"


def points_apart(share: float, other: float) -> str:
    """How much one share differs from another, in percentage points."""
    difference = round(100 * (share - other), 1)
    if not difference:
        return "the same as the full model"
    more = "more" if difference > 0 else "less"
    noun = "point" if abs(difference) == 1 else "points"
    return f"{abs(difference):.1f} {noun} {more} than the full model"

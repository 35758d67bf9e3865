"""Horizontal bars, one for each exit by its name, from zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import SMALL, colours_of, hide_frame, inches
from .words import percent, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR = 0.68
# Width of a letter, in inches.
LETTER = 0.085
# Width of axes below which three ticks must do, in inches.
FEW_TICKS = 3.2


def height_for(n_bars: int) -> float:
    """Height of a figure of so many bars, in inches."""
    return 1.3 + 0.5 * max(n_bars, 2)


def label_bars(ax: Axes, names: Sequence[str], details: Sequence[str], height: float = 1) -> None:
    """Write the name of each exit on the vertical axis, the first on top at 0, and a detail below it."""
    labels = [
        f"{shortened(name)}\n{detail}" if detail else shortened(name)
        for name, detail in zip(names, details, strict=True)
    ]
    ax.set_yticks(height * np.arange(len(labels)), labels, fontsize=SMALL)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    hide_frame(ax)


def draw_bars(ax: Axes, lengths: np.ndarray, *, color: Any, starts: Any = 0, **style: Any) -> Any:
    """Draw bars from zero (or from where others end), and return them."""
    edge = colours_of(ax).paper
    rows = np.arange(len(lengths))
    return ax.barh(rows, lengths, BAR, left=starts, color=color, edgecolor=edge, **style)


def write_beside(ax: Axes, ends: np.ndarray, words: Sequence[str]) -> None:
    """Write words at the right of bars that end there, and make room for them."""
    most = float(np.nanmax(ends, initial=0)) or 1.0
    ink = colours_of(ax).ink
    for row, (end, text) in enumerate(zip(np.nan_to_num(ends).tolist(), words, strict=True)):
        place = end + 0.02 * most
        ax.text(place, row, text, ha="left", va="center", fontsize=SMALL, color=ink)
    longest = max(len(line) for text in words for line in text.split("\n"))
    room = min(LETTER * (longest + 1) / inches(ax)[0], 0.7)
    ax.set_xlim(0, most / (1 - room))
    ticks = [tick for tick in ax.get_xticks() if tick <= most * (1 + 1e-9)]
    ax.set_xticks(ticks[:: max((len(ticks) - 1) // 2, 1)] if inches(ax)[0] < FEW_TICKS else ticks)


def label_shares(ax: Axes, label: str) -> None:
    """Name the horizontal axis, and show shares on it in percent."""
    from matplotlib.ticker import FuncFormatter

    ax.set_xlabel(label)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: percent(share)))

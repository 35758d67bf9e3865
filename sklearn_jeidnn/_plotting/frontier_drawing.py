"""How accuracy over mean cost is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import (
    OTHER_STYLES,
    SMALL,
    VERMILLION,
    Colours,
    Style,
    add_legend,
    colours_of,
    hide_frame,
    is_narrow,
    with_kwargs,
)
from .frontiers import MOST_OF_AXIS, frontier_line, frontier_runs
from .intervals import CostCurve
from .reading_frontiers import ORACLE
from .words import PERCENT, percent, percent_with_decimal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Cost of the cheapest point below which a linear axis would show no more than a vertical line.
LEAST_ON_LINEAR = 0.1
BAND = f"difference to the backbone, 95{PERCENT} interval"
# Room over all points for words, as a share of the height.
HEADROOM = 0.2


@dataclass(frozen=True)
class Drawing:
    """A display's values on axes."""

    display: Any
    ax: Axes
    name: str
    colours: Colours
    is_log: bool
    most: float  # highest cost that is drawn

    @classmethod
    def of(cls, display: Any, ax: Axes, name: str | None) -> Drawing:
        """The drawing of a display."""
        first = next(iter(display.curves.values()))
        costs = [curve.mean_cost.max() for curve in display.curves.values()]
        is_log = bool(first.mean_cost.min() < LEAST_ON_LINEAR)
        name = "early exits" if name is None else name
        return cls(display, ax, name, colours_of(ax), is_log, float(max(1.0, *costs)))

    @property
    def widest_gap(self) -> float:
        """Between operating points that a line joins, in units of the axis."""
        if not self.is_log:
            return MOST_OF_AXIS * self.most
        least = min(curve.mean_cost.min() for curve in self.display.curves.values())
        return float(MOST_OF_AXIS * np.log10(self.most / least))

    def draw(self, curve_kwargs: Mapping[str, Any] | None) -> Any:
        """Draw everything but the words; returns the line of the first curve."""
        (first_name, first), *others = self.display.curves.items()
        line = self._draw_first(f"{self.name}: {first_name}", first, curve_kwargs)
        self._draw_operating_point()
        self._draw_backbone()
        styles = iter(OTHER_STYLES * len(others))
        for name, curve in others:
            self._draw_other(name, curve, self._oracle_style() if name == ORACLE else next(styles))
        self._draw_single_exits()
        return line

    def _line(self, curve: CostCurve, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return frontier_line(curve.mean_cost, heights, self._runs(curve))

    def _runs(self, curve: CostCurve) -> list[tuple[np.ndarray, np.ndarray]]:
        return frontier_runs(curve.mean_cost, curve.accuracy, self.widest_gap, self.is_log)

    def _draw_first(
        self, name: str, curve: CostCurve, curve_kwargs: Mapping[str, Any] | None
    ) -> Any:
        defaults: Style = {
            "color": self.colours.main,
            "linewidth": 2.5,
            "marker": "o",
            "markevery": [],
        }
        style = with_kwargs({**defaults, "zorder": 5, "label": name}, curve_kwargs)
        (line,) = self.ax.plot(*self._line(curve, curve.accuracy), **style)
        self._draw_band(curve, line.get_color())
        self._draw_points(curve, line.get_color())
        return line

    def _draw_band(self, curve: CostCurve, color: Any) -> None:
        """Draw what chance explains; a bar where a point stands alone."""
        costs, low = self._line(curve, curve.low)
        high = self._line(curve, curve.high)[1]
        style: Style = {"color": color, "alpha": 0.15}
        self.ax.fill_between(costs, low, high, linewidth=0, label=BAND, **style)
        alone = np.isnan(np.r_[np.nan, costs[:-1]]) & np.isnan(np.r_[costs[1:], np.nan])
        self.ax.vlines(costs[alone], low[alone], high[alone], linewidth=7, **style)

    def _draw_points(self, curve: CostCurve, color: Any) -> None:
        """Draw all operating points of the first curve, hollow where one exit does as well."""
        one = self.display.single_exit_suffices
        one = np.zeros(len(curve.accuracy), dtype=bool) if one is None else one
        face = {"full": color, "hollow": self.colours.paper}
        for kind, rows in (("full", ~one), ("hollow", one)):
            if rows.any():
                style: Style = {
                    "markerfacecolor": face[kind],
                    "markersize": 5.5,
                    "zorder": 6,
                    "color": color,
                }
                label = "_points" if kind == "full" else "one exit for all does as well there"
                place = (curve.mean_cost[rows], curve.accuracy[rows])
                self.ax.plot(*place, "o", label=label, **style)

    def _draw_operating_point(self) -> None:
        point = self.display.operating_point
        if point is None:
            return
        cost, accuracy = float(point.mean_cost[0]), float(point.accuracy[0])
        label = f"{self.name}, operating point: {percent_with_decimal(accuracy)} at {percent(cost)}"
        style: Style = {"markersize": 11, "color": VERMILLION, "zorder": 7, "label": label}
        self.ax.plot([cost], [accuracy], "D", markeredgecolor=self.colours.paper, **style)

    def _draw_backbone(self) -> None:
        accuracy = self.display.backbone_accuracy
        label = f"plain backbone: {percent_with_decimal(accuracy)} at {percent(1)}"
        self.ax.axhline(accuracy, color=self.colours.muted, linewidth=0.8, linestyle=(0, (1, 3)))
        style: Style = {"color": self.colours.ink, "markersize": 15, "zorder": 7, "label": label}
        self.ax.plot([1], [accuracy], "*", markeredgecolor=self.colours.paper, **style)

    def _draw_other(self, name: str, curve: CostCurve, style: Mapping[str, Any]) -> None:
        costs, heights = self._line(curve, curve.accuracy)
        rows = np.concatenate([envelope for _, envelope in self._runs(curve)])
        marked = np.flatnonzero(np.isin(costs, curve.mean_cost[rows])).tolist()
        more: Style = {
            "linewidth": 1.5,
            "markersize": 8,
            "zorder": 3,
            "label": name,
            "markevery": marked,
        }
        self.ax.plot(costs, heights, **{**style, **more})

    def _oracle_style(self) -> dict[str, Any]:
        return {"color": self.colours.muted, "linestyle": (0, (1, 1)), "marker": "1"}

    def _draw_single_exits(self) -> None:
        single = self.display.single_exits
        if single is not None:
            style: Style = {"color": self.colours.muted, "zorder": 2, "markersize": 6}
            label = "all samples at one exit"
            self.ax.plot(single.mean_cost, single.accuracy, "s", label=label, **style)

    def draw_comparison(self, words: str | None) -> Any:
        """Write what is said of the operating point over an arrow from the backbone to it; returns the text."""
        if words is None:
            return None
        low, high = self.ax.get_ylim()
        height = high - low
        level = high + 0.05 * height
        self.ax.set_ylim(low, high + HEADROOM * height)
        point = self.display.operating_point
        cost, accuracy = float(point.mean_cost[0]), float(point.accuracy[0])
        self._draw_arrow(cost, level)
        for place, start in ((cost, accuracy), (1.0, self.display.backbone_accuracy)):
            style: Style = {"color": VERMILLION, "linewidth": 0.8, "linestyle": ":"}
            self.ax.plot([place, place], [start, level], label="_foot", **style)
        size = SMALL if is_narrow(self.ax) else 12
        style = {"color": VERMILLION, "fontsize": size, "fontweight": "bold"}
        above = level + 0.025 * height
        return self.ax.text(1.0, above, words, ha="right", va="bottom", **style)

    def _draw_arrow(self, cost: float, level: float) -> None:
        """Draw an arrow from the backbone's cost to another; of lines, which legends keep clear of."""
        style: Style = {"color": VERMILLION, "linewidth": 2, "marker": "<", "markevery": [0]}
        self.ax.plot([cost, 1.0], [level, level], label="_arrow", **style)

    def finish(self) -> None:
        """Label the axes, and put the legend where there is room."""
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        self.ax.set(
            xlabel=f"Mean {self.display.unit} of a sample (plain backbone: 100{PERCENT})",
            ylabel=f"Accuracy,{PERCENT}",
        )
        if self.is_log:
            self.ax.set_xscale("log")
            self.ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            self.ax.xaxis.set_minor_locator(NullLocator())
        else:
            self.ax.set_xlim(0, None)
        self.ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: percent(share)))
        limits = self.ax.get_ylim()
        self.ax.set_yticks([tick for tick in self.ax.get_yticks() if tick <= 1 + 1e-9])
        self.ax.set_ylim(limits)
        self.ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}"))
        hide_frame(self.ax)
        add_legend(self.ax)

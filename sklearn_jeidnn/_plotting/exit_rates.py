"""Which share of samples leaves at each exit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .bars import draw_bars, height_for, label_bars, label_shares, write_beside
from .figures import ORANGE, Style, add_legend, axes_for, colours_of
from .reading import (
    checked_costs,
    checked_exits,
    checked_labels,
    checked_names,
    fitted_classifier,
    labelled_answers,
    names_of_exits,
    unit_of_cost,
)
from .words import counted, percent, percent_with_decimal

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ExitRatesDisplay:
    """Which share of samples leaves at each exit, what that costs, and how many of the answers there are right.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`. Exits are bars by name, the first on top, from
    zero. With labels, the hatched end of a bar is the share of wrong answers.

    Parameters
    ----------
    n_samples : ndarray of int (n_exits,)
        Samples that leave at each exit.
    exit_names : list of str (n_exits,)
    n_wrong : ndarray of int (n_exits,), default=None
        Those of them that get a wrong label.
    exit_costs : ndarray (n_exits,), default=None
        Cost of each exit, relative to one pass of the plain backbone.
    unit : {"cost", "time"}, default="cost"
        What ``exit_costs`` are.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    bars_ : list of matplotlib BarContainer
        Of right answers (of all, without labels), and of wrong ones.

    See Also
    --------
    ExitExamplesDisplay : What the samples are like that leave at each exit.
    """

    def __init__(
        self,
        n_samples: np.ndarray,
        exit_names: Sequence[str],
        *,
        n_wrong: np.ndarray | None = None,
        exit_costs: np.ndarray | None = None,
        unit: str = "cost",
    ) -> None:
        self.n_samples = n_samples
        self.exit_names = exit_names
        self.n_wrong = n_wrong
        self.exit_costs = exit_costs
        self.unit = unit

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any = None, *, ax: Axes | None = None
    ) -> ExitRatesDisplay:
        """Draw which share of some samples leaves at each exit of a fitted estimator.

        Parameters
        ----------
        estimator : EarlyExitClassifier, Pipeline that ends in one, or search over such
            Fitted.
        X : array-like (n_samples, ...)
        y : array-like (n_samples,), default=None
            Labels, if wrong answers are to be told from right ones.
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        ExitRatesDisplay
        """
        classifier, X = fitted_classifier(estimator, X, cls)
        names, costs = names_of_exits(classifier), classifier.exit_costs_
        wrong = None
        if y is None:
            exit_index = classifier.predict_exit(X)
        else:
            codes, probabilities, exit_index = labelled_answers(classifier, X, y)
            wrong = probabilities.argmax(axis=1) != codes
        counts, n_wrong = _counts(exit_index, wrong, len(names))
        unit = unit_of_cost(classifier)
        return cls(counts, names, n_wrong=n_wrong, exit_costs=costs, unit=unit).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        exit_index: ArrayLike,
        *,
        y_true: Any = None,
        y_pred: Any = None,
        exit_names: Sequence[str] | None = None,
        exit_costs: ArrayLike | None = None,
        ax: Axes | None = None,
    ) -> ExitRatesDisplay:
        """Draw which share of samples took each exit.

        Parameters
        ----------
        exit_index : array-like of int (n_samples,)
            Exit of each sample, from 0.
        y_true, y_pred : array-like (n_samples,), default=None
            True and predicted labels; give both or none.
        exit_names : list of str (n_exits,), default=None
            None numbers the exits, as far as samples take them.
        exit_costs : array-like (n_exits,), default=None
            Relative to one pass of the plain backbone.
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        ExitRatesDisplay

        Raises
        ------
        ValueError
            If exits, names, costs or labels do not fit each other.
        """
        names = checked_names(exit_names, exit_index)
        exits = checked_exits(exit_index, len(names))
        costs = checked_costs(exit_costs, len(names))
        if (y_true is None) != (y_pred is None):
            raise ValueError("y_true and y_pred tell wrong answers together; give both, or none.")
        wrong = None
        if y_true is not None:
            known = checked_labels(y_true, len(exits), "y_true")
            wrong = known != checked_labels(y_pred, len(exits), "y_pred")
        counts, n_wrong = _counts(exits, wrong, len(names))
        return cls(counts, names, n_wrong=n_wrong, exit_costs=costs).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> ExitRatesDisplay:
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        self
        """
        ax = axes_for(self, ax, (7.5, height_for(len(self.exit_names))))
        rates = self.n_samples / self.n_samples.sum()
        wrong = (
            np.zeros_like(rates) if self.n_wrong is None else self.n_wrong / self.n_samples.sum()
        )
        label = "_all" if self.n_wrong is None else "right"
        self.bars_ = [draw_bars(ax, rates - wrong, color=colours_of(ax).main, label=label)]
        if self.n_wrong is not None:
            style: Style = {"color": ORANGE, "hatch": "//////", "label": "wrong"}
            self.bars_.append(draw_bars(ax, wrong, starts=rates - wrong, **style))
        label_bars(ax, self.exit_names, self._costs_in_words())
        write_beside(ax, rates, [self._in_words(i) for i in range(len(rates))])
        label_shares(ax, f"Share of {counted(int(self.n_samples.sum()))}")
        if self.n_wrong is not None:
            add_legend(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _costs_in_words(self) -> list[str]:
        if self.exit_costs is None:
            return [""] * len(self.exit_names)
        return [f"{percent(cost)} of the {self.unit}" for cost in self.exit_costs.tolist()]

    def _in_words(self, row: int) -> str:
        """What happens at an exit: "67 %: 363 samples", and how many are right."""
        n = int(self.n_samples[row])
        if not n:
            return "no sample"
        words = f"{percent(n / self.n_samples.sum())}: {counted(n)}"
        if self.n_wrong is None:
            return words
        return f"{words}\n{percent_with_decimal(1 - self.n_wrong[row] / n)} right"


def _counts(
    exit_index: np.ndarray, wrong: np.ndarray | None, n_exits: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples, and wrong answers if they are known, at each exit: (n_exits,)."""
    counts = np.bincount(exit_index, minlength=n_exits)
    return counts, None if wrong is None else np.bincount(exit_index[wrong], minlength=n_exits)

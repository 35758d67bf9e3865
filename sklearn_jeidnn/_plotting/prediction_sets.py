"""Coverage and size of prediction sets, by exit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .._conformal.quantiles import true_label_values
from .._numbers import check_probability
from .bars import draw_bars, height_for, label_bars, label_shares, write_beside
from .figures import SMALL, VERMILLION, Style, checked_axes, colours_of, pyplot
from .intervals import wilson_errors
from .reading import (
    checked_exits,
    checked_names,
    checked_sets,
    columns_of,
    fitted_classifier,
    labelled_answers,
    names_of_exits,
)
from .words import counted, percent, percent_with_decimal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALL = "all samples"


class PredictionSetDisplay:
    """Coverage and mean size of prediction sets, for the samples that leave at each exit and for all.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`. Exits are bars by name, from zero, with how many
    samples they have. Error bars are Wilson's 95 % intervals of the coverages [1]_. What is guaranteed is the coverage
    of all samples, or of each exit where sets were made with ``condition_on="exit"``.

    Parameters
    ----------
    n_covered, n_labels, n_samples : ndarray of int (n_exits,)
        Samples whose set holds the true label; labels in all sets together; samples.
    exit_names : list of str (n_exits,)
    confidence_level : float

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes (2,)
        Of coverage and of set size.
    ax_ : matplotlib Axes
        Of coverage.
    figure_ : matplotlib Figure

    References
    ----------
    .. [1] Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """

    def __init__(
        self,
        n_covered: np.ndarray,
        n_labels: np.ndarray,
        n_samples: np.ndarray,
        exit_names: Sequence[str],
        *,
        confidence_level: float,
    ) -> None:
        self.n_covered, self.n_labels, self.n_samples = n_covered, n_labels, n_samples
        self.exit_names = exit_names
        self.confidence_level = confidence_level

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        confidence_level: float = 0.9,
        groups: ArrayLike | None = None,
        ax: Any = None,
    ) -> PredictionSetDisplay:
        """Draw coverage and mean size of a fitted estimator's prediction sets on some samples.

        Parameters
        ----------
        estimator : EarlyExitClassifier, Pipeline that ends in one, or search over such
            Fitted.
        X : array-like (n_samples, ...)
            Samples that ``fit`` has not seen; a warning tells if networks have learned from them.
        y : array-like (n_samples,)
        confidence_level : float, default=0.9
        groups : array-like (n_samples,), default=None
            As ``predict_set`` takes them.
        ax : matplotlib Axes, or pair of such, default=None
            A single one is divided into two; None makes a figure.

        Returns
        -------
        PredictionSetDisplay
        """
        check_probability(confidence_level, "confidence_level")
        classifier, X = fitted_classifier(estimator, X, cls)
        codes, _, exit_index = labelled_answers(classifier, X, y)
        sets = classifier.predict_set(X, confidence_level=confidence_level, groups=groups)
        names = names_of_exits(classifier)
        return cls._of(sets, codes, exit_index, names, confidence_level).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        sets: ArrayLike,
        exit_index: ArrayLike | None = None,
        *,
        confidence_level: float,
        classes: ArrayLike | None = None,
        exit_names: Sequence[str] | None = None,
        ax: Any = None,
    ) -> PredictionSetDisplay:
        """Draw coverage and mean size of prediction sets.

        Parameters
        ----------
        y_true : array-like (n_samples,)
            True labels.
        sets : array-like of bool (n_samples, n_classes)
            As ``predict_set`` gives them.
        exit_index : array-like of int (n_samples,), default=None
            Exit of each sample, from 0; None draws all samples alone.
        confidence_level : float
            That the sets were asked for with.
        classes : array-like (n_classes,), default=None
            Label of each column, sorted; None takes those of ``y_true``.
        exit_names : list of str (n_exits,), default=None
            None numbers the exits.
        ax : matplotlib Axes, or pair of such, default=None
            A single one is divided into two; None makes a figure.

        Returns
        -------
        PredictionSetDisplay

        Raises
        ------
        ValueError
            If sets, labels and exits do not fit each other, or the level is not in (0, 1).
        """
        check_probability(confidence_level, "confidence_level")
        checked = checked_sets(sets)
        codes = columns_of(y_true, classes, checked, "sets")
        if exit_index is None:
            return cls._of(checked, codes, codes * 0, [], confidence_level).plot(ax=ax)
        names = checked_names(exit_names, exit_index)
        exits = checked_exits(exit_index, len(names), len(codes))
        return cls._of(checked, codes, exits, names, confidence_level).plot(ax=ax)

    @classmethod
    def _of(
        cls,
        sets: np.ndarray,
        codes: np.ndarray,
        exit_index: np.ndarray,
        names: Sequence[str],
        confidence_level: float,
    ) -> PredictionSetDisplay:
        """Counts of each exit; without names all samples are one."""
        names = names or [ALL]
        of_exits = [
            np.bincount(exit_index, weights=values, minlength=len(names)).astype(int)
            for values in (true_label_values(sets, codes), sets.sum(axis=1), np.ones(len(codes)))
        ]
        covered, labels, n_samples = of_exits
        return cls(covered, labels, n_samples, names, confidence_level=confidence_level)

    def plot(self, *, ax: Any = None) -> PredictionSetDisplay:
        """Draw a bar for each exit that samples take, and one for all of them.

        Parameters
        ----------
        ax : matplotlib Axes, or pair of such, default=None
            A single one is divided into two; None makes a figure.

        Returns
        -------
        self
        """
        names, (covered, labels, n_samples) = self._with_all()
        coverage_ax, size_ax = _two_axes(type(self).__name__, ax, len(names))
        coverages, sizes = covered / n_samples, labels / n_samples
        self._draw_coverages(coverage_ax, coverages, wilson_errors(covered, n_samples))
        label_bars(coverage_ax, names, [counted(n) for n in n_samples.tolist()])
        _draw(size_ax, sizes)
        write_beside(size_ax, sizes, [f"{size:.2f}" for size in sizes.tolist()])
        label_bars(size_ax, [""] * len(names), [""] * len(names))
        size_ax.set_xlabel("Mean set size")
        self.axes_ = np.array([coverage_ax, size_ax])
        self.ax_, self.figure_ = coverage_ax, coverage_ax.figure
        return self

    def _with_all(self) -> tuple[list[str], list[np.ndarray]]:
        """Names and counts of the exits that samples take, and last of all samples together."""
        taken = np.flatnonzero(self.n_samples).tolist()
        names = [self.exit_names[i] for i in taken]
        counts = [self.n_covered, self.n_labels, self.n_samples]
        if names == [ALL]:
            return names, counts
        return [*names, ALL], [np.append(n[taken], n.sum()) for n in counts]

    def _draw_coverages(self, ax: Axes, coverages: np.ndarray, errors: np.ndarray) -> None:
        _draw(ax, coverages, xerr=errors, error_kw={"capsize": 3, "ecolor": colours_of(ax).ink})
        words = [percent_with_decimal(coverage) for coverage in coverages.tolist()]
        write_beside(ax, np.ones(len(words)), words)
        level = self.confidence_level
        ax.axvline(level, color=VERMILLION, linestyle="--", linewidth=1.5)
        style: Style = {"color": VERMILLION, "fontsize": SMALL, "fontweight": "bold"}
        text = f"confidence level {percent(level)}"
        ax.text(
            level, 1.01, text, transform=ax.get_xaxis_transform(), ha="center", va="bottom", **style
        )
        label_shares(ax, "Coverage")


def _draw(ax: Axes, values: np.ndarray, **style: Any) -> None:
    """Draw a bar for each exit, and a hatched one for all samples."""
    colours = colours_of(ax)
    bars = draw_bars(ax, values, color=colours.main, **style)
    bars[-1].set(facecolor=colours.muted, hatch="//////")


def _two_axes(display: str, ax: Any, n_bars: int) -> tuple[Axes, Axes]:
    """Axes for coverage and for size: new ones, the pair given, or the place of the one given, divided."""
    plt = pyplot(display)
    if ax is None:
        size = (9, height_for(n_bars) + 0.3)
        shares: Style = {"width_ratios": [1.25, 1]}
        return tuple(plt.subplots(1, 2, figsize=size, layout="constrained", gridspec_kw=shares)[1])
    if np.iterable(ax):
        pair = np.ravel(np.asarray(ax, dtype=object))
        if len(pair) != 2:
            raise ValueError(f"ax has {len(pair)} axes; give one, or two: of coverage and of size.")
        return checked_axes(pair[0], plt), checked_axes(pair[1], plt)
    given = checked_axes(ax, plt)
    grid = given.get_subplotspec()
    given.set_axis_off()
    if grid is None:
        return given.inset_axes((0, 0, 0.55, 1)), given.inset_axes((0.62, 0, 0.38, 1))
    inner = grid.subgridspec(1, 2, width_ratios=[1.25, 1])
    return given.figure.add_subplot(inner[0]), given.figure.add_subplot(inner[1])

"""Displays of accuracy over cost, of reliability and of prediction sets; matplotlib is imported on use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import metrics
from ._labels import read_labels
from ._operate.frontier import oracle
from ._schema import class_codes
from .pipeline import last_step

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["AccuracyCostDisplay", "PredictionSetDisplay", "ReliabilityDisplay"]

Table = Mapping[str, np.ndarray]

# What a user might do instead of learning gates.
POLICIES = ("confidence", "margin_per_exit", "patience")
ORACLE = "oracle (knows the labels)"


class AccuracyCostDisplay:
    """Accuracy over mean cost: exit policies, compared with the plain backbone and single exits.

    Parameters
    ----------
    frontiers : dict of str to dict of str to ndarray (n_points,)
        Tables as :attr:`EarlyExitClassifier.frontier_`, by their names in the legend. The first is
        emphasised.
    single_costs, single_accuracies : ndarray (n_exits,)
        Cost and accuracy of each exit if every sample takes it.
    plain_accuracy : float
        Of the plain backbone, at cost 1.
    estimator_point : tuple of float or None, default=None
        Mean cost and accuracy of the estimator at its operating point.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        frontiers: Mapping[str, Table],
        *,
        single_costs: np.ndarray,
        single_accuracies: np.ndarray,
        plain_accuracy: float,
        estimator_point: tuple[float, float] | None = None,
    ) -> None:
        self.frontiers = frontiers
        self.single_costs = single_costs
        self.single_accuracies = single_accuracies
        self.plain_accuracy = plain_accuracy
        self.estimator_point = estimator_point

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        policies: Sequence[str] = POLICIES,
        ax: Axes | None = None,
    ) -> AccuracyCostDisplay:
        """Draw accuracy over mean cost of a fitted estimator's exits on some samples, under several policies.

        Thresholds and gates were chosen on the samples held out in ``fit``, not on ``X`` and ``y``.

        Parameters
        ----------
        estimator : EarlyExitClassifier, Pipeline that ends in one, or search over such
            Fitted, with ``gate_training="joint"``.
        X : array-like (n_samples, ...)
        y : array-like (n_samples,)
        policies : sequence of str, default=("confidence", "margin_per_exit", "patience")
            Exit policies to draw besides the estimator's own.
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        AccuracyCostDisplay

        Raises
        ------
        ValueError
            If a policy is not known, or gates are bilevel.
        """
        estimator, X = last_step(estimator, X)
        names = dict.fromkeys([estimator.exit_policy, *policies])
        tables = {name: estimator.frontier(X, y, exit_policy=name) for name in names}
        answers, costs = estimator.exit_answers(X, y), estimator.exit_costs_
        labels = estimator.classes_[answers.codes]
        display = cls(
            {**tables, ORACLE: oracle(answers, costs)},
            single_costs=costs,
            single_accuracies=1 - answers.exit_errors(),
            plain_accuracy=float((labels == estimator.predict_backbone(X)).mean()),
            estimator_point=(estimator.mean_cost(X), estimator.score(X, labels)),
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> AccuracyCostDisplay:
        """Draw the frontiers.

        Points of the first frontier are hollow if one exit for all samples does as well (its field
        ``single_exit_suffices``).

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        self
        """
        import matplotlib.pyplot as plt
        from matplotlib.ticker import PercentFormatter

        ax = plt.subplots(figsize=(7, 5))[1] if ax is None else ax
        self._plot_single_exits(ax)
        first, *others = self.frontiers.items()
        for name, table in others:
            self._plot_other(ax, name, table)
        self._plot_first(ax, *first)
        self._plot_points(ax)
        ax.set(xlabel="Mean cost per sample (plain backbone = 1)", ylabel="Accuracy")
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=8)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _plot_single_exits(self, ax: Axes) -> None:
        """Draw each exit taken by every sample."""
        ax.plot(
            self.single_costs,
            self.single_accuracies,
            "s",
            color="0.5",
            label="one exit for all rows",
        )

    def _plot_other(self, ax: Axes, name: str, table: Table) -> None:
        """Draw a frontier that is not the first."""
        style: dict[str, Any] = {"color": "0.6", "linestyle": ":"}
        if name != ORACLE:
            style = {"linestyle": "--"}
        # A frontier may be one point, of which a line without markers shows nothing.
        ax.plot(
            table["mean_cost"], table["accuracy"], linewidth=1.2, label=name, marker=".", **style
        )

    def _plot_first(self, ax: Axes, name: str, table: Table) -> None:
        """Draw the first frontier, with hollow points if one exit does as well there."""
        (line,) = ax.plot(table["mean_cost"], table["accuracy"], "o-", color="C0", markersize=4)
        line.set(linewidth=2, label=name, zorder=3)
        one = table["single_exit_suffices"]
        if one.any():
            ax.plot(
                table["mean_cost"][one],
                table["accuracy"][one],
                "o",
                color="C0",
                markersize=4,
                markerfacecolor="white",
                zorder=4,
                label=f"{name}, but one exit does as well",
            )

    def _plot_points(self, ax: Axes) -> None:
        """Draw the plain backbone, and the estimator at its operating point."""
        ax.plot([1], [self.plain_accuracy], "k*", markersize=12, label="plain backbone")
        if self.estimator_point is not None:
            cost, accuracy = self.estimator_point
            ax.plot(
                [cost],
                [accuracy],
                "D",
                markersize=9,
                markerfacecolor="none",
                color="C3",
                label="this estimator",
            )


class ReliabilityDisplay:
    """Accuracy over confidence, a line for each exit.

    Parameters
    ----------
    curves : dict of int to pair of ndarray (n_bins,)
        Mean confidence and accuracy in bins of equally many samples, by exit.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, curves: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> None:
        self.curves = curves

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: ArrayLike, *, n_bins: int = 10, ax: Axes | None = None
    ) -> ReliabilityDisplay:
        """Draw the reliability of the samples that leave at each exit.

        Exits at which fewer than 10 samples leave are left out.

        Parameters
        ----------
        estimator : EarlyExitClassifier, Pipeline that ends in one, or search over such
            Fitted.
        X : array-like (n_samples, ...)
        y : array-like (n_samples,)
        n_bins : int, default=10
            Largest number of bins; each holds at least ten samples.
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        ReliabilityDisplay
        """
        estimator, X = last_step(estimator, X)
        probabilities, exit_index = estimator.predict_proba(X), estimator.predict_exit(X)
        codes = class_codes(estimator.classes_, read_labels(y, "y"), len(exit_index), "y")
        confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == codes
        curves = {}
        for exit_number, n_rows in enumerate(np.bincount(exit_index)):
            if n_rows >= 10:
                own = exit_index == exit_number
                bins = min(n_bins, n_rows // 10)
                curve = metrics.reliability_curve(confidence[own], correct[own], n_bins=bins)
                curves[exit_number] = curve[:2]
        return cls(curves).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> ReliabilityDisplay:
        """Draw the curves; a calibrated classifier lies on the diagonal.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        self
        """
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=(5, 5))[1] if ax is None else ax
        ax.plot([0, 1], [0, 1], ":", color="0.5", label="calibrated")
        for exit_number, (confidence, accuracy) in self.curves.items():
            ax.plot(confidence, accuracy, "o-", markersize=4, label=f"exit {exit_number}")
        ax.set(
            xlabel="Mean probability of the label answered", ylabel="Share of rows it is right for"
        )
        ax.legend(fontsize=8)
        self.ax_, self.figure_ = ax, ax.figure
        return self


class PredictionSetDisplay:
    """Coverage and mean size of prediction sets, for the samples that leave at each exit.

    Parameters
    ----------
    coverages, sizes, n_rows : ndarray (n_exits,)
        ``n_rows`` is the number of samples. NaN, NaN and 0 at exits that no sample takes.
    confidence_level : float

    Attributes
    ----------
    axes_ : pair of matplotlib Axes
        Of coverage and of set size.
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        coverages: np.ndarray,
        sizes: np.ndarray,
        n_rows: np.ndarray,
        *,
        confidence_level: float,
    ) -> None:
        self.coverages, self.sizes, self.n_rows = coverages, sizes, n_rows
        self.confidence_level = confidence_level

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        confidence_level: float = 0.9,
        groups: ArrayLike | None = None,
        axes: Sequence[Axes] | np.ndarray | None = None,
    ) -> PredictionSetDisplay:
        """Draw coverage and mean size of a fitted estimator's prediction sets on some samples.

        Parameters
        ----------
        estimator : EarlyExitClassifier, Pipeline that ends in one, or search over such
            Fitted.
        X : array-like (n_samples, ...)
        y : array-like (n_samples,)
        confidence_level : float, default=0.9
        groups : array-like (n_samples,), default=None
            As ``predict_set`` takes them.
        axes : pair of matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        PredictionSetDisplay
        """
        estimator, X = last_step(estimator, X)
        exit_index = estimator.predict_exit(X)
        codes = class_codes(estimator.classes_, read_labels(y, "y"), len(exit_index), "y")
        sets = estimator.predict_set(X, confidence_level=confidence_level, groups=groups)
        n_exits = len(estimator.exit_costs_)
        drawn = metrics.sets_by_exit(sets, codes, exit_index, n_exits)
        n_rows = np.bincount(exit_index, minlength=n_exits)
        return cls(*drawn, n_rows, confidence_level=confidence_level).plot(axes=axes)

    def plot(self, *, axes: Sequence[Axes] | np.ndarray | None = None) -> PredictionSetDisplay:
        """Draw a bar for each exit, with two standard errors of its coverage.

        Parameters
        ----------
        axes : pair of matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        self
        """
        import matplotlib.pyplot as plt

        axes = plt.subplots(1, 2, figsize=(9, 4))[1] if axes is None else axes
        taken = np.flatnonzero(self.n_rows)
        coverages = self.coverages[taken]
        errors = 2 * np.sqrt(coverages * (1 - coverages) / self.n_rows[taken])
        axes[0].bar(taken, coverages, yerr=errors, color="C0")
        axes[0].axhline(self.confidence_level, color="k", linestyle=":")
        axes[0].set(xlabel="Exit", ylabel="Coverage", ylim=(min(0.5, *coverages), 1.02))
        axes[1].bar(taken, self.sizes[taken], color="C1")
        axes[1].set(xlabel="Exit", ylabel="Mean set size")
        self.axes_, self.figure_ = axes, axes[0].figure
        return self

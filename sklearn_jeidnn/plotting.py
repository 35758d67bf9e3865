"""Displays. matplotlib is imported on use."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import accuracy_score

from . import metrics
from ._frontier import oracle

# What a user would do instead of learning gates.
POLICIES = ("confidence", "margin_per_exit", "patience")
ORACLE = "oracle (knows the labels)"


class AccuracyCostDisplay:
    """Accuracy over mean cost: ways of exiting beside the plain backbone and single exits.

    Parameters
    ----------
    frontiers : dict of str to structured ndarray (n_points,)
        Tables as :attr:`EarlyExitClassifier.frontier_`, by what the legend calls them; the first
        is drawn strongly.
    single_costs, single_accuracies : ndarray (n_exits,)
        Each exit taken by every row.
    plain_accuracy : float
        Of the plain backbone, at cost 1.
    estimator_point : tuple of float or None, default=None
        Mean cost and accuracy of the estimator as it is.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        frontiers,
        *,
        single_costs,
        single_accuracies,
        plain_accuracy,
        estimator_point=None,
    ):
        self.frontiers = frontiers
        self.single_costs = single_costs
        self.single_accuracies = single_accuracies
        self.plain_accuracy = plain_accuracy
        self.estimator_point = estimator_point

    @classmethod
    def from_estimator(cls, estimator, X, y, *, policies=POLICIES, ax=None) -> AccuracyCostDisplay:
        """Draw what a fitted estimator's exits give on some rows under several policies.

        Thresholds and gates are those that the rows held out in ``fit`` chose; ``X`` and ``y``
        choose nothing.

        Parameters
        ----------
        estimator : EarlyExitClassifier
            Fitted, with ``gate_training="joint"``.
        X : array-like (n_samples, ...)
        y : array-like (n_samples,)
        policies : sequence of str, default=("confidence", "margin_per_exit", "patience")
            Exit policies to draw beside the estimator's own.
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        AccuracyCostDisplay

        Raises
        ------
        ValueError
            Where a policy is not known, or gates are bilevel.
        """
        names = dict.fromkeys([estimator.exit_policy, *policies])
        rows, tables = estimator._compared(X, y, names)
        costs = estimator.exit_costs_
        display = cls(
            {**tables, ORACLE: oracle(rows, rows.errors.new_tensor(costs))},
            single_costs=costs,
            single_accuracies=1 - rows.errors_of_exits().cpu().numpy(),
            plain_accuracy=accuracy_score(y, estimator._plain_labels(X)),
            estimator_point=(estimator.mean_cost(X), estimator.score(X, y)),
        )
        return display.plot(ax=ax)

    def plot(self, *, ax=None) -> AccuracyCostDisplay:
        """Draw the frontiers.

        Points of the first at which one exit for all rows does as well (its field
        ``single_exit_suffices``) are hollow.

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
        ax.plot(
            self.single_costs,
            self.single_accuracies,
            "s",
            color="0.5",
            label="one exit for all rows",
        )
        first, *others = self.frontiers.items()
        for name, table in others:
            style = {"color": "0.6", "linestyle": ":"} if name == ORACLE else {"linestyle": "--"}
            # A frontier may be one point.
            style["marker"] = "."
            ax.plot(table["mean_cost"], table["accuracy"], linewidth=1.2, label=name, **style)
        self._plot_first(ax, *first)
        ax.plot([1], [self.plain_accuracy], "k*", markersize=12, label="plain backbone")
        if self.estimator_point is not None:
            ax.plot(
                *([value] for value in self.estimator_point),
                "D",
                markersize=9,
                markerfacecolor="none",
                color="C3",
                label="this estimator",
            )
        ax.set(xlabel="Mean cost per row (plain backbone = 1)", ylabel="Accuracy")
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=8)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _plot_first(self, ax, name, table):
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


class ReliabilityDisplay:
    """How often labels are right over how sure of them the classifier is, a line for each exit.

    Parameters
    ----------
    curves : dict of int to pair of ndarray (n_bins,)
        Mean confidence and accuracy in bins of equally many rows, by exit.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, curves):
        self.curves = curves

    @classmethod
    def from_estimator(cls, estimator, X, y, *, n_bins=10, ax=None) -> ReliabilityDisplay:
        """Draw the reliability of the rows that leave at each exit; exits with fewer than 10 rows are left out.

        Parameters
        ----------
        estimator : EarlyExitClassifier
            Fitted.
        X : array-like (n_samples, ...)
        y : array-like (n_samples,)
        n_bins : int, default=10
            A bin holds ten rows or more.
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        ReliabilityDisplay
        """
        probabilities, codes, exit_index = estimator._answers_and_truth(X, y)
        confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == codes
        curves = {}
        for exit_number, n_rows in enumerate(np.bincount(exit_index)):
            if n_rows >= 10:
                own = exit_index == exit_number
                bins = min(n_bins, n_rows // 10)
                curve = metrics.reliability_curve(confidence[own], correct[own], n_bins=bins)
                curves[exit_number] = curve[:2]
        return cls(curves).plot(ax=ax)

    def plot(self, *, ax=None) -> ReliabilityDisplay:
        """Draw the curves; on the diagonal the classifier is as often right as it says.

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
    """Coverage and mean size of prediction sets, of the rows that leave at each exit.

    Parameters
    ----------
    coverages, sizes, n_rows : ndarray (n_exits,)
        NaN, NaN and 0 at exits that no row takes.
    confidence_level : float

    Attributes
    ----------
    axes_ : pair of matplotlib Axes
        Coverage, set size.
    figure_ : matplotlib Figure
    """

    def __init__(self, coverages, sizes, n_rows, *, confidence_level):
        self.coverages, self.sizes, self.n_rows = coverages, sizes, n_rows
        self.confidence_level = confidence_level

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, confidence_level=0.9, groups=None, axes=None
    ) -> PredictionSetDisplay:
        """Draw what the sets of a fitted estimator do on some rows.

        Parameters
        ----------
        estimator : EarlyExitClassifier
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
        _, codes, exit_index = estimator._answers_and_truth(X, y)
        sets = estimator.predict_set(X, confidence_level=confidence_level, groups=groups)
        n_exits = len(estimator.exit_costs_)
        drawn = metrics.sets_by_exit(sets, codes, exit_index, n_exits)
        n_rows = np.bincount(exit_index, minlength=n_exits)
        return cls(*drawn, n_rows, confidence_level=confidence_level).plot(axes=axes)

    def plot(self, *, axes=None) -> PredictionSetDisplay:
        """Draw a bar for each exit, with two standard errors about its coverage.

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

"""Displays: they draw numbers that exist already. matplotlib is imported on use."""

from __future__ import annotations

import numpy as np


class ExitRateDisplay:
    """Share of rows that left at each exit, over the exit's cost.

    Parameters
    ----------
    exit_rates : ndarray (n_exits,)
        As :func:`sklearn_jeidnn.metrics.exit_rates` gives them.
    exit_costs : ndarray (n_exits,)
        Relative to the plain backbone.
    name : str, default=None
        For the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, exit_rates, exit_costs, *, name=None):
        self.exit_rates = exit_rates
        self.exit_costs = exit_costs
        self.name = name

    def plot(self, *, ax=None) -> ExitRateDisplay:
        """Draw stems at each exit's cost.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        self
        """
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1] if ax is None else ax
        width = 0.6 * np.diff(self.exit_costs).min()
        bars = ax.bar(self.exit_costs, self.exit_rates, width=width, label=self.name, alpha=0.6)
        ax.bar_label(
            bars, [f"{rate:.0%}" if rate >= 0.005 else "" for rate in self.exit_rates], fontsize=8
        )
        ax.set(
            xlabel="Cost of the exit (plain backbone = 1)", ylabel="Share of rows that leave here"
        )
        self.ax_, self.figure_ = ax, ax.figure
        return self


class AccuracyCostDisplay:
    """Accuracy over mean cost: operating points beside the plain backbone and single exits.

    Parameters
    ----------
    mean_costs, accuracies : ndarray (n_points,)
        Of the operating points.
    cost_weights : ndarray (n_points,)
        Written beside the points.
    single_costs, single_accuracies : ndarray (n_exits,)
        Each exit taken by every row.
    plain_accuracy : float
        Of the plain backbone, at cost 1.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        mean_costs,
        accuracies,
        cost_weights,
        *,
        single_costs,
        single_accuracies,
        plain_accuracy,
    ):
        self.mean_costs = mean_costs
        self.accuracies = accuracies
        self.cost_weights = cost_weights
        self.single_costs = single_costs
        self.single_accuracies = single_accuracies
        self.plain_accuracy = plain_accuracy

    def plot(self, *, ax=None) -> AccuracyCostDisplay:
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        self
        """
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1] if ax is None else ax
        ax.plot(
            self.single_costs,
            self.single_accuracies,
            "s--",
            color="0.6",
            label="one exit for all rows",
        )
        ax.plot(self.mean_costs, self.accuracies, "o-", label="gates decide row by row")
        ax.plot([1], [self.plain_accuracy], "k*", markersize=12, label="plain backbone")
        for cost, accuracy, weight in zip(
            self.mean_costs, self.accuracies, self.cost_weights, strict=True
        ):
            ax.annotate(
                f"cost_weight={weight:g}",
                (cost, accuracy),
                xytext=(4, -12),
                textcoords="offset points",
                fontsize=8,
            )
        ax.set(xlabel="Mean cost per row (plain backbone = 1)", ylabel="Accuracy on test rows")
        ax.legend(loc="lower right")
        self.ax_, self.figure_ = ax, ax.figure
        return self

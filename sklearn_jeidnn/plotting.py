"""Displays: they draw numbers that exist already. matplotlib is imported on use."""

from __future__ import annotations


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
        from matplotlib.ticker import PercentFormatter

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
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        ax.legend(loc="best")
        self.ax_, self.figure_ = ax, ax.figure
        return self

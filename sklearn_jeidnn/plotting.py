"""Displays. matplotlib is imported on use."""

from __future__ import annotations

from sklearn.metrics import accuracy_score

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
        ``one_exit_would_do``) are hollow.

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
        one = table["one_exit_would_do"]
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

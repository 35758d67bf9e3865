"""Accuracy over mean cost: exit policies beside the plain backbone and single exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._operate.operating_point import check_joint
from .figures import axes_for
from .frontier_drawing import Drawing
from .intervals import CostCurve, accuracy_in_words
from .reading import checked_labels, fitted_classifier, unit_of_cost, warn_if_learned_from
from .reading_frontiers import ORACLE, check_policies, oracle_curve, point_curve, policy_curve
from .words import POLICY_WORDS, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What a user might do instead of learning gates.
POLICIES = ("confidence", "margin_per_exit", "patience")


class AccuracyCostDisplay:
    """Accuracy over mean cost: exit policies, compared with the plain backbone and single exits.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`. Each curve is the concave envelope of operating
    points, from the cheapest to the most accurate one: a random choice between two neighbours reaches what lies
    between them [1]_. It is chosen on the samples that are drawn, which flatters it a little; markers are the points
    themselves. Points further apart than 15 % of the axis are not joined: nothing is claimed of what lies between.

    The band around the first curve is a pointwise 95 % interval of the *difference* to the plain backbone on the same
    samples (adjusted Wald interval for paired proportions [2]_), drawn from the backbone's accuracy: where the band
    holds the thin horizontal line, these samples do not show that the accuracies differ.

    Words over an arrow say "same accuracy at 6 % of the cost" of the operating point if these samples show both: chance
    explains what it loses against the plain backbone (McNemar's exact test, one-sided, 5 %), and a loss of more than
    one percentage point is excluded (the same interval, one-sided, 5 %). They say "higher accuracy" if chance does not
    explain what it gains. If the point costs as much as the backbone, or samples show neither, there are no words. The
    operating point must not have been chosen on these samples; a fitted classifier's was not.

    Parameters
    ----------
    curves : dict of str to CostCurve
        ``mean_cost``, ``accuracy``, ``low``, ``high`` (n_points,) by names for the legend, the emphasised one first.
    backbone_accuracy : float
        Of the plain backbone, at cost 1.
    operating_point : CostCurve, default=None
        Of one point: the one at which the estimator answers.
    comparison : str, default=None
        "same accuracy" or "higher accuracy" than the plain backbone's, as far as samples show it.
    single_exits : CostCurve, default=None
        Each exit if every sample takes it (n_exits,).
    single_exit_suffices : ndarray of bool (n_points,), default=None
        Points of the first curve at which one exit for all samples does as well; they are hollow.
    unit : {"cost", "time"}, default="cost"
        What ``mean_cost`` is.
    name : str, default=None
        Of the estimator; None takes "early exits".

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D
        The first curve.
    annotation_ : matplotlib Text or None
        What is said of the operating point, if anything is.

    See Also
    --------
    ExitRatesDisplay : Where samples leave.

    References
    ----------
    .. [1] Provost, Fawcett, "Robust Classification for Imprecise Environments", Machine Learning 2001.
    .. [2] Bonett, Price, "Adjusted Wald Confidence Interval for a Difference of Binomial Proportions Based on Paired
       Data", Journal of Educational and Behavioral Statistics 2012.
    """

    def __init__(
        self,
        curves: Mapping[str, CostCurve],
        *,
        backbone_accuracy: float,
        operating_point: CostCurve | None = None,
        comparison: str | None = None,
        single_exits: CostCurve | None = None,
        single_exit_suffices: np.ndarray | None = None,
        unit: str = "cost",
        name: str | None = None,
    ) -> None:
        self.curves = curves
        self.backbone_accuracy = backbone_accuracy
        self.operating_point = operating_point
        self.comparison = comparison
        self.single_exits = single_exits
        self.single_exit_suffices = single_exit_suffices
        self.unit = unit
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        policies: Sequence[str] = POLICIES,
        oracle: bool = False,
        name: str | None = None,
        ax: Axes | None = None,
        curve_kwargs: Mapping[str, Any] | None = None,
    ) -> AccuracyCostDisplay:
        """Draw accuracy over mean cost of a fitted estimator's exits on some samples, under several policies.

        Thresholds and gates were chosen on the samples held out in ``fit``, not on ``X`` and ``y``.

        Parameters
        ----------
        estimator : EarlyExitClassifier, Pipeline that ends in one, or search over such
            Fitted, with ``gate_training="joint"``.
        X : array-like (n_samples, ...) or torch Dataset
            Samples that ``fit`` has not seen; a warning tells if it has.
        y : array-like (n_samples,)
            None if ``X`` is a dataset of pairs (sample, label).
        policies : sequence of str, default=("confidence", "margin_per_exit", "patience")
            Exit policies to draw besides the estimator's own.
        oracle : bool, default=False
            Whether to draw what somebody could reach who knew which exits are right, too.
        name : str, default=None
            Of the estimator in the legend.
        ax : matplotlib Axes, default=None
            None makes a figure.
        curve_kwargs : dict, default=None
            Properties of the first curve, as ``matplotlib.axes.Axes.plot`` takes them.

        Returns
        -------
        AccuracyCostDisplay

        Raises
        ------
        ValueError
            If a policy is not known, gates are bilevel, or labels are none of the classifier's.
        """
        classifier, X = fitted_classifier(estimator, X, cls)
        check_joint(cls.__name__, classifier.gate_training)
        names = check_policies([classifier.exit_policy, *_as_names(policies)])
        answers = classifier.exit_answers(X, y)
        warn_if_learned_from(classifier, X, answers.codes)
        read = {policy: policy_curve(classifier, answers, policy) for policy in names}
        curves = {POLICY_WORDS[policy]: curve for policy, (curve, _) in read.items()}
        if oracle:
            curves[ORACLE] = oracle_curve(classifier, answers)
        point, right = point_curve(classifier, X, answers)
        plain_right = answers.backbone_codes == answers.codes
        display = cls(
            curves,
            backbone_accuracy=float(plain_right.mean()),
            operating_point=point,
            comparison=accuracy_in_words(right, plain_right),
            single_exits=CostCurve.of(classifier.exit_costs_, answers.errors.T == 0, plain_right),
            single_exit_suffices=read[classifier.exit_policy][1],
            unit=unit_of_cost(classifier),
            name=name,
        )
        return display.plot(ax=ax, curve_kwargs=curve_kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        curves: Mapping[str, Any],
        *,
        y_backbone: Any,
        operating_point: tuple[Any, float] | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        curve_kwargs: Mapping[str, Any] | None = None,
    ) -> AccuracyCostDisplay:
        """Draw accuracy over mean cost of predictions, whichever classifiers they are of.

        Parameters
        ----------
        y_true : array-like (n_samples,)
            True labels.
        curves : dict of str to list of pairs
            By names for the legend, the emphasised one first: for each operating point its labels, array-like
            (n_samples,), and its mean cost, relative to the plain backbone.
        y_backbone : array-like (n_samples,)
            Labels that the plain backbone gives, at cost 1.
        operating_point : pair of array-like (n_samples,) and float, default=None
            Labels and mean cost of the point to be marked and compared with the plain backbone.
        name : str, default=None
            Of the operating point in the legend.
        ax : matplotlib Axes, default=None
            None makes a figure.
        curve_kwargs : dict, default=None
            Properties of the first curve, as ``matplotlib.axes.Axes.plot`` takes them.

        Returns
        -------
        AccuracyCostDisplay

        Raises
        ------
        ValueError
            If there are no curves, labels are not one a sample, or a cost is no number above 0.
        """
        y_true = checked_labels(y_true, len(np.asarray(y_true)), "y_true")
        plain_right = checked_labels(y_backbone, len(y_true), "y_backbone") == y_true
        read = {
            str(key): _curve_of_pairs(pairs, y_true, plain_right, f"curves[{key!r}]")
            for key, pairs in _as_curves(curves).items()
        }
        point, comparison = None, None
        if operating_point is not None:
            point = _curve_of_pairs([operating_point], y_true, plain_right, "operating_point")
            right = checked_labels(operating_point[0], len(y_true), "operating_point") == y_true
            comparison = accuracy_in_words(right, plain_right)
        display = cls(
            read,
            backbone_accuracy=float(plain_right.mean()),
            operating_point=point,
            comparison=comparison,
            name=name,
        )
        return display.plot(ax=ax, curve_kwargs=curve_kwargs)

    def plot(
        self,
        *,
        ax: Axes | None = None,
        name: str | None = None,
        curve_kwargs: Mapping[str, Any] | None = None,
    ) -> AccuracyCostDisplay:
        """Draw the curves; the axis of costs is logarithmic where the first curve begins below a tenth of the backbone.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure.
        name : str, default=None
            Of the estimator in the legend; None takes that of the display.
        curve_kwargs : dict, default=None
            Properties of the first curve, as ``matplotlib.axes.Axes.plot`` takes them.

        Returns
        -------
        self
        """
        ax = axes_for(self, ax, (7.5, 5.5))
        drawing = Drawing.of(self, ax, self.name if name is None else name)
        self.line_ = drawing.draw(curve_kwargs)
        self.annotation_ = drawing.draw_comparison(self.in_words())
        drawing.finish()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def in_words(self) -> str | None:
        """What the operating point saves at the accuracy of the plain backbone; None if that is not shown.

        Returns
        -------
        str or None
            As "same accuracy at 6 % of the cost".
        """
        if self.operating_point is None or self.comparison is None:
            return None
        cost = float(self.operating_point.mean_cost[0])
        return f"{self.comparison} at {percent(cost)} of the {self.unit}" if cost < 1 else None


def _as_names(policies: Any) -> list[Any]:
    if isinstance(policies, str):
        raise ValueError(
            f"policies={policies!r} is a word; give a list of exit policies: [{policies!r}]."
        )
    return list(policies)


def _as_curves(curves: Any) -> Mapping[str, Any]:
    if not isinstance(curves, Mapping) or not curves:
        raise ValueError(
            f"curves={type(curves).__name__} names no curve; give a dict of names to lists of pairs "
            f"(labels, mean cost)."
        )
    return curves


def _curve_of_pairs(
    pairs: Any, y_true: np.ndarray, plain_right: np.ndarray, name: str
) -> CostCurve:
    try:
        labels, costs = zip(*pairs, strict=True)
        mean_cost = np.array(costs, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be a list of pairs (labels, mean cost), one for each operating point: {error}."
        ) from error
    if mean_cost.ndim != 1 or not (np.isfinite(mean_cost) & (mean_cost > 0)).all():
        raise ValueError(f"{name} has the costs {costs}; each must be a number above 0.")
    right = np.stack([checked_labels(own, len(y_true), name) == y_true for own in labels])
    return CostCurve.of(mean_cost, right, plain_right)

"""Accuracy over confidence: whether probabilities can be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._numbers import check_number
from ..metrics import reliability_curve
from .figures import OTHER_STYLES, Style, add_legend, axes_for, colours_of, hide_frame, with_kwargs
from .intervals import wilson_errors
from .reading import (
    checked_exits,
    checked_names,
    checked_probabilities,
    columns_of,
    fitted_classifier,
    labelled_answers,
    names_of_exits,
)
from .words import PERCENT, counted, percent, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of the samples of an exit, and of a bin where there are more bins than one.
LEAST_AT_EXIT, LEAST_IN_BIN = 10, 30


class ReliabilityCurve(NamedTuple):
    """Bins of equally many samples, in the order of their confidence."""

    confidence: np.ndarray  # (n_bins,), mean probability of the predicted label
    accuracy: np.ndarray  # (n_bins,)
    n_samples: np.ndarray  # (n_bins,)


class ReliabilityDisplay:
    """Accuracy over confidence, a curve for the samples that leave at each exit.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`. Bins hold equally many samples; error bars are
    Wilson's 95 % intervals of their accuracies [1]_. Where these hold the diagonal, chance explains that
    accuracy and confidence differ. The legend counts samples and bins.

    Parameters
    ----------
    curves : dict of str to ReliabilityCurve
        ``confidence``, ``accuracy``, ``n_samples`` (n_bins,) by names for the legend.
    n_left_out : dict of str to int, default=None
        Samples of exits that have too few for a bin.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        The curves.

    References
    ----------
    .. [1] Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """

    def __init__(
        self,
        curves: Mapping[str, ReliabilityCurve],
        *,
        n_left_out: Mapping[str, int] | None = None,
    ) -> None:
        self.curves = curves
        self.n_left_out = n_left_out

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        n_bins: int = 10,
        ax: Axes | None = None,
        curve_kwargs: Mapping[str, Any] | None = None,
    ) -> ReliabilityDisplay:
        """Draw the reliability of the samples that leave at each exit of a fitted estimator.

        Parameters
        ----------
        estimator : EarlyExitClassifier, Pipeline that ends in one, or search over such
            Fitted.
        X : array-like (n_samples, ...) or torch Dataset
            Samples that ``fit`` has not seen; a warning tells if it has.
        y : array-like (n_samples,)
            None if ``X`` is a dataset of pairs (sample, label).
        n_bins : int, default=10
            Largest number of bins of an exit; of several, each holds at least 30 samples. Exits with fewer than ten
            samples are left out, which the legend tells.
        ax : matplotlib Axes, default=None
            None makes a figure.
        curve_kwargs : dict, default=None
            Properties of all curves, as ``matplotlib.axes.Axes.errorbar`` takes them.

        Returns
        -------
        ReliabilityDisplay
        """
        classifier, X = fitted_classifier(estimator, X, cls)
        codes, probabilities, exit_index = labelled_answers(classifier, X, y)
        names = names_of_exits(classifier)
        display = cls._of(codes, probabilities, exit_index, names, n_bins)
        return display.plot(ax=ax, curve_kwargs=curve_kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_proba: ArrayLike,
        exit_index: ArrayLike | None = None,
        *,
        classes: ArrayLike | None = None,
        exit_names: Sequence[str] | None = None,
        n_bins: int = 10,
        ax: Axes | None = None,
        curve_kwargs: Mapping[str, Any] | None = None,
    ) -> ReliabilityDisplay:
        """Draw the reliability of probabilities.

        Parameters
        ----------
        y_true : array-like (n_samples,)
            True labels.
        y_proba : array-like (n_samples, n_classes)
            As ``predict_proba`` gives them.
        exit_index : array-like of int (n_samples,), default=None
            Exit of each sample, from 0; None draws one curve.
        classes : array-like (n_classes,), default=None
            Label of each column, sorted; None takes those of ``y_true``.
        exit_names : list of str (n_exits,), default=None
            None numbers the exits.
        n_bins : int, default=10
            Largest number of bins of an exit.
        ax : matplotlib Axes, default=None
            None makes a figure.
        curve_kwargs : dict, default=None
            Properties of all curves, as ``matplotlib.axes.Axes.errorbar`` takes them.

        Returns
        -------
        ReliabilityDisplay

        Raises
        ------
        ValueError
            If probabilities, labels and exits do not fit each other.
        """
        probabilities = checked_probabilities(y_proba)
        codes = columns_of(y_true, classes, probabilities, "y_proba")
        if exit_index is None:
            exit_index, exit_names = np.zeros(len(codes), dtype=int), ["all samples"]
        names = checked_names(exit_names, exit_index)
        exits = checked_exits(exit_index, len(names), len(codes))
        display = cls._of(codes, probabilities, exits, names, n_bins)
        return display.plot(ax=ax, curve_kwargs=curve_kwargs)

    @classmethod
    def _of(
        cls,
        codes: np.ndarray,
        probabilities: np.ndarray,
        exit_index: np.ndarray,
        names: Sequence[str],
        n_bins: int,
    ) -> ReliabilityDisplay:
        check_number(n_bins, "n_bins", least=1, whole=True)
        confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == codes
        curves, left_out = {}, {}
        for exit_number, name in enumerate(names):
            own = exit_index == exit_number
            n_samples = int(own.sum())
            if n_samples >= LEAST_AT_EXIT:
                bins = max(1, min(n_bins, n_samples // LEAST_IN_BIN))
                found = reliability_curve(confidence[own], correct[own], n_bins=bins)
                curves[name] = ReliabilityCurve(*found)
            elif n_samples:
                left_out[name] = n_samples
        return cls(curves, n_left_out=left_out)

    def plot(
        self,
        *,
        ax: Axes | None = None,
        ref_line: bool = True,
        curve_kwargs: Mapping[str, Any] | None = None,
    ) -> ReliabilityDisplay:
        """Draw the curves; a calibrated classifier lies on the diagonal.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure.
        ref_line : bool, default=True
            Whether to draw the diagonal.
        curve_kwargs : dict, default=None
            Properties of all curves, as ``matplotlib.axes.Axes.errorbar`` takes them.

        Returns
        -------
        self
        """
        ax = axes_for(self, ax, (6, 6.3))
        colours = colours_of(ax)
        first = {"color": colours.main, "linestyle": "-", "marker": "o"}
        styles = [first, *OTHER_STYLES * len(self.curves)]
        drawn = [
            _draw_curve(ax, name, curve, style, curve_kwargs)
            for (name, curve), style in zip(self.curves.items(), styles, strict=False)
        ]
        handles: list[Any] = list(drawn)
        if ref_line:
            style: Style = {
                "color": colours.muted,
                "linestyle": ":",
                "label": "perfectly calibrated",
            }
            handles += ax.plot([0, 1], [0, 1], zorder=1, **style)
        for name, n_samples in (self.n_left_out or {}).items():
            label = f"{shortened(name)}: {counted(n_samples)}, too few"
            handles += ax.plot([], [], " ", label=label)
        self._label(ax)
        add_legend(ax, n_columns=1, handles=handles)
        self.lines_ = [container.lines[0] for container in drawn]
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _label(self, ax: Axes) -> None:
        """Name the axes, and show the part of them where samples are."""
        from matplotlib.ticker import FuncFormatter

        least = self._least()
        room = 0.02 * (1 - least)
        ax.set(
            xlabel="Mean probability of the predicted label",
            ylabel=f"Accuracy, with 95{PERCENT} interval",
            xlim=(least - room, 1 + room),
            ylim=(least - room, 1 + room),
            aspect="equal",
        )
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda share, _: percent(share)))
        hide_frame(ax)

    def _least(self) -> float:
        """Where axes begin: a tenth below which nothing is drawn."""
        lowest = [1.0]
        for curve in self.curves.values():
            down = wilson_errors(_n_right(curve), curve.n_samples)[0]
            lowest += [float((curve.accuracy - down).min()), float(curve.confidence.min())]
        return min(math.floor(10 * min(lowest)) / 10, 0.9)


def _n_right(curve: ReliabilityCurve) -> np.ndarray:
    n_right: np.ndarray = np.rint(curve.accuracy * curve.n_samples).astype(int)
    return n_right


def _draw_curve(
    ax: Axes,
    name: str,
    curve: ReliabilityCurve,
    style: Mapping[str, Any],
    curve_kwargs: Mapping[str, Any] | None,
) -> Any:
    """Draw a curve with its intervals; returns both."""
    n_samples, n_bins = int(curve.n_samples.sum()), len(curve.n_samples)
    label = f"{shortened(name)}: {counted(n_samples)} in {counted(n_bins, 'bin')}"
    more: Style = {"label": label, "markersize": 6, "linewidth": 1.8, "elinewidth": 1, "capsize": 2}
    errors = wilson_errors(_n_right(curve), curve.n_samples)
    style = with_kwargs({**style, **more}, curve_kwargs)
    return ax.errorbar(curve.confidence, curve.accuracy, yerr=errors, **style)

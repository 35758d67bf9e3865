"""Examples of the samples that leave at each exit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from .._numbers import check_number
from .example_drawing import draw_feature_means, draw_images, size_of
from .examples import ExampleImages, FeatureMeans, example_images, feature_means, images_of
from .figures import axes_for
from .reading import (
    checked_costs,
    checked_exits,
    checked_labels,
    checked_names,
    codes_of_labels,
    fitted_classifier,
    names_of_exits,
    unit_of_cost,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ExitExamplesDisplay:
    """What the samples are like that leave at each exit.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`. Of images some are drawn at random at each exit,
    with the label answered; where it is wrong there is a frame, and the true label. Of tables there are means at each
    exit of the features in which exits differ most. Colours tell how many standard deviations they lie above or below
    the mean of all samples; features are chosen and ordered by the mean of these distances over the samples. A column
    of words is told by the shares of its words.

    Parameters
    ----------
    examples : ExampleImages or FeatureMeans
    exit_names : list of str (n_exits,)
    n_samples : ndarray of int (n_exits,)
        Samples that leave at each exit.
    exit_costs : ndarray (n_exits,), default=None
        Cost of each exit, relative to one pass of the plain backbone.
    unit : {"cost", "time"}, default="cost"
        What ``exit_costs`` are.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    ExitRatesDisplay : How many samples leave at each exit.
    """

    def __init__(
        self,
        examples: ExampleImages | FeatureMeans,
        exit_names: Sequence[str],
        n_samples: np.ndarray,
        *,
        exit_costs: np.ndarray | None = None,
        unit: str = "cost",
    ) -> None:
        self.examples = examples
        self.exit_names = exit_names
        self.n_samples = n_samples
        self.exit_costs = exit_costs
        self.unit = unit

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        image_shape: Iterable[int] | None = None,
        feature_names: Sequence[str] | None = None,
        n_examples: int = 8,
        n_features: int = 8,
        random_state: Any = 0,
        ax: Axes | None = None,
    ) -> ExitExamplesDisplay:
        """Draw examples of the samples that leave at each exit of a fitted estimator.

        Parameters
        ----------
        estimator : EarlyExitClassifier, Pipeline that ends in one, or search over such
            Fitted.
        X : array-like (n_samples, ...) or frame
            3-D or 4-D for images, 2-D for tables and flattened images. Of a pipeline the samples are drawn as they are
            before its steps.
        y : array-like (n_samples,), default=None
            Labels, if wrong answers are to be told.
        image_shape : tuple of int, default=None
            Shape of flattened images: (height, width), (channels, height, width) or (height, width, channels).
        feature_names : sequence of str (n_features,), default=None
            None takes those of a frame, else numbers.
        n_examples : int, default=8
            Most images of an exit.
        n_features : int, default=8
            Most features of a table.
        random_state : int, RandomState instance or None, default=0
            Which images are drawn.
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        ExitExamplesDisplay

        Raises
        ------
        ValueError, TypeError
            If samples are neither images nor a table, or what is given beside them does not fit.
        """
        classifier, samples = fitted_classifier(estimator, X, cls)
        labels = classifier.predict(samples), None
        if y is not None:
            labels = labels[0], classifier.classes_[codes_of_labels(classifier, y, len(labels[0]))]
        return cls._of(
            X,
            classifier.predict_exit(samples),
            names_of_exits(classifier),
            labels=labels,
            image_shape=image_shape,
            feature_names=feature_names,
            n_examples=n_examples,
            n_features=n_features,
            random_state=random_state,
            exit_costs=classifier.exit_costs_,
            unit=unit_of_cost(classifier),
        ).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        X: Any,
        exit_index: ArrayLike,
        *,
        y_true: Any = None,
        y_pred: Any = None,
        exit_names: Sequence[str] | None = None,
        exit_costs: ArrayLike | None = None,
        image_shape: Iterable[int] | None = None,
        feature_names: Sequence[str] | None = None,
        n_examples: int = 8,
        n_features: int = 8,
        random_state: Any = 0,
        ax: Axes | None = None,
    ) -> ExitExamplesDisplay:
        """Draw examples of the samples that took each exit.

        Parameters
        ----------
        X : array-like (n_samples, ...) or frame
            As in :meth:`from_estimator`.
        exit_index : array-like of int (n_samples,)
            Exit of each sample, from 0.
        y_true, y_pred : array-like (n_samples,), default=None
            True and predicted labels.
        exit_names : list of str (n_exits,), default=None
            None numbers the exits.
        exit_costs : array-like (n_exits,), default=None
            Relative to one pass of the plain backbone.
        image_shape : tuple of int, default=None
        feature_names : sequence of str (n_features,), default=None
        n_examples, n_features : int, default=8
        random_state : int, RandomState instance or None, default=0
        ax : matplotlib Axes, default=None
            As in :meth:`from_estimator`.

        Returns
        -------
        ExitExamplesDisplay

        Raises
        ------
        ValueError, TypeError
            If samples are neither images nor a table, or what is given beside them does not fit.
        """
        names = checked_names(exit_names, exit_index)
        exits = checked_exits(exit_index, len(names), len(X))
        given = {"y_pred": y_pred, "y_true": y_true}
        predicted, true = (
            None if y is None else checked_labels(y, len(exits), name) for name, y in given.items()
        )
        return cls._of(
            X,
            exits,
            names,
            labels=(predicted, true),
            image_shape=image_shape,
            feature_names=feature_names,
            n_examples=n_examples,
            n_features=n_features,
            random_state=random_state,
            exit_costs=checked_costs(exit_costs, len(names)),
            unit="cost",
        ).plot(ax=ax)

    @classmethod
    def _of(
        cls,
        X: Any,
        exit_index: np.ndarray,
        names: Sequence[str],
        *,
        labels: tuple[np.ndarray | None, np.ndarray | None],
        image_shape: Iterable[int] | None,
        feature_names: Sequence[str] | None,
        n_examples: int,
        n_features: int,
        random_state: Any,
        exit_costs: np.ndarray | None,
        unit: str,
    ) -> ExitExamplesDisplay:
        check_number(n_examples, "n_examples", least=1, whole=True)
        check_number(n_features, "n_features", least=1, whole=True)
        images, n_exits = images_of(X, image_shape), len(names)
        examples: ExampleImages | FeatureMeans
        if images is None:
            examples = feature_means(
                X, exit_index, n_exits, feature_names=feature_names, n_features=n_features
            )
        else:
            rng = check_random_state(random_state)
            examples = example_images(
                images, exit_index, n_exits, labels=labels, n_examples=n_examples, rng=rng
            )
        counts = np.bincount(exit_index, minlength=n_exits)
        return cls(examples, names, counts, exit_costs=exit_costs, unit=unit)

    def plot(self, *, ax: Axes | None = None) -> ExitExamplesDisplay:
        """Draw images in a row for each exit, or means of features in a column for each.

        Exits that no sample takes are left out.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        self
        """
        ax = axes_for(self, ax, size_of(self.examples, self.n_samples), "compressed")
        draw = draw_images if isinstance(self.examples, ExampleImages) else draw_feature_means
        draw(self, ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

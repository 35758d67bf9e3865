"""The estimator's method that writes a report."""

import os
from typing import Any

from ._report.writing import write_report


class ReportingMixin:
    """How :class:`EarlyExitClassifier` reports on itself."""

    def report(
        self,
        X: Any,
        y: Any,
        path: str | os.PathLike[str],
        *,
        confidence_level: float = 0.9,
        groups: Any = None,
        examples: bool = True,
        image_shape: Any = None,
        timing: bool = False,
        title: str | None = None,
        intended_use: str | None = None,
    ) -> None:
        """Write one HTML page that says what the classifier does to labelled samples.

        Of a pipeline or a search, :func:`sklearn_jeidnn.reporting.report` does the same, and documents it at length.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset
            Samples that the classifier has not seen; others are told by a warning and in the page.
        y : array-like (n_samples,) or None
            Labels. None if ``X`` is a dataset of pairs (sample, label).
        path : str or path
            File to write; one that is there is replaced, once the new one is whole.
        confidence_level : float, default=0.9
            Of the prediction sets.
        groups : array-like (n_samples,), default=None
            As :meth:`predict_set` takes them.
        examples : bool, default=True
            Whether samples are shown. False leaves out every value of ``X``.
        image_shape : tuple of int, default=None
            Shape of a sample if ``X`` holds images whose pixels stand in a row; None takes ``module__image_shape``.
        timing : bool, default=False
            Whether engines are timed on ``X`` (:meth:`benchmark_engines`).
        title : str, default=None
            Of the page.
        intended_use : str, default=None
            What the classifier is for and what not, in your words.

        Raises
        ------
        ValueError, TypeError
            If samples or labels do not fit the classifier, or a parameter makes no sense.
        OSError
            If the file cannot be written, or ``path`` is a folder; what was there stays.

        See Also
        --------
        sklearn_jeidnn.reporting.report : The same for pipelines and searches.
        frontier : The figures behind the slider.
        calibration_report : The figures behind the calibration.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_jeidnn import EarlyExitClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = EarlyExitClassifier(max_epochs=2, cv=None, random_state=0).fit(X[::2], y[::2])
        >>> clf.report(X[1::2], y[1::2], "report.html")  # doctest: +SKIP
        """
        write_report(
            self,
            X,
            y,
            path,
            confidence_level=confidence_level,
            groups=groups,
            examples=examples,
            image_shape=image_shape,
            timing=timing,
            title=title,
            intended_use=intended_use,
        )

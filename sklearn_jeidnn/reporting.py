"""A report on a fitted classifier, pipeline or search: one HTML page to read, to send and to keep.

>>> import tempfile
>>> from pathlib import Path
>>> from sklearn.datasets import load_digits
>>> from sklearn_jeidnn import EarlyExitClassifier
>>> from sklearn_jeidnn.reporting import report
>>> X, y = load_digits(return_X_y=True)
>>> clf = EarlyExitClassifier(max_epochs=2, cv=None, random_state=0).fit(X[:400], y[:400])
>>> path = Path(tempfile.mkdtemp()) / "report.html"
>>> report(clf, X[400:600], y[400:600], path, image_shape=(8, 8))
>>> path.stat().st_size < 3_000_000
True
"""

import os
from typing import Any

from numpy.typing import ArrayLike

from ._report.writing import write_report

__all__ = ["report"]


def report(
    estimator: Any,
    X: Any,
    y: ArrayLike | None,
    path: str | os.PathLike[str],
    *,
    confidence_level: float = 0.9,
    groups: ArrayLike | None = None,
    examples: bool = True,
    image_shape: tuple[int, ...] | None = None,
    timing: bool = False,
    title: str | None = None,
    intended_use: str | None = None,
) -> None:
    """Write one HTML page that says what a fitted classifier does to labelled samples.

    The page holds a summary in words; accuracy over cost with a slider that moves the operating point; exits with
    example samples; calibration; what answers; what is certified and guaranteed, and on how many samples; and a model
    card. It is one file that loads nothing from anywhere, and its slider needs no Python: every number is computed
    here, from ``X`` and ``y``.

    Parameters
    ----------
    estimator : EarlyExitClassifier, Pipeline that ends in one, or search over such
        Fitted.
    X : array-like (n_samples, ...) or torch Dataset
        As ``estimator`` takes it. Examples are shown as they are here, before any step of a pipeline. Give samples
        that the classifier has not seen; others are told by a warning and in the page.
    y : array-like (n_samples,) or None
        Labels. None if ``X`` is a dataset of pairs (sample, label).
    path : str or path
        File to write; one that is there is replaced, once the new one is whole.
    confidence_level : float, default=0.9
        Of the prediction sets.
    groups : array-like (n_samples,), default=None
        As ``predict_set`` takes them.
    examples : bool, default=True
        Whether samples are shown: small pictures of images, the first words of sentences, and of tables the columns
        that differ most between exits. False leaves out every value of ``X``, and those columns' means: anyone who
        has the page can read them.
    image_shape : tuple of int, default=None
        Shape of a sample, (height, width) or with channels, if ``X`` holds images whose pixels stand in a row. None
        takes ``module__image_shape`` if there is one.
    timing : bool, default=False
        Whether engines are timed on ``X``, as ``benchmark_engines`` does it. It takes some seconds.
    title : str, default=None
        Of the page.
    intended_use : str, default=None
        What the classifier is for and what not, in your words, for the model card.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    ValueError, TypeError
        If samples or labels do not fit the classifier, or a parameter makes no sense.
    OSError
        If the file cannot be written, or ``path`` is a folder; what was there stays.

    See Also
    --------
    EarlyExitClassifier.report : The same of a lone classifier.
    sklearn_jeidnn.plotting : Single charts, for papers and notebooks.

    Notes
    -----
    The page holds what of the samples is shown, labels, names of columns and exits, and the parameters that differ from
    their defaults, but ``memory``, ``checkpoint`` and ``verbose``. Gates of "bilevel" training have one operating
    point, so that the slider does not move.
    """
    write_report(
        estimator,
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

"""A report of a fitted classifier on labelled samples, as one HTML page."""

from typing import Any

from sklearn.utils.validation import check_is_fitted

from .._datasets import is_dataset, read_dataset
from .._image_shapes import checked_image_shape
from .._numbers import check_probability
from .._samples import GivenSamples
from .._store.writing import file_place, write_bytes
from .._warn import warn_caller
from ..pipeline import last_step
from .contents import Contents, contents_of
from .page import page
from .shown import Shown, shown_samples
from .summary import known_text

__all__ = ["write_report"]
TITLE = "Report of an early-exit classifier"


def write_report(
    estimator: Any,
    X: Any,
    y: Any,
    path: Any,
    *,
    confidence_level: float,
    groups: Any,
    examples: bool,
    image_shape: Any,
    timing: bool,
    title: str | None,
    intended_use: str | None,
) -> None:
    """Write the report that :func:`sklearn_jeidnn.reporting.report` documents."""
    # Before anything that takes long.
    file_place(path)
    check_probability(confidence_level, "confidence_level")
    _check_flags(examples=examples, timing=timing)
    _check_words(title=title, intended_use=intended_use)
    shape = None if image_shape is None else checked_image_shape(image_shape)
    if not hasattr(estimator, "fit"):
        raise TypeError(
            f"estimator is a {type(estimator).__name__}; give the fitted classifier, pipeline or search first, then "
            f"X, y and path."
        )
    check_is_fitted(estimator)
    own_options = last_step(estimator)[0]._loader_options()
    given = read_dataset(GivenSamples(X=X, y=y), own_options) if is_dataset(X) else None
    X, y = (X, y) if given is None else (given.X, given.y)
    classifier, samples = last_step(estimator, X)
    check_is_fitted(classifier)
    contents = contents_of(
        classifier,
        samples,
        y,
        groups=groups,
        shown=_shown(classifier, X, shape) if examples else None,
        title=TITLE if title is None else title,
        intended_use=intended_use,
        confidence_level=float(confidence_level),
        timing=timing,
        is_pipeline=classifier is not estimator,
    )
    write_bytes(path, page(contents))
    _warn_of_known(contents)


def _shown(classifier: Any, X: Any, image_shape: tuple[int, ...] | None) -> Shown | None:
    """What can be shown of samples as the user gives them; the shape of images may be a parameter of the module."""
    own = vars(classifier).get("module__image_shape")
    if image_shape is not None or own is None:
        return shown_samples(X, image_shape)
    return shown_samples(X, checked_image_shape(own), is_certain=False)


def _check_flags(**flags: Any) -> None:
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f"{name}={flag!r} is not allowed; give True or False.")


def _check_words(**texts: Any) -> None:
    for name, text in texts.items():
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name}={text!r} is not allowed; give a str or None.")


def _warn_of_known(contents: Contents) -> None:
    if contents.known.any:
        warn_caller(
            f"{known_text(contents)} The report speaks of samples that it knows, and says so; give X and y that it "
            f"has not seen."
        )

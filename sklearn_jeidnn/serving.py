"""A predictor as a web service (extra ``serve``)."""

from typing import TYPE_CHECKING

from .runtime import Predictor

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["create_app"]


def create_app(
    predictor: Predictor,
    *,
    max_batch: int = 256,
    max_wait_ms: float = 0.0,
    max_queue: int = 4096,
    max_samples: int = 1024,
    max_bytes: int = 2**23,
    max_budgets: int = 8,
    body_timeout: float = 10.0,
    watch: bool = True,
    alpha: float = 0.01,
    confidence_level: float = 0.9,
    max_remembered: int = 10_000,
) -> "FastAPI":
    """An application that answers requests with a predictor.

    ``python -m sklearn_jeidnn serve DIRECTORY`` runs it; it can also be mounted in an application of your own. One
    thread predicts; requests that come meanwhile are answered together.

    Parameters
    ----------
    predictor : Predictor
        At the operating point of requests that name no budget.
    max_batch : int, default=256
        Samples that are answered together.
    max_wait_ms : float, default=0
        Milliseconds that a call waits for further samples. By default a lone request does not wait.
    max_queue : int, default=4096
        Samples that may wait; requests that come then are refused with status 503.
    max_samples : int, default=1024
        Of one request.
    max_bytes : int, default=8388608
        Of the body of one request.
    max_budgets : int, default=8
        Different budgets that requests may ask for; further ones are refused.
    body_timeout : float, default=10
        Seconds in which a body must come.
    watch : bool, default=True
        Whether samples are compared with those that calibrated (see :meth:`Predictor.watch`), and answers are kept for
        labels that come late.
    alpha : float, default=0.01
        Greatest probability of a false alarm over all time.
    confidence_level : float, default=0.9
        Of the prediction sets whose coverage is tracked.
    max_remembered : int, default=10000
        Samples whose answers are kept for labels.

    Returns
    -------
    FastAPI

    Raises
    ------
    ImportError
        Without the extra ``serve``.
    ValueError
        If a limit makes no sense.

    Examples
    --------
    >>> from sklearn_jeidnn.runtime import Predictor
    >>> from sklearn_jeidnn.serving import create_app
    >>> app = create_app(Predictor.load("iris"))  # doctest: +SKIP
    """
    from ._serving.settings import Settings

    settings = Settings(
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        max_queue=max_queue,
        max_samples=max_samples,
        max_bytes=max_bytes,
        max_budgets=max_budgets,
        body_timeout=body_timeout,
        watch=watch,
        alpha=alpha,
        confidence_level=confidence_level,
        max_remembered=max_remembered,
    )
    try:
        from ._serving.app import make_app
    except ImportError as error:
        raise ImportError(
            f"a service needs FastAPI and uvicorn: pip install sklearn_jeidnn[serve] ({error})"
        ) from error
    return make_app(predictor, settings)

"""How fast the whole network and its exits are in several engines."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from .._exits.usual_torch import usual_torch
from .._operate.cascade import Cascade
from .._predictor import Predictor
from .._schema import Arrays
from .prices import seconds_in_turns
from .turns import FIT_TURNS

WHOLE, EXITS = "whole network", "exits"


def engine_table(
    predictors: Mapping[str, Predictor], arrays: Arrays, codes: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Time the whole network and the exits in engines, in turns.

    Parameters
    ----------
    predictors : dict
        Name of an engine -> predictor that it runs.
    arrays : tuple of ndarray (n_samples, ...)
        Encoded, of one call.
    codes : ndarray of int (n_samples,) or None
        Of the labels, if they are known.

    Returns
    -------
    dict of str to ndarray (n_rows,)
        See :meth:`EarlyExitClassifier.benchmark_engines`.
    """
    names, calls = [], []
    for engine, predictor in predictors.items():
        names += [(engine, WHOLE), (engine, EXITS)]
        calls += [
            partial(_codes_of_whole, predictor.cascade.engine, arrays),
            partial(_codes_of_exits, predictor.cascade, arrays),
        ]
    with FIT_TURNS.take(), usual_torch():
        microseconds = 1e6 * seconds_in_turns(calls) / len(arrays[0])
        accuracies = [_accuracy(call, codes) for call in calls]
    engines, whats = zip(*names, strict=True)
    precisions = [predictors[engine].cascade.engine.precision for engine in engines]
    return {
        "engine": np.array(engines),
        "precision": np.array(precisions),
        "what": np.array(whats),
        "microseconds": np.median(microseconds, axis=0),
        "microseconds_p95": np.quantile(microseconds, 0.95, axis=0),
        "accuracy": np.array(accuracies),
    }


def _codes_of_whole(engine: Any, arrays: Arrays) -> np.ndarray:
    codes: np.ndarray = engine.whole_logits(arrays).argmax(1)
    return codes


def _codes_of_exits(cascade: Cascade, arrays: Arrays) -> np.ndarray:
    codes: np.ndarray = cascade.route(arrays).logits.argmax(1)
    return codes


def _accuracy(call: Callable[[], np.ndarray], codes: np.ndarray | None) -> float:
    return float("nan") if codes is None else float(np.mean(call() == codes))

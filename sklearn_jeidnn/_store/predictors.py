"""A predictor without its engine as values, and back."""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from .. import conformal
from .._exits.gate_points import GatePoints
from .._exits.policy import EXIT_DISTRIBUTIONS
from .._history import SampleHistory
from .._operate.calibration import Calibration, CalibrationSamples, SetRule
from .._operate.cascade import Cascade, Engine
from .._operate.exit_answers import ExitAnswers
from .._operate.frontier import Frontier
from .._operate.operating_point import OperatingPoint, RiskControl
from .._predictor import Predictor
from .._schema import InputSchema
from .._table_columns import TableColumns
from .checking import check_kinds, check_sizes

# What values may be, and functions that are written as their names.
KNOWN: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        CalibrationSamples,
        ExitAnswers,
        Frontier,
        GatePoints,
        InputSchema,
        OperatingPoint,
        RiskControl,
        SampleHistory,
        SetRule,
        TableColumns,
    )
}
NAMED: dict[str, Any] = {**EXIT_DISTRIBUTIONS, **conformal.SCORES}
NO_HISTORY = SampleHistory(
    hashes=np.empty(0, np.uint64), parts=np.empty(0, np.int8), complete=False
)


def predictor_as_values(predictor: Predictor) -> dict[str, Any]:
    """All of a predictor but its engine and its history."""
    cascade, sets = predictor.cascade, predictor.calibration.sets
    return {
        "schema": predictor.schema,
        "cascade": {
            "exits": cascade.exits,
            "exit_costs": cascade.exit_costs,
            "exit_distribution": cascade.exit_distribution,
            "plain_seconds": cascade.plain_seconds,
            "first_alone": cascade.first_alone,
            "plain_last_exit": cascade.plain_last_exit,
        },
        "frontier": predictor.frontier,
        # Of the whole grid, so that nobody trains them again.
        "points": predictor.frontier.points,
        "point": predictor.point,
        "rule": predictor.rule,
        "samples": predictor.samples,
        "calibration": {
            "temperatures": predictor.calibration.temperatures,
            "exit_index": predictor.calibration.exit_index,
            "confidence": predictor.calibration.confidence,
            "codes": predictor.calibration.codes,
            "correct": predictor.calibration.correct,
            "sets": None if sets is None else _sets_as_values(sets),
        },
        "leakage": predictor.leakage,
    }


def _sets_as_values(sets: conformal.ConformalSets) -> dict[str, Any]:
    score: Any = sets.score
    is_partial = isinstance(score, partial)
    return {
        "score": score.func if is_partial else score,
        "penalties": dict(score.keywords) if is_partial else {},
        "scores": sets.scores,
        "groups": sets.groups,
        "upper": sets.upper,
    }


def predictor_of(
    values: Mapping[str, Any],
    engine: Engine,
    n_exits: int,
    n_inputs: int,
    history: SampleHistory = NO_HISTORY,
) -> Predictor:
    """The predictor of an engine with so many exits and inputs.

    Raises
    ------
    DamagedFile
        If values are of other kinds, or do not fit each other.
    """
    frontier, rule = values["frontier"], values["rule"]
    # The cache of Frontier.points.
    vars(frontier)["points"] = values["points"]
    predictor = Predictor(
        schema=values["schema"],
        cascade=Cascade(engine=engine, **values["cascade"]),
        frontier=frontier,
        point=values["point"],
        rule=rule,
        samples=values["samples"],
        calibration=_calibration(values["calibration"], rule, values["samples"]),
        history=history,
        leakage=values["leakage"],
    )
    check_kinds(predictor)
    check_sizes(predictor, n_exits, n_inputs)
    _try(predictor)
    return predictor


def _calibration(
    values: Mapping[str, Any], rule: SetRule, samples: CalibrationSamples | None
) -> Calibration:
    if "correct" not in values and samples is not None:
        values = {**values, "correct": _are_correct(values["codes"], samples)}
    sets = values["sets"]
    if sets is not None:
        score = sets["score"]
        sets = conformal.ConformalSets.of_scores(
            partial(score, **sets["penalties"]) if sets["penalties"] else score,
            rule.groups_of,
            scores=sets["scores"],
            group_numbers=sets["groups"],
            upper=sets["upper"],
        )
    return Calibration(**{**values, "sets": sets})


def _are_correct(codes: np.ndarray, samples: CalibrationSamples) -> np.ndarray:
    """Which labels are right, for files that do not tell; none if a part of the samples calibrates."""
    if codes.shape != samples.answers.codes.shape or samples.answers.n_gaps:
        return np.empty(0, dtype=bool)
    correct: np.ndarray = codes == samples.answers.codes
    return correct


def _try(predictor: Predictor) -> None:
    """Answer a sample of no meaning, as a service will."""
    arrays = predictor.schema.encode(predictor.schema.example(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        routed = predictor.routed(arrays, np.zeros(1, dtype=int))
        if predictor.samples is not None:
            predictor.sets_of(routed, [0.9], allow_empty=True)

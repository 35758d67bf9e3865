"""All that a report says, as values."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._operate.drift import compare_samples
from .._operate.exit_answers import ExitAnswers
from .._operate.frontier import tabulate
from .._predictor import Predictor
from .._warn import collected_warnings, warn_caller
from .exits import ExitSummary, exit_summaries
from .facts import (
    Certificates,
    EngineFacts,
    FitFacts,
    certificates,
    engine_facts,
    fit_facts,
)
from .points import (
    Frontier,
    PointOnSamples,
    Share,
    frontier_on_samples,
    point_on_samples,
)
from .reliability import Reliability, reliability_of
from .samples import Known, answer_samples, known_samples
from .shown import Shown


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that a report says of a classifier on labelled samples.

    Parameters
    ----------
    title : str
    intended_use : str or None
        In the user's words.
    confidence_level : float
        Of prediction sets.
    known : Known
        Which of the samples the classifier has seen before.
    point : PointOnSamples
        The classifier's own.
    frontier : Frontier
    plain : Share
        Accuracy of the plain backbone.
    single_accuracies : ndarray (n_exits,)
        Of each exit if all samples leave there.
    exits : list of ExitSummary
    reliability : Reliability
    alike : float or None
        p-value of these samples being like those that calibrate; None if there are none.
    engine : EngineFacts
    certificates : Certificates
    facts : FitFacts
    plain_seconds : float or None
        Time of the plain backbone for a sample, if costs are times.
    shown : Shown or None
        What examples look like; None without examples.
    is_pipeline : bool
        Whether the classifier stands at the end of something else.
    single_that_suffices : ExitSummary or None
        The exit that costs no more if all samples leave there, and is not shown to be less accurate.
    notes : tuple of str
        Warnings that these samples gave.
    """

    title: str
    intended_use: str | None
    confidence_level: float
    known: Known
    point: PointOnSamples
    frontier: Frontier
    plain: Share
    single_accuracies: np.ndarray
    exits: list[ExitSummary]
    reliability: Reliability
    alike: float | None
    engine: EngineFacts
    certificates: Certificates
    facts: FitFacts
    plain_seconds: float | None
    shown: Shown | None
    is_pipeline: bool
    single_that_suffices: ExitSummary | None
    notes: tuple[str, ...]


def contents_of(
    classifier: Any,
    X: Any,
    y: Any,
    *,
    groups: Any,
    shown: Shown | None,
    title: str,
    intended_use: str | None,
    confidence_level: float,
    timing: bool,
    is_pipeline: bool,
) -> Contents:
    """Run labelled samples through a fitted classifier once, and say what comes of it.

    ``X`` is as the classifier takes it.
    """
    predictor: Predictor = classifier._predictor
    with collected_warnings() as notes:
        samples = answer_samples(classifier, X, y, groups)
    for note in notes:
        warn_caller(note)
    point = point_on_samples(predictor, samples, confidence_level)
    answers = samples.answers
    frontier = frontier_on_samples(
        predictor,
        samples,
        confidence_level,
        point.figures,
        has_others=classifier.gate_training == "joint",
    )
    names = [*(f"after {name}" for name in predictor.cascade.exits), "the end"]
    exits = exit_summaries(point, names, predictor.schema.classes, shown)
    return Contents(
        title=title,
        intended_use=intended_use,
        confidence_level=confidence_level,
        known=known_samples(predictor, samples),
        point=point,
        frontier=frontier,
        plain=Share.of(answers.backbone_codes == answers.codes),
        single_accuracies=1 - answers.exit_errors(),
        exits=exits,
        notes=tuple(notes),
        single_that_suffices=_sufficient(point, answers, exits),
        reliability=reliability_of(point),
        alike=_likeness(predictor, point),
        engine=engine_facts(classifier, X, y, len(samples), timing=timing),
        certificates=certificates(predictor, confidence_level, len(samples)),
        facts=fit_facts(classifier),
        plain_seconds=predictor.cascade.plain_seconds,
        shown=shown,
        is_pipeline=is_pipeline,
    )


def _sufficient(
    point: PointOnSamples, answers: ExitAnswers, exits: list[ExitSummary]
) -> ExitSummary | None:
    """The exit that would do for all samples, if there is one."""
    weights = [point.cost_weight]
    found = tabulate(answers, point.exit_index[:, None], point.exit_costs, weights)
    return exits[int(found["single_exit"][0])] if found["single_exit_suffices"][0] else None


def _likeness(predictor: Predictor, point: PointOnSamples) -> float | None:
    """p-value of these samples being like those that calibrate, as far as exits can tell."""
    if predictor.samples is None:
        return None
    calibration = predictor.calibration
    known = (calibration.exit_index, calibration.confidence)
    return compare_samples(known, (point.exit_index, point.confidence)).p_value

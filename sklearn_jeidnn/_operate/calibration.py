"""Calibrated probabilities and prediction sets of one operating point."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import conformal
from .._conformal.scores import checked_scores
from .._exits.policy import ExitMass
from .._schema import Arrays, InputSchema
from .cascade import Cascade
from .exit_answers import ExitAnswers
from .operating_point import OperatingPoint
from .temperatures import fit_leavers_temperatures, softmax
from .user_functions import as_group_labels, called, kind_of_labels
from .warn import OF_CALIBRATION, warn_of_gaps

# Samples on which a user's functions are tried.
N_TRIED = 5


@dataclass(frozen=True, kw_only=True)
class SetRule:
    """How prediction sets are made: the conformity score, and the groups in each of which they hold.

    Parameters
    ----------
    conformity_score : str or callable
        A name in ``conformal.SCORES``, or a function of probabilities and uniform numbers.
    condition_on : str or callable
        A name in ``conformal.GROUPS``, or a function from samples to group labels.
    seed : int
        Of the random numbers of randomised scores.
    takes_groups : bool, default=False
        Whether the user gives the groups of samples, instead of ``condition_on``.
    """

    conformity_score: str | conformal.Score
    condition_on: str | Callable[[Any], ArrayLike]
    seed: int
    takes_groups: bool = False

    def uniform(self, arrays: Arrays) -> np.ndarray:
        """Random numbers of samples if the score needs them, else 0: (n_samples,)."""
        score = self.conformity_score
        if isinstance(score, str) and not score.startswith(conformal.RANDOMIZED):
            return np.zeros(len(arrays[0]))
        return conformal.row_uniform(arrays, self.seed)

    def group_labels(self, X: Any, n_samples: int, groups: ArrayLike | None) -> np.ndarray:
        """Group labels of samples, given or from ``condition_on``: (n_samples,), all 0 if there are none.

        ``X`` are checked samples as the user gives them, of which a callable ``condition_on``, which alone reads them,
        gets a copy.
        """
        if groups is None and callable(self.condition_on):
            name = f"condition_on={self.condition_on!r}"
            groups = called(self.condition_on, name, copy.deepcopy(X), takes=_described(X))
        source = "groups" if self.takes_groups else f"condition_on={self.condition_on!r}: groups"
        labels = np.zeros(n_samples, int) if groups is None else as_group_labels(groups, source)
        if labels.shape != (n_samples,):
            raise ValueError(
                f"{source} has shape {labels.shape}, but there are {n_samples} samples."
            )
        kind_of_labels(labels, source)
        return labels

    def try_functions(self, schema: InputSchema, arrays: Arrays) -> None:
        """Try the user's functions on a few checked samples, not encoded yet, and refuse what they may not return."""
        few = schema.encode(tuple(array[:N_TRIED] for array in arrays))
        if callable(self.condition_on) and not self.takes_groups:
            self.group_labels(schema.as_user_input(few), len(few[0]), None)
        if callable(self.conformity_score):
            random = np.random.default_rng(0)
            probabilities = random.dirichlet(np.ones(schema.n_classes), N_TRIED)
            name = f"conformity_score={self.conformity_score!r}"
            takes = "probabilities (n_samples, n_classes) and uniform numbers (n_samples,)"
            uniform = random.random(N_TRIED)
            scores = called(self.conformity_score, name, probabilities, uniform, takes=takes)
            checked_scores(scores, probabilities.shape)

    def check_groups(self, groups: ArrayLike | None) -> None:
        """Refuse groups if ``conformalize`` was given none, and require them if it was given some."""
        if (groups is not None) != self.takes_groups:
            were, came = ("", "none are") if self.takes_groups else ("out", "some are")
            raise ValueError(
                f"conformalize was called with{were} groups, but {came} given here (groups=)."
            )

    def groups_of(self, rows: conformal.RoutedSamples) -> np.ndarray:
        """Group of each sample and label, an int (see ``conformal.GROUPS``)."""
        if self.takes_groups or callable(self.condition_on):
            return conformal.by_own_groups(rows)
        return conformal.GROUPS[self.condition_on](rows)

    def score(self, routed: conformal.RoutedSamples, codes: np.ndarray) -> conformal.Score:
        """The conformity score; penalties are chosen on these samples, which must not calibrate."""
        if callable(self.conformity_score):
            return self.conformity_score
        score = conformal.SCORES[self.conformity_score]
        if score is not conformal.raps_scores:
            return score
        answered = ~np.isnan(routed.probabilities[:, 0])
        return conformal.smallest_raps(routed.probabilities[answered], codes[answered])


def _described(X: np.ndarray | dict[str, np.ndarray]) -> str:
    """What a callable ``condition_on`` is given."""
    if isinstance(X, dict):
        return f"a dict of arrays {sorted(X)}"
    return (
        f"an array of shape (n_samples, {', '.join(map(str, X.shape[1:]))}), also where X is a data frame, whose "
        f"columns it has in their order"
    )


@dataclass(frozen=True, kw_only=True)
class CalibrationSamples:
    """What an operating point needs to know of the samples that calibrate.

    Parameters
    ----------
    answers : ExitAnswers
    uniform : ndarray (n_samples,)
        Random numbers if the score is randomised, else 0.
    groups : ndarray of int (n_samples,)
        Position of each sample's group in ``known_groups``.
    known_groups : ndarray (n_groups,)
        The groups, as the user labels them.
    """

    answers: ExitAnswers
    uniform: np.ndarray
    groups: np.ndarray
    known_groups: np.ndarray

    @classmethod
    def read(
        cls,
        rule: SetRule,
        schema: InputSchema,
        cascade: Cascade,
        arrays: Arrays,
        codes: np.ndarray,
        groups: ArrayLike | None = None,
    ) -> "CalibrationSamples":
        """Run checked samples, not encoded yet, through every exit."""
        encoded = schema.encode(arrays)
        labels = rule.group_labels(schema.as_user_input(encoded), len(codes), groups)
        known_groups, numbers = np.unique(labels, return_inverse=True)
        answers = cascade.answers(encoded, codes)
        warn_of_gaps(answers.n_gaps, len(answers), "calibration samples", OF_CALIBRATION)
        return cls(
            answers=answers,
            uniform=rule.uniform(encoded),
            groups=numbers,
            known_groups=known_groups,
        )

    def take(self, rows: np.ndarray) -> "CalibrationSamples":
        """Some of the samples."""
        return CalibrationSamples(
            answers=self.answers.take(rows),
            uniform=self.uniform[rows],
            groups=self.groups[rows],
            known_groups=self.known_groups,
        )

    def group_numbers(self, labels: np.ndarray) -> np.ndarray:
        """Positions of groups in ``known_groups``; ``len(known_groups)`` for a group that is not there."""
        known = self.known_groups
        kinds = [kind_of_labels(array, "groups") for array in (labels, known)]
        if kinds[0] is not None and kinds[0] != kinds[1]:
            raise ValueError(
                f"groups are of the kind {kinds[0]} ({labels[:3]}), but those that calibrated are of the kind "
                f"{kinds[1]} ({known[:3]}); give the same labels."
            )
        numbers = np.minimum(np.searchsorted(known, labels), len(known) - 1)
        return np.where(known[numbers] == labels, numbers, len(known))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Temperatures and conformal scores for one operating point.

    Parameters
    ----------
    temperatures : ndarray (n_exits,)
    sets : conformal.ConformalSets or None, default=None
        None if no sample calibrates.
    exit_index, confidence, codes : ndarray (n_calibration,)
        Exits that the calibration samples take, the probability of the predicted label there, and this label as a
        column of ``classes_``.
    correct : ndarray of bool (n_calibration,)
        Whether this label is the true one; False where the exit has no answer.
    """

    temperatures: np.ndarray
    sets: conformal.ConformalSets | None = None
    exit_index: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))
    confidence: np.ndarray = field(default_factory=lambda: np.empty(0))
    codes: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))
    correct: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=bool))

    @classmethod
    def fit(
        cls,
        rule: SetRule,
        point: OperatingPoint,
        gate_answers: ExitAnswers,
        samples: CalibrationSamples | None,
        exit_mass: ExitMass,
    ) -> "Calibration":
        """Fit temperatures on the samples that set the gates, and scores on those that calibrate, if any."""
        gate_answers = gate_answers.of_point(point)
        taken = gate_answers.exits(point.gates, exit_mass)
        found = fit_leavers_temperatures(
            gate_answers.without_gaps[np.arange(len(taken)), taken],
            gate_answers.codes,
            taken,
            gate_answers.unweighted_temperatures,
        )
        if samples is None:
            return cls(temperatures=found)
        return cls.of_scores(rule, point, gate_answers, samples, exit_mass, temperatures=found)

    @classmethod
    def of_scores(
        cls,
        rule: SetRule,
        point: OperatingPoint,
        gate_answers: ExitAnswers,
        samples: CalibrationSamples,
        exit_mass: ExitMass,
        *,
        temperatures: np.ndarray,
    ) -> "Calibration":
        """Fit scores on the samples that calibrate, with given temperatures."""

        def routed(
            answers: ExitAnswers, uniform: np.ndarray, groups: np.ndarray
        ) -> conformal.RoutedSamples:
            answers = answers.of_point(point)
            taken = answers.exits(point.gates, exit_mass)
            probs = calibrated_probabilities(answers.at(taken), taken, temperatures)
            return conformal.RoutedSamples(probs, taken, uniform, groups)

        zeros = np.zeros(len(gate_answers), dtype=int)
        score = rule.score(routed(gate_answers, zeros, zeros), gate_answers.codes)
        calibrating = routed(samples.answers, samples.uniform, samples.groups)
        sets = conformal.ConformalSets(score, rule.groups_of, calibrating, samples.answers.codes)
        probabilities = with_uniform_gaps(calibrating.probabilities)
        codes = probabilities.argmax(axis=1)
        answered = ~np.isnan(calibrating.probabilities[:, 0])
        return cls(
            temperatures=temperatures,
            sets=sets,
            exit_index=calibrating.exit_index,
            confidence=probabilities.max(axis=1),
            codes=codes,
            correct=(codes == samples.answers.codes) & answered,
        )

    def probabilities(self, logits: np.ndarray, exit_index: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, NaN where the exit has no answer: (n_samples, n_classes)."""
        return calibrated_probabilities(logits, exit_index, self.temperatures)


def calibrated_probabilities(
    logits: np.ndarray, exit_index: np.ndarray, temperatures: np.ndarray
) -> np.ndarray:
    """Softmax of logits divided by the temperature of the exit taken.

    NaN stays NaN. It is computed in double precision, so that few probabilities round to 1 and few scores tie.
    """
    return softmax(logits.astype(np.float64) / temperatures[exit_index][:, None])


def with_uniform_gaps(probabilities: np.ndarray) -> np.ndarray:
    """The same, uniform where there are none (NaN): (n_samples, n_classes)."""
    if np.isfinite(probabilities.sum()):
        return probabilities
    filled: np.ndarray = np.nan_to_num(probabilities, nan=1 / probabilities.shape[1])
    return filled


def as_levels(confidence_level: float | Sequence[float]) -> list[float]:
    """Confidence levels as a list; refuse any that is not in (0, 1)."""
    try:
        levels = np.atleast_1d(confidence_level)
    except ValueError:  # lists of several lengths
        levels = np.empty(0)
    numbers = levels.ndim == 1 and levels.size and levels.dtype.kind == "f"
    if not numbers or not np.all((levels > 0) & (levels < 1)):
        raise ValueError(
            f"confidence_level={confidence_level!r} is not allowed; give a number above 0 and below 1, or several."
        )
    return [float(level) for level in levels]


def of_level(sets: np.ndarray, confidence_level: float | Sequence[float]) -> np.ndarray:
    """Sets (n_samples, n_classes, n_levels) without the last axis if a single level is asked for."""
    return sets[..., 0] if np.ndim(confidence_level) == 0 else sets


def check_allow_empty(allow_empty: Any) -> None:
    """Refuse what is not True or False."""
    if not isinstance(allow_empty, bool | np.bool_):
        raise TypeError(f"allow_empty={allow_empty!r} is not allowed; give True or False.")

"""What remains after ``fit``: from checked arrays to labels, probabilities, exits and sets (NumPy only)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ._history import GATES, TRAIN, SampleHistory, input_hashes, labelled_hashes
from ._operate.calibration import Calibration, CalibrationSamples, SetRule
from ._operate.cascade import AnsweredArrays, Cascade, RoutedArrays
from ._operate.certification import certify, random_halves, shuffled
from ._operate.deferral import Deferral, DeferralCertificate, LabelledAnswers, check_risk
from ._operate.exit_answers import ExitAnswers, with_gaps
from ._operate.fit_summary import FitSummary
from ._operate.frontier import Frontier
from ._operate.leakage import check_certifiable
from ._operate.operating_point import OperatingPoint
from ._operate.warn import OF_EVERY_EXIT, warn_of_gaps
from ._schema import Arrays, InputSchema
from .conformal import RoutedSamples

IF_NONE = (
    "Out-of-fold answers guarantee nothing of members that then learned from all samples: give samples of their own to "
    "conformalize or control_risk, or a larger validation_fraction."
)
NOT_KNOWN_TO_BE_RIGHT = (
    "the classifier was stored by a version that did not tell which calibration samples it answers right. Give samples "
    "to conformalize, and store it again."
)


class AnsweredSamples(NamedTuple):
    """All that a single run says of samples."""

    labels: np.ndarray  # (n_samples,)
    routed: RoutedSamples  # probabilities are NaN where the exit has no answer


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A fitted classifier at an operating point, without scikit-learn.

    Its methods take arrays that :class:`InputSchema` has encoded.

    Parameters
    ----------
    schema : InputSchema
    cascade : Cascade
        Its gates are those of ``point``.
    frontier : Frontier
    point : OperatingPoint
    rule : SetRule
    samples : CalibrationSamples or None
        None if no sample calibrates.
    calibration : Calibration
        For ``point``.
    history : SampleHistory
        What networks have learned from.
    leakage : str or None
        Why they may have learned from ``samples``; None if nothing says so.
    """

    schema: InputSchema
    cascade: Cascade
    frontier: Frontier
    point: OperatingPoint
    rule: SetRule
    samples: CalibrationSamples | None
    calibration: Calibration
    history: SampleHistory
    leakage: str | None

    @classmethod
    def fit(
        cls,
        *,
        schema: InputSchema,
        cascade: Cascade,
        frontier: Frontier,
        point: OperatingPoint,
        rule: SetRule,
        samples: CalibrationSamples | None,
        history: SampleHistory,
        leakage: str | None,
    ) -> "Predictor":
        """Calibrate an operating point of a cascade."""
        return cls(
            schema=schema,
            cascade=replace(cascade.at(point), exit_costs=costs_at(point, frontier, cascade)),
            frontier=frontier,
            point=point,
            rule=rule,
            samples=samples,
            calibration=Calibration.fit(rule, point, frontier.answers, samples, cascade.exit_mass),
            history=history,
            leakage=leakage,
        )

    def route(self, arrays: Arrays) -> RoutedArrays:
        """Logits, NaN where there is no answer, and exits of samples that run stage by stage until they leave."""
        routed = self.cascade.route(arrays)
        warn_of_gaps(len(routed.gaps), len(routed.logits))
        return routed

    def labels(self, arrays: Arrays) -> np.ndarray:
        """Label of each sample at the exit it takes; if that has no answer, of the last exit before that has one."""
        return self._labels_of(arrays, self.route(arrays))

    def _labels_of(self, arrays: Arrays, routed: RoutedArrays) -> np.ndarray:
        codes = routed.logits.argmax(1)
        if len(routed.gaps):
            codes[routed.gaps] = self._last_codes(
                arrays, routed.gaps, routed.exit_index[routed.gaps]
            )
        labels: np.ndarray = self.schema.classes[codes]
        return labels

    def _last_codes(self, arrays: Arrays, rows: np.ndarray, exit_index: np.ndarray) -> np.ndarray:
        """Code of the last answer up to an exit, for some samples; the first class if there is none."""
        of_rows = tuple(array[rows] for array in arrays)
        answers = self.cascade.answers(of_rows, np.zeros(len(rows), dtype=int))
        codes: np.ndarray = answers.labels[np.arange(len(rows)), exit_index]
        known: np.ndarray = np.maximum(codes, 0)
        return known

    def exits(self, arrays: Arrays) -> np.ndarray:
        """Exit that each sample takes."""
        return self.route(arrays).exit_index

    def probabilities(self, arrays: Arrays) -> np.ndarray:
        """Calibrated probabilities of the exit that each sample takes; uniform if it has no answer."""
        return self.probabilities_and_exits(arrays)[0]

    def probabilities_and_exits(self, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated probabilities of the exits taken, uniform if they have no answer, and these exits."""
        routed = self.route(arrays)
        probabilities = self.calibration.probabilities(routed.logits, routed.exit_index)
        probabilities[routed.gaps] = 1 / self.schema.n_classes
        return probabilities, routed.exit_index

    def exits_and_confidence(self, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """Exits taken, and the probability of the predicted label there."""
        probabilities, exit_index = self.probabilities_and_exits(arrays)
        return exit_index, probabilities.max(axis=1)

    def every_exit(self, arrays: Arrays) -> AnsweredArrays:
        """What every exit answers, whichever exit a sample would take."""
        answered = self.cascade.engine.answer(arrays)
        gaps = np.isnan(answered.logits[..., 0]).any(axis=1)
        warn_of_gaps(gaps.sum(), len(gaps), so=OF_EVERY_EXIT)
        return answered

    def every_exit_and_hashes(self, arrays: Arrays) -> tuple[AnsweredArrays, np.ndarray]:
        """What every exit answers, and what tells these samples from others."""
        return self.every_exit(arrays), input_hashes(arrays)

    def backbone_labels(self, arrays: Arrays) -> np.ndarray:
        """Label that the plain backbone gives each sample."""
        logits = self.cascade.engine.backbone_logits(arrays)
        warn_of_gaps(np.isnan(with_gaps(logits)[:, 0]).sum(), len(logits))
        labels: np.ndarray = self.schema.classes[logits.argmax(1)]
        return labels

    def routed(self, arrays: Arrays, groups: np.ndarray) -> RoutedSamples:
        """Calibrated probabilities of the exits taken, NaN without an answer, and what else conformity scores read."""
        return self._routed_of(arrays, self.route(arrays), groups)

    def _routed_of(self, arrays: Arrays, routed: RoutedArrays, groups: np.ndarray) -> RoutedSamples:
        probabilities = self.calibration.probabilities(routed.logits, routed.exit_index)
        return RoutedSamples(probabilities, routed.exit_index, self.rule.uniform(arrays), groups)

    def answers(self, arrays: Arrays, groups: np.ndarray | None = None) -> AnsweredSamples:
        """Labels, and what prediction sets are made of, in one run; ``groups`` as in :meth:`routed`, or None."""
        routed = self.route(arrays)
        groups = np.zeros(len(arrays[0]), dtype=int) if groups is None else groups
        return AnsweredSamples(
            self._labels_of(arrays, routed), self._routed_of(arrays, routed, groups)
        )

    def sets(
        self,
        arrays: Arrays,
        levels: Sequence[float],
        *,
        allow_empty: bool,
        groups: np.ndarray | None = None,
    ) -> np.ndarray:
        """Prediction sets: bool (n_samples, n_classes, n_levels); ``groups`` are labels as the user gives them."""
        routed = self.routed(arrays, self.group_numbers(arrays, groups))
        return self.sets_of(routed, levels, allow_empty=allow_empty)

    def group_numbers(self, arrays: Arrays, groups: Any) -> np.ndarray:
        """Group of each sample as calibration numbers them; ``groups`` are labels as the user gives them, or None."""
        samples = self.calibrating("so no prediction set holds")
        X = self.schema.as_user_input(arrays) if callable(self.rule.condition_on) else None
        return samples.group_numbers(self.rule.group_labels(X, len(arrays[0]), groups))

    def sets_of(
        self, routed: RoutedSamples, levels: Sequence[float], *, allow_empty: bool
    ) -> np.ndarray:
        """Prediction sets of samples that have run: bool (n_samples, n_classes, n_levels)."""
        self.calibrating("so no prediction set holds")
        conformal_sets = self.calibration.sets
        assert conformal_sets is not None
        return conformal_sets.sets(routed, levels, allow_empty=allow_empty)

    def deferral_certificate(self, risk: float, confidence: float) -> DeferralCertificate:
        """The least probability of a label from which on samples are answered, and what certifies it."""
        check_risk(risk, confidence)
        self.calibrating(f"so nothing shows that risk={risk!r} is kept to")
        check_certifiable(self.leakage, confidence, "confidence")
        if len(self.calibration.correct) != len(self.calibration.codes):
            raise ValueError(f"risk={risk!r} cannot be certified: {NOT_KNOWN_TO_BE_RIGHT}")
        return self._deferral.certified(risk, confidence)

    @cached_property
    def _deferral(self) -> Deferral:
        answers = self.frontier.answers.of_point(self.point)
        exit_index = answers.exits(self.point.gates, self.cascade.exit_mass)
        probabilities = self.calibration.probabilities(answers.at(exit_index), exit_index)
        rows = np.flatnonzero(~np.isnan(probabilities[:, 0]))
        gates = LabelledAnswers(
            confidence=probabilities[rows].max(axis=1),
            wrong=probabilities[rows].argmax(axis=1) != answers.codes[rows],
        )
        calibration = self.calibration
        labelled = LabelledAnswers(confidence=calibration.confidence, wrong=~calibration.correct)
        return Deferral(gates=gates, labelled=labelled)

    def labels_and_deferred(
        self, arrays: Arrays, threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels, and which of them are less probable than a threshold: so are those of samples without an answer."""
        labels, routed = self.answers(arrays)
        return labels, ~(routed.probabilities.max(axis=1) >= threshold)

    def calibrating(self, so: str) -> CalibrationSamples:
        """The samples that calibrate; refuse if there are none, and say what follows from that."""
        if self.samples is None:
            raise ValueError(f"no sample calibrates (validation_fraction=0), {so}. {IF_NONE}")
        return self.samples

    def moved_to(self, point: OperatingPoint) -> "Predictor":
        """The predictor at another point, calibrated for it on the same samples."""
        return Predictor.fit(
            schema=self.schema,
            cascade=self.cascade,
            frontier=self.frontier,
            point=point,
            rule=self.rule,
            samples=self.samples,
            history=self.history,
            leakage=self.leakage,
        )

    def at(
        self,
        *,
        cost_weight: float | None = None,
        budget: float | None = None,
        max_accuracy_drop: float | None = None,
        exit_policy: str,
        exit_costs: np.ndarray,
    ) -> "Predictor":
        """The predictor at the point that one of the first three asks for, under a policy and exit costs."""
        is_new = not np.array_equal(exit_costs, self.frontier.exit_costs)
        frontier = self.frontier.with_policy(exit_policy, exit_costs)
        point = frontier.choose(
            cost_weight=cost_weight, budget=budget, max_accuracy_drop=max_accuracy_drop
        )
        priced = self.cascade.with_costs(exit_costs) if is_new else self.cascade
        return replace(self, cascade=priced, frontier=frontier).moved_to(point)

    def priced(
        self, exit_costs: np.ndarray, plain_seconds: float, first_alone: float | None
    ) -> "Predictor":
        """The predictor at the same point, whose exits have other run times."""
        frontier = self.frontier.with_policy(self.frontier.exit_policy, exit_costs)
        cascade = self.cascade.with_costs(exit_costs, plain_seconds, first_alone)
        cascade = replace(cascade, exit_costs=costs_at(self.point, frontier, cascade))
        return replace(self, cascade=cascade, frontier=frontier)

    @property
    def least_cost(self) -> float:
        """The least mean cost that an operating point can have."""
        return self.cascade.least_cost

    def with_batch_size(self, batch_size: int | None) -> "Predictor":
        """The same, with another number of samples predicted at once."""
        engine = self.cascade.engine.with_batch_size(batch_size)
        return replace(self, cascade=replace(self.cascade, engine=engine))

    def certified(self, *, risk: str, limit: float, confidence: float) -> "Predictor":
        """The predictor at a point that half of the calibration samples certifies; the other half gives the sets."""
        check_certifiable(self.leakage, confidence)
        samples = self.calibrating(f"so risk_confidence={confidence!r} cannot be given")
        tested, kept = random_halves(samples.answers, self.rule.seed)
        point = certify(self.frontier, tested, risk=risk, limit=limit, confidence=confidence)
        return self.moved_to(point).calibrated_on(samples.take(kept))

    def calibrated_on(self, samples: CalibrationSamples) -> "Predictor":
        """The predictor whose sets are calibrated on these samples, at its own point only.

        Other points are still calibrated on ``self.samples``.
        """
        calibration = Calibration.of_scores(
            self.rule,
            self.point,
            self.frontier.answers,
            samples,
            self.cascade.exit_mass,
            temperatures=self.calibration.temperatures,
        )
        return replace(self, calibration=calibration)

    def leakage_of(self, hashes: np.ndarray, codes: np.ndarray | None) -> str | None:
        """Why nothing holds that samples of these :func:`input_hashes` calibrate; None if nothing says so.

        ``codes`` of labels (n_samples,) are None if there are none.
        """
        hashes = labelled_hashes(hashes, codes, self.schema.classes)
        n_used = self.history.count_used(hashes, (TRAIN, GATES))
        if not n_used:
            return None
        return f"{n_used} of {len(hashes)} samples trained networks or set their gates"

    def controlled(
        self, answers: ExitAnswers, *, risk: str, limit: float, confidence: float
    ) -> "Predictor":
        """The predictor at a point that other samples certify."""
        frontier = self.frontier.of_agreement() if risk == "disagreement" else self.frontier
        in_random_order = shuffled(answers, self.rule.seed)
        point = certify(frontier, in_random_order, risk=risk, limit=limit, confidence=confidence)
        return self.moved_to(point)

    def conformalized(
        self, rule: SetRule, samples: CalibrationSamples, leakage: str | None
    ) -> "Predictor":
        """The predictor with sets from other samples, by another rule; nothing else changes."""
        other = replace(self, rule=rule, samples=samples, leakage=leakage)
        return other.calibrated_on(samples)

    def summary(self, n_folds: int = 0) -> FitSummary:
        """What the operating point does to the samples that the fit held out, after so many folds."""
        chose_nothing = (
            self.samples is not None and self.leakage is None and self.point.risk is None
        )
        return FitSummary(
            frontier=self.frontier.with_policy(self.point.exit_policy, self.cascade.exit_costs),
            point=self.point,
            exits=self.cascade.exits,
            plain_seconds=self.cascade.plain_seconds,
            unseen=self.samples.answers if self.samples is not None and chose_nothing else None,
            n_folds=n_folds,
        )


def costs_at(point: OperatingPoint, frontier: Frontier, cascade: Cascade) -> np.ndarray:
    """Cost of each exit at an operating point (n_exits,).

    A frontier's costs are those of calls that run all stages, and so are a point's, unless all held-out samples leave
    at the first exit: then nothing else is run.
    """
    if cascade.first_alone is None or frontier.answers.exits(point.gates, frontier.exit_mass).any():
        return frontier.exit_costs
    return np.array([cascade.first_alone, *frontier.exit_costs[1:]])

"""What a fit came to on the samples that it held out, and what simpler does as well, in words (NumPy only)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .exit_answers import ExitAnswers
from .frontier import LEARNED, Frontier, is_better
from .operating_point import OperatingPoint

# The threshold that an operating point is compared with.
THRESHOLD = "confidence"
NO_MORE = 1e-6


class Simpler(NamedTuple):
    """Something simpler than an operating point that costs no more."""

    name: str
    accuracy: float
    cost: float
    suffices: bool  # the held-out samples do not show that the point is better


@dataclass(frozen=True, kw_only=True)
class FitSummary:
    """What an operating point does to the held-out samples.

    Parameters
    ----------
    frontier : Frontier
        With the costs of the point's exits.
    point : OperatingPoint
    exits : list of str
        Names of all exits but the last.
    plain_seconds : float or None
        Time of one pass of the plain backbone for a sample, where costs are run times.
    unseen : ExitAnswers or None
        Of samples that trained, set and chose nothing, if there are any.
    n_folds : int
        0 if samples that set the gates trained nothing.
    """

    frontier: Frontier
    point: OperatingPoint
    exits: list[str]
    plain_seconds: float | None
    unseen: ExitAnswers | None
    n_folds: int

    def text(self) -> str:
        """The summary, one statement a line."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        answers, measured = self.frontier.answers, self.frontier.summary(self.point)
        accuracy, cost = measured["accuracy"], measured["mean_cost"]
        how = "Out of fold" if self.n_folds else "Held out"
        yield (
            f"{how}: {len(answers)} samples that set the gates, accuracy {_with_error(accuracy, len(answers))} at mean "
            f"cost {cost:.3f} (plain backbone {measured['backbone_accuracy']:.3f} at 1)."
        )
        if self.unseen is not None:
            yield self._of_unseen(self.unseen)
        if self.point.risk is not None:
            yield _certified(self.point.risk)
        if self.plain_seconds is not None:
            yield _time(cost, self.plain_seconds)
        yield _as_well(self.simpler(), len(answers))

    def _of_unseen(self, answers: ExitAnswers) -> str:
        errors, cost = self._errors_and_cost(answers)
        accuracy = 1 - answers.mean(errors)
        return (
            f"Held out: {len(answers)} samples that set nothing and calibrate prediction sets, accuracy "
            f"{_with_error(accuracy, len(answers))} at mean cost {cost:.3f} (plain backbone "
            f"{answers.of_point(self.point).backbone_accuracy:.3f} at 1)."
        )

    def _errors_and_cost(
        self, answers: ExitAnswers, point: OperatingPoint | None = None
    ) -> tuple[np.ndarray, float]:
        """Error of each sample (n_samples,) at a point, this summary's if none is given, and their mean cost."""
        point = self.point if point is None else point
        answers = answers.of_point(point)
        taken = answers.exits(point.gates, self.frontier.exit_mass)
        errors = answers.errors[np.arange(len(answers)), taken]
        return errors, answers.mean(self.frontier.exit_costs[taken])

    def simpler(self) -> list[Simpler]:
        """What is simpler than the point and costs no more, as far as there is such a thing."""
        errors, cost = self._errors_and_cost(self.frontier.answers)
        found = [self._one_exit(), self._backbone(errors, cost), self._threshold(errors, cost)]
        return [simpler for simpler in found if simpler is not None]

    def _one_exit(self) -> Simpler | None:
        measured = self.frontier.summary(self.point)
        single = measured["single_exit"]
        if single < 0:
            return None
        return Simpler(
            f"one exit for all samples ({self._exit_name(single)})",
            measured["single_accuracy"],
            float(self.frontier.exit_costs[single]),
            bool(measured["single_exit_suffices"]),
        )

    def _exit_name(self, exit_index: int) -> str:
        if exit_index == len(self.exits):
            return "the last"
        name = self.exits[exit_index]
        # Behind companions the end of a member is named by its number.
        return f"{name!r}, the end of member {int(name) + 1}" if name.isdecimal() else repr(name)

    def _backbone(self, errors: np.ndarray, cost: float) -> Simpler | None:
        answers = self.frontier.answers
        if cost < 1 - NO_MORE:
            return None
        its_errors = (answers.backbone_codes != answers.codes).astype(errors.dtype)
        suffices = not is_better(answers, errors, its_errors)
        return Simpler("the plain backbone alone", answers.backbone_accuracy, 1.0, suffices)

    def _threshold(self, errors: np.ndarray, cost: float) -> Simpler | None:
        if self.point.exit_policy != LEARNED or not self.exits:
            return None
        point = self.frontier.with_policy(THRESHOLD).choose(budget=cost + NO_MORE)
        its_errors, its_cost = self._errors_and_cost(self.frontier.answers, point)
        answers = self.frontier.answers
        return Simpler(
            f"a threshold (exit_policy={THRESHOLD!r})",
            1 - answers.mean(its_errors),
            its_cost,
            not is_better(answers, errors, its_errors),
        )


def _with_error(accuracy: float, n_samples: int) -> str:
    """An accuracy with its standard error."""
    return f"{accuracy:.3f} ± {math.sqrt(accuracy * (1 - accuracy) / n_samples):.3f}"


def _certified(risk: Any) -> str:
    shown = "is" if risk.certified else "could not be"
    return (
        f"The limit {risk.limit:g} of the {risk.risk.replace('_', ' ')} {shown} certified with confidence "
        f"{risk.confidence:g}, on {risk.n_samples} samples."
    )


def _time(cost: float, plain_seconds: float) -> str:
    """What the costs come to, which are run times."""
    times = (
        f"{1e3 * cost * plain_seconds:.3g} ms a sample, plain backbone {1e3 * plain_seconds:.3g} ms"
    )
    return (
        f"Time as measured here: {times} ({'saves' if cost < 1 else 'costs'} {abs(1 - cost):.0%})."
    )


def _as_well(simpler: list[Simpler], n_samples: int) -> str:
    """Which of them the samples do not show to be worse."""
    told = [f"{s.name}, accuracy {s.accuracy:.3f} at cost {s.cost:.3f}" for s in simpler]
    good = [text for text, s in zip(told, simpler, strict=True) if s.suffices]
    if good:
        return f"As far as these {n_samples} samples show, this would do as well: {'; or '.join(good)}."
    if not told:
        return "Nothing simpler costs as little."
    return f"Worse at no higher cost, as these samples show: {'; '.join(told)}."

"""A network with exits and their costs, and the engine that runs it."""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from .._exits.gate_points import GatePoints
from .._exits.policy import EXIT_DISTRIBUTIONS, ExitMass
from .._schema import Arrays
from .exit_answers import ExitAnswers, with_gaps
from .operating_point import OperatingPoint

NO_ROWS = np.empty(0, dtype=int)


class RoutedArrays(NamedTuple):
    """The exits that samples take, and the logits there."""

    logits: np.ndarray  # (n_samples, n_classes), of the exit taken
    exit_index: np.ndarray  # (n_samples,)
    gaps: np.ndarray = (
        NO_ROWS  # numbers of the samples whose exit has no answer; their logits are NaN
    )


class AnsweredArrays(NamedTuple):
    """What every exit answers for samples, whichever they would take."""

    logits: np.ndarray  # (n_samples, n_exits, n_classes)
    backbone_logits: np.ndarray  # (n_samples, n_classes)
    gate_inputs: np.ndarray  # (n_samples, n_exits - 1, n_inputs)


class Engine(Protocol):
    """How the stages of a cascade run in prediction."""

    @property
    def batch_size(self) -> int:
        """Best number of samples of a call."""

    @property
    def network(self) -> Any:
        """Stages, heads and gates, which the estimator shows as ``network_``."""

    @property
    def precision(self) -> str:
        """What it computes in."""

    @property
    def gates(self) -> GatePoints:
        """The gates of the network, as one point."""

    @property
    def module(self) -> Any:
        """The plain backbone, which the estimator shows as ``module_``."""

    @property
    def device(self) -> Any:
        """Where the network runs."""

    def route(self, arrays: Arrays, exits: Any = None) -> RoutedArrays:
        """Run samples stage by stage; a sample that leaves is not run further.

        ``exits`` (n_samples,) forces where samples leave, for timing.
        """

    def answer(self, arrays: Arrays) -> AnsweredArrays:
        """Logits (NaN where an exit has no answer) and gate inputs of every exit, and logits of the plain backbone.

        They do not depend on the operating point.
        """

    def backbone_logits(self, arrays: Arrays) -> np.ndarray:
        """Logits of the plain backbone; in float32 where the engine runs it in integers."""

    def whole_logits(self, arrays: Arrays) -> np.ndarray:
        """Logits of the plain backbone as fast as the engine has it: what costs are relative to."""

    def at(self, point: OperatingPoint) -> "Engine":
        """The same network with the gates of a point, and with its last exit."""

    def with_network(self, network: Any) -> "Engine":
        """The same with a network that shares the stages with this one."""

    def with_batch_size(self, batch_size: int | None) -> "Engine":
        """The same network, given another number of samples at once (None: as many as run fastest)."""


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """Stages, heads and gates, with the names and costs of their exits.

    Parameters
    ----------
    engine : Engine
    exits : list of str
        Names of all exits but the last.
    exit_costs : ndarray (n_exits,)
        Relative to one pass of the plain backbone.
    exit_distribution : str
        A name in ``EXIT_DISTRIBUTIONS``.
    plain_seconds : float or None
        Time of one pass of the plain backbone in the engine, for a sample, if costs are relative to that.
    first_alone : float or None
        Cost of the first exit in calls whose samples all leave there, if costs are times: such calls run no more.
    history : object
        Of the training.
    trained : object
        What a later fit can go on from.
    plain_last_exit : bool
        Whether the last exit is the plain backbone, which listens to no exit.
    """

    engine: Engine
    exits: list[str]
    exit_costs: np.ndarray
    exit_distribution: str
    plain_seconds: float | None = None
    first_alone: float | None = None
    history: Any = None
    trained: Any = None
    plain_last_exit: bool = False

    @property
    def least_cost(self) -> float:
        """The least mean cost of a call."""
        return float(self.exit_costs[0]) if self.first_alone is None else self.first_alone

    @property
    def exit_mass(self) -> ExitMass:
        """How a gate's probability becomes that of its exit."""
        return EXIT_DISTRIBUTIONS[self.exit_distribution]

    def answers(
        self, arrays: Arrays, codes: np.ndarray, weights: np.ndarray | None = None
    ) -> ExitAnswers:
        """Answers of every exit for labelled samples; by default all have the same weight."""
        weights = np.ones(len(codes), dtype=np.float32) if weights is None else weights
        return ExitAnswers(**self.engine.answer(arrays)._asdict(), codes=codes, weights=weights)

    def route(self, arrays: Arrays) -> RoutedArrays:
        """Logits and exits of samples that run stage by stage until they leave.

        An exit without an answer spoils those that read it, so samples without one are run through all
        exits, of which each then answers for itself.
        """
        routed = self.engine.route(arrays)
        if math.isfinite(routed.logits.sum(dtype=np.float64)):
            return routed
        logits, exit_index = with_gaps(routed.logits), routed.exit_index.copy()
        gaps = np.flatnonzero(np.isnan(logits[:, 0]))
        if len(gaps):
            answered = self.engine.answer(tuple(array[gaps] for array in arrays))
            of_exits = answered.logits
            if self.plain_last_exit:
                of_exits[:, -1] = answered.backbone_logits
            exit_index[gaps] = self.engine.gates.exits(answered.gate_inputs, self.exit_mass)[:, 0]
            logits[gaps] = of_exits[np.arange(len(gaps)), exit_index[gaps]]
        return RoutedArrays(logits, exit_index, np.flatnonzero(np.isnan(logits[:, 0])))

    def with_costs(
        self,
        exit_costs: np.ndarray,
        plain_seconds: float | None = None,
        first_alone: float | None = None,
    ) -> "Cascade":
        """The same cascade with other costs, which are no times unless they come with those of the plain backbone."""
        return replace(
            self, exit_costs=exit_costs, plain_seconds=plain_seconds, first_alone=first_alone
        )

    def at(self, point: OperatingPoint) -> "Cascade":
        """The same cascade at an operating point."""
        return replace(self, engine=self.engine.at(point), plain_last_exit=point.plain_last_exit)

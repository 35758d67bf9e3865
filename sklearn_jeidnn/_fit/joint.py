"""Train gates and heads jointly: both descend the objective itself."""

import copy
import math

import numpy as np
import torch

from .._exits.exit_heads import ExitHeads
from .._exits.gate_points import GatePoints
from .._exits.gates import all_gate_inputs
from .._exits.network import EarlyExitNetwork
from .._exits.policy import exit_distribution
from .._operate.exit_answers import ExitAnswers, with_gaps
from .._operate.frontier import LEARNED, Frontier
from .._operate.gate_descent import descend_gates
from .._operate.objective import expected_cost
from .._operate.operating_point import OperatingPoint
from .._operate.temperatures import OBSERVED_SHARE
from .features import ExitFeatures
from .losses import cross_entropy, weighted_by_exit

HEAD_ROUNDS = 2
HEAD_EPOCHS = 1
HEAD_LR = 3e-4


def train_jointly(
    network: EarlyExitNetwork,
    train: ExitFeatures,
    held_out: ExitFeatures,
    exit_costs: np.ndarray,
    target: dict[str, float | None],
    batch_size: int,
    exit_policy: str = LEARNED,
    observed_share: float = OBSERVED_SHARE,
) -> tuple[Frontier, OperatingPoint]:
    """Train gates for the whole frontier, then heads and gates in turns at the requested point.

    Heads learn on the samples that they were trained on, weighted by how likely these leave at each exit.
    Gates learn on held-out samples, on which heads are as good as they will be on new ones. The turn of the
    heads is kept if it lowers the objective. Threshold policies take no turns.

    Parameters
    ----------
    network : EarlyExitNetwork
        Its heads and gates are trained in place.
    train, held_out : ExitFeatures
        Samples for the heads, samples for the gates.
    exit_costs : ndarray (n_exits,)
    target : dict
        What :meth:`Frontier.choose` takes.
    batch_size : int
        Batch size of the heads' training.
    exit_policy : str
    observed_share : float
        As in :class:`ExitAnswers`.

    Returns
    -------
    frontier : Frontier
    point : OperatingPoint
    """
    answers = answers_of(network.heads, held_out, observed_share)
    frontier, point = train_gates_on(network, answers, exit_costs, target, exit_policy)
    if exit_policy != LEARNED or not any(True for _ in network.heads.parameters()):
        return frontier, point
    if math.isinf(point.cost_weight):
        # Every sample leaves at the first exit: there is nothing to weigh.
        return frontier, point
    turns = HeadTurns(network, train, held_out, exit_costs, point.cost_weight, batch_size)
    if turns.take(frontier.answers, point.gates):
        answers = answers_of(network.heads, held_out, observed_share)
        return train_gates_on(network, answers, exit_costs, target, exit_policy)
    return frontier, point


def train_gates_on(
    network: EarlyExitNetwork,
    answers: ExitAnswers,
    exit_costs: np.ndarray,
    target: dict[str, float | None],
    exit_policy: str,
) -> tuple[Frontier, OperatingPoint]:
    """Return the frontier and the requested point; the network takes over the gates of the latter."""
    frontier = Frontier(
        answers=answers,
        exit_mass=network.exit_mass,
        exit_costs=exit_costs,
        exit_policy=exit_policy,
    )
    point = frontier.choose(**target)
    network.gates.load(point.gates)
    return frontier, point


@torch.no_grad()
def answers_of(
    heads: ExitHeads, held_out: ExitFeatures, observed_share: float = OBSERVED_SHARE
) -> ExitAnswers:
    """Return the answers of every exit for held-out samples, from their exit features.

    ``observed_share`` is that of :class:`ExitAnswers`.
    """
    logits = heads(held_out.features)
    return ExitAnswers(
        logits=with_gaps(logits.cpu().numpy()),
        backbone_logits=with_gaps(held_out.features[-1].cpu().numpy()),
        gate_inputs=all_gate_inputs(logits).cpu().numpy(),
        codes=held_out.y.cpu().numpy(),
        weights=held_out.weight.cpu().numpy(),
        observed_share=observed_share,
    )


class HeadTurns:
    """Train heads and gates in turns at one cost weight.

    Parameters
    ----------
    network, train, held_out, exit_costs, batch_size
        As in :func:`train_jointly`.
    cost_weight : float
    """

    def __init__(
        self,
        network: EarlyExitNetwork,
        train: ExitFeatures,
        held_out: ExitFeatures,
        exit_costs: np.ndarray,
        cost_weight: float,
        batch_size: int,
    ) -> None:
        self.network, self.train, self.held_out = network, train, held_out
        self.exit_costs, self.cost_weight = exit_costs, cost_weight
        self.batch_size = batch_size

    def take(self, answers: ExitAnswers, gates: GatePoints) -> bool:
        """Take turns until one does not lower the objective, and undo that one.

        Parameters
        ----------
        answers, gates : ExitAnswers, GatePoints
            From before the first turn.

        Returns
        -------
        bool
            Whether any turn was kept.
        """
        least, has_moved = self._objective(answers, gates), False
        for _ in range(HEAD_ROUNDS):
            modules = (self.network.heads, self.network.gates)
            states = [copy.deepcopy(module.state_dict()) for module in modules]
            objective = self._take_turn(answers.observed_share)
            # Also where it is NaN.
            if not objective < least:
                for module, state in zip(modules, states, strict=True):
                    module.load_state_dict(state)
                return has_moved
            least, has_moved = objective, True
        return has_moved

    def _take_turn(self, observed_share: float) -> float:
        """Train the heads, then the gates; return the objective that they reach."""
        self._descend_heads()
        answers = answers_of(self.network.heads, self.held_out, observed_share)
        gates = descend_gates(answers, self.network.exit_mass, self.exit_costs, [self.cost_weight])
        self.network.gates.load(gates)
        return self._objective(answers, gates)

    def _objective(self, answers: ExitAnswers, gates: GatePoints) -> float:
        """Return the objective, with log-loss as the loss, on held-out samples."""
        answers = answers.of_complete()
        leaving = gates.leaving(answers.gate_inputs)[:, 0]
        distribution = exit_distribution(leaving, self.network.exit_mass)
        objective = expected_cost(
            distribution, answers.log_losses, self.exit_costs, self.cost_weight
        )
        return float((answers.weights * objective).mean())

    def _descend_heads(self) -> None:
        """Train the heads for a few epochs, each sample weighted by how likely it leaves at each exit."""
        heads = self.network.heads.train()
        device = next(heads.parameters()).device
        optimizer = torch.optim.AdamW(heads.parameters(), lr=HEAD_LR)
        for _ in range(HEAD_EPOCHS):
            for batch in self.train.batches(self.batch_size):
                features, y, weight = batch.to(device)
                logits = heads(features)
                distribution = self.network.exit_distribution(logits)
                losses = weighted_by_exit(distribution, cross_entropy(logits, y))
                optimizer.zero_grad()
                loss = (weight * losses).mean()
                loss.backward()  # type: ignore[no-untyped-call]  # torch has no type hints here
                optimizer.step()
        heads.eval()

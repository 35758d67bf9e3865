"""Train heads and gates as the paper does: a warm-up of the heads, then gates and heads in turns.

See arXiv 2310.09163, section 4.3.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import functional as F

from .._exits.exit_heads import ExitHeads
from .._exits.gate_points import mean_and_scale
from .._exits.gates import all_gate_inputs
from .._exits.network import EarlyExitNetwork
from .._operate.objective import best_exit
from .checkpoint import NO_CHECKPOINT, Checkpoint, StoredLoop
from .features import ExitFeatures
from .losses import (
    GATE_LOSSES,
    ExitLoss,
    cross_entropy,
    positive_weights,
    surrogate_targets,
    weighted_by_exit,
)
from .memory import fingerprint

PATIENCE = 5
BATCHES_A_TURN = 100
LR = 1e-3


def train_bilevel(
    network: EarlyExitNetwork,
    train: ExitFeatures,
    held_out: ExitFeatures,
    exit_costs: torch.Tensor,
    cost_weight: float,
    *,
    gate_loss: str,
    max_epochs: int,
    batch_size: int,
    stored: Checkpoint = NO_CHECKPOINT,
) -> None:
    """Train heads and gates as the paper does.

    Parameters
    ----------
    network : EarlyExitNetwork
        Its heads and gates are trained in place.
    train, held_out : ExitFeatures
        Samples that heads and gates are trained on; samples that stop the warm-up and set the gates'
        positive weights.
    exit_costs : tensor (n_exits,)
    cost_weight : float
    gate_loss : str
        A name in ``GATE_LOSSES``: the loss from which the gates' targets are computed.
    max_epochs : int
        Largest number of epochs of the warm-up, and number of epochs of the turns.
    batch_size : int
    stored : Checkpoint
        Where the state is stored after epochs, and taken from.
    """

    def loop(what: str) -> StoredLoop:
        own = (what, exit_costs, cost_weight)
        return stored.loop(
            f"the {what} of bilevel gates",
            lambda: (own, fingerprint(network.heads), fingerprint(network.gates)),
        )

    _warm_up(network.heads, train, held_out, max_epochs, batch_size, loop("warm-up"))
    inputs = _gate_inputs(network.heads, train, batch_size)
    network.gates.standardise(*mean_and_scale(inputs.cpu().numpy()))
    _alternate(
        network,
        train,
        held_out,
        exit_costs,
        cost_weight,
        GATE_LOSSES[gate_loss],
        max_epochs,
        batch_size,
        loop("turns"),
    )
    network.eval()


@torch.no_grad()
def _gate_inputs(heads: ExitHeads, samples: ExitFeatures, batch_size: int) -> torch.Tensor:
    device = next(heads.parameters()).device
    batches = torch.split(torch.arange(len(samples.y)), batch_size)
    return torch.cat(
        [all_gate_inputs(heads(samples.take(batch).to(device).features)) for batch in batches]
    )


def _warm_up(
    heads: ExitHeads,
    train: ExitFeatures,
    held_out: ExitFeatures,
    max_epochs: int,
    batch_size: int,
    loop: StoredLoop,
) -> None:
    """Train the heads alone; each head keeps the epoch in which it was most accurate on held-out samples."""
    n_heads = len(heads.heads)
    optimizer = torch.optim.Adam(heads.parameters(), lr=LR)
    best: dict[str, Any] = {
        "accuracy": [-1.0] * n_heads,
        "epochs_since": [0] * n_heads,
        "state": [copy.deepcopy(head.state_dict()) for head in heads.heads],
    }
    done = {"epochs": 0}
    has_ended = loop.resume(heads, optimizer, best, done)
    while not has_ended and done["epochs"] < max_epochs:
        _warm_up_epoch(heads, optimizer, train.batches(batch_size), held_out.y.device)
        _keep_best(heads, held_out, best)
        done["epochs"] += 1
        if min(best["epochs_since"]) >= PATIENCE:
            break
        loop.epoch_done()
    loop.end()
    for head, state in zip(heads.heads, best["state"], strict=True):
        head.load_state_dict(state)


def _keep_best(heads: ExitHeads, held_out: ExitFeatures, best: dict[str, Any]) -> None:
    """Note the heads that are more accurate than they were in any epoch before."""
    for i, accuracy in enumerate(_accuracies(heads, held_out)[:-1]):
        best["epochs_since"][i] += 1
        if accuracy > best["accuracy"][i]:
            best["accuracy"][i], best["epochs_since"][i] = accuracy, 0
            best["state"][i] = copy.deepcopy(heads.heads[i].state_dict())


def _warm_up_epoch(
    heads: ExitHeads,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[ExitFeatures],
    device: torch.device,
) -> None:
    """Descend the heads' cross-entropy, weighted n, n - 1, ..., 1 from the first head to the last."""
    n_heads = len(heads.heads)
    exit_weights = torch.arange(n_heads, 0, -1, device=device)
    heads.train()
    for batch in batches:
        features, y, weight = batch.to(device)
        losses = cross_entropy(heads(features)[:, :-1], y) * exit_weights
        _step(optimizer, weight * losses.sum(1))


@torch.no_grad()
def _accuracies(heads: ExitHeads, samples: ExitFeatures) -> list[float]:
    correct = heads.eval()(samples.features).argmax(-1) == samples.y[:, None]
    accuracies: list[float] = (samples.weight[:, None] * correct).mean(0).tolist()
    return accuracies


def _alternate(
    network: EarlyExitNetwork,
    train: ExitFeatures,
    held_out: ExitFeatures,
    exit_costs: torch.Tensor,
    cost_weight: float,
    gate_loss: ExitLoss,
    max_epochs: int,
    batch_size: int,
    loop: StoredLoop,
) -> None:
    """Train the gates for a fixed number of batches, then the heads for as many, and so on."""
    head_optimizer = torch.optim.Adam(network.heads.parameters(), lr=LR)
    gate_optimizer = torch.optim.Adam(network.gates.parameters(), lr=LR)
    done: dict[str, Any] = {"epochs": 0, "steps": 0, "positive": None}
    has_ended = loop.resume(network.heads, network.gates, head_optimizer, gate_optimizer, done)
    while not has_ended and done["epochs"] < max_epochs:
        for batch in train.batches(batch_size):
            turn, step_of_turn = divmod(done["steps"], BATCHES_A_TURN)
            done["steps"] += 1
            if turn % 2 == 1:
                _head_step(network, head_optimizer, batch.to(exit_costs.device))
                continue
            if step_of_turn == 0:
                done["positive"] = _positive_weights(
                    network, held_out, exit_costs, cost_weight, gate_loss
                )
            positive = done["positive"]
            _gate_step(network, gate_optimizer, batch, positive, exit_costs, cost_weight, gate_loss)
        done["epochs"] += 1
        loop.epoch_done()
    loop.end()


@torch.no_grad()
def _positive_weights(
    network: EarlyExitNetwork,
    held_out: ExitFeatures,
    exit_costs: torch.Tensor,
    cost_weight: float,
    gate_loss: ExitLoss,
) -> torch.Tensor:
    losses = gate_loss(network.heads.eval()(held_out.features), held_out.y).nan_to_num(torch.inf)
    best = best_exit(losses, exit_costs, cost_weight)
    return positive_weights(best, len(exit_costs) - 1, held_out.weight)


def _gate_step(
    network: EarlyExitNetwork,
    optimizer: torch.optim.Optimizer,
    batch: ExitFeatures,
    positive: torch.Tensor,
    exit_costs: torch.Tensor,
    cost_weight: float,
    gate_loss: ExitLoss,
) -> None:
    """Descend the gates' binary cross-entropy; the target is 1 from the best exit on."""
    features, y, weight = batch.to(exit_costs.device)
    with torch.no_grad():
        logits = network.heads.eval()(features)
        best = best_exit(gate_loss(logits, y), exit_costs, cost_weight)
        targets = surrogate_targets(best, len(exit_costs) - 1)
    gate_probs = network.gates(all_gate_inputs(logits))
    balance = torch.where(targets == 1, positive, 1.0)
    losses = F.binary_cross_entropy(gate_probs, targets, weight=balance, reduction="none")
    _step(optimizer, weight * losses.sum(1))


def _head_step(
    network: EarlyExitNetwork, optimizer: torch.optim.Optimizer, batch: ExitFeatures
) -> None:
    """Descend the heads' cross-entropy, each sample weighted by how likely it leaves at each exit."""
    features, y, weight = batch
    logits = network.heads.train()(features)
    distribution = network.exit_distribution(logits)
    _step(optimizer, weight * weighted_by_exit(distribution, cross_entropy(logits, y)))


def _step(optimizer: torch.optim.Optimizer, losses: torch.Tensor) -> None:
    optimizer.zero_grad()
    losses.mean().backward()  # type: ignore[no-untyped-call]  # torch has no type hints here
    optimizer.step()

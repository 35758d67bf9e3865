"""The paper's training of heads and gates: warm-up, then turns of the two (arXiv 2310.09163, section 4.3)."""

import copy
import itertools

import torch
from torch.nn import functional as F

from ._gates import all_gate_inputs
from ._losses import (
    GATE_LOSSES,
    best_exit,
    cross_entropy,
    positive_weights,
    surrogate_targets,
    weighted_by_exit,
)

PATIENCE = 5
BATCHES_A_TURN = 100
LR = 1e-3


def train_bilevel(
    network, train, held_out, exit_costs, cost_weight, *, gate_loss, max_epochs, batch_size
):
    """Train heads and gates as the paper does.

    Parameters
    ----------
    network : EarlyExitNetwork
        Its heads and gates are trained in place.
    train, held_out : ExitFeatures
        Rows that both train on; rows that stop the warm-up and set the gates' positive weights.
    exit_costs : tensor (n_exits,)
    cost_weight : float
    gate_loss : str
        A name in ``GATE_LOSSES``: what the surrogate targets call a loss.
    max_epochs : int
        Most epochs of the warm-up, and epochs of the turns.
    batch_size : int
    """
    _warm_up(network.heads, train, held_out, max_epochs, batch_size)
    network.gates.standardise(_gate_inputs(network.heads, train, batch_size))
    _alternate(
        network,
        train,
        held_out,
        exit_costs,
        cost_weight,
        GATE_LOSSES[gate_loss],
        max_epochs,
        batch_size,
    )
    network.eval()


@torch.no_grad()
def _gate_inputs(heads, rows, batch_size):
    device = next(heads.parameters()).device
    batches = torch.arange(len(rows.y)).split(batch_size)
    return torch.cat(
        [all_gate_inputs(heads(rows.take(batch).to(device).features)) for batch in batches]
    )


def _warm_up(heads, train, held_out, max_epochs, batch_size):
    """Heads alone, earlier exits weighing more; each head keeps the epoch that was its best on held-out rows."""
    n_heads = len(heads.heads)
    exit_weights = torch.arange(n_heads, 0, -1, device=held_out.y.device)
    optimizer = torch.optim.Adam(heads.parameters(), lr=LR)
    best_accuracy = [-1.0] * n_heads
    best_state, epochs_since = [None] * n_heads, [0] * n_heads
    for _ in range(max_epochs):
        heads.train()
        for batch in train.batches(batch_size):
            features, y, weight = batch.to(held_out.y.device)
            losses = cross_entropy(heads(features)[:, :-1], y) * exit_weights
            _step(optimizer, weight * losses.sum(1))
        for i, accuracy in enumerate(_accuracies(heads, held_out)[:-1]):
            epochs_since[i] += 1
            if accuracy > best_accuracy[i]:
                best_accuracy[i], epochs_since[i] = accuracy, 0
                best_state[i] = copy.deepcopy(heads.heads[i].state_dict())
        if min(epochs_since) >= PATIENCE:
            break
    for head, state in zip(heads.heads, best_state, strict=True):
        head.load_state_dict(state)


@torch.no_grad()
def _accuracies(heads, rows):
    correct = heads.eval()(rows.features).argmax(-1) == rows.y[:, None]
    return (rows.weight[:, None] * correct).mean(0).tolist()


def _alternate(
    network, train, held_out, exit_costs, cost_weight, gate_loss, max_epochs, batch_size
):
    """A fixed number of batches for the gates, then as many for the heads, and so on."""
    head_optimizer = torch.optim.Adam(network.heads.parameters(), lr=LR)
    gate_optimizer = torch.optim.Adam(network.gates.parameters(), lr=LR)
    positive = None
    batches = itertools.chain.from_iterable(train.batches(batch_size) for _ in range(max_epochs))
    for turn, batch in enumerate(batches):
        gates_turn = (turn // BATCHES_A_TURN) % 2 == 0
        if gates_turn and turn % BATCHES_A_TURN == 0:
            positive = _positive_weights(network, held_out, exit_costs, cost_weight, gate_loss)
        if gates_turn:
            _gate_step(network, gate_optimizer, batch, positive, exit_costs, cost_weight, gate_loss)
        else:
            _head_step(network, head_optimizer, batch.to(exit_costs.device))


@torch.no_grad()
def _positive_weights(network, held_out, exit_costs, cost_weight, gate_loss):
    losses = gate_loss(network.heads.eval()(held_out.features), held_out.y)
    return positive_weights(best_exit(losses, exit_costs, cost_weight), len(exit_costs) - 1)


def _gate_step(network, optimizer, batch, positive, exit_costs, cost_weight, gate_loss):
    """Binary cross-entropy of each gate against whether the best exit has been reached."""
    features, y, weight = batch.to(exit_costs.device)
    with torch.no_grad():
        logits = network.heads.eval()(features)
        best = best_exit(gate_loss(logits, y), exit_costs, cost_weight)
        targets = surrogate_targets(best, len(exit_costs) - 1)
    gate_probs = network.gates(all_gate_inputs(logits))
    balance = torch.where(targets == 1, positive, 1.0)
    losses = F.binary_cross_entropy(gate_probs, targets, weight=balance, reduction="none")
    _step(optimizer, weight * losses.sum(1))


def _head_step(network, optimizer, batch):
    """Cross-entropy of each head, weighed by where the gates send the row."""
    features, y, weight = batch
    logits = network.heads.train()(features)
    distribution = network.exit_distribution(logits)
    _step(optimizer, weight * weighted_by_exit(distribution, cross_entropy(logits, y)))


def _step(optimizer, losses):
    optimizer.zero_grad()
    losses.mean().backward()
    optimizer.step()

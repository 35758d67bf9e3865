"""Joint training of gates and heads: both descend the objective itself."""

import copy

import torch

from ._gates import all_gate_inputs
from ._losses import cross_entropy, expected_cost, weighted_by_exit, zero_one
from ._policy import exit_distribution

GATE_STEPS = 300
GATE_LR = 0.1
GATE_PENALTY = 1e-3
HEAD_ROUNDS = 2
HEAD_EPOCHS = 2
HEAD_LR = 3e-4


def train_jointly(network, train, held_out, exit_costs, cost_weight, batch_size):
    """Gates and heads take turns to descend the objective; the heads' turn is kept where it helps.

    Heads learn on the rows that they were trained on, weighed by where the gates send those; gates learn
    on held-out rows, where heads are no better than they will be.

    Parameters
    ----------
    network : EarlyExitNetwork
        Its heads and gates are trained in place.
    train, held_out : ExitFeatures
        Rows for the heads, rows for the gates.
    exit_costs : tensor (n_exits,)
    cost_weight : float
    batch_size : int
        Rows of a step of the heads.
    """
    least = descend_gates(network, held_out, exit_costs, cost_weight)
    for _ in range(HEAD_ROUNDS):
        before = copy.deepcopy((network.heads.state_dict(), network.gates.state_dict()))
        _descend_heads(network, train, batch_size)
        objective = descend_gates(network, held_out, exit_costs, cost_weight)
        if objective >= least:
            network.heads.load_state_dict(before[0])
            network.gates.load_state_dict(before[1])
            return
        least = objective


def descend_gates(network, held_out, exit_costs, cost_weight):
    """Full-batch descent of the zero-one objective from gates that know nothing; returns what it reached."""
    with torch.no_grad():
        logits = network.heads(held_out.features)
        inputs = all_gate_inputs(logits)
        losses = zero_one(logits, held_out.y)
    gates = network.gates
    gates.standardise(inputs)
    torch.nn.init.zeros_(gates.weight)
    torch.nn.init.zeros_(gates.bias)
    optimizer = torch.optim.Adam(gates.parameters(), lr=GATE_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, GATE_STEPS)
    for _ in range(GATE_STEPS):
        optimizer.zero_grad()
        objective = _objective(network, inputs, losses, held_out.weight, exit_costs, cost_weight)
        (objective + GATE_PENALTY * gates.weight.square().sum()).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float(_objective(network, inputs, losses, held_out.weight, exit_costs, cost_weight))


def _objective(network, inputs, losses, weight, exit_costs, cost_weight):
    distribution = exit_distribution(network.gates(inputs), network.exit_mass)
    return (weight * expected_cost(distribution, losses, exit_costs, cost_weight)).mean()


def _descend_heads(network, train, batch_size):
    """A few epochs of the heads, each row weighed by how likely it leaves at each exit."""
    heads = network.heads.train()
    optimizer = torch.optim.AdamW(heads.parameters(), lr=HEAD_LR)
    for _ in range(HEAD_EPOCHS):
        for rows in torch.randperm(len(train.y)).split(batch_size):
            logits = heads([feature[rows] for feature in train.features])
            distribution = network.exit_distribution(logits)
            losses = weighted_by_exit(distribution, cross_entropy(logits, train.y[rows]))
            optimizer.zero_grad()
            (train.weight[rows] * losses).mean().backward()
            optimizer.step()
    heads.eval()

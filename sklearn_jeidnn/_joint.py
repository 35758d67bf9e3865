"""Joint training of gates and heads: both descend the objective itself."""

import copy

import torch

from ._frontier import Frontier, descend_gates, outcomes
from ._losses import (
    BOUND,
    bounded_minimum,
    cross_entropy,
    errors_counted,
    expected_cost,
    weighted_by_exit,
)
from ._policy import exit_distribution

HEAD_ROUNDS = 2
HEAD_EPOCHS = 1
HEAD_LR = 3e-4


def train_jointly(network, train, held_out, exit_costs, asked, batch_size, exit_policy="learned"):
    """Gates for the whole frontier; at the point that is asked for, heads and gates take turns.

    Heads learn on the rows that they were trained on, weighed by where the gates send those; gates
    learn on held-out rows, where heads are no better than they will be. The heads' turn is kept
    where it lowers the objective. Thresholds take no turns.

    Parameters
    ----------
    network : EarlyExitNetwork
        Its heads and gates are trained in place.
    train, held_out : ExitFeatures
        Rows for the heads, rows for the gates.
    exit_costs : tensor (n_exits,)
    asked : dict
        What :meth:`Frontier.choose` takes.
    batch_size : int
        Rows of a step of the heads.
    exit_policy : str

    Returns
    -------
    Frontier
    Chosen
    """
    frontier, chosen = _chosen(network, held_out, exit_costs, asked, exit_policy)
    if exit_policy != "learned" or not any(True for _ in network.heads.parameters()):
        return frontier, chosen
    turned = (network, train, held_out, frontier.rows, exit_costs, chosen.cost_weight, batch_size)
    if _turns(*turned):
        frontier, chosen = _chosen(network, held_out, exit_costs, asked, exit_policy)
    return frontier, chosen


def _chosen(network, held_out, exit_costs, asked, exit_policy):
    rows = outcomes_of(network, held_out)
    frontier = Frontier(rows, network.exit_mass, exit_costs, exit_policy)
    chosen = frontier.choose(**asked)
    network.gates.load(*chosen.gates)
    return frontier, chosen


@torch.no_grad()
def outcomes_of(network, held_out):
    """Outcomes of held-out rows, from their exit features."""
    return outcomes(network.heads(held_out.features), held_out.y, held_out.weight)


def _turns(network, train, held_out, rows, exit_costs, cost_weight, batch_size):
    """Whether a turn of the heads was kept; ``rows`` are the held-out rows' outcomes before it."""
    least, moved = _objective(network, rows, exit_costs, cost_weight), False
    for _ in range(HEAD_ROUNDS):
        before = copy.deepcopy(network.heads.state_dict())
        gates = copy.deepcopy(network.gates.state_dict())
        _descend_heads(network, train, batch_size, exit_costs.device)
        rows = outcomes_of(network, held_out)
        network.gates.load(*descend_gates(rows, network.exit_mass, exit_costs, [cost_weight]))
        objective = _objective(network, rows, exit_costs, cost_weight)
        if objective >= least:
            network.heads.load_state_dict(before)
            network.gates.load_state_dict(gates)
            return moved
        least, moved = objective, True
    return moved


@torch.no_grad()
def _objective(network, rows, exit_costs, cost_weight):
    """In log-loss, of heads and gates on held-out rows."""
    distribution = exit_distribution(network.gates(rows.inputs), network.exit_mass)
    objective = expected_cost(distribution, rows.log_losses, exit_costs, cost_weight)
    return float((rows.weight * objective).mean())


@torch.no_grad()
def learn_trust(heads, held_out):
    """How much each exit trusts what the exit before answered, and what the member before answered at its end.

    Least log-loss on rows that no member was trained on; 0 for the latter, or for both, where that makes fewer
    errors, as ``errors_counted`` has them.

    Parameters
    ----------
    heads : ExitHeads
    held_out : ExitFeatures
    """
    heads.trust, heads.trust_in_member = [0.0] * len(heads.trust), [0.0] * len(heads.trust)
    before, weight = None, held_out.weight
    for exit_index, feature in enumerate(held_out.features):
        said = heads.one(exit_index, feature, before)
        if before is not None:
            ways = [(*_trust(said.own, [before.answer], held_out), 0.0), (0.0, 0.0)]
            if before.ended is not None and exit_index not in heads.first_exits:
                ways.insert(0, _trust(said.own, [before.answer, before.ended], held_out))
            mixed = [said.mixed(before, *way) for way in ways]
            errors = [
                float(weight @ errors_counted(each.answer[:, None], held_out.y, weight))
                for each in mixed
            ]
            best = errors.index(min(errors))
            heads.trust[exit_index], heads.trust_in_member[exit_index] = ways[best]
            said = mixed[best]
        before = heads.heard_behind(exit_index, said, before)


def _trust(own, others, rows):
    """The w >= 0 of least log-loss of softmax(a (own + sum_i w_i others_i)) over a > 0 and w: tuple of float"""

    def log_loss(parameters):
        log_scale, *trusts = parameters
        mixed = own + sum(
            trust * log_probs for trust, log_probs in zip(trusts, others, strict=True)
        )
        logits = log_scale.exp() * mixed
        losses = torch.nn.functional.cross_entropy(logits, rows.y, reduction="none")
        return (rows.weight * losses).mean() + 1e-3 * parameters.square().sum()

    n_parameters = 1 + len(others)
    found = bounded_minimum(log_loss, own, n_parameters, least=[-BOUND] + [0] * len(others))
    return tuple(map(float, found[1:]))


def _descend_heads(network, train, batch_size, device):
    """A few epochs of the heads, each row weighed by how likely it leaves at each exit."""
    heads = network.heads.train()
    optimizer = torch.optim.AdamW(heads.parameters(), lr=HEAD_LR)
    for _ in range(HEAD_EPOCHS):
        for batch in train.batches(batch_size):
            batch = batch.to(device)
            logits = heads(batch.features)
            distribution = network.exit_distribution(logits)
            losses = weighted_by_exit(distribution, cross_entropy(logits, batch.y))
            optimizer.zero_grad()
            (batch.weight * losses).mean().backward()
            optimizer.step()
    heads.eval()

"""Joint training of gates and heads: both descend the objective itself."""

import copy

import torch

from ._gates import all_gate_inputs
from ._losses import cross_entropy, expected_cost, expected_zero_one, weighted_by_exit
from ._policy import exit_distribution

GATE_STEPS = 300
GATE_LR = 0.1
# Where leaving gains nothing, a row stays.
GATE_BIAS = -2.0
GATE_PENALTY = 3e-4
HEAD_ROUNDS = 2
HEAD_EPOCHS = 1
HEAD_LR = 3e-4


def train_jointly(network, train, held_out, exit_costs, cost_weight, batch_size):
    """Gates and heads take turns to descend the objective; the heads' turn is kept where it helps.

    Heads learn on the rows that they were trained on, weighed by where the gates send those; gates
    learn on held-out rows, where heads are no better than they will be.

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
    least = _gates_turn(network, held_out, exit_costs, cost_weight)
    for _ in range(HEAD_ROUNDS):
        before = copy.deepcopy((network.heads.state_dict(), network.gates.state_dict()))
        _descend_heads(network, train, batch_size, exit_costs.device)
        objective = _gates_turn(network, held_out, exit_costs, cost_weight)
        if objective >= least:
            network.heads.load_state_dict(before[0])
            network.gates.load_state_dict(before[1])
            return
        least = objective


def _gates_turn(network, held_out, exit_costs, cost_weight):
    """Train the gates; return the objective, in log-loss, of heads and gates on held-out rows."""
    with torch.no_grad():
        logits = network.heads(held_out.features)
    descend_gates(network, logits, held_out, exit_costs, cost_weight)
    with torch.no_grad():
        distribution = network.exit_distribution(logits)
        losses = cross_entropy(logits, held_out.y)
        objective = expected_cost(distribution, losses, exit_costs, cost_weight)
    return float((held_out.weight * objective).mean())


def descend_gates(network, logits, rows, exit_costs, cost_weight):
    """Full-batch descent of the objective in expected errors, from gates that rather stay.

    Parameters
    ----------
    network : EarlyExitNetwork
        Its gates are trained in place.
    logits : tensor (n_samples, n_exits, n_classes)
        Of rows that the heads were not trained on.
    rows : ExitFeatures
        The same rows' labels and weights.
    exit_costs : tensor (n_exits,)
    cost_weight : float
    """
    gates, inputs = network.gates, all_gate_inputs(logits)
    losses = expected_zero_one(logits, temperatures(logits, rows.y, rows.weight))
    gates.standardise(inputs)
    torch.nn.init.zeros_(gates.weight)
    torch.nn.init.constant_(gates.bias, GATE_BIAS)
    optimizer = torch.optim.Adam(gates.parameters(), lr=GATE_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, GATE_STEPS)
    for _ in range(GATE_STEPS):
        distribution = exit_distribution(gates(inputs), network.exit_mass)
        objective = expected_cost(distribution, losses, exit_costs, cost_weight)
        penalty = GATE_PENALTY * gates.weight.square().sum()
        optimizer.zero_grad()
        ((rows.weight * objective).mean() + penalty).backward()
        optimizer.step()
        schedule.step()


def temperatures(logits, y, weight):
    """What each exit's logits are divided by so that its probabilities are calibrated: (n_exits,)

    Least log-loss of these rows; Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural
    Networks", ICML 2017, section 4.2.
    """
    with torch.enable_grad():
        log_temperature = logits.new_zeros(logits.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS([log_temperature], max_iter=50, line_search_fn="strong_wolfe")

        def log_loss():
            optimizer.zero_grad()
            losses = cross_entropy(logits / log_temperature.exp()[:, None], y)
            # A weak pull towards 1 keeps the temperature finite where every row is right.
            loss = (weight[:, None] * losses).mean(0).sum() + 1e-2 * log_temperature.square().sum()
            loss.backward()
            return loss

        optimizer.step(log_loss)
    return log_temperature.detach().exp()


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

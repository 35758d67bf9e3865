"""Joint training of gates and heads: both descend the objective itself."""

import copy
import math

import torch

from ._gates import all_gate_inputs
from ._losses import cross_entropy, expected_cost, expected_zero_one, weighted_by_exit
from ._policy import exit_distribution, exits_taken

GATE_STEPS = 300
GATE_LR = 0.1
# Where leaving gains nothing, a row stays.
GATE_BIAS = -2.0
GATE_PENALTY = 3e-4
HEAD_ROUNDS = 2
HEAD_EPOCHS = 1
HEAD_LR = 3e-4
# Between these lie all operating points: a pass worth a thousandth of a row's error, or thirty rows.
COST_WEIGHTS = (1e-3, 30.0)
BISECTIONS = 12


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

    Returns
    -------
    moved : bool
        Whether a turn of the heads was kept.
    """
    least, moved = _gates_turn(network, held_out, exit_costs, cost_weight), False
    n_rounds = HEAD_ROUNDS if any(True for _ in network.heads.parameters()) else 0
    for _ in range(n_rounds):
        before = copy.deepcopy((network.heads.state_dict(), network.gates.state_dict()))
        _descend_heads(network, train, batch_size, exit_costs.device)
        objective = _gates_turn(network, held_out, exit_costs, cost_weight)
        if objective >= least:
            network.heads.load_state_dict(before[0])
            network.gates.load_state_dict(before[1])
            return moved
        least, moved = objective, True
    return moved


def train_within_budget(network, train, held_out, exit_costs, budget, batch_size):
    """As :func:`train_jointly`, at the cost weight that keeps the held-out rows' mean cost within a budget.

    Returns
    -------
    cost_weight : float
        Found again after heads that moved, since costs move with them.
    """
    cost_weight = cost_weight_for(network, held_out, exit_costs, budget)
    if train_jointly(network, train, held_out, exit_costs, cost_weight, batch_size):
        cost_weight = cost_weight_for(network, held_out, exit_costs, budget)
        _gates_turn(network, held_out, exit_costs, cost_weight)
    return cost_weight


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


@torch.no_grad()
def objective_with_gates(network, held_out, exit_costs, *, cost_weight, budget):
    """Expected errors plus cost of the held-out rows where their gates send them.

    Parameters
    ----------
    network : EarlyExitNetwork
        Its gates are trained in place.
    held_out : ExitFeatures
    exit_costs : tensor (n_exits,)
    cost_weight : float
    budget : float or None
        Not None: errors alone, at the cost weight that keeps to it; infinity where none does.

    Returns
    -------
    float
    """
    if budget is not None and budget < exit_costs[0]:
        return math.inf
    logits = network.heads(held_out.features)
    weight = cost_weight
    if budget is not None:
        weight, cost_weight = cost_weight_for(network, held_out, exit_costs, budget), 0.0
    with torch.enable_grad():
        descend_gates(network, logits, held_out, exit_costs, weight)
    taken = exits_taken(network.gates(all_gate_inputs(logits)), network.exit_mass)
    losses = expected_zero_one(logits, temperatures(logits, held_out.y, held_out.weight))
    spent = losses.gather(1, taken[:, None]).squeeze(1) + cost_weight * exit_costs[taken]
    return float((held_out.weight * spent).mean())


@torch.no_grad()
def cost_weight_for(network, held_out, exit_costs, budget):
    """The least cost weight whose gates keep the held-out rows' mean cost within a budget.

    Parameters
    ----------
    network : EarlyExitNetwork
        Its gates are trained in place.
    held_out : ExitFeatures
    exit_costs : tensor (n_exits,)
    budget : float
        Mean cost, at least the first exit's.

    Returns
    -------
    float
        Found by bisection of its logarithm; 0 where rows cost no more without any.
    """
    logits = network.heads(held_out.features)

    def fits(cost_weight):
        with torch.enable_grad():
            descend_gates(network, logits, held_out, exit_costs, cost_weight)
        gate_probs = network.gates(all_gate_inputs(logits))
        taken = exits_taken(gate_probs, network.exit_mass)
        return float(exit_costs[taken].mean()) <= budget

    if fits(0.0):
        return 0.0
    low, high = map(math.log, COST_WEIGHTS)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(math.exp(middle)) else (middle, high)
    return math.exp(high)


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


@torch.no_grad()
def learn_trust(heads, held_out):
    """How much each exit of a later member trusts what the member before said.

    Least log-loss on rows that no member was trained on; 0 where that makes more errors than the
    exit makes alone.

    Parameters
    ----------
    heads : ExitHeads
    held_out : ExitFeatures
    """
    said = None
    for exit_index, feature in enumerate(held_out.features):
        heads.trust[exit_index] = 0
        before, said = said, heads.one(exit_index, feature, said)
        if said.before is not None:
            log_probs = said.before.log_softmax(1)
            trust = _trust(said.own, log_probs, held_out)
            mixed = said.own + trust * log_probs
            wrong, wrong_alone = (
                (held_out.weight * (logits.argmax(1) != held_out.y)).sum()
                for logits in (mixed, said.own)
            )
            heads.trust[exit_index] = trust if wrong <= wrong_alone else 0
            said = heads.one(exit_index, feature, before)


def _trust(own, log_probs, rows):
    """The w >= 0 of least log-loss of softmax(a (own + w log_probs)) over a > 0 and w."""
    with torch.enable_grad():
        log_scale = own.new_zeros((), requires_grad=True)
        trust = own.new_zeros((), requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [log_scale, trust], max_iter=50, line_search_fn="strong_wolfe"
        )

        def log_loss():
            optimizer.zero_grad()
            logits = log_scale.exp() * (own + trust * log_probs)
            losses = torch.nn.functional.cross_entropy(logits, rows.y, reduction="none")
            loss = (rows.weight * losses).mean() + 1e-3 * (log_scale.square() + trust.square())
            loss.backward()
            return loss

        optimizer.step(log_loss)
    return trust.detach().clamp(min=0)


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

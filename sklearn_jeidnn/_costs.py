"""What it costs to leave at each exit, relative to one pass of the plain backbone."""

import time
from functools import partial

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ._graphs import attention_as_operations

N_PROBE_ROWS = 2
# Turns of what is timed: at least, at most, and how long to go on between.
N_TIMED, MOST_TIMED, ENOUGH_SECONDS = 7, 101, 2.0
# Rows that are predicted before another way has its turn.
ROWS_OF_A_TURN = 16


@torch.no_grad()
def multiply_adds(function, *inputs):
    """(what the call returns, multiply-adds it took)"""
    counter = FlopCounterMode(display=False)
    # The counter does not know torch's fused attention on a CPU.
    with attention_as_operations(), sdpa_kernel(SDPBackend.MATH), counter:
        result = function(*inputs)
    # The counter counts a multiply-add as two operations.
    return result, counter.get_total_flops() / 2


def relative_exit_costs(network, inputs):
    """What everything costs that is run when a row leaves at an exit, relative to the plain backbone.

    Multiply-adds of stages, heads and gates, so the last exit costs more than 1; of a stage whose
    ``relative_cost`` is told, that. The plain backbone is the last member.

    Parameters
    ----------
    network : EarlyExitNetwork
        In evaluation mode.
    inputs : tuple of tensor (n_samples, ...)
        A few rows of the right shape; their values do not matter.

    Returns
    -------
    exit_costs : ndarray (n_exits,)
        Increasing.

    Raises
    ------
    ValueError
        Where the backbone multiplies nothing, so that there is nothing to save.
    """
    inputs = tuple(tensor[:N_PROBE_ROWS] for tensor in inputs)
    stage_counts, overhead_counts = [], []
    carried, heard = None, None
    for exit_index, stage in enumerate(network.stages):
        taken = inputs if network.starts(exit_index) else carried
        carried, count = multiply_adds(stage, *taken)
        stage_counts.append(count)
        said, count = multiply_adds(network.say, exit_index, stage.read(carried), heard)
        heard = said.heard
        overhead_counts.append(count + len(inputs[0]) * network.gates.weight.shape[1])
    overhead_counts[-1] = 0
    plain = sum(stage_counts[network.heads.first_exits[-1] :])
    if plain == 0:
        raise ValueError(
            "module has no multiplications (linear layers, convolutions, attention) to count, so costs "
            "relative to it mean nothing."
        )
    told = [stage.relative_cost for stage in network.stages]
    shares = [
        count / plain if cost is None else cost
        for count, cost in zip(stage_counts, told, strict=True)
    ]
    return np.cumsum(shares) + np.cumsum(overhead_counts) / plain


def seconds_in_turns(functions):
    """Time of each function, called in turns: (n_turns, n_functions)

    At least ``N_TIMED`` turns, and more of quick ones; a first one warms up.
    """
    times, start = [], time.perf_counter()
    while len(times) <= N_TIMED or (
        len(times) < MOST_TIMED and time.perf_counter() - start < ENOUGH_SECONDS
    ):
        times.append([_seconds(function) for function in functions])
    return np.array(times[1:])


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@torch.no_grad()
def relative_seconds(functions, plain):
    """Times of some functions relative to the plain backbone's, which takes its turn with them.

    Parameters
    ----------
    functions : list of callable
    plain : callable

    Returns
    -------
    ndarray (n_functions,)
    """
    turns = seconds_in_turns([plain, *functions])
    return np.median(turns[:, 1:] / turns[:, :1], axis=0)


def seconds_of_exits(run, plain, n_rows, n_exits):
    """Time of rows that leave at each exit, relative to a pass of the plain backbone.

    Rows that leave together are timed for each exit, then rows that leave all over the exits. These take longer
    than the mean of those: rows are sorted out, and what a stage takes whatever the number of its rows is paid
    for the few that stay. So that both the latter and rows that all stay cost what they take, a part of the whole
    run is paid by every row, and exits differ by the rest.

    Parameters
    ----------
    run : callable
        Exits of the rows, tensor (n_rows,) -> anything; predicts these rows.
    plain : callable
        Predicts them with the plain backbone.
    n_rows, n_exits : int

    Returns
    -------
    exit_costs : ndarray (n_exits,)
    plain_seconds : float
        Of a row.
    """
    # Rows that come one by one come one after the other, and leave at one exit as often as at another.
    n_calls = 1
    if n_rows < ROWS_OF_A_TURN:
        n_calls = n_exits * -(-ROWS_OF_A_TURN // (n_rows * n_exits))
    numbers = torch.arange(n_calls * n_rows)
    spread = numbers % n_exits
    together = [torch.full_like(numbers, exit_index) for exit_index in range(n_exits)]
    calls = [[plain] * n_calls]
    calls += [[partial(run, part) for part in exits.split(n_rows)] for exits in (*together, spread)]
    turns = seconds_in_turns([partial(_all, functions) for functions in calls])
    whole = turns[:, :1]
    # Within a turn: other jobs slow down what is compared with, too.
    *costs, mixed = np.median(turns[:, 1:] / whole, axis=0)
    # What runs longer costs no less.
    costs = with_shared_part(np.maximum.accumulate(costs), mixed)
    return costs, float(np.median(whole)) / (n_calls * n_rows)


def with_shared_part(costs, mixed):
    """Costs (n_exits,) drawn towards the last until their mean is ``mixed``, by nine tenths at most."""
    last = costs[-1]
    span = last - np.mean(costs)
    own = np.clip((last - mixed) / span, 0.1, 1.0) if span > 0 else 1.0
    return last - own * (last - costs)


def _all(functions):
    for function in functions:
        function()


def exits_worth(network, inputs):
    """How many early exits are worth their time, where it is time that is saved.

    With n exits evenly spread a row that could leave anywhere runs on for half a step of 1 / (n + 1), and
    passes half of the exits; so if one takes the share o of the plain backbone's time, about 1 / sqrt(o) of
    them take least. Measured on CIFAR-10, where rows cannot leave anywhere: 0.4 times as many.

    Parameters
    ----------
    network : EarlyExitNetwork
        Of one member.
    inputs : tuple of tensor (n_samples, ...)
        As many rows as will be asked for at once.
    """
    n_rows = len(inputs[0])
    last = torch.full((n_rows,), network.n_exits - 1, device=inputs[0].device)
    (routed,) = relative_seconds(
        [lambda: network.route(*inputs, rows_at_once=n_rows, exits=last).logits.cpu()],
        lambda: network.plain(*inputs).cpu(),
    )
    overhead = max((routed - 1) / (network.n_exits - 1), 1e-6)
    return max(1, round(0.4 * overhead**-0.5))

"""What it costs to leave at each exit, relative to one pass of the plain backbone."""

import time

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ._graphs import attention_as_operations

N_PROBE_ROWS = 2
N_TIMED = 7


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
    carried, said = None, None
    for exit_index, stage in enumerate(network.stages):
        taken = inputs if network.starts(exit_index) else carried
        carried, count = multiply_adds(stage, *taken)
        stage_counts.append(count)
        said, count = multiply_adds(network.say, exit_index, stage.read(carried), said)
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


@torch.no_grad()
def relative_seconds(stage, plain, inputs):
    """Time of a stage relative to the plain backbone's on the same rows: median of several, in turns.

    Parameters
    ----------
    stage, plain : callable
        Take ``inputs``.
    inputs : tuple of tensor (n_samples, ...)

    Returns
    -------
    float
    """
    ratios = []
    for _ in range(N_TIMED + 1):
        start = time.perf_counter()
        stage(*inputs)
        between = time.perf_counter()
        plain(*inputs)
        ratios.append((between - start) / (time.perf_counter() - between))
    # The first call warms up.
    return float(np.median(ratios[1:]))

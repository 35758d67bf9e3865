"""What it costs to leave at each exit: multiply-adds, relative to one pass of the plain backbone."""

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ._graphs import attention_as_operations

N_PROBE_ROWS = 2


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
    """Multiply-adds of everything run when a row leaves at an exit, relative to the plain backbone.

    Stages, heads and gates count, so the last exit costs more than 1.

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
    stage_counts, overhead_counts = [], []
    carried, previous = tuple(tensor[:N_PROBE_ROWS] for tensor in inputs), None
    for exit_index, stage in enumerate(network.stages[:-1]):
        carried, count = multiply_adds(stage, *carried)
        stage_counts.append(count)
        previous, count = multiply_adds(
            network.exit_logits, stage.read(carried), exit_index, previous
        )
        overhead_counts.append(count + len(previous) * network.gates.weight.shape[1])
    stage_counts.append(multiply_adds(network.stages[-1], *carried)[1])
    plain = sum(stage_counts)
    if plain == 0:
        raise ValueError(
            "module has no multiplications (linear layers, convolutions, attention) to count, so costs "
            "relative to it mean nothing."
        )
    return (np.cumsum(stage_counts) + np.cumsum([*overhead_counts, 0])) / plain

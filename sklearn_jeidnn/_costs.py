"""What it costs to leave at each exit: multiply-adds, relative to one pass of the plain backbone."""

import contextlib

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

N_PROBE_ROWS = 2


@contextlib.contextmanager
def _countable_attention():
    """Attention as matrix products: the counter does not know torch's fused kernels on a CPU."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@torch.no_grad()
def multiply_adds(function, *inputs):
    """(what the call returns, multiply-adds it took for one row)"""
    counter = FlopCounterMode(display=False)
    with _countable_attention(), counter:
        result = function(*inputs)
    # The counter counts a multiply-add as two operations.
    return result, counter.get_total_flops() / (2 * len(inputs[0]))


def relative_exit_costs(network, X):
    """Multiply-adds of everything run when a row leaves at an exit, relative to the plain backbone.

    Stages, heads and gates count, so the last exit costs more than 1.

    Parameters
    ----------
    network : EarlyExitNetwork
        In evaluation mode.
    X : tensor (n_samples, ...)
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
    X = X[:N_PROBE_ROWS]
    stage_counts, overhead_counts = [], []
    carried, previous = (X,), None
    for exit_index, stage in enumerate(network.stages[:-1]):
        carried, count = multiply_adds(stage, *carried)
        stage_counts.append(count)
        previous, count = multiply_adds(network.exit_logits, carried[0], exit_index, previous)
        overhead_counts.append(count + network.gates.weight.shape[1])
    stage_counts.append(multiply_adds(network.stages[-1], *carried)[1])
    plain = sum(stage_counts)
    if plain == 0:
        raise ValueError(
            "module has no multiplications (linear layers, convolutions, attention) to count, so costs "
            "relative to it mean nothing."
        )
    return (np.cumsum(stage_counts) + np.cumsum([*overhead_counts, 0])) / plain

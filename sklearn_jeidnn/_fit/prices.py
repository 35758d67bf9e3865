"""The cost of leaving at each exit, relative to one pass of the plain backbone."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from .._cut import counted, multiply_adds
from .._exits.network import EarlyExitNetwork
from .._schema import Arrays
from .._warn import warn_caller
from .features import check_room

COUNTED, TIMED = "multiply_adds", "seconds"
# Number of samples on which multiply-adds are counted.
N_COUNTED_SAMPLES = 2
# Batches in a timed call if its number of samples is not given (samples that stay of several batches run on together),
# and the largest number of samples in it.
TIMED_BATCHES, MOST_TIMED_SAMPLES = 4, 4096
# Smallest and largest number of turns that are timed, and the seconds after which they end in between.
N_TIMED, MOST_TIMED, ENOUGH_SECONDS = 7, 101, 2.0
# Slow functions need fewer turns: what disturbs them, disturbs all.
FEWEST_TIMED, LONG_SECONDS = 3, 5.0


def relative_exit_costs(network: EarlyExitNetwork, inputs: tuple[torch.Tensor, ...]) -> np.ndarray:
    """Count the multiply-adds of all that runs if a sample leaves at an exit, relative to the plain backbone.

    Stages, heads and gates are counted, so the last exit costs more than 1. If the cost of a stage is given in
    ``network.told_costs``, that is taken. The plain backbone is the last member; beside one whose cost is told,
    multiply-adds count nothing.

    Parameters
    ----------
    network : EarlyExitNetwork
        In evaluation mode.
    inputs : tuple of tensor (n_samples, ...)
        A few samples of the right shape; their values do not matter.

    Returns
    -------
    exit_costs : ndarray (n_exits,)
        Increasing.

    Raises
    ------
    ValueError
        If the backbone has no multiplications, so that there is nothing to save.
    """
    inputs = tuple(tensor[:N_COUNTED_SAMPLES] for tensor in inputs)
    stage_counts, overhead_counts = _count_parts(network, inputs)
    plain = sum(stage_counts[network.heads.first_exits[-1] :])
    if network.told_costs[-1] is not None:
        plain = math.inf
    if plain == 0:
        raise ValueError(
            "module has no multiplications (linear layers, convolutions, attention) to count, so costs "
            "relative to it mean nothing."
        )
    shares = [
        count / plain if cost is None else cost
        for count, cost in zip(stage_counts, network.told_costs, strict=True)
    ]
    return np.cumsum(shares) + np.cumsum(overhead_counts) / plain


def count_stages(member: EarlyExitNetwork, inputs: tuple[torch.Tensor, ...]) -> float:
    """Count the multiply-adds of a member by itself, for a few samples (n_samples, ...)."""
    return sum(_count_parts(member, tuple(tensor[:N_COUNTED_SAMPLES] for tensor in inputs))[0])


def shared_by_counts(
    member: EarlyExitNetwork, inputs: tuple[torch.Tensor, ...], cost: float
) -> list[float]:
    """Share the cost of a member among its stages (n_stages,), as their multiply-adds are."""
    if len(member.stages) == 1:
        return [cost]
    counts, _ = _count_parts(member, tuple(tensor[:N_COUNTED_SAMPLES] for tensor in inputs))
    return [cost * count / sum(counts) for count in counts]


def _count_parts(
    network: EarlyExitNetwork, inputs: tuple[torch.Tensor, ...]
) -> tuple[list[float], list[float]]:
    """Return the multiply-adds of each stage, and those of the head and gate behind it; the last exit has none."""
    stage_counts, overhead_counts = [], []
    carried: Any = inputs
    before = None
    for exit_index, stage in enumerate(network.stages):
        stage_inputs = inputs if network.starts(exit_index) else carried
        carried, count = stage.counted(*stage_inputs)
        stage_counts.append(count)
        output, count = multiply_adds(network.run_exit, exit_index, stage.read(carried), before)
        before = output.passed_on
        overhead_counts.append(count + len(inputs[0]) * network.gates.weight.shape[1])
    overhead_counts[-1] = 0
    return stage_counts, overhead_counts


def warn_of_uncounted(
    networks: Iterable[EarlyExitNetwork], inputs: tuple[torch.Tensor, ...]
) -> None:
    """Warn of costly operations of torch networks that multiply-adds leave out."""
    names = sorted(
        {name for network in networks for name in counted(network.plain, *inputs).uncounted}
    )
    if names:
        warn_caller(
            f"cost='multiply_adds' does not count {', '.join(names)}, so exit_costs_ take it as free; cost='seconds' "
            f"measures run times instead, and cost=[...] takes the cost of each exit."
        )


def seconds_in_turns(functions: Sequence[Callable[[], Any]]) -> np.ndarray:
    """Measure the time of each function, called in turns: (n_turns, n_functions)

    There are at least ``N_TIMED`` turns, more of quick functions and fewer of very slow ones; a first turn warms up.
    """
    times: list[list[float]] = []
    start = time.perf_counter()
    while _goes_on(len(times) - 1, time.perf_counter() - start):
        times.append([seconds_of(function) for function in functions])
    return np.array(times[1:])


def _goes_on(n_turns: int, seconds: float) -> bool:
    """Whether another turn is timed after so many, which took so long."""
    if n_turns < FEWEST_TIMED:
        return True
    if n_turns < N_TIMED:
        return seconds < LONG_SECONDS
    return n_turns < MOST_TIMED - 1 and seconds < ENOUGH_SECONDS


def seconds_of(function: Callable[[], Any]) -> float:
    """Measure the time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@torch.no_grad()
def relative_seconds(
    functions: Sequence[Callable[[], Any]], plain: Callable[[], Any]
) -> np.ndarray:
    """Measure the times of functions relative to the plain backbone's, which takes its turn with them.

    Parameters
    ----------
    functions : list of callable
    plain : callable

    Returns
    -------
    ndarray (n_functions,)
    """
    turns = seconds_in_turns([plain, *functions])
    relative: np.ndarray = np.median(turns[:, 1:] / turns[:, :1], axis=0)
    return relative


def samples_of_a_call(arrays: Arrays, n_samples: int | None, batch_size: int) -> Arrays:
    """Repeat a few samples until there are as many as a call has; None takes several batches."""
    if n_samples is None:
        n_samples = min(TIMED_BATCHES * batch_size, MOST_TIMED_SAMPLES)
    check_room(n_samples * sum(array[:1].nbytes for array in arrays), "batch_size", n_samples)
    rows = np.arange(n_samples) % len(arrays[0])
    return tuple(array[rows] for array in arrays)


def exits_worth(time_of_all: float, n_exits: int) -> int:
    """Return how many early exits are worth the time that they take.

    With n exits evenly spread, a sample that could leave anywhere runs on for half a step of 1 / (n + 1), and
    passes half of the exits. So if an exit takes the share o of the plain backbone's time, about 1 / sqrt(o)
    exits take least. Measured on CIFAR-10, where samples cannot leave anywhere: 0.4 times as many.

    Parameters
    ----------
    time_of_all : float
        Of samples that pass all exits, relative to the plain backbone's.
    n_exits : int
        How many these are, the last one included.
    """
    overhead = max((time_of_all - 1) / (n_exits - 1), 1e-6)
    return max(1, round(0.4 / math.sqrt(overhead)))


def as_price_table(exit_costs: Any, name: str, exits: Sequence[str]) -> np.ndarray:
    """Convert the costs of all exits that a user gives: (n_exits,)

    Raises
    ------
    ValueError
        If they are not one finite number above 0 for each exit, none less than the one before.
    """
    n_exits = len(exits) + 1
    try:
        table = np.asarray(exit_costs, dtype=float)
    except (TypeError, ValueError):
        table = np.empty(0)
    is_table = table.shape == (n_exits,) and np.isfinite(table).all() and (table > 0).all()
    if not is_table or (np.diff(table) < 0).any():
        raise ValueError(
            f"{name}={exit_costs!r} must hold one finite number above 0 for each of the {n_exits} exits ({exits} and "
            f"the last), none less than the one before."
        )
    return table

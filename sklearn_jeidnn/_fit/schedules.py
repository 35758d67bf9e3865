"""Learning rates over a training, and how many epochs it takes."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

# What ``max_epochs`` may be beside a number.
FOUND = "auto"
# Epochs of the cycles if their number is found.
CYCLES = (2, 4, 8, 16, 32, 64, 128)
# Epochs where cycles make no sense: a user's learning rates, the paper's gates.
USUAL_EPOCHS = 100


class StepLimits(NamedTuple):
    """Training steps between which a training ends that finds its number of epochs: with a cycle.

    Held-out samples decide from ``fewest`` on whether it goes on, until ``enough`` are done.
    """

    fewest: int
    enough: float = math.inf


# Beside trees a network need not know everything itself; in the folds of a small table trainings are many, and the more
# samples are held out, the longer they would take for less (decision 50).
ALONE, BESIDE_TREES, BESIDE_TREES_IN_FOLDS = StepLimits(700), StepLimits(300), StepLimits(240, 240)


def most_epochs(max_epochs: int | str) -> int:
    """Return the largest number of epochs that a training may take."""
    return sum(CYCLES) if isinstance(max_epochs, str) else max_epochs


def fixed_epochs(max_epochs: int | str) -> int:
    """Return the number of epochs of a training that does not end by itself."""
    return USUAL_EPOCHS if isinstance(max_epochs, str) else max_epochs


def ends_of_cycles() -> list[int]:
    """Return the epochs, counted from 1, at whose end the learning rate is 0."""
    return list(accumulate(CYCLES))


def end_of_cycle(n_epochs: int) -> int:
    """Return the last end of a cycle that is not after so many epochs, at least the first."""
    return max([CYCLES[0], *(end for end in ends_of_cycles() if end <= n_epochs)])


class WarmUpAndCosine:
    """Share of the learning rate at a step, for ``LambdaLR``: a linear warm-up, then half a cosine down to 0.

    The cosine runs over all steps, and the warm-up cuts off its first tenth. torch has no such schedule:
    ``OneCycleLR`` differs by a tenth of the largest learning rate, and so does ``LinearLR`` followed by
    ``CosineAnnealingLR``; the product of the two, fitted to each number of steps, by up to 1.3 % of it. The
    results in ``benchmarks/`` were measured with this shape.

    Parameters
    ----------
    n_steps : int
    rise : float, default=0.1
        Share of the steps that warm up.
    """

    def __init__(self, n_steps: int, rise: float = 0.1) -> None:
        self.n_steps = max(1, n_steps)
        self.rise = rise

    def __call__(self, step: int) -> float:
        done = min(1, step / self.n_steps)
        return min((done + 1 / self.n_steps) / self.rise, 0.5 * (1 + math.cos(math.pi * done)))


class WarmRestarts:
    """Share of the learning rate at a step, for ``LambdaLR``: half a cosine in each cycle, the next twice as long.

    At the end of each cycle the rate is 0, so that the training can end there. torch's
    ``CosineAnnealingWarmRestarts`` does not warm up.

    Parameters
    ----------
    n_steps : int
        Of an epoch.
    cycles : sequence of int
        Epochs of each.

    References
    ----------
    Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, arXiv 1608.03983.
    """

    # A cycle after the first one starts from weights that bear large steps.
    later_rise = 0.02

    def __init__(self, n_steps: int, cycles: Sequence[int] = CYCLES) -> None:
        first, *later = (n_steps * n_epochs for n_epochs in cycles)
        self.shapes = [
            WarmUpAndCosine(first),
            *(WarmUpAndCosine(length, self.later_rise) for length in later),
        ]

    def __call__(self, step: int) -> float:
        for shape in self.shapes[:-1]:
            if step < shape.n_steps:
                return shape(step)
            step -= shape.n_steps
        return self.shapes[-1](step)

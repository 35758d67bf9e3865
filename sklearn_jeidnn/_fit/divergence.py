"""Refuse training that ends in weights that are not finite, and say what is likely to be the reason of errors."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from .datasets import SamplesDataset

State = Mapping[str, torch.Tensor]

# Ratio of the largest weight of a sample to the mean from which the message mentions weights.
UNEVEN_WEIGHTS = 100.0
# Size of numbers in X from which the message mentions their scale.
LARGE_NUMBERS = 1e4
# Samples that are tried at once.
TRIED_AT_ONCE = 1024


def learns_finite(module: nn.Module) -> bool:
    """Whether all numbers that a module has learned are finite."""
    learned = [p for p in module.parameters() if p.requires_grad]
    return all(bool(torch.isfinite(tensor).all()) for tensor in learned) and not any(
        bool(tensor.isnan().any()) for tensor in _running_statistics(module)
    )


def _running_statistics(module: nn.Module) -> Iterable[torch.Tensor]:
    """Means and variances of normalisation; other buffers, such as masks, may hold what they like."""
    return (
        buffer
        for name, buffer in module.named_buffers()
        if "running_" in name and buffer.is_floating_point()
    )


def reason_of_divergence(
    module: nn.Module,
    start: State,
    samples: SamplesDataset,
    *,
    epoch: int,
    lr: float,
    options: Mapping[str, Any],
) -> str:
    """Say that training diverged, and which parameter or samples are the likely reason.

    Parameters
    ----------
    module : nn.Module
        Trained; it is given its first weights back.
    start : dict of str to tensor
        Its state before training.
    samples : SamplesDataset
    epoch : int
        In which weights were first seen not to be finite, from 1.
    lr : float
    options : mapping
        Those of the optimizer, by the names of the parameters.
    """
    module.load_state_dict(start)
    n_bad = _count_unanswered(module.eval(), samples)
    given = "".join(f", or change {name}={value!r}" for name, value in options.items())
    advice = f"lower lr (None takes a default){given}"
    if n_bad:
        advice = (
            f"before training, module (or a head) answers {n_bad} of {len(samples)} training samples in X with NaN or "
            f"infinity: leave these samples out, or mend the forward (a division by 0, the logarithm of 0, an overflow)"
        )
    what = f"training ended in weights that are not finite (epoch {epoch}, lr={lr:g})"
    return f"{what}; {'; '.join([advice, *_further_reasons(samples)])}."


@torch.no_grad()
def _count_unanswered(module: nn.Module, samples: SamplesDataset) -> int:
    """Number of samples for which a module answers with NaN or infinity."""
    device = next(iter(module.parameters())).device
    n_bad = 0
    for rows in torch.split(torch.arange(len(samples)), TRIED_AT_ONCE):
        logits = module(*(tensor[rows].to(device) for tensor in samples.inputs))
        n_bad += int((~logits.flatten(1).amax(1).isfinite()).sum())
    return n_bad


def _further_reasons(samples: SamplesDataset) -> list[str]:
    """What else may have been too large."""
    reasons = []
    if (largest := float(samples.weight.max() / samples.weight.mean())) > UNEVEN_WEIGHTS:
        reasons.append(
            f"make sample_weight and class_weight more even (the largest weight is {largest:.3g} times the mean)"
        )
    numbers = [t.abs().max() for t in samples.inputs if t.is_floating_point() and t.numel()]
    if (size := float(max(numbers, default=torch.zeros(())))) > LARGE_NUMBERS:
        reasons.append(f"scale X, which has numbers as large as {size:.3g}")
    return reasons


def check_finite(*modules: nn.Module) -> None:
    """Refuse heads or gates that are not finite after a training of their own."""
    if not all(map(learns_finite, modules)):
        raise ValueError(
            "the training of heads and gates ended in weights that are not finite; give a smaller cost_weight, more "
            "even sample_weight or class_weight, or scale X."
        )


@contextlib.contextmanager
def explaining_lone_samples(batch_size: int) -> Iterator[None]:
    """Say which parameter it is that makes batches from which batch normalisation cannot learn."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        raise ValueError(
            f"batch_size={batch_size}, with the parameters iterator_train__* if there are some, makes a batch of one "
            f"sample, from which batch normalisation cannot learn; give at least 2, or drop such a batch. ({error})"
        ) from error


@contextlib.contextmanager
def explaining_none_held_out(callbacks: Any) -> Iterator[None]:
    """Say why a user's callbacks, if there are any, find nothing that is measured on held-out samples."""
    try:
        yield
    except Exception as error:  # whatever callbacks raise
        if not callbacks or "valid" not in str(error):
            raise
        raise ValueError(
            f"callbacks={callbacks!r} read what is measured on held-out samples, but after folds (cv) members learn "
            f"from all samples, and none is held out. Leave such callbacks out, or give cv=None. ({error})"
        ) from error

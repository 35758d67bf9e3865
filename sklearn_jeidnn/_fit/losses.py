"""Losses of heads and targets of gates: functions of tensors alone."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch.nn import functional as F

# Logits (n_samples, n_exits, n_classes), class codes (n_samples,) -> loss (n_samples, n_exits).
ExitLoss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each sample at each exit.

    Parameters
    ----------
    logits : tensor (n_samples, n_exits, n_classes)
    y : tensor (n_samples,) or (n_samples, n_classes)
        Class codes, or probabilities.

    Returns
    -------
    tensor (n_samples, n_exits)
    """
    n_exits = logits.shape[1]
    at_every_exit = y.repeat_interleave(n_exits, dim=0)
    # Exits are laid out as further samples: with classes last, the softmax is several times as fast.
    losses = F.cross_entropy(logits.flatten(0, 1), at_every_exit, reduction="none")
    return losses.view(-1, n_exits)


def zero_one(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return 1 for each exit whose label is wrong, else 0; class codes in, shapes as in :func:`cross_entropy`."""
    return (logits.argmax(-1) != y[:, None]).to(logits.dtype)


def minus_true_probability(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return minus the probability of the true class; class codes in, shapes as in :func:`cross_entropy`."""
    true = y[:, None, None].expand(-1, logits.shape[1], 1)
    return -logits.softmax(-1).gather(-1, true).squeeze(-1)


GATE_LOSSES: dict[str, ExitLoss] = {
    "cross_entropy": cross_entropy,
    "zero_one": zero_one,
    "minus_true_probability": minus_true_probability,
}


def exits_together(
    logits: torch.Tensor, y: torch.Tensor, early_weight: float, distillation: float = 0.5
) -> torch.Tensor:
    """Return the loss with which the backbone learns together with its exits.

    It is the last exit's cross-entropy plus a little of the early exits' loss. The latter is in part
    cross-entropy against the last exit's probabilities, so that early exits ask little of the
    backbone that the last exit does not want.

    Parameters
    ----------
    logits : tensor (n_samples, n_exits, n_classes)
    y : tensor (n_samples,) or (n_samples, n_classes)
        Class codes, or probabilities.
    early_weight : float
        Weight of the early exits' mean loss; the last exit's is 1.
    distillation : float, default=0.5
        Share of the early exits' loss that is measured against the last exit.

    Returns
    -------
    tensor (n_samples,)
    """
    early, last = logits[:, :-1], logits[:, -1]
    if early.shape[1] == 0:
        return F.cross_entropy(last, y, reduction="none")
    last_probs = last.detach().softmax(-1)[:, None]
    against_last = -(last_probs * early.log_softmax(-1)).sum(-1)
    early_loss = (1 - distillation) * cross_entropy(early, y) + distillation * against_last
    return F.cross_entropy(last, y, reduction="none") + early_weight * early_loss.mean(1)


def weighted_by_exit(exit_distribution: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """Return each sample's loss, with every exit weighted by how likely the sample leaves there.

    The distribution is detached. The weights of a sample are rescaled so that its loss is still the sum
    over all exits: heads that few samples reach keep learning (the head phase of the paper's authors).

    Parameters
    ----------
    exit_distribution, losses : tensor (n_samples, n_exits)

    Returns
    -------
    tensor (n_samples,)
    """
    weighted = exit_distribution.detach() * losses
    rescale = losses.detach().sum(1) / weighted.detach().sum(1).clamp(min=1e-12)
    return rescale * weighted.sum(1)


def surrogate_targets(best: torch.Tensor, n_gates: int) -> torch.Tensor:
    """Return 1 for every gate from a sample's best exit on, 0 before it: (n_samples,) -> (n_samples, n_gates)"""
    return (best[:, None] <= torch.arange(n_gates, device=best.device)).float()


def positive_weights(
    best: torch.Tensor, n_gates: int, sample_weight: torch.Tensor, largest: float = 5.0
) -> torch.Tensor:
    """Return the weights that balance the gates' targets: (n_samples,), (n_samples,) -> (n_gates,)

    They are the number of samples whose best exit is another one, divided by the number whose best exit
    is the gate's, and at most ``largest``. Samples count by their weights, whose mean is 1.
    """
    chosen = torch.bincount(best, sample_weight, minlength=n_gates + 1)[:n_gates].float()
    return ((sample_weight.sum() - chosen) / chosen.clamp(min=1)).clamp(max=largest)

"""What gates read, in as few operators as possible: each takes a microsecond, which counts for single samples."""

import torch
from torch.nn import functional as F

from .._exits.gate_points import CONFIDENCE, ENTROPY, MARGIN, STREAK
from .._exits.gates import N_LARGEST, Summary

N_STATISTICS, SQUARED_ENTROPY = 4, 3
# Columns that concern the previous exit.
N_BEFORE = 7


def summarise_briefly(log_probs: torch.Tensor, previous: Summary | None) -> Summary:
    """:func:`_exits.gates.summarise` of logarithms (n_samples, n_classes), equal up to rounding.

    The entropy of the squared and renormalised probabilities is that of twice the logarithms; sums are matrix products.
    """
    n_classes = log_probs.shape[-1]
    largest, labels = log_probs.topk(min(N_LARGEST, n_classes), dim=-1)
    label = labels[:, :1]
    squared = (2 * log_probs).log_softmax(-1)
    terms = torch.cat([log_probs.exp() * log_probs, squared.exp() * squared], dim=-1)
    of_largest = largest.exp() @ _of_largest(largest.shape[1])
    statistics = torch.addmm(of_largest, terms, _sums(n_classes))
    if previous is None:
        inputs = F.pad(torch.cat([statistics, largest], dim=-1), (0, N_BEFORE))
        return Summary(log_probs, label, inputs)
    agree = (previous.label == label).to(log_probs.dtype)
    given_before = previous.log_probs.gather(-1, label).exp()
    streak = agree * (previous.inputs[:, STREAK:] + 1)
    before = previous.inputs[:, :N_STATISTICS]
    columns = [statistics, largest, before, agree, given_before, streak]
    return Summary(log_probs, label, torch.cat(columns, dim=-1))


def _of_largest(n_largest: int) -> torch.Tensor:
    """Matrix from the largest probabilities to the statistics: the first, and by how much it is above the second."""
    matrix = torch.zeros(n_largest, N_STATISTICS)
    matrix[0, CONFIDENCE] = matrix[0, MARGIN] = 1
    matrix[1:2, MARGIN] = -1
    return matrix


def _sums(n_classes: int) -> torch.Tensor:
    """Matrix that adds up the terms of both entropies, all classes of one and then of the other."""
    matrix = torch.zeros(2 * n_classes, N_STATISTICS)
    matrix[:n_classes, ENTROPY] = matrix[n_classes:, SQUARED_ENTROPY] = -1
    return matrix

"""Gates: class logits of this exit and the one before -> probability of leaving here."""

from typing import NamedTuple

import torch
from torch import nn

N_LARGEST = 4
# Columns of a gate's inputs.
CONFIDENCE, ENTROPY, MARGIN, STREAK = 0, 1, 2, -1
EPSILON = 1e-12


def uncertainty_statistics(probs):
    """Largest probability, entropy, top-2 margin, entropy of the squared and renormalised probabilities.

    The paper's gate inputs (section 4.2 of arXiv 2310.09163).

    Parameters
    ----------
    probs : tensor (..., n_classes)

    Returns
    -------
    tensor (..., 4)
    """
    top2 = probs.topk(2, dim=-1).values
    squared = probs.square()
    squared = squared / squared.sum(-1, keepdim=True)
    statistics = [top2[..., 0], _entropy(probs), top2[..., 0] - top2[..., 1], _entropy(squared)]
    return torch.stack(statistics, dim=-1)


def _entropy(probs):
    return -(probs * (probs + EPSILON).log()).sum(-1)


def gate_inputs(logits, previous_logits, streak):
    """What a gate reads.

    The four statistics here and at the exit before, the largest log-probabilities, whether the two
    exits agree, the probability that the one before gave to this one's label, and how many exits
    before this one gave that label in a row. At the first exit what concerns others is 0.

    Parameters
    ----------
    logits : tensor (n_samples, n_classes)
    previous_logits : tensor (n_samples, n_classes) or None
    streak : tensor (n_samples,) or None
        Last column of the inputs of the exit before.

    Returns
    -------
    tensor (n_samples, n_inputs)
        Detached: gates never move heads.
    """
    probs = logits.detach().softmax(-1)
    label = probs.argmax(-1, keepdim=True)
    n_largest = min(N_LARGEST, probs.shape[-1])
    largest = (probs.topk(n_largest, dim=-1).values + EPSILON).log()
    here = [uncertainty_statistics(probs), largest]
    if previous_logits is None:
        return torch.cat([*here, probs.new_zeros(len(probs), 7)], dim=-1)
    previous = previous_logits.detach().softmax(-1)
    agree = (previous.argmax(-1, keepdim=True) == label).to(probs.dtype)
    given_before = previous.gather(-1, label)
    in_a_row = agree * (streak[:, None] + 1)
    return torch.cat(
        [*here, uncertainty_statistics(previous), agree, given_before, in_a_row], dim=-1
    )


def all_gate_inputs(logits):
    """Logits (n_samples, n_exits, n_classes) -> (n_samples, n_exits - 1, n_inputs)"""
    inputs, before, streak = [], None, None
    for here in logits.unbind(1)[:-1]:
        inputs.append(gate_inputs(here, before, streak))
        before, streak = here, inputs[-1][:, STREAK]
    return torch.stack(inputs, dim=1)


def mean_and_scale(inputs):
    """What gate inputs (n_samples, n_gates, n_inputs) are standardised by: two of (n_gates, n_inputs)"""
    return inputs.mean(0), inputs.std(0, correction=0).clamp(min=1e-3)


class GatePoints(NamedTuple):
    """Gates of several operating points."""

    weight: torch.Tensor  # (n_points, n_gates, n_inputs)
    bias: torch.Tensor  # (n_points, n_gates)
    mean: torch.Tensor  # (n_gates, n_inputs), what inputs are standardised by
    scale: torch.Tensor  # (n_gates, n_inputs)

    def standardised(self, inputs):
        """(n_samples, n_gates, n_inputs) -> (n_gates, n_samples, n_inputs)"""
        return ((inputs - self.mean) / self.scale).movedim(0, 1)

    def leaving(self, standard):
        """(n_gates, n_samples, n_inputs) -> probability of leaving (n_samples, n_points, n_gates)"""
        scores = torch.baddbmm(self.bias.T[:, None], standard, self.weight.permute(1, 2, 0))
        return scores.sigmoid().movedim(0, -1)

    def probabilities(self, inputs):
        """(n_samples, n_gates, n_inputs) -> probability of leaving (n_samples, n_points, n_gates)"""
        return self.leaving(self.standardised(inputs))

    def one(self, point):
        """The gates of one point, a point still."""
        return self._replace(
            weight=self.weight[point : point + 1], bias=self.bias[point : point + 1]
        )


class Gates(nn.Module):
    """One logistic gate for each exit but the last, on standardised inputs.

    Parameters
    ----------
    n_gates : int
    n_inputs : int
    """

    def __init__(self, n_gates, n_inputs):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_gates, n_inputs))
        self.bias = nn.Parameter(torch.zeros(n_gates))
        self.register_buffer("mean", torch.zeros(n_gates, n_inputs))
        self.register_buffer("scale", torch.ones(n_gates, n_inputs))

    def standardise(self, inputs):
        """Take mean and deviation of these inputs, (n_samples, n_gates, n_inputs), as the standard."""
        for own, given in zip((self.mean, self.scale), mean_and_scale(inputs), strict=True):
            own.copy_(given)

    @torch.no_grad()
    def load(self, weight, bias, mean, scale):
        """Take over the gates of a point, the fields of :class:`GatePoints`."""
        for own, given in zip(
            (self.weight, self.bias, self.mean, self.scale),
            (weight[0], bias[0], mean, scale),
            strict=True,
        ):
            own.copy_(given)

    def forward(self, inputs):
        """(n_samples, n_gates, n_inputs) -> probability of leaving (n_samples, n_gates)"""
        standard = (inputs - self.mean) / self.scale
        return torch.sigmoid((standard * self.weight).sum(-1) + self.bias)

    def one(self, exit_index, inputs):
        """(n_samples, n_inputs) -> probability of leaving at one exit (n_samples,)"""
        standard = (inputs - self.mean[exit_index]) / self.scale[exit_index]
        return torch.sigmoid((standard * self.weight[exit_index]).sum(-1) + self.bias[exit_index])

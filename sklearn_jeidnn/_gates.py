"""Gates: what this exit and the one before say of the classes -> probability of leaving here."""

import math
from typing import NamedTuple

import torch
from torch import nn

N_LARGEST = 4
# Columns of a gate's inputs.
CONFIDENCE, ENTROPY, MARGIN, STREAK = 0, 1, 2, -1
# No probability counts as less than 1e-12, so that no logarithm is infinite.
LEAST_LOG = math.log(1e-12)
# Columns that rounding does not touch: whether two exits agree, and the streak.
WHOLE_NUMBERS = (-3, -1)
# Score at which a gate has no doubt.
SURE = 50.0
# By how much rounding may move the other columns.
ROUNDING = 1e-6


def uncertainty_statistics(log_probs, probs, top2):
    """Largest probability, entropy, top-2 margin, entropy of the squared and renormalised probabilities.

    The paper's gate inputs (section 4.2 of arXiv 2310.09163).

    Parameters
    ----------
    log_probs, probs : tensor (..., n_classes)
        Finite logarithms.
    top2 : tensor (..., 2)
        The two largest probabilities.

    Returns
    -------
    tensor (..., 4)
    """
    squared = probs.square()
    total = squared.sum(-1)
    statistics = [
        top2[..., 0],
        -torch.linalg.vecdot(probs, log_probs),
        top2[..., 0] - top2[..., 1],
        # With q = p^2 / sum p^2: -sum q log q = log sum p^2 - 2 sum p^2 log p / sum p^2.
        total.log() - 2 * torch.linalg.vecdot(squared, log_probs) / total,
    ]
    return torch.stack(statistics, dim=-1)


def log_probabilities(logits):
    """Finite, and detached: what gates and later exits read never moves heads. (..., n_classes)"""
    return logits.detach().log_softmax(-1).clamp(min=LEAST_LOG)


class Summary(NamedTuple):
    """What the next exit reads of this one's answer."""

    log_probs: torch.Tensor  # (n_samples, n_classes)
    label: torch.Tensor  # (n_samples, 1)
    inputs: torch.Tensor  # (n_samples, n_inputs), of this exit's gate


def summarised(log_probs, previous):
    """What a gate reads of its exit's answer and of the exit before, with what the next one needs.

    The gate's inputs are the four statistics here and at the exit before, the largest log-probabilities,
    whether the two exits agree, the probability that the one before gave to this one's label, and how many
    exits before this one gave that label in a row. At the first exit what concerns others is 0.

    Parameters
    ----------
    log_probs : tensor (n_samples, n_classes)
        From :func:`log_probabilities`.
    previous : Summary or None
        Of the exit before.

    Returns
    -------
    Summary
    """
    probs = log_probs.exp()
    largest, labels = log_probs.topk(min(N_LARGEST, log_probs.shape[-1]), dim=-1)
    label = labels[:, :1]
    # In one piece: of a slice it takes twice as long as of all classes.
    statistics = uncertainty_statistics(log_probs, probs, largest.exp()[:, :2])
    if previous is None:
        columns = [statistics, largest, probs.new_zeros(len(probs), 7)]
    else:
        agree = (previous.label == label).to(probs.dtype)
        given_before = previous.log_probs.gather(-1, label).exp()
        streak = agree * (previous.inputs[:, STREAK:] + 1)
        before = previous.inputs[:, : statistics.shape[1]]
        columns = [statistics, largest, before, agree, given_before, streak]
    return Summary(log_probs, label, torch.cat(columns, dim=-1))


def all_gate_inputs(logits):
    """Logits (n_samples, n_exits, n_classes) -> (n_samples, n_exits - 1, n_inputs)"""
    inputs, summary = [], None
    for log_probs in log_probabilities(logits[:, :-1]).unbind(1):
        summary = summarised(log_probs, summary)
        inputs.append(summary.inputs)
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
        self._lanes = None

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

    def on_inputs(self):
        """(weight, bias) on inputs as they come: (n_gates, n_inputs), (n_gates,)"""
        weight = self.weight / self.scale
        return weight, self.bias - (weight * self.mean).sum(1)

    def forward(self, inputs):
        """(n_samples, n_gates, n_inputs) -> probability of leaving (n_samples, n_gates)"""
        weight, bias = self.on_inputs()
        return torch.sigmoid((inputs * weight).sum(-1) + bias)

    def lanes(self):
        """The gate of each exit by itself: list of :class:`Gate`; made anew only where numbers have changed."""
        own = (self.weight, self.bias, self.mean, self.scale)
        versions = [tensor._version for tensor in own]
        if self._lanes is None or self._lanes[0] != versions:
            self._lanes = (versions, self._made_lanes())
        return self._lanes[1]

    @torch.inference_mode(False)
    @torch.no_grad()
    def _made_lanes(self):
        weight, bias = self.on_inputs()
        doubt = weight.abs() * ROUNDING
        doubt[:, WHOLE_NUMBERS] = 0
        columns = (part.unbind() for part in (weight, bias, doubt.sum(1)))
        return [Gate(*fields) for fields in zip(*columns, strict=True)]

    def __getstate__(self):
        # A copy counts the versions of its tensors anew.
        return {**vars(self), "_lanes": None}


class Gate(NamedTuple):
    """One gate."""

    weight: torch.Tensor  # (n_inputs,)
    bias: torch.Tensor  # ()
    doubt: torch.Tensor  # (), how much rounding may move the score

    def score(self, inputs):
        """(n_samples, n_inputs) -> logit of the probability of leaving (n_samples,)"""
        return torch.addmv(self.bias, inputs, self.weight)

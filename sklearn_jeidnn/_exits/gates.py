"""Gates: from class probabilities of an exit and the previous one to probabilities of leaving."""

import math
from typing import Any, NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import nn

from .gate_points import ROUNDING, STREAK, WHOLE_NUMBERS, GatePoints

N_LARGEST = 4
# No probability counts as less than 1e-12, so that no logarithm is infinite.
LEAST_LOG = math.log(1e-12)


def uncertainty_statistics(
    log_probs: torch.Tensor, probs: torch.Tensor, top2: torch.Tensor
) -> torch.Tensor:
    """Compute the paper's gate inputs (section 4.2 of arXiv 2310.09163).

    They are the largest probability, the entropy, the top-2 margin, and the entropy of the squared
    and renormalised probabilities.

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
    total = squared.sum(-1, keepdim=True)
    largest, second = top2[..., :1], top2[..., 1:]
    statistics = [
        largest,
        -(probs * log_probs).sum(-1, keepdim=True),
        largest - second,
        # With q = p^2 / sum p^2: -sum q log q = log sum p^2 - 2 sum p^2 log p / sum p^2.
        total.log() - 2 * (squared * log_probs).sum(-1, keepdim=True) / total,
    ]
    return torch.cat(statistics, dim=-1)


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Finite, detached log-probabilities (..., n_classes): what reads them never trains heads."""
    return logits.detach().log_softmax(-1).clamp(min=LEAST_LOG)


class Summary(NamedTuple):
    """What the gate of an exit reads, and what the next exit needs of it."""

    log_probs: torch.Tensor  # (n_samples, n_classes)
    label: torch.Tensor  # (n_samples, 1)
    inputs: torch.Tensor  # (n_samples, n_inputs), of this exit's gate


def summarise(log_probs: torch.Tensor, previous: Summary | None) -> Summary:
    """Compute the inputs of an exit's gate, and what the next exit needs for its own.

    The gate's inputs are the four statistics of this exit and of the previous one, the largest
    log-probabilities, whether the two exits agree, the probability that the previous exit gave to
    this exit's label, and how many exits before this one gave that label in a row. At the first
    exit, inputs that concern the previous one are 0.

    Parameters
    ----------
    log_probs : tensor (n_samples, n_classes)
        From :func:`log_probabilities`.
    previous : Summary or None
        Of the previous exit.
    """
    probs = log_probs.exp()
    largest, labels = log_probs.topk(min(N_LARGEST, log_probs.shape[-1]), dim=-1)
    label = labels[:, :1]
    # All classes at once: a slice of them takes twice as long.
    statistics = uncertainty_statistics(log_probs, probs, largest.exp()[:, :2])
    if previous is None:
        columns = [statistics, largest, probs.new_zeros(probs.shape[0], 7)]
    else:
        agree = (previous.label == label).to(probs.dtype)
        given_before = previous.log_probs.gather(-1, label).exp()
        streak = agree * (previous.inputs[:, STREAK:] + 1)
        before = previous.inputs[:, : statistics.shape[1]]
        columns = [statistics, largest, before, agree, given_before, streak]
    return Summary(log_probs, label, torch.cat(columns, dim=-1))


def all_gate_inputs(logits: torch.Tensor) -> torch.Tensor:
    """Logits (n_samples, n_exits, n_classes) -> (n_samples, n_exits - 1, n_inputs); of one exit (n_samples, 0, 0)"""
    if logits.shape[1] == 1:
        return logits.new_empty(len(logits), 0, 0)
    inputs, summary = [], None
    for log_probs in log_probabilities(logits[:, :-1]).unbind(1):
        summary = summarise(log_probs, summary)
        inputs.append(summary.inputs)
    return torch.stack(inputs, dim=1)


class Gate(NamedTuple):
    """One gate."""

    weight: torch.Tensor  # (n_inputs,)
    bias: torch.Tensor  # ()
    rounding_margin: torch.Tensor  # (), largest rounding error of the score

    def score(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n_samples, n_inputs) -> logit of the probability of leaving (n_samples,)"""
        return torch.addmv(self.bias, inputs, self.weight)


class Gates(nn.Module):
    """One logistic gate for each exit but the last, on standardised inputs.

    Parameters
    ----------
    n_gates : int
    n_inputs : int
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, n_gates: int, n_inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_gates, n_inputs))
        self.bias = nn.Parameter(torch.zeros(n_gates))
        self.register_buffer("mean", torch.zeros(n_gates, n_inputs))
        self.register_buffer("scale", torch.ones(n_gates, n_inputs))
        self._per_exit_gates: tuple[list[int], list[Gate]] | None = None

    def standardise(self, mean: ArrayLike | torch.Tensor, scale: ArrayLike | torch.Tensor) -> None:
        """Standardise inputs by this mean and scale (n_gates, n_inputs) from now on."""
        self.mean.copy_(torch.as_tensor(mean))
        self.scale.copy_(torch.as_tensor(scale))

    @torch.no_grad()
    def load(self, point: GatePoints) -> None:
        """Copy the gates of a :class:`GatePoints` of one point."""
        self.weight.copy_(torch.as_tensor(point.weight[0]))
        self.bias.copy_(torch.as_tensor(point.bias[0]))
        self.standardise(point.mean, point.scale)

    def point(self) -> GatePoints:
        """These gates as a :class:`GatePoints` of one point, of NumPy arrays."""
        weight, bias, mean, scale = (
            tensor.detach().cpu().numpy().copy()
            for tensor in (self.weight, self.bias, self.mean, self.scale)
        )
        return GatePoints(weight=weight[None], bias=bias[None], mean=mean, scale=scale)

    def on_inputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (n_gates, n_inputs) and bias (n_gates,) on inputs that are not standardised."""
        weight = self.weight / self.scale
        return weight, self.bias - (weight * self.mean).sum(1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n_samples, n_gates, n_inputs) -> probability of leaving (n_samples, n_gates)"""
        weight, bias = self.on_inputs()
        return torch.sigmoid((inputs * weight).sum(-1) + bias)

    def per_exit_gates(self) -> list[Gate]:
        """The gate of each exit by itself; cached until a number of these gates changes."""
        tensors = (self.weight, self.bias, self.mean, self.scale)
        versions = [tensor._version for tensor in tensors]
        if self._per_exit_gates is None or self._per_exit_gates[0] != versions:
            self._per_exit_gates = (versions, self._make_gates())
        return self._per_exit_gates[1]

    @torch.inference_mode(False)
    @torch.no_grad()
    def _make_gates(self) -> list[Gate]:
        weight, bias = self.on_inputs()
        margin = weight.abs() * ROUNDING
        margin[:, WHOLE_NUMBERS] = 0
        columns = (part.unbind() for part in (weight, bias, margin.sum(1)))
        return [Gate(*fields) for fields in zip(*columns, strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        # The tensors of a copy have other versions.
        return {**vars(self), "_per_exit_gates": None}

"""Heads: what an exit reads of its stage's output, and how it turns that into class logits."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

HIDDEN_UNITS = 64


def average_pool(output):
    """Stage output -> exit feature ``(n_samples, d)``: the mean over positions.

    ``output`` is ``(n, d)``, tokens ``(n, n_tokens, d)`` or maps ``(n, d, height, width)``.
    """
    if output.ndim == 2:
        return output
    return output.mean(1) if output.ndim == 3 else output.flatten(2).mean(2)


def rich_pool(output):
    """Stage output -> exit feature ``(n_samples, d)`` that keeps more than the mean.

    Vectors pass; of tokens the first and the mean; of maps the deviation, and mean and maximum of
    each quarter.
    """
    if output.ndim == 2:
        return output
    if output.ndim == 3:
        return torch.cat([output[:, 0], output.mean(1)], dim=1)
    maps = output.contiguous(memory_format=torch.channels_last)
    means, maxima = F.adaptive_avg_pool2d(maps, 2), F.adaptive_max_pool2d(maps, 2)
    variance = maps.square().mean((2, 3)) - maps.mean((2, 3)).square()
    deviation = variance.clamp(min=1e-6).sqrt()
    return torch.cat([deviation, means.flatten(1), maxima.flatten(1)], dim=1)


class LinearHead(nn.Module):
    """The paper's inference module: one linear layer on the average-pooled stage output."""

    pool = staticmethod(average_pool)

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.linear = nn.Linear(n_features, n_classes)

    def forward(self, feature, previous_logits):
        """feature (n_samples, n_features) -> logits (n_samples, n_classes)"""
        return self.linear(feature)


class VectorHead(nn.Module):
    """One layer on a normalised vector, given what the exit before thought."""

    pool = staticmethod(rich_pool)

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.norm = nn.LayerNorm(n_features)
        self.linear = nn.Linear(n_features, n_classes)
        self.from_previous = nn.Linear(n_classes, n_classes, bias=False)
        nn.init.zeros_(self.from_previous.weight)

    def forward(self, feature, previous_logits):
        """feature (n_samples, n_features), previous (n_samples, n_classes) or None -> logits"""
        logits = self.linear(torch.relu(self.norm(feature)))
        if previous_logits is None:
            return logits
        return logits + self.from_previous(F.log_softmax(previous_logits, dim=1))


class PooledHead(nn.Module):
    """Two layers on the rich pools of maps or tokens, given what the exit before thought."""

    pool = staticmethod(rich_pool)

    def __init__(self, n_features, n_classes):
        super().__init__()
        # The layer behind it scales and shifts as it likes.
        self.norm = nn.BatchNorm1d(n_features, affine=False)
        self.hidden = nn.Linear(n_features, HIDDEN_UNITS)
        self.from_previous = nn.Linear(n_classes, HIDDEN_UNITS, bias=False)
        self.output = nn.Linear(HIDDEN_UNITS, n_classes)

    def forward(self, feature, previous_logits):
        """feature (n_samples, n_features), previous (n_samples, n_classes) or None -> logits"""
        hidden = self.hidden(self.norm(feature))
        if previous_logits is not None:
            hidden = hidden + self.from_previous(F.log_softmax(previous_logits, dim=1))
        return self.output(torch.relu(hidden))


def linear_head(output, n_classes):
    """The paper's head for a stage that answers like ``output``."""
    return LinearHead(average_pool(output).shape[1], n_classes)


def rich_head(output, n_classes):
    """The head that sees enough of a stage that answers like ``output``."""
    head = VectorHead if output.ndim == 2 else PooledHead
    return head(rich_pool(output).shape[1], n_classes)


HEADS = {"linear": linear_head, "rich": rich_head}


class OwnHead(nn.Module):
    """A user's module on the exit feature.

    Parameters
    ----------
    module : nn.Module
        ``module(feature) -> logits``; ``module.pool(output)``, where it has that, makes the feature.
    """

    def __init__(self, module):
        super().__init__()
        self.module = module

    def pool(self, output):
        return getattr(self.module, "pool", rich_pool)(output)

    def forward(self, feature, previous_logits):
        """feature (n_samples, n_features) -> logits (n_samples, n_classes)"""
        return self.module(feature)


def make_head(head, output, n_classes):
    """An untrained head for a stage that answers like ``output``.

    Parameters
    ----------
    head : str or class
        A name in ``HEADS``, or a torch module class, built as ``head(n_features, n_classes)``.
    output : tensor (n_samples, ...)
    n_classes : int

    Raises
    ------
    ValueError
        Where a class cannot be built so, or does not answer ``(n_samples, n_classes)``.
    """
    if isinstance(head, str):
        return HEADS[head](output, n_classes)
    try:
        feature = getattr(head, "pool", rich_pool)(output)
        own = OwnHead(head(feature.shape[1], n_classes)).eval()
        answered = tuple(own(own.pool(output), None).shape)
    except Exception as error:
        raise ValueError(
            f"head={head.__name__} must be built as head(n_features, n_classes) and answer a feature "
            f"(n_samples, n_features) with logits: {type(error).__name__}: {error}"
        ) from error
    if answered != (len(output), n_classes):
        raise ValueError(
            f"head={head.__name__} answered {answered} for {len(output)} rows; it must answer logits of shape "
            f"(n_samples, n_classes) = {(len(output), n_classes)}."
        )
    return own


class Said(NamedTuple):
    """What an exit says of some rows."""

    own: torch.Tensor  # (n_samples, n_classes), logits of its head
    answer: torch.Tensor  # (n_samples, n_classes), the same with what the exit before answered

    def take(self, rows):
        return Said(self.own[rows], self.answer[rows])


class Answer(nn.Module):
    """Head at the end of a member: its stage answers logits already."""

    def pool(self, output):
        return output

    def forward(self, feature, previous_logits):
        return feature


class ExitHeads(nn.Module):
    """The heads of all exits, of one network or of several members one after the other.

    A head reads its own member's exits only. To what it says an exit adds the log-probabilities that
    the exit before answered, times ``trust``: up to scale a weighted geometric mean of all exits so far.

    Parameters
    ----------
    heads : list of nn.Module
        One for each exit but the last; ``head(feature, previous_logits) -> logits``.
    first_exits : tuple of int, default=(0,)
        First exit of each member.
    """

    def __init__(self, heads, first_exits=(0,)):
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.last = Answer()
        self.first_exits = tuple(first_exits)
        self.register_buffer("trust", torch.zeros(len(heads) + 1))

    def _head(self, exit_index):
        return self.last if exit_index == len(self.heads) else self.heads[exit_index]

    def pool(self, exit_index, output):
        """Stage output -> exit feature, ``(n_samples, d)``."""
        return self._head(exit_index).pool(output)

    def one(self, exit_index, feature, said):
        """What one exit says, given what the one before said (None at the first).

        No gradient flows to the exit before.
        """
        starts = said is None or exit_index in self.first_exits
        previous = None if starts else said.own.detach()
        own = self._head(exit_index)(feature, previous).float()
        if said is None:
            return Said(own, own)
        before = F.log_softmax(said.answer.detach(), dim=1)
        return Said(own, own + self.trust[exit_index] * before)

    def forward(self, features):
        """Exit features, one (n_samples, d) for each exit -> logits (n_samples, n_exits, n_classes).

        The feature at a member's end is its logits.
        """
        said, answers = None, []
        for exit_index, feature in enumerate(features):
            said = self.one(exit_index, feature, said)
            answers.append(said.answer)
        return torch.stack(answers, dim=1)

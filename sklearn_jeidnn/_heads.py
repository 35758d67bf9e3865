"""Heads: what an exit reads of its stage's output, and how it turns that into class logits."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ._gates import log_probabilities

HIDDEN_UNITS = 64


def average_pool(output):
    """Stage output -> exit feature ``(n_samples, d)``: the mean over positions.

    ``output`` is ``(n, d)``, tokens ``(n, n_tokens, d)`` or maps ``(n, d, height, width)``.
    """
    if output.ndim == 2:
        return output
    return output.mean(1) if output.ndim == 3 else output.flatten(2).mean(2)


def detailed_pool(output):
    """Stage output -> exit feature ``(n_samples, d)`` that keeps more than the mean.

    Vectors pass; of tokens the first and the mean; of maps the deviation, and mean and maximum of
    each quarter.
    """
    if output.ndim == 2:
        return output
    if output.ndim == 3:
        return torch.cat([output[:, 0], output.mean(1)], dim=1)
    maps = output.contiguous(memory_format=torch.channels_last)
    means, maxima, mean = _quarters(maps)
    variance = _mean_of_positions(maps.square()) - mean.square()
    deviation = variance.clamp(min=1e-6).sqrt()
    return torch.cat([deviation, means.flatten(1), maxima.flatten(1)], dim=1)


def _mean_of_positions(maps):
    """``maps.mean((2, 3))`` of channels-last maps, as a product of matrices: a quarter of the time."""
    positions = maps.permute(0, 2, 3, 1).flatten(1, 2)
    n_positions = positions.shape[1]
    return (positions.new_full((1, n_positions), 1 / n_positions) @ positions).squeeze(1)


def _quarters(maps):
    """Mean and maximum of each quarter, (n, d, 2, 2), and the mean of all, (n, d)."""
    height, width = maps.shape[2:]
    if height % 2 or width % 2:
        means, maxima = F.adaptive_avg_pool2d(maps, 2), F.adaptive_max_pool2d(maps, 2)
        return means, maxima, maps.mean((2, 3))
    # The same of even maps, in half the time.
    quarter = (height // 2, width // 2)
    means = F.avg_pool2d(maps, quarter)
    return means, F.max_pool2d(maps, quarter), means.mean((2, 3))


class LinearHead(nn.Module):
    """The paper's inference module: one linear layer on the average-pooled stage output."""

    pool = staticmethod(average_pool)

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.linear = nn.Linear(n_features, n_classes)

    def forward(self, feature, previous):
        """feature (n_samples, n_features) -> logits (n_samples, n_classes)"""
        return self.linear(feature)


class VectorHead(nn.Module):
    """One layer on a normalised vector, given what the exit before thought."""

    pool = staticmethod(detailed_pool)

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.norm = nn.LayerNorm(n_features)
        self.linear = nn.Linear(n_features, n_classes)
        self.from_previous = nn.Linear(n_classes, n_classes, bias=False)
        nn.init.zeros_(self.from_previous.weight)

    def forward(self, feature, previous):
        """feature (n_samples, n_features), log-probabilities (n_samples, n_classes) or None -> logits"""
        logits = self.linear(torch.relu(self.norm(feature)))
        return logits if previous is None else _plus(logits, self.from_previous, previous)


class PooledHead(nn.Module):
    """Two layers on the detailed pools of maps or tokens, given what the exit before thought."""

    pool = staticmethod(detailed_pool)

    def __init__(self, n_features, n_classes):
        super().__init__()
        # The layer behind it scales and shifts as it likes.
        self.norm = nn.BatchNorm1d(n_features, affine=False)
        self.hidden = nn.Linear(n_features, HIDDEN_UNITS)
        self.from_previous = nn.Linear(n_classes, HIDDEN_UNITS, bias=False)
        self.output = nn.Linear(HIDDEN_UNITS, n_classes)

    def forward(self, feature, previous):
        """feature (n_samples, n_features), log-probabilities (n_samples, n_classes) or None -> logits"""
        # A call of nothing is not free where one row is asked for.
        hidden = self.hidden(feature if self.norm is None else self.norm(feature))
        if previous is not None:
            hidden = _plus(hidden, self.from_previous, previous)
        return self.output(torch.relu(hidden))

    @torch.no_grad()
    def fold(self):
        """Fold the normalisation into the layer behind it, once nothing is learned any more."""
        if self.norm is None:
            return
        self.hidden.weight /= (self.norm.running_var + self.norm.eps).sqrt()
        self.hidden.bias -= self.hidden.weight @ self.norm.running_mean
        self.norm = None


def _plus(summand, linear, previous):
    """``summand + linear(previous)``, in one step, where the layer has no bias."""
    return torch.addmm(summand, previous, linear.weight.T)


def linear_head(output, n_classes):
    """The paper's head for a stage that answers like ``output``."""
    return LinearHead(average_pool(output).shape[1], n_classes)


def pooled_head(output, n_classes):
    """The head that sees enough of a stage that answers like ``output``."""
    head = VectorHead if output.ndim == 2 else PooledHead
    return head(detailed_pool(output).shape[1], n_classes)


HEADS = {"linear": linear_head, "pooled": pooled_head}


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
        return getattr(self.module, "pool", detailed_pool)(output)

    def forward(self, feature, previous):
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
        feature = getattr(head, "pool", detailed_pool)(output)
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


class Heard(NamedTuple):
    """What an exit hears of those before: log-probabilities, each (n_samples, n_classes)."""

    own: torch.Tensor  # of the head of the exit before alone
    answer: torch.Tensor  # of the exit before
    ended: torch.Tensor | None = None  # of the end of the member before, where that counts


class Said(NamedTuple):
    """What an exit says of some rows."""

    own: torch.Tensor  # (n_samples, n_classes), logits of its head
    answer: torch.Tensor  # (n_samples, n_classes), the same with what the exit before answered
    heard: Heard  # what the next exit hears of it

    @classmethod
    def alone(cls, own):
        """Without regard to the exit before."""
        log_probs = log_probabilities(own)
        return cls(own, own, Heard(log_probs, log_probs))

    def mixed(self, before, trust, trust_in_member):
        """With what was heard of the exit before, and of the member before, trusted so much."""
        answer = self.own + trust * before.answer
        if trust_in_member:
            answer = answer + trust_in_member * before.ended
        return Said(self.own, answer, self.heard._replace(answer=log_probabilities(answer)))


class Answer(nn.Module):
    """Head at the end of a member: its stage answers logits already."""

    def pool(self, output):
        return output

    def forward(self, feature, previous):
        return feature


class ExitHeads(nn.Module):
    """The heads of all exits, of one network or of several members one after the other.

    A head reads its own member's exits only. To what it says an exit adds the log-probabilities that
    the exit before answered, times ``trust``, and those that the member before answered at its end, times
    ``trust_in_member``: up to scale a weighted geometric mean of all exits so far.

    Parameters
    ----------
    heads : list of nn.Module
        One for each exit but the last; ``head(feature, log-probabilities of the exit before) -> logits``.
    first_exits : tuple of int, default=(0,)
        First exit of each member.
    """

    def __init__(self, heads, first_exits=(0,)):
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.last = Answer()
        self.first_exits = tuple(first_exits)
        self.trust = [0.0] * (len(heads) + 1)
        self.trust_in_member = list(self.trust)

    @property
    def hears_member(self):
        """Whether any exit trusts the member before; else its answer need not be carried along."""
        return any(self.trust_in_member)

    def _head(self, exit_index):
        return self.last if exit_index == len(self.heads) else self.heads[exit_index]

    def pool(self, exit_index, output):
        """Stage output -> exit feature, ``(n_samples, d)``."""
        return self._head(exit_index).pool(output)

    def one(self, exit_index, feature, before):
        """What one exit says.

        Parameters
        ----------
        exit_index : int
        feature : tensor (n_samples, d)
        before : Heard or None
            Of the exit before; None at the first.

        Returns
        -------
        Said
        """
        previous = None if exit_index in self.first_exits else before.own
        said = Said.alone(self._head(exit_index)(feature, previous).float())
        trusts = self.trust[exit_index], self.trust_in_member[exit_index]
        if any(trusts):
            said = said.mixed(before, *trusts)
        if self.hears_member:
            said = said._replace(heard=self.heard_behind(exit_index, said, before))
        return said

    def heard_behind(self, exit_index, said, before):
        """What is heard of an exit, with what the member before it answered at its end."""
        ends = exit_index + 1 in self.first_exits
        ended = said.heard.answer if ends else before and before.ended
        return said.heard._replace(ended=ended)

    def fold(self):
        """Make heads as fast as they can be, once nothing is learned any more; returns self."""
        for head in self.heads:
            if hasattr(head, "fold"):
                head.fold()
        return self

    def forward(self, features):
        """Exit features, one (n_samples, d) for each exit -> logits (n_samples, n_exits, n_classes).

        The feature at a member's end is its logits.
        """
        before, answers = None, []
        for exit_index, feature in enumerate(features):
            said = self.one(exit_index, feature, before)
            before = said.heard
            answers.append(said.answer)
        return torch.stack(answers, dim=1)

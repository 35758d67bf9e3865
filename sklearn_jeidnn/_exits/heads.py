"""Heads: the small classifiers of early exits, from pooled features to class logits."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import nn

from .pools import average_pool, detailed_pool, quarters_pool

HIDDEN_UNITS = 64
# Above this number of classes, a matrix between the answers of two exits would cost more than the rest of the head.
MOST_MIXED_CLASSES = 256


class LinearHead(nn.Module):
    """The paper's inference module: one linear layer on the average-pooled stage output."""

    pool = staticmethod(average_pool)

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_features, n_classes)

    def forward(self, feature: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor:
        """feature (n_samples, n_features) -> logits (n_samples, n_classes)"""
        logits: torch.Tensor = self.linear(feature)
        return logits


class VectorHead(nn.Module):
    """One layer on a normalised vector and, unless classes are many, on the previous exit's log-probabilities."""

    pool = staticmethod(detailed_pool)
    from_previous: nn.Linear | None

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n_features)
        self.linear = nn.Linear(n_features, n_classes)
        self.from_previous = None
        if n_classes <= MOST_MIXED_CLASSES:
            self.from_previous = nn.Linear(n_classes, n_classes, bias=False)
            nn.init.zeros_(self.from_previous.weight)

    def forward(self, feature: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor:
        """feature, log-probabilities of the previous exit or None -> logits (n_samples, n_classes)"""
        logits: torch.Tensor = self.linear(torch.relu(self.norm(feature)))
        if previous is None or self.from_previous is None:
            return logits
        return _plus(logits, self.from_previous, previous)


class PooledHead(nn.Module):
    """Two layers on pooled maps or tokens and on the log-probabilities of the previous exit."""

    pool = staticmethod(detailed_pool)
    norm: nn.BatchNorm1d | None

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        # The next layer scales and shifts, so the normalisation need not.
        self.norm = nn.BatchNorm1d(n_features, affine=False)
        self.hidden = nn.Linear(n_features, HIDDEN_UNITS)
        self.from_previous = nn.Linear(n_classes, HIDDEN_UNITS, bias=False)
        self.output = nn.Linear(HIDDEN_UNITS, n_classes)

    def forward(self, feature: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor:
        """feature, log-probabilities of the previous exit or None -> logits (n_samples, n_classes)"""
        # Not nn.Identity: even an empty call takes time when a single sample is predicted.
        hidden = self.hidden(feature if self.norm is None else self.norm(feature))
        if previous is not None:
            hidden = _plus(hidden, self.from_previous, previous)
        logits: torch.Tensor = self.output(torch.relu(hidden))
        return logits

    @torch.no_grad()
    def fold(self) -> None:
        """Fold the normalisation into the next layer, once nothing is learned any more."""
        norm: Any = self.norm
        if norm is None:
            return
        self.hidden.weight.div_((norm.running_var + norm.eps).sqrt())
        self.hidden.bias.sub_(self.hidden.weight @ norm.running_mean)
        self.norm = None


class QuartersHead(PooledHead):
    """The same on means and maxima of quarters alone."""

    pool = staticmethod(quarters_pool)


def _plus(summand: torch.Tensor, linear: nn.Linear, previous: torch.Tensor) -> torch.Tensor:
    """``summand + linear(previous)`` in one step, for a layer without bias."""
    return torch.addmm(summand, previous, linear.weight.T)


class CustomHead(nn.Module):
    """A user's module on the exit feature.

    Parameters
    ----------
    module : nn.Module
        ``module(feature) -> logits``; ``module.pool(output)``, if it has that, makes the feature.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def pool(self, output: torch.Tensor) -> torch.Tensor:
        feature: torch.Tensor = getattr(self.module, "pool", detailed_pool)(output)
        return feature

    def forward(self, feature: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor:
        """feature (n_samples, n_features) -> logits (n_samples, n_classes)"""
        logits: torch.Tensor = self.module(feature)
        return logits


Head: TypeAlias = LinearHead | VectorHead | PooledHead | CustomHead


def linear_head(output: torch.Tensor, n_classes: int) -> Head:
    """The paper's head, for a stage with such an output."""
    return LinearHead(average_pool(output).shape[1], n_classes)


def pooled_head(output: torch.Tensor, n_classes: int) -> Head:
    """A head on detailed pools, for a stage with such an output."""
    head = VectorHead if output.ndim == 2 else PooledHead
    return head(detailed_pool(output).shape[1], n_classes)


def quarters_head(output: torch.Tensor, n_classes: int) -> Head:
    """:func:`pooled_head` on pools that integers compute."""
    if output.ndim != 4:
        return pooled_head(output, n_classes)
    return QuartersHead(quarters_pool(output).shape[1], n_classes)


LINEAR, POOLED, QUARTERS = "linear", "pooled", "quarters"
# Those that a user can name.
HEAD_NAMES = (POOLED, LINEAR)
HEADS: dict[str, Callable[[torch.Tensor, int], Head]] = {
    LINEAR: linear_head,
    POOLED: pooled_head,
    QUARTERS: quarters_head,
}


def make_head(head: str | type[nn.Module], output: torch.Tensor, n_classes: int) -> Head:
    """Build an untrained head for a stage with such an output.

    Parameters
    ----------
    head : str or class
        A name in ``HEADS``, or a torch module class, built as ``head(n_features, n_classes)``.
    output : tensor (n_samples, ...)
    n_classes : int

    Raises
    ------
    ValueError
        If a class cannot be built so, or does not return ``(n_samples, n_classes)``.
    """
    if isinstance(head, str):
        return HEADS[head](output, n_classes)
    try:
        feature = getattr(head, "pool", detailed_pool)(output)
        custom = CustomHead(head(feature.shape[1], n_classes)).eval()
        shape = tuple(custom(custom.pool(output), None).shape)
    except Exception as error:
        raise ValueError(
            f"head={head.__name__} must be built as head(n_features, n_classes) and answer a feature "
            f"(n_samples, n_features) with logits: {type(error).__name__}: {error}"
        ) from error
    if shape != (len(output), n_classes):
        raise ValueError(
            f"head={head.__name__} answered {shape} for {len(output)} rows; it must answer logits of shape "
            f"(n_samples, n_classes) = {(len(output), n_classes)}."
        )
    return custom

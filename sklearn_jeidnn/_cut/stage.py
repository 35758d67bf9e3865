"""A stage: what runs between two exits."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import nn

from .counting import multiply_adds
from .fusion import fold_normalisation
from .padding import without_padding
from .tensors import join_rows, take_rows

# A stage runs fastest on as many samples as half of a core's own cache holds, but never on fewer
# than PART_SAMPLES (measured on tables).
PART_NUMBERS = 2**17
PART_SAMPLES = 512


@dataclass(frozen=True, kw_only=True)
class CutInfo:
    """What crosses the cuts before and after a stage, as found on a few samples.

    Parameters
    ----------
    row_axes : tuple of (int or None), or None
        Axis of the samples in each tensor that crosses the cut after the stage (None if the tensor
        has none). None for a last stage, which returns logits.
    taken_axes : tuple of (int or None), or None
        The same for the cut before the stage. None for a first stage, which takes the samples
        themselves.
    widest : int
        Most numbers that a sample takes between two of the stage's submodules.
    writes_into_inputs : bool
        Whether the stage writes into its inputs, and must work on a copy.
    folds : bool
        Whether the stage answers the same with its normalisation folded.
    ends_with_mask : bool
        Whether the last tensor that crosses the cut tells which tokens of the first one count.
    """

    row_axes: tuple[int | None, ...] | None = None
    taken_axes: tuple[int | None, ...] | None = None
    widest: int = 1
    writes_into_inputs: bool = False
    folds: bool = True
    ends_with_mask: bool = False


class Stage(nn.Module):
    """What runs between two exits: it takes and returns the tensors that cross the cuts.

    Parameters
    ----------
    evaluating : nn.Module or None
        Takes and returns tensors; that of the last stage returns logits. None if a subclass
        overrides ``forward``.
    learning : nn.Module or None
        The same in training mode, if that takes other operations.
    info : CutInfo
    """

    evaluating: Any  # nn.Module or None

    def __init__(
        self, evaluating: nn.Module | None, learning: nn.Module | None = None, *, info: CutInfo
    ) -> None:
        super().__init__()
        self.evaluating = evaluating
        self.learning = learning
        self.info = info

    def forward(self, *carried: torch.Tensor) -> Any:
        if self.info.writes_into_inputs:
            carried = tuple(tensor.clone() for tensor in carried)
        if self.training and self.learning is not None:
            return self.learning(*carried)
        if self.training or not carried[0].is_cpu or torch.compiler.is_compiling():
            return self.evaluating(*carried)
        return self._in_parts(carried)

    def _in_parts(self, carried: tuple[torch.Tensor, ...]) -> Any:
        """Run on as many samples at a time as a core's cache holds."""
        axes: Any = self.info.taken_axes or (0,) * len(carried)
        n_samples = carried[0].shape[axes[0]]
        most = max(PART_SAMPLES, PART_NUMBERS * torch.get_num_threads() // self.info.widest)
        if n_samples <= most:
            return self.evaluating(*carried)
        columns = (
            repeat(tensor) if axis is None else tensor.chunk(-(-n_samples // most), axis)
            for tensor, axis in zip(carried, axes, strict=True)
        )
        parts = [self.evaluating(*part) for part in zip(*columns, strict=False)]
        return torch.cat(parts) if self.info.row_axes is None else self.join_rows(parts)

    def counted(self, *carried: torch.Tensor) -> tuple[Any, float]:
        """What the stage returns, or something of that shape, and the number of multiply-adds that it takes."""
        return multiply_adds(self, *carried)

    def read(self, carried: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """What the exit after this stage reads: the first tensor, samples first, without padding, or the logits."""
        if isinstance(carried, torch.Tensor):
            return carried
        axes: Any = self.info.row_axes
        output: torch.Tensor = carried[0].movedim(axes[0], 0)
        return without_padding(output, carried[-1]) if self.info.ends_with_mask else output

    def keep_rows(
        self, carried: Sequence[torch.Tensor], rows: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Some samples of what crosses the cut after this stage."""
        return tuple(
            tensor if axis is None else take_rows(tensor, rows, axis)
            for tensor, axis in zip(carried, self.info.row_axes or (), strict=True)
        )

    def join_rows(self, parts: Sequence[Sequence[torch.Tensor]]) -> tuple[torch.Tensor, ...]:
        """Join the samples of several parts of what crosses the cut after this stage."""
        return tuple(
            tensors[0] if axis is None else join_rows(tensors, axis)
            for *tensors, axis in zip(*parts, self.info.row_axes or (), strict=True)
        )

    def folded(self) -> "Stage":
        """Return the stage for prediction, with its normalisation folded if possible."""
        if self.evaluating is None or not self.info.folds:
            return self
        return self._with_evaluating(fold_normalisation(self.evaluating))

    def converted(self, dtype: torch.dtype) -> "Stage":
        """Return the stage for prediction, with weights of its own in another dtype, in which it computes."""
        if self.evaluating is None:
            return self
        return self._with_evaluating(InDtype(copy.deepcopy(self.evaluating), dtype))

    def _with_evaluating(self, evaluating: nn.Module) -> "Stage":
        """A stage that runs another module in prediction."""
        other = copy.copy(self)
        other._modules = {**self._modules, "evaluating": evaluating}
        return other


class InDtype(nn.Module):
    """A module whose weights, and the numbers that it is given, have this floating dtype.

    Parameters
    ----------
    module : nn.Module
        Its weights are converted in place.
    dtype : torch.dtype
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module.to(dtype)
        self.dtype = dtype

    def forward(self, *carried: torch.Tensor) -> Any:
        return self.module(*(t.to(self.dtype) if t.is_floating_point() else t for t in carried))

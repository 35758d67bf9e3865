"""Sentences that are padded: their mask crosses every cut, so that what exits read does not depend on the padding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

# Hugging Face's name for the input that is 1 where a token counts, and 0 where a sentence is filled up.
MASK = "attention_mask"


class WithMask(nn.Module):
    """A stage that hands on the mask of its sentences as the last of the tensors that cross the cut.

    Parameters
    ----------
    stage : nn.Module
        Takes tensors; returns a tuple of them, or logits if it is the last.
    mask_at : int or None
        Position of the mask among the inputs of the network, which a first stage takes. A later stage is given the
        mask after its own tensors.
    is_last : bool
    """

    def __init__(self, stage: nn.Module, mask_at: int | None, *, is_last: bool) -> None:
        super().__init__()
        self.stage = stage
        self.mask_at = mask_at
        self.is_last = is_last

    def forward(self, *carried: torch.Tensor) -> Any:
        if self.mask_at is None:
            *carried, mask = carried  # type: ignore[assignment]
        else:
            mask = carried[self.mask_at]
        output = self.stage(*carried)
        return output if self.is_last else (*output, mask)


def with_mask(forms: Sequence[tuple[nn.Module, nn.Module | None]], mask_at: int) -> list[Any]:
    """Let the mask, an input of the first stage, cross all cuts.

    Parameters
    ----------
    forms : sequence of (evaluating, learning)
        What each stage runs; see :class:`Stage`.
    mask_at : int
        Position of the mask among the inputs.
    """
    wrapped, last = [], len(forms) - 1
    for i, form in enumerate(forms):
        at = None if i else mask_at
        wrapped.append(tuple(each and WithMask(each, at, is_last=i == last) for each in form))
    return wrapped


def is_mask_of(mask: torch.Tensor, output: torch.Tensor) -> bool:
    """Whether a mask (n_samples, length) tells which tokens of an output (n_samples, length, d) count."""
    return output.ndim == 3 and output.shape[:2] == mask.shape


def without_padding(output: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Put the mean of a sentence's own tokens where it is filled up, so that the mean of all is theirs.

    Parameters
    ----------
    output : tensor (n_samples, length, d)
    mask : tensor (n_samples, length)
    """
    counts = (mask != 0).unsqueeze(2)
    n_tokens = counts.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(counts, output, 0.0).sum(1, keepdim=True) / n_tokens
    return torch.where(counts, output, mean)

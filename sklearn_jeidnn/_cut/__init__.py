"""Cut any torch module into stages between which samples can be dropped."""

from .comparing import random_numbers_kept
from .counting import counted, multiply_adds
from .cutting import cut
from .graphs import CutError, LogitsModule
from .stage import CutInfo, Stage
from .tensors import join_rows, repeat_samples, take_rows
from .tokens import has_length, resized, takes_other_lengths, token_counts, token_length

__all__ = [
    "CutError",
    "CutInfo",
    "LogitsModule",
    "Stage",
    "counted",
    "cut",
    "has_length",
    "join_rows",
    "multiply_adds",
    "random_numbers_kept",
    "repeat_samples",
    "resized",
    "take_rows",
    "takes_other_lengths",
    "token_counts",
    "token_length",
]

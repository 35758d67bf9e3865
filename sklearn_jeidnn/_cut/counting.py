"""Count the multiply-adds of a call."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .graphs import attention_as_operations

Result = TypeVar("Result")


@torch.no_grad()
def multiply_adds(function: Callable[..., Result], *inputs: Any) -> tuple[Result, float]:
    """Return what a call returns, and the number of multiply-adds that it takes."""
    counter = FlopCounterMode(display=False)
    # The counter does not know torch's fused attention on a CPU.
    with attention_as_operations(), sdpa_kernel(SDPBackend.MATH), counter:
        result = function(*inputs)
    # The counter counts a multiply-add as two operations.
    return result, counter.get_total_flops() / 2

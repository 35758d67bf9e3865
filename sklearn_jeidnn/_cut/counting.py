"""Count the multiply-adds of a call."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch._higher_order_ops.wrap import wrap_with_autocast, wrap_with_set_grad_enabled
from torch._ops import HigherOrderOperator
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from .formulas import FORMULAS, is_uncounted

Result = TypeVar("Result")


class Counted(NamedTuple):
    """What a call returned and what it took."""

    result: Any
    multiply_adds: float
    uncounted: list[str]  # operations that multiply and are not counted


@torch.no_grad()
def counted(function: Callable[..., Any], *inputs: Any) -> Counted:
    """Count the multiply-adds of a call, and name the operations that are not counted."""
    counter = _Counter()
    with OrdinaryOperations(), counter:
        result = function(*inputs)
    return Counted(result, counter.multiply_adds, sorted(counter.uncounted))


def multiply_adds(function: Callable[..., Result], *inputs: Any) -> tuple[Result, float]:
    """Return what a call returns, and the number of multiply-adds that it takes."""
    result, count, _ = counted(function, *inputs)
    return result, count


class OrdinaryOperations(TorchFunctionMode):
    """Keep torch from its fused encoder layer, which has no gradients and cannot be counted.

    Torch does not take it while any such mode is active. The mode is that of one thread, as torch's own
    switch (``torch.backends.mha.set_fastpath_enabled``) is not.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return func(*args, **(kwargs or {}))


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no type hints here
    """Counts with torch's formulas and ours.

    ``torch.utils.flop_counter.FlopCounterMode`` would also hook into every module of the process.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds = 0.0
        self.uncounted: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in BLOCKS:
            block, *operands = args[BLOCKS[func] :]
            with self:
                return block(*operands)
        operation = func if isinstance(func, HigherOrderOperator) else func._overloadpacket
        if operation not in FORMULAS and operation not in flop_registry:
            with self:
                decomposed = func.decompose(*args, **kwargs)
            if decomposed is not NotImplemented:
                return decomposed
        output = func(*args, **kwargs)
        if operation in FORMULAS:
            self.multiply_adds += FORMULAS[operation](output, *args, **kwargs)
        elif operation in flop_registry:
            # torch counts a multiply-add as two operations.
            self.multiply_adds += flop_registry[operation](*args, **kwargs, out_val=output) / 2
        elif is_uncounted(func):
            self.uncounted.add(str(operation))
        return output


# Operations that run a block of others, which is counted -> the position of the block among the arguments.
BLOCKS: dict[Any, int] = {wrap_with_set_grad_enabled: 1, wrap_with_autocast: 4}

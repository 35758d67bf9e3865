"""The engine of a fit, which is timed before gates learn and answers after that, is made once if nothing changes it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from .._engines.onnx_engine import OnnxEngine
from .._engines.torch_engine import TorchEngine
from .._exits.network import EarlyExitNetwork
from .._operate.cascade import Engine


class MadeOnce:
    """Makes the engine of one network, anew only if its heads have learned since: an export takes seconds.

    Gates and mixing weights are no part of what is exported.

    Parameters
    ----------
    make : callable
        Network -> engine.
    in_torch : callable
        Network -> the same in torch, which takes no time.
    """

    def __init__(
        self,
        make: Callable[[EarlyExitNetwork], Engine],
        in_torch: Callable[[EarlyExitNetwork], TorchEngine],
    ) -> None:
        self.make, self.in_torch = make, in_torch
        self._made: Engine | None = None
        self._heads: dict[str, torch.Tensor] = {}

    def __call__(self, network: EarlyExitNetwork) -> Engine:
        heads = network.heads.state_dict()
        if self._made is None or not _are_same(heads, self._heads):
            self._heads = {name: tensor.clone() for name, tensor in heads.items()}
            self._made = self.make(network)
            return self._made
        in_torch: Any = self.in_torch(network)
        return (
            replace(self._made, in_torch=in_torch)
            if isinstance(self._made, OnnxEngine)
            else in_torch
        )


def _are_same(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, others[name]) for name, tensor in some.items())

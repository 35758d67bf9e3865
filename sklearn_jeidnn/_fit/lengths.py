"""Whether sentences may have another length than those of the training."""

from dataclasses import replace

import torch
from torch import nn

from .._cut import LogitsModule
from .._cut.tokens import takes_other_lengths, token_length
from .._exits.network import EarlyExitNetwork
from .._schema import InputSchema


def with_length(
    schema: InputSchema,
    module: nn.Module,
    network: EarlyExitNetwork,
    samples: tuple[torch.Tensor, ...],
) -> InputSchema:
    """Return the schema that knows whether sentences may have another length than those of the training.

    Parameters
    ----------
    schema : InputSchema
    module : nn.Module
        The plain backbone.
    network : EarlyExitNetwork
    samples : tuple of tensor (n_samples, ...)
        A few to try it on.
    """
    if not any(schema.n_tokens):
        return schema
    logits_module = LogitsModule(module, schema.input_names)

    def plain(*inputs: torch.Tensor) -> torch.Tensor:
        with network.inference():
            logits: torch.Tensor = logits_module(*inputs)
        return logits

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        with network.inference():
            network(*inputs)
        return network.plain(*inputs)

    free = takes_other_lengths(run, plain, samples)
    return replace(schema, length=token_length(samples) if free else None)

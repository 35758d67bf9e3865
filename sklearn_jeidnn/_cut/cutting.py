"""Cut a module into stages.

The stages share their parameters with the module.
"""

from collections.abc import Callable

import torch
from torch import nn

from .fusion import fold_normalisation
from .graphs import CutError, LogitsModule, export, trace
from .pieces import cut_graph
from .places import check_names, outer_blocks, repeated_blocks, spread_by_cost
from .probing import Form, check_backbone, probed_stages, whole_stage
from .stage import Stage
from .tokens import token_length


def cut(
    module: nn.Module,
    exits: list[str] | int | str,
    inputs: tuple[torch.Tensor, ...],
    input_names: tuple[str, ...] | None,
    n_classes: int,
    *,
    head_cost: Callable[[torch.Tensor], float],
    frozen: bool,
) -> tuple[list[Stage], list[str]]:
    """Cut a module into stages that together compute what the module computes.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    exits : list of str, int or "auto"
        Names of the submodules after which to cut, or how many cuts to spread evenly by cost over
        the places where the module can be cut. 0 leaves the module whole.
    inputs : tuple of tensor (n_samples, ...)
        Three samples to try the module on, at least two of them different.
    input_names : tuple of str or None
        See :class:`LogitsModule`.
    n_classes : int
    head_cost : callable
        Multiply-adds of the head that would read a stage output (n_samples, ...).
    frozen : bool
        Whether the stages will never be trained.

    Returns
    -------
    stages : list of Stage
        The first stage takes the module's inputs, a later one what the previous stage returned.
        Each returns a tuple of all tensors that cross the cut, the output of the named submodule
        first. The last stage returns the module's output.
    names : list of str
        Submodules after which the module is cut, in the order in which it runs them.

    Raises
    ------
    ValueError
        If a name is not a submodule, if the module does not return ``(n_samples, n_classes)``, if
        the output of a sample depends on the other samples, or if the module cannot be cut there.
    """
    logits_module = LogitsModule(module, input_names).eval()
    expected = check_backbone(logits_module, inputs, n_classes)
    if exits == 0:
        whole = fold_normalisation(logits_module) if frozen else logits_module
        return [whole_stage(whole.eval(), inputs).eval()], []
    if not isinstance(exits, str | int):
        check_names(module, exits)
    reasons = []
    for way in (_cut_traced, _cut_exported_for_any_length, _cut_exported):
        try:
            forms, names = way(logits_module, exits, inputs, head_cost, frozen)
            return probed_stages(forms, inputs, expected), names
        except CutError as error:
            reasons.append(error)
    raise ValueError(
        f"module={type(module).__name__} cannot be cut after exits={exits!r}: {reasons[-1]}. Name other "
        f"submodules to exit after (see module.named_modules()), each run once; branches on values and loops over "
        f"rows belong inside one submodule."
    ) from reasons[-1]


def _cut_traced(
    logits_module: LogitsModule,
    exits: list[str] | int | str,
    inputs: tuple[torch.Tensor, ...],
    head_cost: Callable[[torch.Tensor], float],
    frozen: bool,
) -> tuple[list[Form], list[str]]:
    """Stages of a traced module, and the names of its cuts."""
    module = logits_module.module
    if logits_module.input_names is not None:
        raise CutError("it takes named inputs")
    names = outer_blocks(module) if isinstance(exits, str | int) else exits
    if not len(names):
        raise CutError("it has no row of blocks")
    graph = trace(module, names)
    if isinstance(exits, str | int):
        names = spread_by_cost(graph, names, exits, inputs, head_cost)
    pieces, names = cut_graph(graph, names)
    if frozen:
        return [(fold_normalisation(piece), None) for piece in pieces], names
    return [(piece, None) for piece in pieces], names


def _cut_exported_for_any_length(
    logits_module: LogitsModule,
    exits: list[str] | int | str,
    inputs: tuple[torch.Tensor, ...],
    head_cost: Callable[[torch.Tensor], float],
    frozen: bool,
) -> tuple[list[Form], list[str]]:
    """Stages of a module whose inputs are sentences, exported for any length of them."""
    if token_length(inputs) is None:
        raise CutError("none of its inputs is a sentence")
    return _cut_exported(logits_module, exits, inputs, head_cost, frozen, any_length=True)


def _cut_exported(
    logits_module: LogitsModule,
    exits: list[str] | int | str,
    inputs: tuple[torch.Tensor, ...],
    head_cost: Callable[[torch.Tensor], float],
    frozen: bool,
    *,
    any_length: bool = False,
) -> tuple[list[Form], list[str]]:
    """Stages of an exported module, and the names of its cuts."""
    graph = export(logits_module, inputs, any_length=any_length)
    if isinstance(exits, str | int):
        blocks = repeated_blocks(logits_module.module, graph)
        exits = spread_by_cost(graph, blocks, exits, inputs, head_cost)
    pieces, names = cut_graph(graph, exits)
    if frozen:
        return [(piece, None) for piece in pieces], names
    learning, _ = cut_graph(export(logits_module.train(), inputs, any_length=any_length), exits)
    logits_module.eval()
    return list(zip(pieces, learning, strict=True)), names

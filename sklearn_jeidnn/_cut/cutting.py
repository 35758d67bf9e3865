"""Cut a module into stages.

The stages share their parameters with the module.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from .comparing import check_learning
from .fusion import fold_normalisation
from .graphs import CutError, LogitsModule, export, trace
from .padding import MASK, with_mask
from .pieces import computes_the_same, cut_graph
from .places import check_names, outer_blocks, repeated_blocks, spread_by_cost
from .probing import Form, check_backbone, folds, outputs_of, probed_stages, whole_stage
from .stage import Stage
from .tokens import token_length

NAMED_INPUTS = "it takes named inputs"


class _For(NamedTuple):
    """What stages are for (see :func:`cut`)."""

    frozen: bool
    trains: bool


def cut(
    module: nn.Module,
    exits: list[str] | int | str,
    inputs: tuple[torch.Tensor, ...],
    input_names: tuple[str, ...] | None,
    n_classes: int,
    *,
    head_cost: Callable[[torch.Tensor], float],
    frozen: bool,
    trains: bool = True,
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
        Whether the stages stay as they are, and need no form for training.
    trains : bool, default=True
        Whether stages that are not frozen will be trained. False leaves out what only training needs; the stages
        answer the same.

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
        is_folded = frozen and folds(logits_module, inputs)
        whole = fold_normalisation(logits_module) if is_folded else logits_module
        return [whole_stage(whole.eval(), inputs).eval()], []
    if not isinstance(exits, str | int):
        check_names(module, exits)
    names_of_inputs = input_names or ()
    has_mask = MASK in names_of_inputs
    reasons = []
    for way in (_cut_traced, _cut_exported_for_any_length, _cut_exported):
        try:
            forms, names = way(logits_module, exits, inputs, head_cost, _For(frozen, trains))
            if has_mask:
                forms = with_mask(forms, names_of_inputs.index(MASK))
            stages = probed_stages(forms, inputs, expected, has_mask=has_mask)
            if trains and not frozen:
                _check_learning(logits_module, forms, inputs)
            return stages, names
        except CutError as error:
            reasons.append(error)
    raise ValueError(
        f"module={type(module).__name__} cannot be cut after exits={exits!r}: {_both(reasons)}. Name other "
        f"submodules to exit after (see module.named_modules()), each run once; branches on values, loops over "
        f"samples and blocks of `with` belong inside one submodule."
    ) from reasons[-1]


def _both(reasons: list[CutError]) -> str:
    """Why tracing and exporting failed, without the first for modules that are always exported."""
    traced, exported = str(reasons[0]), str(reasons[-1])
    return exported if traced == NAMED_INPUTS else f"{traced}, and {exported}"


def _check_learning(
    logits_module: LogitsModule, forms: Sequence[Form], inputs: tuple[torch.Tensor, ...]
) -> None:
    with _training(logits_module):
        check_learning(logits_module, [learning or same for same, learning in forms], inputs)


@contextlib.contextmanager
def _training(module: nn.Module) -> Iterator[None]:
    """Put a module into training mode, as it does that, and back into evaluation mode."""
    module.train()
    try:
        yield
    finally:
        module.eval()


def _cut_traced(
    logits_module: LogitsModule,
    exits: list[str] | int | str,
    inputs: tuple[torch.Tensor, ...],
    head_cost: Callable[[torch.Tensor], float],
    use: _For,
) -> tuple[list[Form], list[str]]:
    """Stages of a traced module, and the names of its cuts."""
    module = logits_module.module
    if logits_module.input_names is not None:
        raise CutError(NAMED_INPUTS)
    candidates = outer_blocks(module) if isinstance(exits, str | int) else exits
    if not len(candidates):
        raise CutError("it has no row of blocks")
    outputs = outputs_of(logits_module, candidates, inputs)
    graph = trace(module, candidates, outputs, learns=not use.frozen)
    if isinstance(exits, str | int):
        exits = spread_by_cost(graph, candidates, exits, inputs, head_cost)
    pieces, names = cut_graph(graph, exits)
    if use.frozen:
        return [(fold_normalisation(piece), None) for piece in pieces], names
    if not use.trains:
        return [(piece, None) for piece in pieces], names
    with _training(logits_module):
        graph = trace(module, candidates, outputs, learns=True)
    learning, _ = cut_graph(graph, exits)
    if all(map(computes_the_same, pieces, learning)):
        return [(piece, None) for piece in pieces], names
    return list(zip(pieces, learning, strict=True)), names


def _cut_exported_for_any_length(
    logits_module: LogitsModule,
    exits: list[str] | int | str,
    inputs: tuple[torch.Tensor, ...],
    head_cost: Callable[[torch.Tensor], float],
    use: _For,
) -> tuple[list[Form], list[str]]:
    """Stages of a module whose inputs are sentences, exported for any length of them."""
    if token_length(inputs) is None:
        raise CutError("none of its inputs is a sentence")
    return _cut_exported(logits_module, exits, inputs, head_cost, use, any_length=True)


def _cut_exported(
    logits_module: LogitsModule,
    exits: list[str] | int | str,
    inputs: tuple[torch.Tensor, ...],
    head_cost: Callable[[torch.Tensor], float],
    use: _For,
    *,
    any_length: bool = False,
) -> tuple[list[Form], list[str]]:
    """Stages of an exported module, and the names of its cuts."""
    graph = export(logits_module, inputs, any_length=any_length)
    if isinstance(exits, str | int):
        blocks = repeated_blocks(logits_module.module, graph)
        exits = spread_by_cost(graph, blocks, exits, inputs, head_cost)
    pieces, names = cut_graph(graph, exits)
    if use.frozen or not use.trains:
        return [(piece, None) for piece in pieces], names
    with _training(logits_module):
        learning, _ = cut_graph(export(logits_module, inputs, any_length=any_length), exits)
    return list(zip(pieces, learning, strict=True)), names

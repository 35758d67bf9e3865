"""Try a module and its stages on a few samples: what they return, and what crosses each cut."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from .fusion import fold_normalisation
from .graphs import CutError, LogitsModule
from .padding import is_mask_of
from .stage import CutInfo, Stage
from .tensors import same

TWO_LOGITS = (
    " One logit, as BCEWithLogitsLoss takes it, will not do: give two, as nn.Linear(..., 2) does."
)
# What a stage runs in evaluation mode, and in training mode if that takes other operations.
Form = tuple[nn.Module, nn.Module | None]


@torch.no_grad()
def check_backbone(
    logits_module: LogitsModule, inputs: tuple[torch.Tensor, ...], n_classes: int
) -> torch.Tensor:
    """Return a module's logits for some samples, if they do not depend on the other samples.

    Raises
    ------
    ValueError
        If the module does not run, returns another shape, or mixes samples.
    """
    module_name = type(logits_module.module).__name__
    output, fewer = _outputs(logits_module, inputs)
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else _described(output)
    expected = (len(inputs[0]), n_classes)
    one_logit = n_classes == 2 and shape in (expected[:1], (expected[0], 1))
    if shape != expected:
        raise ValueError(
            f"module={module_name} answered {shape} for {expected[0]} rows; it must answer logits of shape "
            f"(n_samples, n_classes) = {expected}, y having {n_classes} classes, or an object or dict that holds them "
            f"as 'logits', or a tuple that begins with them. If it has logits of labels that y lacks, name all labels "
            f"in the order of its logits: classes=[...].{TWO_LOGITS * one_logit}"
        )
    logits: torch.Tensor = output
    if not same(logits[:2], fewer):
        raise ValueError(
            f"module={module_name} answers a row differently when other rows stand beside it"
            f"{_mixing_submodule(logits_module, inputs)}, so rows cannot leave one by one. Normalise with running "
            f"statistics (BatchNorm with track_running_stats=True) or within the row, and use no operation across "
            f"rows and no randomness in evaluation mode."
        )
    return logits


def _described(output: Any) -> str:
    if isinstance(output, dict):
        return f"{type(output).__name__} with {', '.join(map(repr, output))}"
    return type(output).__name__


def _outputs(logits_module: LogitsModule, inputs: tuple[torch.Tensor, ...]) -> tuple[Any, Any]:
    """Output of a module for all samples, and for the first two alone."""
    shapes = [tuple(tensor.shape[1:]) for tensor in inputs]
    try:
        return tuple(logits_module(*(tensor[:n].clone() for tensor in inputs)) for n in (None, 2))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        module_name = type(logits_module.module).__name__
        raise ValueError(
            f"module={module_name} does not run on rows of shape {shapes[0] if len(shapes) == 1 else shapes}: {error}"
        ) from error


def _mixing_submodule(logits_module: LogitsModule, inputs: tuple[torch.Tensor, ...]) -> str:
    """' (first in NAME, TYPE)': the first innermost submodule whose output depends on the batch."""
    all_samples = _outputs_of_leaves(logits_module, inputs)
    first_two = _outputs_of_leaves(logits_module, tuple(tensor[:2] for tensor in inputs))
    for (name, kind, output), (_, _, fewer) in zip(all_samples, first_two, strict=False):
        if len(output) == len(inputs[0]) and not same(output[:2], fewer):
            return f" (first in {name!r}, {kind})"
    return ""


def _outputs_of_leaves(
    logits_module: LogitsModule, inputs: tuple[torch.Tensor, ...]
) -> list[tuple[str, str, torch.Tensor]]:
    """(name, type, output) of each run of an innermost submodule."""
    outputs: list[tuple[str, str, torch.Tensor]] = []

    def note(name: str, module: nn.Module) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                outputs.append((name, type(module).__name__, output))

        return hook

    leaves = [(n, m) for n, m in logits_module.module.named_modules() if not list(m.children())]
    hooks = [module.register_forward_hook(note(name, module)) for name, module in leaves]
    logits_module(*(tensor.clone() for tensor in inputs))
    for hook in hooks:
        hook.remove()
    return outputs


@torch.no_grad()
def outputs_of(
    logits_module: LogitsModule, names: Sequence[str], inputs: tuple[torch.Tensor, ...]
) -> dict[str, Any]:
    """What submodules return while a module runs: submodule name -> output."""
    outputs = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            outputs[name] = output

        return hook

    submodules = dict(logits_module.module.named_modules())
    hooks = [submodules[name].register_forward_hook(note(name)) for name in names]
    logits_module(*(tensor.clone() for tensor in inputs))
    for handle in hooks:
        handle.remove()
    return outputs


@torch.no_grad()
def whole_stage(evaluating: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Stage:
    """A module as one stage, with no cut before or after it."""
    with _noting_width(evaluating, len(inputs[0])) as widths:
        writes = _writes_into_inputs(evaluating, inputs)
    info = CutInfo(widest=max(widths), writes_into_inputs=writes, folds=folds(evaluating, inputs))
    return Stage(evaluating, info=info)


@torch.no_grad()
def probed_stages(
    forms: Sequence[Form],
    inputs: tuple[torch.Tensor, ...],
    expected: torch.Tensor,
    *,
    has_mask: bool = False,
) -> list[Stage]:
    """Build the stages of a module that was cut, and try each on a few samples.

    Parameters
    ----------
    forms : list of (evaluating, learning)
        What each stage runs, as :class:`Stage` takes it.
    inputs : tuple of tensor (n_samples, ...)
    expected : tensor (n_samples, n_classes)
        Output of the whole module.
    has_mask : bool, default=False
        Whether the mask of sentences is the last of the tensors that cross a cut.

    Raises
    ------
    CutError
        If samples cannot be told apart in what crosses a cut, or if the stages return something
        else than the whole module.
    """
    stages: list[Stage] = []
    taken_axes = None
    carried: Any = inputs
    fewer: Any = tuple(tensor[:2] for tensor in inputs)
    for evaluating, learning in forms:
        is_last, is_first = len(stages) == len(forms) - 1, not stages
        writes = is_first and _writes_into_inputs(evaluating.eval(), inputs)
        is_foldable = folds(evaluating.eval(), carried)
        with _noting_width(evaluating, len(expected)) as widths:
            carried = _run(evaluating, carried, copies=writes)
        row_axes, ends_with_mask = None, False
        if not is_last:
            fewer = _run(evaluating, fewer, copies=writes)
            row_axes = _row_axes(carried, fewer, len(expected))
            output = carried[0].movedim(row_axes[0], 0)
            ends_with_mask = has_mask and is_mask_of(carried[-1], output)
        info = CutInfo(
            row_axes=row_axes,
            taken_axes=taken_axes,
            widest=max(widths),
            writes_into_inputs=writes,
            folds=is_foldable,
            ends_with_mask=ends_with_mask,
        )
        stages.append(Stage(evaluating, learning, info=info).eval())
        taken_axes = row_axes
    if not (isinstance(carried, torch.Tensor) and same(carried, expected)):
        raise CutError("its stages do not answer what it answers as a whole")
    return stages


def _run(evaluating: nn.Module, carried: Sequence[torch.Tensor], *, copies: bool) -> Any:
    """Output of a stage, run on copies of its inputs if asked."""
    return evaluating(*(tensor.clone() for tensor in carried) if copies else carried)


def _writes_into_inputs(evaluating: nn.Module, inputs: tuple[torch.Tensor, ...]) -> bool:
    """Whether a first stage would write into the samples."""
    copies = tuple(tensor.clone() for tensor in inputs)
    evaluating(*copies)
    # What is written by way of tensor.data leaves the version as it is.
    return any(
        copy._version > 0 or not torch.equal(copy, tensor)
        for copy, tensor in zip(copies, inputs, strict=True)
    )


@torch.no_grad()
def folds(evaluating: nn.Module, carried: Sequence[torch.Tensor]) -> bool:
    """Whether a stage answers the same with its normalisation folded, for which its blocks are opened, too."""
    folded = fold_normalisation(evaluating)
    if folded is evaluating:
        return True
    outputs = [
        tree_leaves(run(*(tensor.clone() for tensor in carried))) for run in (evaluating, folded)
    ]
    return all(same(output, other) for output, other in zip(*outputs, strict=True))


@contextlib.contextmanager
def _noting_width(module: nn.Module, n_samples: int) -> Iterator[list[int]]:
    """List how many numbers of a sample each submodule returns while the module runs."""
    widths = [1]

    def note(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            widths.append(output.numel() // n_samples)

    hooks = [part.register_forward_hook(note) for part in module.modules()]
    try:
        yield widths
    finally:
        for hook in hooks:
            hook.remove()


def _row_axes(
    carried: Sequence[torch.Tensor], fewer: Sequence[torch.Tensor], n_samples: int
) -> tuple[int | None, ...]:
    """Axis of the samples in each tensor that crosses a cut."""
    axes = tuple(_row_axis(*both, n_samples) for both in zip(carried, fewer, strict=True))
    if axes[0] is None:
        raise CutError("what an exit would read has no row for each row of the data")
    return axes


def _row_axis(tensor: torch.Tensor, fewer: torch.Tensor, n_samples: int) -> int | None:
    """Axis of ``n_samples`` samples in ``tensor``; None if it has none.

    ``fewer`` is the same tensor for fewer samples.
    """
    if not isinstance(tensor, torch.Tensor):
        raise CutError(f"{type(tensor).__name__} crosses a cut; only tensors can")
    differing = [
        axis
        for axis, lengths in enumerate(zip(tensor.shape, fewer.shape))
        if lengths[0] != lengths[1]
    ]
    if not differing and torch.equal(tensor, fewer):
        return None
    if len(differing) != 1 or tensor.shape[differing[0]] != n_samples:
        raise CutError(
            f"a tensor of shape {tuple(tensor.shape)} crosses a cut; for {n_samples} rows one of its axes must have "
            f"length {n_samples}, so that rows can be dropped"
        )
    return differing[0]

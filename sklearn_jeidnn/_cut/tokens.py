"""What a module embeds: how many tokens each of its inputs may hold, and whether sentences may differ in length."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

# Largest difference between two ways to compute the same logits.
TOLERANCE = 1e-3


@torch.no_grad()
def token_counts(
    logits_module: nn.Module, inputs: tuple[torch.Tensor, ...]
) -> tuple[int | None, ...]:
    """Number of embeddings for each input that goes into ``nn.Embedding`` as it is; None for any other input."""
    # 1 is a token of any vocabulary.
    ones = tuple(torch.ones_like(t) if _is_whole(t) else t.clone() for t in inputs)
    counts: dict[int, int] = {}

    def note(module: Any, args: tuple[Any, ...]) -> None:
        for i, tensor in enumerate(ones):
            given = args[0] if args else None
            # A module may write into its input before it embeds it.
            if isinstance(given, torch.Tensor) and _is_same(given, tensor) and not tensor._version:
                counts[i] = min(module.num_embeddings, counts.get(i, module.num_embeddings))

    tables = (m for m in logits_module.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag))
    hooks = [table.register_forward_pre_hook(note) for table in tables]
    try:
        # What a module does not take is said where it is cut.
        with contextlib.suppress(Exception):
            if hooks:
                logits_module(*ones)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(counts.get(i) for i in range(len(inputs)))


def _is_whole(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex()


def _is_same(given: torch.Tensor, tensor: torch.Tensor) -> bool:
    """Whether a tensor is an input itself, not a part of it or a copy."""
    return given.shape == tensor.shape and given.data_ptr() == tensor.data_ptr()


def token_length(inputs: tuple[torch.Tensor, ...]) -> int | None:
    """Length of the sentences among a module's inputs, which are whole numbers (n_samples, length)."""
    lengths = [t.shape[1] for t in inputs if t.ndim == 2 and _is_whole(t) and t.shape[1] > 1]
    return lengths[0] if lengths else None


def has_length(tensor: torch.Tensor, length: int | None) -> bool:
    """Whether an input has the length of the sentences as its second axis."""
    return tensor.ndim > 1 and tensor.shape[1] == length


@torch.no_grad()
def takes_other_lengths(
    run: Callable[..., torch.Tensor],
    plain: Callable[..., torch.Tensor],
    inputs: tuple[torch.Tensor, ...],
) -> bool:
    """Whether stages answer what their module answers for sentences of other lengths.

    Parameters
    ----------
    run : callable
        Tensors -> logits of all exits (n_samples, n_exits, n_classes).
    plain : callable
        Tensors -> logits of the module (n_samples, n_classes) that the last exit passes through.
    inputs : tuple of tensor (n_samples, ...)
        A few samples of the length of ``fit``.
    """
    length = token_length(inputs)
    if length is None:
        return False
    shorter, longer = (tuple(resized(inputs, length, length + step)) for step in (-1, 1))
    # A module with a position for each token takes no longer sentences, which the module itself then says.
    return (
        _same_answers(run, plain, shorter) is True
        and _same_answers(run, plain, longer) is not False
    )


def resized(
    inputs: tuple[torch.Tensor, ...], length: int, new_length: int
) -> Iterator[torch.Tensor]:
    """Inputs with sentences of another length, whose tokens come round again."""
    for tensor in inputs:
        if has_length(tensor, length):
            numbers = torch.arange(new_length, device=tensor.device) % length
            tensor = tensor.index_select(1, numbers)
        yield tensor


def _same_answers(
    run: Callable[..., torch.Tensor],
    plain: Callable[..., torch.Tensor],
    inputs: tuple[torch.Tensor, ...],
) -> bool | None:
    """Whether both give the same logits; None if the module itself does not take these inputs."""
    try:
        expected = plain(*(tensor.clone() for tensor in inputs))
    except Exception:  # whatever a user's module raises
        return None
    try:
        logits = run(*(tensor.clone() for tensor in inputs))
    except Exception:
        return False
    if logits.shape != expected.shape:
        return False
    scale = float(expected.abs().amax().clamp(min=1.0))
    return bool(torch.allclose(logits, expected, rtol=0, atol=TOLERANCE * scale, equal_nan=True))

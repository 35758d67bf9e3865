"""Multiply-adds of operations that torch's own counter takes as free, and the names of those nobody counts."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import sdpa_flop_count

aten = torch.ops.aten


def _attention(output: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> float:
    count: Any = sdpa_flop_count  # torch has no type hints here
    return float(count(query.shape, key.shape, value.shape) / 2)


def _recurrent_layer(output: Any, steps: torch.Tensor, *args: Any, **kwargs: Any) -> float:
    """Every step multiplies by every weight matrix, whose biases are vectors."""
    weights = [tensor for tensor in args[:4] if tensor.ndim == 2]
    return float(_rows(steps) * sum(tensor.numel() for tensor in weights))


def _recurrent_stack(
    output: Any, steps: torch.Tensor, weights: Sequence[torch.Tensor], *args: Any, **kwargs: Any
) -> float:
    return float(_rows(steps) * sum(tensor.numel() for tensor in weights if tensor.ndim == 2))


def _rows(tensor: torch.Tensor) -> int:
    """Number of vectors along the last axis."""
    return tensor.numel() // tensor.shape[-1]


def _trilinear(
    output: Any,
    first: torch.Tensor,
    second: torch.Tensor,
    third: torch.Tensor,
    *expanded_axes: Sequence[int],
    **kwargs: Any,
) -> float:
    """Sum of products of three tensors, each with axes of length 1 put in: ``nn.Bilinear``."""
    shapes = []
    for tensor, axes in zip((first, second, third), expanded_axes[:3], strict=True):
        shape = list(tensor.shape)
        for axis in axes:
            shape.insert(axis, 1)
        shapes.append(shape)
    return float(math.prod(map(max, zip(*shapes, strict=True))))


def _embedding_bag(
    output: Any, weight: torch.Tensor, indices: torch.Tensor, *args: Any, **kwargs: Any
) -> float:
    return indices.numel() * weight.shape[1]


def _fourier(
    output: torch.Tensor, tensor: torch.Tensor, axes: Sequence[int], *_: Any, **__: Any
) -> float:
    """A complex transform of n numbers takes 5 n log2(n) operations, one with a real side half of them."""
    longer = max(output, tensor, key=lambda side: side.numel())
    n = math.prod(longer.shape[axis] for axis in axes)
    operations = 5 * longer.numel() * math.log2(max(n, 1))
    both_complex = output.is_complex() and tensor.is_complex()
    return operations / (2 if both_complex else 4)


def _distances(output: torch.Tensor, points: torch.Tensor, *args: Any, **kwargs: Any) -> float:
    return output.numel() * points.shape[-1]


def _matrix_vector(output: Any, matrix: torch.Tensor, *args: Any, **kwargs: Any) -> float:
    return matrix.numel()


def _added_matrix_vector(
    output: Any, added: Any, matrix: torch.Tensor, *args: Any, **kwargs: Any
) -> float:
    return matrix.numel()


def _summed_products(output: Any, added: Any, first: Any, second: Any, **kwargs: Any) -> float:
    return float(first.numel() * second.shape[-1])


def _outer(output: torch.Tensor, *args: Any, **kwargs: Any) -> float:
    return output.numel()


# Operation -> multiply-adds of a call, given its output and its arguments.
FORMULAS: dict[Any, Callable[..., float]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_fused_attention_overrideable: _attention,
    aten.mkldnn_rnn_layer: _recurrent_layer,
    aten._cudnn_rnn: _recurrent_stack,
    aten.miopen_rnn: _recurrent_stack,
    aten._trilinear: _trilinear,
    aten._embedding_bag: _embedding_bag,
    aten._embedding_bag_forward_only: _embedding_bag,
    aten._fft_r2c: _fourier,
    aten._fft_c2r: _fourier,
    aten._fft_c2c: _fourier,
    aten._cdist_forward: _distances,
    aten._euclidean_dist: _distances,
    aten._pdist_forward: _distances,
    aten.mv: _matrix_vector,
    aten.dot: _matrix_vector,
    aten.vdot: _matrix_vector,
    aten.addmv: _added_matrix_vector,
    aten.addbmm: _summed_products,
    aten._addmm_activation: _summed_products,
    aten.addr: _outer,
}
# Operations of torch that multiply matrices, or solve equations, and are not counted.
UNCOUNTED = (
    "linalg_",
    "_linalg_",
    "sparse_",
    "_sparse_",
    "_weight_int",
    "_int_mm",
    "_grouped_mm",
    "cholesky",
    "ormqr",
    "geqrf",
    "triangular_solve",
    "mkldnn_",
    "_transformer_encoder",
    "_native_multi_head",
)
COUNTS_NOTHING = ("linalg_vector_norm", "_linalg_check_errors", "linalg_cross")
# Libraries whose operations compute nothing.
FREE_NAMESPACES = ("prim", "prims", "profiler", "export", "c10d", "_c10d_functional")


def is_uncounted(operation: Any) -> bool:
    """Whether an operation costs much and has no formula: matrices of odd kinds, and all from other libraries."""
    namespace, _, name = operation.name().partition("::")
    if namespace == "aten":
        return name.startswith(UNCOUNTED) and not name.startswith(COUNTS_NOTHING)
    return namespace not in FREE_NAMESPACES

"""Matrix products in 8-bit integers, each row with a scale of its own, so that an answer does not depend on its batch.

Some channels of transformers take values a hundred times as large as the others: one scale for all samples, set
beforehand, loses what the others say (Dettmers et al., "LLM.int8()", NeurIPS 2022; a scale for each token: Yao et al.,
"ZeroQuant", NeurIPS 2022).
"""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from .onnx_graphs import CascadeGraph
from .onnx_int8 import PRODUCTS, Feeds, nodes_of_stages, prepared
from .onnx_package import package
from .onnx_shifts import move_heads_inputs_back, put_nodes

# Activations are 1 to 255 around 128. Weights have 7 bits: products of 8 overflow where they are added in pairs (AVX2).
ZERO, LARGEST, LARGEST_WEIGHT = 128, 127, 63
LEAST_SCALE = 1e-30
# ONNX Runtime's own operators.
OWN_DOMAIN = "com.microsoft"
CONSTANTS = {
    "row_inverse": np.float32(1 / LARGEST),
    "row_least": np.float32(LEAST_SCALE),
    "row_one": np.float32(1),
    "row_zero": np.uint8(ZERO),
    "row_middle": np.float32(ZERO),
    "row_axis": np.array([-1]),
}


def products_by_row(
    graph: CascadeGraph, feeds: Iterable[Feeds], float_stages: Collection[int] = ()
) -> CascadeGraph:
    """Return the graph with the stages' products with weights in 8-bit integers; the same graph if it has none.

    Rows of activations are scaled by their largest absolute value, columns of weights by theirs. What heads read is
    moved back by as much as rounding moves it on average.

    Parameters
    ----------
    graph : CascadeGraph
        In float32.
    feeds : iterable of dict
        Inputs of the graph, by name, for batches of samples.
    float_stages : collection of int, default=()
        Stages that stay so.
    """
    exact = prepared(graph.model)
    chosen = set(_with_weights(exact, graph.n_exits, float_stages))
    if not chosen:
        return graph
    model = type(exact)()
    model.CopyFrom(exact)
    rewriting = _Rewriting(model)
    nodes = [
        new
        for node in model.graph.node
        for new in (rewriting.in_integers(node) if node.name in chosen else [node])
    ]
    _put(model, nodes, rewriting.constants)
    move_heads_inputs_back(exact, model, graph.n_exits, feeds)
    return replace(graph, model=model.SerializeToString())


def count_products_by_row(graph: CascadeGraph, float_stages: Collection[int] = ()) -> int:
    """Number of matrix products that are in integers; parameters as in :func:`products_by_row`."""
    return len(_with_weights(prepared(graph.model), graph.n_exits, float_stages))


def _with_weights(model: Any, n_exits: int, float_stages: Collection[int]) -> list[str]:
    """Names of the stages' nodes that multiply by a matrix of weights."""
    names = set(nodes_of_stages(model, n_exits, (), float_stages))
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return [
        node.name
        for node in model.graph.node
        if node.name in names
        and node.op_type in PRODUCTS
        and node.input[1] in matrices
        and _is_plain(node)
    ]


def _options(node: Any) -> dict[str, Any]:
    helper = package("onnx").helper
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _is_plain(node: Any) -> bool:
    """Whether a product is that of activations and weights, plus a bias at most."""
    options = _options(node)
    factors = options.get("alpha", 1.0), options.get("beta", 1.0)
    return factors == (1.0, 1.0) and not options.get("transA", 0)


class _Rewriting:
    """Nodes of products in integers, and the constants that they read."""

    def __init__(self, model: Any) -> None:
        self.onnx = package("onnx")
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.constants: dict[str, np.ndarray] = {
            name: np.asarray(value) for name, value in CONSTANTS.items()
        }
        self._rows: set[str] = set()

    def in_integers(self, node: Any) -> list[Any]:
        """Nodes in the place of one product."""
        activations, weights = node.input[:2]
        transposed = bool(_options(node).get("transB"))
        quantised, scales = self._columns(weights, transposed)
        product, biases = f"{node.output[0]}_product", node.input[2:]
        scaled = f"{node.output[0]}_scaled" if biases else node.output[0]
        integers, of_rows = _of_rows(activations)
        make = self.onnx.helper.make_node
        steps = [] if activations in self._rows else self._steps_of_rows(activations)
        self._rows.add(activations)
        read = [integers, quantised, "row_one", scales, "row_zero"]
        steps.append(make("MatMulIntegerToFloat", read, [product], domain=OWN_DOMAIN))
        steps.append(make("Mul", [product, of_rows], [scaled]))
        if biases:
            steps.append(make("Add", [scaled, biases[0]], list(node.output)))
        return steps

    def _columns(self, name: str, transposed: bool) -> tuple[str, str]:
        """Names of a matrix in integers, and of the scales of its columns."""
        key = f"{name}_{'rows' if transposed else 'columns'}"
        names = f"{key}_quantised", f"{key}_scales"
        if names[0] not in self.constants:
            matrix = self.onnx.numpy_helper.to_array(self.weights[name])
            matrix = matrix.T if transposed else matrix
            scales = np.maximum(np.abs(matrix).max(0) / LARGEST_WEIGHT, np.float32(LEAST_SCALE))
            self.constants[names[0]] = np.rint(matrix / scales).astype(np.int8)
            self.constants[names[1]] = scales
        return names

    def _steps_of_rows(self, name: str) -> list[Any]:
        """Nodes that scale each row of a tensor, and round it."""
        make, cast = self.onnx.helper.make_node, self.onnx.TensorProto.UINT8
        integers, scales = _of_rows(name)
        inner = [
            f"{name}_row_{what}" for what in ("sizes", "most", "wide", "small", "moved", "whole")
        ]
        sizes, most, wide, small, moved, whole = inner
        return [
            make("Abs", [name], [sizes]),
            make("ReduceMax", [sizes, "row_axis"], [most], keepdims=1),
            make("Mul", [most, "row_inverse"], [wide]),
            make("Max", [wide, "row_least"], [scales]),
            make("Div", [name, scales], [small]),
            make("Add", [small, "row_middle"], [moved]),
            make("Round", [moved], [whole]),
            make("Cast", [whole], [integers], to=cast),
        ]


def _of_rows(name: str) -> tuple[str, str]:
    """Names of a tensor in integers, and of the scales of its rows."""
    return f"{name}_row_integers", f"{name}_row_scales"


def _put(model: Any, nodes: list[Any], constants: dict[str, np.ndarray]) -> None:
    """Give a model other nodes, and constants; weights that no node reads any more are left out."""
    onnx = package("onnx")
    put_nodes(model, nodes)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.opset_import.append(onnx.helper.make_opsetid(OWN_DOMAIN, 1))

"""The stages of a graph in 8-bit integers: static quantisation, so that an answer does not depend on its batch."""

import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .onnx_graphs import ANSWER, CARRIED, HEAD, INPUT, PLAIN, CascadeGraph, numbered
from .onnx_package import package

# Operators that ONNX Runtime computes in integers. In networks without convolutions those between matrix products
# would be slower so than in float32, and lose more.
PRODUCTS = ("Gemm", "MatMul")
WITH_WEIGHTS = ("Conv", *PRODUCTS)
BETWEEN = ("Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")
# A convolution in the place of a mean.
MEAN = "Mean"
# What of a head is in integers: what it reads of its stage's output.
POOLS = ("MaxPool", "AveragePool", MEAN)
QUANTISED = "_QuantizeLinear_Output"
# Axes of maps whose channels come last, as integers are computed, and back.
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)

INT8 = "int8"

Feeds = dict[str, np.ndarray]


def in_int8(
    graph: CascadeGraph,
    feeds: Iterable[Feeds],
    *,
    left_out: Collection[str] = (),
    float_stages: Collection[int] = (),
) -> CascadeGraph:
    """Return the graph with its stages, and the pools of its heads, in 8-bit integers.

    What crosses a cut stays in integers where it was in both stages beside the cut. Weights have 7 bits and a scale
    for each channel: products of 8 bits overflow on processors that add them in pairs (AVX2), where the same
    classifier would answer something else. Scales of activations are those of the largest and least values that they
    take.

    Parameters
    ----------
    graph : CascadeGraph
        In float32.
    feeds : iterable of dict
        Inputs of the graph, by name, for batches of samples.
    left_out : collection of str, default=()
        Kinds of operators that stay in float32.
    float_stages : collection of int, default=()
        Stages that do.
    """
    quantization = package("onnxruntime.quantization")
    with tempfile.TemporaryDirectory() as folder:
        model = prepared(graph.model)
        chosen = nodes_of_stages(model, graph.n_exits, left_out, float_stages)
        if not chosen:
            return graph
        path = os.path.join(folder, "int8.onnx")
        quantization.quantize_static(
            model,
            path,
            _reader(quantization, feeds, [value.name for value in model.graph.input]),
            quant_format=quantization.QuantFormat.QDQ,
            nodes_to_quantize=chosen,
            # Activations of others are not looked at: a mask that is added may be infinite.
            op_types_to_quantize=sorted(
                {node.op_type for node in model.graph.node if node.name in chosen}
            ),
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        quantised = package("onnx").load(path)
    names = _crossing_in_integers(quantised, graph)
    return replace(graph, model=quantised.SerializeToString(), carried_names=names)


def kinds_of(graph: CascadeGraph) -> list[str]:
    """Kinds of operators in the stages of a graph that can be in integers."""
    found = set(_kinds_in_integers(graph))
    return [kind for kind in (*WITH_WEIGHTS, *BETWEEN) if kind in found]


def count_products(
    graph: CascadeGraph, *, left_out: Collection[str] = (), float_stages: Collection[int] = ()
) -> int:
    """Number of convolutions and matrix products that are in integers; parameters as in :func:`in_int8`."""
    return sum(kind in WITH_WEIGHTS for kind in _kinds_in_integers(graph, left_out, float_stages))


def _kinds_in_integers(
    graph: CascadeGraph, left_out: Collection[str] = (), float_stages: Collection[int] = ()
) -> list[str]:
    """Kinds of all operators that are to be in integers."""
    model = package("onnx").load_from_string(graph.model)
    _name_nodes(model)
    chosen = set(nodes_of_stages(model, graph.n_exits, left_out, float_stages))
    return [node.op_type for node in model.graph.node if node.name in chosen]


def network_inputs(graph: CascadeGraph) -> Feeds:
    """Weights of gates and of the log-linear pool, all 0, as a graph is given them."""
    model = package("onnx").load_from_string(graph.model)
    return {
        value.name: np.zeros(
            [size.dim_value for size in value.type.tensor_type.shape.dim], np.float32
        )
        for value in model.graph.input
        if not value.name.startswith((INPUT, ANSWER))
    }


def prepared(model: bytes) -> Any:
    """The model with known shapes and named nodes, as quantisation needs it."""
    pre_process = package("onnxruntime.quantization.shape_inference").quant_pre_process
    onnx = package("onnx")
    with tempfile.TemporaryDirectory() as folder:
        # It takes a model of its own through a file that it does not find again, so it is given one.
        given, path = (os.path.join(folder, name) for name in ("given.onnx", "prepared.onnx"))
        with open(given, "wb") as file:
            file.write(model)
        pre_process(given, path, skip_symbolic_shape=True)
        ready = onnx.load(path)
    _means_as_convolutions(ready)
    _name_nodes(ready)
    return ready


def _means_as_convolutions(model: Any) -> None:
    """Write means of parts of maps as convolutions of each channel, which ONNX Runtime computes much faster."""
    onnx = package("onnx")
    channels = {
        value.name: value.type.tensor_type.shape.dim[1].dim_value
        for value in (*model.graph.value_info, *model.graph.output)
        if len(value.type.tensor_type.shape.dim) == 4
    }
    for k, node in enumerate(model.graph.node):
        options: dict[str, Any] = {
            item.name: onnx.helper.get_attribute_value(item) for item in node.attribute
        }
        n_channels = channels.get(node.input[0] if node.input else "")
        if node.op_type != "AveragePool" or not n_channels or any(options.get("pads", ())):
            continue
        size = options["kernel_shape"]
        weight = np.full((n_channels, 1, *size), 1 / np.prod(size), dtype=np.float32)
        name = f"{node.output[0]}_weight"
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
        strides = options.get("strides", [1] * len(size))
        mean = onnx.helper.make_node(
            "Conv",
            [node.input[0], name],
            list(node.output),
            name=MEAN,
            group=n_channels,
            kernel_shape=size,
            strides=strides,
        )
        model.graph.node[k].CopyFrom(mean)


def _name_nodes(model: Any) -> None:
    for k, node in enumerate(model.graph.node):
        node.name = f"{MEAN if node.name == MEAN else node.op_type}_{k}"


def nodes_of_stages(
    model: Any, n_exits: int, left_out: Collection[str], float_stages: Collection[int]
) -> list[str]:
    """Names of the nodes that are to be in integers: of stages, and pools of what crosses a cut."""
    nodes = list(model.graph.node)
    maker = {name: k for k, node in enumerate(nodes) for name in node.output}
    outputs = {value.name for value in model.graph.output}
    seen: set[int] = set()
    chosen: list[int] = []
    for i in range(n_exits):
        ends = ends_of_stage(nodes, maker, outputs, i, is_last=i == n_exits - 1)
        own = leading_to(nodes, maker, ends) - seen
        own |= {
            k
            for k, node in enumerate(nodes)
            if node.name.startswith(POOLS) and node.input[0] in ends and k not in seen
        }
        seen |= own
        if i not in float_stages:
            chosen += sorted(own)
    has_convolutions = any(nodes[k].op_type == "Conv" for k in chosen)
    kinds = {*WITH_WEIGHTS, *(BETWEEN if has_convolutions else ())} - set(left_out)
    return [nodes[k].name for k in chosen if nodes[k].op_type in kinds]


def ends_of_stage(
    nodes: Sequence[Any], maker: dict[str, int], outputs: Collection[str], i: int, is_last: bool
) -> list[str]:
    """Names of what a stage returns."""
    if is_last:
        return [PLAIN]
    carried = [name for name in outputs if name.startswith(numbered(CARRIED, i) + ".")]
    if carried:
        return carried
    # At a member's end, the logits, from which probabilities are made.
    name = numbered(HEAD, i)
    while nodes[maker[name]].op_type != "LogSoftmax":
        name = nodes[maker[name]].input[0]
    return [nodes[maker[name]].input[0]]


def leading_to(nodes: Sequence[Any], maker: dict[str, int], outputs: Iterable[str]) -> set[int]:
    found: set[int] = set()
    open_names = list(outputs)
    while open_names:
        k = maker.get(open_names.pop())
        if k is not None and k not in found:
            found.add(k)
            open_names += nodes[k].input
    return found


def _crossing_in_integers(model: Any, graph: CascadeGraph) -> tuple[tuple[str, ...], ...]:
    """Names of what crosses each cut; what is in integers there becomes an output of the graph."""
    made = {name for node in model.graph.node for name in node.output}
    sizes = {v.name: list(v.type.tensor_type.shape.dim) for v in model.graph.output}
    names = []
    for of_exit in graph.carried_names:
        own = []
        for name in of_exit:
            if name in sizes and name + QUANTISED in made:
                name = _named_crossing(model, name + QUANTISED, sizes[name])
            own.append(name)
        names.append(tuple(own))
    return tuple(names)


def _named_crossing(model: Any, name: str, sizes: Sequence[Any]) -> str:
    """Make a tensor in integers an output of the graph, maps with their channels last, and return its name."""
    onnx = package("onnx")
    tensor = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None)
    if len(sizes) == len(TO_LAST):
        last, back = name + "_last", name + "_back"
        for node in model.graph.node:
            for k, given in enumerate(node.input):
                if given == name:
                    node.input[k] = back
        place = 1 + next(k for k, node in enumerate(model.graph.node) if name in node.output)
        for given, made, order in ((last, back, TO_FIRST), (name, last, TO_LAST)):
            node = onnx.helper.make_node("Transpose", [given], [made], perm=order)
            model.graph.node.insert(place, node)
        sizes = [sizes[k] for k in TO_LAST]
        tensor.name = last
    tensor.type.tensor_type.shape.dim.extend(sizes)
    model.graph.output.append(tensor)
    return str(tensor.name)


def _reader(quantization: Any, feeds: Iterable[Feeds], names: Sequence[str]) -> Any:
    """What gives quantisation one batch after the other."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            self.feeds: Iterator[Feeds] = iter(feeds)

        def get_next(self) -> Feeds | None:
            batch = next(self.feeds, None)
            return None if batch is None else {name: batch[name] for name in names}

    return Reader()

"""What heads read, moved back by as much as integers have moved it on average.

Rounding moves what a stage returns a little, much the same for all samples (Nagel et al., "Data-Free Quantization
Through Weight Equalization and Bias Correction", ICCV 2019). Heads after the first layers of a transformer read
features that differ by no more than that from sample to sample.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .onnx_graphs import HEAD, numbered
from .onnx_int8 import PRODUCTS, Feeds, ends_of_stage, leading_to
from .onnx_package import package
from .onnx_sessions import session


def move_heads_inputs_back(before: Any, after: Any, n_exits: int, feeds: Iterable[Feeds]) -> None:
    """Subtract from what each head's first product reads the mean by which a graph differs from the one before.

    Parameters
    ----------
    before, after : onnx.ModelProto
        With the same names of tensors; the second is changed in place.
    n_exits : int
    feeds : iterable of dict
        Inputs of both, by name, for batches of samples.
    """
    names = _read_by_heads(before, n_exits)
    feeds = list(feeds)
    if not names or not feeds:
        return
    shifts = [
        moved - exact
        for exact, moved in zip(_means(before, names, feeds), _means(after, names, feeds))
    ]
    _subtract(after, dict(zip(names, shifts)))


def _read_by_heads(model: Any, n_exits: int) -> list[str]:
    """Names of what the first product of each head reads, the pooled output of its stage."""
    nodes = list(model.graph.node)
    maker = {name: k for k, node in enumerate(nodes) for name in node.output}
    outputs = {value.name for value in model.graph.output}
    found: list[str] = []
    seen: set[int] = set()
    for i in range(n_exits - 1):
        seen |= leading_to(nodes, maker, ends_of_stage(nodes, maker, outputs, i, is_last=False))
        own = leading_to(nodes, maker, [numbered(HEAD, i)]) - seen
        seen |= own
        products = [k for k in sorted(own) if nodes[k].op_type in PRODUCTS]
        found += [nodes[k].input[0] for k in products[:1]]
    return list(dict.fromkeys(found))


def _means(model: Any, names: Sequence[str], feeds: Sequence[Feeds]) -> list[np.ndarray]:
    """Means of tensors over all samples, one an entry of their last axes."""
    onnx = package("onnx")
    telling = onnx.ModelProto()
    telling.CopyFrom(model)
    telling.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    run = session(telling.SerializeToString())
    taken = [value.name for value in run.get_inputs()]
    sums, n_samples = [np.zeros(())] * len(names), 0
    for batch in feeds:
        found = run.run(list(names), {name: batch[name] for name in taken})
        sums = [total + array.sum(0, dtype=float) for total, array in zip(sums, found)]
        n_samples += len(found[0])
    return [(total / n_samples).astype(np.float32) for total in sums]


def _subtract(model: Any, shifts: dict[str, np.ndarray]) -> None:
    """Let products read tensors less these arrays."""
    onnx = package("onnx")
    nodes = []
    for node in model.graph.node:
        name = node.input[0] if node.input else ""
        if node.op_type in PRODUCTS and name in shifts:
            shift, back = f"{name}_shift", f"{name}_back"
            model.graph.initializer.append(onnx.numpy_helper.from_array(shifts.pop(name), shift))
            nodes.append(onnx.helper.make_node("Sub", [name, shift], [back]))
            node.input[0] = back
        nodes.append(node)
    put_nodes(model, nodes)


def put_nodes(model: Any, nodes: Sequence[Any]) -> None:
    """Give a model other nodes, among which its own may be."""
    copied = []
    for node in nodes:
        copy = type(node)()
        copy.CopyFrom(node)
        copied.append(copy)
    del model.graph.node[:]
    model.graph.node.extend(copied)

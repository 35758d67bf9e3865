"""Build ONNX graphs inside one another, from new nodes and from those of other graphs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .onnx_package import package

# Weights of more numbers stand once in a file, where they are first read; smaller ones in each graph that reads them,
# where a runtime finds them for its optimisations.
FEW_NUMBERS = 64


class Choice(NamedTuple):
    """An output of an ``If``."""

    then: str
    otherwise: str
    kind: int
    shape: Sequence[int | str]


class Block:
    """Nodes of one graph, with the weights that they read; all names begin with that of the block.

    Parameters
    ----------
    name : str
    outer : Block, default=None
        The block around this one, whose tensors it may read.
    """

    def __init__(self, name: str, outer: "Block | None" = None) -> None:
        self.onnx = package("onnx")
        self.name, self.outer = name, outer
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        # Weights of other graphs that stand here, by the name of their graph and their own.
        self.shared: dict[tuple[str, str], str] = {}
        self.n_made = 0

    def add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node with one output, and return its name."""
        return self.add_all(operator, inputs, 1, **attributes)[0]

    def add_all(
        self, operator: str, inputs: Sequence[str], n_outputs: int, **attributes: Any
    ) -> list[str]:
        """Add a node, and return the names of its outputs."""
        outputs = [self._new_name(operator) for _ in range(n_outputs)]
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, outputs, **attributes))
        return outputs

    def constant(self, value: Any, dtype: Any) -> str:
        """Add numbers, and return the name of the tensor."""
        name = self._new_name("constant")
        array = np.asarray(value, dtype=dtype)
        self.weights.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def inline(
        self, model: bytes, of: str, given: Mapping[str, str], wanted: Sequence[str]
    ) -> dict[str, str]:
        """Add what leads to some outputs of a graph.

        Parameters
        ----------
        model : bytes
            A serialised ``onnx.ModelProto``.
        of : str
            Graphs of one name share their weights.
        given : dict of str
            Names of the tensors here that the graph's inputs are.
        wanted : sequence of str
            Outputs of the graph.

        Returns
        -------
        dict of str
            Names of these outputs here.
        """
        graph = self.onnx.load_from_string(model).graph
        weights = {tensor.name: tensor for tensor in graph.initializer}
        names = {"": "", **given}

        def here(name: str) -> str:
            if name not in names:
                names[name] = (
                    self._weight(of, weights[name]) if name in weights else f"{self.name}/{name}"
                )
            return names[name]

        for node in _leading_to(graph, wanted):
            for k, name in enumerate(node.input):
                node.input[k] = here(name)
            for k, name in enumerate(node.output):
                node.output[k] = here(name)
            node.name = f"{self.name}/{node.name}" if node.name else ""
            self.nodes.append(node)
        return {name: here(name) for name in wanted}

    def choose(
        self,
        condition: str,
        then: "Block",
        otherwise: "Block",
        outputs: Sequence["Choice"],
        names: Sequence[str] = (),
    ) -> list[str]:
        """Add an ``If`` between two blocks, and return the names of its outputs, new ones unless they are given."""
        branches = [
            block.graph(
                [], [self.value(n, o.kind, o.shape) for n, o in zip(own, outputs, strict=True)]
            )
            for block, own in (
                (then, [output.then for output in outputs]),
                (otherwise, [output.otherwise for output in outputs]),
            )
        ]
        names = list(names) or [self._new_name("If") for _ in outputs]
        node = self.onnx.helper.make_node(
            "If", [condition], names, then_branch=branches[0], else_branch=branches[1]
        )
        self.nodes.append(node)
        return names

    def value(self, name: str, kind: int, shape: Sequence[int | str]) -> Any:
        """Return a tensor's name with its type and shape."""
        return self.onnx.helper.make_tensor_value_info(name, kind, shape)

    def graph(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """Return the block as an ``onnx.GraphProto``."""
        return self.onnx.helper.make_graph(self.nodes, self.name, inputs, outputs, self.weights)

    def _new_name(self, what: str) -> str:
        self.n_made += 1
        return f"{self.name}/{what}:{self.n_made}"

    def _weight(self, of: str, tensor: Any) -> str:
        """Name of a weight of another graph, which is put here if no block around this one has it."""
        key = of, tensor.name
        for block in self._outwards():
            if key in block.shared:
                return block.shared[key]
        name = f"{self.name}/{of}/{tensor.name}"
        copy = self.onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.name = name
        self.weights.append(copy)
        if np.prod(tensor.dims) > FEW_NUMBERS:
            self.shared[key] = name
        return name

    def _outwards(self) -> Iterator["Block"]:
        block: Block | None = self
        while block is not None:
            yield block
            block = block.outer


def _leading_to(graph: Any, outputs: Sequence[str]) -> list[Any]:
    """Nodes of a graph that lead to some of its outputs, in their order."""
    needed, found = set(outputs), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            found.append(node)
    return found[::-1]

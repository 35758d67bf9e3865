"""One ONNX graph of all exits, divided into one graph an exit."""

from collections.abc import Iterable, Sequence
from typing import Any

from .onnx_graphs import (
    ANSWER,
    GATE_INPUTS,
    HEAD,
    INPUT,
    LABEL,
    LOG_PROBS,
    LOGITS,
    PLAIN,
    SCORE,
    CascadeGraph,
    ExitGraph,
    ExitGraphs,
    numbered,
)
from .onnx_package import package

OF_SAMPLES = (HEAD, LOG_PROBS, LABEL, GATE_INPUTS)


def divided(graph: CascadeGraph) -> ExitGraphs:
    """One graph an exit."""
    return ExitGraphs(
        parts=tuple(graphs_of_exits(graph)),
        n_inputs=graph.n_inputs,
        starts=graph.starts,
        is_given=graph.is_given,
        classifiers=graph.classifiers,
    )


def graphs_of_exits(graph: CascadeGraph) -> list[ExitGraph]:
    """Divide a graph at its exits.

    An exit's graph begins where earlier ones end, and holds what leads from there to its logits and its gate, and to
    what later exits begin with.

    Raises
    ------
    ValueError
        If an exit needs something of an earlier one that does not cross the cut.
    """
    whole = _Whole(graph.model)
    crossing = [_crossing(graph, i) for i in range(graph.n_exits)]
    outputs: list[list[str]] = [[] for _ in crossing]
    inputs: list[list[str]] = [[] for _ in crossing]
    for i in reversed(range(graph.n_exits)):
        is_last = i == graph.n_exits - 1
        outputs[i] = [numbered(LOGITS, i)]
        outputs[i] += [PLAIN] if is_last else [numbered(SCORE, i), numbered(GATE_INPUTS, i)]
        read_later = {name for names in inputs[i + 1 :] for name in names}
        own = [name for name in crossing[i] if name in read_later]
        outputs[i] += [name for name in own if name not in outputs[i]]
        before = {name for names in crossing[:i] for name in names}
        inputs[i] = whole.inputs_of(outputs[i], before)
    return [_exit_graph(whole, graph, i, inputs, outputs[i], crossing) for i in range(len(inputs))]


def _crossing(graph: CascadeGraph, i: int) -> list[str]:
    """Names of all tensors of an exit that may cross the cut after it."""
    if i == graph.n_exits - 1:
        return []
    carried = () if graph.starts[i + 1] else graph.carried_names[i]
    return [*carried, *(numbered(name, i) for name in OF_SAMPLES)]


def _exit_graph(
    whole: "_Whole",
    graph: CascadeGraph,
    i: int,
    inputs: Sequence[Sequence[str]],
    outputs: Sequence[str],
    crossing: Sequence[Sequence[str]],
) -> ExitGraph:
    later = {name for names in inputs[i + 1 :] for name in names}
    so_far = [name for names in crossing[: i + 1] for name in names if name in later]
    axes = {
        name: axis
        for j in range(i + 1)
        for name, axis in zip(graph.carried_names[j], graph.row_axes[j], strict=True)
    }
    carried = [name for name in so_far if name in axes]
    # What later stages of the same member still read of the network's inputs.
    carried += sorted(
        {name for j in _of_same_member(graph, i) for name in inputs[j] if name.startswith(INPUT)}
    )
    return ExitGraph(
        model=whole.part(inputs[i], outputs, axes),
        inputs=tuple(inputs[i]),
        outputs=tuple(outputs),
        carried=tuple(carried),
        carried_axes=tuple(axes.get(name, 0) for name in carried),
        passed_on=tuple(name for name in so_far if name not in axes),
    )


def _of_same_member(graph: CascadeGraph, i: int) -> list[int]:
    """Exits of an exit's member that come after it."""
    n_exits = graph.n_exits
    return list(range(i + 1, next((j for j in range(i + 1, n_exits) if graph.starts[j]), n_exits)))


def plain_graph(graph: CascadeGraph) -> bytes:
    """The last member alone, from the inputs of the network to its logits."""
    whole = _Whole(graph.model)
    return whole.part(whole.inputs_of([PLAIN], set()), [PLAIN], {})


class _Whole:
    """The nodes of a graph, and what leads to what."""

    def __init__(self, model: bytes) -> None:
        self.onnx = package("onnx")
        self.model = self.onnx.load_from_string(model)
        nodes = self.model.graph.node
        self.maker = {name: k for k, node in enumerate(nodes) for name in node.output if name}
        self.weights = {tensor.name: tensor for tensor in self.model.graph.initializer}
        values = [*self.model.graph.input, *self.model.graph.output]
        self.values = {value.name: value for value in values}

    def _is_size(self, node: Any) -> bool:
        """Whether a node asks for the number of samples."""
        bounds = {item.name: item.i for item in node.attribute}
        is_first = bounds.get("start", 0) == 0 and bounds.get("end") == 1
        return node.op_type == "Shape" and is_first and node.input[0].startswith(INPUT)

    def _needed(self, outputs: Iterable[str], ends: set[str]) -> tuple[set[int], set[str]]:
        """Nodes that lead to some outputs, and the tensors that they begin with."""
        nodes: set[int] = set()
        begins: set[str] = set()
        open_names = list(outputs)
        while open_names:
            name = open_names.pop()
            if not name or name in self.weights:
                continue
            if name in ends or name not in self.maker:
                begins.add(name)
                continue
            k = self.maker[name]
            if k in nodes:
                continue
            nodes.add(k)
            node = self.model.graph.node[k]
            if not self._is_size(node):
                open_names += node.input
        return nodes, begins

    def inputs_of(self, outputs: Sequence[str], ends: set[str]) -> list[str]:
        """What a part begins with that leads to some outputs, in a fixed order."""
        _, begins = self._needed(outputs, ends)
        order = {name: k for k, name in enumerate(self.values)}
        unknown = begins - set(order)
        if unknown:
            raise ValueError(f"{sorted(unknown)} cross a cut")
        return sorted(begins, key=order.__getitem__)

    def part(
        self, inputs: Sequence[str], outputs: Sequence[str], axes: dict[str, int | None]
    ) -> bytes:
        """Serialise what leads from some tensors to some others.

        Parameters
        ----------
        inputs, outputs : sequence of str
        axes : dict
            Axis of the samples in inputs where that is not the first.
        """
        helper = self.onnx.helper
        chosen, _ = self._needed(outputs, set(inputs))
        samples = next(
            name
            for name in inputs
            if name.startswith((INPUT, ANSWER, *OF_SAMPLES)) or axes.get(name) is not None
        )
        axis = axes.get(samples) or 0
        nodes = []
        for k in sorted(chosen):
            node = self.model.graph.node[k]
            if self._is_size(node):
                node = helper.make_node(
                    "Shape", [samples], list(node.output), start=axis, end=axis + 1
                )
            nodes.append(node)
        names = {name for node in nodes for name in node.input} | set(outputs)
        part = helper.make_graph(
            nodes,
            self.model.graph.name or "exit",
            [self.values[name] for name in inputs],
            [self.values[name] for name in outputs],
            [tensor for name, tensor in self.weights.items() if name in names],
        )
        model = helper.make_model(
            part, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )
        data: bytes = model.SerializeToString()
        return data

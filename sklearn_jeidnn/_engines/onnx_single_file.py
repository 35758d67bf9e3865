"""All exits of a classifier, at its operating point, as one ONNX graph that leaves early inside the graph."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .onnx_blocks import Block, Choice
from .onnx_graphs import (
    ANSWER,
    ANSWERS,
    HEAD,
    INPUT,
    LOG_PROBS,
    LOGITS,
    NUMBERS,
    OPSET,
    PLAIN,
    SCORE,
    CascadeGraph,
    ExitGraph,
    numbered,
)
from .onnx_package import package
from .onnx_parts import graphs_of_exits
from .onnx_rows import OWN_DOMAIN

LABEL, PROBABILITIES, EXIT = OUTPUTS = "label", "probabilities", "exit"
N_SAMPLES = "n_samples"
# Versions that ONNX Runtime 1.17 reads: of the format, and of the operators for trees.
IR_VERSION, STANDARD_OPSETS = 9, {"": OPSET, "ai.onnx.ml": 3}
OPSETS = {**STANDARD_OPSETS, OWN_DOMAIN: 1}


@dataclass(frozen=True, kw_only=True)
class ExitingModel:
    """A classifier at an operating point, as :func:`as_single_file` writes it.

    Parameters
    ----------
    graph : CascadeGraph
    constants : sequence of dict (n_exits,)
        Of each exit the weights of its gate and its mixing weights, by name.
    is_sequential : bool
        Whether a gate takes its share of what is left; else it takes its own probability, as far as that is left.
    temperatures : ndarray (n_exits,)
    classes : ndarray (n_classes,)
    input_names : tuple of str (n_inputs,)
    plain_last_exit : bool
        Whether samples that reach the last exit get the plain backbone's answer.
    plain : bytes or None
        Graph of the plain backbone from the inputs of the network to ``PLAIN``, where it is not the last exit's own.
    member_names : sequence of str (n_exits,)
        For messages: what the stage of each exit is.
    """

    graph: CascadeGraph
    constants: Sequence[Mapping[str, np.ndarray]]
    is_sequential: bool
    temperatures: np.ndarray
    classes: np.ndarray
    input_names: tuple[str, ...]
    plain_last_exit: bool
    plain: bytes | None
    member_names: Sequence[str]


def as_single_file(model: ExitingModel, metadata: Mapping[str, str]) -> bytes:
    """Return a serialised ``onnx.ModelProto`` from samples to labels, probabilities and exits.

    Each exit stands within an ``If`` of the exit before, which runs where a sample stays, on those samples alone.

    Parameters
    ----------
    model : ExitingModel
    metadata : dict of str
        What the file tells of itself.

    Raises
    ------
    ValueError
        If a member has no graph, or an input the name of an output.
    """
    _check(model)
    onnx = package("onnx")
    helper = onnx.helper
    graph = _whole_graph(onnx, model)
    opsets = OPSETS if _has_own(graph) else STANDARD_OPSETS
    whole = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*item) for item in opsets.items()],
        ir_version=IR_VERSION,
        producer_name="sklearn_jeidnn",
    )
    helper.set_model_props(whole, dict(metadata))
    onnx.checker.check_model(whole, full_check=True)
    data: bytes = whole.SerializeToString()
    return data


def _has_own(graph: Any) -> bool:
    """Whether an operator is ONNX Runtime's own, in graphs within graphs, too."""
    return any(
        node.domain == OWN_DOMAIN
        or any(_has_own(item.g) for item in node.attribute if item.HasField("g"))
        for node in graph.node
    )


def _whole_graph(onnx: Any, model: ExitingModel) -> Any:
    """Return the exits for one sample or more, beside empty outputs for none: no operator sees an empty batch."""
    block = Block("whole")
    some, none = Block("some", block), Block("none", block)
    answers, outputs = _Exits(model).answers(some), _outputs(onnx, model)
    choices = [
        Choice(answer, _nothing(none, *output), *output)
        for answer, output in zip(answers, outputs.values(), strict=True)
    ]
    n_samples = block.add("Shape", [model.input_names[0]], start=0, end=1)
    is_any = block.add("Cast", [n_samples], to=onnx.TensorProto.BOOL)
    block.choose(is_any, some, none, choices, OUTPUTS)
    return block.graph(
        _inputs(onnx, model), [block.value(name, *output) for name, output in outputs.items()]
    )


def _check(model: ExitingModel) -> None:
    """Refuse what cannot be written."""
    graph = model.graph
    for name, is_given, own in zip(
        model.member_names, graph.is_given, graph.classifiers, strict=True
    ):
        if is_given and own is None:
            raise ValueError(
                f"the member {name} has no ONNX graph, so it cannot be part of the file. Networks have one, and the "
                f"trees that fit puts beside the ready network for tables, but for boosted ones that read categories. "
                f"Fit with a network in its place (companion=None does without trees), or answer in Python "
                f"(clf.predictor())."
            )
    taken = sorted(set(model.input_names) & set(OUTPUTS))
    if taken:
        raise ValueError(
            f"the module has inputs {taken}, but outputs of the file have these names; rename the inputs."
        )


def _inputs(onnx: Any, model: ExitingModel) -> list[Any]:
    """Inputs of the file, as the graph of all exits takes them, but for their names and the number of samples."""
    values = {value.name: value for value in onnx.load_from_string(model.graph.model).graph.input}
    found = []
    for k, name in enumerate(model.input_names):
        value = onnx.ValueInfoProto()
        value.CopyFrom(values[numbered(INPUT, k)])
        value.name = name
        value.type.tensor_type.shape.dim[0].dim_param = N_SAMPLES
        found.append(value)
    return found


def _outputs(onnx: Any, model: ExitingModel) -> dict[str, tuple[int, list[Any]]]:
    """Type and shape of each output."""
    kinds = onnx.TensorProto
    labels = onnx.helper.np_dtype_to_tensor_dtype(as_tensor_labels(model.classes).dtype)
    return {
        LABEL: (labels, [N_SAMPLES]),
        PROBABILITIES: (kinds.FLOAT, [N_SAMPLES, len(model.classes)]),
        EXIT: (kinds.INT64, [N_SAMPLES]),
    }


def as_tensor_labels(classes: np.ndarray) -> np.ndarray:
    """Classes as ONNX has them: whole numbers, truth values, floats or words.

    Raises
    ------
    ValueError
        If they are anything else.
    """
    kind = classes.dtype.kind
    if kind in "iu" and classes.max() <= np.iinfo(np.int64).max:
        return classes.astype(np.int64)
    if kind in "bf":
        return classes.astype(bool if kind == "b" else np.float64)
    if all(isinstance(label, str) for label in classes.tolist()):
        return classes.astype(object)
    raise ValueError(
        f"classes_ are {classes[:5].tolist()}, and ONNX has labels that are whole numbers, floats, truth values or "
        f"words; fit with such labels."
    )


def _nothing(block: Block, kind: int, shape: Sequence[Any]) -> str:
    """Add the output for no samples."""
    sizes = [0 if size == N_SAMPLES else size for size in shape]
    return block.add("Constant", [], value=block.onnx.helper.make_tensor("", kind, sizes, []))


class _Exits:
    """The exits, each in a block within that of the exit before."""

    def __init__(self, model: ExitingModel) -> None:
        self.model, self.graph = model, model.graph
        self.parts = graphs_of_exits(model.graph)
        self.last = len(self.parts) - 1
        self.n_classes = len(model.classes)
        self.read = [self._inputs_read(i) for i in range(len(self.parts))]

    def answers(self, block: Block) -> list[str]:
        """Add all exits, for at least one sample; return the names of the outputs."""
        onnx = block.onnx
        found = self._exit(0, block, {}, None, None)
        sizes = block.constant([self.n_classes, 1], np.int64)
        logits, column = block.add_all("Split", [found, sizes], 2, axis=1)
        at = block.add("Squeeze", [column, block.constant([1], np.int64)])
        exit_index = block.add("Cast", [at], to=onnx.TensorProto.INT64)
        logits = self._answered(block, logits)
        codes = block.add("ArgMax", [logits], axis=1, keepdims=0)
        labels = as_tensor_labels(self.model.classes)
        return [
            block.add("Gather", [block.constant(labels, labels.dtype), codes]),
            self._probabilities(block, logits, exit_index),
            exit_index,
        ]

    def _answered(self, block: Block, logits: str) -> str:
        """Add logits that are all 0 where there is no answer (see :func:`_operate.exit_answers.with_gaps`)."""
        total = block.add("ReduceLogSumExp", [logits, block.constant([1], np.int64)])
        infinite, zero = block.constant(np.inf, np.float32), block.constant(0, np.float32)
        is_answer = block.add("Less", [block.add("Abs", [total]), infinite])
        return block.add("Where", [is_answer, logits, zero])

    def _probabilities(self, block: Block, logits: str, exit_index: str) -> str:
        """Add the probabilities, calibrated at the exits taken."""
        temperatures = block.constant(self.model.temperatures[:, None], np.float32)
        of_samples = block.add("Gather", [temperatures, exit_index])
        return block.add("Softmax", [block.add("Div", [logits, of_samples])], axis=-1)

    def _exit(
        self,
        i: int,
        block: Block,
        tensors: Mapping[str, str],
        rows: str | None,
        survival: str | None,
    ) -> str:
        """Add an exit and those after it.

        Parameters
        ----------
        i : int
        block : Block
        tensors : dict of str
            Names of what earlier exits leave for it, by the names that parts have for it.
        rows : str or None
            Numbers of its samples among all; None if they are all.
        survival : str or None
            Mass that earlier exits left to each sample; None if that is all.

        Returns
        -------
        str
            Name of a tensor (n_samples, n_classes + 1): the logits of the exit taken, and its number.
        """
        tensors = {**tensors, **self._run(i, block, tensors, rows)}
        logits = tensors[PLAIN if self._is_plain(i) else numbered(LOGITS, i)]
        pads = block.constant([0, 0, 0, 1], np.int64)
        answered = block.add("Pad", [logits, pads, block.constant(i, np.float32)])
        if i == self.last:
            return answered
        leave, survival = self._leave(block, tensors[numbered(SCORE, i)], survival)
        stay = block.add("NonZero", [block.add("Not", [leave])])
        kinds = block.onnx.TensorProto
        is_any = block.add("Cast", [block.add("Size", [stay])], to=kinds.BOOL)
        then, otherwise = Block(f"exit{i + 1}", block), Block(f"exit{i}_alone", block)
        onward = self._onward(i, then, tensors, rows, survival, stay)
        places = then.add("Transpose", [stay])
        found = then.add("ScatterND", [answered, places, onward])
        all_left = otherwise.add("Identity", [answered])
        choice = Choice(found, all_left, kinds.FLOAT, [N_SAMPLES, self.n_classes + 1])
        return block.choose(is_any, then, otherwise, [choice])[0]

    def _onward(
        self,
        i: int,
        block: Block,
        tensors: Mapping[str, str],
        rows: str | None,
        survival: str | None,
        stay: str,
    ) -> str:
        """Add what the exits after one answer, for the samples that stay."""
        own = block.add("Squeeze", [stay, block.constant([0], np.int64)])
        kept = self._kept(self.parts[i], block, tensors, own)
        if any(self.read[i + 1 :]):
            rows = own if rows is None else block.add("Gather", [rows, own])
        if survival is not None:
            survival = block.add("Gather", [survival, own])
        return self._exit(i + 1, block, kept, rows, survival)

    def _kept(
        self, part: ExitGraph, block: Block, tensors: Mapping[str, str], own: str
    ) -> dict[str, str]:
        """Add what later exits need of an exit and those before, for some samples."""
        axes = dict(zip(part.carried, part.carried_axes, strict=True))
        axes |= dict.fromkeys(part.passed_on, 0)
        kept = {}
        for name, axis in axes.items():
            if name.startswith(INPUT):
                continue
            kept[name] = tensors[name]
            if axis is not None:
                kept[name] = block.add("Gather", [tensors[name], own], axis=axis)
            if name.startswith((HEAD, LOG_PROBS)):
                kept[name] = self._without_gaps(block, kept[name])
        return kept

    def _without_gaps(self, block: Block, log_probs: str) -> str:
        """Add uniform probabilities where an exit has no answer."""
        uniform = block.constant(-math.log(self.n_classes), np.float32)
        return block.add("Where", [block.add("IsNaN", [log_probs]), uniform, log_probs])

    def _leave(self, block: Block, score: str, survival: str | None) -> tuple[str, str | None]:
        """Add whether samples leave, and the mass that is left after that (see :func:`_exits.policy.decide`)."""
        if self.model.is_sequential:
            return block.add("GreaterOrEqual", [score, block.constant(0, np.float32)]), None
        if survival is None:
            survival = block.constant(1, np.float32)
        zero, half = block.constant(0, np.float32), block.constant(0.5, np.float32)
        # A gate without an answer, of an exit without one, takes nothing.
        probability = block.add("Sigmoid", [score])
        probability = block.add("Where", [block.add("IsNaN", [score]), zero, probability])
        mass = block.add("Min", [probability, survival])
        leave = block.add("GreaterOrEqual", [mass, block.add("Mul", [survival, half])])
        return leave, block.add("Sub", [survival, mass])

    def _run(
        self, i: int, block: Block, tensors: Mapping[str, str], rows: str | None
    ) -> dict[str, str]:
        """Add what computes an exit; return the names of its outputs."""
        part, inputs = self.parts[i], self._inputs_of(i, block, rows)
        if self._is_plain(i) and self.model.plain is not None:
            return block.inline(self.model.plain, "plain", inputs, [PLAIN])
        given = {**tensors, **inputs}
        for name, array in self.model.constants[i].items():
            given[name] = block.constant(array, np.float32)
        classifier = self.graph.classifiers[i]
        if classifier is not None:
            numbers = {NUMBERS: inputs[numbered(INPUT, 0)]}
            made = block.inline(classifier, f"classifier{i}", numbers, [ANSWERS])
            given[numbered(ANSWER, i)] = made[ANSWERS]
        left_out = numbered(LOGITS, i) if self._is_plain(i) else PLAIN
        wanted = [name for name in part.outputs if name != left_out]
        return block.inline(part.model, "network", given, wanted)

    def _inputs_of(self, i: int, block: Block, rows: str | None) -> dict[str, str]:
        """Inputs of the network that an exit reads, of its samples."""
        names = {numbered(INPUT, k): name for k, name in enumerate(self.model.input_names)}
        own = {name: names[name] for name in names if name in self.read[i]}
        if rows is None:
            return own
        return {name: block.add("Gather", [outer, rows]) for name, outer in own.items()}

    def _inputs_read(self, i: int) -> set[str]:
        """Names of the network's inputs that an exit reads."""
        if self._is_plain(i) and self.model.plain is not None:
            graph = package("onnx").load_from_string(self.model.plain).graph
            return {value.name for value in graph.input}
        read = {name for name in self.parts[i].inputs if name.startswith(INPUT)}
        return read | ({numbered(INPUT, 0)} if self.graph.is_given[i] else set())

    def _is_plain(self, i: int) -> bool:
        """Whether samples get the plain backbone's answer at an exit."""
        return i == self.last and self.model.plain_last_exit

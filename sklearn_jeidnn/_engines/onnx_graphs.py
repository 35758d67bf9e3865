"""Graphs of the exits of a network in ONNX, and what their tensors are called (NumPy only)."""

from dataclasses import dataclass

# Of the operators; ONNX Runtime has it since version 1.17.
OPSET = 20
INPUT, ANSWER, WEIGHT, BIAS = "input", "answer", "gate_weight", "gate_bias"
MIXING, MEMBER_MIXING = "mixing", "member_mixing"
CARRIED, LOGITS, SCORE, GATE_INPUTS, PLAIN = "carried", "logits", "score", "gate_inputs", "plain"
# What the graph of a classifier takes and returns.
NUMBERS, ANSWERS = "numbers", "logits"
# What the next exits need of an exit, for each sample.
HEAD, LOG_PROBS, LABEL = "head_log_probs", "log_probs", "label"


def numbered(name: str, *numbers: int) -> str:
    """Name of a tensor of an exit."""
    return ".".join([name, *map(str, numbers)])


@dataclass(frozen=True, kw_only=True)
class CascadeGraph:
    """All exits of a network as one ONNX graph, whose tensors are named after what they are (see :func:`numbered`).

    Weights of gates and of the log-linear pool are inputs, so that one graph serves all operating points.

    Parameters
    ----------
    model : bytes
        A serialised ``onnx.ModelProto``.
    n_inputs : int
        Of the network.
    n_exits : int
    starts : tuple of bool (n_exits,)
        Whether the stage before an exit takes the inputs of the network.
    is_given : tuple of bool (n_exits,)
        Whether a stage is a classifier and no part of the graph, which takes its logits instead.
    classifiers : tuple of (bytes or None) (n_exits,)
        Graph of a stage that is a classifier, if it has one: from ``NUMBERS`` (n_samples, n_features) to ``ANSWERS``
        (n_samples, n_classes).
    row_axes : tuple of tuple (n_exits,)
        Axis of the samples in each tensor that crosses the cut after an exit; None if a tensor has none.
    carried_names : tuple of tuple of str (n_exits,)
        Names of these tensors.
    """

    model: bytes
    n_inputs: int
    n_exits: int
    starts: tuple[bool, ...]
    is_given: tuple[bool, ...]
    classifiers: tuple[bytes | None, ...]
    row_axes: tuple[tuple[int | None, ...], ...]
    carried_names: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class ExitGraph:
    """What runs at one exit.

    Parameters
    ----------
    model : bytes
        A serialised ``onnx.ModelProto``.
    inputs, outputs : tuple of str
        Names of all inputs, and of all outputs.
    carried : tuple of str
        What crosses the cut after the exit, for later ones.
    carried_axes : tuple of (int or None)
        Axis of the samples in these.
    passed_on : tuple of str
        What else later exits need of this exit and those before, for each sample.
    """

    model: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    carried: tuple[str, ...]
    carried_axes: tuple[int | None, ...]
    passed_on: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ExitGraphs:
    """One graph an exit, and what is known of them.

    Parameters
    ----------
    parts : tuple of ExitGraph (n_exits,)
    n_inputs : int
        Of the network.
    starts, is_given : tuple of bool (n_exits,)
    classifiers : tuple of (bytes or None) (n_exits,)
        See :class:`CascadeGraph`.
    plain : bytes or None, default=None
        The last member alone in float32, from the inputs of the network to its logits, where the graphs compute in
        less: a serialised ``onnx.ModelProto``.
    """

    parts: tuple[ExitGraph, ...]
    n_inputs: int
    starts: tuple[bool, ...]
    is_given: tuple[bool, ...]
    classifiers: tuple[bytes | None, ...]
    plain: bytes | None = None

    @property
    def n_exits(self) -> int:
        return len(self.parts)

    @property
    def mixes_members(self) -> list[bool]:
        """Whether each exit adds the log-probabilities of a previous member."""
        return [any(self.starts[1 : i + 1]) for i in range(self.n_exits)]

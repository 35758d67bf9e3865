"""Sessions of ONNX Runtime for the exits of a graph (NumPy only)."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .onnx_graphs import INPUT, PLAIN, CascadeGraph, ExitGraphs, numbered
from .onnx_package import package
from .onnx_parts import divided, plain_graph

Run = Callable[[Sequence[str], dict[str, np.ndarray]], list[np.ndarray]]


class ExitSession(NamedTuple):
    """One exit, ready to run; names come with positions among tensors that are known by their order."""

    run: Run
    answer: Run | None  # of a stage that is a classifier with a graph of its own
    outputs: list[str]  # logits first, then the gate's score and inputs, then what later exits need
    taken: list[tuple[int, str]]  # among what the stage takes
    passed_on: list[tuple[int, str]]  # among what earlier exits passed on
    # Where what later exits need is found: among the outputs (True), or among what was there before (False).
    next_carried: list[tuple[bool, int]]
    next_passed_on: list[tuple[bool, int]]
    carried_axes: tuple[int | None, ...]  # axis of the samples in what is carried on
    is_log_probs: list[bool]  # of what is passed on


class Sessions:
    """Sessions of a graph, made when they are first asked for, in each process and for each number of threads.

    Parameters
    ----------
    graph : CascadeGraph or ExitGraphs
        The first is divided when sessions are first asked for.
    n_threads : int or None, default=None
        Threads of a call. None: as :func:`n_threads` says when it is made.
    """

    def __init__(self, graph: CascadeGraph | ExitGraphs, n_threads: int | None = None) -> None:
        self.graph: Any = graph
        self._n_threads = n_threads
        self._made: dict[tuple[Any, ...], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Sessions can be neither copied nor stored.
        return {**vars(self), "_made": {}}

    @property
    def n_threads(self) -> int:
        """Threads of a call; 0 if ONNX Runtime chooses."""
        return n_threads() if self._n_threads is None else self._n_threads

    def of_exits(self) -> list[ExitSession]:
        made: list[ExitSession] = self._once(
            "exits", lambda: _sessions_of_exits(self.graphs(), self.n_threads)
        )
        return made

    def graphs(self) -> ExitGraphs:
        """One graph an exit."""
        return self.graph if isinstance(self.graph, ExitGraphs) else divided(self.graph)

    def _plain_model(self) -> bytes:
        if isinstance(self.graph, ExitGraphs):
            assert self.graph.plain is not None
            return self.graph.plain
        return plain_graph(self.graph)

    @property
    def has_plain(self) -> bool:
        """Whether there is a graph of the last member alone."""
        return not isinstance(self.graph, ExitGraphs) or self.graph.plain is not None

    def of_plain(self) -> tuple[Run, set[str]]:
        """What runs the last member alone, and which inputs of the network it takes."""
        made: tuple[Run, set[str]] = self._once(
            "plain", lambda: _plain(self._plain_model(), self.n_threads)
        )
        return made

    def _once(self, what: str, make: Callable[[], Any]) -> Any:
        # They survive no fork, since their threads stay with the parent.
        key = (what, os.getpid(), self.n_threads)
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def n_threads() -> int:
    """Number of threads that torch has; 0, as many as ONNX Runtime takes by itself, where torch is not loaded."""
    torch = sys.modules.get("torch")
    return 0 if torch is None else int(torch.get_num_threads())


def session(model: bytes, threads: int | None = None) -> Any:
    """Return a session of so many threads; None: of as many as torch has."""
    onnxruntime = package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads() if threads is None else threads
    options.inter_op_num_threads = 1
    # Threads of the exit before would wait busily for its next call, and take the cores from this one.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # The number of samples differs from call to call and from exit to exit: plans of memory would be kept for each.
    options.enable_mem_pattern = False
    # Errors are raised; warnings are of the graph, which nobody wrote.
    options.log_severity_level = 4
    # Of a graph that it cannot read it would else print so, and try again.
    return onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


def _run_of(session: Any) -> Run:
    """Return what runs a session, and raises the errors that torch raises for the same samples."""

    def run(outputs: Sequence[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        try:
            found: list[np.ndarray] = session.run(outputs, inputs)
        except Exception as error:  # ONNX Runtime's own have no other class in common
            is_index = "out of data bounds" in str(error)
            raise (IndexError if is_index else RuntimeError)(str(error)) from error
        return found

    return run


def _plain(model: bytes, threads: int) -> tuple[Run, set[str]]:
    plain = session(model, threads)
    return _run_of(plain), {value.name for value in plain.get_inputs()}


def _sessions_of_exits(graphs: ExitGraphs, threads: int) -> list[ExitSession]:
    sessions = []
    carried: tuple[str, ...] = ()
    passed_on: tuple[str, ...] = ()
    network_inputs = tuple(numbered(INPUT, k) for k in range(graphs.n_inputs))
    for i, part in enumerate(graphs.parts):
        taken = network_inputs if graphs.starts[i] else carried
        own = graphs.classifiers[i]
        outputs = [name for name in part.outputs if name != PLAIN]
        sessions.append(
            ExitSession(
                run=_run_of(session(part.model, threads)),
                answer=None if own is None else _run_of(session(own, threads)),
                outputs=outputs,
                taken=[(k, name) for k, name in enumerate(taken) if name in part.inputs],
                passed_on=[(k, name) for k, name in enumerate(passed_on) if name in part.inputs],
                next_carried=_sources(part.carried, outputs, taken),
                next_passed_on=_sources(part.passed_on, outputs, passed_on),
                carried_axes=part.carried_axes,
                is_log_probs=[
                    name.partition(".")[0].endswith("log_probs") for name in part.passed_on
                ],
            )
        )
        carried, passed_on = part.carried, part.passed_on
    return sessions


def _sources(
    names: Sequence[str], outputs: Sequence[str], before: Sequence[str]
) -> list[tuple[bool, int]]:
    """Where to find tensors: among the outputs of an exit, or among what was there before it."""
    return [
        (True, outputs.index(name)) if name in outputs else (False, before.index(name))
        for name in names
    ]

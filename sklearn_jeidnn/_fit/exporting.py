"""A fitted classifier as a predictor that needs no torch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .._engines.onnx_engine import OnnxEngine
from .._engines.onnx_graphs import CascadeGraph
from .._engines.onnx_parts import divided, plain_graph
from .._engines.onnx_runner import FLOAT32
from .._engines.onnx_sessions import Sessions
from .._exits.building import N_PROBE_SAMPLES
from .._predictor import Predictor
from .engine_choice import in_engine, in_onnx
from .onnx_classifiers import classifier_as_onnx
from .spec import ONNX_RUNTIME, CascadeSpec

# Of trees in a file that needs no scikit-learn; for fewer a session is faster than scikit-learn, too.
MOST_NODES = 3_000_000


def for_export(spec: CascadeSpec, predictor: Predictor) -> Predictor:
    """Return the same predictor, run by graphs alone.

    Raises
    ------
    ImportError
        If packages are missing.
    ValueError
        If a member has no graph, or ONNX Runtime cannot run the module.
    """
    predictor = in_engine(replace(spec, engine=ONNX_RUNTIME), predictor)
    engine: Any = predictor.cascade.engine
    graph = with_large_trees(engine.sessions.graph, engine.network.stages)
    _refuse_without_graph(engine, graph)
    graphs = divided(graph)
    if engine.precision != FLOAT32:
        graphs = replace(graphs, plain=_plain_in_float32(engine, predictor))
    runner = replace(
        engine.runner, sessions=Sessions(graphs), classifier_logits=None, backbone=None
    )
    return replace(predictor, cascade=replace(predictor.cascade, engine=runner))


def _plain_in_float32(engine: OnnxEngine, predictor: Predictor) -> bytes:
    """Graph of the plain backbone, which limits are against."""
    schema = predictor.schema
    samples = schema.encode(schema.example(N_PROBE_SAMPLES))
    return plain_graph(in_onnx(engine.in_torch, samples, schema).sessions.graph)


def with_large_trees(graph: CascadeGraph, stages: Sequence[Any]) -> CascadeGraph:
    """Return the graph with those of trees that are faster in scikit-learn, but not everywhere at hand."""
    return replace(graph, classifiers=tuple(classifier_as_onnx(s, MOST_NODES) for s in stages))


def _refuse_without_graph(engine: OnnxEngine, graph: CascadeGraph) -> None:
    for i in range(graph.n_exits):
        if graph.is_given[i] and graph.classifiers[i] is None:
            member: Any = engine.network.stages[i]
            raise ValueError(
                f"the member {member.classifier!r} cannot be exported: it has no graph for ONNX Runtime, as torch "
                f"modules and the trees that are made here do. Leave it out, or keep the classifier as a whole: "
                f"save(path), or pickle."
            )

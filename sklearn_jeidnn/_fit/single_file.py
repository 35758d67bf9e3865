"""A predictor as one ONNX graph that leaves early inside the graph."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import __version__
from .._engines.onnx_engine import OnnxEngine
from .._engines.onnx_graphs import CascadeGraph
from .._engines.onnx_parts import plain_graph
from .._engines.onnx_single_file import ExitingModel, as_single_file
from .._exits.policy import sequential_mass
from .._predictor import Predictor
from .._schema import InputSchema
from .._table_columns import TableColumns
from .engine_choice import in_engine
from .exporting import with_large_trees
from .spec import FLOAT32, ONNX_RUNTIME, CascadeSpec

# Name of the input where the module has a lone one.
LONE_INPUT = "X"


def single_file(spec: CascadeSpec, predictor: Predictor) -> bytes:
    """Return a serialised ``onnx.ModelProto`` that answers what a predictor does (see :class:`ExitingModel`).

    Raises
    ------
    ImportError
        If a package of the extra ``onnx`` is missing.
    ValueError
        If a network cannot run in ONNX Runtime, or a member has no graph.
    """
    predictor = _in_onnx(spec, predictor)
    engine, schema = predictor.cascade.engine, predictor.schema
    assert isinstance(engine, OnnxEngine)
    stages, graph = engine.network.stages, engine.sessions.graph
    graph = with_large_trees(graph, stages)
    point = engine.runner.of_point
    model = ExitingModel(
        graph=graph,
        constants=point.constants,
        is_sequential=point.exit_mass is sequential_mass,
        temperatures=predictor.calibration.temperatures,
        classes=schema.classes,
        input_names=schema.input_names or (LONE_INPUT,),
        plain_last_exit=point.plain_last_exit,
        plain=_plain(spec, predictor) if point.plain_last_exit else None,
        member_names=_member_names(graph, stages),
    )
    return as_single_file(model, _metadata(predictor))


def _in_onnx(spec: CascadeSpec, predictor: Predictor) -> Predictor:
    try:
        return in_engine(replace(spec, engine=ONNX_RUNTIME), predictor)
    except ValueError as error:
        raise ValueError(f"export_onnx writes what ONNX Runtime runs: {error}") from error


def _plain(spec: CascadeSpec, predictor: Predictor) -> bytes | None:
    """Return the plain backbone in float32, from the network's inputs; None if the last exit has its answer."""
    engine: Any = predictor.cascade.engine
    if engine.precision == FLOAT32 or engine.sessions.graph.is_given[-1]:
        return None
    in_torch = replace(predictor, cascade=replace(predictor.cascade, engine=engine.in_torch))
    in_float32: Any = _in_onnx(spec, in_torch).cascade.engine
    return plain_graph(in_float32.sessions.graph)


def _member_names(graph: CascadeGraph, stages: Sequence[Any]) -> list[str]:
    """Number and class of the member of each exit."""
    numbers = np.cumsum(graph.starts) - 1
    kinds = [type(getattr(stage, "classifier", None) or stage).__name__ for stage in stages]
    return [f"{number} ({kind})" for number, kind in zip(numbers, kinds, strict=True)]


def _metadata(predictor: Predictor) -> dict[str, str]:
    """What the file tells of the classifier, each entry in JSON."""
    schema, cascade = predictor.schema, predictor.cascade
    told = {
        "version": __version__,
        "classes": schema.classes.tolist(),
        "exits": cascade.exits,
        "exit_costs": cascade.exit_costs.tolist(),
        "precision": cascade.engine.precision,
        "columns": _columns(schema),
    }
    return {
        name: json.dumps(value, default=str, allow_nan=False)
        for name, value in told.items()
        if value is not None
    }


def _columns(schema: InputSchema) -> list[dict[str, Any]] | None:
    """What the columns of a table are; None if samples are no table of the ready network's."""
    columns = schema.columns
    if columns is None:
        return None
    return [_column(columns, i) for i in range(len(columns.names))]


def _column(columns: TableColumns, i: int) -> dict[str, Any]:
    categories = columns.categories[i]
    fill = float(columns.fill[i])
    return {
        "name": _plain_value(columns.names[i]),
        "categories": None if categories is None else [_plain_value(c) for c in categories],
        "offset": 0.0 if columns.offset is None else float(columns.offset[i]),
        "fill": None if math.isnan(fill) else fill,
    }


def _plain_value(value: Any) -> Any:
    """A name or a category as JSON has it: NumPy's numbers as Python's, what is neither number nor word as a word."""
    value = value.item() if isinstance(value, np.generic) else value
    is_plain = isinstance(value, str | bool | int) or (
        isinstance(value, float) and math.isfinite(value)
    )
    return value if is_plain else str(value)

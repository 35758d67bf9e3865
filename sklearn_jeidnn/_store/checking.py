"""Whether values that were read are of the kinds that their classes name, and fit together."""

import collections.abc
import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from .._exits.gate_points import GatePoints
from .._predictor import Predictor
from .._schema import InputSchema
from .damaged import DamagedFile

# Numbers of a sample: more than any has.
MOST_NUMBERS = 2**24
ORIGINS: dict[Any, Any] = {tuple: tuple, list: list, collections.abc.Sequence: (list, tuple)}


def check_kinds(value: Any, where: str = "predictor") -> None:
    """Refuse a dataclass or named tuple one of whose fields is of another kind than it says."""
    hints = typing.get_type_hints(type(value))
    for name in _field_names(value):
        found, place = getattr(value, name), f"{where}.{name}"
        if not _fits(found, hints[name]):
            raise DamagedFile(f"{place} is a {type(found).__name__}, and should be {hints[name]}")
        # Engines are built here, of parts that are checked by themselves.
        if _field_names(found) and name != "engine":
            check_kinds(found, place)


def _field_names(value: Any) -> list[str]:
    if is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in fields(value)]
    return list(getattr(value, "_fields", ()))


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the kind that a type hint names."""
    if hint is Any or getattr(hint, "_is_protocol", False):
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is collections.abc.Callable:
        return callable(value)
    if origin in ORIGINS:
        return isinstance(value, ORIGINS[origin]) and _items_fit(value, arguments)
    if hint is None or hint is type(None):
        return value is None
    if hint in (int, float):
        kinds = (int, float) if hint is float else (int,)
        return isinstance(value, kinds) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _items_fit(values: Any, arguments: tuple[Any, ...]) -> bool:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = arguments[:1]
    if len(arguments) == 1:
        return all(_fits(value, arguments[0]) for value in values)
    return len(values) == len(arguments) and all(map(_fits, values, arguments))


def check_samples(schema: InputSchema, n_inputs: int) -> None:
    """Refuse what no samples are like."""
    n_classes = len(schema.classes)
    _expect(schema.classes.ndim == 1 and n_classes > 0, "classes")
    _expect(len(schema.sample_shapes) == len(schema.dtypes) == n_inputs, "inputs")
    _expect(schema.input_names is None or len(schema.input_names) == n_inputs, "input names")
    _expect(schema.input_names is not None or n_inputs == 1, "input names")
    _expect(
        all(s >= 0 for shape in schema.sample_shapes for s in shape)
        and sum(_product(shape) for shape in schema.sample_shapes) <= MOST_NUMBERS,
        "shapes of samples",
    )


def check_sizes(predictor: Predictor, n_exits: int, n_inputs: int) -> None:
    """Refuse arrays of a predictor whose shapes do not fit each other.

    Parameters
    ----------
    predictor : Predictor
    n_exits : int
    n_inputs : int
        Of the network.
    """
    schema, cascade, point = predictor.schema, predictor.cascade, predictor.point
    n_classes = len(schema.classes)
    check_samples(schema, n_inputs)
    _expect(len(cascade.exits) == n_exits - 1, "exits")
    for costs in (cascade.exit_costs, predictor.frontier.exit_costs):
        _expect(costs.shape == (n_exits,) and _are_finite(costs), "exit costs")
    _check_columns(predictor)
    n_gate_inputs = point.gates.mean.shape[-1] if point.gates.mean.ndim else 0
    for gates in (point.gates, cascade.engine.gates, predictor.frontier.points):
        shape = (n_exits - 1, n_gate_inputs)
        _expect(type(gates) is GatePoints, "gates")
        _expect(gates.mean.shape == gates.scale.shape == shape, "gates")
        _expect(gates.weight.ndim == 3 and gates.weight.shape[1:] == shape, "gates")
        _expect(gates.bias.shape == gates.weight.shape[:2], "gates")
        _expect(_are_finite(gates.weight, gates.bias, gates.mean, gates.scale), "gates")
    _expect(len(point.gates.bias) == 1, "gates")
    samples = predictor.samples
    of_samples = [] if samples is None else [samples.answers]
    for answers in (predictor.frontier.answers, *of_samples):
        n_samples = len(answers.codes)
        _expect(answers.logits.shape == (n_samples, n_exits, n_classes), "answers")
        _expect(answers.backbone_logits.shape == (n_samples, n_classes), "answers")
        _expect(answers.gate_inputs.shape == (n_samples, n_exits - 1, n_gate_inputs), "answers")
        _expect(answers.weights.shape == answers.codes.shape == (n_samples,), "answers")
        _expect(_are_below(answers.codes, n_classes) and n_samples > 0, "answers")
        _expect(_are_finite(answers.weights) and answers.weights.sum() > 0, "weights")
    _check_calibration(predictor, n_exits)


def _check_columns(predictor: Predictor) -> None:
    columns, schema = predictor.schema.columns, predictor.schema
    if schema.feature_names is not None:
        _expect(schema.feature_names.shape == (schema.n_features,), "feature names")
    if columns is None:
        return
    n_columns = len(columns.names)
    of_columns = (columns.categories, columns.missing, columns.written)
    _expect(all(len(values) == n_columns for values in of_columns), "columns")
    _expect(schema.sample_shapes == ((n_columns,),), "columns")
    for numbers in (columns.fill, columns.offset):
        _expect(numbers is None or numbers.shape == (n_columns,), "columns")


def _check_calibration(predictor: Predictor, n_exits: int) -> None:
    calibration, samples = predictor.calibration, predictor.samples
    temperatures = calibration.temperatures
    _expect(temperatures.shape == (n_exits,) and _are_finite(temperatures), "temperatures")
    _expect(bool((temperatures > 0).all()), "temperatures")
    _expect((samples is None) == (calibration.sets is None), "calibration")
    observed = (calibration.exit_index, calibration.confidence, calibration.codes)
    _expect(len({array.shape for array in observed}) == 1 and observed[0].ndim == 1, "calibration")
    _expect(_are_below(calibration.exit_index, n_exits), "calibration")
    _expect(_are_below(calibration.codes, predictor.schema.n_classes), "calibration")
    _expect(_are_finite(calibration.confidence), "calibration")
    _expect(calibration.correct.shape in (calibration.codes.shape, (0,)), "calibration")
    _expect(calibration.correct.dtype == bool, "calibration")
    sets = calibration.sets
    if sets is not None:
        shapes = {array.shape for array in (sets.scores, sets.groups, sets.upper)}
        _expect(shapes == {(len(sets.scores),)} and sets.groups.dtype.kind in "iu", "scores")
        # Quantiles are an array of as many as the largest group's number.
        _expect(not len(sets.groups) or 0 <= sets.groups.min(), "groups")
        most = n_exits * predictor.schema.n_classes + len(sets.scores)
        _expect(not len(sets.groups) or sets.groups.max() <= most, "groups")
    if samples is not None:
        n_samples = len(samples.answers.codes)
        _expect(samples.uniform.shape == samples.groups.shape == (n_samples,), "calibration")
        _expect(_are_below(samples.groups, len(samples.known_groups)), "groups")


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise DamagedFile(f"its {what} do not fit each other")


def _product(shape: tuple[int, ...]) -> int:
    found = 1
    for size in shape:
        found *= size
    return found


def _are_finite(*arrays: np.ndarray) -> bool:
    return all(array.dtype.kind in "iuf" and bool(np.isfinite(array).all()) for array in arrays)


def _are_below(numbers: np.ndarray, end: int) -> bool:
    """Whether all are whole numbers from 0, and below ``end``."""
    if numbers.dtype.kind not in "iu":
        return False
    return not len(numbers) or bool(0 <= numbers.min() and numbers.max() < end)

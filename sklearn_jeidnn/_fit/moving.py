"""Answer in another precision, and learn on these answers what is learned on held-out samples."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from .._datasets import read_dataset
from .._engines.onnx_engine import OnnxEngine
from .._exits.building import N_PROBE_SAMPLES
from .._exits.usual_torch import usual_torch
from .._given import naming
from .._history import SampleHistory, input_hashes, sample_hashes
from .._operate.calibration import CalibrationSamples, SetRule
from .._operate.cascade import Cascade, Engine
from .._operate.frontier import Frontier
from .._operate.leakage import WHAT_TO_DO
from .._operate.operating_point import OperatingPoint
from .._parts import halve_as_before
from .._predictor import Predictor
from .._samples import GivenSamples, check_inputs
from .._schema import Arrays, InputSchema, Samples
from .._warn import warn_caller
from .engine_choice import check_engine, in_onnx
from .exit_times import time_exits
from .int8 import LEAST_SHARE, LEVEL, InInt8, compared, int8_engine, is_right
from .prices import relative_seconds, samples_of_a_call
from .relearning import relearned
from .spec import BFLOAT16, COMPILED, FASTEST, FLOAT32, INT8, ONNX_RUNTIME, TORCH, CascadeSpec
from .turns import FIT_TURNS
from .weights import normalised_weights


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Samples that no network learned from, which set mixing weights and gates.

    Parameters
    ----------
    inputs : tuple of ndarray (n_samples, ...)
        Checked, not encoded.
    codes, weights : tensor (n_samples,)
    """

    inputs: Arrays
    codes: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def of(cls, spec: CascadeSpec, schema: InputSchema, samples: Samples) -> "HeldOut":
        """Return samples, not encoded, with weights that include those of their classes."""
        weights = normalised_weights(spec.class_weight, schema, samples)
        return cls(
            inputs=samples.inputs,
            codes=torch.as_tensor(samples.codes),
            weights=torch.as_tensor(np.float32(weights)),
        )


class Moved(NamedTuple):
    """A cascade in a precision, with its frontier and its operating point."""

    cascade: Cascade
    frontier: Frontier
    point: OperatingPoint

    def calibrating(
        self, rule: SetRule, schema: InputSchema, samples: Samples
    ) -> CalibrationSamples:
        """Return what samples, not encoded, calibrate."""
        rule = replace(rule, takes_groups=False)
        return CalibrationSamples.read(rule, schema, self.cascade, samples.inputs, samples.codes)


def in_precision(
    spec: CascadeSpec, schema: InputSchema, cascade: Cascade, held_out: HeldOut
) -> Moved | None:
    """Return a cascade in the precision that a user asks for; None if that is the one that it has.

    Parameters
    ----------
    spec : CascadeSpec
    schema : InputSchema
    cascade : Cascade
        At its operating point.
    held_out : HeldOut
    """
    arrays = schema.encode(held_out.inputs)
    codes = held_out.codes.numpy()
    engine = _engine_in(spec, schema, cascade.engine, arrays, codes)
    if engine is cascade.engine:
        return None
    if spec.is_timed:
        times = time_exits(schema, engine, held_out.inputs, spec.cost_batch_size)
        cascade = cascade.with_costs(*times)
    engine, frontier, point = relearned(
        spec,
        engine,
        (arrays, held_out.codes, held_out.weights),
        cascade.exit_costs,
        cascade.plain_seconds,
    )
    return Moved(replace(cascade, engine=engine).at(point), frontier, point)


def moved_to_precision(
    spec: CascadeSpec,
    predictor: Predictor,
    X_val: Any,
    y_val: Any,
    loader_options: dict[str, Any],
    rng: np.random.RandomState,
) -> Predictor:
    """Return a predictor in the precision of the parameters, which learns anew from samples of its own.

    Half of them set mixing weights and gates, half calibrate probabilities and sets.

    Parameters
    ----------
    spec : CascadeSpec
    predictor : Predictor
    X_val, y_val : array-like or torch Dataset
        Samples that no network learned from.
    loader_options : dict
        How a dataset is read.
    rng : numpy.random.RandomState

    Raises
    ------
    ValueError
        If there are no such samples, or the precision cannot be had.
    """
    schema, cascade = predictor.schema, predictor.cascade
    if X_val is None:
        raise ValueError(
            f"precision={spec.precision!r} answers something else than {cascade.engine.precision!r}, so that gates, "
            f"probabilities and sets are learned anew; give X_val and y_val, samples that no network learned from, or "
            f"precision in the constructor."
        )
    check_engine(spec)
    samples = _read(schema, X_val, y_val, loader_options)
    hashes = sample_hashes(samples.inputs, samples.codes, schema.classes)
    gates, calibration = halve_as_before(hashes, predictor.history, rng)
    leakage = _leakage(predictor, samples, hashes, calibration)
    if leakage is not None:
        warn_caller(f"{leakage}. {WHAT_TO_DO}")
    with FIT_TURNS.take(), usual_torch():
        held_out = HeldOut.of(spec, schema, samples.take(gates))
        moved = in_precision(spec, schema, cascade, held_out)
    if moved is None:
        return predictor
    return Predictor.fit(
        schema=schema,
        cascade=moved.cascade,
        frontier=moved.frontier,
        point=moved.point,
        rule=predictor.rule,
        samples=moved.calibrating(predictor.rule, schema, samples.take(calibration)),
        history=SampleHistory.of(
            [hashes[:0], hashes[gates], hashes[calibration]], complete=True
        ).after(predictor.history),
        leakage=leakage,
    )


def _read(schema: InputSchema, X_val: Any, y_val: Any, loader_options: dict[str, Any]) -> Samples:
    """Return samples as a user gives them, checked and not encoded."""
    with naming("X_val"):
        given = read_dataset(GivenSamples(X=X_val, y=y_val), loader_options)
        arrays = check_inputs(schema, given.X)
    codes = schema.codes(given.y, len(arrays[0]), "y_val")
    return Samples(inputs=arrays, codes=codes, weights=np.ones(len(codes)))


def _leakage(
    predictor: Predictor, samples: Samples, hashes: np.ndarray, calibration: np.ndarray
) -> str | None:
    """Return why nothing holds that such samples calibrate; None if nothing says so."""
    n_used = predictor.history.count_used(hashes)
    if n_used:
        return f"{n_used} of {len(samples)} samples trained networks"
    calibrating = samples.take(calibration)
    return predictor.leakage_of(input_hashes(calibrating.inputs), calibrating.codes)


def _engine_in(
    spec: CascadeSpec, schema: InputSchema, engine: Any, arrays: Arrays, codes: np.ndarray
) -> Any:
    """Return an engine in the precision that is asked for; the same one if it has that."""
    if spec.precision == FASTEST:
        return _fastest(spec, schema, engine, arrays, codes)
    if spec.precision == engine.precision:
        return engine
    if spec.precision == INT8:
        found = int8_engine(_in_onnx(schema, engine, arrays), arrays, codes)
        if found.in_float32 and spec.verbose:
            print(f"precision={INT8!r}: {found.in_float32} stay in float32.")
        if not found.is_as_accurate:
            _warn_of_loss(found, len(codes))
        elif found.share < LEAST_SHARE:
            _warn_of_float32(found, len(codes))
        return found.engine
    return _in_torch(engine, spec.precision)


def _warn_of_loss(found: InInt8, n_samples: int) -> None:
    kept = f", with {found.in_float32} in float32" if found.in_float32 else ""
    warn_caller(
        f"precision={INT8!r} loses up to {100 * found.lost:.2g} points of accuracy at an exit{kept}, on {n_samples} "
        f"held-out samples, which chance does not explain. Gates and limits on the loss of accuracy take that into "
        f"account; precision={FLOAT32!r} loses nothing."
    )


def _warn_of_float32(found: InInt8, n_samples: int) -> None:
    warn_caller(
        f"precision={INT8!r} is asked for, but {found.in_float32} stay in float32, and with them all but "
        f"{100 * found.share:.0f} % of the convolutions and matrix products: in integers they lose more accuracy on "
        f"{n_samples} held-out samples than chance explains. Hardly any time is saved; give precision={FLOAT32!r}."
    )


def _in_onnx(schema: InputSchema, engine: Any, arrays: Arrays) -> OnnxEngine:
    if isinstance(engine, OnnxEngine) and engine.precision == FLOAT32:
        return engine
    few = tuple(array[:N_PROBE_SAMPLES] for array in arrays)
    return in_onnx(_in_float32(engine), few, schema)


def _in_float32(engine: Any) -> Any:
    """Return an engine in float32; the same one if it is."""
    return engine if engine.precision == FLOAT32 else _in_torch(engine, FLOAT32)


def _in_torch(engine: Any, precision: str) -> Any:
    """Return what runs the same network in torch, in another precision."""
    in_torch = engine.in_torch if isinstance(engine, OnnxEngine) else engine
    return in_torch.with_network(in_torch.network.in_precision(precision))


def _fastest(
    spec: CascadeSpec, schema: InputSchema, engine: Any, arrays: Arrays, codes: np.ndarray
) -> Any:
    """Return the fastest engine whose loss of accuracy, against float32, chance explains."""
    engine = _in_float32(engine)
    candidates: list[Engine] = [engine]
    if spec.engine in (FASTEST, TORCH, COMPILED):
        candidates.append(_in_torch(engine, BFLOAT16))
    if spec.engine in (FASTEST, ONNX_RUNTIME):
        found = _int8_or_none(spec, schema, engine, arrays, codes)
        candidates += [] if found is None else [found.engine]
    right = is_right(engine, arrays, codes)
    accurate = [
        other
        for other in candidates
        if other is engine or compared(right, is_right(other, arrays, codes)).chance >= LEVEL
    ]
    call = samples_of_a_call(arrays, spec.cost_batch_size, engine.batch_size)
    times = relative_seconds(
        [partial(other.route, call) for other in accurate], partial(engine.route, call)
    )
    fastest = accurate[int(np.argmin(times))]
    if spec.verbose:
        print(f"precision={FASTEST!r}: {fastest.precision} answers.")
    return fastest


def _int8_or_none(
    spec: CascadeSpec, schema: InputSchema, engine: Any, arrays: Arrays, codes: np.ndarray
) -> InInt8 | None:
    """Return the network in integers, or None if it cannot be had."""
    try:
        return int8_engine(_in_onnx(schema, engine, arrays), arrays, codes)
    except Exception as error:
        if spec.verbose:
            print(f"precision={FASTEST!r}: {INT8} cannot run the module ({error}).")
        return None

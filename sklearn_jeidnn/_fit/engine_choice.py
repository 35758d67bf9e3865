"""Which engine answers once everything is learned."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from .._cut import resized
from .._engines.onnx_engine import OnnxEngine
from .._engines.onnx_export import export_exits
from .._engines.onnx_sessions import Sessions
from .._engines.torch_engine import TorchEngine
from .._exits.building import N_PROBE_SAMPLES
from .._exits.usual_torch import usual_torch
from .._operate.cascade import Engine
from .._predictor import Predictor
from .._schema import Arrays, InputSchema
from .onnx_classifiers import classifier_as_onnx
from .prices import relative_seconds, samples_of_a_call
from .spec import (
    BFLOAT16,
    COMPILED,
    FASTEST,
    FLOAT32,
    INT8,
    ONNX_RUNTIME,
    TORCH,
    CascadeSpec,
)
from .turns import FIT_TURNS

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Largest difference between what engines answer, relative to the largest logit or 1: rounding.
MOST_ROUNDING = 1e-3


def engine_of(
    spec: CascadeSpec, in_torch: TorchEngine, samples: Arrays, schema: InputSchema
) -> Engine:
    """Return the engine that a user asks for.

    Parameters
    ----------
    spec : CascadeSpec
    in_torch : TorchEngine
    samples : tuple of ndarray (n_samples, ...)
        A few, on which engines are compared and timed.
    schema : InputSchema

    Raises
    ------
    ValueError
        If ONNX Runtime is asked for, and cannot run the network.
    """
    asked = spec.answering_engine
    if asked in (TORCH, COMPILED):
        return in_torch
    why = _why_torch(spec)
    if why is not None:
        _tell(spec, why)
        return in_torch
    try:
        found = in_onnx(in_torch, samples, schema)
    except Exception as error:
        if asked == ONNX_RUNTIME:
            raise ValueError(
                f"engine={ONNX_RUNTIME!r} cannot run the module: {_first_line(error)}. Give engine={TORCH!r}."
            ) from error
        _tell(spec, f"cannot run the module ({_first_line(error)})")
        return in_torch
    if asked == FASTEST and not _is_faster(found, in_torch, samples, spec.cost_batch_size):
        _tell(spec, "is no faster here")
        return in_torch
    return found


def in_engine(spec: CascadeSpec, predictor: Predictor) -> Predictor:
    """Return a predictor that the engine of the parameters runs; nothing is learned anew."""
    schema, cascade = predictor.schema, predictor.cascade
    # Only float32 is moved, in which engines answer the same up to rounding.
    in_torch: Any = cascade.engine
    check_engine(replace(spec, precision=in_torch.precision))
    if isinstance(in_torch, OnnxEngine):
        if spec.engine == ONNX_RUNTIME or in_torch.precision == INT8:
            return predictor
        in_torch = in_torch.in_torch
    network = in_torch.network.for_inference(spec.engine == COMPILED)
    in_torch = replace(in_torch, network=network)
    with FIT_TURNS.take(), usual_torch():
        engine = engine_of(spec, in_torch, schema.encode(schema.example(N_PROBE_SAMPLES)), schema)
    return replace(predictor, cascade=replace(cascade, engine=engine))


def to_compare(spec: CascadeSpec, predictor: Predictor, engine: str) -> Predictor:
    """Return a predictor in another engine; one in integers is in float32 in torch, with the same gates."""
    cascade, in_int8 = predictor.cascade, predictor.cascade.engine
    if (
        isinstance(in_int8, OnnxEngine)
        and in_int8.precision == INT8
        and engine in (TORCH, COMPILED)
    ):
        return replace(predictor, cascade=replace(cascade, engine=in_int8.in_torch))
    return in_engine(replace(spec, engine=engine), predictor)


def check_engine(spec: CascadeSpec) -> None:
    """Refuse an engine that cannot be had.

    Raises
    ------
    ImportError
        If packages are missing.
    ValueError
        If another parameter asks for what the engine does not have.
    """
    if spec.precision in (INT8, FASTEST) and not spec.is_joint:
        raise ValueError(
            f"precision={spec.precision!r} learns gates on the answers in that precision, which "
            f"gate_training={spec.gate_training!r} cannot; give gate_training='joint', or precision={FLOAT32!r}."
        )
    if spec.precision == INT8 and spec.engine in (TORCH, COMPILED):
        raise ValueError(
            f"precision={INT8!r} is computed by ONNX Runtime; got engine={spec.engine!r}. Give engine={ONNX_RUNTIME!r} "
            f"or {FASTEST!r}."
        )
    if spec.answering_engine != ONNX_RUNTIME:
        return
    asks = f"precision={INT8!r}" if spec.precision == INT8 else f"engine={ONNX_RUNTIME!r}"
    missing = _missing()
    if missing:
        raise ImportError(f"{asks} needs {', '.join(missing)}: pip install 'sklearn_jeidnn[onnx]'.")
    why = _why_torch(spec)
    if why is not None:
        raise ValueError(f"{asks} {why}; give engine={TORCH!r}.")


def usual_engines() -> list[str]:
    """Names of the engines that are there; what compiles for minutes is none of them."""
    return [TORCH] if _missing() else [TORCH, ONNX_RUNTIME]


def _missing() -> list[str]:
    return [name for name in PACKAGES if find_spec(name) is None]


def _why_torch(spec: CascadeSpec) -> str | None:
    """Why only torch can do what other parameters ask for; None if that is not so."""
    missing = _missing()
    if missing:
        return f"needs {missing}"
    if torch.device(spec.device).type != "cpu":
        return f"runs on the CPU, but device={str(spec.device)!r}"
    if spec.precision == BFLOAT16:
        return f"computes in float32 or int8, but precision={spec.precision!r}"
    return None


def in_onnx(in_torch: TorchEngine, samples: Arrays, schema: InputSchema) -> OnnxEngine:
    """Return the same network in ONNX Runtime, once it has answered the same.

    Raises
    ------
    ValueError
        If it answers something else.
    """
    tensors = _at_least_two(samples)
    classifiers = [classifier_as_onnx(stage) for stage in in_torch.network.stages]
    graph = export_exits(in_torch.network, tensors, schema.n_classes, schema.length, classifiers)
    engine = OnnxEngine(in_torch=in_torch, sessions=Sessions(graph))
    # A graph may know the number of samples, and the length of sentences, that it was made with.
    one = tuple(array[:1] for array in samples)
    for some in (one, samples, _shorter(samples, schema.length)):
        _check_same(in_torch.answer(some).logits, engine.answer(some).logits)
    return engine


def _shorter(samples: Arrays, length: int | None) -> Arrays:
    """The samples with sentences of another length, where that may differ."""
    if length is None:
        return samples
    tensors = tuple(torch.as_tensor(array) for array in samples)
    return tuple(tensor.numpy() for tensor in resized(tensors, length, length - 1))


def _check_same(expected: np.ndarray, found: np.ndarray) -> None:
    """Refuse logits (n_samples, n_exits, n_classes) that differ by more than rounding."""
    most = MOST_ROUNDING * max(1.0, float(np.nanmax(np.abs(expected), initial=0)))
    if not np.allclose(expected, found, rtol=0, atol=most, equal_nan=True):
        difference = np.nanmax(np.abs(expected - found))
        raise ValueError(
            f"logits of {len(expected)} samples differ by up to {difference:.3g} from torch's"
        )


def _at_least_two(samples: Arrays) -> list[torch.Tensor]:
    """Tensors of samples, doubled: torch takes a dimension of one for a constant."""
    return [torch.as_tensor(np.concatenate([array, array])) for array in samples]


def _is_faster(
    in_onnx: OnnxEngine, in_torch: TorchEngine, samples: Arrays, n_samples: int | None
) -> bool:
    """Whether ONNX Runtime takes less time than torch for a call of so many samples."""
    arrays = samples_of_a_call(samples, n_samples, in_torch.batch_size)
    (relative,) = relative_seconds(
        [partial(in_onnx.route, arrays)], partial(in_torch.route, arrays)
    )
    return bool(relative < 1)


def _tell(spec: CascadeSpec, what: str) -> None:
    if spec.verbose:
        print(f"engine={FASTEST!r}: {ONNX_RUNTIME} {what}, so {TORCH} answers.")


def _first_line(error: BaseException) -> str:
    # torch's first line says which step of an export failed, and not why.
    while error.__cause__ is not None:
        error = error.__cause__
    lines: Sequence[str] = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"

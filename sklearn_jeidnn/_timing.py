"""What calls take: the estimator's methods that measure run times."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._datasets import is_dataset
from ._engines.torch_engine import as_tensors
from ._exits.usual_torch import usual_torch
from ._fit import CascadeSpec
from ._fit.engine_choice import to_compare, usual_engines
from ._fit.engine_table import engine_table
from ._fit.exit_times import times_of_example
from ._fit.features import check_room
from ._fit.prices import COUNTED, TIMED, relative_exit_costs
from ._fit.spec import ENGINES
from ._fit.turns import FIT_TURNS
from ._numbers import check_number
from ._predictor import Predictor
from ._samples import check_inputs
from ._warn import warn_caller


class TimingMixin:
    """The methods of :class:`EarlyExitClassifier` that time exits."""

    _predictor: Predictor

    def measure_costs(self, cost: str = TIMED, *, batch_size: int | None = None) -> np.ndarray:
        """What it costs to leave at each exit, in another unit or on another machine.

        Parameters
        ----------
        cost : {"seconds", "multiply_adds"}, default="seconds"
        batch_size : int, default=None
            Samples of a call that is timed; None takes several batches, of at most 4096 samples.

        Returns
        -------
        exit_costs : ndarray (n_exits,)
            Relative to one pass of the plain backbone: a price table for ``cost`` of another fit, or
            for ``at(exit_costs=...)``.

        Raises
        ------
        ValueError
            If there is no such unit.
        """
        check_is_fitted(self)
        if not isinstance(cost, str) or cost not in (COUNTED, TIMED):
            raise ValueError(f"cost={cost!r} is not known; give {TIMED!r} or {COUNTED!r}.")
        if batch_size is not None:
            check_number(batch_size, "batch_size", least=1, whole=True)
            if cost != TIMED:
                warn_caller(
                    f"batch_size={batch_size!r} is not read, since it is for cost={TIMED!r}."
                )
        schema, engine = self._predictor.schema, self._predictor.cascade.engine
        if cost == TIMED:
            return times_of_example(schema, engine, batch_size).exit_costs
        with FIT_TURNS.take(), usual_torch():
            inputs = as_tensors(schema.encode(schema.example(3)))
            return relative_exit_costs(engine.network, tuple(t.to(engine.device) for t in inputs))

    def _is_to_be_timed(self, before: Any, seconds: float | None, batch_size: int | None) -> bool:
        """Whether exits have to be timed, of a classifier that may have moved to another engine."""
        if batch_size is not None:
            return True
        if CascadeSpec.of(self).is_timed and self is not before:
            return True
        return seconds is not None and self._predictor.cascade.plain_seconds is None

    def _timed(self, batch_size: int | None) -> Any:
        """The same classifier with the run times of its engine for costs, in calls of so many samples."""
        other: Any = copy.copy(self)
        other.set_params(cost=TIMED, cost_batch_size=batch_size)
        other._validate_params()
        predictor = self._predictor
        if batch_size is not None:
            sample_bytes = sum(array.nbytes for array in predictor.schema.example(1))
            check_room(batch_size * sample_bytes, "cost_batch_size", batch_size)
        times = times_of_example(predictor.schema, predictor.cascade.engine, batch_size)
        return other._adopt(predictor.priced(*times))

    def benchmark_engines(
        self, X: Any, y: Any = None, *, engines: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Time the whole network and its exits in several engines, side by side.

        Parameters
        ----------
        X : array-like (n_samples, ...)
            The samples of one call: give as many as a call will have, and real ones, since they decide where
            they leave.
        y : array-like (n_samples,), default=None
            Their labels.
        engines : sequence of str, default=None
            As the constructor names them; None takes "torch", and "onnxruntime" if it is installed.

        Returns
        -------
        table : dict of str to ndarray (n_rows,)
            ``engine``, ``precision``; ``what``, "whole network" (the plain backbone) or "exits"; ``microseconds``, of
            a sample, median over several turns, and ``microseconds_p95``, their 95th percentile; ``accuracy``, NaN
            without ``y``. Samples are checked before, so that engines alone are timed.
        """
        check_is_fitted(self)
        names = usual_engines() if engines is None else engines
        is_list = isinstance(names, Sequence) and not isinstance(names, str)
        if not is_list or not names or not all(name in ENGINES for name in names):
            raise ValueError(
                f"engines={engines!r} is not allowed; give a list of names, such as {usual_engines()}, of {ENGINES}."
            )
        if is_dataset(X):
            raise TypeError("X is a torch Dataset; give the samples of one call as arrays.")
        schema = self._predictor.schema
        arrays = schema.encode(check_inputs(schema, X))
        codes = None if y is None else schema.codes(y, len(arrays[0]), "y")
        spec = CascadeSpec.of(self)
        predictors = {name: to_compare(spec, self._predictor, name) for name in names}
        return engine_table(predictors, arrays, codes)

"""Run times of networks before they learn, in the engine that answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
import torch

from .._engines.onnx_engine import OnnxEngine
from .._engines.torch_engine import TorchEngine
from .._operate.cascade import Engine
from .._schema import Arrays, InputSchema
from .engine_choice import engine_of, in_onnx
from .int8 import as_int8
from .memory import fingerprint
from .prices import relative_seconds, samples_of_a_call
from .spec import INT8, CascadeSpec

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class WholeTimes:
    """Measures networks beside the plain backbone.

    What is quick in torch need not be in integers: there a third of the channels takes as long.

    Parameters
    ----------
    spec : CascadeSpec
    schema : InputSchema
    plain : TorchEngine
        The plain backbone, as one stage.
    samples : tuple of ndarray (n_samples, ...)
        A few, which are repeated.
    """

    spec: CascadeSpec
    schema: InputSchema
    plain: TorchEngine
    samples: Arrays

    def of(self, networks: Sequence[TorchEngine]) -> np.ndarray:
        """Return the times of networks of one stage, relative to the plain backbone's: (n_networks,)"""
        if not networks:
            return np.empty(0)
        return self._stored(partial(self._times, networks), networks)

    def _times(self, networks: Sequence[TorchEngine]) -> np.ndarray:
        call = self._call
        engines = [self._as_plain(network) for network in networks]
        return relative_seconds(
            [partial(engine.whole_logits, call) for engine in engines],
            partial(self._plain_engine.whole_logits, call),
        )

    def of_all_exits(self, network: TorchEngine) -> float:
        """Return the time of samples that pass every exit of a network, relative to the plain backbone's."""
        return self._stored(partial(self._time_of_all_exits, network), [network])

    def _stored(self, measure: Callable[[], Result], networks: Sequence[TorchEngine]) -> Result:
        """Measured times, or those that decided before the fit was killed: others could decide otherwise."""
        return self.spec.stored.finished(
            measure,
            lambda: ("times", [fingerprint(engine.network) for engine in networks]),
            always=True,
        )

    def _time_of_all_exits(self, network: TorchEngine) -> float:
        call, engine = self._call, self._as_plain(network)
        last = torch.full((len(call[0]),), network.network.n_exits - 1)
        (relative,) = relative_seconds(
            [partial(engine.route, call, last)], partial(self._plain_engine.whole_logits, call)
        )
        return float(relative)

    @property
    def _call(self) -> Arrays:
        """The samples of a call."""
        return samples_of_a_call(self.samples, self.spec.cost_batch_size, self.plain.batch_size)

    @cached_property
    def _plain_engine(self) -> Engine:
        """What would answer without exits."""
        quiet = replace(self.spec, verbose=0)
        return self._in_precision(engine_of(quiet, self.plain, self.samples, self.schema))

    def _as_plain(self, network: TorchEngine) -> Engine:
        """Return a network in the plain backbone's engine."""
        if not isinstance(self._plain_engine, OnnxEngine):
            return network
        return self._in_precision(in_onnx(network, self.samples, self.schema))

    def _in_precision(self, engine: Engine) -> Engine:
        if isinstance(engine, OnnxEngine) and self.spec.precision == INT8:
            return as_int8(engine, self.samples)
        return engine

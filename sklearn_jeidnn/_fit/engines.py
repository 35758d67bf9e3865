"""The engines of a fit: what runs its networks, and how long that takes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .._engines.torch_engine import TorchEngine
from .._exits.network import EarlyExitNetwork
from .._operate.cascade import Engine
from .._schema import Arrays, InputSchema
from .assembly import Assembly
from .engine_choice import engine_of
from .exit_times import plain_seconds_of, time_exits
from .int8 import as_int8
from .priced_network import PricedNetwork
from .spec import COMPILED, INT8, CascadeSpec


@dataclass(frozen=True, kw_only=True)
class Engines:
    """What runs networks.

    Parameters
    ----------
    spec : CascadeSpec
    schema : InputSchema
    assembly : Assembly
    samples : tuple of ndarray (n_samples, ...)
        Those that train, not encoded, which are timed.
    """

    spec: CascadeSpec
    schema: InputSchema
    assembly: Assembly
    samples: Arrays

    def in_torch(self, network: EarlyExitNetwork, compiles: bool | None = None) -> TorchEngine:
        """Return what runs a network in torch; ``compiles`` of None takes what the parameters say."""
        if compiles is None:
            compiles = self.spec.engine == COMPILED
        return self.assembly.in_torch(network, compiles)

    def answering(self, network: EarlyExitNetwork, schema: InputSchema | None = None) -> Engine:
        """Return what runs a network in prediction, on samples as a schema knows them.

        It computes in the precision of training; what :mod:`.moving` does comes later.
        """
        in_torch = self.in_torch(network)
        return engine_of(self.spec, in_torch, self.assembly.few_samples, schema or self.schema)

    def while_choosing(self, network: EarlyExitNetwork) -> Engine:
        """Return what networks are timed in while those that are kept are chosen.

        In float32 that does not wait for the export of each chain that members could make; in integers a network that
        is quick in torch may not be.
        """
        if self.spec.precision != INT8:
            return self.in_torch(network)
        engine: Any = self.answering(network)
        return as_int8(engine, self.assembly.few_samples)

    def with_measured_costs(
        self, priced_network: PricedNetwork, make_engine: Callable[[EarlyExitNetwork], Engine]
    ) -> PricedNetwork:
        """Replace the costs by run times, if costs are timed."""
        if not self.spec.is_timed:
            return priced_network
        times = time_exits(
            self.schema,
            make_engine(priced_network.network),
            self.samples,
            self.spec.cost_batch_size,
        )
        return replace(priced_network, **times._asdict())

    def plain_seconds(self, network: EarlyExitNetwork) -> float:
        """Measure the time of one sample in a network without exits."""
        return plain_seconds_of(
            self.schema, self.answering(network), self.samples, self.spec.cost_batch_size
        )

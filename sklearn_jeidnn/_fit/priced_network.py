"""A network whose exits have costs."""

from dataclasses import dataclass

import numpy as np

from .._exits.network import EarlyExitNetwork


@dataclass(frozen=True, kw_only=True)
class PricedNetwork:
    """One network of all members, with the costs of its exits.

    Parameters
    ----------
    network : EarlyExitNetwork
    names : list of str
        Names of all exits but the last.
    exit_costs : ndarray (n_exits,)
    plain_seconds : float or None, default=None
        Of one sample, of the plain backbone, if costs are run times.
    first_alone : float or None, default=None
        Cost of the first exit in calls whose samples all leave there, if costs are run times.
    """

    network: EarlyExitNetwork
    names: list[str]
    exit_costs: np.ndarray
    plain_seconds: float | None = None
    first_alone: float | None = None

    @property
    def least_cost(self) -> float:
        """The least mean cost that an operating point can have."""
        return float(self.exit_costs[0]) if self.first_alone is None else self.first_alone

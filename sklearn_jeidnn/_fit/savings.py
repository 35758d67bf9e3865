"""Whether exits save anything at all."""

import numpy as np

from .._warn import warn_caller
from .assembly import Assembly
from .prices import COUNTED
from .spec import CascadeSpec


def warn_if_nothing_is_saved(
    spec: CascadeSpec, n_classes: int, assembly: Assembly, exit_costs: np.ndarray
) -> None:
    """Warn where leaving at the first exit costs as much as the last member alone.

    Parameters
    ----------
    spec : CascadeSpec
    n_classes : int
    assembly : Assembly
    exit_costs : ndarray (n_exits,)
    """
    if assembly.ends_in_classifier:
        if exit_costs[0] >= 1:
            warn_caller(
                f"nothing is saved: leaving at the first exit costs {exit_costs[0]:.3g} times what the last member "
                f"costs alone, {assembly.shown_module!r}. Take it alone, or put something cheaper in front."
            )
        return
    is_counted = isinstance(spec.cost, str) and spec.cost == COUNTED
    if isinstance(spec.exits, str) and is_counted and exit_costs[0] >= 1:
        warn_caller(
            f"exits='auto' found no early exit that saves anything: with {n_classes} classes a head costs more than "
            f"what it saves, and leaving at the first exit costs {exit_costs[0]:.3g} passes of the plain backbone. A "
            f"larger module, head='linear' or a companion in front may save something."
        )

"""The objective: expected loss plus cost (arrays or tensors)."""

from .._exits.policy import Array


def expected_cost(
    exit_distribution: Array, losses: Array, exit_costs: Array, cost_weight: Array | float
) -> Array:
    """The objective of each sample: ``sum_l P_l (loss_l + cost_weight * c_l)``.

    Equation 4 of arXiv 2310.09163. Takes NumPy arrays or torch tensors.

    Parameters
    ----------
    exit_distribution : array or tensor (..., n_exits)
    losses : array or tensor (..., n_exits)
    exit_costs : array or tensor (n_exits,)
    cost_weight : float, or array that broadcasts

    Returns
    -------
    array or tensor (...)
    """
    return (exit_distribution * with_costs(losses, exit_costs, cost_weight)).sum(-1)


def with_costs(losses: Array, exit_costs: Array, cost_weight: Array | float) -> Array:
    """What a sample spends at each exit: ``loss_l + cost_weight * c_l``; shapes need only broadcast."""
    return losses + cost_weight * exit_costs


def best_exit(losses: Array, exit_costs: Array, cost_weight: float) -> Array:
    """In hindsight, the exit with the smallest loss plus cost: ``argmin_l loss_l + cost_weight * c_l``."""
    return with_costs(losses, exit_costs, cost_weight).argmin(-1)

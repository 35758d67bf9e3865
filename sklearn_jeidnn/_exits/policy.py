"""From gate probabilities to exits: a distribution for training, a decision for prediction.

Every function takes NumPy arrays or torch tensors, and imports neither.
"""

import sys
from collections.abc import Callable
from typing import Any

# A NumPy array or a torch tensor; a function returns the kind that it is given.
Array = Any
# Mass that a gate takes: (gate probability, survival) -> mass.
ExitMass = Callable[[Array, Array], Array]


def namespace_of(array: Array) -> Any:
    """Return the module whose functions work on an array: numpy, or torch for its tensors."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def sigmoid(scores: Array) -> Array:
    """Probabilities whose logits these are; NaN stays NaN."""
    if hasattr(scores, "sigmoid"):
        return scores.sigmoid()
    numpy = namespace_of(scores)
    with numpy.errstate(invalid="ignore"):
        return numpy.exp(-numpy.logaddexp(0, -scores))


def sequential_mass(gate_prob: Array, survival: Array) -> Array:
    """Mass of a gate that takes its share of what is left: ``P_l = g_l prod_{j<l} (1 - g_j)``."""
    return gate_prob * survival


def direct_mass(gate_prob: Array, survival: Array) -> Array:
    """Mass of a gate that gives it directly, up to what is left.

    ``P_l = max(0, min(g_l, 1 - sum_{j<l} P_j))``
    """
    return namespace_of(gate_prob).minimum(gate_prob, survival)


EXIT_DISTRIBUTIONS: dict[str, ExitMass] = {"sequential": sequential_mass, "direct": direct_mass}


def _sequential_slopes(gate_prob: Array, survival: Array) -> tuple[Array, Array]:
    """Derivatives of :func:`sequential_mass` with respect to its two arguments."""
    return survival, gate_prob


def _direct_slopes(gate_prob: Array, survival: Array) -> tuple[Array, Array]:
    """Derivatives of :func:`direct_mass`, of whose two arguments the smaller one alone counts."""
    gives_its_own = (gate_prob < survival).astype(gate_prob.dtype)
    return gives_its_own, 1 - gives_its_own


# The derivatives of each mass with respect to a gate's probability and to what is left.
MassSlopes = Callable[[Array, Array], tuple[Array, Array]]
MASS_SLOPES: dict[ExitMass, MassSlopes] = {
    sequential_mass: _sequential_slopes,
    direct_mass: _direct_slopes,
}


def exit_distribution(gate_probs: Array, exit_mass: ExitMass) -> Array:
    """Probability of each exit for each sample; the last exit gets the mass that no gate takes.

    Parameters
    ----------
    gate_probs : array or tensor (..., n_exits - 1)
    exit_mass : callable
        A value of ``EXIT_DISTRIBUTIONS``.

    Returns
    -------
    array or tensor (..., n_exits)
        Sums to 1 over the last axis.
    """
    masses, survival = _masses(gate_probs, exit_mass)
    return namespace_of(gate_probs).stack([*masses, survival[-1]], -1)


def exit_distribution_gradient(gate_probs: Array, exit_mass: ExitMass, losses: Array) -> Array:
    """Gradient of ``sum_l P_l loss_l``, where ``P`` is the :func:`exit_distribution`, with respect to its gates.

    Parameters
    ----------
    gate_probs : ndarray (..., n_exits - 1)
    exit_mass : callable
        A value of ``EXIT_DISTRIBUTIONS``.
    losses : ndarray (..., n_exits)

    Returns
    -------
    ndarray (..., n_exits - 1)
        In memory as ``gate_probs``.
    """
    slopes, (_, survival) = MASS_SLOPES[exit_mass], _masses(gate_probs, exit_mass)
    gradient = namespace_of(gate_probs).empty_like(gate_probs)
    onward = losses[..., -1]  # derivative with respect to the mass that is left
    for gate in reversed(range(gate_probs.shape[-1])):
        by_gate, by_survival = slopes(gate_probs[..., gate], survival[gate])
        gain = losses[..., gate] - onward
        gradient[..., gate] = gain * by_gate
        onward = onward + gain * by_survival
    return gradient


def _masses(gate_probs: Array, exit_mass: ExitMass) -> tuple[list[Array], list[Array]]:
    """Mass that each exit but the last takes, and the mass that is left before each exit."""
    # The sum of the first gate alone, or of none, has the shape.
    survival = [namespace_of(gate_probs).ones_like(gate_probs[..., :1].sum(-1))]
    masses: list[Array] = []
    for gate in range(gate_probs.shape[-1]):
        masses.append(exit_mass(gate_probs[..., gate], survival[-1]))
        survival.append(survival[-1] - masses[-1])
    return masses, survival


def leaves(mass: Array, survival: Array) -> Array:
    """Whether a sample leaves at an exit: the exit takes at least half of the mass that is left."""
    return mass >= 0.5 * survival


def decide(score: Array, survival: Array, exit_mass: ExitMass) -> tuple[Array, Array]:
    """Decide which samples leave at an exit, and how much mass is left after it.

    Parameters
    ----------
    score : array or tensor (n_samples,)
        Logits of the gate's probabilities.
    survival : array or tensor (n_samples,)
        Mass that no earlier exit has taken.
    exit_mass : callable
        A value of ``EXIT_DISTRIBUTIONS``.

    Returns
    -------
    leave : array or tensor of bool (n_samples,)
    survival : array or tensor (n_samples,)
    """
    if exit_mass is sequential_mass:
        # Half of what is left is half of the gate's own probability, whatever is left.
        return score >= 0, survival
    # A gate without an answer, of an exit without one, takes nothing.
    mass = exit_mass(namespace_of(score).nan_to_num(sigmoid(score)), survival)
    return leaves(mass, survival), survival - mass


def exits_taken(gate_probs: Array, exit_mass: ExitMass) -> Array:
    """Exit of each sample by the rule of prediction: (..., n_exits - 1) -> (...)

    Where a gate's probability is NaN, the sample stays.
    """
    masses, survival = _masses(namespace_of(gate_probs).nan_to_num(gate_probs), exit_mass)
    leaving = [leaves(*pair) for pair in zip(masses, survival, strict=False)]
    namespace = namespace_of(gate_probs)
    at_last = namespace.ones_like(survival[-1])  # equivalent mutant: only the shape is read
    return namespace.stack([*(here + 0 * at_last for here in leaving), at_last], -1).argmax(-1)

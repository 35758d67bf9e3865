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


def _masses(gate_probs: Array, exit_mass: ExitMass) -> tuple[list[Array], list[Array]]:
    """Mass that each exit but the last takes, and the mass that is left before each exit."""
    survival = [namespace_of(gate_probs).ones_like(gate_probs.sum(-1))]
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

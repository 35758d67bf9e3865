"""From gate probabilities to exits: the distribution that training reads, the choice that prediction makes."""

import torch


def sequential_mass(gate_prob, unspent):
    """Each gate takes its share of the mass that has come this far: ``P_l = g_l prod_{j<l} (1 - g_j)``."""
    return gate_prob * unspent


def direct_mass(gate_prob, unspent):
    """Each gate says the mass itself, as far as it is left: ``P_l = max(0, min(g_l, 1 - sum_{j<l} P_j))``."""
    return torch.minimum(gate_prob, unspent)


EXIT_MASSES = {"sequential": sequential_mass, "direct": direct_mass}


def exit_distribution(gate_probs, exit_mass):
    """Probability of each exit for each row; what no gate takes is the last exit's.

    Parameters
    ----------
    gate_probs : tensor (..., n_exits - 1)
    exit_mass : callable
        One of ``EXIT_MASSES``.

    Returns
    -------
    tensor (..., n_exits)
        Sums to 1 over the last axis.
    """
    unspent = torch.ones_like(gate_probs[..., 0])
    masses = []
    for gate_prob in gate_probs.unbind(-1):
        masses.append(exit_mass(gate_prob, unspent))
        unspent = unspent - masses[-1]
    return torch.stack([*masses, unspent], dim=-1)


def leaves(mass, unspent):
    """Whether a row leaves here: the exit takes at least half of the mass that has come this far."""
    return mass >= 0.5 * unspent


def decide(score, unspent, exit_mass):
    """Which rows leave at an exit, and what mass is left behind it.

    Parameters
    ----------
    score : tensor (n_samples,)
        Logits of the gate's probabilities.
    unspent : tensor (n_samples,)
    exit_mass : callable
        One of ``EXIT_MASSES``.

    Returns
    -------
    leave : tensor of bool (n_samples,)
    unspent : tensor (n_samples,)
    """
    if exit_mass is sequential_mass:
        # Half of what is left is half of the gate's own probability, whatever is left.
        return score >= 0, unspent
    mass = exit_mass(score.sigmoid(), unspent)
    return leaves(mass, unspent), unspent - mass


def exits_taken(gate_probs, exit_mass):
    """Exit of each row by the rule of prediction: (..., n_exits - 1) -> (...)"""
    distribution = exit_distribution(gate_probs, exit_mass)
    unspent = 1 - (distribution.cumsum(-1) - distribution)
    leaving = leaves(distribution, unspent)
    leaving[..., -1] = True
    return leaving.int().argmax(-1)

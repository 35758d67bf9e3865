"""Combine each exit's answer with those before it: a log-linear pool, fitted on held-out samples."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from .._exits.exit_heads import ExitHeads, ExitOutput, PreviousExit
from .._operate.exit_answers import with_gaps
from .._operate.temperatures import MAX_LOG_TEMPERATURE, log_softmax, smoothed_errors
from .features import ExitFeatures

# Loss and gradient at some parameters: (n_parameters,) -> value, (n_parameters,)
LossWithGradient = Callable[[np.ndarray], tuple[float, np.ndarray]]

PENALTY = 1e-3
# Share of the observed errors among those that choose whether exits are combined at all.
OBSERVED_SHARE = 0.5


@torch.no_grad()
def fit_mixing_weights(
    heads: ExitHeads, held_out: ExitFeatures, *, plain_last: bool = False
) -> None:
    """Learn the weights with which each exit's log-probabilities are combined with those of earlier exits.

    The weights have the least log-loss on samples that no member was trained on. The weight of the previous
    member, or both weights, are 0 if that makes fewer errors, as :func:`smoothed_errors` counts them.

    Parameters
    ----------
    heads : ExitHeads
    held_out : ExitFeatures
    plain_last : bool, default=False
        Whether the last exit's answer stays as it is.
    """
    n_exits = len(held_out.features)
    weights = np.zeros((2, n_exits))
    heads.mix(0.0, 0.0)
    held_out = _answered(heads, held_out)
    before = None
    for exit_index, feature in enumerate(held_out.features):
        output = heads.one(exit_index, feature, before)
        if before is not None and not (plain_last and exit_index == n_exits - 1):
            best = _best_weights(output, before, held_out, exit_index not in heads.first_exits)
            weights[:, exit_index] = best
            output = output.combined(before, *best)
        before = heads.passed_on(exit_index, output, before)
    heads.mix(*weights)


def _answered(heads: ExitHeads, held_out: ExitFeatures) -> ExitFeatures:
    """Samples for which every exit has an answer; refuse held-out samples among which there are none."""
    answered = heads(held_out.features).amax(-1).isfinite().all(1)
    if bool(answered.all()):
        return held_out
    if not bool(answered.any()):
        raise ValueError(
            f"module (or a companion) answers all {len(answered)} held-out samples that set the gates with NaN or "
            f"infinity; give other samples as X_val, or mend the module's forward."
        )
    return held_out.take(answered.nonzero().flatten())


def _best_weights(
    output: ExitOutput, before: PreviousExit, held_out: ExitFeatures, reads_member: bool
) -> tuple[float, float]:
    """Return the weights of the previous exit and of the previous member that make fewest errors.

    Parameters
    ----------
    output : ExitOutput
    before : PreviousExit
    held_out : ExitFeatures
    reads_member : bool
        False at the first exit of a member: there the previous exit is the previous member's last one.
    """
    (weight,) = _fit_weights(output.head_logits, [before.log_probs], held_out)
    candidates = [(weight, 0.0), (0.0, 0.0)]
    if reads_member and before.previous_member_log_probs is not None:
        others = [before.log_probs, before.previous_member_log_probs]
        weight, member_weight = _fit_weights(output.head_logits, others, held_out)
        candidates.insert(0, (weight, member_weight))
    errors = [_mean_errors(output.combined(before, *pair).logits, held_out) for pair in candidates]
    return candidates[int(np.argmin(errors))]


def _mean_errors(logits: torch.Tensor, held_out: ExitFeatures) -> float:
    tensors = (logits[:, None], held_out.y, held_out.weight)
    logits_of_exit, codes, weights = (tensor.cpu().numpy() for tensor in tensors)
    errors = smoothed_errors(with_gaps(logits_of_exit), codes, weights, OBSERVED_SHARE)
    return float(weights @ errors[:, 0])


def pooled_log_loss(members: Sequence[ExitFeatures]) -> float:
    """Least log-loss of a pool of several members' last exits, on samples that none was trained on.

    Samples that a member has no answer for count as if it knew nothing of them.
    """
    first = members[0]
    log_probs = [member.features[-1].log_softmax(-1) for member in members]
    return _fit_pool(log_probs[0], log_probs[1:], first).log_loss


def _fit_weights(
    head_logits: torch.Tensor, others: Sequence[torch.Tensor], held_out: ExitFeatures
) -> tuple[float, ...]:
    return _fit_pool(head_logits, others, held_out).weights


class _Pool(NamedTuple):
    """A fitted pool."""

    weights: tuple[float, ...]  # of all but the first
    log_loss: float


def _fit_pool(
    head_logits: torch.Tensor, others: Sequence[torch.Tensor], held_out: ExitFeatures
) -> _Pool:
    """Fit softmax(a (head_logits + sum_i w_i others_i)) over a > 0 and w >= 0 by log-loss."""
    head, *previous = (
        with_gaps(tensor.cpu().double().numpy()) for tensor in (head_logits, *others)
    )
    codes, weights = held_out.y.cpu().numpy(), held_out.weight.cpu().double().numpy()
    samples = np.arange(len(codes))

    def log_loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scale, mixing = np.exp(parameters[0]), parameters[1:]
        logits = scale * (head + sum(w * before for w, before in zip(mixing, previous)))
        log_probs = log_softmax(logits)
        residuals = np.exp(log_probs)
        residuals[samples, codes] -= 1
        residuals *= weights[:, None] / len(codes)
        gradient = [np.vdot(residuals, logits)]
        gradient += [scale * np.vdot(residuals, before) for before in previous]
        value = -(weights * log_probs[samples, codes]).mean()
        penalty = PENALTY * np.square(parameters).sum()
        return value + penalty, np.array(gradient) + 2 * PENALTY * parameters

    least = [-MAX_LOG_TEMPERATURE] + [0.0] * len(others)
    best = bounded_minimum(log_loss, 1 + len(others), least)
    penalty = PENALTY * float(np.square(best).sum())
    return _Pool(tuple(map(float, best[1:])), log_loss(best)[0] - penalty)


def bounded_minimum(
    loss: LossWithGradient, n_parameters: int, least: ArrayLike = -MAX_LOG_TEMPERATURE
) -> np.ndarray:
    """Parameters (n_parameters,) that minimise a smooth loss, starting from 0.

    They lie between ``least`` (a number, or one for each) and ``MAX_LOG_TEMPERATURE``.
    """
    bounds = [(low, MAX_LOG_TEMPERATURE) for low in np.broadcast_to(least, n_parameters)]
    minimum: np.ndarray = minimize(loss, np.zeros(n_parameters), jac=True, bounds=bounds).x
    return minimum

"""What heads minimise and what gates minimise: functions of tensors alone."""

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn import functional as F


def cross_entropy(logits, y):
    """(n_samples, n_exits, n_classes), (n_samples,) -> loss of each row at each exit (n_samples, n_exits)

    Instead of class codes ``y`` may hold probabilities, (n_samples, n_classes).
    """
    n_exits = logits.shape[1]
    at_every_exit = y.repeat_interleave(n_exits, dim=0)
    # One row for each exit: with classes last, the softmax is several times as fast.
    losses = F.cross_entropy(logits.flatten(0, 1), at_every_exit, reduction="none")
    return losses.unflatten(0, (-1, n_exits))


def zero_one(logits, y):
    """1 where the exit's label is wrong, else 0; shapes as in :func:`cross_entropy`."""
    return (logits.argmax(-1) != y[:, None]).to(logits.dtype)


def expected_zero_one(logits, temperatures):
    """Chance that the exit's label is wrong, by its own calibrated probabilities.

    Of calibrated exits this is the zero-one loss with the label's randomness averaged out: the same
    objective, at a fraction of its variance. On a few hundred held-out rows, with a dozen errors
    among them, gates that learn from the errors themselves learn noise.

    Parameters
    ----------
    logits : tensor (n_samples, n_exits, n_classes)
    temperatures : tensor (n_exits,)

    Returns
    -------
    tensor (n_samples, n_exits)
    """
    return 1 - (logits / temperatures[:, None]).softmax(-1).amax(-1)


# Of logarithms of temperatures, and of trust: wide enough for any use, narrow enough for any float.
BOUND = 6.0
# Errors that fell, beside errors that calibrated probabilities expect (measured on CIFAR-10 with 300 to 5,000
# held-out rows: half of each is 0.05 to 0.16 points better than the latter alone, the former alone worse).
SHARE_SEEN = 0.5


def bounded_minimum(loss, like, n_parameters, least=-BOUND):
    """Where a smooth loss is least between ``least`` and ``BOUND``, from 0: (n_parameters,)

    Parameters
    ----------
    loss : callable
        tensor (n_parameters,) -> tensor ()
    like : tensor
        Has the dtype and the device.
    n_parameters : int
    least : float or list of float
    """

    def with_gradient(values):
        parameters = like.new_tensor(values).requires_grad_()
        with torch.enable_grad():
            value = loss(parameters)
        (gradient,) = torch.autograd.grad(value, parameters)
        return value.item(), gradient.cpu().double().numpy()

    lower = np.broadcast_to(least, n_parameters)
    bounds = [(low, BOUND) for low in lower]
    found = minimize(with_gradient, np.zeros(n_parameters), jac=True, bounds=bounds)
    return like.new_tensor(found.x)


def temperatures(logits, y, weight):
    """What each exit's logits are divided by so that its probabilities are calibrated: (n_exits,)

    Least log-loss of these rows; Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural
    Networks", ICML 2017, section 4.2.
    """

    def log_loss(log_temperature):
        losses = cross_entropy(logits / log_temperature.exp()[:, None], y)
        # A weak pull towards 1 keeps the temperature finite where every row is right.
        return (weight[:, None] * losses).mean(0).sum() + 1e-2 * log_temperature.square().sum()

    return bounded_minimum(log_loss, logits, logits.shape[1]).exp()


# Rows' worth of evidence that the rows which leave at an exit are like all rows there (measured on CIFAR-10: of 500
# held-out rows 30 to 100 have the least log-loss, less overfits exits that few rows take; of 5,000 all are alike).
PULL = 30.0


def temperatures_of_leavers(logits, y, exit_index, of_all):
    """Temperature of each exit for the rows that leave there, pulled towards that of all rows there: (n_exits,)

    Parameters
    ----------
    logits : tensor (n_samples, n_classes)
        Of the exit taken.
    y, exit_index : tensor (n_samples,)
    of_all : tensor (n_exits,)
    """

    def log_loss(log_ratio):
        temperature = of_all * log_ratio.exp()
        losses = F.cross_entropy(logits / temperature[exit_index, None], y, reduction="sum")
        return (losses + PULL * log_ratio.square().sum()) / len(y)

    return of_all * bounded_minimum(log_loss, logits, len(of_all)).exp()


def errors_counted(logits, y, weight):
    """Errors as they are counted on held-out rows: half as they fell, half as calibrated probabilities expect.

    Shapes as in :func:`cross_entropy`; ``weight`` (n_samples,).
    """
    expected = expected_zero_one(logits, temperatures(logits, y, weight))
    return SHARE_SEEN * zero_one(logits, y) + (1 - SHARE_SEEN) * expected


def minus_true_probability(logits, y):
    """Minus the probability given to the right class; shapes as in :func:`cross_entropy`."""
    true = y[:, None, None].expand(-1, logits.shape[1], 1)
    return -logits.softmax(-1).gather(-1, true).squeeze(-1)


GATE_LOSSES = {
    "cross_entropy": cross_entropy,
    "zero_one": zero_one,
    "minus_true_probability": minus_true_probability,
}


def exits_together(logits, y, early_weight, distilled=0.5):
    """Loss of each row when the backbone learns with its exits: the last exit's, plus a little of the others'.

    An early exit's loss is part cross-entropy, part cross-entropy against the last exit's
    probabilities, so that early exits ask of the trunk little that the last one does not want.

    Parameters
    ----------
    logits : tensor (n_samples, n_exits, n_classes)
    y : tensor (n_samples,) or (n_samples, n_classes)
        Class codes, or probabilities.
    early_weight : float
        Weight of the early exits' mean loss; the last exit's is 1.
    distilled : float, default=0.5
        Share of the early exits' loss that is measured against the last exit.

    Returns
    -------
    tensor (n_samples,)
    """
    early, last = logits[:, :-1], logits[:, -1]
    if early.shape[1] == 0:
        return F.cross_entropy(last, y, reduction="none")
    answer = last.detach().softmax(-1)[:, None]
    against_last = -(answer * early.log_softmax(-1)).sum(-1)
    early_loss = (1 - distilled) * cross_entropy(early, y) + distilled * against_last
    return F.cross_entropy(last, y, reduction="none") + early_weight * early_loss.mean(1)


def expected_cost(exit_distribution, losses, exit_costs, cost_weight):
    """The objective of each row: ``sum_l P_l (loss_l + cost_weight * c_l)``.

    Method page, equation of section *The objective*; equation 4 of arXiv 2310.09163.

    Parameters
    ----------
    exit_distribution : tensor (n_samples, n_exits)
    losses : tensor (n_samples, n_exits)
    exit_costs : tensor (n_exits,)
    cost_weight : float

    Returns
    -------
    tensor (n_samples,)
    """
    return (exit_distribution * (losses + cost_weight * exit_costs)).sum(-1)


def weighted_by_exit(exit_distribution, losses):
    """Loss of each row with every exit's weighed by how likely the row leaves there.

    The distribution is detached, and a row's weights are rescaled so that its sum stays that of all
    exits: heads that few rows reach keep learning (the authors' head phase).
    """
    weighted = exit_distribution.detach() * losses
    rescale = losses.detach().sum(1) / weighted.detach().sum(1).clamp(min=1e-12)
    return rescale * weighted.sum(1)


def best_exit(losses, exit_costs, cost_weight):
    """In hindsight, the exit of least loss plus cost: ``argmin_l loss_l + cost_weight * c_l``, (n_samples,)."""
    return (losses + cost_weight * exit_costs).argmin(1)


def surrogate_targets(best, n_gates):
    """1 at every gate from a row's best exit on, 0 before it: (n_samples,) -> (n_samples, n_gates)"""
    return (best[:, None] <= torch.arange(n_gates, device=best.device)).float()


def positive_weights(best, n_gates, largest=5.0):
    """How much rarer each gate's exit is as the best one than not, clipped: (n_gates,)"""
    chosen = torch.bincount(best, minlength=n_gates + 1)[:n_gates].float()
    return ((len(best) - chosen) / chosen.clamp(min=1)).clamp(max=largest)

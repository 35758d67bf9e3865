"""Which label each of a network's logits stands for, and signs that it is another one than is believed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from .._operate.exit_answers import ExitAnswers
from .._warn import warn_caller

# A network is far worse than it should be where more than these are wrong in vain: a share of the samples, and standard
# errors of it. Both were chosen so that networks that are merely bad are not suspected.
FAR_WORSE, FAR_WORSE_THAN_ORDER, N_ERRORS = 0.2, 0.05, 4.0
MOST_NAMED = 12


def labels_of_logits(module: Any) -> np.ndarray | None:
    """Labels in the order of a module's logits, as ``config.id2label`` of Hugging Face's modules tells them."""
    names = getattr(getattr(module, "config", None), "id2label", None)
    if not isinstance(module, nn.Module) or not isinstance(names, Mapping):
        return None
    labels = np.array([names[number] for number in sorted(names)])
    return labels if len(labels) == len(set(labels.tolist())) else None


def logit_order(module: nn.Module, classes: Any, sorted_classes: np.ndarray) -> list[int] | None:
    """For each class, the column of its logit; None where logits stand in the order of the sorted classes.

    Parameters
    ----------
    module : nn.Module
    classes : array-like or None
        All labels in the order of the logits. None asks the module.
    sorted_classes : ndarray (n_classes,)
    """
    labels = labels_of_logits(module) if classes is None else np.asarray(classes)
    if labels is None or set(labels.tolist()) != set(sorted_classes.tolist()):
        return None
    columns = {label: column for column, label in enumerate(labels.tolist())}
    order = [columns[label] for label in sorted_classes.tolist()]
    return None if order == sorted(order) else order


def warn_of_another_order(
    logits: torch.Tensor, codes: torch.Tensor, answers: ExitAnswers, classes: np.ndarray
) -> None:
    """Warn if a trained network is far worse than its own exits, or than with its logits in another order.

    Parameters
    ----------
    logits : tensor (n_samples, n_classes)
        Of the plain backbone, for training samples: they tell the order that would be best.
    codes : tensor of int (n_samples,)
    answers : ExitAnswers
        For held-out samples, which show whether it is.
    classes : ndarray (n_classes,)
    """
    right = answers.backbone_codes == answers.codes
    best = _best_columns(logits.argmax(1).numpy(), codes.numpy(), len(classes))
    in_best_order = best[answers.backbone_codes] == answers.codes
    errors = answers.exit_errors()[:-1]
    signs = []
    if len(errors) and _is_better(answers.errors[:, errors.argmin()] == 0, right, FAR_WORSE):
        signs.append(f"those of an early exit on {1 - errors.min():.0%}")
    if _is_better(in_best_order, right, FAR_WORSE_THAN_ORDER):
        labels = classes[best].tolist()
        named = labels if len(labels) <= MOST_NAMED else [*labels[:MOST_NAMED], "..."]
        signs.append(f"they would be on {in_best_order.mean():.0%} with classes={named}")
    if signs:
        warn_caller(
            f"the labels of the module itself are right on {right.mean():.0%} of the held-out samples, "
            f"{' and '.join(signs)}: its logits may stand in another order than the sorted labels of y. Then say "
            f"which label each logit stands for: classes=[...]. (If not: the module may not be trained, or X may come "
            f"otherwise than it was trained on.)"
        )


def _best_columns(found: np.ndarray, codes: np.ndarray, n_classes: int) -> np.ndarray:
    """The class that each logit would stand for if as many samples as possible were right."""
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (found, codes), 1)
    # Classes that nothing tells apart stay where they are.
    counts += 1e-3 * np.eye(n_classes)
    classes: np.ndarray = linear_sum_assignment(-counts)[1]
    return classes


def _is_better(first: np.ndarray, second: np.ndarray, least: float) -> bool:
    """Whether the first is right on many more samples, and on more than chance explains."""
    gain = first.astype(float) - second
    error = gain.std() / np.sqrt(len(gain))
    return bool(gain.mean() > max(least, N_ERRORS * error + 1 / len(gain)))

"""The skorch nets: the backbone together with its exits, or heads alone on cached exit features."""

import copy
import math

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, LRScheduler
from skorch.helper import predefined_split
from skorch.utils import to_tensor
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ._losses import exits_together
from ._rows import RowsDataset, whole_batch

FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


class ExitsTogetherLoss(nn.Module):
    """Loss of each row over all exits (see :func:`_losses.exits_together`)."""

    def __init__(self, early_weight):
        super().__init__()
        self.early_weight = early_weight

    def forward(self, logits, y):
        return exits_together(logits, y, self.early_weight)


def last_exit_probabilities(logits):
    """(n_samples, n_exits, n_classes) -> (n_samples, n_classes)"""
    return logits[:, -1].softmax(-1)


class ExitsNet(NeuralNetClassifier):
    """skorch net whose module answers the logits of all exits, and whose rows carry weights."""

    def infer(self, x, **fit_params):
        return self.module_(*(to_tensor(tensor, self.device) for tensor in x["X"]), **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        weight = X["sample_weight"].to(y_pred.device)
        return (self.criterion_(y_pred, y_true.to(y_pred.device)) * weight).mean()


class KeepBestEpoch(Callback):
    """Put back an earlier epoch when training ends, where held-out rows say that the last is worse.

    The last epoch has the lowest learning rate and is the best one unless it overfits, so it stays
    unless the least Brier score of all epochs lies well below its own: by more than ``n_errors``
    standard errors of their difference, row by row, and one row's worth. On a few dozen rows that
    is next to never.

    Parameters
    ----------
    n_errors : float, default=3
    """

    def __init__(self, n_errors=3.0):
        self.n_errors = n_errors

    def on_train_begin(self, net, **kwargs):
        self.least_, self.best_scores_, self.state_ = float("inf"), None, None

    def on_epoch_begin(self, net, **kwargs):
        self.scores_ = []

    def on_batch_end(self, net, batch=None, training=None, y_pred=None, **kwargs):
        if not training:
            last_logits = y_pred[:, -1] if y_pred.ndim == 3 else y_pred
            self.scores_.append(_brier_scores(last_logits.softmax(-1), batch[1]))

    def on_epoch_end(self, net, **kwargs):
        self.last_scores_ = np.concatenate(self.scores_)
        mean = float(self.last_scores_.mean())
        net.history.record("valid_brier", mean)
        if mean < self.least_:
            self.least_, self.best_scores_ = mean, self.last_scores_
            self.state_ = copy.deepcopy(net.module_.state_dict())

    def on_train_end(self, net, **kwargs):
        if self.best_scores_ is not None and self._last_is_worse():
            net.module_.load_state_dict(self.state_)
        self.state_ = None

    def _last_is_worse(self):
        loss = self.last_scores_ - self.best_scores_
        if len(loss) < 2:
            return False
        error = loss.std(ddof=1) / np.sqrt(len(loss))
        return loss.mean() > self.n_errors * error + 1 / len(loss)


def _brier_scores(probs, y):
    """Squared distance of probabilities (n_samples, n_classes) from the truth: (n_samples,)"""
    truth = torch.nn.functional.one_hot(y.to(probs.device), probs.shape[1])
    return (probs - truth).square().sum(1).cpu().numpy()


class WarmUpAndCosine:
    """Share of the learning rate at a step: a straight rise, then half a cosine down to 0.

    Parameters
    ----------
    n_steps : int
    """

    rise = 0.1

    def __init__(self, n_steps):
        self.n_steps = max(1, n_steps)

    def __call__(self, step):
        done = min(1, step / self.n_steps)
        return min((done + 1 / self.n_steps) / self.rise, 0.5 * (1 + math.cos(math.pi * done)))


class HeadsOnFeatures(nn.Module):
    """The heads alone, on exit features."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads

    def forward(self, *features):
        """One (n_samples, d) for each exit -> logits (n_samples, n_exits, n_classes)"""
        return self.heads(features)


def train_exits(
    module, train, held_out, *, early_weight, max_epochs, lr, batch_size, callbacks, **options
):
    """Train a module that answers the logits of all exits.

    Parameters
    ----------
    module : nn.Module
        Trained in place.
    train, held_out : RowsDataset
        Rows that train, by class codes or probabilities; rows that ``valid_loss`` and ``valid_acc``
        are measured on.
    early_weight : float
        See :func:`_losses.exits_together`.
    max_epochs, lr, batch_size, callbacks, **options
        As in skorch.

    Returns
    -------
    ExitsNet
        Trained.
    """
    rows_per_batch = options.get("iterator_train__batch_size", batch_size)
    rows_per_batch = len(train) if rows_per_batch == -1 else rows_per_batch
    # Batch normalisation cannot learn from a batch of one row.
    lone_row = len(train) > rows_per_batch and len(train) % rows_per_batch == 1
    defaults = {
        "iterator_train__shuffle": True,
        "iterator_train__drop_last": lone_row,
        "iterator_train__collate_fn": whole_batch,
        "iterator_valid__collate_fn": whole_batch,
    }
    options = {**defaults, **_one_kernel(options), **options}
    n_batches = len(train) // rows_per_batch
    if not options["iterator_train__drop_last"]:
        n_batches = -(-len(train) // rows_per_batch)
    shape = WarmUpAndCosine(n_batches * max_epochs)
    n_classes = train.y.shape[1] if train.y.ndim == 2 else int(train.y.max()) + 1
    schedule = LRScheduler(LambdaLR, lr_lambda=shape, step_every="batch", event_name=None)
    net = ExitsNet(
        module,
        criterion=ExitsTogetherLoss,
        criterion__early_weight=early_weight,
        lr=lr,
        max_epochs=max_epochs,
        batch_size=batch_size,
        train_split=predefined_split(held_out),
        classes=list(range(n_classes)),
        predict_nonlinearity=last_exit_probabilities,
        callbacks=[
            ("lr_schedule", schedule),
            ("best_epoch", KeepBestEpoch()),
            *(callbacks or []),
        ],
        **options,
    )
    return net.fit(train, None)


def _one_kernel(options):
    """An option that has torch update all parameters at once: the same steps up to rounding, in less time."""
    chosen = {"optimizer__foreach", "optimizer__fused", "optimizer__differentiable"} & set(options)
    return {} if chosen or options.get("optimizer") not in FUSED else {"optimizer__fused": True}


def train_heads(heads, train, held_out, **options):
    """Train heads alone on cached exit features; parameters as in :func:`train_exits`."""
    datasets = (
        RowsDataset(tuple(rows.features), rows.y, rows.weight) for rows in (train, held_out)
    )
    # Rows are transformed on their way to the backbone, not on their way from it.
    options.pop("iterator_train__collate_fn", None)
    return train_exits(HeadsOnFeatures(heads), *datasets, early_weight=1.0, **options)

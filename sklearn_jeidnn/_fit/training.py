"""Train the backbone together with its exits, or heads alone on exit features, by skorch nets."""

import copy
import inspect
import math
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.helper import predefined_split
from skorch.utils import to_tensor
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from .._exits.exit_heads import ExitHeads
from . import divergence
from .datasets import TRAIN, BatchInputs, SamplesDataset, count_steps, loader_defaults
from .features import ExitFeatures
from .losses import exits_together

LR_SCHEDULE = "lr_schedule"
# Key of an epoch's row in the history: whether its weights were kept.
KEPT = "kept"
# Optimizers that can update all parameters in one kernel.
FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
FUSED_OPTION = "optimizer__fused"


class ExitsTogetherLoss(nn.Module):
    """Loss of each sample over all exits (see :func:`losses.exits_together`)."""

    def __init__(self, early_weight: float) -> None:
        super().__init__()
        self.early_weight = early_weight

    def forward(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return exits_together(logits, y, self.early_weight)


def last_exit_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """(n_samples, n_exits, n_classes) -> (n_samples, n_classes)"""
    return logits[:, -1].softmax(-1)


class ExitsNet(NeuralNetClassifier):  # type: ignore[misc]  # skorch has no type hints
    """skorch net whose module returns the logits of all exits, and whose samples have weights."""

    def infer(self, x: BatchInputs, **fit_params: Any) -> torch.Tensor:
        inputs = (to_tensor(tensor, self.device) for tensor in x["X"])
        logits: torch.Tensor = self.module_(*inputs, **fit_params)
        return logits

    def get_loss(
        self, y_pred: torch.Tensor, y_true: torch.Tensor, X: Any = None, training: bool = False
    ) -> torch.Tensor:
        losses: torch.Tensor = self.criterion_(y_pred, y_true.to(y_pred.device))
        weight: torch.Tensor = X["sample_weight"].to(y_pred.device)
        return (losses * weight).mean()

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, **fit_params: Any
    ) -> "ExitsNet":
        """Train as skorch does, except that Ctrl-C ends the training with ``KeyboardInterrupt``.

        skorch takes Ctrl-C for the end of a training that succeeded, because its ``EarlyStopping`` raises
        ``KeyboardInterrupt``, too.
        """
        if not self.initialized_:
            self.initialize()
        self.notify("on_train_begin", X=X, y=y)
        try:
            self.fit_loop(X, y, **fit_params)
        except KeyboardInterrupt as interrupt:
            if not _stops_early(interrupt):
                self._close_callbacks(interrupt, X, y)
                raise
        self.notify("on_train_end", X=X, y=y)
        return self

    def _close_callbacks(self, interrupt: KeyboardInterrupt, X: Any, y: Any) -> None:
        """Let callbacks close what they opened; whatever happens there, the interrupt goes on."""
        try:
            self.notify("on_train_end", X=X, y=y)
        except Exception as error:
            raise interrupt from error


def _stops_early(interrupt: KeyboardInterrupt) -> bool:
    """Whether skorch's ``EarlyStopping``, or a subclass of it, has decided to end the training."""
    *_, (innermost, _) = traceback.walk_tb(interrupt.__traceback__)
    raiser = innermost.f_locals.get("self")
    return isinstance(raiser, EarlyStopping) and raiser.misses_ == raiser.patience


class KeepBestEpoch(Callback):  # type: ignore[misc]  # skorch has no type hints
    """Restore an earlier epoch at the end of training if held-out samples show that the last one is worse.

    The last epoch has the lowest learning rate and is the best one unless it overfits. So it stays unless
    the least Brier score of all epochs is well below its own: by more than ``n_errors`` standard errors of
    their difference, sample by sample, plus 1 divided by the number of samples. With a few dozen samples
    it almost always stays.

    Parameters
    ----------
    n_errors : float, default=3
    """

    def __init__(self, n_errors: float = 3.0) -> None:
        self.n_errors = n_errors

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self.least_ = float("inf")
        self.best_scores_: np.ndarray | None = None
        self.state_: dict[str, Any] | None = None

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.scores_: list[np.ndarray] = []

    def on_batch_end(
        self,
        net: Any,
        batch: Any = None,
        training: Any = None,
        y_pred: Any = None,
        **kwargs: Any,
    ) -> None:
        if not training:
            last_logits = y_pred[:, -1] if y_pred.ndim == 3 else y_pred
            self.scores_.append(_brier_scores(last_logits.softmax(-1), batch[1]))

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.last_scores_ = np.concatenate(self.scores_)
        mean = float(self.last_scores_.mean())
        net.history.record("valid_brier", mean)
        if mean < self.least_:
            self.least_, self.best_scores_ = mean, self.last_scores_
            self.best_epoch_ = len(net.history)
            self.state_ = copy.deepcopy(net.module_.state_dict())

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        kept = len(net.history)
        if self.best_scores_ is not None and self._last_is_worse(self.best_scores_):
            net.module_.load_state_dict(self.state_)
            kept = self.best_epoch_
        self.state_ = None
        for row in net.history:
            row[KEPT] = row["epoch"] == kept

    def _last_is_worse(self, best_scores: np.ndarray) -> bool:
        loss = self.last_scores_ - best_scores
        if len(loss) < 2:
            return False
        error = loss.std(ddof=1) / np.sqrt(len(loss))
        return bool(loss.mean() > self.n_errors * error + 1 / len(loss))


def count_kept_epochs(history: Any) -> int:
    """How many epochs the weights that a training ended with have learned for."""
    kept: int = next((row["epoch"] for row in history if row.get(KEPT)), len(history))
    return kept


def _brier_scores(probs: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Squared distance of probabilities (n_samples, n_classes) from the truth: (n_samples,)"""
    truth = torch.nn.functional.one_hot(y.to(probs.device), probs.shape[1])
    # A sample without an answer is as bad as it can be in every epoch.
    scores: np.ndarray = (probs - truth).square().sum(1).nan_to_num(2.0).cpu().numpy()
    return scores


class StopIfNotFinite(Callback):  # type: ignore[misc]  # skorch has no type hints
    """End the training with an error after the first epoch in which learned weights are not finite.

    Parameters
    ----------
    samples : SamplesDataset
        The training samples, among which the error looks for a reason.
    """

    def __init__(self, samples: SamplesDataset) -> None:
        self.samples = samples

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self.start_ = copy.deepcopy(net.module_.state_dict())

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        if divergence.learns_finite(net.module_):
            return
        given = {name: value for name, value in vars(net).items() if name.startswith("optimizer__")}
        raise ValueError(
            divergence.reason_of_divergence(
                net.module_,
                self.start_,
                self.samples,
                epoch=len(net.history),
                lr=net.lr,
                options={name: value for name, value in given.items() if name != FUSED_OPTION},
            )
        )

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        del self.start_


class EpochDone(Callback):  # type: ignore[misc]  # skorch has no type hints
    """Call a function after each epoch.

    Parameters
    ----------
    function : callable
        Without arguments.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.function()


class WarmUpAndCosine:
    """Share of the learning rate at a step, for ``LambdaLR``: a linear warm-up, then half a cosine down to 0.

    The cosine runs over all steps, and the warm-up cuts off its first tenth. torch has no such schedule:
    ``OneCycleLR`` differs by a tenth of the largest learning rate, and so does ``LinearLR`` followed by
    ``CosineAnnealingLR``; the product of the two, fitted to each number of steps, by up to 1.3 % of it. The
    results in ``benchmarks/`` were measured with this shape.

    Parameters
    ----------
    n_steps : int
    """

    rise = 0.1

    def __init__(self, n_steps: int) -> None:
        self.n_steps = max(1, n_steps)

    def __call__(self, step: int) -> float:
        done = min(1, step / self.n_steps)
        return min((done + 1 / self.n_steps) / self.rise, 0.5 * (1 + math.cos(math.pi * done)))


class HeadsOnFeatures(nn.Module):
    """The heads alone, on exit features."""

    def __init__(self, heads: ExitHeads) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        """One (n_samples, d) for each exit -> logits (n_samples, n_exits, n_classes)"""
        logits: torch.Tensor = self.heads(features)
        return logits


def train_exits(
    module: nn.Module,
    train: SamplesDataset,
    held_out: SamplesDataset | None,
    *,
    early_weight: float,
    max_epochs: int,
    lr: float,
    batch_size: int,
    callbacks: Any,
    n_epochs: int | None = None,
    epoch_done: Callable[[], None] | None = None,
    **options: Any,
) -> ExitsNet:
    """Train a module that returns the logits of all exits.

    Parameters
    ----------
    module : nn.Module
        Trained in place.
    train, held_out : SamplesDataset
        Training samples, labelled with class codes or probabilities; samples on which ``valid_loss`` and
        ``valid_acc`` are measured. None if there are none to choose an epoch on.
    early_weight : float
        See :func:`losses.exits_together`.
    max_epochs, lr, batch_size, callbacks, **options
        As in skorch.
    n_epochs : int, default=None
        Epoch after which the training ends; learning rates are those of a training of ``max_epochs``.
    epoch_done : callable, default=None
        Called after each epoch.

    Returns
    -------
    ExitsNet
        Trained.
    """
    options = {
        **loader_defaults(options, len(train), batch_size),
        **_fused_update(options),
        **options,
    }
    n_steps = count_steps(options, len(train), batch_size)
    shape = WarmUpAndCosine(n_steps * max_epochs)
    schedule = LRScheduler(LambdaLR, lr_lambda=shape, step_every="batch", event_name=None)
    all_of_them = all_callbacks(callbacks, options, train, schedule)
    if held_out is None:
        all_of_them, options = _without_held_out(all_of_them, options)
    if epoch_done is not None:
        all_of_them.append(EpochDone(epoch_done))
    net = ExitsNet(
        module,
        criterion=ExitsTogetherLoss,
        criterion__early_weight=early_weight,
        lr=lr,
        max_epochs=max_epochs if n_epochs is None else n_epochs,
        batch_size=batch_size,
        train_split=None if held_out is None else predefined_split(held_out),
        classes=list(range(_count_classes(train.y))),
        predict_nonlinearity=last_exit_probabilities,
        callbacks=all_of_them,
        **options,
    )
    with (
        divergence.explaining_lone_samples(options.get(TRAIN + "batch_size", batch_size)),
        divergence.explaining_none_held_out(callbacks if held_out is None else None),
    ):
        net.fit(train, None)
    return net


def all_callbacks(
    callbacks: Any, options: dict[str, Any], train: SamplesDataset, schedule: Any = None
) -> list[Any]:
    """Return the built-in callbacks and the user's, whose learning-rate schedule replaces the built-in one."""
    given = list(callbacks or [])
    built_in: list[Any] = [
        (LR_SCHEDULE, schedule or LRScheduler()),
        ("best_epoch", KeepBestEpoch()),
    ]
    names = [entry[0] for entry in given if isinstance(entry, list | tuple)]
    is_kept = f"callbacks__{LR_SCHEDULE}" in options and LR_SCHEDULE not in names
    if any(map(_is_schedule, given)) and not is_kept:
        built_in = built_in[1:]
    return [*built_in, *given, ("stop_if_not_finite", StopIfNotFinite(train))]


def _is_schedule(entry: Any) -> bool:
    return issubclass(_kind(entry), LRScheduler)


def _kind(entry: Any) -> type:
    """Class of a callback, which may come with a name, and as a class."""
    callback = entry[1] if isinstance(entry, list | tuple) else entry
    return callback if inspect.isclass(callback) else type(callback)


def _without_held_out(
    callbacks: list[Any], options: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Leave out the callbacks that say after which epoch to stop, which is known, and the options of theirs."""
    stop = [
        entry for entry in callbacks if issubclass(_kind(entry), (KeepBestEpoch, EarlyStopping))
    ]
    names = [e[0] if isinstance(e, list | tuple) else _kind(e).__name__ for e in stop]
    theirs = tuple(f"callbacks__{name}" for name in names)
    others = {name: value for name, value in options.items() if not name.startswith(theirs)}
    return [entry for entry in callbacks if entry not in stop], others


def _fused_update(options: dict[str, Any]) -> dict[str, Any]:
    """Return the option with which torch updates all parameters at once: the same steps up to rounding, but faster."""
    chosen = {"optimizer__foreach", FUSED_OPTION, "optimizer__differentiable"} & set(options)
    return {} if chosen or options.get("optimizer") not in FUSED else {FUSED_OPTION: True}


def _count_classes(y: torch.Tensor) -> int:
    return y.shape[1] if y.ndim == 2 else int(y.max()) + 1


def train_heads(
    heads: ExitHeads, train: ExitFeatures, held_out: ExitFeatures | None, **options: Any
) -> ExitsNet:
    """Train heads alone on exit features; parameters as in :func:`train_exits`."""
    on_features = HeadsOnFeatures(heads)
    known = None if held_out is None else _as_dataset(held_out)
    # The user's collate_fn transforms samples on their way to the backbone, not exit features.
    options.pop("iterator_train__collate_fn", None)
    return train_exits(on_features, _as_dataset(train), known, early_weight=1.0, **options)


def _as_dataset(samples: ExitFeatures) -> SamplesDataset:
    return SamplesDataset(tuple(samples.features), samples.y, samples.weight)

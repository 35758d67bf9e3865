"""Train the backbone together with its exits, or heads alone on exit features, by skorch nets."""

import inspect
import traceback
from collections.abc import Callable
from typing import Any

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping, LRScheduler
from skorch.helper import predefined_split
from skorch.utils import to_tensor
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from .._exits.exit_heads import ExitHeads
from .callbacks import (
    FUSED_OPTION,
    EpochDone,
    KeepBestCycle,
    KeepBestEpoch,
    StopIfNotFinite,
    epoch_put_back,
    note_kept,
)
from .checkpoint import NO_LOOP, StoredLoop
from .datasets import TRAIN, BatchInputs, SamplesDataset, count_steps, loader_defaults
from .divergence import explaining_lone_samples, explaining_none_held_out
from .features import ExitFeatures
from .losses import exits_together
from .schedules import (
    ALONE,
    FOUND,
    StepLimits,
    WarmRestarts,
    WarmUpAndCosine,
    end_of_cycle,
    fixed_epochs,
    most_epochs,
)

LR_SCHEDULE = "lr_schedule"
ITERATORS = ("iterator_train__", "iterator_valid__")
# Callbacks that note nothing in an epoch that a later one reads.
SAME_IN_EACH_EPOCH = (EpochDone, StopIfNotFinite)
# Optimizers that can update all parameters in one kernel.
FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


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
    """skorch net whose module returns the logits of all exits, and whose samples have weights.

    ``loop_`` is where its state is stored after epochs; a training that was stored goes on from there.
    """

    loop_: StoredLoop = NO_LOOP

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
        has_ended = self.loop_.resume(*self._changing(), beside=[self])
        n_left = 0 if has_ended else self.max_epochs - len(self.history)
        try:
            self.fit_loop(X, y, epochs=n_left, **fit_params)
        except KeyboardInterrupt as interrupt:
            if not _stops_early(interrupt):
                self._close_callbacks(interrupt, X, y)
                raise
        self.loop_.end()
        self.notify("on_train_end", X=X, y=y)
        put_back = epoch_put_back([callback for _, callback in self.callbacks_], self.history)
        if put_back is not None:
            note_kept(self.history, put_back)
        return self

    def _changing(self) -> list[Any]:
        """What changes in a training."""
        options = {name: value for name, value in vars(self).items() if name.startswith(ITERATORS)}
        callbacks = [cb for _, cb in self.callbacks_ if not isinstance(cb, SAME_IN_EACH_EPOCH)]
        return [self.module_, self.criterion_, self.optimizer_, self.history, callbacks, options]

    def _close_callbacks(self, interrupt: KeyboardInterrupt, X: Any, y: Any) -> None:
        """Let callbacks close what they opened; whatever happens there, the interrupt goes on."""
        try:
            self.notify("on_train_end", X=X, y=y)
        except Exception as error:
            raise interrupt from error


def _stops_early(interrupt: KeyboardInterrupt) -> bool:
    """Whether skorch's ``EarlyStopping``, a subclass of it, or a callback of this package has ended the training."""
    *_, (innermost, _) = traceback.walk_tb(interrupt.__traceback__)
    raiser = innermost.f_locals.get("self")
    if isinstance(raiser, KeepBestCycle | EpochDone):
        return raiser.ends_
    return isinstance(raiser, EarlyStopping) and raiser.misses_ == raiser.patience


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
    max_epochs: int | str,
    lr: float,
    batch_size: int,
    callbacks: Any,
    n_epochs: int | None = None,
    steps: StepLimits = ALONE,
    epoch_begun: Callable[[], None] | None = None,
    epoch_done: Callable[[], bool | None] | None = None,
    loop: StoredLoop = NO_LOOP,
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
    max_epochs : int or "auto"
        "auto" trains in cycles as long as they help (see :class:`KeepBestCycle`), unless the user has a schedule of
        learning rates.
    lr, batch_size, callbacks, **options
        As in skorch.
    n_epochs : int, default=None
        Epoch after which the training ends, or after the cycle before; learning rates are those of a training of
        ``max_epochs``.
    steps : StepLimits
        Of a training that finds its number of epochs.
    epoch_begun : callable, default=None
        Called before each epoch, if ``epoch_done`` is given.
    epoch_done : callable, default=None
        Called after each epoch; the training ends where it returns True.
    loop : StoredLoop
        Where the state is stored after epochs, and taken from.

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
    is_found = max_epochs == FOUND and _has_cycles(callbacks, options)
    most = most_epochs(max_epochs) if is_found else fixed_epochs(max_epochs)
    shape = WarmRestarts(n_steps) if is_found else WarmUpAndCosine(n_steps * most)
    if n_epochs is not None:
        most = end_of_cycle(n_epochs) if is_found else n_epochs
    schedule = LRScheduler(LambdaLR, lr_lambda=shape, step_every="batch", event_name=None)
    all_of_them = all_callbacks(
        callbacks,
        options,
        train,
        schedule,
        KeepBestCycle(steps) if is_found else KeepBestEpoch(),
    )
    if held_out is None:
        all_of_them, options = _without_held_out(all_of_them, options)
    if epoch_done is not None:
        all_of_them.append(EpochDone(epoch_done, epoch_begun))
    if stores_epochs(options):
        all_of_them.append(EpochDone(loop.epoch_done))
    net = ExitsNet(
        module,
        criterion=ExitsTogetherLoss,
        criterion__early_weight=early_weight,
        lr=lr,
        max_epochs=most,
        batch_size=batch_size,
        train_split=None if held_out is None else predefined_split(held_out),
        classes=list(range(_count_classes(train.y))),
        predict_nonlinearity=last_exit_probabilities,
        callbacks=all_of_them,
        **options,
    )
    net.loop_ = loop
    with (
        explaining_lone_samples(options.get(TRAIN + "batch_size", batch_size)),
        explaining_none_held_out(callbacks if held_out is None else None),
    ):
        net.fit(train, None)
    return net


def all_callbacks(
    callbacks: Any,
    options: dict[str, Any],
    train: SamplesDataset,
    schedule: Any = None,
    best: Any = None,
) -> list[Any]:
    """Return the built-in callbacks and the user's, whose learning-rate schedule replaces the built-in one."""
    built_in: list[Any] = [
        (LR_SCHEDULE, schedule or LRScheduler()),
        ("best_epoch", best or KeepBestEpoch()),
    ]
    if has_own_schedule(callbacks, options):
        built_in = built_in[1:]
    return [*built_in, *(callbacks or []), ("stop_if_not_finite", StopIfNotFinite(train))]


def stores_epochs(options: dict[str, Any]) -> bool:
    """Whether all random numbers of a training are in this process after an epoch, not in workers that live on."""
    return not any(options.get(name + "persistent_workers") for name in ITERATORS)


def has_own_schedule(callbacks: Any, options: dict[str, Any]) -> bool:
    """Whether the user's callbacks replace the built-in learning-rate schedule."""
    given = list(callbacks or [])
    names = [entry[0] for entry in given if isinstance(entry, list | tuple)]
    is_kept = f"callbacks__{LR_SCHEDULE}" in options and LR_SCHEDULE not in names
    return any(map(_is_schedule, given)) and not is_kept


def _has_cycles(callbacks: Any, options: dict[str, Any]) -> bool:
    """Whether neither the schedule nor what ends a training after a cycle is replaced or left out."""
    schedule, best = (f"callbacks__{name}" for name in (LR_SCHEDULE, "best_epoch"))
    is_left_out = best in options and options[best] is None
    return not (has_own_schedule(callbacks, options) or schedule in options or is_left_out)


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

"""What happens in a training beside its steps: which epoch is kept, when it ends, what is told."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback, Checkpoint, EarlyStopping

from .datasets import SamplesDataset
from .divergence import learns_finite, reason_of_divergence
from .schedules import ALONE, StepLimits, ends_of_cycles

# Key of an epoch's row in the history: whether its weights were kept.
KEPT = "kept"
# Option with which torch updates all parameters in one kernel.
FUSED_OPTION = "optimizer__fused"


class KeepBestEpoch(Callback):  # type: ignore[misc]  # skorch has no type hints
    """Restore an earlier epoch at the end of training if held-out samples show that the last one is worse.

    The last epoch has the lowest learning rate and is the best one unless it overfits. So it stays unless
    the least Brier score of all epochs is well below its own: by more than ``n_errors`` standard errors of
    their difference, sample by sample, plus 1 divided by the number of samples. With a few dozen samples
    it almost always stays. Samples count by their weights.

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
            inputs, y = batch
            weights = inputs["sample_weight"].cpu().numpy()
            self.scores_.append(weights * _brier_scores(last_logits.softmax(-1), y))

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.last_scores_ = np.concatenate(self.scores_)
        mean = float(self.last_scores_.mean())
        net.history.record("valid_brier", mean)
        self._keep_if_best(net, mean)

    def _keep_if_best(self, net: Any, mean: float) -> None:
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
        note_kept(net.history, kept)

    def _last_is_worse(self, best_scores: np.ndarray) -> bool:
        loss = self.last_scores_ - best_scores
        if len(loss) < 2:
            return False
        error = loss.std(ddof=1) / np.sqrt(len(loss))
        return bool(loss.mean() > self.n_errors * error + 1 / len(loss))


class KeepBestCycle(KeepBestEpoch):
    """End the training after a cycle that hardly made held-out samples' Brier score better, and restore the best cycle.

    Cycles end with a learning rate of 0 (see :class:`WarmRestarts`), so their ends are compared as they are. Hardly
    better is by less than two standard errors of the difference, sample by sample.

    Parameters
    ----------
    steps : StepLimits
        Before the fewest it does not end: samples so few that these are many epochs are trained on fast, and cannot
        tell one cycle from the next.
    """

    def __init__(self, steps: StepLimits = ALONE) -> None:
        super().__init__(n_errors=0.0)
        self.steps = steps

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        super().on_train_begin(net, **kwargs)
        self.ends_ = False

    def _keep_if_best(self, net: Any, mean: float) -> None:
        if len(net.history) not in ends_of_cycles():
            return
        goes_on = self.best_scores_ is None or _is_better(self.last_scores_, self.best_scores_)
        super()._keep_if_best(net, mean)
        n_steps = sum(net.history[:, "train_batch_count"])
        if n_steps >= (self.steps.enough if goes_on else self.steps.fewest):
            self.ends_ = True
            raise KeyboardInterrupt

    def _last_is_worse(self, best_scores: np.ndarray) -> bool:
        return bool(self.last_scores_.mean() > best_scores.mean())


def note_kept(history: Any, epoch: int) -> None:
    """Note in each row whether its epoch's weights were kept."""
    for row in history:
        row[KEPT] = row["epoch"] == epoch


def epoch_put_back(callbacks: Sequence[Any], history: Any) -> int | None:
    """The epoch whose weights a user's callback has put back at the end of a training; None if none has."""
    found = None
    for callback in callbacks:
        if isinstance(callback, EarlyStopping) and callback.load_best:
            best = callback.best_epoch_
            found = best if 0 < best < len(history) else found
        elif isinstance(callback, Checkpoint) and callback.load_best and callback.monitor:
            stored = [row["epoch"] for row in history if row.get(callback.event_name)]
            found = stored[-1] if stored else found
    return found


def count_kept_epochs(history: Any) -> int:
    """How many epochs the weights that a training ended with have learned for."""
    kept: int = next((row["epoch"] for row in history if row.get(KEPT)), len(history))
    return kept


def _is_better(scores: np.ndarray, before: np.ndarray) -> bool:
    """Whether scores (n_samples,) are less on average by more than two standard errors."""
    gain = before - scores
    error = gain.std() / np.sqrt(max(1, len(gain) - 1))
    return bool(gain.mean() > 2 * error)


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
        if learns_finite(net.module_):
            return
        given = {name: value for name, value in vars(net).items() if name.startswith("optimizer__")}
        raise ValueError(
            reason_of_divergence(
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
    """Call a function after each epoch, which may end the training, and another one before.

    Parameters
    ----------
    function : callable
        Without arguments; the training ends after an epoch at which it returns True.
    begun : callable, default=None
        Without arguments.
    """

    def __init__(
        self, function: Callable[[], bool | None], begun: Callable[[], None] | None = None
    ) -> None:
        self.function = function
        self.begun = begun
        self.ends_ = False

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        if self.begun is not None:
            self.begun()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.ends_ = bool(self.function())
        if self.ends_:
            raise KeyboardInterrupt

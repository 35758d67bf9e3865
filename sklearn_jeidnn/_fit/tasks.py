"""What scikit-learn's callbacks are told of a fit: its trainings, and their epochs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # before scikit-learn 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing: this scikit-learn has no callbacks."""


__all__ = ["CallbackSupportMixin", "FitTasks"]

# The task that comes after all trainings.
LAST_TASK = "costs, gates and calibration"


class FitTasks:
    """The tasks of one fit, of which the callbacks of an estimator are told, where scikit-learn has callbacks.

    The fit has one subtask for each training of a member, and a last one; a training has one for each epoch.

    Parameters
    ----------
    estimator : EarlyExitClassifier
    given : dict
        ``X``, ``y`` and ``metadata`` as callbacks are to see them.
    """

    def __init__(self, estimator: Any, given: dict[str, Any]) -> None:
        self.told = {"estimator": estimator, **given}
        # Contexts of scikit-learn's; None before they begin, and where there are no callbacks.
        self.fit: Any = None
        self.training: Any = None
        self.epoch: Any = None
        self.last: Any = None
        self.n_epochs_left = 0

    def begin(self, n_trainings: int) -> None:
        """Tell that a fit of at most so many trainings begins."""
        estimator = self.told["estimator"]
        if hasattr(estimator, "_init_callback_context"):
            self.fit = estimator._init_callback_context(max_subtasks=n_trainings + 1)
            self.fit.call_on_fit_task_begin(**self.told)

    @contextmanager
    def of_training(self, name: str, n_epochs: int) -> Iterator[None]:
        """Tell of a training of at most so many epochs, 0 if it has none."""
        if self.fit is None:
            yield
            return
        self.training = self._subtask(self.fit, name, n_epochs)
        self.n_epochs_left = n_epochs
        yield
        # One after which another callback has ended the training.
        self.epoch_done()
        self.training.call_on_fit_task_end(**self.told)

    def epoch_begun(self) -> None:
        """Tell that an epoch begins."""
        if self.fit is not None and self.n_epochs_left:
            self.n_epochs_left -= 1
            self.epoch = self._subtask(self.training, "epoch")

    def epoch_done(self) -> bool:
        """Tell that the epoch is done, if one has begun; return whether a callback ends the training."""
        epoch, self.epoch = self.epoch, None
        return epoch is not None and bool(epoch.call_on_fit_task_end(**self.told))

    def begin_last(self) -> None:
        """Tell that all trainings are done."""
        if self.fit is not None:
            self.last = self._subtask(self.fit, LAST_TASK)

    def end(self, fitted_attributes: Callable[[], dict[str, Any]]) -> None:
        """Tell that the fit is done, with what makes a fitted estimator of a copy."""
        if self.fit is None:
            return
        fitted = {"reconstruction_attributes": fitted_attributes}
        self.last.call_on_fit_task_end(**self.told)
        self.fit.call_on_fit_task_end(**self.told, **fitted)

    def _subtask(self, task: Any, name: str, n_subtasks: int = 0) -> Any:
        subtask = task.subcontext(task_name=name, max_subtasks=n_subtasks)
        return subtask.call_on_fit_task_begin(**self.told)

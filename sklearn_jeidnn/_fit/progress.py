"""How far a fit has come, for whoever waits at a terminal, reads a log, or listens by scikit-learn's callbacks."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from tqdm import tqdm

from .classifiers import ClassifierStage
from .tasks import FitTasks

# A fit that takes longer shows a bar, where there is a terminal.
BAR_AFTER_SECONDS = 10
# A training that may take longer is told of after its first epoch.
TOLD_FROM_SECONDS = 5


class Progress:
    """A bar over the epochs of all trainings in a terminal, and with ``verbose`` lines for each training instead.

    Members are trained in rounds: one round without each fold, and one round on all samples.

    Parameters
    ----------
    epochs : sequence of int
        Most epochs of each member, in the order in which they are trained.
    n_folds : int
        Rounds before the last one.
    verbose : int
    tasks : FitTasks
    """

    def __init__(self, epochs: Sequence[int], n_folds: int, verbose: int, tasks: FitTasks) -> None:
        self.epochs = epochs
        self.n_folds = n_folds
        self.verbose = verbose
        self.tasks = tasks
        self.n_rounds = 0
        self.n_begun = 0
        # Epochs of the rounds before this one.
        self.before = 0
        # Of the member that is being trained.
        self.name = ""
        self.start = self.begun = time.perf_counter()
        # What trainings took in the last round, in their order.
        self.seconds: list[float] = []
        self.bar = tqdm(
            total=sum(epochs) * (1 + n_folds),
            unit=" epochs",
            delay=BAR_AFTER_SECONDS,
            # None shows nothing where standard error is no terminal.
            disable=True if verbose else None,
            leave=False,
        )
        tasks.begin(len(epochs) * (1 + n_folds))

    def begin_round(self, epochs: Sequence[int]) -> None:
        """Begin a round, of members with so many epochs at most: in the last round all that are kept."""
        self.before = sum(self.epochs) * self.n_rounds
        self.n_rounds += 1
        self.n_begun = 0
        if self.n_rounds > self.n_folds:
            self.bar.total = self.before + sum(epochs)
        self.epochs_of_round = epochs

    def skip_to(self, n_rounds: int) -> None:
        """Go on behind so many rounds, which were done, here or before."""
        self.n_rounds = n_rounds
        self._move_to(sum(self.epochs) * n_rounds)

    @contextmanager
    def of_member(self, module: nn.Module | None) -> Iterator[None]:
        """Tell which member is being trained."""
        self.n_begun += 1
        self.name = self._name_of(module)
        self.bar.set_description(self.name, refresh=False)
        fitted, most = isinstance(module, ClassifierStage), self.epochs_of_round[self.n_begun - 1]
        self._say("asked for its answers" if fitted else f"at most {most} epochs")
        self.begun, self.n_done = time.perf_counter(), 0
        with self.tasks.of_training(self.name, 0 if fitted else most):
            yield
        self._move_to(self._end_of_member)
        self._note_seconds(time.perf_counter() - self.begun)

    def epoch_done(self) -> bool:
        """Move by an epoch, up to the end of the member; return whether a callback ends its training."""
        self.n_done += 1
        if self.n_done == 1:
            self._say_what_it_may_take(time.perf_counter() - self.begun)
        self.bar.update(min(1, self._end_of_member - self.bar.n))
        return self.tasks.epoch_done()

    def _say_what_it_may_take(self, seconds: float) -> None:
        """After the first epoch of a training."""
        most = seconds * self.epochs_of_round[self.n_begun - 1]
        if most > TOLD_FROM_SECONDS:
            self._say(f"first epoch in {seconds:.1f} s, all in at most about {most:.0f} s")

    def _name_of(self, module: nn.Module | None) -> str:
        named = module.classifier if isinstance(module, ClassifierStage) else module
        name = f"{type(named).__name__}, member {self.n_begun} of {len(self.epochs_of_round)}"
        if not self.n_folds:
            return name
        is_last = self.n_rounds > self.n_folds
        fold = "on all samples" if is_last else f"without fold {self.n_rounds} of {self.n_folds}"
        return f"{name}, {fold}"

    @property
    def _end_of_member(self) -> int:
        """Where the bar is when the member that is being trained is done."""
        return self.before + sum(self.epochs_of_round[: self.n_begun])

    def _move_to(self, n_epochs: int) -> None:
        self.bar.update(n_epochs - self.bar.n)

    def _note_seconds(self, seconds: float) -> None:
        """Say how long a training took, how many are to come, and how long those may take."""
        is_known = len(self.seconds) >= self.n_begun
        self.seconds[self.n_begun - 1 : self.n_begun] = [seconds]
        n_left = len(self.epochs_of_round) - self.n_begun
        n_rounds_left = max(0, self.n_folds + 1 - self.n_rounds)
        n_to_come = n_left + n_rounds_left * len(self.epochs)
        text = f"done in {seconds:.1f} s"
        if n_to_come:
            text += f", at most {n_to_come} training{'s' * (n_to_come > 1)} to come"
        if n_to_come and (is_known or not n_left):
            of_round = self.seconds[self.n_begun :][:n_left]
            text += f", in about {sum(of_round) + n_rounds_left * sum(self.seconds):.0f} s"
        self._say(text)

    def _say(self, text: str) -> None:
        if self.verbose:
            print(f"{self.name}: {text}")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        self.bar.close()
        if kind is not None:
            return
        self.tasks.begin_last()
        if self.verbose:
            seconds = time.perf_counter() - self.start
            print(f"All trainings done in {seconds:.1f} s; now costs, gates and calibration.")

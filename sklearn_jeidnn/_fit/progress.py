"""How far a fit has come, for whoever waits at a terminal or reads a log."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from tqdm import tqdm

from .classifiers import ClassifierStage

# A fit that takes longer shows a bar, where there is a terminal.
BAR_AFTER_SECONDS = 10


class Progress:
    """A bar over the epochs of all members in a terminal, and with ``verbose`` a line for each member instead.

    Parameters
    ----------
    epochs : sequence of int
        Number of epochs of each member, in the order in which they are trained.
    verbose : int
    """

    def __init__(self, epochs: Sequence[int], verbose: int) -> None:
        self.epochs = epochs
        self.verbose = verbose
        self.n_begun = 0
        # Of the member that is being trained.
        self.name = ""
        self.bar = tqdm(
            total=sum(epochs),
            unit=" epochs",
            delay=BAR_AFTER_SECONDS,
            # None shows nothing where standard error is no terminal.
            disable=True if verbose else None,
            leave=False,
        )

    @contextmanager
    def of_member(self, module: nn.Module | None) -> Iterator[None]:
        """Tell which member is being trained."""
        self.n_begun += 1
        name = _name(module)
        where = f"member {self.n_begun} of {len(self.epochs)}"
        self.name = f"{name}, {where}"
        self.bar.set_description(f"{name}, {where}", refresh=False)
        if self.verbose:
            fitted = isinstance(module, ClassifierStage)
            what = (
                "asked for its answers"
                if fitted
                else f"at most {self.epochs[self.n_begun - 1]} epochs"
            )
            print(f"{name}, {where}: {what}")
        start = time.perf_counter()
        yield
        self.bar.update(self._end_of_member - self.bar.n)
        if self.verbose:
            print(f"{name}, {where}: done in {time.perf_counter() - start:.1f} s")

    @property
    def _end_of_member(self) -> int:
        """Where the bar is when the member that is being trained is done."""
        return sum(self.epochs[: self.n_begun])

    def skip_to(self, n_begun: int) -> None:
        """Go on behind so many members, which were trained, here or before."""
        self.n_begun = n_begun
        self.bar.update(self._end_of_member - self.bar.n)

    def epoch_done(self) -> None:
        """Move the bar by an epoch, up to the end of the member that is being trained."""
        self.bar.update(min(1, self._end_of_member - self.bar.n))

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.close()


def _name(module: nn.Module | None) -> str:
    named = module.classifier if isinstance(module, ClassifierStage) else module
    return type(named).__name__

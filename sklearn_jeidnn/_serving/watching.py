"""Answers of a service, watched as they go, and kept for labels that come late."""

import hashlib
import secrets
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from .._conformal.groups import RoutedSamples
from .._operate.bets import CHUNK
from ..runtime import Watcher

# Of all answers that are kept.
MOST_KEPT_BYTES = 2**26


class WatchedAnswers:
    """Answers gathered until there are enough for the watcher: a few at a time take it as long as many.

    Parameters
    ----------
    watcher : Watcher
    """

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self._waiting: list[RoutedSamples] = []
        self._n_waiting, self._is_coming = 0, False

    def add(self, routed: RoutedSamples) -> None:
        """Take in the answers of a call."""
        self._waiting.append(routed)
        self._n_waiting += len(routed.exit_index)

    def is_due(self) -> bool:
        """Whether there are enough for an update; then one is expected to come, and no other is due before it."""
        if self._is_coming or self._n_waiting < CHUNK:
            return False
        self._is_coming = True
        return True

    def update(self) -> None:
        """Let the watcher see all that were gathered."""
        self._is_coming = False
        waiting, self._waiting, self._n_waiting = self._waiting, [], 0
        if waiting:
            columns = [(routed.probabilities, routed.exit_index) for routed in waiting]
            probabilities, exits = map(np.concatenate, zip(*columns))
            self.watcher.update_answers(probabilities, exits)


class Kept(NamedTuple):
    """Answers of a request whose labels may come."""

    watcher: Watcher
    routed: RoutedSamples

    def __len__(self) -> int:
        return len(self.routed.exit_index)


class KeptAnswers:
    """Answers of the last samples, by the ids under which they were given.

    Parameters
    ----------
    max_samples : int
    """

    def __init__(self, max_samples: int) -> None:
        self.max_samples = max_samples
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._n_samples = self._n_bytes = self._n_given = 0
        self._secret = secrets.token_bytes(16)

    def add(self, watcher: Watcher, routed: RoutedSamples) -> str | None:
        """Keep a request's answers; return its id, which nobody guesses, or None if they are too many."""
        if len(routed.exit_index) > self.max_samples:
            return None
        # A view would keep the whole batch.
        kept = Kept(watcher, RoutedSamples(*(column.copy() for column in routed)))
        key = self._next_id()
        self._kept[key] = kept
        self._count(kept, 1)
        while self._n_samples > self.max_samples or self._n_bytes > MOST_KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._count(oldest, -1)
        return key

    def _next_id(self) -> str:
        # Random numbers of the system take longer.
        self._n_given += 1
        number = self._n_given.to_bytes(8, "little")
        return hashlib.blake2b(number, key=self._secret, digest_size=8).hexdigest()

    def _count(self, kept: Kept, sign: int) -> None:
        self._n_samples += sign * len(kept)
        self._n_bytes += sign * sum(column.nbytes for column in kept.routed)

    def get(self, key: str) -> Kept | None:
        """Answers that are kept, if they are still."""
        return self._kept.get(key)

    def drop(self, key: str) -> None:
        """Forget answers whose labels have come."""
        self._count(self._kept.pop(key), -1)

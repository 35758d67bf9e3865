"""One fit at a time in a process: fits share torch's random numbers, and some of its tracing."""

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(eq=False)
class _Turn:
    """A fit that runs.

    Parameters
    ----------
    thread : threading.Thread
    older_threads : set of threading.Thread or None, default=None
        While another classifier is fitted inside of this fit: threads that ran before.
    """

    thread: threading.Thread
    older_threads: set[threading.Thread] | None = None

    def includes(self, thread: threading.Thread) -> bool:
        """Whether a fit in this thread is part of the fit that has the turn."""
        if thread is self.thread:
            return True
        return self.older_threads is not None and thread not in self.older_threads


class FitTurns:
    """A lock that a fit holds; fits inside of this fit pass it, in its thread or in threads that it starts."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget who holds the lock: in a new process, whoever held it in the old one does not run."""
        self._changed = threading.Condition()
        self._turns: list[_Turn] = []

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        """Wait until no other fit runs."""
        turn = _Turn(threading.current_thread())
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._is_free_for(turn.thread))
                self._turns.append(turn)
            yield
        finally:
            with self._changed:
                if turn in self._turns:
                    self._turns.remove(turn)
                self._changed.notify_all()

    def _is_free_for(self, thread: threading.Thread) -> bool:
        return not self._turns or self._turns[-1].includes(thread)

    @contextlib.contextmanager
    def lend(self) -> Iterator[None]:
        """Let fits pass that start in threads which do not run yet, if this thread has the turn."""
        thread = threading.current_thread()
        with self._changed:
            turn = next((turn for turn in reversed(self._turns) if turn.thread is thread), None)
            if turn is not None:
                turn.older_threads = set(threading.enumerate())
                self._changed.notify_all()
        try:
            yield
        finally:
            if turn is not None:
                with self._changed:
                    turn.older_threads = None
                    self._changed.wait_for(lambda: self._is_free_for(thread))


FIT_TURNS = FitTurns()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=FIT_TURNS.reset)

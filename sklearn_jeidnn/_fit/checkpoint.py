"""What a fit has done so far, in a folder: the same fit, started again after it was killed, goes on from there."""

import contextlib
import glob
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from .._warn import warn_caller
from .checkpoint_files import (
    TEMPORARY,
    DamagedFileError,
    count_bytes,
    packed,
    read_whole,
    write_whole,
)
from .code import describe
from .snapshots import Snapshot, Snapshots, torch_random_numbers

Result = TypeVar("Result")
# What is lost in fewer seconds is not stored, and storing may take this share of the time that it saves.
LEAST_SECONDS, SHARE = 1.0, 0.03
# Bytes that are written in a second, before that is measured; and the fewest that measure it.
BYTES_A_SECOND, ENOUGH_BYTES = 1e8, 1e6
SUFFIX = ".checkpoint"
LENGTH = 32
# What a state that cannot be stored raises.
CANNOT_PICKLE = (pickle.PicklingError, TypeError, AttributeError, RuntimeError)


class StoredLoop:
    """The state of a loop of epochs, stored as often as it is worth its time.

    Parameters
    ----------
    checkpoint : Checkpoint
    path : str
    what : str
        What the loop trains, as a user knows it.
    """

    def __init__(self, checkpoint: "Checkpoint", path: str, what: str) -> None:
        self.checkpoint, self.path, self.what = checkpoint, path, what
        self.snapshots = Snapshots()
        self.last, self.wait = time.perf_counter(), LEAST_SECONDS

    def resume(self, *roots: Any, beside: Sequence[Any] = ()) -> bool:
        """Give the objects of the loop the state that was stored, if one was; return whether the loop had ended."""
        self.snapshots = Snapshots(*roots, beside=beside, device=self.checkpoint.device)
        stored = self.checkpoint.read(self.path)
        if stored is None:
            return False
        has_ended, snapshot = stored
        if not given_back(self.snapshots, snapshot, self.path):
            warn_caller(
                f"checkpoint: the training of {self.what} starts anew, since what its callbacks and its data loader "
                f"hold is built otherwise than when it was stored."
            )
            return False
        self.checkpoint.say(f"{self.what} {'is trained' if has_ended else 'goes on'}")
        return bool(has_ended)

    def epoch_done(self) -> None:
        self._store(has_ended=False)

    def end(self) -> None:
        self._store(has_ended=True)

    def _store(self, has_ended: bool) -> None:
        start = time.perf_counter()
        at_stake = start - self.last
        if at_stake < self.wait:
            return
        needed = self.checkpoint.store(
            self.path, lambda: (has_ended, self.snapshots.take()), at_stake
        )
        now = time.perf_counter()
        if needed is None:
            self.last, needed = now, now - start
        self.wait = now - self.last + max(LEAST_SECONDS, needed / SHARE)


class Checkpoint:
    """Files of one fit.

    Parameters
    ----------
    folder : str
    key : str
        Of everything that the result of the fit depends on.
    device : torch.device
    options : objects
        What a user gives that may hold random numbers: callbacks, options of data loaders.
    verbose : int
    """

    def __init__(
        self, folder: str, key: str, *, device: torch.device, options: Any, verbose: int
    ) -> None:
        self.folder, self.key = folder, key[:LENGTH]
        self.device, self.options, self.verbose = device, options, verbose
        self.used: list[str] = []
        self.has_warned = False
        self.bytes_a_second = BYTES_A_SECOND

    def begin(self) -> None:
        """Remove what a killed fit was writing, and say whether there is anything to go on from."""
        for path in self._paths():
            if path.endswith(TEMPORARY):
                _remove(path)
        others = glob.glob(os.path.join(glob.escape(self.folder), f"*{SUFFIX}"))
        if self._paths():
            self.say(f"goes on from what {self.folder!r} holds of this fit")
        elif others:
            self.say(
                f"{self.folder!r} holds nothing of this fit, but of others (of other data, parameters or code), so it "
                f"starts anew"
            )

    def say(self, text: str) -> None:
        if self.verbose:
            print(f"checkpoint: {text}.")

    def finished(
        self,
        compute: Callable[[], Result],
        told: Callable[[], Any],
        *,
        roots: Sequence[Any] = (),
        always: bool = False,
    ) -> Result:
        """``compute()``, or what it returned in the same fit before that was killed.

        Parameters
        ----------
        compute : callable
            Returns what can be pickled.
        told : callable
            Returns what tells this step from the others of the fit, beside the state of torch's random numbers.
        roots : sequence of objects
            What is changed in place.
        always : bool, default=False
            Whether it is stored also if it takes little time: what would not be the same again.
        """
        path = self._path(told)
        snapshots = Snapshots(*roots, options=self.options, device=self.device)
        stored = self.read(path)
        if stored is not None and given_back(snapshots, stored[1], path):
            result: Result = stored[0]
            return result
        n_used, start = len(self.used), time.perf_counter()
        result = compute()
        seconds = time.perf_counter() - start
        if always or seconds >= LEAST_SECONDS:
            at_stake = float("inf") if always else seconds
            needed = self.store(path, lambda: (result, snapshots.take()), at_stake)
            if needed is None:
                self._forget(n_used)
        return result

    def loop(self, what: str, told: Callable[[], Any]) -> StoredLoop:
        """Return the stored state of a loop; ``told`` as in :meth:`finished`."""
        return StoredLoop(self, self._path(told), what)

    def read(self, path: str) -> Any:
        """Return what is stored, or None."""
        try:
            stored = read_whole(path)
        except FileNotFoundError:
            return None
        except (DamagedFileError, OSError, MemoryError) as error:
            warn_caller(
                f"checkpoint={self.folder!r}: a file cannot be used ({_reason(error)}); what it was to save is done "
                f"anew."
            )
            return None
        self.used.append(path)
        return stored

    def store(self, path: str, make: Callable[[], Any], at_stake: float) -> float | None:
        """Store what saves so many seconds; return None if it is stored, else the seconds that it would take."""
        try:
            buffers = packed(make())
            needed = count_bytes(buffers) / self.bytes_a_second
            if needed > SHARE * at_stake:
                return needed
            self._write(path, buffers)
        except (OSError, MemoryError, *CANNOT_PICKLE) as error:
            self._warn_once(error)
            return 0.0
        self.used.append(path)
        return None

    def _write(self, path: str, buffers: list[Any]) -> None:
        start = time.perf_counter()
        try:
            write_whole(path, buffers)
        except FileNotFoundError:
            # Another process has removed the folder or the file that was to be renamed.
            os.makedirs(self.folder, exist_ok=True)
            write_whole(path, buffers)
        if (n_bytes := count_bytes(buffers)) >= ENOUGH_BYTES:
            self.bytes_a_second = n_bytes / (time.perf_counter() - start)

    def _warn_once(self, error: BaseException) -> None:
        if self.has_warned:
            return
        self.has_warned = True
        advice = (
            "make room there, or make it writable"
            if isinstance(error, OSError | MemoryError)
            else "leave out of callbacks and members what cannot be stored"
        )
        warn_caller(
            f"checkpoint={self.folder!r}: the state of the fit cannot be stored ({_reason(error)}). The fit goes on, "
            f"but would resume from what was stored before; {advice}."
        )

    def remove(self) -> None:
        """Remove the files of the fit; the folder stays."""
        for path in self._paths():
            _remove(path)

    def _forget(self, n_used: int) -> None:
        """Remove the files of the parts of what has just been stored as a whole."""
        self.used, (*parts, whole) = self.used[:n_used], self.used[n_used:]
        self.used.append(whole)
        for path in parts:
            _remove(path)

    def _path(self, told: Callable[[], Any]) -> str:
        step = describe(torch_random_numbers(self.device), told())[:LENGTH]
        return os.path.join(self.folder, f"{self.key}-{step}{SUFFIX}")

    def _paths(self) -> list[str]:
        return glob.glob(os.path.join(glob.escape(self.folder), f"{self.key}-*"))


class NoLoop(StoredLoop):
    """A loop whose state is not stored."""

    def __init__(self) -> None: ...

    def resume(self, *roots: Any, beside: Sequence[Any] = ()) -> bool:
        return False

    def _store(self, has_ended: bool) -> None: ...


class NoCheckpoint(Checkpoint):
    """Stores nothing."""

    def __init__(self) -> None: ...

    def finished(
        self,
        compute: Callable[[], Result],
        told: Callable[[], Any],
        *,
        roots: Sequence[Any] = (),
        always: bool = False,
    ) -> Result:
        return compute()

    def loop(self, what: str, told: Callable[[], Any]) -> StoredLoop:
        return NO_LOOP

    def remove(self) -> None: ...


NO_LOOP, NO_CHECKPOINT = NoLoop(), NoCheckpoint()


def given_back(snapshots: Snapshots, snapshot: Snapshot, path: str) -> bool:
    """Give objects a stored state; False, and nothing changes, if these are other objects."""
    try:
        return snapshots.give_back(snapshot)
    except Exception as error:  # whatever objects of the user's raise that take a state
        raise ValueError(
            f"checkpoint: what is stored in {path!r} does not fit this fit ({type(error).__name__}: {error}); remove "
            f"the file, and start the fit again."
        ) from error


def check_checkpoint_folder(checkpoint: Any) -> None:
    """Refuse a folder that cannot be made or written to, before there is anything to store.

    Raises
    ------
    OSError
    """
    if checkpoint is None:
        return
    try:
        os.makedirs(checkpoint, exist_ok=True)
        with tempfile.TemporaryFile(dir=checkpoint) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(
            error.errno,
            f"checkpoint={os.fspath(checkpoint)!r} is no folder in which files can be stored ({_reason(error)}); give "
            f"a folder that can be written to and has room, or checkpoint=None",
        ) from error


def _reason(error: BaseException) -> str:
    """What an error says, without the name of a file that means nothing to a user."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)

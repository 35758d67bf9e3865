"""Files and folders that are there whole or not at all."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Begins the names of what is being written.
UNFINISHED = ".unfinished-"


def as_path(path: Any, name: str) -> Path:
    """A path, if it is one.

    Raises
    ------
    TypeError, ValueError
        That name the parameter.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(
            f"{name}={path!r:.80} is not allowed; give the name of a file or folder, a str or a path."
        )
    if not str(path) or "\0" in str(path):
        raise ValueError(f"{name}={path!r} is not allowed: no file can be called so.")
    return Path(path)


def _place(path: Any, name: str) -> Path:
    """Where to write, behind links; refuse a folder that is not there."""
    place = Path(os.path.realpath(as_path(path, name)))
    if not place.parent.is_dir():
        raise FileNotFoundError(
            f"{name}={str(path)!r} is in {str(place.parent)!r}, and there is no such folder; make it first."
        )
    return place


def file_place(path: Any) -> Path:
    """Where to write a file, behind links; refuse a folder, and a file in a folder that is not there."""
    place = _place(path, "path")
    if place.is_dir():
        raise IsADirectoryError(f"path={str(path)!r} is a folder; give the name of a file in it.")
    return place


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], None]) -> None:
    """Write a file beside its place, and move it there once it is whole.

    Parameters
    ----------
    path : str or path
    write : callable
        Writes a file of the name that it is given.

    Raises
    ------
    OSError
        If the file cannot be written. What was there before stays.
    """
    place = file_place(path)
    with _unfinished(place, is_folder=False) as unfinished:
        write(unfinished)
        _flush(unfinished)
        os.replace(unfinished, place)
    _flush(place.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """:func:`write_whole` of these bytes."""

    def write(file: Path) -> None:
        file.write_bytes(data)

    write_whole(path, write)


def write_whole_folder(
    path: str | os.PathLike[str], write: Callable[[Path], None], may_replace: Callable[[Path], bool]
) -> None:
    """Write a folder beside its place, and move it there once all its files are whole.

    Parameters
    ----------
    path : str or path
    write : callable
        Writes files into the folder that it is given.
    may_replace : callable
        Whether a folder that is there may be replaced.

    Raises
    ------
    OSError
        If the folder cannot be written, or if something is there that may not be replaced. What was there before stays.
    """
    place = _place(path, "directory")
    if place.exists() and not (place.is_dir() and (not any(place.iterdir()) or may_replace(place))):
        raise FileExistsError(
            f"{str(place)!r} exists, and is no folder that was exported before; give a new one, or remove it."
        )
    with _unfinished(place, is_folder=True) as unfinished:
        write(unfinished)
        for file in unfinished.iterdir():
            _flush(file)
        _flush(unfinished)
        _exchange(unfinished, place)
    _flush(place.parent)


def _exchange(new: Path, place: Path) -> None:
    """Move a folder to its place, and remove what was there."""
    if not place.exists():
        os.rename(new, place)
        return
    old = _new_name(place.parent)
    os.rename(place, old)
    try:
        os.rename(new, place)
    except OSError:
        os.rename(old, place)
        raise
    shutil.rmtree(old)


@contextlib.contextmanager
def _unfinished(place: Path, *, is_folder: bool) -> Iterator[Path]:
    """Name for what is being written, in the folder where it will be; removed if it is still there."""
    folder = _new_name(place.parent)
    folder.mkdir()
    found = folder if is_folder else folder / "file"
    try:
        yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _new_name(folder: Path) -> Path:
    """Name that nothing has; what is made under it has the usual permissions, as of a temporary folder it has not."""
    return folder / f"{UNFINISHED}{uuid.uuid4().hex}"


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

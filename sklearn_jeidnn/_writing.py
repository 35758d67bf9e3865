"""Write files whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import Any


def check_writable(path: Any) -> str:
    """Return the path of a file that can be written.

    Raises
    ------
    TypeError
        If it is no path.
    OSError
        If there is no such folder, or one may not write there, or the path is that of a folder.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(
            f"path={path!r} is not allowed; give the path of a file, such as 'file.onnx'."
        )
    if not os.fspath(path):
        raise ValueError("path='' is not allowed; give the path of a file, such as 'file.onnx'.")
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise IsADirectoryError(f"path={str(path)!r} is a folder; give the path of a file in it.")
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"path={str(path)!r} is in {folder!r}, and there is no such folder."
        )
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"path={str(path)!r} is in {folder!r}, where you may not write.")
    return target


def write_file(path: str, data: bytes) -> None:
    """Write a file; whoever reads it meanwhile, or after a crash, finds what was there before, or all of it."""
    with _beside(path) as (file, name):
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)


@contextlib.contextmanager
def _beside(path: str) -> Iterator[tuple[int, str]]:
    """Open a new file in the same folder, with the permissions that new files have; remove it if anything fails."""
    name = f"{path}.{secrets.token_hex(4)}.part"
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        yield file, name
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise

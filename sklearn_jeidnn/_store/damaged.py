"""What is wrong with a file that is no fitted classifier, or no whole one."""

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Any


class DamagedFile(ValueError):
    """A file is damaged, or no file of this package's."""


@contextlib.contextmanager
def naming_file(path: Any) -> Iterator[None]:
    """Let whatever goes wrong with the content of a file say which file it is, and what to do."""
    try:
        yield
    except (ImportError, OSError):
        # It cannot be read, or something is not installed: no matter what it holds.
        raise
    except Exception as error:
        # A hostile file makes of values what it likes: whichever error follows tells no more than that it is damaged.
        what = str(error) if isinstance(error, DamagedFile) else f"{type(error).__name__}: {error}"
        raise DamagedFile(
            f"{str(path)!r} cannot be loaded: {what}. Copy it anew from where it was written, or write it anew."
        ) from error


def read_whole(path: str | os.PathLike[str]) -> bytearray:
    """All bytes of a file, which must be one: a device has no end."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise DamagedFile(f"{os.path.basename(path)} is no file")
        data = bytearray(status.st_size)
        file.readinto(data)
    return data

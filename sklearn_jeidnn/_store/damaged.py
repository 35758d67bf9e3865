"""What is wrong with a file that is no fitted classifier, or no whole one."""

import contextlib
from collections.abc import Iterator
from typing import Any


class DamagedFile(ValueError):
    """A file is damaged, or no file of this package's."""


@contextlib.contextmanager
def naming_file(path: Any) -> Iterator[None]:
    """Let whatever goes wrong with the content of a file say which file it is, and what to do."""
    try:
        yield
    # Whatever a hostile file makes of values: none of these errors is ours, and none is to be seen by itself.
    except (
        ArithmeticError,
        AttributeError,
        AssertionError,
        EOFError,
        IndexError,
        KeyError,
        MemoryError,
        NotImplementedError,
        RecursionError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        what = str(error) if isinstance(error, DamagedFile) else f"{type(error).__name__}: {error}"
        raise DamagedFile(
            f"{str(path)!r} cannot be loaded: {what}. Copy it anew from where it was written, or write it anew."
        ) from error

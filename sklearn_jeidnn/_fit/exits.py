"""What a user says of exits, for each member, and how exits of several members are named."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np

# Exits inside a companion: a companion is cheap, and heads inside it are not.
COMPANION_EXITS = 0

# "auto", a number of exits, or names of submodules.
Exits: TypeAlias = str | int | list[str]


def exits_of_members(exits: Any, n_members: int, *, only_the_last: bool) -> list[Exits]:
    """Return "auto", a number or names of exits for each member.

    Parameters
    ----------
    exits : "auto", int or list
        What a user gives as ``exits``.
    n_members : int
    only_the_last : bool
        Whether ``exits`` is about the backbone alone.
    """
    if n_members == 1 or only_the_last or isinstance(exits, str):
        return [COMPANION_EXITS] * (n_members - 1) + [_as_exits(exits)]
    entries: Any = exits if np.iterable(exits) else [exits] * n_members
    if len(entries) != n_members:
        raise ValueError(
            f"exits={exits!r} must be 'auto', a number, or have one entry ('auto', a number or a list of "
            f"names) for each of the {n_members} members of module."
        )
    return [_as_exits(entry) for entry in entries]


def _as_exits(exits: Any) -> Exits:
    """Convert NumPy integers to Python's, and names to a list; "auto" stays."""
    if isinstance(exits, str) and exits == "auto":
        return exits
    if isinstance(exits, Integral) and not isinstance(exits, bool) and int(exits) >= 0:
        return int(exits)
    if isinstance(exits, str | bytes | Mapping) or not np.iterable(exits):
        raise ValueError(
            f"exits has the entry {exits!r}; with several members each entry must be 'auto', a number from 0, or a "
            f"list of names such as ['blocks.0']."
        )
    return list(exits)


def joined_names(names: Sequence[Sequence[str]]) -> list[str]:
    """Return names of all exits but the last.

    An exit inside member i is named "i.NAME", the exit at its end "i".
    """
    inside = [[f"{i}.{name}" for name in member_names] for i, member_names in enumerate(names)]
    return [name for i, prefixed in enumerate(inside) for name in (*prefixed, str(i))][:-1]

"""The members of a fitted classifier one after the other, by names that a reader knows (Python only)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

# Classes that are made here say by their base what they are.
MADE_HERE = __name__.rpartition(".")[0] + "._fit"
LAST_EXIT = "last exit"


class ChainMember(NamedTuple):
    """A member, and the exits inside of it and at its end."""

    kind: str
    exits: list[str]
    costs: list[float]  # of everything run up to each exit, relative to the plain backbone


def kind_of(module: Any) -> str:
    """Name of the class of a member; of a pipeline that of its last step."""
    if getattr(module, "steps", None):
        return kind_of(module.steps[-1][1])
    kinds = [kind for kind in type(module).__mro__ if not kind.__module__.startswith(MADE_HERE)]
    known = [kind.__name__ for kind in kinds if not kind.__name__.endswith("Mixin")]
    return known[0] if known[0] not in ("BaseEstimator", "object") else type(module).__name__


def chain_of(
    modules: Sequence[Any], exits_inside: Sequence[Sequence[str]], costs: Sequence[float]
) -> list[ChainMember]:
    """Members with their exits.

    Parameters
    ----------
    modules : sequence (n_members,)
        Torch modules and classifiers.
    exits_inside : sequence of sequences of str (n_members,)
        Names of the exits inside of each member.
    costs : sequence of float (n_exits,)
        Each member has an exit at its end besides.
    """
    members, n_before = [], 0
    for module, inside in zip(modules, exits_inside, strict=True):
        n_exits = n_before + len(inside) + 1
        members.append(ChainMember(kind_of(module), list(inside), list(costs[n_before:n_exits])))
        n_before = n_exits
    return members


def _without_suffix(kind: str) -> str:
    """All members classify: "ExtraTreesClassifier" -> "ExtraTrees"."""
    return kind.removesuffix("Classifier").removesuffix("Regressor") or kind


def exit_labels(exits: Sequence[str], members: Sequence[ChainMember]) -> list[str]:
    """Name of each exit for a reader: that of ``exits_``, and what stands at the end of a member (n_exits,)."""
    ends = {}
    last = -1
    for member in members:
        last += len(member.costs)
        ends[last] = member.kind
    names = [*exits, LAST_EXIT]
    if len(members) == 1:
        return names
    return [
        f"{name}: {_without_suffix(ends[i])}" if i in ends else name for i, name in enumerate(names)
    ]

"""Which trees stand beside the ready network at the end of a cascade."""

import itertools
from collections.abc import Callable, Sequence

from .assembly import Cut
from .learning import AnsweringMember
from .mixing import pooled_log_loss


def chosen_ends(
    members: Sequence[AnsweringMember],
    backbone: int,
    trees: Sequence[int],
    in_order: Callable[[Sequence[Cut]], list[int]],
) -> tuple[int, ...]:
    """Return the backbone and those trees that make it better, the costliest last.

    Their answers are pooled, with weights fitted on samples that they have not learned from. Better is by the pool's
    log-loss on these samples, to which a member adds as much as a useless weight takes away on average (Akaike 1974,
    doi 10.1109/TAC.1974.1100705).

    Parameters
    ----------
    members : sequence of AnsweringMember
    backbone, trees : int, sequence of int
        Which of them.
    in_order : callable
        Cuts -> their numbers in the order of what each costs by itself.
    """
    subsets = [
        (backbone, *some)
        for n_trees in range(len(trees) + 1)
        for some in itertools.combinations(trees, n_trees)
    ]
    chosen = min(subsets, key=lambda numbers: _criterion([members[i] for i in numbers]))
    if len(chosen) == 1:
        return chosen
    return tuple(chosen[i] for i in in_order([members[number].cut for number in chosen]))


def _criterion(members: Sequence[AnsweringMember]) -> float:
    """Akaike's, for each sample."""
    held_out = [member.held_out for member in members]
    return pooled_log_loss(held_out) + len(members) / len(held_out[0].y)

"""Which trees stand beside the ready network at the end of a cascade."""

import itertools
from collections.abc import Callable, Sequence

from .assembly import Cut
from .learning import LearnedMember
from .mixing import pooled_log_loss


def chosen_ends(
    backbone: LearnedMember,
    trees: Sequence[LearnedMember],
    in_order: Callable[[Sequence[Cut]], list[Cut]],
) -> list[LearnedMember]:
    """Return the backbone and those trees that make it better, the costliest last.

    Their answers are pooled, with weights fitted on the samples that set the gates. Better is by the pool's log-loss
    on these samples, to which a member adds as much as a useless weight takes away on average (Akaike 1974,
    doi 10.1109/TAC.1974.1100705).

    Parameters
    ----------
    backbone : LearnedMember
    trees : sequence of LearnedMember
    in_order : callable
        Cuts -> the same in the order of their costs.
    """
    subsets = [
        [backbone, *some]
        for n_trees in range(len(trees) + 1)
        for some in itertools.combinations(trees, n_trees)
    ]
    chosen = min(subsets, key=_criterion)
    if len(chosen) == 1:
        return chosen
    members = {id(member.cut): member for member in chosen}
    return [members[id(cut)] for cut in in_order([member.cut for member in chosen])]


def _criterion(members: Sequence[LearnedMember]) -> float:
    """Akaike's, for each sample."""
    held_out = [member.held_out for member in members]
    return pooled_log_loss(held_out) + len(members) / len(held_out[0].y)

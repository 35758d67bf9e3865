"""Choose the companions to keep, by what members answer for samples that they have not learned from."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from .._operate.frontier import objective_at
from .assembly import Assembly
from .companions import simplest_of_best
from .ends import chosen_ends
from .held_out import Learning
from .learning import AnsweringMember, LearnedMember
from .priced_network import PricedNetwork
from .spec import CascadeSpec

# Most companions that are kept: more of them hardly ever help, and subsets are tried one by one.
MOST_COMPANIONS = 3


class Subset(NamedTuple):
    """Some of the members, the backbone among them.

    ``with_exits`` says whether the backbone keeps the exits with which it is trained.
    """

    numbers: tuple[int, ...]
    with_exits: bool = True

    def of(self, members: Sequence[Any]) -> list[Any]:
        """Return those of all members."""
        return [members[number] for number in self.numbers]


class Choice(NamedTuple):
    """The choice among candidates to stand in front of the backbone.

    Parameters
    ----------
    spec : CascadeSpec
    assembly : Assembly
    learning : Learning
    with_measured_costs : callable
        Network with counted costs -> network with measured ones, if costs are measured.
    n_trees : int, default=0
        How many of the members before the last are trees that may stand beside it.
    """

    spec: CascadeSpec
    assembly: Assembly
    learning: Learning
    with_measured_costs: Callable[[PricedNetwork], PricedNetwork]
    n_trees: int = 0

    def best(self, members: Sequence[AnsweringMember]) -> Subset:
        """Return the backbone, and trees beside it, behind those companions with which the objective is least."""
        last = len(members) - 1
        n_companions = last - self.n_trees
        ends = chosen_ends(members, last, range(n_companions, last), self.assembly.in_order)
        self = self._replace(assembly=self.assembly.ending_in(members[ends[-1]].cut))
        # A classifier has no exits of its own.
        fewest = 1 if len(ends) == 1 and self.assembly.ends_in_classifier else 0
        subsets = [
            Subset((*numbers, *ends))
            for n_kept in range(fewest, min(n_companions, MOST_COMPANIONS) + 1)
            for numbers in itertools.combinations(range(n_companions), n_kept)
        ]
        if self.spec.is_timed and isinstance(self.spec.exits, str) and members[-1].cut.names:
            # Behind companions, exits inside the backbone may take more time than they save.
            subsets += [Subset(s.numbers, with_exits=False) for s in subsets if len(s.numbers) > 1]
        tried = [self.stripped(subset, subset.of(members)) for subset in subsets]
        objectives = [self._objective(some) for some in tried]
        sizes = [(len(some), sum(len(member.cut.names) for member in some)) for some in tried]
        return subsets[simplest_of_best(objectives, sizes)]

    def stripped(self, subset: Subset, members: Sequence[Any]) -> list[Any]:
        """Return the members of a subset, the backbone without its exits if it is to have none."""
        if subset.with_exits:
            return list(members)
        return [self._without_exits(member) if member.cut.names else member for member in members]

    def _without_exits(self, backbone: AnsweringMember) -> AnsweringMember:
        """Return the backbone, which was trained with its exits, as one stage."""
        module: Any = backbone.cut.module
        whole = self.assembly.as_single_stage(module)
        stripped = replace(
            backbone,
            cut=replace(whole, learns=backbone.cut.learns),
            held_out=backbone.held_out.last_exit(),
        )
        if isinstance(stripped, LearnedMember):
            return replace(stripped, train=stripped.train.last_exit())
        return stripped

    def _objective(self, members: Sequence[AnsweringMember]) -> float:
        """Return the objective that members would reach on samples that they have not learned from."""
        priced_network = self.assembly.chain([member.cut for member in members])
        self.learning.combine(priced_network.network, members)
        priced_network = self.with_measured_costs(priced_network)
        return objective_at(
            self.learning.answers(priced_network.network, members),
            priced_network.network.exit_mass,
            priced_network.exit_costs,
            cost_weight=self.spec.cost_weight,
            budget=self.spec.budget,
            least_cost=priced_network.least_cost,
        )

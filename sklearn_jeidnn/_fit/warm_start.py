"""Go on from the networks of an earlier fit, and know what they have learned from."""

import copy
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from .._history import SampleHistory
from .._operate.exit_answers import ExitAnswers
from .assembly import Cut
from .members import Member, restore_learning
from .spec import MODULE_PREFIX, CascadeSpec

# Attribute of a fitted ``module_``. It holds arrays alone, so that a stored module loads without this package.
HISTORY = "_sklearn_jeidnn_history"
# Parameters that say which network there is.
STRUCTURE = ("module", "exits", "head", "companion", "classes", "categorical_features")


@dataclass(frozen=True, kw_only=True)
class TrainedMembers:
    """The members of a fitted cascade, as they can learn again.

    Parameters
    ----------
    members : list of Member
        Trained modules, the backbone last; classifiers as the user gave them.
    exits : list of list of str
        Names of the exits inside each member.
    heads : list of dict
        State of each member's heads.
    are_frozen : list of bool
        Whether each member's stages stayed as they were.
    structure : dict
        Parameters that the network was built with.
    accuracy : float
        Of the plain backbone on the held-out samples that set the gates.
    n_held_out : int
        Their number.
    """

    members: list[Member]
    exits: list[list[str]]
    heads: list[dict[str, Any]]
    are_frozen: list[bool]
    structure: dict[str, Any]
    accuracy: float
    n_held_out: int

    @classmethod
    def of(
        cls,
        spec: CascadeSpec,
        cuts: Sequence[Cut],
        held_out: ExitAnswers,
    ) -> "TrainedMembers":
        """Keep the members of a fit; of a classifier what it was before."""
        members = [cut.member or Member(cut.module, {}) for cut in cuts]
        return cls(
            members=members,
            exits=[cut.names for cut in cuts],
            heads=[copy.deepcopy(cut.network.heads.state_dict()) for cut in cuts],
            are_frozen=[cut.network.frozen for cut in cuts],
            structure=spec.structure or structure_of(spec),
            accuracy=held_out.backbone_accuracy,
            n_held_out=len(held_out),
        )

    def load_heads(self, cuts: Sequence[Cut]) -> None:
        """Give the heads of newly cut members the weights that they had."""
        for cut, state in zip(cuts, self.heads, strict=True):
            cut.network.heads.load_state_dict(state)
            # Exits are combined after the training.
            cut.network.heads.mix(0.0, 0.0)


def structure_of(spec: CascadeSpec) -> dict[str, Any]:
    """The parameters that say which network there is."""
    named = {name: getattr(spec, name) for name in STRUCTURE}
    return {**named, **{MODULE_PREFIX + name: value for name, value in spec.module_params.items()}}


def going_on(spec: CascadeSpec, trained: TrainedMembers) -> CascadeSpec:
    """The parameters with which a fit goes on from trained members.

    Raises
    ------
    ValueError
        If the parameters ask for another network.
    """
    structure = structure_of(spec)
    names = sorted({*structure, *trained.structure})
    changed = [n for n in names if not _same(structure.get(n), trained.structure.get(n))]
    if changed:
        raise ValueError(
            f"warm_start=True goes on with the network of the last fit, but {changed} have changed since; put them "
            f"back, or give warm_start=False."
        )
    exits: Any = [names or 0 for names in trained.exits]
    prefixed = {n: v for n, v in spec.prefixed.items() if not n.startswith(MODULE_PREFIX)}
    return replace(
        spec,
        module=list(trained.members),
        exits=exits if len(exits) > 1 else exits[0],
        companion=None,
        prefixed=prefixed,
        trained=trained,
        structure=structure,
    )


def _same(first: Any, second: Any) -> bool:
    """Whether two parameters are equal; instances of modules are if they are one."""
    lists = (list, tuple)
    if isinstance(first, lists) and isinstance(second, lists):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, nn.Module) or isinstance(second, nn.Module):
        return first is second
    return repr(first) == repr(second)


def keep_for_later(
    spec: CascadeSpec,
    cuts: Sequence[Cut],
    history: SampleHistory,
    held_out: ExitAnswers,
) -> TrainedMembers:
    """Keep members so that a later fit can go on from them, and knows what they have learned from."""
    trained = TrainedMembers.of(spec, cuts, held_out)
    for cut in cuts:
        if cut.module is not None:
            restore_learning(cut.module, cut.learns)
            remember_history(cut.module, history)
    return trained


def remember_history(module: nn.Module, history: SampleHistory) -> None:
    """Note on a trained module which samples it has learned from."""
    noted = (history.hashes, history.parts, history.complete, _checksum(module))
    setattr(module, HISTORY, noted)


def history_of_module(module: nn.Module) -> SampleHistory | None:
    """What a module has learned from; None if that is not known, or if it has learned since."""
    noted = vars(module).get(HISTORY)
    if noted is None or noted[3] != _checksum(module):
        return None
    return SampleHistory(hashes=noted[0], parts=noted[1], complete=noted[2])


def _checksum(module: nn.Module) -> int:
    found = 0
    for value in module.state_dict().values():
        if hasattr(value, "cpu"):
            found = zlib.crc32(np.ascontiguousarray(value.float().cpu().numpy()).data, found)
    return found

"""How notebooks show an estimator: the chain of its members, and what their exits cost once it is fitted."""

from collections.abc import Sequence
from typing import Any

from ._chain import ChainMember, chain_of, kind_of
from ._fit.members import Member, as_members
from ._fit.spec import CascadeSpec

try:
    from sklearn.utils._repr_html.estimator import _VisualBlock
except ImportError:  # scikit-learn before 1.7
    from sklearn.utils._estimator_html_repr import _VisualBlock

READY = "ready network"


class HtmlMixin:
    """The part of :class:`EarlyExitClassifier` that scikit-learn's diagrams of estimators ask for."""

    module: Any
    companion: str | None
    exits_: list[str]

    def _sk_visual_block_(self) -> Any:
        """Members one after the other; scikit-learn draws the parameters around them."""
        predictor = vars(self).get("_predictor")
        blocks = _planned(self) if predictor is None else _fitted(predictor)
        return _VisualBlock("serial", blocks, dash_wrapped=True)


def _planned(estimator: Any) -> list[Any]:
    """A block for each member that the parameters name."""
    members = as_members(estimator.module, CascadeSpec.of(estimator).module_params)
    blocks = [_block(_kind(member), "", _details(member)) for member in members]
    if estimator.companion == "auto":
        made = "smaller networks in front of it, those that pay"
        blocks.insert(0, _block("companions", "made by fit", made))
    return blocks


def _kind(member: Member) -> str:
    if member.module is None:
        return READY
    return getattr(member.module, "__name__", None) or kind_of(member.module)


def _details(member: Member) -> str:
    of_module = (
        "chosen by fit, for tables or images" if member.module is None else repr(member.module)
    )
    given = "".join(f"\n{name}={value!r}" for name, value in member.params.items())
    return of_module + given


def _fitted(predictor: Any) -> list[Any]:
    """A block for each member of a fitted classifier, with its exits and their costs."""
    cascade = predictor.cascade
    modules = [member.module for member in cascade.trained.members]
    chain = chain_of(modules, cascade.trained.exits, cascade.exit_costs.tolist())
    unit = "time" if cascade.plain_seconds is not None else "cost"
    return [_of_member(member, unit, is_last=member is chain[-1]) for member in chain]


def _of_member(member: ChainMember, unit: str, *, is_last: bool) -> Any:
    n_exits, least, most = len(member.costs), member.costs[0], member.costs[-1]
    exits = "1 exit" if n_exits == 1 else f"{n_exits} exits"
    costs = f"{least:.3g}" if n_exits == 1 else f"{least:.3g} to {most:.3g}"
    return _block(member.kind, f"{exits}, {unit} {costs}", _exit_lines(member, unit, is_last))


def _exit_lines(member: ChainMember, unit: str, is_last: bool) -> str:
    """A line for each exit of a member: its name, and what is spent up to there."""
    names: Sequence[str] = [*member.exits, "end of the chain" if is_last else "end of the member"]
    width = max(map(len, names))
    lines = [f"{n:{width}}  {cost:.3g}" for n, cost in zip(names, member.costs, strict=True)]
    return "\n".join([f"exit, and {unit} up to it (plain backbone = 1)", *lines])


def _block(name: str, caption: str, details: str) -> Any:
    return _VisualBlock("single", None, names=name, name_caption=caption, name_details=details)

"""How many folds a fit takes, and what does not go together with folds."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from .._schema import InputSchema
from .classifiers import is_fitted
from .datasets import BATCH_SAMPLER, SAMPLER
from .members import Member
from .spec import CascadeSpec

AUTO, CALLBACKS = "auto", "callbacks__"
# Fewest samples of a table with folds by default, and the most of one with so many folds: see decisions 45 and 50.
FEWEST_SAMPLES = 500
FOLDS_UP_TO = {5: 2000, 3: 5000}
MOST_SAMPLES = max(FOLDS_UP_TO.values())
INSTEAD = "give cv=None, with which some samples set the gates alone"


def folds_of(
    cv: int | str | None,
    spec: CascadeSpec,
    members: Sequence[Member],
    *,
    warm_start: bool,
    gives_held_out: bool,
    validation_fraction: float,
) -> Callable[[InputSchema, int], int | None]:
    """Return a function from a schema and a number of samples to the number of folds, None for none.

    Parameters
    ----------
    cv : int, "auto" or None
    spec : CascadeSpec
    members : list of Member
    warm_start : bool
    gives_held_out : bool
        Whether the user gives held-out samples.
    validation_fraction : float

    Raises
    ------
    ValueError
        If a number is given, and the other parameters do not go together with folds; the function raises it if no
        sample would calibrate where one has to.
    """
    reason = _why_not(spec, members, warm_start=warm_start, gives_held_out=gives_held_out)
    if cv != AUTO and cv is not None and reason is not None:
        raise ValueError(f"cv={cv!r} {reason}; {INSTEAD}.")

    def n_folds(schema: InputSchema, n_samples: int) -> int | None:
        found = by_default(schema, n_samples) if cv == AUTO else cv
        if validation_fraction == 0:
            _check_none_held_out(found, spec)
        return None if found is None else int(found)

    def by_default(schema: InputSchema, n_samples: int) -> int | None:
        if schema.columns is None or n_samples < FEWEST_SAMPLES:
            return None
        comes_untrained = not any(isinstance(member.module, nn.Module) for member in members)
        # Callbacks may read what is measured on held-out samples, of which the last training has none.
        has_callbacks = spec.callbacks or any(name.startswith(CALLBACKS) for name in spec.prefixed)
        is_plain = reason is None and comes_untrained and not has_callbacks
        # A slow classifier would be fitted in each fold, too.
        up_to = {5: FOLDS_UP_TO[5]} if spec.imitates else FOLDS_UP_TO
        fitting = [n_folds for n_folds, most in up_to.items() if n_samples <= most]
        return max(fitting) if fitting and is_plain else None

    return n_folds


def _check_none_held_out(n_folds: Any, spec: CascadeSpec) -> None:
    if n_folds is None:
        raise ValueError(
            "validation_fraction=0 holds no sample out, so that none sets the gates; give cv=5, with which samples set "
            "them that also train, or more than 0."
        )
    if spec.risk_confidence is not None:
        raise ValueError(
            f"risk_confidence={spec.risk_confidence!r} certifies a limit on samples that calibrate, but "
            f"validation_fraction=0 leaves none; give more than 0, or call control_risk with samples of their own. "
            f"Out-of-fold answers (cv={n_folds}) certify nothing of members that then learned from all samples."
        )


def _why_not(
    spec: CascadeSpec, members: Sequence[Member], *, warm_start: bool, gives_held_out: bool
) -> str | None:
    """What does not go together with folds; None if everything does."""
    samplers = [name for name in (SAMPLER, BATCH_SAMPLER) if spec.prefixed.get(name) is not None]
    fitted = [m.module for m in members if m.is_classifier and is_fitted(m.module)]
    reasons = [
        (
            gives_held_out,
            "lets the samples of X set the gates, but X_val is given, which sets them",
        ),
        (
            not spec.is_joint,
            f"is for gate_training='joint'; got gate_training={spec.gate_training!r}, whose gates learn from what "
            f"heads learn from",
        ),
        (
            spec.precision != spec.trained_in,
            f"lets samples set the gates from which the networks that answer have learned, but gates for "
            f"precision={spec.precision!r} learn from what these answer",
        ),
        (
            warm_start,
            "trains members without each fold in turn, but warm_start=True goes on with members that have learned "
            "from all folds",
        ),
        (
            spec.takes_trained,
            "trains members without each fold in turn, but freeze_backbone=True takes them as they come",
        ),
        (
            bool(fitted),
            f"trains members without each fold in turn, but {fitted[:1]} come fitted",
        ),
        (
            spec.distils and members[-1].is_classifier,
            "trains members without each fold in turn, but with companion_training='distilled' companions learn what "
            "the last member, a classifier, answers in folds of its own",
        ),
        (bool(samplers), f"trains on some of the samples, but {samplers} are made for all of them"),
    ]
    return next((reason for holds, reason in reasons if holds), None)

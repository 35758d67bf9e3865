"""What a report says of how a classifier was fitted and what answers."""

import datetime
import functools
import inspect
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch

from .._history import GATES, TRAIN
from .._operate.operating_point import RiskControl
from .._predictor import Predictor
from ..metrics import coverage_band

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "skorch", "onnxruntime")
# These say where files are, and change nothing in what is learned.
OF_MACHINES = ("memory", "checkpoint", "verbose")
MOST_CHARACTERS = 160


@dataclass(frozen=True, kw_only=True)
class FitFacts:
    """How a classifier was fitted.

    Parameters
    ----------
    n_train, n_gates, n_calibration : int
        Samples that trained, set the gates alone, and calibrate prediction sets.
    out_of_fold : bool
        Whether the samples that trained also set the gates, as members answer them that have not seen them.
    complete : bool
        Whether networks are known to have learned from no other samples.
    classes : list of str
    held_out_counts : ndarray of int (n_classes,)
        Of the samples that set the gates or calibrate, whose labels are kept.
    parameters : list of pair of str
        Name and value of those that differ from their defaults.
    versions : list of pair of str
        Of packages, here.
    seed : str
    date : datetime.date
    """

    n_train: int
    n_gates: int
    n_calibration: int
    out_of_fold: bool
    complete: bool
    classes: list[str]
    held_out_counts: np.ndarray
    parameters: list[tuple[str, str]]
    versions: list[tuple[str, str]]
    seed: str
    date: datetime.date


def fit_facts(classifier: Any) -> FitFacts:
    """All that is known of the fit of a classifier, and of the machine that writes."""
    predictor: Predictor = classifier._predictor
    n_train, n_gates = (int((predictor.history.parts == part).sum()) for part in (TRAIN, GATES))
    answers = [predictor.frontier.answers]
    answers += [] if predictor.samples is None else [predictor.samples.answers]
    n_classes = predictor.schema.n_classes
    sets = predictor.calibration.sets
    return FitFacts(
        n_train=n_train,
        n_gates=n_gates,
        n_calibration=0 if sets is None else len(sets.scores),
        out_of_fold=not n_gates,
        complete=predictor.history.complete,
        classes=[str(label) for label in predictor.schema.classes],
        held_out_counts=np.bincount(
            np.concatenate([own.codes for own in answers]), minlength=n_classes
        ),
        parameters=_changed_parameters(classifier),
        versions=_versions(),
        seed=repr(classifier.random_state),
        date=datetime.date.today(),
    )


def _changed_parameters(classifier: Any) -> list[tuple[str, str]]:
    """Names and values of the parameters that differ from their defaults."""
    signature = inspect.signature(type(classifier)).parameters
    defaults = {name: parameter.default for name, parameter in signature.items()}
    return [
        (name, described(value))
        for name, value in classifier.get_params(deep=False).items()
        if name not in OF_MACHINES
        and described(value) != described(defaults.get(name, inspect.Parameter.empty))
    ]


def described(value: Any) -> str:
    """A parameter's value in a few words, without addresses in memory."""
    text = _text(value)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def _text(value: Any) -> str:
    if isinstance(value, torch.nn.Module):
        return f"{type(value).__name__} (an instance)"
    if isinstance(value, functools.partial):
        return f"partial of {_text(value.func)}"
    if inspect.isclass(value) or inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(k)}: {_text(v)}" for k, v in value.items()) + "}"
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} (an instance)" if " object at 0x" in text else text


def _versions() -> list[tuple[str, str]]:
    from .. import __version__

    found = [("sklearn_jeidnn", __version__), ("Python", platform.python_version())]
    for name in PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What answers.

    Parameters
    ----------
    name, precision, device : str
    asked : str
        The parameter ``engine``.
    times : dict of str to sequence or None
        As ``benchmark_engines`` gives it; None if nothing was timed.
    n_timed : int
        Samples of the call that was timed.
    """

    name: str
    precision: str
    device: str
    asked: str
    times: Mapping[str, Sequence[Any]] | None = None
    n_timed: int = 0


def engine_facts(classifier: Any, X: Any, y: Any, n_samples: int, *, timing: bool) -> EngineFacts:
    """What answers, and how fast if that is asked for."""
    engine = classifier._predictor.cascade.engine
    in_onnx = type(engine).__name__ == "OnnxEngine"
    return EngineFacts(
        name="ONNX Runtime" if in_onnx else "torch",
        precision=str(engine.precision),
        device=str(engine.device),
        asked=str(classifier.engine),
        times=classifier.benchmark_engines(X, y) if timing else None,
        n_timed=n_samples if timing else 0,
    )


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """What is guaranteed, and on how many samples that rests.

    Parameters
    ----------
    risk : RiskControl or None
        What was certified of the operating point, if anything.
    leakage : str or None
        Why nothing is guaranteed, if networks may have learned from the samples that calibrate.
    conformity_score, condition_on : str
    n_calibration : int
    too_few : bool
        Whether these samples are too few for the level, so that sets hold all labels.
    band : pair of float or None
        Where the coverage of as many samples as these lies with 99 %, if sets hold on average over all samples.
    """

    risk: RiskControl | None
    leakage: str | None
    conformity_score: str
    condition_on: str
    n_calibration: int
    too_few: bool
    band: tuple[float, float] | None


def certificates(predictor: Predictor, confidence_level: float, n_samples: int) -> Certificates:
    """What is guaranteed of a predictor's answers to so many samples."""
    sets, rule = predictor.calibration.sets, predictor.rule
    n_calibration = 0 if sets is None else len(sets.scores)
    needed = np.ceil(np.round((n_calibration + 1) * confidence_level, 9))
    is_pooled = sets is not None and not rule.takes_groups and rule.condition_on == "pooled"
    grouped = "groups that were given to conformalize" if rule.takes_groups else None
    return Certificates(
        risk=predictor.point.risk,
        leakage=predictor.leakage,
        conformity_score=described(rule.conformity_score),
        condition_on=grouped or described(rule.condition_on),
        n_calibration=n_calibration,
        too_few=sets is not None and bool(needed > n_calibration),
        band=coverage_band(n_calibration, n_samples, confidence_level) if is_pooled else None,
    )

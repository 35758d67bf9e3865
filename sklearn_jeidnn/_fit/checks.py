"""Check parameters before anything is trained: their values, what they name, and what calls them."""

import inspect
import shutil
import tempfile
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from .._cut import random_numbers_kept
from .._given import naming
from .._numbers import check_number
from .._parts import GIVEN, Parts
from .._schema import InputSchema
from .._warn import warn_caller
from ..backbones import ImageResNet, TabularResNet
from .checkpoint import check_checkpoint_folder
from .datasets import (
    BATCH_SAMPLER,
    DROP_LAST,
    SAMPLER,
    TRAIN,
    SamplesBatch,
    SamplesDataset,
    count_steps,
    loader_defaults,
)
from .features import check_room
from .members import as_members
from .memory import check_memory_folder
from .spec import HEADS_LR, MODULE_PREFIX, CascadeSpec
from .training import ExitsNet, all_callbacks

VALID, CALLBACKS, OPTIMIZER = "iterator_valid__", "callbacks__", "optimizer__"
# Options with which a data loader would leave out or reorder samples that must all be answered in their order.
REORDERING = ("shuffle", "drop_last", "sampler", "batch_sampler")
# What numbers among the parameters of ready networks must be.
READY_BOUNDS: dict[str, Any] = {
    **dict.fromkeys(("width", "n_blocks", "n_bins"), {"least": 1, "whole": True}),
    "noise": {"least": 0},
    "shift": {"least": 0, "whole": True},
    "dropout": {"least": 0, "below": 1},
}
# Samples on which a user's functions are tried.
N_TRIED = 3
COLLATED = "must make ({'X': tuple of tensors, 'sample_weight': tensor}, y) of a list of such pairs"


def refuse_booleans(constraints: Mapping[str, list[Any]], params: Mapping[str, Any]) -> None:
    """Refuse True and False for parameters that are numbers: Python counts them as 1 and 0."""
    for name, allowed in constraints.items():
        is_number = any(isinstance(entry, Interval) for entry in allowed)
        if is_number and "boolean" not in allowed and isinstance(params[name], bool):
            raise ValueError(f"{name}={params[name]!r} is not allowed; give a number.")


def check_parameters(spec: CascadeSpec, schema: InputSchema, parts: Parts) -> None:
    """Refuse values that make no sense, alone, together, or for these samples."""
    _check_class_weight(spec.class_weight, schema.classes)
    check_memory_folder(spec.memory)
    check_checkpoint_folder(spec.checkpoint)
    _check_companion_costs(spec.companion_costs)
    _check_ready_networks(spec)
    _check_batches(spec, parts.fewest_train)
    check_callbacks(spec.callbacks, spec.prefixed)
    _check_optimizer(spec)
    _check_memory(spec, schema, parts)


def check_held_out(schema: InputSchema, parts: Parts) -> None:
    """Refuse whole numbers that the module does not embed among the samples that a user gives as held out."""
    if parts.held_out == GIVEN:
        with naming("X_val"):
            for part in (parts.gates, parts.calibration):
                schema.encode(part.inputs)


def _check_class_weight(class_weight: Any, classes: np.ndarray) -> None:
    """Refuse weights that are no numbers, and weights of other labels in the place of those of ``y``."""
    if not isinstance(class_weight, dict):
        return
    for label, weight in class_weight.items():
        check_number(weight, f"class_weight[{label!r}]", least=0)
    known = classes.tolist()
    wrong = [label for label in class_weight if label not in known]
    without = [label for label in known if label not in class_weight]
    if wrong and without:
        raise ValueError(
            f"class_weight has keys {wrong[:5]} that are not among the labels {known[:12]}, and none for "
            f"{without[:5]}; give the labels as they stand in y."
        )


def _check_companion_costs(costs: Any) -> None:
    if isinstance(costs, Mapping):
        raise TypeError(f"companion_costs={costs!r} is a mapping; give a list.")
    for i, cost in enumerate(costs if costs is not None else ()):
        if cost is not None:
            check_number(cost, f"companion_costs[{i}]", above=0)


def check_no_companions(spec: CascadeSpec, n_companions: int) -> None:
    """Refuse companions, and their costs, beside those that are made."""
    if n_companions:
        raise ValueError(
            f"companion={spec.companion!r} puts a companion in front of one module, but module has "
            f"{n_companions + 1} members already."
        )
    if spec.companion_costs is not None:
        raise ValueError(
            f"companion_costs={spec.companion_costs!r} are for companions that you give; with "
            f"companion={spec.companion!r} they are counted."
        )


def _check_ready_networks(spec: CascadeSpec) -> None:
    """Refuse numbers of which no ready network can be made."""
    for member in as_members(spec.module, spec.module_params):
        is_ready = member.module is None or member.module in (TabularResNet, ImageResNet)
        for name, bounds in READY_BOUNDS.items():
            if is_ready and isinstance(member.params.get(name), Real):
                check_number(member.params[name], MODULE_PREFIX + name, **bounds)


def check_prefixed_names(prefixed: Mapping[str, Any]) -> None:
    """Refuse names with nothing behind the prefix, and those that a data loader or skorch would not read."""
    known = set(inspect.signature(DataLoader).parameters) - {"dataset"}
    for name in prefixed:
        prefix, _, option = name.partition("__")
        to_loader = prefix.startswith("iterator")
        # skorch takes names that end with an underscore for its own fitted attributes.
        is_lost = name.endswith("_") and not name.startswith(MODULE_PREFIX)
        if to_loader and option == "num_workers":
            check_number(prefixed[name], name, least=0, whole=True)
        if not option or is_lost or (to_loader and option not in known):
            allowed = f"; a data loader takes {sorted(known)}" if to_loader else ""
            raise TypeError(f"{name} is not a parameter of {prefix}{allowed}.")


def check_valid_options(prefixed: Mapping[str, Any]) -> None:
    """Refuse options of data loaders under which predictions would not be those of the samples in their order."""
    for option in REORDERING:
        if prefixed.get(VALID + option):
            raise ValueError(
                f"{VALID}{option}={prefixed[VALID + option]!r} would leave out or reorder samples whose answers are "
                f"wanted in their order; leave it out."
            )
    if prefixed.get(VALID + "batch_size") is not None:
        check_batch_size(prefixed[VALID + "batch_size"], VALID + "batch_size")


def check_batch_size(batch_size: Any, name: str) -> None:
    """Refuse what is neither -1, which takes all samples, nor a positive whole number."""
    if isinstance(batch_size, bool) or batch_size != -1:
        check_number(batch_size, name, least=1, whole=True)


def _check_batches(spec: CascadeSpec, n_samples: int) -> None:
    """Refuse options of the training's data loader that do not go together or leave no step."""
    given = {name: value for name, value in spec.prefixed.items() if name.startswith(TRAIN)}
    if TRAIN + "batch_size" in given:
        check_batch_size(given[TRAIN + "batch_size"], TRAIN + "batch_size")
    _check_sampler(given.get(SAMPLER), SAMPLER, n_samples, ndim=1)
    _check_sampler(given.get(BATCH_SAMPLER), BATCH_SAMPLER, n_samples, ndim=2)
    options = {**loader_defaults(given, n_samples, spec.batch_size), **given}
    of_loader = {name: value for name, value in options.items() if name.startswith(TRAIN)}
    batch_size = of_loader.pop(TRAIN + "batch_size", spec.batch_size)
    batch_size = n_samples if batch_size == -1 else batch_size
    try:
        loader_options = {name.removeprefix(TRAIN): of_loader[name] for name in of_loader}
        stand_in = TensorDataset(torch.empty(n_samples))
        DataLoader(stand_in, batch_size, **loader_options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{sorted(given)} make no data loader: {error}.") from error
    n_passes = spec.feature_passes if spec.freeze_backbone else 1
    if count_steps(options, n_samples * n_passes, spec.batch_size) == 0:
        raise ValueError(
            f"{sorted(given)} leave no step of training: an epoch has {n_samples} samples, a batch {batch_size}. "
            f"Give a smaller batch_size, or leave out {DROP_LAST}."
        )


def _check_sampler(sampler: Any, name: str, n_samples: int, ndim: int) -> None:
    """Refuse what cannot be iterated over, and lists that hold anything but numbers of training samples."""
    if sampler is None:
        return
    if isinstance(sampler, str | bytes | Mapping) or not hasattr(sampler, "__iter__"):
        raise TypeError(f"{name}={sampler!r} is not a torch sampler.")
    n_weights = len(sampler.weights) if isinstance(sampler, WeightedRandomSampler) else n_samples
    if n_weights != n_samples:
        raise ValueError(
            f"{name} weighs {n_weights} samples, but {n_samples} train; give X_val, so that all samples of X do."
        )
    if isinstance(sampler, list | tuple | np.ndarray):
        batches = [np.asarray(batch) for batch in (sampler if ndim == 2 else [sampler])]
        for batch in batches:
            is_numbers = batch.ndim == 1 and batch.dtype.kind in "iu"
            if len(sampler) and not (is_numbers and ((batch >= 0) & (batch < n_samples)).all()):
                raise ValueError(
                    f"{name} has {batch!r}; it must hold numbers of training samples, from 0 to {n_samples - 1}."
                )


def check_callbacks(callbacks: Any, options: dict[str, Any]) -> None:
    """Refuse what are no callbacks, and options that name none or a parameter that it does not have."""
    for entry in callbacks or []:
        is_named = isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], str)
        _check_callback(entry[1] if is_named else entry, "callbacks")
    no_samples = SamplesDataset((), torch.empty(0), torch.empty(0))
    net = ExitsNet(nn.Identity, callbacks=all_callbacks(callbacks, options, no_samples))
    try:
        known = dict(net._uniquely_named_callbacks())
    except ValueError as error:
        raise ValueError(f"callbacks={callbacks!r}: {error}") from error
    for option in (option for option in options if option.startswith(CALLBACKS)):
        name, _, param = option.removeprefix(CALLBACKS).partition("__")
        if name not in known:
            raise ValueError(
                f"{option} names the callback {name!r}, which is not there; there are {sorted(known)}."
            )
        callback = options.get(CALLBACKS + name, known[name])
        _check_callback(callback, CALLBACKS + name)
        if param:
            _check_callback_param(callback, param, option)


def _check_callback(callback: Any, name: str) -> None:
    if callback is not None and not hasattr(callback, "on_train_begin"):
        of_sklearn = "; scikit-learn's are given to set_callbacks()"
        raise TypeError(
            f"{name} has {callback!r}, which is no skorch callback; give an instance or a class of "
            f"skorch.callbacks.Callback, or a pair of a name and one"
            f"{of_sklearn * hasattr(callback, 'on_fit_task_begin')}."
        )


def _check_callback_param(callback: Any, param: str, option: str) -> None:
    if callback is None:
        raise ValueError(f"{option} is a parameter of a callback that is None.")
    if inspect.isclass(callback) or not hasattr(callback, "get_params"):
        return
    known = callback.get_params(deep=False)
    if param.partition("__")[0] not in known:
        raise ValueError(
            f"{option} names the parameter {param!r}, which {type(callback).__name__} does not have; it has "
            f"{sorted(known)}."
        )


def _check_optimizer(spec: CascadeSpec) -> None:
    """Build the optimizer for a parameter of no meaning, and refuse what it refuses."""
    given = {name: value for name, value in spec.prefixed.items() if name.startswith(OPTIMIZER)}
    options = {name.removeprefix(OPTIMIZER): value for name, value in given.items()}
    for name, value in given.items():
        if isinstance(value, Real) and not isinstance(value, bool):
            check_number(value, name)
    # Groups are named by patterns for the parameters of the module.
    options.pop("param_groups", None)
    parameter = nn.Parameter(torch.zeros(1, 1, device=spec.device))
    try:
        spec.optimizer([parameter], **{"lr": HEADS_LR if spec.lr is None else spec.lr, **options})
    except Exception as error:
        raise ValueError(
            f"optimizer={spec.optimizer!r} cannot be built with lr and {given}: {error}"
        ) from error


def _check_memory(spec: CascadeSpec, schema: InputSchema, parts: Parts) -> None:
    """Refuse numbers of samples for which there is no room."""
    n_train, sample_bytes = len(parts.train), sum(a[:1].nbytes for a in parts.train.inputs)
    if spec.is_timed and spec.cost_batch_size is not None:
        check_room(spec.cost_batch_size * sample_bytes, "cost_batch_size", spec.cost_batch_size)
    if spec.freeze_backbone:
        # Exit features hold at least the logits of the last exit.
        least = 4 * n_train * schema.n_classes * spec.feature_passes
        free = shutil.disk_usage(tempfile.gettempdir()).free
        check_room(least, "feature_passes", spec.feature_passes, besides=free)


def try_collate_fns(spec: CascadeSpec, train: SamplesDataset, gates: SamplesDataset) -> None:
    """Try the user's functions that make batches on a few samples."""
    for prefix, samples in ((TRAIN, train), (VALID, gates)):
        name = prefix + "collate_fn"
        collate_fn = spec.prefixed.get(name)
        if collate_fn is not None:
            _try_collate_fn(collate_fn, name, samples, keeps_all=bool(spec.freeze_backbone))


def _try_collate_fn(
    collate_fn: Callable[[Any], Any], name: str, samples: SamplesDataset, keeps_all: bool
) -> None:
    """Refuse what makes no batch; with ``keeps_all``, of as many samples as it is given."""
    n_tried = min(N_TRIED, len(samples))
    try:
        with random_numbers_kept():
            inputs, y = collate_fn(SamplesBatch(samples, range(n_tried)))
        lengths = {len(part) for part in (*inputs["X"], inputs["sample_weight"], y)}
        n_inputs = len(inputs["X"])
    except Exception as error:
        raise ValueError(
            f"{name}={collate_fn!r} {COLLATED}: {type(error).__name__}: {error}"
        ) from error
    if n_inputs != len(samples.inputs) or len(lengths) != 1 or (keeps_all and lengths != {n_tried}):
        raise ValueError(
            f"{name}={collate_fn!r} {COLLATED}; of {n_tried} samples it made {n_inputs} inputs and parts of lengths "
            f"{sorted(lengths)}."
        )


def warn_of_small_classes(cv: Any, schema: InputSchema, parts: Parts) -> None:
    """Warn of classes with fewer samples than folds, where the number of folds is the user's."""
    if parts.folds is None or not isinstance(cv, Integral):
        return
    counts = np.bincount(parts.train.codes, minlength=schema.n_classes)
    small = (counts > 0) & (counts < parts.n_folds)
    if small.any():
        warn_caller(
            f"y has classes with fewer samples than cv={cv} folds, {schema.classes[small][:5].tolist()}: trainings "
            f"without a fold have fewer of them still, and the only sample of a class sets no gates."
        )


def warn_of_unread(
    estimator: Any, spec: CascadeSpec, schema: InputSchema, *, holds_out: bool
) -> None:
    """Warn of parameters that are not the default, but are not read beside the others.

    ``holds_out`` says whether samples are held out of ``X``.
    """
    names = ("budget", "max_accuracy_drop", "seconds_per_sample")
    limits = [name for name in names if getattr(spec, name) is not None]
    unread = {
        "companion_training": (not _trains_companions(spec, schema), "no companion is trained"),
        "cost_batch_size": (not spec.is_timed, "it is for cost='seconds'"),
        "gate_loss": (spec.is_joint, "it is for gate_training='bilevel'"),
        "feature_passes": (not spec.freeze_backbone, "no backbone is frozen"),
        "cost_weight": (bool(limits), f"{' and '.join(limits)} is given"),
        "validation_fraction": (not holds_out, "X_val is given"),
        "categorical_features": (
            schema.columns is None,
            "no ready network for tables takes X",
        ),
    }
    defaults = inspect.signature(type(estimator)).parameters
    for name, (is_unread, reason) in unread.items():
        value = getattr(estimator, name)
        if is_unread and name in defaults and not np.array_equal(value, defaults[name].default):
            warn_caller(f"{name}={value!r} is not read, since {reason}.")


def _trains_companions(spec: CascadeSpec, schema: InputSchema) -> bool:
    """Return whether there are companions that are networks and not taken as they are."""
    if spec.makes_companions(schema):
        return True
    *companions, _ = as_members(spec.module, spec.module_params)
    return any(
        not (member.is_classifier or (spec.takes_trained and isinstance(member.module, nn.Module)))
        for member in companions
    )

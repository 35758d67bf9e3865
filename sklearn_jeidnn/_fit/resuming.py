"""Which fit is the same as one before: data, parameters, code and random numbers of a fit as one key."""

import functools
import hashlib
import os
import pathlib
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import __version__
from .._parts import Parts
from .._schema import InputSchema
from .checkpoint import NO_CHECKPOINT, Checkpoint
from .code import OUR_FOLDER, describe
from .memory import fingerprint
from .spec import CascadeSpec

# Parameters that change nothing of what a fit comes to.
NOT_READ = ("checkpoint", "memory", "verbose", "stored")
PACKAGES = ("numpy", "scipy", "sklearn", "skorch", "torch")


def check_random_state_is_given(checkpoint: Any, random_state: Any) -> None:
    """Refuse random numbers that are others when the fit is started again."""
    if checkpoint is not None and (random_state is None or random_state is np.random):
        raise ValueError(
            f"checkpoint={checkpoint!r} goes on with a fit that is started again, but with "
            f"random_state={random_state!r} that draws other random numbers, so that it is another fit; give "
            f"random_state an int."
        )


def checkpoint_of(
    spec: CascadeSpec,
    schema: InputSchema,
    parts: Parts,
    X_unlabeled: Any,
    seed: int,
    device: torch.device,
) -> Checkpoint:
    """Return where a fit stores what it has done, and what the same fit has stored before."""
    if spec.checkpoint is None:
        return NO_CHECKPOINT
    data = (schema, parts.train, parts.gates, parts.folds, X_unlabeled)
    own = {
        field.name: _told(getattr(spec, field.name))
        for field in fields(spec)
        if field.name not in NOT_READ
    }
    checkpoint = Checkpoint(
        os.path.abspath(spec.checkpoint),
        describe(own, data, seed, str(device), _versions()),
        device=device,
        options=[spec.callbacks, spec.prefixed],
        verbose=spec.verbose,
    )
    checkpoint.begin()
    return checkpoint


def _told(value: Any) -> Any:
    """What tells a parameter from another: modules by what they compute, callbacks by how they were made."""
    if isinstance(value, nn.Module):
        return fingerprint(value)
    if isinstance(value, list | tuple):
        return [_told(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        return type(value), _told(vars(value))
    if isinstance(value, Mapping):
        return {name: _told(part) for name, part in value.items()}
    if callable(getattr(value, "on_train_begin", None)) and not isinstance(value, type):
        # What a callback notes while it runs ends with an underscore, as in scikit-learn.
        made = {name: v for name, v in vars(value).items() if not name.endswith("_")}
        return type(value), made
    return value


def _versions() -> list[str]:
    packages = [getattr(sys.modules.get(name), "__version__", "") for name in PACKAGES]
    return [__version__, _own_code(), *packages]


@functools.cache
def _own_code() -> str:
    """Digest of this package's code: another version of it may train otherwise."""
    digest = hashlib.sha256()
    for file in sorted(pathlib.Path(OUR_FOLDER).rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()

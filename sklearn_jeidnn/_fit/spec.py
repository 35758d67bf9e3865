"""The parameters of the estimator that a fit reads."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from .._exits.heads import POOLED, QUARTERS
from .._exits.network import PRECISIONS
from .._operate.operating_point import budget_of
from .._operate.temperatures import OBSERVED_SHARE
from .._schema import InputSchema
from .._warn import warn_caller
from .checkpoint import NO_CHECKPOINT, Checkpoint
from .members import is_lone_classifier
from .prices import TIMED
from .schedules import FOUND

TORCH, COMPILED, ONNX_RUNTIME, FASTEST = "torch", "torch.compile", "onnxruntime", "auto"
ENGINES = (FASTEST, TORCH, COMPILED, ONNX_RUNTIME)
FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
ANY_PRECISION = (*PRECISIONS, INT8, FASTEST)
SKORCH_PREFIXES = ("optimizer__", "iterator_train__", "iterator_valid__", "callbacks__")
MODULE_PREFIX = "module__"
# Largest learning rate if heads alone are trained.
HEADS_LR = 1e-2
# Fields that are no parameters of the estimator.
OF_A_FIT = ("prefixed", "trained", "structure", "stored")
# Weight of the early exits' loss beside the last exit's.
EARLY_WEIGHT = 0.2


@dataclass(frozen=True, kw_only=True)
class CascadeSpec:
    """The parameters that a fit reads, as :class:`EarlyExitClassifier` documents them."""

    module: Any
    classes: Any
    categorical_features: Any
    exits: Any
    companion: str | None
    companion_costs: Any
    companion_training: str
    head: Any
    cost: Any
    cost_batch_size: int | None
    cost_weight: float
    budget: float | None
    max_accuracy_drop: float | None
    seconds_per_sample: float | None
    risk_confidence: float | None
    exit_policy: str
    gate_training: str
    gate_loss: str
    exit_distribution: str
    freeze_backbone: bool | str
    feature_passes: int
    max_epochs: int | str
    lr: float | None
    batch_size: int
    optimizer: Callable[..., Any]
    callbacks: Any
    class_weight: Any
    memory: Any
    checkpoint: Any
    precision: str
    engine: str
    device: str | torch.device
    verbose: int
    prefixed: dict[str, Any]
    # What an earlier fit left, if this one goes on from it (see :class:`TrainedMembers`).
    trained: Any = None
    structure: Any = None
    # What the same fit has done before it was killed, and where this one stores what it does.
    stored: Checkpoint = NO_CHECKPOINT

    @classmethod
    def of(cls, estimator: Any) -> "CascadeSpec":
        """Read the parameters of an estimator; those with a prefix go into ``prefixed``."""
        given = vars(estimator)
        prefixes = (MODULE_PREFIX, *SKORCH_PREFIXES)
        prefixed = {name: value for name, value in given.items() if name.startswith(prefixes)}
        names = [field.name for field in fields(cls) if field.name not in OF_A_FIT]
        return cls(**{name: given[name] for name in names}, prefixed=prefixed)

    @property
    def module_params(self) -> dict[str, Any]:
        return {
            name.removeprefix(MODULE_PREFIX): value
            for name, value in self.prefixed.items()
            if name.startswith(MODULE_PREFIX)
        }

    @property
    def is_timed(self) -> bool:
        return isinstance(self.cost, str) and self.cost == TIMED

    @property
    def takes_trained(self) -> bool:
        """Whether instances are taken as trained and stay as they are."""
        return bool(self.freeze_backbone) and not isinstance(self.freeze_backbone, str)

    @property
    def is_joint(self) -> bool:
        return self.gate_training == "joint"

    def operating_target(self, plain_seconds: float | None) -> dict[str, float | None]:
        """The requested operating point, as :meth:`Frontier.choose` takes it.

        ``plain_seconds`` is the time of one pass of the plain backbone, if costs are run times.
        """
        return {
            "cost_weight": self.cost_weight,
            "budget": self.budget_at(plain_seconds),
            "max_accuracy_drop": self.max_accuracy_drop,
        }

    def budget_at(self, plain_seconds: float | None) -> float | None:
        """The budget, or what ``seconds_per_sample`` is in passes of the plain backbone."""
        return budget_of(self.budget, self.seconds_per_sample, plain_seconds)

    @property
    def trained_in(self) -> str:
        """Precision of what networks answer while the others learn from it; "int8" and "auto" follow after."""
        return self.precision if self.precision in PRECISIONS else "float32"

    @property
    def answering_engine(self) -> str:
        """The engine, where the precision leaves a choice."""
        return ONNX_RUNTIME if self.precision == INT8 else self.engine

    @property
    def head_of_exits(self) -> Any:
        """The head, in the form that the precision computes."""
        is_pooled = isinstance(self.head, str) and self.head == POOLED
        return QUARTERS if is_pooled and self.precision == INT8 else self.head

    @property
    def imitates(self) -> bool:
        """Whether the last member is a classifier that is to be made fast: what it answers is taken for right."""
        return is_lone_classifier(self.module)

    @property
    def distils(self) -> bool:
        """Whether companions learn from the last member's probabilities."""
        return self.companion_training == "distilled"

    @property
    def observed_share(self) -> float:
        """That of :class:`ExitAnswers`."""
        return 0.0 if self.imitates else OBSERVED_SHARE

    @property
    def fixed_batch_size(self) -> int | None:
        """Batch size of passes without training; None takes the fastest one, -1 all samples."""
        return self.prefixed.get("iterator_valid__batch_size")

    def makes_companions(self, schema: InputSchema) -> bool:
        """Return whether companions are made: on request, and by default for the ready tabular network and classifiers.

        See decision "Companions by default on tables".
        """
        if self.companion != "tabular":
            return self.companion == "auto"
        if self.imitates:
            return True
        is_table = schema.input_names is None and len(schema.sample_shapes[0]) == 1
        is_ready = self.module is None and self.module_params.get("image_shape") is None
        return is_table and is_ready and self.is_joint

    def early_weight(self, n_members: int) -> float:
        """Return the weight of the early exits' loss: larger if the budget makes most samples leave early.

        It is not larger behind companions, since those samples leave at them. Measured on chess endgames:
        at mean costs of 0.3 and 0.4, weights of 1 and 0.5 gain 3 and 1.5 points over 0.2, which is best
        from 0.5 on.
        """
        if self.budget is None or n_members > 1:
            return EARLY_WEIGHT
        # From 0.64 on the weight is the least, and the square of a huge budget would overflow.
        return float(np.clip(0.08 / min(self.budget, 1.0) ** 2, EARLY_WEIGHT, 1))

    def epochs(self, suggested: int | None = None) -> int | str:
        """Return the number of epochs of a network that may suggest one; "auto" if it is to be found."""
        if self.max_epochs != FOUND or suggested is None:
            return self.max_epochs
        return suggested

    def net_options(self) -> dict[str, Any]:
        """Return the options of the skorch net."""
        of_skorch = {
            name: value for name, value in self.prefixed.items() if name.startswith(SKORCH_PREFIXES)
        }
        return dict(
            max_epochs=self.epochs(),
            lr=HEADS_LR if self.lr is None else self.lr,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            callbacks=self.callbacks,
            device=self.device,
            **of_skorch,
        )


def usable_device(device: str | torch.device) -> torch.device:
    """Return the device, and refuse one that cannot be used on this machine."""
    try:
        usable = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={device!r} cannot be used on this machine: {error}") from error
    if usable.type == "meta":
        raise ValueError(
            f"device={device!r} holds no values, so that nothing can be computed on it; give 'cpu', or a GPU of this "
            f"machine."
        )
    return usable


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's random numbers, and restore the caller's afterwards.

    They are of the whole process. Other threads' draws go unnoticed, but not their seeds.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
        if torch.initial_seed() != seed and threading.active_count() > 1:
            warn_caller(
                "torch.manual_seed was called while fit ran, by another thread or by the module itself. If by another "
                "thread, this fit is not what random_state would give; seed torch before or after fit."
            )

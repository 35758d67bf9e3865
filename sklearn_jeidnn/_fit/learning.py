"""Train one member: the network with its exits, or the heads alone if the backbone is frozen."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import torch

from .._exits.network import EarlyExitNetwork
from .assembly import Cut
from .callbacks import count_kept_epochs
from .checkpoint import StoredLoop
from .code import describe
from .datasets import SamplesDataset, count_steps
from .features import ExitFeatures, exit_features
from .memory import as_memory, fingerprint, remembered
from .progress import Progress
from .schedules import StepLimits, most_epochs
from .spec import CascadeSpec
from .training import train_exits, train_heads

TEACHER_TEMPERATURE = 2.0
# Largest learning rate of modules that suggest none. It grows where steps are fewer than FEW_STEPS (decision 40).
LR, MOST_LR, FEW_STEPS = 2e-3, 1e-2, 200

Result = TypeVar("Result")
Datasets: TypeAlias = tuple[SamplesDataset | None, ...]


@dataclass(frozen=True, kw_only=True)
class AnsweringMember:
    """A member, with what its exits read of samples that it has not learned from.

    Parameters
    ----------
    cut : Cut
    held_out : ExitFeatures
        Features of the samples that set the gates; with folds the logits of its heads, each sample's from a training
        without its fold.
    """

    cut: Cut
    held_out: ExitFeatures


@dataclass(frozen=True, kw_only=True)
class LearnedMember(AnsweringMember):
    """A trained member.

    Parameters
    ----------
    history : skorch History, or None if there was nothing to learn
    train : ExitFeatures
        Features of the training samples.
    n_epochs : tuple of int
        For how many epochs the weights have learned that were kept, for each training: of the network, of its heads.
    """

    history: Any
    train: ExitFeatures
    n_epochs: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class OutOfFoldMember(AnsweringMember):
    """A member that was trained without each fold in turn, and is to be trained on all of them.

    Parameters
    ----------
    n_epochs : tuple of int
        For how many epochs it shall learn, in each training.
    """

    n_epochs: tuple[int, ...]


class _Training(NamedTuple):
    """What one training of a member ended with; ``held_out`` is None where there are no such samples."""

    history: Any
    train: ExitFeatures
    held_out: ExitFeatures | None

    @property
    def n_epochs(self) -> tuple[int, ...]:
        return () if self.history is None else (count_kept_epochs(self.history),)


def most_epochs_of(spec: CascadeSpec, cut: Cut) -> int:
    """The most epochs that a member is trained for, in one training or, with a warm-up of its network, in two."""
    n_trainings = 1 + (spec.freeze_backbone == "after_warmup" and not cut.network.frozen)
    return n_trainings * most_epochs(spec.epochs(cut.max_epochs))


def history_of(members: Sequence[LearnedMember]) -> Any:
    """The history of the last member that learned; None if none did."""
    histories = [member.history for member in members if member.history is not None]
    return histories[-1] if histories else None


@dataclass(frozen=True, kw_only=True)
class MemberTrainer:
    """Train members, one by one, on the same samples.

    Parameters
    ----------
    spec : CascadeSpec
    train, gates : SamplesDataset
        Training samples; held-out samples, on which the best epoch is chosen, or None.
    feature_batch_size : int
        Batch size for passes without training.
    steps : StepLimits
        Of trainings that find their number of epochs.
    early_weight : float
        See :func:`losses.exits_together`.
    progress : Progress
    unlabeled : SamplesDataset or None, default=None
        Samples without labels from which companions learn, too.
    soft_labels : ndarray (n_train, n_classes) or None, default=None
        What companions learn of the training samples, if that is not the backbone's answers to them.
    """

    spec: CascadeSpec
    train: SamplesDataset
    gates: SamplesDataset | None
    feature_batch_size: int
    early_weight: float
    steps: StepLimits
    progress: Progress
    unlabeled: SamplesDataset | None = None
    soft_labels: np.ndarray | None = None

    def learn_all(
        self, cuts: Sequence[Cut], found: Sequence[OutOfFoldMember | None] | None = None
    ) -> list[LearnedMember]:
        """Train each member with its exits, the backbone first, since companions may learn from it.

        Parameters
        ----------
        cuts : sequence of Cut
            The backbone last.
        found : sequence of OutOfFoldMember, default=None
            The same members, as they were trained without each fold, if they were.
        """
        found = [None] * len(cuts) if found is None else found
        # The backbone learns first.
        self.progress.begin_round([most_epochs_of(self.spec, cut) for cut in reversed(cuts)])
        (*companions, backbone), (*of_companions, of_backbone) = cuts, found
        last = self._learn(backbone, self.train, of_backbone)
        samples = self.train
        if self.spec.distils and companions:
            samples = self.with_teacher_labels(last)
        pairs = list(zip(companions, of_companions, strict=True))
        reversed_members = [self._learn(cut, samples, known) for cut, known in reversed(pairs)]
        return [*reversed(reversed_members), last]

    def _learn(
        self, cut: Cut, samples: SamplesDataset, known: OutOfFoldMember | None
    ) -> LearnedMember:
        """Train a member on some samples."""
        with self.progress.of_member(cut.module or cut.network.stages[-1]):
            trainings = self._trainings(cut, samples, None if known is None else known.n_epochs)
        last = trainings[-1]
        held_out = last.held_out if known is None else known.held_out
        assert held_out is not None
        return LearnedMember(
            cut=cut,
            held_out=held_out.to(self.spec.device),
            history=last.history,
            train=last.train,
            n_epochs=sum((training.n_epochs for training in trainings), ()),
        )

    def _trainings(
        self, cut: Cut, samples: SamplesDataset, n_epochs: tuple[int, ...] | None
    ) -> list[_Training]:
        """Train the network with its exits, or the heads of a frozen one, or one after the other.

        ``n_epochs`` are those after which trainings end; None lets them run to the end.
        """
        network, trainings = cut.network, []
        ends = iter(n_epochs or ())
        if self.spec.freeze_backbone == "after_warmup" and not network.frozen:
            trainings.append(self._learn_network(cut, samples, 0.0, next(ends, None)))
            network.frozen = True
        if network.frozen:
            trainings.append(self._learn_heads(network, next(ends, None)))
        else:
            weight = self.early_weight
            trainings.append(self._learn_network(cut, samples, weight, next(ends, None)))
        return trainings

    def with_teacher_labels(self, teacher: LearnedMember) -> SamplesDataset:
        """Return the training samples and the unlabeled ones, with a member's probabilities as labels."""
        if self.soft_labels is None:
            temperature = TEACHER_TEMPERATURE
            labels = (teacher.train.features[-1][: len(self.train)] / temperature).softmax(1)
        else:
            temperature = 1.0
            labels = torch.as_tensor(self.soft_labels)
        inputs, weight = self.train.inputs, self.train.weight
        unlabeled = self.unlabeled
        if unlabeled is not None:
            further = self._features(teacher.cut.network, unlabeled).features[-1]
            _check_teacher(further)
            labels = torch.cat([labels, (further / temperature).softmax(1)])
            inputs = tuple(torch.cat(pair) for pair in zip(inputs, unlabeled.inputs, strict=True))
            weight = torch.cat([weight, unlabeled.weight])
        return SamplesDataset(inputs, labels, weight)

    def _learn_network(
        self, cut: Cut, samples: SamplesDataset, early_weight: float, n_epochs: int | None
    ) -> _Training:
        """Train a network with its exits."""
        network, options = cut.network, self.spec.net_options()
        options["max_epochs"] = self.spec.epochs(cut.max_epochs)
        options["steps"] = self.steps
        if self.spec.lr is None:
            default = self._default_lr(len(samples), options["max_epochs"])
            options["lr"] = default if cut.lr is None else cut.lr

        datasets = (self.train, self.gates, samples)
        affects = {"options": options, "early_weight": early_weight, "n_epochs": n_epochs}

        def learn() -> tuple[dict[str, Any], _Training]:
            loop = self._loop(network, datasets, early_weight, n_epochs)
            net = train_exits(
                network,
                samples,
                self.gates,
                early_weight=early_weight,
                n_epochs=n_epochs,
                verbose=self.spec.verbose,
                epoch_begun=self.progress.tasks.epoch_begun,
                epoch_done=self._epoch_done,
                loop=loop,
                **options,
            )
            train, held_out = self._features_of_both(network)
            return network.state_dict(), _Training(net.history, train, held_out)

        state, training = self._remembered(network, learn, datasets, affects)
        network.load_state_dict(state)
        return training

    def _epoch_done(self) -> bool:
        """Tell of an epoch; return whether a callback of scikit-learn's ends the training."""
        ends = self.progress.epoch_done()
        kept = {"memory": self.spec.memory, "checkpoint": self.spec.checkpoint}
        for name, value in kept.items():
            if ends and value is not None:
                raise ValueError(
                    f"a callback of set_callbacks() ends a training, which {name}={value!r} would then take for the "
                    f"whole one in other fits; give {name}=None, or end trainings by max_epochs or skorch's callbacks."
                )
        return ends

    def _default_lr(self, n_samples: int, max_epochs: int | str) -> float:
        """Return the largest learning rate for a module that suggests none."""
        options = self.spec.net_options()
        n_steps = count_steps(options, n_samples, options["batch_size"]) * most_epochs(max_epochs)
        return min(MOST_LR, LR * max(1.0, math.sqrt(FEW_STEPS / n_steps)))

    def _learn_heads(self, network: EarlyExitNetwork, n_epochs: int | None) -> _Training:
        """Train the heads of a frozen network, as :meth:`_learn_network`; its stages run once."""
        options = self.spec.net_options()
        passes: dict[str, Any] = {"n_passes": self.spec.feature_passes}
        if "iterator_train__collate_fn" in options:
            passes["collate_fn"] = options["iterator_train__collate_fn"]

        heads, datasets = network.heads, (self.train, self.gates)

        def run() -> tuple[ExitFeatures, ExitFeatures | None]:
            return self.spec.stored.finished(
                partial(self._features_of_both, network, **passes),
                lambda: ("features", fingerprint(network), _rows(datasets)),
            )

        if not any(True for _ in heads.parameters()):
            return _Training(None, *run())
        train, held_out = self._remembered(network, run, datasets, {"passes": passes})

        def learn() -> tuple[dict[str, Any], Any]:
            net = train_heads(
                heads,
                train,
                held_out,
                n_epochs=n_epochs,
                verbose=self.spec.verbose,
                epoch_begun=self.progress.tasks.epoch_begun,
                epoch_done=self._epoch_done,
                loop=self._loop(network, datasets, n_epochs),
                **options,
            )
            return heads.state_dict(), net.history

        affects = {"passes": passes, "options": options, "n_epochs": n_epochs}
        state, history = self._remembered(network, learn, datasets, affects)
        heads.load_state_dict(state)
        return _Training(history, train, held_out)

    def _loop(self, network: EarlyExitNetwork, datasets: Datasets, *affects: Any) -> StoredLoop:
        """Return where the state of a training is stored, if it is."""
        return self.spec.stored.loop(
            self.progress.name, lambda: ("training", fingerprint(network), _rows(datasets), affects)
        )

    def _features_of_both(
        self, network: EarlyExitNetwork, **passes: Any
    ) -> tuple[ExitFeatures, ExitFeatures | None]:
        """Features of the training samples, in several passes if asked, and of those that set the gates."""
        train = self._features(network, self.train, **passes)
        return train, None if self.gates is None else self._features(network, self.gates)

    def _features(
        self, network: EarlyExitNetwork, samples: SamplesDataset, **passes: Any
    ) -> ExitFeatures:
        # Heads, mixing weights and gates learn on what the network that answers will give them.
        runs = network.for_inference() if network.converts else network
        return exit_features(runs, samples, self.feature_batch_size, self.spec.device, **passes)

    def _remembered(
        self,
        network: EarlyExitNetwork,
        compute: Callable[[], Result],
        datasets: Datasets,
        affects: dict[str, Any],
    ) -> Result:
        """Return ``compute()``, or its stored result if the user gives a memory."""
        if self.spec.memory is None:
            return compute()
        return remembered(
            as_memory(self.spec.memory),
            compute,
            network=fingerprint(network),
            rows=_rows(datasets),
            precision=self.spec.trained_in,
            device=str(self.spec.device),
            code=describe(affects),
            **affects,
        )


def _rows(datasets: Datasets) -> list[Any]:
    return [None if samples is None else samples.as_arrays() for samples in datasets]


class MakesTrainer(Protocol):
    """Makes the trainer of members on some samples; ``gates`` choose the epoch."""

    def __call__(self, *, train: SamplesDataset, gates: SamplesDataset | None) -> MemberTrainer: ...


def _check_teacher(logits: torch.Tensor) -> None:
    """Refuse unlabeled samples for which the backbone, from which companions learn, has no answer."""
    n_bad = int((~logits.amax(1).isfinite()).sum())
    if n_bad:
        raise ValueError(
            f"module answers {n_bad} of {len(logits)} samples of X_unlabeled with NaN or infinity, from which "
            f"companions with companion_training='distilled' cannot learn; leave these samples out."
        )

"""Train one member: the network with its exits, or the heads alone if the backbone is frozen."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from .._exits.network import EarlyExitNetwork
from .assembly import Cut
from .code import describe
from .datasets import SamplesDataset, count_steps
from .features import ExitFeatures, exit_features
from .memory import as_memory, fingerprint, remembered
from .progress import Progress
from .spec import CascadeSpec
from .training import train_exits, train_heads

TEACHER_TEMPERATURE = 2.0
# Largest learning rate of modules that suggest none. It grows where steps are fewer than FEW_STEPS (decision 40).
LR, MOST_LR, FEW_STEPS = 2e-3, 1e-2, 200

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class LearnedMember:
    """A trained member, with what its exits read.

    Parameters
    ----------
    cut : Cut
    history : skorch History, or None if there was nothing to learn
    train, held_out : ExitFeatures
        Features of the training samples, and of those that set the gates.
    """

    cut: Cut
    history: Any
    train: ExitFeatures
    held_out: ExitFeatures


@dataclass(frozen=True, kw_only=True)
class MemberTrainer:
    """Train members, one by one, on the same samples.

    Parameters
    ----------
    spec : CascadeSpec
    train, gates : SamplesDataset
        Training samples; held-out samples, on which the best epoch is chosen.
    feature_batch_size : int
        Batch size for passes without training.
    early_weight : float
        See :func:`losses.exits_together`.
    progress : Progress
    """

    spec: CascadeSpec
    train: SamplesDataset
    gates: SamplesDataset
    feature_batch_size: int
    early_weight: float
    progress: Progress

    def learn(self, cut: Cut, samples: SamplesDataset | None = None) -> LearnedMember:
        """Train a member on some samples, by default on the training samples with their labels."""
        with self.progress.of_member(cut.module or cut.network.stages[-1]):
            return self._learn(cut, self.train if samples is None else samples)

    def _learn(self, cut: Cut, samples: SamplesDataset) -> LearnedMember:
        network = cut.network
        if self.spec.freeze_backbone == "after_warmup" and not network.frozen:
            self._learn_network(cut, samples, early_weight=0.0)
            network.frozen = True
        if network.frozen:
            history, train, held_out = self._learn_heads(network)
        else:
            history, train, held_out = self._learn_network(
                cut, samples, early_weight=self.early_weight
            )
        held_out = held_out.to(self.spec.device)
        return LearnedMember(cut=cut, history=history, train=train, held_out=held_out)

    def with_teacher_labels(
        self, teacher: LearnedMember, unlabeled: SamplesDataset | None
    ) -> SamplesDataset:
        """Return the training samples and the unlabeled ones, with a member's probabilities as labels."""
        logits = teacher.train.features[-1][: len(self.train)]
        inputs, weight = self.train.inputs, self.train.weight
        if unlabeled is not None:
            further = self._features(teacher.cut.network, unlabeled).features[-1]
            _check_teacher(further)
            logits = torch.cat([logits, further])
            inputs = tuple(torch.cat(pair) for pair in zip(inputs, unlabeled.inputs, strict=True))
            weight = torch.cat([weight, unlabeled.weight])
        return SamplesDataset(inputs, (logits / TEACHER_TEMPERATURE).softmax(1), weight)

    def _learn_network(
        self, cut: Cut, samples: SamplesDataset, *, early_weight: float
    ) -> tuple[Any, ExitFeatures, ExitFeatures]:
        """Train a network with its exits.

        Returns
        -------
        history : skorch History
        train, held_out : ExitFeatures
        """
        network, options = cut.network, self.spec.net_options()
        options["max_epochs"] = self.spec.epochs(cut.max_epochs)
        if self.spec.lr is None:
            default = self._default_lr(len(samples), options["max_epochs"])
            options["lr"] = default if cut.lr is None else cut.lr

        def learn() -> tuple[dict[str, Any], Any, ExitFeatures, ExitFeatures]:
            net = train_exits(
                network,
                samples,
                self.gates,
                early_weight=early_weight,
                verbose=self.spec.verbose,
                epoch_done=self.progress.epoch_done,
                **options,
            )
            train, held_out = (
                self._features(network, dataset) for dataset in (self.train, self.gates)
            )
            return network.state_dict(), net.history, train, held_out

        datasets = (self.train, self.gates, samples)
        affects = {"options": options, "early_weight": early_weight}
        state, history, train, held_out = self._remembered(network, learn, datasets, affects)
        network.load_state_dict(state)
        return history, train, held_out

    def _default_lr(self, n_samples: int, max_epochs: int) -> float:
        """Return the largest learning rate for a module that suggests none."""
        options = self.spec.net_options()
        n_steps = count_steps(options, n_samples, options["batch_size"]) * max_epochs
        return min(MOST_LR, LR * max(1.0, math.sqrt(FEW_STEPS / n_steps)))

    def _learn_heads(self, network: EarlyExitNetwork) -> tuple[Any, ExitFeatures, ExitFeatures]:
        """Train the heads of a frozen network, as :meth:`_learn_network`; its stages run once."""
        options = self.spec.net_options()
        passes: dict[str, Any] = {"n_passes": self.spec.feature_passes}
        if "iterator_train__collate_fn" in options:
            passes["collate_fn"] = options["iterator_train__collate_fn"]

        def run() -> tuple[ExitFeatures, ExitFeatures]:
            train = self._features(network, self.train, **passes)
            return train, self._features(network, self.gates)

        heads, datasets = network.heads, (self.train, self.gates)
        if not any(True for _ in heads.parameters()):
            return None, *run()
        train, held_out = self._remembered(network, run, datasets, {"passes": passes})

        def learn() -> tuple[dict[str, Any], Any]:
            net = train_heads(
                heads,
                train,
                held_out,
                verbose=self.spec.verbose,
                epoch_done=self.progress.epoch_done,
                **options,
            )
            return heads.state_dict(), net.history

        affects = {"passes": passes, "options": options}
        state, history = self._remembered(network, learn, datasets, affects)
        heads.load_state_dict(state)
        return history, train, held_out

    def _features(
        self, network: EarlyExitNetwork, samples: SamplesDataset, **passes: Any
    ) -> ExitFeatures:
        return exit_features(network, samples, self.feature_batch_size, self.spec.device, **passes)

    def _remembered(
        self,
        network: EarlyExitNetwork,
        compute: Callable[[], Result],
        datasets: tuple[SamplesDataset, ...],
        affects: dict[str, Any],
    ) -> Result:
        """Return ``compute()``, or its stored result if the user gives a memory."""
        if self.spec.memory is None:
            return compute()
        return remembered(
            as_memory(self.spec.memory),
            compute,
            network=fingerprint(network),
            rows=[
                [tensor.numpy() for tensor in (*samples.inputs, samples.y, samples.weight)]
                for samples in datasets
            ],
            precision=self.spec.precision,
            device=str(self.spec.device),
            code=describe(affects),
            **affects,
        )


def _check_teacher(logits: torch.Tensor) -> None:
    """Refuse unlabeled samples for which the backbone, from which companions learn, has no answer."""
    n_bad = int((~logits.amax(1).isfinite()).sum())
    if n_bad:
        raise ValueError(
            f"module answers {n_bad} of {len(logits)} samples of X_unlabeled with NaN or infinity, from which "
            f"companions with companion_training='distilled' cannot learn; leave these samples out."
        )

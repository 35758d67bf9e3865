"""Members that answer each training sample as they were trained without its fold, and then learn from all samples."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch

from .._cut import random_numbers_kept
from .._exits.network import EarlyExitNetwork
from .._operate.exit_answers import ExitAnswers
from .._operate.frontier import Frontier
from .._operate.operating_point import OperatingPoint
from .._schema import Samples
from .assembly import Assembly, Cut, told
from .datasets import SamplesDataset
from .features import ExitFeatures
from .held_out import held_out_features
from .joint import answers_of, train_gates_on
from .learning import AnsweringMember, LearnedMember, MakesTrainer, OutOfFoldMember
from .mixing import fit_mixing_weights
from .priced_network import PricedNetwork
from .relearning import heads_on_logits
from .weights import as_dataset, normalised_weights


class FoldAnswers(NamedTuple):
    """What one member answers for the samples of one fold, from which it has not learned."""

    logits: torch.Tensor  # (n_samples, n_exits, n_classes), of each head alone
    n_epochs: tuple[int, ...]


@dataclass(frozen=True)
class OutOfFold:
    """Members answer each training sample as they were trained without its fold, and then learn from all samples.

    Networks are built once, from all training samples, and begin each training with the same weights; classifiers are
    fitted anew. What a head reads differs from training to training, and what it answers has one meaning: so
    mixing weights and gates are fitted to the answers of all folds together.

    Parameters
    ----------
    assembly : Assembly
    samples : Samples
        That train, not encoded.
    folds : ndarray of int (n_samples,)
        Fold of each sample; -1 if it is in none.
    trainer : callable
    """

    assembly: Assembly
    samples: Samples
    folds: np.ndarray
    trainer: MakesTrainer

    @cached_property
    def dataset(self) -> SamplesDataset:
        """All samples, with their normalised weights."""
        return self._dataset(self.samples)

    def candidates(self, cuts: Sequence[Cut]) -> list[OutOfFoldMember]:
        starts = [_Start(cut) for cut in cuts]
        progress = self.trainer(train=self.dataset, gates=None).progress
        of_folds = []
        for fold in range(self.folds.max() + 1):
            # Each training draws the same numbers, the last one too, as if there were no folds.
            with random_numbers_kept(torch.device(self.assembly.spec.device)):
                of_folds.append(
                    self.assembly.spec.stored.finished(
                        partial(self._answers_of_fold, self.folds == fold, cuts),
                        partial(_told_fold, fold, cuts),
                    )
                )
            progress.skip_to(fold + 1)
            for start in starts:
                start.restore()
        pairs = zip(cuts, zip(*of_folds, strict=True), strict=True)
        return [self._joined(cut, answers) for cut, answers in pairs]

    def _answers_of_fold(self, inside: np.ndarray, cuts: Sequence[Cut]) -> list[FoldAnswers]:
        """Train all members on the samples outside of a fold, and answer those inside."""
        others, own = (self.samples.take(np.flatnonzero(rows)) for rows in (~inside, inside))
        spec, schema = self.assembly.spec, self.assembly.schema
        weights = normalised_weights(spec.class_weight, schema, others)
        encoded = others.encoded(schema)
        own_cuts = [self.assembly.fitted_again(cut, encoded, weights) for cut in cuts]
        trainer = self.trainer(train=self._dataset(others), gates=self._dataset(own))
        return [
            FoldAnswers(_head_logits(member), member.n_epochs)
            for member in trainer.learn_all(own_cuts)
        ]

    def _joined(self, cut: Cut, answers: Sequence[FoldAnswers]) -> OutOfFoldMember:
        """Join a member's answers for all folds, in the order of the samples."""
        rows = np.flatnonzero(self.folds >= 0)
        by_fold = np.argsort(self.folds[rows], kind="stable")
        logits = torch.cat([of_fold.logits for of_fold in answers])[np.argsort(by_fold)]
        samples = self._dataset(self.samples.take(rows))
        held_out = ExitFeatures(list(logits.unbind(1)), samples.y, samples.weight)
        return OutOfFoldMember(
            cut=cut,
            held_out=held_out.to(logits.device),
            n_epochs=_medians([of_fold.n_epochs for of_fold in answers]),
        )

    def finished(self, members: Sequence[OutOfFoldMember]) -> list[LearnedMember]:
        """Return the members trained on all samples, with the answers that they gave out of fold."""
        trainer = self.trainer(train=self.dataset, gates=None)
        cuts = [member.cut for member in members]
        for cut in cuts:
            # Those of the choice among companions.
            cut.network.heads.mix(0.0, 0.0)
        # As in the folds, companions learn from the backbone, behind which trees may stand.
        order = sorted(range(len(cuts)), key=lambda i: cuts[i].module is self.assembly.module)
        learned = trainer.learn_all([cuts[i] for i in order], [members[i] for i in order])
        return [learned[i] for i in np.argsort(order)]

    def combine(self, network: EarlyExitNetwork, members: Sequence[AnsweringMember]) -> None:
        heads = heads_on_logits(network.heads)
        plain_last = self.assembly.spec.imitates
        fit_mixing_weights(heads, held_out_features(members), plain_last=plain_last)
        network.heads.mix(heads.mixing_weights, heads.member_mixing_weights)

    def answers(self, network: EarlyExitNetwork, members: Sequence[AnsweringMember]) -> ExitAnswers:
        heads = heads_on_logits(network.heads)
        return answers_of(heads, held_out_features(members), self.assembly.spec.observed_share)

    def train_gates(
        self, priced_network: PricedNetwork, members: Sequence[LearnedMember]
    ) -> tuple[Frontier, OperatingPoint]:
        """Train the gates; heads take no turns with them, since those that answered are not those that predict."""
        network, spec = priced_network.network, self.assembly.spec
        return train_gates_on(
            network,
            self.answers(network, members),
            priced_network.exit_costs,
            spec.operating_target(priced_network.plain_seconds),
            spec.exit_policy,
        )

    def _dataset(self, samples: Samples) -> SamplesDataset:
        return as_dataset(self.assembly.spec, self.assembly.schema, samples)


def _told_fold(fold: int, cuts: Sequence[Cut]) -> Any:
    return "fold", fold, [told(cut) for cut in cuts]


class _Start:
    """The weights that a member comes with."""

    def __init__(self, cut: Cut) -> None:
        self.network = cut.network
        self.frozen = cut.network.frozen
        self.state = copy.deepcopy(cut.network.state_dict())

    def restore(self) -> None:
        self.network.load_state_dict(self.state)
        self.network.frozen = self.frozen


@torch.no_grad()
def _head_logits(member: LearnedMember) -> torch.Tensor:
    """Logits of each head alone, for the held-out samples: (n_samples, n_exits, n_classes)."""
    # Exits are not combined yet.
    logits: torch.Tensor = member.cut.network.heads.eval()(member.held_out.features)
    return logits


def _medians(n_epochs: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Median over the folds, for each training: (n_folds, n_trainings) -> (n_trainings,)."""
    return tuple(
        round(float(np.median(of_training))) for of_training in zip(*n_epochs, strict=True)
    )

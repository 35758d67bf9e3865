"""Members that learn once, and answer samples that are held out to choose among them and to set the gates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .._exits.network import EarlyExitNetwork
from .._operate.exit_answers import ExitAnswers
from .._operate.frontier import Frontier
from .._operate.operating_point import OperatingPoint
from .assembly import Cut
from .features import ExitFeatures, concatenate_exits
from .gates import train_gates
from .joint import answers_of
from .learning import AnsweringMember, LearnedMember, MemberTrainer
from .mixing import fit_mixing_weights
from .priced_network import PricedNetwork
from .spec import CascadeSpec


class Learning(Protocol):
    """How members learn, and answer samples that they have not learned from."""

    def candidates(self, cuts: Sequence[Cut]) -> Sequence[AnsweringMember]:
        """Return the members with their answers for such samples."""

    def finished(self, members: Sequence[Any]) -> list[LearnedMember]:
        """Return some of the candidates as they will predict."""

    def combine(self, network: EarlyExitNetwork, members: Sequence[AnsweringMember]) -> None:
        """Fit the weights with which exits of a network of these members are combined."""

    def answers(self, network: EarlyExitNetwork, members: Sequence[AnsweringMember]) -> ExitAnswers:
        """Answers of every exit for such samples."""

    def train_gates(
        self, priced_network: PricedNetwork, members: Sequence[LearnedMember]
    ) -> tuple[Frontier, OperatingPoint]:
        """Train the network's gates in place; return the frontier and the requested point."""


@dataclass(frozen=True)
class OnHeldOut:
    """Members learn from the training samples, and answer those that are held out to set the gates.

    Parameters
    ----------
    spec : CascadeSpec
    trainer : MemberTrainer
    """

    spec: CascadeSpec
    trainer: MemberTrainer

    def candidates(self, cuts: Sequence[Cut]) -> list[LearnedMember]:
        return self.trainer.learn_all(cuts)

    def finished(self, members: Sequence[LearnedMember]) -> list[LearnedMember]:
        return list(members)

    def combine(self, network: EarlyExitNetwork, members: Sequence[AnsweringMember]) -> None:
        held_out = held_out_features(members)
        fit_mixing_weights(network.heads, held_out, plain_last=self.spec.imitates)

    def answers(self, network: EarlyExitNetwork, members: Sequence[AnsweringMember]) -> ExitAnswers:
        return answers_of(network.heads, held_out_features(members), self.spec.observed_share)

    def train_gates(
        self, priced_network: PricedNetwork, members: Sequence[LearnedMember]
    ) -> tuple[Frontier, OperatingPoint]:
        train = concatenate_exits([member.train for member in members], len(self.trainer.train))
        return train_gates(self.spec, priced_network, train, held_out_features(members))


def held_out_features(members: Sequence[AnsweringMember]) -> ExitFeatures:
    """Return the exit features of all members, of the samples that they have not learned from."""
    n_samples = len(members[0].held_out.y)
    return concatenate_exits([member.held_out for member in members], n_samples)

"""Cut the members that a user gives, and join them into one network with priced exits."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from .._cut import LogitsModule, multiply_adds
from .._engines.torch_engine import TorchEngine, as_tensors
from .._exits.building import (
    N_PROBE_SAMPLES,
    build_network,
    concatenate,
    single_stage_network,
)
from .._exits.network import EarlyExitNetwork
from .._schema import Arrays, InputSchema, Samples
from .._tables import TabularResNet
from .classifiers import ClassifierStage, fitted_stage
from .companions import companions_for, companions_of_classifier
from .distillation import soft_labels
from .exits import Exits, joined_names
from .logit_order import logit_order
from .member_prices import MemberPrices, is_timed
from .members import (
    Member,
    instantiate,
    learns,
    warn_if_nothing_learns,
)
from .memory import fingerprint
from .precision import N_COMPARED, converts
from .priced_network import PricedNetwork
from .prices import (
    as_price_table,
    count_stages,
    exits_worth,
    relative_exit_costs,
    warn_of_uncounted,
)
from .spec import CascadeSpec
from .trees import MOST_TREE_TIME, distilled_extra_trees, trees_for
from .whole_times import WholeTimes


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A member cut into stages.

    Parameters
    ----------
    network : EarlyExitNetwork
    names : list of str
        Submodules after which samples may leave.
    lr : float or None
        Largest learning rate that the module suggests, if it does.
    max_epochs : int or None
        Number of epochs that the module suggests, if it does.
    module : nn.Module or None, default=None
        What was cut; None if it is no torch module.
    member : Member or None, default=None
        The classifier, as it was before it was fitted, if it is one.
    learns : dict of str to bool
        Whether each parameter of the module learned before it was cut.
    """

    network: EarlyExitNetwork
    names: list[str]
    lr: float | None = None
    max_epochs: int | None = None
    module: nn.Module | None = None
    member: Member | None = None
    learns: dict[str, bool] = field(default_factory=dict)


def told(cut: Cut) -> Any:
    """What tells a member from others of the same fit; of a classifier what it was before."""
    return fingerprint(cut.network) if cut.member is None else (cut.member, cut.names)


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """How members are cut, joined and priced.

    Parameters
    ----------
    spec : CascadeSpec
    schema : InputSchema
    train : Samples
        Encoded training samples.
    backbone : Member
    module : nn.Module
        The instantiated module of the backbone; a :class:`ClassifierStage` if it is another classifier.
    """

    spec: CascadeSpec
    schema: InputSchema
    train: Samples
    backbone: Member
    module: nn.Module

    def first_samples(self, n_samples: int) -> tuple[torch.Tensor, ...]:
        """Return the first training samples as tensors on the device."""
        tensors = as_tensors(tuple(array[:n_samples] for array in self.train.inputs))
        # A copy, since modules may write into what they take.
        return tuple(tensor.clone().to(self.spec.device) for tensor in tensors)

    @property
    def ends_in_classifier(self) -> bool:
        """Whether the last member, which costs are relative to, is no torch module."""
        return isinstance(self.module, ClassifierStage)

    @cached_property
    def prices(self) -> MemberPrices:
        """What members cost."""
        last = LogitsModule(self.module, self.schema.input_names)
        given = self.spec.companion_costs
        return MemberPrices(last, is_timed(self.module), given, self.first_samples)

    @property
    def shown_module(self) -> Any:
        """The plain backbone as a user knows it."""
        return self.module.classifier if isinstance(self.module, ClassifierStage) else self.module

    @property
    def probe(self) -> tuple[torch.Tensor, ...]:
        """A few samples to try modules on."""
        return self.first_samples(N_PROBE_SAMPLES)

    @property
    def few_samples(self) -> Arrays:
        """The same as arrays."""
        return tuple(tensor.cpu().numpy() for tensor in self.probe)

    @property
    def _network_options(self) -> tuple[int, str, str]:
        return (self.schema.n_classes, self.spec.exit_distribution, self.spec.trained_in)

    def soft_labels(self, weights: np.ndarray) -> np.ndarray | None:
        """Return what companions learn from a last member that is a classifier: (n_samples, n_classes), or None.

        Parameters
        ----------
        weights : ndarray (n_samples,)
            As in :meth:`cut_members`.
        """
        if not (isinstance(self.module, ClassifierStage) and self.spec.distils):
            return None
        stage, stored = self.module, self.spec.stored
        return stored.finished(
            lambda: soft_labels(self.backbone, stage, self.train, weights, stored),
            lambda: ("soft labels", weights),
        )

    def candidates(self, weights: np.ndarray, labels: np.ndarray | None) -> list[Member]:
        """Return members that could stand in front of the backbone (see :func:`companions_for`).

        ``labels`` are the soft ones, if companions learn from them; ``weights`` as in :meth:`cut_members`.
        """
        if self.ends_in_classifier:
            seed = torch.initial_seed() % 2**32
            classes = self.schema.classes
            return companions_of_classifier(
                self.schema.as_module_input(self.train.inputs),
                self.schema.categorical,
                self.backbone.params.get("image_shape"),
                seed=seed,
                distilled=None
                if labels is None
                else lambda X: distilled_extra_trees(X, labels, classes, weights, seed),
            )
        count = self._count(self.module)
        return companions_for(
            self.schema.as_module_input(self.train.inputs),
            self.schema.n_classes,
            image_shape=self.backbone.params.get("image_shape"),
            embeds=self.schema.embeds,
            categorical=self.schema.categorical,
            counted=lambda network: self._count(network.to(self.spec.device)) / count,
            timed=self._times if self.spec.is_timed else None,
        )

    def tree_cuts(self, weights: np.ndarray) -> list[Cut]:
        """Return fitted trees that may stand beside the ready network for tables.

        Parameters
        ----------
        weights : ndarray (n_samples,)
            As in :meth:`cut_members`.
        """
        categorical = self.schema.categorical
        if categorical is None or not self._takes_trees:
            return []
        (X,) = self.train.inputs
        seed = torch.initial_seed() % 2**32
        members = trees_for(X, self.schema.n_classes, categorical, seed)
        cuts = [self._cut_companion(member, 0, weights) for member in members]
        if not self.spec.is_timed:
            return cuts
        times = self._times([cut.network.stages[0] for cut in cuts])
        return [cut for cut, time in zip(cuts, times, strict=True) if time <= MOST_TREE_TIME]

    @property
    def _takes_trees(self) -> bool:
        """Whether the backbone is the ready network for tables, on a processor that trees run on."""
        return (
            isinstance(self.module, TabularResNet)
            and self.spec.is_joint
            and torch.device(self.spec.device).type == "cpu"
        )

    def in_order(self, members: Sequence[Cut]) -> list[int]:
        """Return the numbers of members in the order of what each of them costs by itself."""
        if not self.spec.is_timed:
            costs = [count_stages(cut.network, self.probe) for cut in members]
        else:
            costs = list(self._times([cut.module or cut.network.stages[0] for cut in members]))
        return sorted(range(len(members)), key=costs.__getitem__)

    def ending_in(self, last: Cut) -> "Assembly":
        """Return the assembly of members the last of which is this one, which costs are relative to."""
        # The same one is not timed again.
        if last.member is None or last.network.stages[0] is self.module:
            return self
        return replace(self, backbone=last.member, module=last.network.stages[0])

    def _count(self, module: nn.Module) -> float:
        return multiply_adds(LogitsModule(module, self.schema.input_names), *self.probe)[1]

    def _times(self, modules: Sequence[nn.Module]) -> np.ndarray:
        """Return run times of modules on a call's samples, relative to the backbone's: (n_modules,)"""
        return self._whole_times.of([self.in_torch(self.alone(module)) for module in modules])

    @cached_property
    def _whole_times(self) -> WholeTimes:
        plain, few = self.in_torch(self.alone(self.module)), self.few_samples
        return WholeTimes(spec=self.spec, schema=self.schema, plain=plain, samples=few)

    def in_torch(self, network: EarlyExitNetwork, compiles: bool = False) -> TorchEngine:
        """Return what runs a network in torch."""
        return TorchEngine(
            network=network.for_inference(compiles),
            module=self.shown_module,
            device=self.spec.device,
            fixed_batch_size=self.spec.fixed_batch_size,
        )

    def alone(self, module: nn.Module) -> EarlyExitNetwork:
        """Return the network of a module by itself."""
        if isinstance(module, ClassifierStage):
            return single_stage_network(module, *self._network_options)
        return self.as_single_stage(module).network

    def cut_members(
        self,
        companions: Sequence[Member],
        companion_exits: Sequence[Exits],
        exits: Exits,
        weights: np.ndarray,
    ) -> list[Cut]:
        """Cut every member into stages, with untrained heads and gates.

        Parameters
        ----------
        companions : list of Member
        companion_exits : list of ("auto", int or list of str)
            Exits inside each companion.
        exits : "auto", int or list of str
            Exits inside the backbone.
        weights : ndarray (n_samples,)
            Weights of the training samples, including those of their classes; their mean is 1.
        """
        cuts = [
            self._cut_companion(companion, inside, weights)
            for companion, inside in zip(companions, companion_exits, strict=True)
        ]
        cuts.append(self._cut_module(self.backbone, self.module, exits))
        if isinstance(self.spec.cost, str) and not (self.spec.is_timed or self.ends_in_classifier):
            torch_networks = [cut.network for cut in cuts if not _is_classifier(cut)]
            warn_of_uncounted(torch_networks, self.probe)
        return cuts

    def _cut_module(self, member: Member, module: nn.Module, exits: Exits) -> Cut:
        if isinstance(module, ClassifierStage):
            return self._cut_classifier(member, module, exits)
        is_instance = isinstance(member.module, nn.Module)
        frozen = self.spec.takes_trained and is_instance
        if is_instance and not frozen:
            warn_if_nothing_learns(module)
        learned = learns(module)
        if exits == "auto" and self.spec.is_timed:
            exits = self._worth(module, frozen)
        network, names = self._cut(module, exits, frozen)
        lr: Any = getattr(module, "learning_rate", None)
        max_epochs: Any = getattr(module, "max_epochs", None)
        return Cut(
            network=network,
            names=names,
            lr=lr,
            max_epochs=max_epochs,
            module=module,
            learns=learned,
        )

    def as_single_stage(self, module: nn.Module) -> Cut:
        """Return a member's module as one stage."""
        network, names = self._cut(module, 0, frozen=False)
        return Cut(network=network, names=names, module=module, learns=learns(module))

    def _cut(
        self, module: nn.Module, exits: Exits, frozen: bool
    ) -> tuple[EarlyExitNetwork, list[str]]:
        network, names = build_network(
            module,
            exits,
            self.probe,
            self.schema.n_classes,
            head=self.spec.head_of_exits,
            exit_mass=self.spec.exit_distribution,
            frozen=frozen,
            precision=self.spec.trained_in,
            input_names=self.schema.input_names,
            logit_order=logit_order(module, self.spec.classes, self.schema.classes),
        )
        network.converts = converts(network, self.first_samples(N_COMPARED))
        return network, names

    def _worth(self, module: nn.Module, frozen: bool) -> Exits:
        """Return how many exits are worth their time; "auto" if that is at least the number that it takes."""
        with torch.random.fork_rng(devices=[]):
            network, names = self._cut(module, "auto", frozen)
        time_of_all = self._whole_times.of_all_exits(self.in_torch(network))
        n_exits = exits_worth(time_of_all, network.n_exits)
        return "auto" if n_exits >= len(names) else n_exits

    def _cut_companion(self, member: Member, exits: Exits, weights: np.ndarray) -> Cut:
        """Cut a companion into stages; a classifier is fitted here.

        The random numbers that the backbone draws later stay those that it would draw without companions.
        """
        with torch.random.fork_rng(devices=[]):
            if not member.is_classifier:
                X, codes = self.schema.as_module_input(self.train.inputs), self.train.codes
                module = instantiate(member, X, codes, self.schema, self.spec.device)
                return self._cut_module(member, module, exits)
        stage = fitted_stage(member, self.schema, self.train, weights, self.spec.stored)
        return self._cut_classifier(member, stage, exits)

    def fitted_again(self, cut: Cut, samples: Samples, weights: np.ndarray) -> Cut:
        """Return a classifier fitted on other samples, encoded and with weights; a network as it is."""
        if cut.member is None:
            return cut
        stage = fitted_stage(cut.member, self.schema, samples, weights, self.spec.stored)
        return self._cut_classifier(cut.member, stage, 0)

    def _cut_classifier(self, member: Member, stage: ClassifierStage, exits: Exits) -> Cut:
        """Return a classifier as one stage; there is nothing to cut."""
        if isinstance(exits, list):
            raise ValueError(
                f"exits={exits!r} names exits inside of the classifier {stage.classifier!r}, which has none; give "
                f"'auto', or 0 for this member."
            )
        # As the last member it is what costs are relative to.
        cost = 1.0 if stage is self.module and is_timed(stage) else None
        network = single_stage_network(stage, *self._network_options, cost)
        return Cut(network=network.to(self.spec.device), names=[], member=member)

    def chain(self, cuts: Sequence[Cut]) -> PricedNetwork:
        """Join members, the backbone last, into one network with priced exits."""
        networks = [cut.network for cut in cuts]
        network, names = networks[-1], cuts[-1].names
        costs = self.prices.of_stages(networks)
        if len(cuts) > 1:
            network = concatenate(networks, *self._network_options, costs).to(self.spec.device)
            names = joined_names([cut.names for cut in cuts])
        exit_costs = relative_exit_costs(network, self.probe)
        if not isinstance(self.spec.cost, str):
            exit_costs = as_price_table(self.spec.cost, "cost", names)
        return PricedNetwork(network=network, names=names, exit_costs=exit_costs)


def _is_classifier(cut: Cut) -> bool:
    return isinstance(cut.network.stages[-1], ClassifierStage)

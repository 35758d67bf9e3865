"""Fit a cascade: train members with their exits, choose the companions to keep, train gates."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from .._cut import random_numbers_kept
from .._engines.torch_engine import as_tensors
from .._exits.batch_size import as_batch_size
from .._exits.usual_torch import usual_torch
from .._given import naming
from .._history import SampleHistory
from .._operate.cascade import Cascade
from .._operate.frontier import Frontier
from .._operate.operating_point import OperatingPoint, check_limit
from .._operate.warn import OF_EVERY_EXIT, warn_of_gaps
from .._parts import Parts
from .._samples import check_inputs
from .._schema import Arrays, InputSchema
from .assembly import Assembly, Cut, told
from .backbone import instantiated_backbone
from .checkpoint import Checkpoint
from .checks import (
    check_held_out,
    check_no_companions,
    check_parameters,
    try_collate_fns,
)
from .choice import Choice, Subset
from .datasets import SamplesDataset
from .engine_choice import check_engine
from .engines import Engines
from .exits import exits_of_members
from .fold_count import MOST_SAMPLES
from .folds import OutOfFold
from .gates import check_heads
from .held_out import Learning, OnHeldOut
from .leakage import has_known_past, leakage_of
from .learning import LearnedMember, MakesTrainer, MemberTrainer, history_of, most_epochs_of
from .lengths import with_length
from .logit_order import warn_of_another_order
from .made_once import MadeOnce
from .members import Member, as_members
from .modules import forget_results
from .moving import HeldOut, Moved, in_precision
from .priced_network import PricedNetwork
from .progress import Progress
from .resuming import checkpoint_of
from .savings import warn_if_nothing_is_saved
from .schedules import ALONE, BESIDE_TREES, BESIDE_TREES_IN_FOLDS, StepLimits
from .spec import COMPILED, TORCH, CascadeSpec, seeded, usable_device
from .tasks import FitTasks
from .turns import FIT_TURNS
from .warm_start import keep_for_later
from .weights import as_dataset, normalised_weights

# Share of an untrained network's run time below which no budget can be kept.
HOPELESS = 0.5


@dataclass(frozen=True, kw_only=True)
class FittedCascade:
    """The result of a fit.

    Parameters
    ----------
    schema : InputSchema
        It knows whether the module embeds integers.
    cascade : Cascade
    frontier : Frontier
        Of the samples that set the gates.
    point : OperatingPoint
        The requested one.
    history : SampleHistory
        What networks have learned from.
    leakage : str or None
        Why they may have learned from samples that calibrate.
    stored : Checkpoint
        Where the fit has stored what it did.
    """

    schema: InputSchema
    cascade: Cascade
    frontier: Frontier
    point: OperatingPoint
    history: SampleHistory
    leakage: str | None
    stored: Checkpoint


def fit_cascade(
    spec: CascadeSpec,
    schema: InputSchema,
    parts: Parts,
    X_unlabeled: Any,
    rng: np.random.RandomState,
    try_functions: Callable[[InputSchema, Arrays], None],
    tasks: FitTasks,
) -> FittedCascade:
    """Train members with their exits, and gates; calibration samples are not read.

    Parameters
    ----------
    spec : CascadeSpec
    schema : InputSchema
    parts : Parts
    X_unlabeled : array-like, mapping or None
        As the user gives it.
    rng : numpy.random.RandomState
    try_functions : callable
        Called with the schema and the training samples before anything is trained, to try what a user gives.
    tasks : FitTasks

    Returns
    -------
    FittedCascade
    """
    device = usable_device(spec.device)
    check_engine(spec)
    with usual_torch():
        check_parameters(spec, schema, parts)
    seed = rng.randint(2**31)
    spec = replace(spec, stored=checkpoint_of(spec, schema, parts, X_unlabeled, seed, device))
    with FIT_TURNS.take(), usual_torch(), seeded(seed, device):
        members = as_members(spec.module, spec.module_params)
        *companions, backbone = members
        schema, module = instantiated_backbone(spec, schema, parts, backbone)
        check_held_out(schema, parts)
        with random_numbers_kept():
            try_functions(schema, parts.train.inputs)
        leakage = leakage_of(spec, schema, parts, members)
        history = parts.history
        if leakage is not None or not has_known_past(spec, schema, parts, members):
            history = history.with_gaps()
        assembly = Assembly(
            spec=spec,
            schema=schema,
            train=parts.train.encoded(schema),
            backbone=backbone,
            module=module,
        )
        fit = _Fit(
            spec=spec,
            schema=schema,
            parts=parts,
            assembly=assembly,
            history=history,
            leakage=leakage,
            tasks=tasks,
        )
        with schema.explaining(parts.train.inputs, parts.gates.inputs):
            return fit.with_budget().run(companions, X_unlabeled)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """One fit, from members to a cascade."""

    spec: CascadeSpec
    schema: InputSchema
    parts: Parts
    assembly: Assembly
    history: SampleHistory
    leakage: str | None
    tasks: FitTasks

    @property
    def _engines(self) -> Engines:
        return Engines(
            spec=self.spec,
            schema=self.schema,
            assembly=self.assembly,
            samples=self.parts.train.inputs,
        )

    def with_budget(self) -> "_Fit":
        """The fit with the budget that seconds come to before anything is trained, where seconds are given.

        The one that gates keep to is found anew after training.
        """
        if self.spec.seconds_per_sample is None:
            return self
        network = self.assembly.alone(self.assembly.module)
        budget = self.spec.budget_at(self._engines.plain_seconds(network))
        return replace(self, spec=replace(self.spec, budget=budget))

    def run(self, companions: list[Member], X_unlabeled: Any) -> FittedCascade:
        """Train the members and choose those that are kept; then train the gates."""
        cuts = self._cut_members(companions)
        priced_network = self.assembly.chain(cuts)
        check_heads(self.spec, priced_network.network)
        self._refuse_hopeless_budget(cuts, priced_network)
        trees = self._trees()
        cuts = [*cuts[:-1], *trees, cuts[-1]]
        epochs = [most_epochs_of(self.spec, cut) for cut in reversed(cuts)]
        n_folds, verbose = self.parts.n_folds, self.spec.verbose
        with Progress(epochs, n_folds, verbose, self.tasks) as progress:
            trainer = partial(
                MemberTrainer,
                spec=self.spec,
                feature_batch_size=as_batch_size(
                    self.spec.fixed_batch_size, priced_network.network.rows_at_once
                ),
                early_weight=self.spec.early_weight(len(cuts)),
                steps=self._step_limits(trees),
                progress=progress,
                unlabeled=self._unlabeled(X_unlabeled),
                soft_labels=self._soft_labels,
            )
            learning = self._learning(trainer)
            members = self._train_members(cuts, len(trees), learning)
        # Trees may be the last member, which costs are relative to.
        fit = replace(self, assembly=self.assembly.ending_in(members[-1].cut))
        return fit._finish(members, learning)

    def _finish(self, members: list[LearnedMember], learning: Learning) -> FittedCascade:
        """Combine the exits of trained members, measure the costs and train the gates."""
        priced_network = self.assembly.chain([member.cut for member in members])
        if len(members) == 1 or self.assembly.ends_in_classifier:
            warn_if_nothing_is_saved(
                self.spec, self.schema.n_classes, self.assembly, priced_network.exit_costs
            )
        # Exits without companions and with bilevel gates are the paper's, which are not combined.
        if self.spec.is_joint or len(members) > 1:
            learning.combine(priced_network.network, members)
        module, probe = self.assembly.module, self.assembly.probe
        schema = with_length(self.schema, module, priced_network.network, probe)
        engines = self._engines
        make_engine = MadeOnce(partial(engines.answering, schema=schema), engines.in_torch)
        priced_network = engines.with_measured_costs(priced_network, make_engine)
        if self.spec.precision == self.spec.trained_in:
            self._check_limit(priced_network, " as timed after training")
        frontier, point = self.spec.stored.finished(
            partial(learning.train_gates, priced_network, members),
            lambda: ("gates", [told(member.cut) for member in members], priced_network.exit_costs),
            roots=[priced_network.network.heads, priced_network.network.gates],
        )
        if self.spec.takes_trained and not self.assembly.ends_in_classifier:
            n_train = len(self.parts.train)
            warn_of_another_order(
                members[-1].train.features[-1][:n_train],
                torch.as_tensor(self.parts.train.codes),
                frontier.answers,
                self.schema.classes,
            )
        forget_results(priced_network.network)
        forget_results(self.assembly.module)
        cuts = [member.cut for member in members]
        trained = keep_for_later(self.spec, cuts, self.history, frontier.answers)
        cascade = Cascade(
            engine=make_engine(priced_network.network.eval()),
            exits=priced_network.names,
            exit_costs=priced_network.exit_costs,
            exit_distribution=self.spec.exit_distribution,
            plain_seconds=priced_network.plain_seconds,
            first_alone=priced_network.first_alone,
            history=history_of(members),
            trained=trained,
        )
        moved = self._in_precision(cascade.at(point), schema)
        if moved is not None:
            cascade, frontier, point = moved
            self._check_limit(cascade, " as timed after training")
        answers = frontier.answers
        what = "held-out samples that set the gates"
        warn_of_gaps(answers.n_gaps, len(answers), what, OF_EVERY_EXIT)
        return FittedCascade(
            schema=schema,
            cascade=cascade,
            frontier=frontier,
            point=point,
            history=self.history,
            leakage=self.leakage,
            stored=self.spec.stored,
        )

    def _in_precision(self, cascade: Cascade, schema: InputSchema) -> Moved | None:
        """Return the cascade in the precision of its answers, if networks were trained in another one."""
        if self.spec.precision == self.spec.trained_in:
            return None
        return in_precision(
            self.spec, schema, cascade, HeldOut.of(self.spec, schema, self.parts.gates)
        )

    def _learning(self, trainer: MakesTrainer) -> Learning:
        """Return how members learn, and answer samples that they have not learned from."""
        parts = self.parts
        if parts.folds is not None:
            learning = OutOfFold(self.assembly, parts.train, parts.folds, trainer)
            try_collate_fns(self.spec, learning.dataset, learning.dataset)
            return learning
        train, gates = (
            as_dataset(self.spec, self.schema, samples) for samples in (parts.train, parts.gates)
        )
        try_collate_fns(self.spec, train, gates)
        return OnHeldOut(self.spec, trainer(train=train, gates=gates))

    def _step_limits(self, trees: list[Cut]) -> StepLimits:
        if not trees:
            return ALONE
        is_small = len(self.parts.train) <= MOST_SAMPLES
        in_folds = self.parts.folds is not None
        return BESIDE_TREES_IN_FOLDS if is_small and in_folds else BESIDE_TREES

    def _trees(self) -> list[Cut]:
        """Return fitted trees that may stand beside the backbone."""
        if not self.spec.makes_companions(self.schema):
            return []
        return self.assembly.tree_cuts(self._weights)

    @cached_property
    def _soft_labels(self) -> np.ndarray | None:
        """What companions learn from a last member that is a classifier."""
        return self.assembly.soft_labels(self._weights)

    @cached_property
    def _weights(self) -> np.ndarray:
        """Of the training samples, including those of their classes."""
        return normalised_weights(self.spec.class_weight, self.schema, self.parts.train)

    def _train_members(
        self, cuts: list[Cut], n_trees: int, learning: Learning
    ) -> list[LearnedMember]:
        """Return the trained members that are kept."""
        candidates = learning.candidates(cuts)
        engines = self._engines
        measured = partial(engines.with_measured_costs, make_engine=engines.while_choosing)
        choice = Choice(self.spec, self.assembly, learning, measured, n_trees)
        subset = Subset(tuple(range(len(cuts))))
        if self.spec.makes_companions(self.schema):
            subset = choice.best(candidates)
        return choice.stripped(subset, learning.finished(subset.of(candidates)))

    def _refuse_hopeless_budget(self, cuts: list[Cut], priced_network: PricedNetwork) -> None:
        """Refuse a budget below the cost of every exit that could be the first, as far as costs are known.

        Which companions are kept is known after training: the cheapest could stand in front, or none. Run times of
        untrained networks differ a little from those after training, so a budget must be far below them.
        """
        budget, is_timed = self.spec.budget, self.spec.is_timed
        # In another engine than torch, exits may take half of the time that torch takes.
        if budget is None or (is_timed and self.spec.engine not in (TORCH, COMPILED)):
            return
        networks = [priced_network]
        if self.spec.makes_companions(self.schema) and isinstance(self.spec.cost, str):
            networks.append(self.assembly.chain(cuts[-1:]))
        as_it_is = partial(self._engines.in_torch, compiles=False)
        priced = [self._engines.with_measured_costs(network, as_it_is) for network in networks]
        cheapest = min(priced, key=lambda network: network.least_cost)
        if budget < (HOPELESS if is_timed else 1) * cheapest.least_cost:
            self._check_limit(cheapest, " as timed before training")

    def _check_limit(self, priced: PricedNetwork | Cascade, when: str) -> None:
        budget, seconds = self.spec.budget, self.spec.seconds_per_sample
        why = when if self.spec.is_timed else ""
        check_limit(budget, seconds, priced.least_cost, priced.plain_seconds, why)

    def _cut_members(self, companions: list[Member]) -> list[Cut]:
        makes_companions = self.spec.makes_companions(self.schema)
        if makes_companions:
            check_no_companions(self.spec, len(companions))
            companions = self.assembly.candidates(self._weights, self._soft_labels)
        elif self.assembly.ends_in_classifier and not companions:
            raise ValueError(
                f"module={self.assembly.shown_module!r} is one classifier with nothing in front of it, so that nothing "
                f"can be saved; give companion='auto', or a list with a cheaper member in front."
            )
        *companion_exits, exits = exits_of_members(
            self.spec.exits, len(companions) + 1, only_the_last=makes_companions
        )
        cuts = self.assembly.cut_members(companions, companion_exits, exits, self._weights)
        if self.spec.trained is not None:
            self.spec.trained.load_heads(cuts)
        return cuts

    def _unlabeled(self, X: Any) -> SamplesDataset | None:
        """Return samples without labels, with codes that nothing reads; None if there are none."""
        if X is None:
            return None
        if not self.spec.distils:
            raise ValueError(
                f"X_unlabeled is given, but only companions with companion_training='distilled' learn from it; got "
                f"companion_training={self.spec.companion_training!r}."
            )
        with naming("X_unlabeled"):
            inputs = as_tensors(self.schema.encode(check_inputs(self.schema, X)))
        n_samples = len(inputs[0])
        no_codes = torch.zeros(n_samples, dtype=torch.long)
        return SamplesDataset(inputs, no_codes, torch.ones(n_samples))

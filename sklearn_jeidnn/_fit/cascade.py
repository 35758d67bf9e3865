"""Fit a cascade: train members with their exits, choose the companions to keep, train gates."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .._cut import random_numbers_kept
from .._engines.torch_engine import TorchEngine, as_batch_size, as_tensors
from .._exits.building import N_PROBE_SAMPLES
from .._exits.network import EarlyExitNetwork
from .._exits.usual_torch import usual_torch
from .._given import naming
from .._history import SampleHistory
from .._operate.cascade import Cascade
from .._operate.frontier import Frontier, objective_at
from .._operate.operating_point import OperatingPoint
from .._operate.warn import OF_EVERY_EXIT, warn_of_gaps
from .._parts import Parts
from .._samples import check_inputs
from .._schema import Arrays, InputSchema, Samples
from .._warn import warn_caller
from .assembly import Assembly, Cut, PricedNetwork, exits_of_members
from .backbone import instantiated_backbone
from .checks import (
    check_held_out,
    check_no_companions,
    check_parameters,
    try_collate_fns,
)
from .companions import simplest_of_best
from .datasets import SamplesDataset
from .features import ExitFeatures, concatenate_exits
from .gates import check_heads, train_gates
from .joint import answers_of
from .leakage import has_known_past, leakage_of
from .learning import LearnedMember, MemberTrainer
from .lengths import with_length
from .logit_order import warn_of_another_order
from .members import Member, as_members
from .mixing import fit_mixing_weights
from .modules import forget_results
from .prices import COUNTED, time_exits
from .progress import Progress
from .spec import CascadeSpec, check_budget, seeded, usable_device
from .turns import FIT_TURNS
from .warm_start import keep_for_later
from .weights import normalised_weights

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
    """

    schema: InputSchema
    cascade: Cascade
    frontier: Frontier
    point: OperatingPoint
    history: SampleHistory
    leakage: str | None


def fit_cascade(
    spec: CascadeSpec,
    schema: InputSchema,
    parts: Parts,
    X_unlabeled: Any,
    rng: np.random.RandomState,
    try_functions: Callable[[InputSchema, Arrays], None],
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

    Returns
    -------
    FittedCascade
    """
    device = usable_device(spec.device)
    with usual_torch():
        check_parameters(spec, schema, parts)
    with FIT_TURNS.take(), usual_torch(), seeded(rng.randint(2**31), device):
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
        )
        with schema.explaining(parts.train.inputs, parts.gates.inputs):
            return fit.run(companions, X_unlabeled)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """One fit, from members to a cascade."""

    spec: CascadeSpec
    schema: InputSchema
    parts: Parts
    assembly: Assembly
    history: SampleHistory
    leakage: str | None

    def run(self, companions: list[Member], X_unlabeled: Any) -> FittedCascade:
        """Train the members, combine their exits, measure the costs and train the gates."""
        members, priced_network = self._train_members(companions, X_unlabeled)
        train, held_out = self._features(members)
        # Exits without companions and with bilevel gates are the paper's, which are not combined.
        if self.spec.is_joint or len(members) > 1:
            fit_mixing_weights(priced_network.network.heads, held_out)
        priced_network, plain_seconds = self._with_measured_costs(
            priced_network, compiles=self.spec.compile
        )
        why = " as timed after training" if self.spec.is_timed else ""
        check_budget(self.spec.budget, priced_network.exit_costs, why)
        frontier, point = train_gates(self.spec, priced_network, train, held_out)
        if self.spec.takes_trained and not self.assembly.ends_in_classifier:
            n_train = len(self.parts.train)
            warn_of_another_order(
                train.features[-1][:n_train],
                torch.as_tensor(self.parts.train.codes),
                frontier.answers,
                self.schema.classes,
            )
        forget_results(priced_network.network)
        forget_results(self.assembly.module)
        cuts = [member.cut for member in members]
        trained = keep_for_later(self.spec, cuts, self.history, frontier.answers)
        cascade = Cascade(
            engine=self._engine(priced_network.network.eval(), self.spec.compile),
            exits=priced_network.names,
            exit_costs=priced_network.exit_costs,
            exit_distribution=self.spec.exit_distribution,
            plain_seconds=plain_seconds,
            history=members[-1].history,
            trained=trained,
        )
        answers = frontier.answers
        what = "held-out samples that set the gates"
        warn_of_gaps(answers.n_gaps, len(answers), what, OF_EVERY_EXIT)
        module, probe = self.assembly.module, self.assembly.probe
        schema = with_length(self.schema, module, priced_network.network, probe)
        return FittedCascade(
            schema=schema,
            cascade=cascade,
            frontier=frontier,
            point=point,
            history=self.history,
            leakage=self.leakage,
        )

    def _train_members(
        self, companions: list[Member], X_unlabeled: Any
    ) -> tuple[list[LearnedMember], PricedNetwork]:
        """Return the trained members that are kept, and their network."""
        cuts = self._cut_members(companions)
        priced_network = self.assembly.chain(cuts)
        check_heads(self.spec, priced_network.network)
        makes_companions = self.spec.makes_companions(self.schema)
        self._refuse_hopeless_budget(cuts, priced_network)
        members = self._learn(cuts, priced_network.network.rows_at_once, X_unlabeled)
        if makes_companions:
            members = self._keep_companions(members)
            priced_network = self.assembly.chain([member.cut for member in members])
        if len(members) == 1 or self.assembly.ends_in_classifier:
            self._warn_if_nothing_is_saved(priced_network)
        return members, priced_network

    def _warn_if_nothing_is_saved(self, priced_network: PricedNetwork) -> None:
        costs = priced_network.exit_costs
        if self.assembly.ends_in_classifier:
            if costs[0] >= 1:
                warn_caller(
                    f"nothing is saved: leaving at the first exit costs {costs[0]:.3g} times what the last member "
                    f"costs alone, {self.assembly.shown_module!r}. Take it alone, or put something cheaper in front."
                )
            return
        is_counted = isinstance(self.spec.cost, str) and self.spec.cost == COUNTED
        if isinstance(self.spec.exits, str) and is_counted and costs[0] >= 1:
            warn_caller(
                f"exits='auto' found no early exit that saves anything: with {self.schema.n_classes} classes a head "
                f"costs more than what it saves, and leaving at the first exit costs {costs[0]:.3g} passes of the "
                f"plain backbone. A larger module, head='linear' or a companion in front may save something."
            )

    def _refuse_hopeless_budget(self, cuts: list[Cut], priced_network: PricedNetwork) -> None:
        """Refuse a budget below the cost of every exit that could be the first, as far as costs are known.

        Which companions are kept is known after training: the cheapest could stand in front, or none. Run times of
        untrained networks differ a little from those after training, so a budget must be far below them.
        """
        budget, is_timed = self.spec.budget, self.spec.is_timed
        if budget is None:
            return
        networks = [priced_network]
        if self.spec.makes_companions(self.schema) and isinstance(self.spec.cost, str):
            networks.append(self.assembly.chain(cuts[-1:]))
        priced = [self._with_measured_costs(network, compiles=False)[0] for network in networks]
        least = min(network.exit_costs[0] for network in priced)
        if budget < (HOPELESS if is_timed else 1) * least:
            check_budget(budget, [least], " as timed before training" if is_timed else "")

    def _cut_members(self, companions: list[Member]) -> list[Cut]:
        makes_companions = self.spec.makes_companions(self.schema)
        if makes_companions:
            check_no_companions(self.spec, len(companions))
            companions = self.assembly.candidates()
        elif self.assembly.ends_in_classifier and not companions:
            raise ValueError(
                f"module={self.assembly.shown_module!r} is one classifier with nothing in front of it, so that nothing "
                f"can be saved; give companion='auto', or a list with a cheaper member in front."
            )
        *companion_exits, exits = exits_of_members(
            self.spec.exits, len(companions) + 1, only_the_last=makes_companions
        )
        weights = normalised_weights(self.spec.class_weight, self.schema, self.parts.train)
        cuts = self.assembly.cut_members(companions, companion_exits, exits, weights)
        if self.spec.trained is not None:
            self.spec.trained.load_heads(cuts)
        return cuts

    def _dataset(self, samples: Samples) -> SamplesDataset:
        """Return samples as skorch takes them, with their normalised weights."""
        weights = normalised_weights(self.spec.class_weight, self.schema, samples)
        return SamplesDataset(
            as_tensors(self.schema.encode(samples.inputs)),
            torch.as_tensor(samples.codes),
            torch.as_tensor(np.float32(weights)),
        )

    def _unlabeled(self, X: Any) -> SamplesDataset | None:
        """Return samples without labels, with codes that nothing reads; None if there are none."""
        if X is None:
            return None
        if self.spec.companion_training != "distilled":
            raise ValueError(
                f"X_unlabeled is given, but only companions with companion_training='distilled' learn from it; got "
                f"companion_training={self.spec.companion_training!r}."
            )
        with naming("X_unlabeled"):
            inputs = as_tensors(self.schema.encode(check_inputs(self.schema, X)))
        n_samples = len(inputs[0])
        no_codes = torch.zeros(n_samples, dtype=torch.long)
        return SamplesDataset(inputs, no_codes, torch.ones(n_samples))

    def _learn(
        self, cuts: list[Cut], fastest_batch_size: int, X_unlabeled: Any
    ) -> list[LearnedMember]:
        """Train each member with its exits, the backbone first, since companions may learn from it."""
        # The backbone learns first.
        epochs = [self.spec.epochs(cut.max_epochs) for cut in reversed(cuts)]
        with Progress(epochs, self.spec.verbose) as progress:
            trainer = MemberTrainer(
                spec=self.spec,
                train=self._dataset(self.parts.train),
                gates=self._dataset(self.parts.gates),
                feature_batch_size=as_batch_size(self.spec.fixed_batch_size, fastest_batch_size),
                early_weight=self.spec.early_weight(len(cuts)),
                progress=progress,
            )
            try_collate_fns(self.spec, trainer.train, trainer.gates)
            return self._learn_in_turn(trainer, cuts, self._unlabeled(X_unlabeled))

    def _learn_in_turn(
        self, trainer: MemberTrainer, cuts: list[Cut], unlabeled: SamplesDataset | None
    ) -> list[LearnedMember]:
        *companions, backbone = cuts
        last = trainer.learn(backbone)
        samples = trainer.train
        if self.spec.companion_training == "distilled" and companions:
            samples = trainer.with_teacher_labels(last, unlabeled)
        reversed_members = [trainer.learn(cut, samples) for cut in reversed(companions)]
        return [*reversed(reversed_members), last]

    def _keep_companions(self, members: list[LearnedMember]) -> list[LearnedMember]:
        """Return the backbone behind those companions with which the objective is least."""
        *candidates, backbone = members
        # A classifier has no exits of its own.
        fewest = 1 if self.assembly.ends_in_classifier else 0
        subsets = [
            [*companions, backbone]
            for n_companions in range(fewest, len(candidates) + 1)
            for companions in itertools.combinations(candidates, n_companions)
        ]
        if self.spec.is_timed and isinstance(self.spec.exits, str) and backbone.cut.names:
            # Behind companions, exits inside the backbone may take more time than they save.
            whole = self._without_exits(backbone)
            subsets += [[*companions, whole] for *companions, _ in subsets if companions]
        objectives = [self._objective(subset) for subset in subsets]
        sizes = [
            (len(subset), sum(len(member.cut.names) for member in subset)) for subset in subsets
        ]
        return subsets[simplest_of_best(objectives, sizes)]

    def _objective(self, members: Sequence[LearnedMember]) -> float:
        """Return the objective that members would reach on the samples that set the gates."""
        priced_network = self.assembly.chain([member.cut for member in members])
        _, held_out = self._features(members)
        fit_mixing_weights(priced_network.network.heads, held_out)
        priced_network, _ = self._with_measured_costs(priced_network, compiles=self.spec.compile)
        return objective_at(
            answers_of(priced_network.network, held_out),
            priced_network.network.exit_mass,
            priced_network.exit_costs,
            cost_weight=self.spec.cost_weight,
            budget=self.spec.budget,
        )

    def _without_exits(self, backbone: LearnedMember) -> LearnedMember:
        """Return the backbone, which was trained with its exits, as one stage."""
        return LearnedMember(
            cut=replace(
                self.assembly.as_single_stage(self.assembly.module), learns=backbone.cut.learns
            ),
            history=backbone.history,
            train=backbone.train.last_exit(),
            held_out=backbone.held_out.last_exit(),
        )

    def _features(self, members: Sequence[LearnedMember]) -> tuple[ExitFeatures, ExitFeatures]:
        """Return exit features of all members: of the training samples, and of those that set the gates."""
        train = concatenate_exits([member.train for member in members], len(self.parts.train))
        held_out = concatenate_exits([member.held_out for member in members], len(self.parts.gates))
        return train, held_out

    def _engine(self, network: EarlyExitNetwork, compiles: bool) -> TorchEngine:
        return TorchEngine(
            network=network.for_inference(compiles),
            module=self.assembly.shown_module,
            device=self.spec.device,
            fixed_batch_size=self.spec.fixed_batch_size,
        )

    def _with_measured_costs(
        self, priced_network: PricedNetwork, *, compiles: bool
    ) -> tuple[PricedNetwork, float | None]:
        """Replace the costs by run times, and return the plain backbone's seconds, if costs are timed."""
        if not self.spec.is_timed:
            return priced_network, None
        arrays = tuple(array[:N_PROBE_SAMPLES] for array in self.parts.train.inputs)
        exit_costs, plain_seconds = time_exits(
            self.schema,
            self._engine(priced_network.network, compiles),
            arrays,
            self.spec.cost_batch_size,
        )
        return replace(priced_network, exit_costs=exit_costs), plain_seconds

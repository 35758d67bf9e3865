"""Values of a file -> the fitted classifier: modules are built, cut at the same exits, and given their weights."""

import copy
import inspect
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from .._cut import CutInfo
from .._engines.onnx_engine import OnnxEngine
from .._engines.onnx_graphs import CascadeGraph
from .._engines.onnx_sessions import Sessions
from .._engines.torch_engine import TorchEngine, as_tensors
from .._exits.building import (
    N_PROBE_SAMPLES,
    build_network,
    concatenate,
    single_stage_network,
)
from .._exits.network import EarlyExitNetwork
from .._exits.usual_torch import usual_torch
from .._history import SampleHistory
from .._predictor import Predictor
from .._schema import InputSchema
from .._store.checking import check_kinds, check_samples
from .._store.damaged import DamagedFile
from .._store.predictors import predictor_of
from .classifiers import ClassifierStage
from .members import Member
from .saving import CLASSIFIER, OWN, READY, BFloat16, Given, Stored
from .skops_members import of_bytes
from .spec import CascadeSpec
from .warm_start import TrainedMembers, remember_history, structure_of


class Loading:
    """Build what the values of a file describe.

    Parameters
    ----------
    values : mapping
        What :func:`saving.fitted_as_values` made.
    module : object
        What the user gives for the members that the file does not hold: one, or a list of them in order.
    head : class or None
    trusted : collection of str
        Types of members that may be loaded, beside those of scikit-learn that skops trusts.
    """

    def __init__(
        self, values: Mapping[str, Any], module: Any, head: Any, trusted: Collection[str]
    ) -> None:
        self.values, self.trusted, self.head = values, trusted, head
        self.given = _as_list(module)
        self.schema: InputSchema = values["schema"]
        if not isinstance(self.schema, InputSchema) or not isinstance(
            values["history"], SampleHistory
        ):
            raise DamagedFile("it does not say what its samples look like")
        check_kinds(self.schema, "schema")
        check_kinds(values["history"], "history")
        check_samples(self.schema, len(self.schema.sample_shapes))

    def params(self) -> dict[str, Any]:
        """Parameters of the estimator."""
        params = dict(self.values["params"])
        given = iter(self.given)
        params["module"] = self._as_module(params.get("module"), given)
        if isinstance(params.get("head"), Given):
            params["head"] = self._given_head(params["head"])
        return params

    def _given_head(self, head: Given) -> Any:
        if self.head is None:
            raise MissingPart(
                f"it was fitted with head={head.name}, which no file holds; give head={head.name}"
            )
        return self.head

    def _as_module(self, value: Any, given: Iterator[Any]) -> Any:
        if isinstance(value, Given):
            return next(given, None)
        if isinstance(value, Stored):
            return of_bytes(value.data, self.trusted)
        if isinstance(value, list | tuple):
            return type(value)(self._as_module(item, given) for item in value)
        return value

    @usual_torch()
    def predictor(self) -> Predictor:
        """The predictor, with its engine."""
        values = self.values
        with torch.random.fork_rng(devices=[]):
            members, networks = self._members()
        chain = self._chain(networks)
        trained = TrainedMembers(
            members=members,
            exits=[list(of.get("exits", [])) for of in values["members"]],
            heads=[copy.deepcopy(network.heads.state_dict()) for network in networks],
            are_frozen=[bool(of.get("is_frozen", True)) for of in values["members"]],
            structure={},
            **values["trained"],
        )
        engine = self._engine(chain, members[-1])
        n_inputs = len(self.schema.sample_shapes)
        predictor = predictor_of(values, engine, chain.n_exits, n_inputs, values["history"])
        cascade = replace(predictor.cascade, trained=trained, history=values["training"])
        return replace(predictor, cascade=cascade)

    def _members(self) -> tuple[list[Member], list[EarlyExitNetwork]]:
        given = iter(self.given)
        members, networks = [], []
        for of_member in self.values["members"]:
            if of_member["kind"] == CLASSIFIER:
                before = of_bytes(of_member["before"].data, self.trusted)
                members.append(Member(before, of_member["params"]))
                networks.append(self._classifier_network(of_member))
                continue
            module = self._module(of_member, given)
            members.append(Member(module, {}))
            networks.append(self._cut_again(of_member, module))
        if not networks:
            raise DamagedFile("it has no members")
        return members, networks

    def _classifier_network(self, of_member: Mapping[str, Any]) -> EarlyExitNetwork:
        classifier = of_bytes(of_member["fitted"].data, self.trusted)
        n_features = getattr(classifier, "n_features_in_", self.schema.n_features)
        if of_member["as_numbers"] and n_features != self.schema.n_features:
            raise DamagedFile("a member takes other columns than the samples have")
        stage = ClassifierStage(
            classifier,
            self.schema,
            batch_size=of_member["batch_size"],
            as_numbers=of_member["as_numbers"],
            least_probability=of_member["least_probability"],
        )
        return single_stage_network(stage, *self._network_options)

    @property
    def _network_options(self) -> tuple[int, str, str]:
        distribution = self.values["cascade"]["exit_distribution"]
        return self.schema.n_classes, distribution, self.values["network"]["precision"]

    def _module(self, of_member: Mapping[str, Any], given: Iterator[Any]) -> nn.Module:
        state = {name: _as_tensor(value) for name, value in of_member["state"].items()}
        if of_member["kind"] == OWN:
            module = self._own_module(of_member["name"], given, state)
            module.load_state_dict(state)
        else:
            # No numbers before it is known that there are as many in the file.
            with torch.device("meta"):
                module = READY[of_member["kind"]].of_state(state, **of_member["settings"])
            module.load_state_dict(state, assign=True)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name not in of_member["frozen_parameters"])
        remember_history(module, self.values["history"])
        return module.eval()

    def _own_module(self, name: str, given: Iterator[Any], state: Mapping[str, Any]) -> nn.Module:
        """A module of the user's, built anew or copied."""
        found = next(given, None)
        if found is None:
            raise MissingPart(
                f"it has a module {name}, whose class no file holds; give module={name} (its class, or an instance; "
                f"for several a list in the order of the members)"
            )
        params = {}
        if isinstance(found, tuple):
            found, params = found
        elif len(self.given) == 1:
            params = _module_params(self.values["params"])
        if isinstance(found, nn.Module):
            return copy.deepcopy(found)
        if hasattr(found, "from_data"):
            raise MissingPart(
                f"module={name} is built from data; give an instance of it, whose weights do not matter"
            )
        _check_meta(found, params, state)
        built: nn.Module = found(**params)
        return built

    def _cut_again(self, of_member: Mapping[str, Any], module: nn.Module) -> EarlyExitNetwork:
        """Stages and heads of a module, with the weights of the heads."""
        heads = {name: _as_tensor(value) for name, value in of_member["heads"].items()}
        order = heads.get("last.logit_order")
        head = self.values["network"]["head"]
        n_classes, distribution, precision = self._network_options
        network, names = build_network(
            module,
            of_member["exits"] or 0,
            self._probe(),
            n_classes,
            head=self._given_head(head) if isinstance(head, Given) else head,
            exit_mass=distribution,
            frozen=of_member["is_frozen"],
            precision=precision,
            input_names=self.schema.input_names,
            logit_order=None if order is None else order.tolist(),
            trains=False,
        )
        if names != of_member["exits"]:
            raise DamagedFile(f"its exits {of_member['exits']} are not where they were")
        network.heads.load_state_dict(heads)
        network.converts = bool(self.values["network"]["converts"])
        return network

    def _probe(self) -> tuple[torch.Tensor, ...]:
        return as_tensors(self.schema.encode(self.schema.example(N_PROBE_SAMPLES)))

    def _chain(self, networks: list[EarlyExitNetwork]) -> EarlyExitNetwork:
        of_network = self.values["network"]
        chain = networks[-1]
        if len(networks) > 1:
            chain = concatenate(networks, *self._network_options, of_network["told_costs"])
        chain.heads.mix(
            np.array(of_network["mixing_weights"]), np.array(of_network["member_mixing_weights"])
        )
        infos = of_network["infos"]
        for stage, info in zip(chain.stages, infos, strict=True):
            if (
                not isinstance(info, CutInfo)
                or replace(stage.info, widest=info.widest, folds=info.folds) != info
            ):
                raise DamagedFile("what crosses its cuts is not what did")
            stage.info = info
        return chain.for_inference(bool(of_network["compiles"])).eval()

    def _engine(self, chain: EarlyExitNetwork, last: Member) -> Any:
        of_engine = self.values["engine"]
        point = self.values["point"]
        stage = chain.stages[-1]
        module = stage.classifier if isinstance(stage, ClassifierStage) else last.module
        in_torch = TorchEngine(
            network=chain,
            module=module,
            device="cpu",
            fixed_batch_size=of_engine["fixed_batch_size"],
        )
        engine: Any = in_torch
        if of_engine["graph"] is not None:
            graph = of_engine["graph"]
            if not isinstance(graph, CascadeGraph) or graph.n_exits != chain.n_exits:
                raise DamagedFile("its graph has other exits than its network")
            check_kinds(graph, "graph")
            engine = OnnxEngine(
                in_torch=in_torch, sessions=Sessions(graph), precision=of_engine["precision"]
            )
        return engine.at(point)


def with_structure(predictor: Predictor, spec: CascadeSpec) -> Predictor:
    """The predictor with the parameters that its network was built with, so that a later fit can go on from it."""
    trained: Any = predictor.cascade.trained
    trained = replace(trained, structure=structure_of(spec))
    return replace(predictor, cascade=replace(predictor.cascade, trained=trained))


class MissingPart(DamagedFile):
    """A file needs something that whoever loads it must give."""


def _as_list(module: Any) -> list[Any]:
    if module is None:
        return []
    return list(module) if isinstance(module, list) else [module]


def _module_params(params: Mapping[str, Any]) -> dict[str, Any]:
    prefix = "module__"
    return {name[len(prefix) :]: v for name, v in params.items() if name.startswith(prefix)}


def _as_tensor(value: Any) -> torch.Tensor:
    if isinstance(value, BFloat16):
        bits = torch.from_numpy(np.asarray(value.bits, dtype=np.uint16).view(np.int16))
        return bits.view(torch.bfloat16)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise DamagedFile("a weight is no array of numbers")
    return torch.from_numpy(value)


def _check_meta(kind: Any, params: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Refuse parameters that would build another module than the weights are of, before that takes any memory."""
    if not inspect.isclass(kind):
        return
    try:
        with torch.device("meta"):
            built: Any = kind(**params)
        shapes = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    except (NotImplementedError, RuntimeError):
        # Some modules compute when they are built, which takes numbers.
        return
    if shapes != {name: tuple(tensor.shape) for name, tensor in state.items()}:
        raise MissingPart(
            f"module={kind.__name__}, built with {dict(params)}, has other weights than the file; give the class that "
            f"was fitted"
        )

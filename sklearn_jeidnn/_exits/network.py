"""Stages, heads and gates in one module: ``forward`` runs all exits, ``route`` drops samples."""

import contextlib
import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from .._cut import Stage, take_rows
from .batch_size import MOST_DIVIDED_ROWS, rows_in_cache
from .exit_heads import ExitHeads, ExitOutput, PreviousExit
from .gate_points import GatePoints
from .gates import Gate, Gates, all_gate_inputs
from .heads import CustomHead
from .policy import EXIT_DISTRIBUTIONS, exit_distribution
from .routing import ExitStep, RoutedLogits, route
from .steps import exit_step

MOST_ROWS = 1024
# Heads of at most so many samples are faster on the CPU than on a GPU (see decision 52).
FEW_SAMPLES = 64
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class EarlyExitNetwork(nn.Module):
    """Stages of one or more members, with a head at each exit and a gate at each exit but the last.

    Parameters
    ----------
    stages : list of Stage
        Of a backbone, or of several members one after the other; each member starts from the
        inputs.
    heads : ExitHeads
    gates : Gates
    exit_mass : str
        A name in ``EXIT_DISTRIBUTIONS``.
    frozen : bool
        Whether the stages are not trained, and stay in evaluation mode.
    precision : str
        A name in ``PRECISIONS``, in which stages and heads compute when they are not trained.
    widest : int
        Most numbers of a sample that enter a stage, or are its logits.
    narrow_strides : bool
        See :func:`has_narrow_strides`.
    told_costs : sequence of (float or None) (n_stages,), default=None
        Cost of each stage relative to the plain backbone; None if it is counted.
    """

    stages: Any  # nn.ModuleList of Stage

    def __init__(
        self,
        stages: Sequence[Stage],
        heads: ExitHeads,
        gates: Gates,
        exit_mass: str,
        frozen: bool,
        precision: str = "float32",
        widest: int = 1,
        narrow_strides: bool = False,
        told_costs: Sequence[float | None] | None = None,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.heads = heads
        self.gates = gates
        self.exit_mass = EXIT_DISTRIBUTIONS[exit_mass]
        self.frozen = frozen
        self.precision = precision
        self.widest = widest
        self.narrow_strides = narrow_strides
        self.told_costs = tuple(told_costs or (None,) * len(stages))
        # Whether stages may hold their weights in the precision, and whether they do; see for_inference.
        self.converts = False
        self.is_converted = False
        # Whether heads and gates are on another device than stages; see for_few_samples.
        self.heads_are_apart = False
        # Whether stages hold convolutions, for which images are put into another memory format.
        self.convolves = True
        self.compiles = False
        self.plain_last_exit = False
        self._functions: dict[Hashable, Callable[..., Any]] = {}
        self._with_heads_on_cpu: tuple[list[int], EarlyExitNetwork] | None = None

    @property
    def n_exits(self) -> int:
        return len(self.stages)

    @property
    def device_of_heads(self) -> torch.device:
        """Where heads and gates are; stages may be elsewhere, see :meth:`for_few_samples`."""
        return self.gates.weight.device

    @property
    def rows_at_once(self) -> int:
        """Batch size that runs fastest when nothing is trained."""
        if self.device_of_heads.type != "cpu":
            return MOST_ROWS
        most = MOST_ROWS if self.compiles else MOST_DIVIDED_ROWS
        return rows_in_cache(self.widest, torch.get_num_threads(), most)

    def train(self, mode: bool = True) -> "EarlyExitNetwork":
        super().train(mode)
        if self.frozen:
            self.stages.eval()
        return self

    def exit_features(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Exit features (n_samples, d) of each exit; at a member's end they are its logits."""
        if not (self.training and self.narrow_strides):
            inputs = self._as_is_fastest(inputs)
        carried, features = inputs, []
        for exit_index, stage in enumerate(self.stages):
            carried = stage(*(inputs if self.starts(exit_index) else carried))
            output = stage.read(carried)
            feature = self.heads.pool(exit_index, output)
            # The next stage may write into its inputs.
            features.append((feature.clone() if feature is output else feature).float())
        return features

    def starts(self, exit_index: int) -> bool:
        """Whether the stage before this exit takes the inputs of the network."""
        return exit_index in self.heads.first_exits

    def run_exit(
        self, exit_index: int, output: torch.Tensor, before: PreviousExit | None
    ) -> ExitOutput:
        """Stage output (n_samples, ...), previous exit -> output of the exit."""
        feature = self.heads.pool(exit_index, output)
        if self.is_converted or self.heads_are_apart:
            feature = feature.to(self.device_of_heads).float()
        if self.plain_last_exit and exit_index == len(self.stages) - 1:
            return ExitOutput.of_head(feature.float())
        return self.heads.one(exit_index, feature, before)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Tensors (n_samples, ...) -> logits of every exit (n_samples, n_exits, n_classes)"""
        logits: torch.Tensor = self.heads(self.exit_features(*inputs))
        return logits

    def with_gates(self, point: GatePoints, *, plain_last_exit: bool = False) -> "EarlyExitNetwork":
        """Return a network with other gates, which shares stages and heads with this one.

        Parameters
        ----------
        point : GatePoints
            Of one point.
        plain_last_exit : bool, default=False
            Whether samples that reach the last exit get the last member's answer alone.
        """
        other = self._shallow_copy()
        # What is compiled knows which last exit it has.
        same_exits = plain_last_exit == self.plain_last_exit
        other._functions = self._functions if same_exits else {}
        other.plain_last_exit = plain_last_exit
        other._with_heads_on_cpu = None
        other.gates = copy.deepcopy(self.gates)
        other.gates.load(point)
        return other

    def with_mixing(self, mixing_weights: Any, member_mixing_weights: Any) -> "EarlyExitNetwork":
        """Return a network that combines exits with other weights (see :meth:`ExitHeads.mix`); it shares the rest."""
        other = self._shallow_copy()
        other.heads = copy.copy(self.heads)
        other.heads.mix(mixing_weights, member_mixing_weights)
        other._with_heads_on_cpu = None
        return other

    def in_precision(self, precision: str) -> "EarlyExitNetwork":
        """Return a network that computes in another precision, which shares all parts with this one.

        Raises
        ------
        ValueError
            If the weights are in another precision, so that those in this one are lost.
        """
        if self.is_converted:
            raise ValueError(
                f"precision={precision!r} is not there any more: weights are in {self.precision}; give precision in "
                f"the constructor."
            )
        other = self._shallow_copy()
        other.precision, other._functions = precision, {}
        return other

    def _shallow_copy(self) -> "EarlyExitNetwork":
        """Another network of the same parts, each of which can be replaced."""
        other = copy.copy(self)
        other._modules = dict(self._modules)
        return other

    def for_inference(self, compiles: bool = False) -> "EarlyExitNetwork":
        """Return a network for prediction, with normalisation folded and, if asked, compiled.

        If ``converts`` is set, its stages have weights of their own in the network's precision, and heads compute in
        float32; autocast would convert the weights anew in each call, and some layers would compute in float32.
        """
        other = self._shallow_copy()
        if not self.is_converted:
            other.stages = nn.ModuleList(map(self._stage_for_inference, self.stages))
            other.is_converted = self.converts
            other.convolves = any(map(_convolves, other.stages.modules()))
        other.heads = copy.deepcopy(self.heads).fold()
        other._with_heads_on_cpu = None
        other.compiles = compiles
        return other

    def for_few_samples(self) -> "EarlyExitNetwork":
        """Return the network as it answers few samples fastest: on a GPU, with heads and gates on the CPU.

        They are some forty small operations an exit. To launch one on a GPU takes the host longer than to compute it
        itself, and at each exit it waits for the GPU anyway. Networks whose heads are a user's own, or need autocast,
        or are compiled, stay as they are.
        """
        needs_autocast = self.lossy and not self.is_converted
        users_heads = any(isinstance(head, CustomHead) for head in self.heads.heads)
        if self.device_of_heads.type != "cuda" or needs_autocast or users_heads or self.compiles:
            return self
        versions = [tensor._version for tensor in (*self.heads.parameters(), self.gates.weight)]
        if self._with_heads_on_cpu is None or self._with_heads_on_cpu[0] != versions:
            self._with_heads_on_cpu = (versions, self.with_heads_on_cpu())
        return self._with_heads_on_cpu[1]

    @torch.inference_mode(False)
    def with_heads_on_cpu(self) -> "EarlyExitNetwork":
        """Return a network with copies of heads and gates on the CPU; stages stay where they are."""
        other = self._shallow_copy()
        other.heads, other.gates = copy.deepcopy((self.heads, self.gates))
        other.heads.cpu()
        other.gates.cpu()
        other.heads_are_apart = True
        return other

    def _stage_for_inference(self, stage: Stage) -> Stage:
        folded = stage.folded()
        return folded.converted(PRECISIONS[self.precision]) if self.converts else folded

    def exit_step(self, exit_index: int) -> Callable[..., ExitStep]:
        """:func:`_exits.steps.exit_step` of one exit."""
        return self._maybe_compiled(("exit", exit_index), exit_step, self, exit_index)

    def numbers(self, n_samples: int) -> torch.Tensor:
        return torch.arange(n_samples, device=self.device_of_heads)

    def per_exit_gates(self) -> list[Gate]:
        return self.gates.per_exit_gates()

    def take_inputs(
        self, inputs: Sequence[torch.Tensor], rows: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        rows = rows.to(inputs[0].device, non_blocking=True)
        return tuple(take_rows(tensor, rows) for tensor in inputs)

    def keep_rows(
        self, exit_index: int, carried: Sequence[torch.Tensor], rows: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        rows = rows.to(carried[0].device, non_blocking=True)
        kept: tuple[torch.Tensor, ...] = self.stages[exit_index].keep_rows(carried, rows)
        return kept

    def join_rows(
        self, exit_index: int, parts: Sequence[Sequence[torch.Tensor]]
    ) -> tuple[torch.Tensor, ...]:
        joined: tuple[torch.Tensor, ...] = self.stages[exit_index].join_rows(parts)
        return joined

    def _maybe_compiled(self, key: Hashable, function: Any, *bound: Any) -> Callable[..., Any]:
        """Bind first arguments, and compile if asked, once for all operating points."""
        if not self.compiles:
            return partial(function, *bound)
        if key not in self._functions:
            # torch limits how many variants of the same code it compiles.
            code_copy = FunctionType(
                function.__code__.replace(), function.__globals__, function.__name__
            )
            self._functions[key] = partial(torch.compile(code_copy, dynamic=True), *bound)
        return self._functions[key]

    def __getstate__(self) -> dict[str, Any]:
        # Compiled functions can be neither copied nor stored.
        state = super().__getstate__()  # type: ignore[no-untyped-call]  # untyped in torch
        return {**state, "_functions": {}, "_with_heads_on_cpu": None}

    def exit_distribution(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of every exit -> probability of each exit (n_samples, n_exits)"""
        gate_probs = self.gates(all_gate_inputs(logits))
        distribution: torch.Tensor = exit_distribution(gate_probs, self.exit_mass)
        return distribution

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """Compute without gradients, in the network's precision."""
        with torch.no_grad(), self._autocast():
            yield

    @property
    def lossy(self) -> bool:
        """Whether the network computes in less than float32."""
        return self.precision != "float32"

    def _autocast(self) -> torch.autocast:
        dtype, device = PRECISIONS[self.precision], self.device_of_heads.type
        return torch.autocast(device, dtype, enabled=self.lossy and not self.is_converted)

    def route(
        self,
        *inputs: torch.Tensor,
        rows_at_once: int = MOST_ROWS,
        exits: torch.Tensor | None = None,
    ) -> RoutedLogits:
        """Run samples stage by stage; a sample that leaves is not run further.

        Parameters
        ----------
        *inputs : tensor (n_samples, ...)
            What the backbone takes.
        rows_at_once : int
            Batch size.
        exits : tensor of int (n_samples,), default=None
            Exit at which each sample leaves, whatever its gates say; for timing.
        """
        with torch.inference_mode(), self._autocast():
            network = self.for_few_samples() if len(inputs[0]) <= FEW_SAMPLES else self
            exits = None if exits is None else exits.to(network.device_of_heads)
            return route(network, self._as_is_fastest(inputs), rows_at_once, exits)

    def plain(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Tensors (n_samples, ...) -> logits of the last member alone (n_samples, n_classes)"""
        with torch.inference_mode(), self._autocast():
            run = self._maybe_compiled("plain", run_last_member, self)
            logits: torch.Tensor = run(self._as_is_fastest(inputs))
            return logits

    def _as_is_fastest(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Inputs, images in the memory format in which the stages are fast."""
        if inputs[0].is_cuda and not self.convolves:
            return inputs
        return tuple(map(_channels_last, inputs))


def run_last_member(network: EarlyExitNetwork, carried: Any) -> torch.Tensor:
    """Tensors (n_samples, ...) -> logits (n_samples, n_classes)"""
    for stage in network.stages[network.heads.first_exits[-1] :]:
        carried = stage(*carried)
    return network.heads.pool(len(network.stages) - 1, stage.read(carried))


def _convolves(module: nn.Module) -> bool:
    """Whether a module is a convolution, or a graph with one."""
    if isinstance(module, fx.GraphModule):
        return any("conv" in str(node.target) for node in module.graph.nodes)
    return isinstance(module, _ConvNd)


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """Images in the memory format in which convolutions and pools are fast."""
    if tensor.ndim != 4:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)

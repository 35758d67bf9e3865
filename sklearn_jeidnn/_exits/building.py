"""Build a network from a module, with untrained heads and gates, or from several members."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from .._cut import Stage, cut, multiply_adds, repeat_samples
from .exit_heads import ExitHeads, PassThroughHead
from .gates import Gates, summarise
from .heads import Head, make_head
from .network import EarlyExitNetwork

N_PROBE_SAMPLES = 3


@torch.no_grad()
def build_network(
    backbone: nn.Module,
    exits: list[str] | int | str,
    inputs: tuple[torch.Tensor, ...],
    n_classes: int,
    *,
    head: str | type[nn.Module],
    exit_mass: str,
    frozen: bool,
    precision: str = "float32",
    input_names: tuple[str, ...] | None = None,
    logit_order: list[int] | None = None,
    trains: bool = True,
) -> tuple[EarlyExitNetwork, list[str]]:
    """Cut one member, and put untrained heads and gates at its exits.

    Parameters
    ----------
    backbone : nn.Module
        The stages share its parameters.
    exits : list of str, int or "auto"
        See :func:`_cut.cut`.
    inputs : tuple of tensor (n_samples, ...)
        A few samples to try the backbone on.
    n_classes : int
    head : str or class
        See :func:`heads.make_head`.
    exit_mass : str
        A name in ``EXIT_DISTRIBUTIONS``.
    frozen : bool
    precision : str
    input_names : tuple of str, default=None
        Arguments of the backbone to which ``inputs`` are passed. If None, they are passed by
        position.
    logit_order : list of int (n_classes,), default=None
        See :class:`PassThroughHead`.
    trains : bool, default=True
        See :func:`_cut.cut`.

    Returns
    -------
    network : EarlyExitNetwork
    names : list of str
        Submodules after which samples may leave, in the order in which they are reached.
    """
    samples = repeat_samples(inputs, N_PROBE_SAMPLES)
    head_cost = partial(_head_cost, head, n_classes)
    stages, names = cut(
        backbone,
        exits,
        samples,
        input_names,
        n_classes,
        head_cost=head_cost,
        frozen=frozen,
        trains=trains,
    )
    heads, widest = _make_heads(head, n_classes, stages, samples)
    if frozen:
        nn.ModuleList(stages).requires_grad_(False)
    network = EarlyExitNetwork(
        stages,
        ExitHeads(heads, last=PassThroughHead(logit_order)),
        make_gates(len(heads), n_classes),
        exit_mass=exit_mass,
        frozen=frozen,
        precision=precision,
        widest=widest,
        narrow_strides=has_narrow_strides(backbone),
    )
    return network.to(inputs[0].device).eval(), names


def _head_cost(head: str | type[nn.Module], n_classes: int, output: torch.Tensor) -> float:
    """Multiply-adds of a head that reads such an output."""
    with torch.random.fork_rng(devices=[]):
        untrained = make_head(head, output, n_classes).to(output.device).eval()
    previous = output.new_zeros(len(output), n_classes)
    return multiply_adds(lambda: untrained(untrained.pool(output), previous))[1]


def _make_heads(
    head: str | type[nn.Module],
    n_classes: int,
    stages: Sequence[Stage],
    samples: tuple[torch.Tensor, ...],
) -> tuple[list[Head], int]:
    """Untrained heads, and the most numbers of a sample that enter a stage or are its logits."""
    heads = []
    carried, widest = samples, max(n_classes, _numbers_of_a_sample(samples))
    for stage in stages[:-1]:
        carried = stage(*carried)
        widest = max(widest, _numbers_of_a_sample(carried))
        heads.append(make_head(head, stage.read(carried), n_classes))
    return heads, widest


def make_gates(n_gates: int, n_classes: int) -> Gates:
    """Build untrained gates."""
    n_inputs = summarise(torch.zeros(1, n_classes), None).inputs.shape[1]
    return Gates(n_gates, n_inputs)


def single_stage_network(
    stage: Stage, n_classes: int, exit_mass: str, precision: str, cost: float | None = None
) -> EarlyExitNetwork:
    """Network of one frozen stage, with no exit but its end, whose cost may be told."""
    return EarlyExitNetwork(
        [stage],
        ExitHeads([]),
        make_gates(0, n_classes),
        exit_mass=exit_mass,
        frozen=True,
        precision=precision,
        told_costs=[cost],
    ).eval()


def concatenate(
    members: Sequence[EarlyExitNetwork],
    n_classes: int,
    exit_mass: str,
    precision: str,
    told_costs: Sequence[float | None] | None = None,
) -> EarlyExitNetwork:
    """Join several networks into one, which shares their stages and heads and has gates of its own.

    Parameters
    ----------
    members : list of EarlyExitNetwork
        In the order in which samples reach them; the last is the plain backbone's.
    n_classes : int
    exit_mass : str
        A name in ``EXIT_DISTRIBUTIONS``.
    precision : str
    told_costs : list of (float or None) (n_stages,), default=None
        Cost of each stage relative to the plain backbone; None if it is counted.
    """
    stages = [stage for member in members for stage in member.stages]
    heads: list[nn.Module] = []
    first_exits = []
    for member in members:
        first_exits.append(len(heads))
        heads += [*member.heads.heads, member.heads.last]
    network = EarlyExitNetwork(
        stages,
        ExitHeads(heads[:-1], first_exits, last=members[-1].heads.last),
        make_gates(len(stages) - 1, n_classes),
        exit_mass=exit_mass,
        frozen=True,
        precision=precision,
        widest=max(member.widest for member in members),
        told_costs=told_costs,
    )
    network.converts = all(member.converts for member in members)
    return network.eval()


def has_narrow_strides(module: nn.Module) -> bool:
    """Whether a module has 1x1 convolutions with a stride and very few channels.

    Very few are fewer than the processor takes at once. If such a convolution is trained on
    channels-last maps, oneDNN writes past its memory (seen with AVX2 in oneDNN 3.12; its issue
    6035): gradients are wrong, or the process crashes.
    """
    channels_at_once = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
    return any(
        isinstance(part, nn.Conv2d)
        and part.kernel_size == (1, 1)
        and max(part.stride) > 1
        and part.in_channels < channels_at_once
        for part in module.modules()
    )


def _numbers_of_a_sample(carried: Sequence[torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in carried) // N_PROBE_SAMPLES

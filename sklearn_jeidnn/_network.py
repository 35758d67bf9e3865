"""Stages, heads and gates in one module: ``forward`` runs all exits, ``route`` drops the rows that left."""

import contextlib
import copy
from functools import partial
from types import FunctionType

import torch
from torch import nn

from ._costs import multiply_adds
from ._gates import Gates, all_gate_inputs, summarised
from ._heads import ExitHeads, make_head
from ._policy import EXIT_MASSES, exit_distribution
from ._route import pass_exit, route
from ._stages import cut

N_PROBE_ROWS = 3
MOST_ROWS = 1024
# Where stages divide them, so many that what an exit takes whatever the number of its rows no longer counts.
MOST_DIVIDED_ROWS = 4096
FEWEST_ROWS = 64
# Numbers between two stages that a core's cache holds (measured on image networks, where 64 or 128 rows
# at a time run up to twice as fast as 1024).
CACHED_NUMBERS = 2**20
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class EarlyExitNetwork(nn.Module):
    """Stages of one or more members, a head at each exit, a gate at each but the last.

    Parameters
    ----------
    stages : list of Stage
        Of a backbone, or of several members one after the other; each member starts from the inputs.
    heads : ExitHeads
    gates : Gates
    exit_mass : str
        A name in ``EXIT_MASSES``.
    frozen : bool
        Whether the stages stay as they are, in evaluation mode.
    precision : str
        A name in ``PRECISIONS``: what stages and heads compute in when they do not learn.
    widest : int
        Most numbers of a row that enter a stage.
    narrow_strides : bool
        See :func:`has_narrow_strides`.
    """

    def __init__(
        self,
        stages,
        heads,
        gates,
        exit_mass,
        frozen,
        precision="float32",
        widest=1,
        narrow_strides=False,
    ):
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.heads = heads
        self.gates = gates
        self.exit_mass = EXIT_MASSES[exit_mass]
        self.frozen = frozen
        self.precision = precision
        self.widest = widest
        self.narrow_strides = narrow_strides
        self.compiles = False
        self._functions = {}

    @property
    def n_exits(self):
        return len(self.stages)

    @property
    def rows_at_once(self):
        """Rows of a batch that run fastest where nothing is learned."""
        if self.gates.weight.device.type != "cpu":
            return MOST_ROWS
        cached = CACHED_NUMBERS * torch.get_num_threads()
        most = MOST_ROWS if self.compiles else MOST_DIVIDED_ROWS
        return min(most, max(FEWEST_ROWS, cached // self.widest))

    def train(self, mode=True):
        super().train(mode)
        if self.frozen:
            self.stages.eval()
        return self

    def exit_features(self, *inputs):
        """One (n_samples, d) for each exit; at a member's end they are its logits."""
        if not (self.training and self.narrow_strides):
            inputs = tuple(map(_channels_last, inputs))
        carried, features = inputs, []
        for exit_index, stage in enumerate(self.stages):
            carried = stage(*(inputs if self.starts(exit_index) else carried))
            output = stage.read(carried)
            feature = self.heads.pool(exit_index, output)
            # The next stage may write into what it is given.
            features.append((feature.clone() if feature is output else feature).float())
        return features

    def starts(self, exit_index):
        """Whether the stage before this exit takes the rows' own inputs."""
        return exit_index in self.heads.first_exits

    def say(self, exit_index, output, before):
        """Stage output (n_samples, ...), what is heard of the exit before -> what this one says."""
        return self.heads.one(exit_index, self.heads.pool(exit_index, output), before)

    def forward(self, *inputs):
        """Tensors (n_samples, ...) -> logits of every exit (n_samples, n_exits, n_classes)"""
        return self.heads(self.exit_features(*inputs))

    def with_gates(self, points):
        """The same stages and heads, which both networks share, with other gates.

        Parameters
        ----------
        points : GatePoints
            One point.
        """
        other = self._sharing()
        other._functions = self._functions
        other.gates = copy.deepcopy(self.gates)
        other.gates.load(*points)
        return other

    def _sharing(self):
        """Another network of the same parts, any of which can be put in the place of its own."""
        other = copy.copy(self)
        other._modules = dict(self._modules)
        return other

    def ready(self, compiles=False):
        """The same, for prediction: normalisation folded in copies of its own, and compiled where asked."""
        other = self._sharing()
        other.stages = nn.ModuleList(stage.folded() for stage in self.stages)
        other.heads = copy.deepcopy(self.heads).fold()
        other.compiles = compiles
        return other

    def passage(self, exit_index):
        """:func:`_route.pass_exit` for one exit."""
        return self._as_asked(("exit", exit_index), pass_exit, self, exit_index)

    def _as_asked(self, key, function, *bound):
        """A function of what is bound and more; compiled where that is asked for, once for all operating points."""
        if not self.compiles:
            return partial(function, *bound)
        if key not in self._functions:
            # torch limits how many variants it compiles of one code.
            own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
            self._functions[key] = partial(torch.compile(own, dynamic=True), *bound)
        return self._functions[key]

    def __getstate__(self):
        # What is compiled can be neither copied nor stored.
        return {**super().__getstate__(), "_functions": {}}

    def exit_distribution(self, logits):
        """Logits of every exit -> probability of each exit (n_samples, n_exits)"""
        return exit_distribution(self.gates(all_gate_inputs(logits)), self.exit_mass)

    @contextlib.contextmanager
    def inference(self):
        """Without gradients, in the network's precision."""
        with torch.no_grad(), self._autocast():
            yield

    @property
    def lossy(self):
        """Whether it computes in less than float32."""
        return self.precision != "float32"

    def _autocast(self):
        dtype, device = PRECISIONS[self.precision], self.gates.weight.device.type
        return torch.autocast(device, dtype, enabled=self.lossy)

    def route(self, *inputs, rows_at_once=MOST_ROWS, exits=None):
        """Run rows stage by stage; a row that leaves is not run further.

        Parameters
        ----------
        *inputs : tensor (n_samples, ...)
            What the backbone takes.
        rows_at_once : int
            Rows of a batch.
        exits : tensor of int (n_samples,), default=None
            Where rows leave, whatever gates say: for timing.

        Returns
        -------
        RoutedRows
        """
        with torch.inference_mode(), self._autocast():
            return route(self, tuple(map(_channels_last, inputs)), rows_at_once, exits)

    def plain(self, *inputs):
        """Tensors (n_samples, ...) -> logits of the last member alone (n_samples, n_classes)"""
        with torch.inference_mode(), self._autocast():
            return self._as_asked("plain", run_last_member, self)(
                tuple(map(_channels_last, inputs))
            )


def run_last_member(network, carried):
    """Tensors (n_samples, ...) -> logits (n_samples, n_classes)"""
    for stage in network.stages[network.heads.first_exits[-1] :]:
        carried = stage(*carried)
    return stage.read(carried)


@torch.no_grad()
def build_network(
    backbone,
    exits,
    inputs,
    n_classes,
    *,
    head,
    exit_mass,
    frozen,
    precision="float32",
    input_names=None,
):
    """Cut one member, and put untrained heads and gates at its exits.

    Parameters
    ----------
    backbone : nn.Module
        The stages share its parameters.
    exits : list of str, int or "auto"
        As :func:`_stages.cut` takes them.
    inputs : tuple of tensor (n_samples, ...)
        A few rows to try.
    n_classes : int
    head : str or class
        As :func:`_heads.make_head` takes it.
    exit_mass : str
        A name in ``EXIT_MASSES``.
    frozen : bool
    precision : str
    input_names : tuple of str, default=None
        Arguments of the backbone that ``inputs`` are; None passes them by position.

    Returns
    -------
    network : EarlyExitNetwork
    names : list of str
        Submodules after which rows may leave, in the order in which they are reached.
    """
    rows = torch.arange(N_PROBE_ROWS) % len(inputs[0])
    carried, heads = tuple(tensor[rows.to(tensor.device)] for tensor in inputs), []

    def head_cost(output):
        with torch.random.fork_rng(devices=[]):
            untrained = make_head(head, output, n_classes).to(output.device).eval()
        previous = output.new_zeros(len(output), n_classes)
        return multiply_adds(lambda: untrained(untrained.pool(output), previous))[1]

    stages, names = cut(
        backbone, exits, carried, input_names, n_classes, head_cost=head_cost, frozen=frozen
    )
    widest = _numbers_of_a_row(carried)
    for stage in stages[:-1]:
        carried = stage(*carried)
        widest = max(widest, _numbers_of_a_row(carried))
        heads.append(make_head(head, stage.read(carried), n_classes))
    if frozen:
        nn.ModuleList(stages).requires_grad_(False)
    network = EarlyExitNetwork(
        stages,
        ExitHeads(heads),
        make_gates(len(heads), n_classes),
        exit_mass,
        frozen,
        precision,
        widest,
        has_narrow_strides(backbone),
    )
    return network.to(inputs[0].device).eval(), names


def make_gates(n_gates, n_classes):
    """Untrained gates."""
    n_inputs = summarised(torch.zeros(1, n_classes), None).inputs.shape[1]
    return Gates(n_gates, n_inputs)


def whole(stage, n_classes, exit_mass, precision):
    """A member of one stage that stays as it is, with no exit but its end."""
    network = EarlyExitNetwork(
        [stage], ExitHeads([]), make_gates(0, n_classes), exit_mass, True, precision
    )
    return network.eval()


def chain(members, n_classes, exit_mass, precision):
    """One network of several, which share their stages and heads with it; it has gates of its own.

    Parameters
    ----------
    members : list of EarlyExitNetwork
        In the order in which rows reach them; the last is the plain backbone's.
    n_classes : int
    exit_mass : str
        A name in ``EXIT_MASSES``.
    precision : str
    """
    stages = [stage for member in members for stage in member.stages]
    heads, first_exits = [], []
    for member in members:
        first_exits.append(len(heads))
        heads += [*member.heads.heads, member.heads.last]
    return EarlyExitNetwork(
        stages,
        ExitHeads(heads[:-1], first_exits),
        make_gates(len(stages) - 1, n_classes),
        exit_mass,
        frozen=True,
        precision=precision,
        widest=max(member.widest for member in members),
    ).eval()


def has_narrow_strides(module):
    """Whether it has 1x1 convolutions with a stride and fewer channels than the processor takes at once.

    Where such a convolution learns from channels-last maps, oneDNN writes past its memory (seen with AVX2 in
    oneDNN 3.12; its issue 6035): gradients are wrong, or the process ends.
    """
    lanes = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
    return any(
        isinstance(part, nn.Conv2d)
        and part.kernel_size == (1, 1)
        and max(part.stride) > 1
        and part.in_channels < lanes
        for part in module.modules()
    )


def _channels_last(tensor):
    """Images in the memory format in which convolutions and pools are fast."""
    if tensor.ndim != 4:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)


def _numbers_of_a_row(carried):
    return sum(tensor.numel() for tensor in carried) // N_PROBE_ROWS

"""Stages, heads and gates in one module: ``forward`` runs all exits, ``route`` drops the rows that left."""

from typing import NamedTuple

import torch
from torch import nn

from ._gates import Gates, all_gate_inputs, gate_inputs
from ._heads import HEADS, ExitHeads
from ._policy import EXIT_MASSES, exit_distribution, leaves
from ._stages import check_stages, cut, keep_rows


class RoutedRows(NamedTuple):
    """Where rows left, and with what."""

    logits: torch.Tensor  # (n_samples, n_classes), of the exit taken
    exit_index: torch.Tensor  # (n_samples,)


class EarlyExitNetwork(nn.Module):
    """A backbone cut into stages, a head at each exit, a gate at each but the last.

    Parameters
    ----------
    stages : list of nn.Module
        Stage l takes the tensors that cross the cut before it; all but the last return a tuple
        whose first tensor is what the exit reads; the last returns logits.
    heads : ExitHeads
    gates : Gates
    exit_mass : str
        A name in ``EXIT_MASSES``.
    frozen : bool
        Whether the stages stay as they are, in evaluation mode.
    """

    def __init__(self, stages, heads, gates, exit_mass, frozen):
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.heads = heads
        self.gates = gates
        self.exit_mass = EXIT_MASSES[exit_mass]
        self.frozen = frozen
        self.stages.requires_grad_(not frozen)

    @property
    def n_exits(self):
        return len(self.stages)

    def train(self, mode=True):
        super().train(mode)
        if self.frozen:
            self.stages.eval()
        return self

    def exit_features(self, X):
        """One (n_samples, d) for each exit; the last exit's are its logits."""
        carried, features = (X,), []
        for exit_index, stage in enumerate(self.stages[:-1]):
            carried = stage(*carried)
            features.append(self.heads.pool(exit_index, carried[0]))
        return [*features, self.stages[-1](*carried)]

    def exit_logits(self, output, exit_index, previous_logits):
        """Stage output (n_samples, ...) -> logits (n_samples, n_classes)"""
        return self.heads.one(exit_index, self.heads.pool(exit_index, output), previous_logits)

    def forward(self, X):
        """(n_samples, ...) -> logits of every exit (n_samples, n_exits, n_classes)"""
        return self.heads(self.exit_features(X))

    def exit_distribution(self, logits):
        """Logits of every exit -> probability of each exit (n_samples, n_exits)"""
        return exit_distribution(self.gates(all_gate_inputs(logits)), self.exit_mass)

    @torch.no_grad()
    def route(self, X):
        """Run rows stage by stage; a row that leaves is not run further.

        Parameters
        ----------
        X : tensor (n_samples, ...)

        Returns
        -------
        RoutedRows
        """
        rows = torch.arange(len(X), device=X.device)
        unspent = torch.ones(len(X), device=X.device)
        carried, previous, left = (X,), None, []
        for exit_index, stage in enumerate(self.stages[:-1]):
            carried = stage(*carried)
            logits = self.exit_logits(carried[0], exit_index, previous)
            gate_prob = self.gates.one(exit_index, gate_inputs(logits, previous))
            mass = self.exit_mass(gate_prob, unspent)
            leave = leaves(mass, unspent)
            left.append((rows[leave], logits[leave], exit_index))
            stay = (~leave).nonzero().squeeze(1)
            if len(stay) == 0:
                return _in_order(left, len(X))
            rows, unspent, previous = rows[stay], (unspent - mass)[stay], logits[stay]
            carried = keep_rows(carried, stay)
        left.append((rows, self.stages[-1](*carried), self.n_exits - 1))
        return _in_order(left, len(X))


def _in_order(left, n_samples):
    """Put the rows that left at each exit back to their places."""
    n_classes = left[0][1].shape[1]
    logits = left[0][1].new_empty(n_samples, n_classes)
    exit_index = torch.empty(n_samples, dtype=torch.long, device=logits.device)
    for rows, own_logits, own_index in left:
        logits[rows] = own_logits
        exit_index[rows] = own_index
    return RoutedRows(logits, exit_index)


@torch.no_grad()
def build_network(backbone, exits, X, n_classes, *, head, exit_mass, frozen):
    """Cut a backbone, and put untrained heads and gates at its exits.

    Parameters
    ----------
    backbone : nn.Module
        The stages share its parameters.
    exits : list of str
        Submodules to exit after.
    X : tensor (n_samples, ...)
        A few rows, to read shapes off.
    n_classes : int
    head : str
        A name in ``HEADS``.
    exit_mass : str
        A name in ``EXIT_MASSES``.
    frozen : bool

    Returns
    -------
    network : EarlyExitNetwork
    names : list of str
        ``exits`` in the order in which they are reached.
    """
    backbone.eval()
    stages, names = cut(backbone, exits)
    check_stages(stages, type(backbone).__name__, X, n_classes)
    carried, heads = (X,), []
    for stage in stages[:-1]:
        carried = stage(*carried)
        heads.append(HEADS[head](carried[0], n_classes))
    n_inputs = gate_inputs(X.new_zeros(1, n_classes), None).shape[1]
    gates = Gates(len(heads), n_inputs)
    network = EarlyExitNetwork(stages, ExitHeads(heads), gates, exit_mass, frozen)
    return network.to(X.device).eval(), names

"""From what a user gives as members to one network with priced exits."""

import copy
import inspect
from functools import partial
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ._costs import exits_worth, multiply_adds, relative_exit_costs, relative_seconds
from ._graphs import Answering
from ._members import ClassifierStage, as_given, check_classes, companions_for, fitted_classifier
from ._network import N_PROBE_ROWS, EarlyExitNetwork, build_network, chain, whole
from ._rows import tiled
from .backbones import default_backbone

# Of modules that suggest no learning rate, and of heads alone.
LR, HEADS_LR = 2e-3, 1e-2
# A companion is cheap, and heads inside it are not.
COMPANION_EXITS = 0


class Cut(NamedTuple):
    """A member cut into stages."""

    network: EarlyExitNetwork
    names: list  # submodules after which rows may leave


class Assembled(NamedTuple):
    """Members one after the other."""

    network: EarlyExitNetwork
    names: list  # of all exits but the last
    exit_costs: np.ndarray  # (n_exits,)


class Assembly(NamedTuple):
    """How members are made, cut, chained and priced: what the estimator's parameters say of it."""

    classes: np.ndarray
    input_names: tuple | None
    device: object
    head: object
    exit_distribution: str
    precision: str
    takes_trained: bool  # whether instances stay as they are
    companion_costs: list | None
    # Rows of a call whose seconds are the price (0: a batch); None: none are.
    timed_rows: int | None

    def made(self, member, arrays, *, is_backbone):
        """A member's torch module, on the device, in evaluation mode.

        Parameters
        ----------
        member : Member
        arrays : tuple of ndarray (n_samples, ...)
            Rows that train.
        is_backbone : bool
        """
        X = as_given(arrays, self.input_names)
        module, params = member
        if isinstance(module, nn.Module):
            return _copied(module, params).to(self.device).eval()
        if module is None and self.input_names is not None:
            raise ValueError(
                "module=None takes an array X, not a mapping; give a module for X's keys."
            )
        kind = default_backbone(X.ndim, params) if module is None else module
        if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
            raise TypeError(
                f"module={module!r} is not a torch module; give a class or instance of torch.nn.Module, "
                f"or None for the ready backbone."
            )
        if self.takes_trained and is_backbone:
            raise ValueError(
                "freeze_backbone=True needs module to be a trained instance of a torch module; got "
                f"module={module!r}, whose weights would be random."
            )
        return _constructed(kind, params, X, len(self.classes)).to(self.device).eval()

    def candidates(self, backbone, params, arrays, few, *, embeds):
        """Members that might stand in front of a backbone (see :func:`companions_for`).

        Parameters
        ----------
        backbone : nn.Module
        params : dict
            What it was built with.
        arrays, few : tuple of ndarray, of tensor (n_samples, ...)
            Rows that train; a few of them.
        embeds : bool
            Whether whole numbers are tokens.
        """
        X, shape = as_given(arrays, self.input_names), params.get("image_shape")
        count = self._count(backbone, few)
        return companions_for(
            X,
            len(self.classes),
            image_shape=shape,
            embeds=embeds,
            counted=lambda network: self._count(network.to(self.device), few) / count,
            timed=None if self.timed_rows is None else partial(self._times, backbone, few),
        )

    def _count(self, module, few):
        return multiply_adds(Answering(module, self.input_names), *few)[1]

    def _times(self, backbone, few, modules):
        """Times of some modules for the rows of a call, relative to the backbone's: (n_modules,)"""
        plain, *others = (
            self.uncut(module, few).network.ready() for module in (backbone, *modules)
        )
        rows = tiled(few, self.timed_rows or plain.rows_at_once)
        # On the CPU, since a GPU only begins when it is asked.
        return relative_seconds(
            [lambda network=network: network.plain(*rows).cpu() for network in others],
            lambda: plain.plain(*rows).cpu(),
        )

    def cut_module(self, member, module, exits, few):
        """A member's module, cut into stages; heads untrained."""
        frozen = self.takes_trained and isinstance(member.module, nn.Module)
        if exits == "auto" and self.timed_rows is not None:
            exits = self._worth(module, few, frozen)
        network, names = self._built(module, exits, few, frozen)
        network.learning_rate = getattr(module, "learning_rate", LR)
        return Cut(network, names)

    def uncut(self, module, few):
        """A member's module as one stage."""
        return Cut(*self._built(module, 0, few, frozen=False))

    def _built(self, module, exits, few, frozen):
        return build_network(
            module,
            exits,
            few,
            len(self.classes),
            head=self.head,
            exit_mass=self.exit_distribution,
            frozen=frozen,
            precision=self.precision,
            input_names=self.input_names,
        )

    def _worth(self, module, few, frozen):
        """ "auto" where as many exits as that would take are worth their time, else how many are."""
        with torch.random.fork_rng(devices=[]):
            network, names = self._built(module, "auto", few, frozen)
        n_exits = exits_worth(network, tiled(few, self.timed_rows or network.rows_at_once))
        return "auto" if n_exits >= len(names) else n_exits

    def cut_companion(self, member, exits, rows, few, weight):
        """A companion, cut into stages; a classifier is fitted here.

        The backbone draws the random numbers that it would draw alone.

        Parameters
        ----------
        member : Member
        exits : "auto", int or list of str
        rows : Rows
            That train.
        few : tuple of tensor (n_samples, ...)
        weight : ndarray (n_samples,)
            Of the rows, that of their classes included.
        """
        with torch.random.fork_rng(devices=[]):
            if not member.is_classifier:
                module = self.made(member, rows.inputs, is_backbone=False)
                return self.cut_module(member, module, exits, few)
        X = as_given(rows.inputs, self.input_names)
        fitted = fitted_classifier(member.module, X, self.classes[rows.y], weight)
        check_classes(fitted, self.classes)
        stage = ClassifierStage(fitted, self.classes, self.input_names)
        options = (len(self.classes), self.exit_distribution, self.precision)
        return Cut(whole(stage, *options).to(self.device), [])

    def chained(self, cuts, backbone, some):
        """One network of some members, the names of its exits, and what they cost.

        Parameters
        ----------
        cuts : list of Cut
            The backbone's last.
        backbone : nn.Module
        some : tuple of tensor (n_samples, ...)
            As many rows as are predicted at once: classifiers that cannot be counted are timed on them.
        """
        network, names = cuts[0]
        if len(cuts) > 1:
            options = (len(self.classes), self.exit_distribution, self.precision)
            network = chain([cut.network for cut in cuts], *options).to(self.device)
            names = _joined_names([cut.names for cut in cuts])
        self._tell_costs([cut.network for cut in cuts[:-1]], backbone, some)
        few = tuple(tensor[:N_PROBE_ROWS] for tensor in some)
        return Assembled(network, names, relative_exit_costs(network, few))

    def _tell_costs(self, companions, backbone, some):
        told = self.companion_costs
        told = [None] * len(companions) if told is None else list(told)
        if len(told) != len(companions):
            raise ValueError(
                f"companion_costs={self.companion_costs!r} must have one entry for each of the "
                f"{len(companions)} members in front of the backbone."
            )
        plain = Answering(backbone, self.input_names)
        for companion, cost in zip(companions, told, strict=True):
            *inside, stage = companion.stages
            if cost is None and isinstance(stage, ClassifierStage):
                cost = float(relative_seconds([partial(stage, *some)], partial(plain, *some))[0])
            if cost is not None and (inside or not isinstance(cost, Real) or cost <= 0):
                raise ValueError(
                    f"companion_costs={self.companion_costs!r} must hold None or numbers above 0, and None for a "
                    f"companion that has exits inside."
                )
            stage.relative_cost = cost


def as_price_table(exit_costs, name, exits):
    """Costs of all exits as a user gives them: (n_exits,)

    Raises
    ------
    ValueError
        Where they are not one number above 0 for each exit, none less than the one before.
    """
    table = np.asarray(exit_costs, dtype=float)
    n_exits = len(exits) + 1
    if table.shape != (n_exits,) or not (table > 0).all() or (np.diff(table) < 0).any():
        raise ValueError(
            f"{name}={exit_costs!r} must hold one number above 0 for each of the {n_exits} exits ({exits} and the "
            f"last), none less than the one before."
        )
    return table


def exits_of_members(exits, n_members, *, only_the_last):
    """ "auto", a number or names for each member.

    Parameters
    ----------
    exits : "auto", int or list
        What a user gives as ``exits``.
    n_members : int
    only_the_last : bool
        Whether it speaks of the backbone alone.
    """
    if n_members == 1 or only_the_last or isinstance(exits, str):
        return [COMPANION_EXITS] * (n_members - 1) + [_exits_as_given(exits)]
    given = exits if np.iterable(exits) else [exits] * n_members
    if len(given) != n_members:
        raise ValueError(
            f"exits={exits!r} must be 'auto', a number, or have one entry ('auto', a number or a list of "
            f"names) for each of the {n_members} members of module."
        )
    return [_exits_as_given(own) for own in given]


def _exits_as_given(exits):
    """ "auto", a Python int (NumPy's are none), or a list of names."""
    if isinstance(exits, str):
        return exits
    return int(exits) if isinstance(exits, Integral) else list(exits)


def _joined_names(names):
    """Names of all exits but the last: members are numbered, a member's end is its number."""
    inside = [[f"{i}.{name}" for name in own] for i, own in enumerate(names)]
    return [name for i, own in enumerate(inside) for name in (*own, str(i))][:-1]


def _copied(module, params):
    if params:
        raise ValueError(
            f"module__* parameters {sorted(params)} build a class, but module is an instance of "
            f"{type(module).__name__}; give the class, or set them on the instance."
        )
    return copy.deepcopy(module)


def _constructed(module, params, X, n_classes):
    try:
        if hasattr(module, "from_data"):
            return module.from_data(X, n_classes, **params)
        return module(**params)
    except TypeError as error:
        raise TypeError(
            f"module={module.__name__} cannot be built with module__* parameters {params}: {error}"
        ) from error

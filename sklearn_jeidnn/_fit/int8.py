"""A network in 8-bit integers that is as accurate as in float32, as far as held-out samples tell."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binom

from .._engines.onnx_engine import OnnxEngine
from .._engines.onnx_graphs import ANSWER, INPUT, CascadeGraph, numbered
from .._engines.onnx_int8 import (
    INT8,
    PRODUCTS,
    Feeds,
    count_products,
    in_int8,
    kinds_of,
    network_inputs,
)
from .._engines.onnx_rows import count_products_by_row, products_by_row
from .._engines.onnx_sessions import Sessions
from .._schema import Arrays

# Samples whose activations set the scales, and those of a batch of them.
N_CALIBRATING, CALIBRATED_AT_ONCE = 512, 64
# Of the test that chance explains a loss of accuracy, over all exits.
LEVEL = 0.05
# Of the convolutions and matrix products, how many in integers save time.
LEAST_SHARE = 0.5


class _Try(NamedTuple):
    """What stays in float32."""

    left_out: tuple[str, ...] = ()
    float_stages: tuple[int, ...] = ()
    by_row: bool = False  # whether each row of activations has a scale of its own

    def __str__(self) -> str:
        names = [f"operators {kind}" for kind in self.left_out]
        names += [f"the stage before exit {i}" for i in self.float_stages]
        return " and ".join(names)

    def applied_to(self, graph: CascadeGraph, feeds: Iterable[Feeds]) -> CascadeGraph:
        """The graph in integers but for that; the same one if nothing else is there."""
        if self.by_row:
            return products_by_row(graph, feeds, self.float_stages)
        return in_int8(graph, feeds, left_out=self.left_out, float_stages=self.float_stages)

    def count_products(self, graph: CascadeGraph) -> int:
        """Number of convolutions and matrix products in integers."""
        if self.by_row:
            return count_products_by_row(graph, self.float_stages)
        return count_products(graph, left_out=self.left_out, float_stages=self.float_stages)


class InInt8(NamedTuple):
    """An engine in 8-bit integers, beside the same in float32."""

    engine: OnnxEngine
    in_float32: str  # what stays so; "" if nothing
    chance: float  # probability of losing so much accuracy by chance (see :func:`compared`)
    lost: float  # largest loss of accuracy of an exit
    share: float  # of the convolutions and matrix products, how many are in integers

    @property
    def is_as_accurate(self) -> bool:
        """Whether chance explains the loss."""
        return self.chance >= LEVEL


def int8_engine(in_onnx: OnnxEngine, arrays: Arrays, codes: np.ndarray) -> InInt8:
    """Return an engine that runs the stages in 8-bit integers.

    Where an exit loses more accuracy than chance explains (a sign test on the samples that one of both gets wrong, at
    5 % over all exits), a kind of operators, or a stage, stays in float32: the first for which that is no longer so
    and half of the products are in integers, else the first for which it is no longer so, else the one that loses
    least. Before that, in networks without convolutions, each row of activations gets a scale of its own, which is
    taken where the last exit loses nothing: gates learn which exits are worth less in integers.

    Parameters
    ----------
    in_onnx : OnnxEngine
        In float32.
    arrays : tuple of ndarray (n_samples, ...)
        Encoded samples that no network learned from; the first of them set the scales.
    codes : ndarray of int (n_samples,)

    Raises
    ------
    ValueError
        If there is nothing to quantise.
    """
    graph = in_onnx.sessions.graph
    kinds = kinds_of(graph)
    if not kinds:
        raise ValueError(
            f"precision={INT8!r}: no member has convolutions or matrix products that ONNX Runtime computes in "
            f"integers; give precision='float32'."
        )
    feeds = list(_feeds(in_onnx, tuple(array[:N_CALIBRATING] for array in arrays)))
    right = is_right(in_onnx, arrays, codes)
    n_products = count_products(graph)
    tries = [_Try()]
    # Convolutions have no rows.
    tries += [_Try(by_row=True)] if set(kinds) <= set(PRODUCTS) else []
    tries += [_Try(left_out=(kind,)) for kind in kinds if len(kinds) > 1]
    tries += [_Try(float_stages=(i,)) for i in range(graph.n_exits) if graph.n_exits > 1]
    found: list[InInt8] = []
    for attempt in tries:
        engine = _quantised(in_onnx, feeds, attempt)
        if engine is in_onnx:
            continue
        after = is_right(engine, arrays, codes)
        share = attempt.count_products(graph) / n_products
        by_row = compared(right[:, -1:], after[:, -1:]).chance if attempt.by_row else 0.0
        found.append(InInt8(engine, str(attempt), *compared(right, after), share))
        if by_row >= LEVEL or (found[-1].is_as_accurate and share >= LEAST_SHARE):
            return found[-1]
    accurate = [each for each in found if each.is_as_accurate]
    return next(iter(accurate), min(found, key=lambda each: each.lost))


def as_int8(in_onnx: OnnxEngine, arrays: Arrays) -> OnnxEngine:
    """Return an engine in 8-bit integers, however accurate that is; the same one if there is nothing to quantise."""
    return _quantised(in_onnx, _feeds(in_onnx, arrays), _Try())


def _quantised(in_onnx: OnnxEngine, feeds: Iterable[Feeds], attempt: _Try) -> OnnxEngine:
    """Return the engine in integers but for what an attempt leaves out; the same one if nothing else is there."""
    graph = in_onnx.sessions.graph
    quantised = attempt.applied_to(graph, feeds)
    if quantised is graph:
        return in_onnx
    return replace(in_onnx, sessions=Sessions(quantised), precision=INT8)


def _feeds(engine: OnnxEngine, arrays: Arrays) -> Iterator[Feeds]:
    """Inputs of the graph for batches of samples; gates and mixing weights, which set no scale, are 0."""
    graph, exits = engine.sessions.graph, engine.exits
    constants = network_inputs(graph)
    for start in range(0, len(arrays[0]), CALIBRATED_AT_ONCE):
        batch = tuple(array[start : start + CALIBRATED_AT_ONCE] for array in arrays)
        own: Feeds = {numbered(INPUT, k): array for k, array in enumerate(batch)}
        own |= {
            numbered(ANSWER, i): exits.answers(i, batch)
            for i in range(graph.n_exits)
            if graph.is_given[i]
        }
        yield {**constants, **own}


def is_right(engine: Any, arrays: Arrays, codes: np.ndarray) -> np.ndarray:
    """Whether each exit's label is right: bool (n_samples, n_exits)."""
    right: np.ndarray = engine.answer(arrays).logits.argmax(2) == codes[:, None]
    return right


class Comparison(NamedTuple):
    """Accuracies of exits in one engine, compared with those in another."""

    chance: float  # that by chance alone some exit loses as much as the one that loses most
    lost: float  # largest loss of accuracy of an exit


def compared(before: np.ndarray, after: np.ndarray) -> Comparison:
    """Compare two engines on the same samples: a sign test for each exit, corrected for their number (Bonferroni).

    Parameters
    ----------
    before, after : ndarray of bool (n_samples, n_exits)
        Whether labels are right.
    """
    worse, better = (before & ~after).sum(0), (after & ~before).sum(0)
    chances = binom.sf(worse - 1, worse + better, 0.5)
    lost = (worse - better).max() / len(before)
    return Comparison(float(min(1.0, len(chances) * chances.min())), float(lost))

"""The run time of leaving at each exit, relative to the plain backbone's own call, in the engine that answers."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .._cut import LogitsModule
from .._cut.graphs import logits_of
from .._engines.torch_engine import TorchEngine, as_tensors
from .._exits.usual_torch import usual_torch
from .._operate.cascade import Engine
from .._samples import check_inputs
from .._schema import Arrays, InputSchema
from .classifiers import ClassifierStage
from .prices import samples_of_a_call, seconds_in_turns, seconds_of
from .turns import FIT_TURNS

# Fewest samples that are predicted one way before another way has its turn, and fewest for each exit.
SAMPLES_OF_A_TURN, SAMPLES_OF_AN_EXIT = 16, 4
# Least time of the plain backbone's calls in a turn: the first call after another function's is slower.
SECONDS_OF_A_TURN, MOST_CALLS = 4e-3, 400
# Share of the samples of a timed call that are spread over all exits, beside those that leave at one.
SPREAD = 0.25
# Least cost of an exit, relative to that of the cheapest call that is timed.
LEAST_COST = 0.01
# Most samples that the plain backbone is given in one call; more are run in batches, as in prediction.
MOST_WHOLE = 1024
# Most calls with samples of their own, and most samples of no meaning that are made.
MOST_DIFFERENT, MOST_EXAMPLES = 64, 256


class ExitTimes(NamedTuple):
    """Run time of leaving at each exit in an engine."""

    exit_costs: np.ndarray  # (n_exits,), relative to the plain backbone
    plain_seconds: float  # of one sample, of the plain backbone
    # Cost of the first exit in calls whose samples all leave there, in which nothing else runs.
    first_alone: float | None = None


def seconds_of_exits(
    run: Callable[[torch.Tensor], Any], plain: Callable[[], Any], n_samples: int, n_exits: int
) -> ExitTimes:
    """Measure the time of samples that leave at each exit, relative to a pass of the plain backbone.

    For each exit calls are timed in which most samples leave there, and some at every exit. So they do in real calls,
    which take longer than calls whose samples all leave together: samples are sorted out, and nearly every call runs
    every stage, the later ones for few samples. Costs are those that add up to the times of these calls.

    Parameters
    ----------
    run : callable
        Exits of the samples, tensor (n_samples,) -> anything; predicts these samples.
    plain : callable
        Predicts them with the plain backbone.
    n_samples, n_exits : int

    Returns
    -------
    ExitTimes
    """
    n_calls = _calls_of_a_turn(plain, n_samples, n_exits)
    calls, shares = [[plain] * n_calls], []
    for exits in _exits_to_time(n_calls * n_samples, n_exits):
        calls.append([partial(run, part) for part in torch.split(exits, n_samples)])
        shares.append(np.bincount(exits, minlength=n_exits) / len(exits))
    at_first = torch.zeros(n_samples, dtype=torch.long)
    calls.append([partial(run, at_first)] * n_calls)
    turns = seconds_in_turns([partial(_call_all, functions) for functions in calls])
    plain_seconds = turns[:, :1]
    # Times are divided within a turn: other jobs on the machine slow down both.
    *measured, first_alone = np.median(turns[:, 1:] / plain_seconds, axis=0)
    exit_costs = costs_of_exits(np.array(shares), np.array(measured))
    return ExitTimes(
        exit_costs=exit_costs,
        plain_seconds=float(np.median(plain_seconds)) / (n_calls * n_samples),
        first_alone=float(min(first_alone, exit_costs[0])),
    )


def costs_of_exits(shares: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return the costs of exits (n_exits,) whose means are what was measured.

    Parameters
    ----------
    shares : ndarray (n_exits, n_exits)
        Of the samples of each kind of call, how many leave at each exit.
    measured : ndarray (n_exits,)
        Time of each kind of call.
    """
    costs = np.linalg.solve(shares, measured)
    # A sample that runs further costs no less, and none is free, whatever disturbed a measurement.
    exit_costs: np.ndarray = np.maximum.accumulate(np.maximum(costs, LEAST_COST * measured.min()))
    return exit_costs


def _calls_of_a_turn(plain: Callable[[], Any], n_samples: int, n_exits: int) -> int:
    """Return how many calls are timed together: several if a call has few samples, or is quick."""
    plain()  # warms up
    seconds = min(seconds_of(plain) for _ in range(3))
    fewest = -(-max(SAMPLES_OF_A_TURN, SAMPLES_OF_AN_EXIT * n_exits) // n_samples)
    return max(fewest, math.ceil(SECONDS_OF_A_TURN / max(seconds, SECONDS_OF_A_TURN / MOST_CALLS)))


def _exits_to_time(n_samples: int, n_exits: int) -> list[torch.Tensor]:
    """Return for each exit the exits of samples that mostly leave there, and otherwise evenly at all exits."""
    numbers = torch.arange(n_samples)
    is_spread = numbers < SPREAD * n_samples
    order = torch.from_numpy(np.random.default_rng(0).permutation(n_samples))
    return [
        torch.where(is_spread, numbers % n_exits, exit_index)[order]
        for exit_index in range(n_exits)
    ]


def _call_all(functions: Iterable[Callable[[], Any]]) -> None:
    for function in functions:
        function()


@dataclass(frozen=True, kw_only=True)
class TimedPredictor:
    """What is timed: samples are checked, run through an engine and turned into labels, as a predictor does.

    Parameters
    ----------
    schema : InputSchema
    engine : Engine
    """

    schema: InputSchema
    engine: Engine

    def labels(self, X: Any, exits: torch.Tensor) -> np.ndarray:
        arrays = self.schema.encode(check_inputs(self.schema, X))
        with self.schema.explaining(arrays):
            logits = self.engine.route(arrays, exits).logits
        # So a predictor finds answers that are not there.
        logits.sum(dtype=np.float64)
        labels: np.ndarray = self.schema.classes[logits.argmax(1)]
        return labels


def bare_calls(
    schema: InputSchema, engine: Engine, calls: Sequence[Arrays]
) -> list[Callable[[], Any]]:
    """Return what runs the plain backbone on the encoded samples of each call as its user does in this engine.

    In torch that is the module's own call, on tensors, without gradients; images are in the memory format in which it
    is faster. Another engine, and another precision than the module's, have a form of the whole network of their own.
    """
    network = engine.network
    has_own_form = network.lossy or isinstance(network.stages[-1], ClassifierStage)
    if has_own_form or not isinstance(engine, TorchEngine):
        return [partial(engine.whole_logits, arrays) for arrays in calls]
    module = engine.module
    if schema.input_names is not None:
        module = LogitsModule(module, schema.input_names)
    formats: list[torch.memory_format | None] = [None]
    if any(array.ndim == 4 for array in calls[0]):
        formats.append(torch.channels_last)
    of_calls = [partial(_call_module, module, engine, _batches(engine, arrays)) for arrays in calls]
    memory_format = _fastest(of_calls[0], formats)
    return [partial(of_call, memory_format) for of_call in of_calls]


def _batches(engine: Engine, arrays: Arrays) -> list[tuple[torch.Tensor, ...]]:
    """Tensors of the samples of a call, of all at once unless they are very many."""
    n_samples = len(arrays[0])
    size = n_samples if n_samples <= MOST_WHOLE else engine.batch_size
    return list(zip(*(torch.split(tensor, size) for tensor in as_tensors(arrays)), strict=True))


def _call_module(
    module: nn.Module,
    engine: TorchEngine,
    batches: Sequence[tuple[torch.Tensor, ...]],
    memory_format: torch.memory_format | None,
) -> None:
    """Run batches of tensors, images in a memory format if one is given."""
    is_on_cpu = torch.device(engine.device).type == "cpu"
    # Nothing that a user's own call would not need: on one sample it would take longer than a small module.
    with torch.inference_mode():
        for batch in batches:
            tensors = batch if is_on_cpu else tuple(tensor.to(engine.device) for tensor in batch)
            if memory_format is not None:
                tensors = tuple(
                    t.contiguous(memory_format=memory_format) if t.ndim == 4 else t for t in tensors
                )
            output = module(*tensors)
    if not is_on_cpu:
        # A GPU returns before it is done; copying to the CPU waits for it.
        logits_of(output).cpu()


def _fastest(function: Callable[[Any], Any], options: Sequence[Any]) -> Any:
    """Return the option with which a function's calls take least time."""
    if len(options) == 1:
        return options[0]
    calls = [partial(function, option) for option in options]
    n_calls = _calls_of_a_turn(calls[0], SAMPLES_OF_A_TURN, 1)
    turns = seconds_in_turns([partial(_call_all, [call] * n_calls) for call in calls])
    return options[int(np.median(turns, axis=0).argmin())]


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """A module in evaluation mode, and afterwards in the mode in which it was."""
    parts = list(module.modules()) if isinstance(module, nn.Module) else []
    were_training = [part for part in parts if part.training]
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part in were_training:
            part.training = True


def plain_seconds_of(
    schema: InputSchema, engine: Engine, arrays: Arrays, n_samples: int | None
) -> float:
    """Measure the time of the plain backbone alone, of one sample; parameters as in :func:`time_exits`."""
    calls = _different_calls(arrays, n_samples, engine.batch_size)
    with _evaluating(engine.module):
        plain = _one_after_the_other(bare_calls(schema, engine, list(map(schema.encode, calls))))
        n_calls = _calls_of_a_turn(plain, len(calls[0][0]), 1)
        turns = seconds_in_turns([partial(_call_all, [plain] * n_calls)])
    return float(np.median(turns)) / (n_calls * len(calls[0][0]))


def time_exits(
    schema: InputSchema, engine: Engine, arrays: Arrays, n_samples: int | None
) -> ExitTimes:
    """Measure the cost of each exit of a network as run time.

    Parameters
    ----------
    schema : InputSchema
    engine : Engine
    arrays : tuple of ndarray (n_given, ...)
        Samples, which are repeated if a call has more.
    n_samples : int or None
        Number of samples in a call; None takes several batches.
    """
    calls = _different_calls(arrays, n_samples, engine.batch_size)
    predictor = TimedPredictor(schema=schema, engine=engine)
    runs = [partial(predictor.labels, schema.as_user_input(call)) for call in calls]
    with _evaluating(engine.module):
        plain = bare_calls(schema, engine, list(map(schema.encode, calls)))
        return seconds_of_exits(
            _one_after_the_other(runs),
            _one_after_the_other(plain),
            len(calls[0][0]),
            engine.network.n_exits,
        )


def _different_calls(arrays: Arrays, n_samples: int | None, batch_size: int) -> list[Arrays]:
    """Samples of several calls. Trees in particular are faster on samples that they have just answered."""
    first = samples_of_a_call(arrays, n_samples, batch_size)
    size = len(first[0])
    n_calls = min(MOST_DIFFERENT, len(arrays[0]) // size)
    if n_calls == 0:
        return [first]
    return [
        tuple(array[start : start + size] for array in arrays)
        for start in range(0, n_calls * size, size)
    ]


def _one_after_the_other(functions: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """Return what calls these functions in turn, one in each call."""
    endless = itertools.cycle(functions)
    return lambda *arguments: next(endless)(*arguments)


def times_of_example(schema: InputSchema, engine: Engine, n_samples: int | None) -> ExitTimes:
    """Measure run times as :func:`time_exits` does, on samples of no meaning, since none are kept after a fit.

    All calls have the same ones: to trees numbers drawn at random are harder to answer than samples are.
    """
    example = schema.example(min(n_samples or MOST_EXAMPLES, MOST_EXAMPLES))
    with FIT_TURNS.take(), usual_torch():
        return time_exits(schema, engine, example, n_samples)

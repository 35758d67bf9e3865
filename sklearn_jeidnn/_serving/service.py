"""What a service answers: from a request's samples to labels, probabilities, exits and sets."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .._conformal.groups import RoutedSamples
from .._operate.calibration import as_levels, check_allow_empty, with_uniform_gaps
from .._operate.warn import warn_of_gaps
from .._predictor import AnsweredSamples
from .._schema import Arrays
from .._warn import collected_warnings
from ..runtime import Predictor
from .batching import Batcher
from .points import ServedPoint, ServedPoints
from .refusals import Refusal, refusing
from .samples import Asked, n_samples_of
from .settings import Settings
from .telemetry import Telemetry
from .watching import KeptAnswers

OF_BOTH = frozenset({"budget"})
OF_PREDICT = OF_BOTH | {"probabilities"}
OF_SETS = OF_BOTH | {"confidence_level", "allow_empty", "groups"}
logger = logging.getLogger(__name__)


class Checked(NamedTuple):
    """Samples as the network takes them."""

    arrays: Arrays
    groups: np.ndarray  # (n_samples,)
    warnings: list[str]


class Service:
    """A predictor that answers requests.

    Parameters
    ----------
    predictor : Predictor
    settings : Settings
    """

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        self.settings = settings
        self.points = ServedPoints(predictor, settings)
        self.batcher = Batcher(
            max_batch=settings.max_batch,
            max_wait_ms=settings.max_wait_ms,
            max_queue=settings.max_queue,
        )
        self.exit_names = [*predictor.exits, "last exit"]
        self.telemetry = Telemetry(self.exit_names)
        self.kept = KeptAnswers(settings.max_remembered)
        # One large document at a time, beside those that are answered at once.
        self.parser = ThreadPoolExecutor(1, thread_name_prefix="parser")
        self._warm_up()

    def _warm_up(self) -> None:
        """Make sessions, so that the first request does not wait for them."""
        predictor = self.points.own.predictor
        arrays = predictor.schema.encode(predictor.schema.example(2))
        with collected_warnings():
            for n_samples in (1, 2):
                predictor.answers(tuple(array[:n_samples] for array in arrays))

    def check(self, X: Any, groups: Any, makes_sets: bool) -> Checked:
        """Samples of a request, checked and encoded.

        Raises
        ------
        Refusal
            If they are too many, or none.
        """
        predictor = self.points.own.predictor
        if n_samples_of(X) > self.settings.max_samples:
            raise Refusal(
                413, f"there are more than {self.settings.max_samples} samples; send fewer at once."
            )
        with collected_warnings() as warnings, refusing(ValueError, TypeError):
            arrays = self.points.own.public._checked(X)
            numbers = np.zeros(len(arrays[0]), dtype=int)
            if makes_sets:
                predictor.rule.check_groups(groups)
                numbers = predictor.group_numbers(arrays, groups)
        return Checked(arrays, numbers, warnings)

    async def predict(self, asked: Asked, checked: Checked) -> dict[str, Any]:
        """Labels, probabilities and exits, as JSON has them."""
        wants = asked.options.get("probabilities", True)
        if not isinstance(wants, bool):
            raise Refusal(422, f"probabilities={wants!r:.40} is not allowed; give true or false.")
        point, answered = await self._answered(asked, checked)
        routed = answered.routed
        found = {"labels": answered.labels.tolist(), "exits": routed.exit_index.tolist()}
        if wants:
            found["probabilities"] = with_uniform_gaps(routed.probabilities).tolist()
        if point.watched is not None:
            found |= self._kept_as(point, routed)
        return found | _warnings_of(checked, routed)

    def _kept_as(self, point: ServedPoint, routed: RoutedSamples) -> dict[str, str]:
        """The id under which labels may come, where answers can be kept and need no groups."""
        assert point.watched is not None
        if point.predictor.rule.takes_groups:
            return {}
        key = self.kept.add(point.watched.watcher, routed)
        return {} if key is None else {"id": key}

    async def predict_set(self, asked: Asked, checked: Checked) -> dict[str, Any]:
        """Prediction sets as lists of labels, and exits; for several levels a list of these for each."""
        asked_level = asked.options.get("confidence_level", 0.9)
        allow_empty = asked.options.get("allow_empty", True)
        with refusing(ValueError, TypeError):
            levels = as_levels(asked_level)
            check_allow_empty(allow_empty)
        point, answered = await self._answered(asked, checked)
        sets = point.predictor.sets_of(answered.routed, levels, allow_empty=allow_empty)
        classes = np.asarray(self.points.own.public.classes)
        of_levels = [[classes[row].tolist() for row in sets[..., i]] for i in range(len(levels))]
        return {
            "sets": of_levels if isinstance(asked_level, list) else of_levels[0],
            "exits": answered.routed.exit_index.tolist(),
            **_warnings_of(checked, answered.routed),
        }

    async def _answered(
        self, asked: Asked, checked: Checked
    ) -> tuple[ServedPoint, AnsweredSamples]:
        point = await self.points.at(asked.options.get("budget"))
        # Samples that the network does not take, such as tokens that it does not know.
        with refusing(ValueError):
            answered = await self.batcher.answer(point.predictor, checked.arrays, checked.groups)
        exit_index = answered.routed.exit_index
        self.telemetry.count_samples(exit_index, point.public.exit_costs)
        if point.watched is not None:
            point.watched.add(answered.routed)
            if point.watched.is_due():
                self._watch(point)
        return point, answered

    def _watch(self, point: ServedPoint) -> "asyncio.Future[None]":
        """Let the watcher of a point see what was gathered, after the call that runs."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self.batcher.executor, partial(_update, point))

    async def watch_all(self) -> None:
        """Let watchers see all that was gathered."""
        points = [point for point in self.points.ready.values() if point.watched is not None]
        await asyncio.gather(*map(self._watch, points))

    def take_labels(self, labels: Any) -> dict[str, Any]:
        """Take in labels by ids: one for each sample of the request, null where it is not known."""
        if not isinstance(labels, dict):
            raise Refusal(422, '"labels" must be an object: {id: [label of each sample, or null]}.')
        read = {key: self._label_codes(key, values) for key, values in labels.items()}
        unknown = [key for key, found in read.items() if found is None]
        n_labels = 0
        for key, found in read.items():
            if found is not None:
                n_labels += self._take(key, found)
        return {"n_labels": n_labels, "unknown_ids": unknown}

    def _label_codes(self, key: str, values: Any) -> np.ndarray | None:
        """Code of each label, -1 where it is null; None if nothing is kept under the id."""
        kept = self.kept.get(key)
        if kept is None:
            return None
        if not isinstance(values, list) or len(values) != len(kept):
            raise Refusal(422, f"labels of {key!r:.40} must be a list of {len(kept)}.")
        known = {label: code for code, label in enumerate(self.points.own.public.classes.tolist())}
        try:
            codes = [-1 if label is None else known[label] for label in values]
        except (KeyError, TypeError):
            raise Refusal(422, f"labels of {key!r:.40} are not among the classes.") from None
        return np.array(codes, dtype=int)

    def _take(self, key: str, codes: np.ndarray) -> int:
        kept = self.kept.get(key)
        assert kept is not None
        rows = np.flatnonzero(codes >= 0)
        routed = kept.routed.take(rows)
        kept.watcher.update_coverage(routed.exit_index, kept.watcher.covered(routed, codes[rows]))
        self.kept.drop(key)
        return len(rows)

    def about(self) -> dict[str, Any]:
        """What is served."""
        own, schema = self.points.own, self.points.own.predictor.schema
        columns = schema.columns
        ready = [budget for budget in self.points.ready if budget is not None]
        return {
            "classes": own.public.classes.tolist(),
            "exits": self.exit_names,
            "exit_costs": own.public.exit_costs.tolist(),
            "least_budget": own.predictor.least_cost,
            "budgets": sorted(ready),
            "inputs": None if schema.input_names is None else list(schema.input_names),
            "sample_shapes": [list(shape) for shape in schema.sample_shapes],
            "columns": None
            if columns is None or columns.library is None
            else list(map(str, columns.names)),
            "has_sets": own.predictor.samples is not None,
            "takes_groups": own.predictor.rule.takes_groups,
            "max_samples": self.settings.max_samples,
            "max_bytes": self.settings.max_bytes,
        }


def _warnings_of(checked: Checked, routed: RoutedSamples) -> dict[str, list[str]]:
    """What a request's samples are warned of, if anything."""
    n_gaps = int(np.isnan(routed.probabilities[:, 0]).sum())
    if not n_gaps and not checked.warnings:
        return {}
    with collected_warnings() as found:
        warn_of_gaps(n_gaps, len(routed.exit_index))
    return {"warnings": [*checked.warnings, *found]}


def _update(point: ServedPoint) -> None:
    assert point.watched is not None
    watcher = point.watched.watcher
    was_raised = watcher.alarm
    point.watched.update()
    if watcher.alarm and not was_raised:
        logger.warning(
            "Samples are not like those that calibrated: after %s of them bets against that reached %.0f.",
            watcher.alarm_at,
            1 / watcher.alpha,
        )

"""Predictors at the budgets that requests ask for."""

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor

from .._numbers import is_number
from .._warn import warn_caller
from ..runtime import Predictor
from .refusals import Refusal
from .settings import Settings
from .watching import WatchedAnswers


class ServedPoint:
    """A predictor at an operating point, and what is watched there.

    Parameters
    ----------
    public : Predictor
    alpha : float
        Of its share of false alarms.
    settings : Settings
    """

    def __init__(self, public: Predictor, alpha: float, settings: Settings) -> None:
        self.public = public
        self.predictor = public._predictor
        self.watched: WatchedAnswers | None = None
        if settings.watch and self.predictor.samples is not None:
            watcher = public.watch(alpha=alpha, confidence_level=settings.confidence_level)
            self.watched = WatchedAnswers(watcher)


class ServedPoints:
    """The predictor's own operating point, and those of a few budgets, which stay.

    Gates of a new budget take their time, in a thread of their own. Half of the false alarms are left to the
    predictor's own point; the budgets share the other half.

    Parameters
    ----------
    predictor : Predictor
    settings : Settings
    """

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        self._settings, self._max_budgets = settings, settings.max_budgets
        share = settings.alpha / 2 if self._max_budgets else settings.alpha
        self.own = ServedPoint(predictor, share, settings)
        if settings.watch and self.own.watched is None:
            warn_caller(
                "watch=True, but no sample calibrates (validation_fraction=0): nothing is watched."
            )
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="gates")
        self._of_budgets: dict[float, asyncio.Future[ServedPoint]] = {}

    @property
    def ready(self) -> dict[float | None, ServedPoint]:
        """Points by budget; None is the predictor's own."""
        points: dict[float | None, ServedPoint] = {None: self.own}
        for budget, future in self._of_budgets.items():
            if _has_succeeded(future):
                points[budget] = future.result()
        return points

    async def at(self, budget: object) -> ServedPoint:
        """The point of a budget.

        Raises
        ------
        Refusal
            If the budget makes no sense, or as many others are held as may be.
        """
        if budget is None:
            return self.own
        number = self._checked(budget)
        if number not in self._of_budgets:
            if len(self._of_budgets) >= self._max_budgets:
                raise Refusal(
                    422,
                    f"budget={number:g} would be one more than {self._max_budgets} budgets; ask for one of "
                    f"{sorted(self._of_budgets)}, or for none.",
                )
            loop = asyncio.get_running_loop()
            self._of_budgets[number] = loop.run_in_executor(self._executor, self._made, number)
        try:
            # Others may wait for the same.
            return await asyncio.shield(self._of_budgets[number])
        except Exception as error:
            self._of_budgets.pop(number, None)
            if isinstance(error, ValueError):
                raise Refusal(422, str(error)) from None
            raise

    def _checked(self, budget: object) -> float:
        if not is_number(budget) or not 0 < float(budget) < math.inf:  # type: ignore[arg-type]
            raise Refusal(422, f"budget={budget!r:.40} is not allowed; give a number above 0.")
        return float(budget)  # type: ignore[arg-type]

    def _made(self, budget: float) -> ServedPoint:
        share = self._settings.alpha / 2 / self._max_budgets
        return ServedPoint(self.own.public.at(budget=budget), share, self._settings)


def _has_succeeded(future: "asyncio.Future[ServedPoint]") -> bool:
    return future.done() and not future.cancelled() and future.exception() is None

"""Requests that are waiting are answered together, in one call of the predictor."""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from .._conformal.groups import RoutedSamples
from .._predictor import AnsweredSamples, Predictor
from .._schema import Arrays
from .._warn import collected_warnings
from .refusals import Refusal


class Job(NamedTuple):
    """Checked samples of one request, and where its answer is awaited."""

    predictor: Predictor
    arrays: Arrays
    groups: np.ndarray  # (n_samples,)
    future: "asyncio.Future[AnsweredSamples]"

    def __len__(self) -> int:
        return len(self.groups)

    def goes_with(self, other: "Job") -> bool:
        """Whether one call can answer both: the same operating point, and samples of one shape."""
        return self.predictor is other.predictor and all(
            own.shape[1:] == its.shape[1:] for own, its in zip(self.arrays, other.arrays)
        )


class Batcher:
    """Answers requests in one thread; those that wait meanwhile are answered together.

    A lone request does not wait, unless ``max_wait_ms`` says so.

    Parameters
    ----------
    max_batch : int
        Samples of a call. A request of more is divided.
    max_wait_ms : float
        How long a call waits for ``max_batch`` samples.
    max_queue : int
        Samples that may wait.
    """

    def __init__(self, *, max_batch: int, max_wait_ms: float, max_queue: int) -> None:
        self.max_batch, self.max_queue = max_batch, max_queue
        self._wait = max_wait_ms / 1000
        self._jobs: deque[Job] = deque()
        self._draining: asyncio.Task[None] | None = None
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="predictor")
        self.n_queued = 0
        self.batch_sizes: dict[int, int] = {}

    async def answer(
        self, predictor: Predictor, arrays: Arrays, groups: np.ndarray
    ) -> AnsweredSamples:
        """Answers for samples.

        Raises
        ------
        Refusal
            If too many samples wait.
        """
        n_samples = len(groups)
        if self.n_queued and self.n_queued + n_samples > self.max_queue:
            raise Refusal(
                503, f"{self.n_queued} samples are waiting already; come again.", retry_after=1
            )
        pieces = [slice(i, i + self.max_batch) for i in range(0, n_samples, self.max_batch)]
        loop = asyncio.get_running_loop()
        jobs = [
            Job(predictor, tuple(a[rows] for a in arrays), groups[rows], loop.create_future())
            for rows in pieces
        ]
        self._jobs.extend(jobs)
        self.n_queued += n_samples
        if self._draining is None:
            self._draining = loop.create_task(self._drain())
        if len(jobs) == 1:
            return await jobs[0].future
        return _joined(await asyncio.gather(*(job.future for job in jobs)))

    async def _drain(self) -> None:
        """Answer all that waits."""
        loop = asyncio.get_running_loop()
        try:
            while self._jobs:
                if self._wait and self.n_queued < self.max_batch:
                    await asyncio.sleep(self._wait)
                jobs = self._next_jobs()
                answers = await loop.run_in_executor(self.executor, _answers, jobs)
                for job, answer in zip(jobs, answers, strict=True):
                    _hand_out(job, answer)
        finally:
            self._draining = None

    def _next_jobs(self) -> list[Job]:
        """The first job that waits, and all that go with it, up to the size of a batch."""
        first = self._jobs.popleft()
        taken, n_samples, others = [first], len(first), []
        for job in self._jobs:
            if n_samples + len(job) <= self.max_batch and job.goes_with(first):
                taken.append(job)
                n_samples += len(job)
            else:
                others.append(job)
        self._jobs = deque(others)
        self.n_queued -= n_samples
        self.batch_sizes[n_samples] = self.batch_sizes.get(n_samples, 0) + 1
        return taken

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and nothing is being answered."""
        return self._draining is None


def _hand_out(job: Job, answer: AnsweredSamples | Exception) -> None:
    if job.future.done():
        return
    if isinstance(answer, Exception):
        job.future.set_exception(answer)
    else:
        job.future.set_result(answer)


def _answers(jobs: Sequence[Job]) -> list[AnsweredSamples | Exception]:
    """Answers of jobs that go with each other; where that fails, each for itself, since one may be to blame."""
    try:
        return list(_together(jobs))
    except Exception as error:
        if len(jobs) == 1:
            return [error]
        return [answer for job in jobs for answer in _answers([job])]


def _together(jobs: Sequence[Job]) -> list[AnsweredSamples]:
    first = jobs[0]
    if len(jobs) == 1:
        arrays, groups = first.arrays, first.groups
    else:
        arrays = tuple(np.concatenate(of_input) for of_input in zip(*(job.arrays for job in jobs)))
        groups = np.concatenate([job.groups for job in jobs])
    # Which request they are of is told there.
    with collected_warnings(), first.predictor.schema.explaining(arrays):
        answered = first.predictor.answers(arrays, groups)
    ends = np.cumsum([len(job) for job in jobs]).tolist()
    return [
        AnsweredSamples(answered.labels[rows], answered.routed.take(rows))
        for rows in map(slice, [0, *ends[:-1]], ends)
    ]


def _joined(answers: Sequence[AnsweredSamples]) -> AnsweredSamples:
    columns = zip(*(answer.routed for answer in answers))
    return AnsweredSamples(
        np.concatenate([answer.labels for answer in answers]),
        RoutedSamples(*map(np.concatenate, columns)),
    )

"""Parts of the samples, disjoint and disjoint from what was learned before (NumPy only)."""

from dataclasses import dataclass

import numpy as np

from ._history import CALIBRATION, GATES, NEW, SampleHistory
from ._schema import Samples
from ._splits import deal_folds, halve, hold_out, hold_out_calibration, keep_parts

# What is known of held-out samples: the user gives them; they are known to be new to all networks; nothing is known;
# networks have learned from them.
GIVEN, UNSEEN, UNKNOWN, SEEN = "given", "unseen", "unknown", "seen"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Samples that train, samples that set the gates, samples that calibrate.

    Parameters
    ----------
    train, gates, calibration : Samples
    history : SampleHistory
        Of this fit and those before it.
    held_out : {"given", "unseen", "unknown", "seen"}
        What is known of the last two.
    n_used : int, default=0
        How many of the samples that a user gives as held out are among those that train, if more than chance explains.
    n_known : int or None, default=None
        How many samples an earlier fit knew; None without one.
    folds : ndarray of int (n_train,) or None, default=None
        Fold in which each sample that trains also sets the gates, as members that did not learn from the fold answer
        it; -1 if in none. Then no further samples set the gates. None without folds.
    """

    train: Samples
    gates: Samples
    calibration: Samples
    history: SampleHistory
    held_out: str
    n_used: int = 0
    n_known: int | None = None
    folds: np.ndarray | None = None

    @property
    def n_folds(self) -> int:
        """Number of folds, 0 without."""
        return 0 if self.folds is None else int(self.folds.max()) + 1

    @property
    def fewest_train(self) -> int:
        """Fewest samples of a training: without the largest fold, if there are folds."""
        if self.folds is None:
            return len(self.train)
        return len(self.train) - int(np.bincount(self.folds[self.folds >= 0]).max())


def held_out_parts(
    samples: Samples,
    hashes: np.ndarray,
    earlier: SampleHistory | None,
    fraction: float,
    rng: np.random.RandomState,
) -> Parts:
    """Hold some samples out: those that were held out before, and some of the new ones."""
    split, held_out, n_known = None, UNKNOWN, None
    if earlier is not None:
        known = earlier.parts_of(hashes)
        n_known = int((known != NEW).sum())
        split = keep_parts(known, samples.codes, fraction, rng)
        held_out = SEEN if split is None else UNSEEN if earlier.complete else UNKNOWN
    if split is None:
        split = hold_out(samples.codes, fraction, rng)
    if not len(split[0]):
        raise ValueError(
            f"all {len(samples)} samples of X were held out in an earlier fit, so that none is left to train; give "
            f"further samples, or start anew (warm_start=False, an untrained module)."
        )
    train, gates, calibration = (samples.take(rows) for rows in split)
    return Parts(
        train=train,
        gates=gates,
        calibration=calibration,
        history=_history_of([hashes[rows] for rows in split], earlier),
        held_out=held_out,
        n_known=n_known,
    )


def folded_parts(
    samples: Samples,
    hashes: np.ndarray,
    earlier: SampleHistory | None,
    fraction: float,
    n_folds: int,
    rng: np.random.RandomState,
) -> Parts:
    """Hold samples out to calibrate alone; all others train, and are dealt out to folds.

    Raises
    ------
    ValueError
        If networks come trained on some of the samples, which so are in no fold out of which they were left.
    """
    n_known = None if earlier is None else int((earlier.parts_of(hashes) != NEW).sum())
    if n_known:
        raise ValueError(
            f"cv={n_folds} needs networks that have learned from no sample of X, but an earlier fit knew {n_known} of "
            f"{len(samples)}; give untrained members, or cv=None."
        )
    train, calibration = hold_out_calibration(len(samples), fraction, n_folds, rng)
    codes = samples.codes[train]
    nothing = samples.take(train[:0])
    return Parts(
        train=samples.take(train),
        gates=nothing,
        calibration=samples.take(calibration),
        history=_history_of([hashes[train], hashes[:0], hashes[calibration]], earlier),
        held_out=UNSEEN if earlier is not None and earlier.complete else UNKNOWN,
        n_known=n_known,
        folds=deal_folds(codes, n_folds, rng),
    )


def given_parts(
    samples: Samples,
    hashes: np.ndarray,
    others: Samples,
    others_hashes: np.ndarray,
    earlier: SampleHistory | None,
    rng: np.random.RandomState,
) -> Parts:
    """Halve the held-out samples that a user gives, those that were halved before as before."""
    halves = halve_as_before(others_hashes, earlier, rng)
    parts = [hashes, *(others_hashes[rows] for rows in halves)]
    trained = _history_of([hashes], earlier)
    return Parts(
        train=samples,
        gates=others.take(halves[0]),
        calibration=others.take(halves[1]),
        history=_history_of(parts, earlier),
        held_out=GIVEN,
        n_used=trained.count_used(others_hashes),
    )


def halve_as_before(
    hashes: np.ndarray, earlier: SampleHistory | None, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Samples that set the gates, samples that calibrate: those that set them before do so again."""
    if earlier is None:
        return halve(len(hashes), rng)
    parts = earlier.parts_of(hashes)
    others = np.flatnonzero((parts != GATES) & (parts != CALIBRATION))
    if len(others) > 1:
        for part, rows in zip((GATES, CALIBRATION), halve(len(others), rng), strict=True):
            parts[others[rows]] = part
    gates, calibration = (np.flatnonzero(parts == part) for part in (GATES, CALIBRATION))
    return (gates, calibration) if len(gates) and len(calibration) else halve(len(hashes), rng)


def _history_of(parts: list[np.ndarray], earlier: SampleHistory | None) -> SampleHistory:
    complete = earlier is None or earlier.complete
    return SampleHistory.of(parts, complete).after(earlier)

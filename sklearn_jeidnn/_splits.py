"""Which samples train, which set the gates, which calibrate, and folds of those that do both first (NumPy only)."""

import numpy as np

FEWEST_ROWS = 4


def hold_out(
    y: np.ndarray, fraction: float, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split samples three ways: those that train, those that set the gates, those that calibrate.

    Half of the held-out samples calibrate. They are drawn first and at random from all samples, so
    that they are exchangeable with new ones, as the guarantee of prediction sets needs. The other
    half is drawn evenly over the classes, and takes the last sample of one only if others are too few.

    Parameters
    ----------
    y : ndarray of int (n_samples,)
        Class codes.
    fraction : float
        Share of the samples held out.
    rng : numpy.random.RandomState

    Returns
    -------
    train, gate, calibration : ndarray of int
        Sample numbers.

    Raises
    ------
    ValueError
        If there are too few samples.
    """
    if len(y) < FEWEST_ROWS:
        raise ValueError(
            f"X has n_samples = {len(y)}; at least {FEWEST_ROWS} are needed, to hold out one row for the "
            f"gates and one for calibration. Give more rows."
        )
    n_held_out = _count_held_out(len(y), fraction)
    calibration, rest = np.split(rng.permutation(len(y)), [n_held_out // 2])
    gate = rest[_spread_over_classes(y[rest], n_held_out - len(calibration))]
    return np.setdiff1d(rest, gate), np.sort(gate), np.sort(calibration)


def _count_held_out(n_samples: int, fraction: float) -> int:
    return min(max(2, round(fraction * n_samples)), n_samples - 2)


def hold_out_calibration(
    n_samples: int, fraction: float, n_folds: int, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Split samples two ways: those that train and set the gates, and those that calibrate.

    The latter are those that :func:`hold_out` draws for it; none if the fraction is 0.

    Returns
    -------
    train, calibration : ndarray of int
        Sample numbers.

    Raises
    ------
    ValueError
        If fewer samples train than there are folds.
    """
    n_calibration = _count_held_out(max(n_samples, FEWEST_ROWS), fraction) // 2 if fraction else 0
    if n_samples - n_calibration < n_folds:
        raise ValueError(
            f"cv={n_folds} needs a sample for each fold beside {n_calibration} that calibrate, but X has n_samples = "
            f"{n_samples}. Give more samples, fewer folds, or cv=None."
        )
    calibration, train = np.split(rng.permutation(n_samples), [n_calibration])
    return np.sort(train), np.sort(calibration)


def deal_folds(y: np.ndarray, n_folds: int, rng: np.random.RandomState) -> np.ndarray:
    """Deal samples out to folds of nearly equal size, each class as evenly as can be: fold of each sample (n_samples,).

    The only sample of its class is in no fold (-1): a network that has not seen its class has no answer to judge.
    """
    dealt = rng.permutation(np.flatnonzero(np.bincount(y)[y] > 1))
    if len(dealt) < n_folds:
        raise ValueError(
            f"cv={n_folds} needs a sample for each fold, but only {len(dealt)} of the samples of X that train have "
            f"another of their class. Give more samples, fewer folds, or cv=None."
        )
    folds = np.full(len(y), -1)
    folds[dealt[np.argsort(y[dealt], kind="stable")]] = np.arange(len(dealt)) % n_folds
    return folds


def halve(n_samples: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Split held-out samples at random into two halves: gates, calibration."""
    if n_samples < 2:
        raise ValueError(
            f"X_val has n_samples = {n_samples}; at least 2 are needed, one for the gates and one for "
            f"calibration."
        )
    calibration, gate = np.split(rng.permutation(n_samples), [n_samples // 2])
    return np.sort(gate), np.sort(calibration)


def keep_parts(
    parts: np.ndarray, y: np.ndarray, fraction: float, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Split samples three ways as :func:`hold_out`, those that were split before as before.

    Parameters
    ----------
    parts : ndarray of int (n_samples,)
        0, 1, 2 for samples that trained, set the gates, calibrated; -1 for new ones.
    y, fraction, rng
        As in :func:`hold_out`.

    Returns
    -------
    train, gate, calibration : ndarray of int
        None if none would set the gates or none would calibrate.
    """
    parts, new = parts.copy(), np.flatnonzero(parts < 0)
    parts[new] = 0
    if len(new) >= FEWEST_ROWS:
        for part, rows in enumerate(hold_out(y[new], fraction, rng)):
            parts[new[rows]] = part
    train, gate, calibration = (np.flatnonzero(parts == part) for part in range(3))
    if not len(gate) and len(calibration) > 1:
        # Gates were set on folds. No network has seen the samples that calibrated: half of them set the gates now.
        gate, calibration = (calibration[half] for half in halve(len(calibration), rng))
    return (train, gate, calibration) if len(gate) and len(calibration) else None


def _spread_over_classes(y: np.ndarray, n_chosen: int) -> np.ndarray:
    """Positions of ``n_chosen`` samples at even steps through the samples ordered by class."""
    by_class = np.argsort(y, kind="stable")
    is_last_of_class = np.append(np.diff(y[by_class]) != 0, True)
    spare = by_class[~is_last_of_class]
    spare = spare if len(spare) >= n_chosen else by_class
    steps = (np.arange(n_chosen) + 0.5) * len(spare) / n_chosen
    chosen: np.ndarray = spare[steps.astype(int)]
    return chosen

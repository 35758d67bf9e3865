"""Which samples train, which set the gates, which calibrate: three disjoint parts (NumPy only)."""

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
    n_held_out = min(max(2, round(fraction * len(y))), len(y) - 2)
    calibration, rest = np.split(rng.permutation(len(y)), [n_held_out // 2])
    gate = rest[_spread_over_classes(y[rest], n_held_out - len(calibration))]
    return np.setdiff1d(rest, gate), np.sort(gate), np.sort(calibration)


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

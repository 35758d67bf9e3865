"""Random numbers of samples, from their values alone (NumPy only)."""

from collections.abc import Sequence

import numpy as np

from .blocks import blocks


def row_uniform(arrays: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Compute a number in [0, 1) for each sample from its values and the seed alone.

    A sample therefore gets the same set in every batch. The number is part of the score, a fixed
    function of the sample, so exchangeable samples stay exchangeable. Multilinear hashing, whose
    numbers are uniform and pairwise independent over seeds: Lemire, Kaser, "Strongly Universal
    String Hashing is Fast", The Computer Journal 2014.

    Parameters
    ----------
    arrays : sequence of ndarray (n_samples, ...)
        Of numbers of 4 or 8 bytes, or of booleans.
    seed : int

    Returns
    -------
    ndarray (n_samples,)
    """
    words = [_words(array) for array in arrays]
    n_words = sum(own.shape[1] for own in words)
    offset, *factors = np.random.default_rng(seed).integers(
        2**64, size=n_words + 1, dtype=np.uint64
    )
    hashed = np.full(len(arrays[0]), offset)
    for block in blocks(len(hashed)):
        own = np.concatenate([part[block] for part in words], axis=1)
        # Wraps around at 2 ** 64, as it should.
        hashed[block] += own.astype(np.uint64) @ np.array(factors, dtype=np.uint64)
    return (hashed >> np.uint64(32)) / 2.0**32


def _words(array: np.ndarray) -> np.ndarray:
    """Bits of the samples' numbers: uint32 (n_samples, n_words)."""
    array = array.astype(np.int32) if array.dtype.kind == "b" else array
    # Adding 0 turns -0.0, which equals 0.0, into the same bits.
    return np.ascontiguousarray(array + array.dtype.type(0)).reshape(len(array), -1).view(np.uint32)

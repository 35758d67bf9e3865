"""Which samples networks have learned from, and which were held out: told by hashes of the samples (NumPy only)."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from ._schema import Arrays, iter_chunks

# What a sample was used for; one that was learned from and held out, in two fits, counts as learned from.
TRAIN, GATES, CALIBRATION = 0, 1, 2
NEW = -1
# Chance that samples of tables with few distinct rows are taken for others because they are equal.
FALSE_ALARM = 1e-6


def sample_hashes(inputs: Arrays, codes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """64 bits that tell a sample with its label from others: uint64 (n_samples,).

    Whether a lone array comes as integers or as floats makes no difference.
    """
    return labelled_hashes(input_hashes(inputs), codes, classes)


def labelled_hashes(
    hashes: np.ndarray, codes: np.ndarray | None, classes: np.ndarray
) -> np.ndarray:
    """What :func:`sample_hashes` are, from :func:`input_hashes`: uint64 (n_samples,).

    Without ``codes`` those of each label: (n_samples, n_classes).
    """
    of_labels = _label_hashes(classes)
    labelled: np.ndarray = (
        hashes[:, None] ^ of_labels if codes is None else hashes ^ of_labels[codes]
    )
    return labelled


def input_hashes(inputs: Arrays) -> np.ndarray:
    """64 bits that tell a sample, encoded or not, from others: uint64 (n_samples,)."""
    digests = []
    for chunk in iter_chunks(inputs, 1):
        # Adding 0 turns -0.0, which equals 0.0, into the same bits.
        numbers = (chunk[0].astype(np.float32) + np.float32(0),) if len(chunk) == 1 else chunk
        rows = np.concatenate([_bytes(array) for array in numbers], axis=1)
        digests += [blake2b(row, digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(digests), np.uint64)


def _bytes(array: np.ndarray) -> np.ndarray:
    """Bytes of each sample: uint8 (n_samples, n_bytes)."""
    return np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)


def _label_hashes(classes: np.ndarray) -> np.ndarray:
    return np.array([zlib.crc32(str(label).encode()) for label in classes.tolist()], np.uint64)


@dataclass(frozen=True, kw_only=True)
class SampleHistory:
    """What samples were used for.

    Parameters
    ----------
    hashes : ndarray of uint64 (n_samples,)
    parts : ndarray of int8 (n_samples,)
        TRAIN, GATES or CALIBRATION.
    complete : bool
        Whether the networks have learned from no other samples.
    """

    hashes: np.ndarray
    parts: np.ndarray
    complete: bool

    @classmethod
    def of(cls, parts: Sequence[np.ndarray], complete: bool) -> "SampleHistory":
        """The history of a fit, from the hashes of the samples that train, set the gates and calibrate."""
        numbers = [np.full(len(part), number, np.int8) for number, part in enumerate(parts)]
        return cls(hashes=np.concatenate(parts), parts=np.concatenate(numbers), complete=complete)

    def after(self, earlier: "SampleHistory | None") -> "SampleHistory":
        """This history, with what was learned in earlier fits."""
        return self if earlier is None else joined([self, earlier])

    def with_gaps(self) -> "SampleHistory":
        """The same, if networks may have learned from other samples, too."""
        return replace(self, complete=False)

    def parts_of(self, hashes: np.ndarray) -> np.ndarray:
        """Part of each sample, NEW if it has none: int8 (n_samples,).

        Of equal samples as many belong to each part as belonged to it before. Where no more samples are known than
        chance explains, all are new: on tables of few distinct rows others are equal, too.
        """
        same = np.array_equal(np.sort(hashes), np.sort(self.hashes))
        if not same and not self._is_more_than_chance(np.isin(hashes, self.hashes)):
            return np.full(len(hashes), NEW, np.int8)
        order = np.lexsort((self.parts, self.hashes))
        known, parts = self.hashes[order], self.parts[order]
        first, end = (np.searchsorted(known, hashes, side) for side in ("left", "right"))
        position = np.minimum(first + _ranks(hashes), end - 1)
        return np.where(first < end, parts[position], NEW).astype(np.int8)

    def count_used(self, hashes: np.ndarray, parts: Iterable[int] = (TRAIN,)) -> int:
        """How many samples were used for these parts; 0 if they are no more than chance explains.

        Hashes are (n_samples,), or (n_samples, n_classes) for samples of which any label would do.
        """
        own = self.hashes[np.isin(self.parts, list(parts))]
        used: np.ndarray = np.isin(hashes, own).reshape(len(hashes), -1).max(axis=1)
        return int(used.sum()) if self._is_more_than_chance(used) else 0

    def _is_more_than_chance(self, known: np.ndarray) -> bool:
        """Whether so many samples are known that equal ones in the population do not explain it."""
        if not known.any():
            return False
        _, counts = np.unique(self.hashes, return_counts=True)
        n_samples = len(self.hashes)
        twins = counts[counts > 1].sum() / n_samples
        twins += 4 * np.sqrt(twins * (1 - twins) / n_samples) + 4 / n_samples
        share = known.mean()
        if share <= twins:
            return False
        surprise = len(known) * _relative_entropy(share, min(twins, 1.0))
        return bool(surprise > -np.log(FALSE_ALARM))


def _ranks(values: np.ndarray) -> np.ndarray:
    """How many equal values come before each: (n,)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ranks = np.empty(len(values), dtype=int)
    ranks[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return ranks


def _relative_entropy(share: float, expected: float) -> float:
    """Of two coins; times the number of throws it bounds minus the logarithm of the chance of such a share."""
    terms = [(share, expected), (1 - share, 1 - expected)]
    return float(sum(p * np.log(p / q) for p, q in terms if p > 0))


def joined(histories: Sequence[SampleHistory]) -> SampleHistory:
    """All histories in one; a sample of several parts has been learned from if that is one of them."""
    if len(histories) == 1:
        return histories[0]
    hashes, parts, ranks = [], [], []
    for history in histories:
        order = np.lexsort((history.parts, history.hashes))
        hashes.append(history.hashes[order])
        parts.append(history.parts[order])
        ranks.append(_ranks(history.hashes[order]))
    columns: Any = [np.concatenate(column) for column in (parts, ranks, hashes)]
    order = np.lexsort(columns)
    part, rank, hashed = (column[order] for column in columns)
    is_first = np.append(True, (np.diff(rank) != 0) | (hashed[1:] != hashed[:-1]))
    return SampleHistory(
        hashes=hashed[is_first],
        parts=part[is_first],
        complete=all(history.complete for history in histories),
    )

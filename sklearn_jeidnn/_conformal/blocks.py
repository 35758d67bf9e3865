"""Blocks of samples, so that memory stays bounded."""

# Samples whose scores are held in memory at once.
ROWS_AT_ONCE = 2**13


def blocks(n_samples: int) -> list[slice]:
    """Slices of at most ``ROWS_AT_ONCE`` samples."""
    return [slice(start, start + ROWS_AT_ONCE) for start in range(0, n_samples, ROWS_AT_ONCE)]

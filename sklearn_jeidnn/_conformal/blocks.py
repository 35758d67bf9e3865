"""Blocks of samples, so that memory stays bounded."""

# Samples whose scores are held in memory at once.
ROWS_AT_ONCE = 2**13


def blocks(n_samples: int, at_once: int = ROWS_AT_ONCE) -> list[slice]:
    """Slices of at most ``at_once`` samples."""
    return [slice(start, start + at_once) for start in range(0, n_samples, at_once)]

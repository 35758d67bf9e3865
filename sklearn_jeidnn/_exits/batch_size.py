"""How many samples are in a batch."""

FEWEST_ROWS = 64
# Stages run a large batch in parts, so it may have so many samples that the fixed cost of an exit
# no longer counts.
MOST_DIVIDED_ROWS = 4096
# Numbers between two stages that a core's cache holds (measured on image networks).
CACHED_NUMBERS = 2**20
# More than there can be; torch adds to a batch size, so not the largest integer.
ALL_SAMPLES = 2**48


def as_batch_size(given: int | None, fastest: int) -> int:
    """Number of samples in a batch: what a user gives; None takes the fastest, -1 all samples."""
    if given is None:
        return fastest
    return ALL_SAMPLES if given == -1 else given


def rows_in_cache(widest: int, n_threads: int, most: int = MOST_DIVIDED_ROWS) -> int:
    """Batch size that runs fastest on a CPU.

    Parameters
    ----------
    widest : int
        Most numbers of a sample that enter a stage, or are its logits.
    n_threads : int
    most : int, default=MOST_DIVIDED_ROWS
    """
    return min(most, max(FEWEST_ROWS, CACHED_NUMBERS * n_threads // widest))

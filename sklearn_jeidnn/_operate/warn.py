"""Warn of samples without an answer."""

from .._warn import warn_caller

# What follows for samples that are predicted, that calibrate, and that every exit answers.
OF_PREDICTION = (
    "their probabilities are uniform, their sets hold all labels, and their label is that of the last exit with an "
    "answer. Look for a division by 0, the logarithm of 0 or an overflow in the module's forward."
)
OF_CALIBRATION = "if they leave at an exit without an answer, their score counts as infinite, which makes sets larger."
OF_EVERY_EXIT = "they count as errors of the exits without an answer."


def warn_of_gaps(
    n_gaps: int, n_samples: int, what: str = "samples", so: str = OF_PREDICTION
) -> None:
    """Warn of samples for which an exit has no answer, if there are any.

    Parameters
    ----------
    n_gaps, n_samples : int
        Samples without an answer, and all samples.
    what : str, default="samples"
        What they are called.
    so : str
        What follows from it.
    """
    if n_gaps:
        warn_caller(
            f"{n_gaps} of {n_samples} {what} are answered with NaN or infinity by module (or a companion): {so}"
        )

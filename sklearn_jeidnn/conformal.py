"""Split-conformal prediction sets (NumPy only).

Scores are computed on calibration samples that trained and chose nothing. They are kept, so that
any confidence level can be asked for later. A score is a function of one sample and one label;
larger is worse.
"""

from ._conformal.groups import (
    GROUPS,
    RoutedSamples,
    by_class,
    by_exit,
    by_exit_and_class,
    by_own_groups,
    pooled,
)
from ._conformal.quantiles import (
    group_quantiles,
    least_calibration_size,
    prediction_sets,
    score_quantile,
    true_label_values,
)
from ._conformal.random_numbers import row_uniform
from ._conformal.scores import (
    RANDOMIZED,
    SCORES,
    Score,
    aps_scores,
    lac_scores,
    raps_scores,
    smallest_raps,
)
from ._conformal.sets import ConformalSets

__all__ = [
    "GROUPS",
    "RANDOMIZED",
    "SCORES",
    "ConformalSets",
    "RoutedSamples",
    "Score",
    "aps_scores",
    "by_class",
    "by_exit",
    "by_exit_and_class",
    "by_own_groups",
    "group_quantiles",
    "lac_scores",
    "least_calibration_size",
    "pooled",
    "prediction_sets",
    "raps_scores",
    "row_uniform",
    "score_quantile",
    "smallest_raps",
    "true_label_values",
]

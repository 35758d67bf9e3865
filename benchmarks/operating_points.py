"""Operating points measured on answers that were computed once, rather than by a pass for each."""

import numpy as np
import torch

from sklearn_jeidnn._exits.policy import exits_taken
from sklearn_jeidnn.metrics import mean_cost


def exits_at(clf, answers):
    """Exit that each row takes at the classifier's operating point: (n_samples,)

    ``answers`` are what ``exit_answers`` of it, or of the same classifier at another point, returned.
    """
    with torch.no_grad():
        gate_probs = clf.network_.gates(torch.as_tensor(answers.gate_inputs)).numpy()
    return exits_taken(gate_probs, clf.network_.exit_mass)


def accuracy_and_cost(clf, answers):
    """As ``score`` and ``mean_cost``."""
    exits = exits_at(clf, answers)
    errors = answers.errors[np.arange(len(exits)), exits]
    return 1 - float(errors.mean()), mean_cost(exits, clf.exit_costs_)

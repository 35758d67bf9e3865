"""How do gates that descend the objective compare with the paper's bi-level training?

Letter, no companions, one backbone training for all; the paper's way with each of its three gate losses, its
exit distribution and linear heads, and the default.
"""

import tempfile

import claims
import datasets
import records
from claims import Claim, Claims

from sklearn_jeidnn import EarlyExitClassifier

SEED = 0
EPOCHS = 15
PAPER = {"gate_training": "bilevel", "exit_distribution": "direct", "head": "linear"}
RECIPES = {
    "default": {},
    "paper, cross_entropy": {**PAPER, "gate_loss": "cross_entropy"},
    "paper, zero_one": {**PAPER, "gate_loss": "zero_one"},
    "paper, minus_true_probability": {**PAPER, "gate_loss": "minus_true_probability"},
}


def load():
    return datasets.load("letter")


def run(epochs, memory):
    split = load()
    rows = []
    for recipe, params in RECIPES.items():
        for cost_weight in (0.03, 0.1, 0.3):
            clf = EarlyExitClassifier(
                companion=None,
                cost_weight=cost_weight,
                max_epochs=epochs,
                memory=memory,
                random_state=SEED,
                **params,
            )
            clf.fit(split.X_train, split.y_train)
            rows.append(
                {
                    "data": "letter",
                    "seed": SEED,
                    "max_epochs": epochs,
                    "recipe": recipe,
                    "cost_weight": cost_weight,
                    "accuracy": clf.score(split.X_test, split.y_test),
                    "mean_cost": clf.mean_cost(split.X_test),
                }
            )
            report(rows[-1])
    return rows


def report(row):
    print(
        f"{row['recipe']:32} cost_weight={row['cost_weight']:<5g} accuracy {row['accuracy']:.4f} "
        f"at cost {row['mean_cost']:.3f}",
        flush=True,
    )


def worth(rows, own):
    """Accuracy less 0.1 of the mean cost: the best of the default's cost weights, or of the paper's."""
    return max(
        row["accuracy"] - 0.1 * row["mean_cost"]
        for row in rows
        if (row["recipe"] == "default") == own
    )


def targets(rows):
    lead = worth(rows, own=True) - worth(rows, own=False)
    yield Claim("default's lead in accuracy - 0.1 cost, best of each", lead, ">", 0)


def regressions(rows):
    (row,) = (r for r in rows if (r["recipe"], r["cost_weight"]) == ("default", 0.1))
    lead = worth(rows, own=True) - worth(rows, own=False)
    yield Claim("default's lead in accuracy - 0.1 cost, best of each", lead, ">=", 0)
    yield Claim("default at 0.1: accuracy", row["accuracy"], ">=", 0.947)
    yield Claim("default at 0.1: mean cost", row["mean_cost"], "<=", 0.4)


CLAIMS = {"paper_recipe": Claims(targets, regressions)}


if __name__ == "__main__":
    quick = claims.parse(claims.parser(__doc__, quick="three epochs"), CLAIMS).quick
    with tempfile.TemporaryDirectory() as memory:
        rows = run(3 if quick else EPOCHS, memory)
    records.write("paper_recipe", rows, quick)
    claims.settle(CLAIMS, quick=quick)

"""What should a head read, and how many layers should it have? Images, tokens and a table, cost included.

Heads on a frozen trained backbone: the paper's linear layer on the mean, the default, and
alternatives to it. CIFAR-10 on the shared network, with the 10,000 training rows that it has not
seen held out; movie reviews on a small transformer and Letter on the ready tabular network, each
trained here first.
"""

import claims
import datasets
import numpy as np
import records
from claims import Claim, Claims
from torch import nn

from sklearn_jeidnn import EarlyExitClassifier

SEED = 0
HEAD_EPOCHS = {"cifar10": 10, "reviews": 10, "letter": 20}
# Accuracy of the default head's first exit: a point less than was measured, or chance on 2,133 rows.
LEAST_FIRST = {"cifar10": 0.68, "reviews": 0.725, "letter": 0.947}


class OneLayer(nn.Module):
    """One normalised layer on the features that the default head reads."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(n_features), nn.Linear(n_features, n_classes))

    def forward(self, feature):
        return self.layers(feature)


class TwoLayers(nn.Module):
    """Two layers on them, without what the exit before thought."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(n_features),
            nn.Linear(n_features, 64),
            nn.ReLU(),
            nn.Linear(64, n_classes),
        )

    def forward(self, feature):
        return self.layers(feature)


DEFAULT = "pooled (default)"
HEADS = {
    "linear": "linear",
    DEFAULT: "pooled",
    "one layer": OneLayer,
    "two layers": TwoLayers,
}


def load(name):
    """(trained module, training rows, held-out rows, test rows)"""
    if name == "cifar10":
        return datasets.load_frozen_cifar10()
    if name == "reviews":
        split = datasets.load_movie_reviews()
        backbone = datasets.small_transformer(split.X_train)
        params = {"max_epochs": 3, "batch_size": 64, "lr": 1e-3}
    else:
        split = datasets.load(name)
        backbone, params = None, {"companion": None, "max_epochs": 20}
    train = (split.X_train, split.y_train)
    trained = EarlyExitClassifier(backbone, random_state=SEED, **params).fit(*train)
    return trained.module_, train, None, (split.X_test, split.y_test)


def run(name, quick):
    module, train, held_out, (X_test, y_test) = load(name)
    held_out = {} if held_out is None else dict(zip(("X_val", "y_val"), held_out, strict=True))
    for head_name, head in HEADS.items():
        clf = EarlyExitClassifier(
            module,
            freeze_backbone=True,
            head=head,
            max_epochs=1 if quick else HEAD_EPOCHS[name],
            random_state=SEED,
        ).fit(*train, **held_out)
        row = {
            "data": name,
            "seed": SEED,
            "n_test": len(y_test),
            "head": head_name,
            "accuracy": clf.score(X_test, y_test),
            "mean_cost": clf.mean_cost(X_test),
            "overhead": clf.exit_costs_[-1] - 1,
            "accuracy_of_exits": " ".join(f"{a:.4f}" for a in every_exit(clf, X_test, y_test)),
        }
        report(row)
        yield row


def every_exit(clf, X, y):
    """Accuracy of each exit taken by every row."""
    return 1 - clf.exit_answers(X, y).exit_errors()


def report(row):
    print(
        f"{row['data']:9}{row['head']:16}exits {row['accuracy_of_exits']}  all exits cost {row['overhead']:.3f}  "
        f"cost_weight=0.1: {row['accuracy']:.4f} at {row['mean_cost']:.3f}",
        flush=True,
    )


def first_exits(rows):
    """{(data, head): accuracy of the first exit}"""
    return {(r["data"], r["head"]): float(r["accuracy_of_exits"].split()[0]) for r in rows}


def targets(rows):
    """The default head is at the first exit as good as the paper's, up to two standard errors."""
    first, n_test = first_exits(rows), {row["data"]: row["n_test"] for row in rows}
    for data in n_test:
        linear = first[data, "linear"]
        chance = 2 * np.sqrt(2 * linear * (1 - linear) / n_test[data])
        name = f"{data}: accuracy of the first exit (bound: the paper's head - {chance:.4f})"
        yield Claim(name, first[data, DEFAULT], ">=", linear - chance)


def regressions(rows):
    first = first_exits(rows)
    for row in rows:
        if row["head"] == DEFAULT:
            data = row["data"]
            name = f"{data}: accuracy of the first exit"
            yield Claim(name, first[data, DEFAULT], ">=", LEAST_FIRST[data])
            yield Claim(f"{data}: all heads and gates cost", row["overhead"], "<=", 0.05)


CLAIMS = {"exit_heads": Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="one epoch of the heads")
    parser.add_argument("--data", nargs="+", default=list(HEAD_EPOCHS), choices=list(HEAD_EPOCHS))
    options = claims.parse(parser, CLAIMS)
    rows = [row for name in options.data for row in run(name, options.quick)]
    records.write("exit_heads", rows, options.quick)
    claims.settle(CLAIMS, quick=options.quick)

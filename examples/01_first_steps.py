"""Fit on scikit-learn's images of digits, and see what early exits save at three operating points."""

import pathlib
import statistics
import time

import matplotlib
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback
from tqdm import tqdm

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn.metrics import coverage, mean_set_size
from sklearn_jeidnn.plotting import AccuracyCostDisplay

FIGURE = pathlib.Path(__file__).resolve().parent.parent / "figures" / "first_steps.png"
COST_WEIGHTS = [0.0, 0.02, 0.2]
EPOCHS = 25


class Progress(Callback):
    """One step of the bar for each epoch."""

    def __init__(self, bar):
        self.bar = bar

    def on_epoch_end(self, net, **kwargs):
        self.bar.update()


def seconds(function, X):
    """Median time of several calls."""
    times = []
    for _ in range(15):
        start = time.perf_counter()
        function(X)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


X, y = load_digits(return_X_y=True)
X = X.reshape(-1, 8, 8)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
with tqdm(total=EPOCHS, desc="Fitting", unit="epoch") as bar:
    clf = EarlyExitClassifier(
        max_epochs=EPOCHS, module__width=16, callbacks=[Progress(bar)], random_state=0
    ).fit(X_train, y_train)
# One fit serves every operating point.
points = [clf.at(cost_weight=cost_weight) for cost_weight in COST_WEIGHTS]

rows = torch.as_tensor(X_test, dtype=torch.float32)
plain = clf.module_
with torch.no_grad():
    plain_accuracy = (plain(rows).argmax(1).numpy() == y_test).mean()
    plain_seconds = seconds(plain, rows)

print(
    f"\nDigits: {len(X_train)} images to fit, {len(X_test)} to test. Cost 1 is one pass of the plain backbone.\n"
)
print(f"{'':28}{'accuracy':>9}{'mean cost':>11}{'time':>7}{'coverage':>10}{'set size':>10}")
print(f"{'plain backbone':28}{plain_accuracy:9.1%}{1:11.2f}{1:7.2f}{'':>10}{'':>10}")
for weight, point in zip(COST_WEIGHTS, points, strict=True):
    accuracy, cost = point.score(X_test, y_test), point.mean_cost(X_test)
    sets = point.predict_set(X_test)
    relative = seconds(point.predict, X_test) / plain_seconds
    print(
        f"{f'early exits, cost_weight={weight:g}':28}{accuracy:9.1%}{cost:11.2f}{relative:7.2f}"
        f"{coverage(sets, y_test):10.1%}{mean_set_size(sets):10.2f}"
    )
print(
    "\nTime is that of predict on all test rows, the plain backbone's being 1. Coverage: how often the 90 % set"
)
print(
    f"holds the truth; sets are calibrated on {len(clf.conformity_scores_)} rows only, so a few points"
    " of scatter are chance."
)

matplotlib.use("Agg")
display = AccuracyCostDisplay.from_estimator(points[1], X_test, y_test)
FIGURE.parent.mkdir(exist_ok=True)
display.figure_.savefig(FIGURE, dpi=120, bbox_inches="tight")
print(f"Figure: {FIGURE}")

"""Companions: a small network, and a linear classifier, in front of a larger network."""

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn.metrics import exit_rates

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
small = (None, {"width": 32, "n_blocks": 1})  # the ready network, narrower
linear = make_pipeline(StandardScaler(), LogisticRegression())
members = {
    "the network alone": None,
    "a small network in front": [small, None],
    "logistic regression in front": [linear, None],
}
for name, module in members.items():
    # Logistic regression would be priced by its time; said here, so that every run prints the same.
    costs = [0.01] if name.startswith("logistic") else None
    clf = EarlyExitClassifier(
        module, companion=None, companion_costs=costs, cost_weight=0.02,
        max_epochs=10, random_state=0,
    )  # fmt: skip
    clf.fit(X_train, y_train)
    rates = exit_rates(clf.predict_exit(X_test), len(clf.exit_costs_))
    print(
        f"{name}: accuracy {clf.score(X_test, y_test):.3f} at {clf.mean_cost(X_test):.2f} of the cost"
    )
    print(
        "    left at",
        {exit: round(float(rate), 2) for exit, rate in zip([*clf.exits_, "the end"], rates)},
    )

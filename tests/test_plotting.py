import matplotlib
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_jeidnn._operate.frontier import COST_WEIGHT_GRID
from sklearn_jeidnn.plotting import (
    ORACLE,
    AccuracyCostDisplay,
    PredictionSetDisplay,
    ReliabilityDisplay,
)

from .conftest import quick_classifier

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_the_display_draws_what_the_estimator_does_on_the_given_axes(fitted, fresh_digits):
    import matplotlib.pyplot as plt

    X, y = fresh_digits
    ax = plt.subplots()[1]
    display = AccuracyCostDisplay.from_estimator(fitted, X, y, policies=["entropy"], ax=ax)
    assert display.ax_ is ax
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    for policy in ("learned", "entropy"):
        table = fitted.frontier(X, y, exit_policy=policy)
        assert np.array_equal(lines[policy], np.c_[table["mean_cost"], table["accuracy"]])
    assert lines["this estimator"].tolist() == [[fitted.mean_cost(X), fitted.score(X, y)]]
    with torch.no_grad():
        right = fitted.module_(torch.as_tensor(X)).argmax(1).numpy() == y
    assert lines["plain backbone"].tolist() == [[1, right.mean()]]
    costs, accuracies = lines["one exit for all rows"].T
    assert np.array_equal(costs, fitted.exit_costs_)
    last = fitted.network_(torch.as_tensor(X)).argmax(-1).numpy() == y[:, None]
    np.testing.assert_allclose(accuracies, last.mean(0))


def test_nobody_beats_the_oracle_at_its_cost(fitted, fresh_digits):
    display = AccuracyCostDisplay.from_estimator(fitted, *fresh_digits)
    table = display.frontiers[ORACLE]
    best = table["accuracy"] - np.array(COST_WEIGHT_GRID) * table["mean_cost"]
    for name, other in display.frontiers.items():
        gains = (
            other["accuracy"][:, None] - np.array(COST_WEIGHT_GRID) * other["mean_cost"][:, None]
        )
        assert (gains <= best + 1e-6).all(), name


def test_points_where_one_exit_does_as_well_are_hollow(fitted, fresh_digits):
    display = AccuracyCostDisplay.from_estimator(fitted, *fresh_digits, policies=[])
    learned = display.frontiers["learned"]
    one = np.arange(len(COST_WEIGHT_GRID)) % 3 == 0
    display.frontiers = {"learned": {**learned, "single_exit_suffices": one}}
    lines = display.plot().ax_.lines
    (hollow,) = (line for line in lines if line.get_label().endswith("does as well"))
    assert np.array_equal(hollow.get_xdata(), learned["mean_cost"][one])


def test_unknown_policies_are_refused(fitted, fresh_digits):
    with pytest.raises(ValueError, match="margins"):
        AccuracyCostDisplay.from_estimator(fitted, *fresh_digits, policies=["margins"])


def test_reliability_is_drawn_for_each_exit_that_rows_take(fitted, fresh_digits):
    X, y = fresh_digits
    display = ReliabilityDisplay.from_estimator(fitted, X, y, n_bins=5)
    n_samples = np.bincount(fitted.predict_exit(X))
    assert list(display.curves) == np.flatnonzero(n_samples >= 10).tolist()
    first = next(iter(display.curves))
    own = fitted.predict_exit(X) == first
    confidence, _ = display.curves[first]
    assert np.mean(confidence) == pytest.approx(
        fitted.predict_proba(X)[own].max(1).mean(), abs=0.01
    )
    assert len(display.ax_.lines) == 1 + len(display.curves)


def test_coverage_and_set_size_are_drawn_as_bars_of_exits(fitted, fresh_digits):
    X, y = fresh_digits
    display = PredictionSetDisplay.from_estimator(fitted, X, y, confidence_level=0.8)
    sets, taken = fitted.predict_set(X, confidence_level=0.8), fitted.predict_exit(X)
    heights = [[bar.get_height() for bar in ax.patches] for ax in display.axes_]
    exits = np.unique(taken)
    covered = sets[np.arange(len(y)), y]
    np.testing.assert_allclose(heights[0], [covered[taken == i].mean() for i in exits])
    np.testing.assert_allclose(heights[1], [sets[taken == i].sum(1).mean() for i in exits])


@pytest.mark.parametrize("build", [lambda p: p, lambda p: GridSearchCV(p, {}, cv=2)])
def test_displays_take_pipelines_searches_and_columns_of_labels(build, digits, fresh_digits):
    X, y = digits
    tiny = quick_classifier(max_epochs=1, module__width=16, module__n_blocks=2)
    piped = make_pipeline(StandardScaler(), tiny)
    estimator = build(piped).fit(X, y)
    display = AccuracyCostDisplay.from_estimator(estimator, *fresh_digits, policies=[])
    assert display.estimator_point[1] == estimator.score(*fresh_digits)
    ReliabilityDisplay.from_estimator(estimator, *fresh_digits)
    with pytest.warns(match="column-vector y"):
        PredictionSetDisplay.from_estimator(estimator, X, y[:, None])
    with pytest.raises(ValueError, match=r"y has labels \[11\] that are not among classes_"):
        ReliabilityDisplay.from_estimator(estimator, X, np.full(300, 11))

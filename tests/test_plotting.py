"""Displays show what was measured, where it was measured, and say no more than that."""

import builtins
import importlib
import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_jeidnn import EarlyExitClassifier, plotting
from sklearn_jeidnn._operate.frontier import COST_WEIGHT_GRID
from sklearn_jeidnn._plotting.frontiers import frontier_line, frontier_runs
from sklearn_jeidnn._plotting.intervals import (
    HIGHER,
    SAME,
    CostCurve,
    accuracy_in_words,
    paired_interval,
    wilson_errors,
)
from sklearn_jeidnn._plotting.reading_frontiers import ORACLE
from sklearn_jeidnn.plotting import (
    AccuracyCostDisplay,
    ExitExamplesDisplay,
    ExitRatesDisplay,
    PredictionSetDisplay,
    ReliabilityDisplay,
)

from .conftest import quick_classifier

matplotlib.use("Agg")
plt = importlib.import_module("matplotlib.pyplot")
DISPLAYS = [
    AccuracyCostDisplay,
    ExitExamplesDisplay,
    ExitRatesDisplay,
    PredictionSetDisplay,
    ReliabilityDisplay,
]
rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def line_of(ax, word):
    (line,) = (line for line in ax.lines if word in line.get_label())
    return line


def words_on(ax):
    return [text.get_text() for text in ax.texts]


def curve_of(costs, accuracies, half_width=0.01):
    costs, accuracies = np.array(costs, float), np.array(accuracies, float)
    return CostCurve(costs, accuracies, accuracies - half_width, accuracies + half_width)


# Accuracy over cost.


def test_points_are_what_the_estimator_does_to_these_samples(fitted, fresh_digits):
    X, y = fresh_digits
    ax = plt.subplots()[1]
    display = AccuracyCostDisplay.from_estimator(fitted, X, y, policies=["entropy"], ax=ax)
    assert display.ax_ is ax and display.figure_ is ax.figure
    for words, policy in (("learned gates", "learned"), ("threshold on entropy", "entropy")):
        table, curve = fitted.frontier(X, y, exit_policy=policy), display.curves[words]
        np.testing.assert_allclose(curve.mean_cost, table["mean_cost"])
        np.testing.assert_allclose(curve.accuracy, table["accuracy"])
        inside = (curve.low <= curve.accuracy) & (curve.accuracy <= curve.high)
        assert inside.mean() > 0.9
    point = display.operating_point
    assert point.mean_cost == fitted.mean_cost(X) and point.accuracy == fitted.score(X, y)
    assert display.backbone_accuracy == np.mean(fitted.predict_backbone(X) == y)
    answers = fitted.exit_answers(X, y)
    np.testing.assert_allclose(display.single_exits.accuracy, 1 - answers.exit_errors())
    np.testing.assert_allclose(display.single_exits.mean_cost, fitted.exit_costs_)


def test_the_estimators_curve_is_first_in_the_legend_and_on_top(fitted, fresh_digits):
    display = AccuracyCostDisplay.from_estimator(fitted, *fresh_digits, name="ours")
    assert legend_of(display.ax_)[0] == "ours: learned gates"
    assert display.ax_.lines[0] is display.line_
    others = [line_of(display.ax_, word) for word in ("on confidence", "margin", "patience")]
    assert display.line_.get_zorder() > max(line.get_zorder() for line in others)
    assert display.line_.get_linewidth() > max(line.get_linewidth() for line in others)


def test_curves_differ_in_colour_and_in_line_and_in_marker(fitted, fresh_digits):
    policies = ["confidence", "entropy", "margin", "patience", "margin_per_exit"]
    ax = AccuracyCostDisplay.from_estimator(fitted, *fresh_digits, policies=policies).ax_
    names = legend_of(ax)
    curves = [line for line in ax.lines if line.get_label() in names and line.get_linewidth() > 1]
    curves = [line for line in curves if line.get_linestyle() not in ("None", "")][:6]
    for look in ("get_color", "get_marker", "_get_dash_pattern"):
        looks = {
            str(line._dash_pattern if look.startswith("_") else getattr(line, look)())
            for line in curves
        }
        assert len(looks) == len(curves) == 6, look


def test_no_line_is_drawn_where_no_operating_point_is():
    costs, accuracies = [0.2, 0.25, 0.3, 0.8, 0.85, 1.0], [0.7, 0.8, 0.85, 0.9, 0.91, 0.92]
    display = AccuracyCostDisplay({"ours": curve_of(costs, accuracies)}, backbone_accuracy=0.92)
    drawn = display.plot().line_.get_xdata()
    segments = [
        (left, right)
        for left, right in itertools.pairwise(drawn)
        if np.isfinite(left) and np.isfinite(right)
    ]
    assert (0.2, 0.25) in segments and (0.8, 0.85) in segments
    assert max(right - left for left, right in segments) < 0.16
    assert not any(left <= 0.3 and right >= 0.8 for left, right in segments)
    ends = {0.2, 0.3, 0.8, 1.0}
    heights = dict(zip(drawn, display.line_.get_ydata(), strict=True))
    assert all(heights[cost] == accuracies[costs.index(cost)] for cost in ends)


@pytest.mark.parametrize("widest_gap", [0.02, 0.1, 2.0])
def test_the_line_never_falls_or_bends_upwards_and_no_point_is_above_it(widest_gap):
    costs = np.sort(rng.random(40)) + 0.05
    accuracies = 0.9 + 0.05 * np.log(costs) + 0.02 * rng.standard_normal(40)
    runs = frontier_runs(costs, accuracies, widest_gap, is_log=False)
    best = -np.inf
    for run, envelope in runs:
        x, y = costs[envelope], accuracies[envelope]
        slopes = np.diff(y) / np.diff(x)
        assert (slopes >= 0).all() and (np.diff(slopes) <= 1e-12).all()
        assert y[0] >= best and y[-1] == accuracies[run].max()
        assert np.diff(costs[run]).max(initial=0) <= widest_gap
        best = y[-1]
    assert best == accuracies.max() and runs[0][1][0] == 0
    line_x, line_y = frontier_line(costs, accuracies, runs)
    assert np.isnan(line_x).sum() == len(runs) - 1
    drawn = np.isfinite(line_x)
    for cost, accuracy in zip(costs, accuracies, strict=True):
        assert (accuracy <= line_y[drawn & (line_x == cost)] + 1e-12).all()


def test_points_that_cost_more_and_are_less_accurate_are_not_joined():
    def joined(costs, accuracies, widest_gap=1.0):
        runs = frontier_runs(np.array(costs), np.array(accuracies), widest_gap, is_log=False)
        return [envelope.tolist() for _, envelope in runs]

    assert joined([0.1, 0.2, 0.9], [0.9, 0.8, 0.85]) == [[0]]
    assert joined([0.1, 0.2, 0.3], [0.9, 0.8, 0.9]) == [[0, 2]]
    assert joined([0.1, 0.8, 0.9], [0.9, 0.8, 0.85], widest_gap=0.5) == [[0]]
    assert joined([0.1, 0.8, 0.9], [0.7, 0.8, 0.85], widest_gap=0.5) == [[0], [1, 2]]


def flags(n_right, n_samples):
    right = np.zeros(n_samples, dtype=bool)
    right[:n_right] = True
    return right


@pytest.mark.parametrize(
    ("n_right", "n_plain", "n_samples", "words"),
    [
        (4900, 4900, 5000, SAME),
        (4895, 4900, 5000, None),  # five lost, none gained: chance does not explain it
        (4897, 4900, 5000, SAME),
        (4950, 4900, 5000, HIGHER),
        (4700, 4900, 5000, None),
        (49, 49, 50, None),  # too few to exclude a loss of a point
        (46, 49, 50, None),
    ],
)
def test_accuracy_is_the_same_only_where_samples_show_it(n_right, n_plain, n_samples, words):
    assert accuracy_in_words(flags(n_right, n_samples), flags(n_plain, n_samples)) == words


def predictions(n_right, n_samples=5000):
    return np.where(flags(n_right, n_samples), 1, 0)


def drawn_from(n_right, cost, n_plain=4900):
    y_pred, y_backbone = predictions(n_right), predictions(n_plain)
    return AccuracyCostDisplay.from_predictions(
        np.ones(5000, dtype=int),
        {"ours": [(y_pred, cost), (predictions(4000), 0.05)]},
        y_backbone=y_backbone,
        operating_point=(y_pred, cost),
    )


def test_the_annotation_is_there_where_it_is_true_and_nowhere_else():
    display = drawn_from(4900, 0.06)
    assert display.in_words() == "same accuracy at 6\N{NO-BREAK SPACE}% of the cost"
    assert display.annotation_.get_text() in words_on(display.ax_)
    assert drawn_from(4950, 0.5).in_words().startswith("higher accuracy at 50")
    for n_right, cost in [(4700, 0.06), (4900, 1.0), (4900, 1.3)]:
        other = drawn_from(n_right, cost)
        assert other.annotation_ is None and not words_on(other.ax_)


def test_a_saving_of_time_is_called_time():
    display = drawn_from(4900, 0.06)
    display.unit = "time"
    assert display.plot().annotation_.get_text().endswith("of the time")
    assert "time" in display.ax_.get_xlabel()


def test_the_annotation_and_its_arrow_lie_over_all_points_and_under_no_legend():
    display = drawn_from(4900, 0.06)
    level = display.annotation_.get_position()[1]
    assert level > max(curve.high.max() for curve in display.curves.values())
    display.figure_.canvas.draw()
    box = display.ax_.get_legend().get_window_extent()
    assert not box.overlaps(display.annotation_.get_window_extent())
    assert not box.overlaps(display.ax_.get_window_extent())


def test_the_interval_of_a_difference_covers_it_and_is_not_empty_where_none_differ():
    right = rng.random((2000, 300)) < 0.9
    plain = right ^ (rng.random((2000, 300)) < 0.08)
    # True differences: of each pair, over the draws.
    true = right.mean() - plain.mean()
    covered = []
    for own, other in zip(right, plain, strict=True):
        low, high = paired_interval(own, other, 1.96)
        covered.append(low <= true <= high)
    assert 0.93 < np.mean(covered) < 0.98
    low, high = paired_interval(right[0], right[0], 1.96)
    assert low < -0.005 and high > 0.005


def test_hindsight_is_drawn_where_it_is_asked_for_only(fitted, fresh_digits):
    plain = AccuracyCostDisplay.from_estimator(fitted, *fresh_digits, policies=[])
    assert ORACLE not in plain.curves
    display = AccuracyCostDisplay.from_estimator(fitted, *fresh_digits, policies=[], oracle=True)
    assert ORACLE in legend_of(display.ax_)
    best = display.curves[ORACLE]
    best_objective = best.accuracy - np.array(COST_WEIGHT_GRID) * best.mean_cost
    for name, other in display.curves.items():
        weights = np.array(COST_WEIGHT_GRID)
        gains = other.accuracy[:, None] - weights * other.mean_cost[:, None]
        assert (gains <= best_objective + 1e-6).all(), name


def test_points_where_one_exit_does_as_well_are_hollow(fitted, fresh_digits):
    display = AccuracyCostDisplay.from_estimator(fitted, *fresh_digits, policies=[])
    one = np.arange(len(COST_WEIGHT_GRID)) % 3 == 0
    display.single_exit_suffices = one
    hollow = line_of(display.plot().ax_, "one exit for all does as well")
    curve = display.curves["learned gates"]
    assert np.array_equal(hollow.get_xdata(), curve.mean_cost[one])
    assert hollow.get_markerfacecolor() != hollow.get_color()


@pytest.mark.parametrize("policies", [["margins"], "entropy", [3]])
def test_unknown_policies_are_refused(fitted, fresh_digits, policies):
    with pytest.raises(ValueError, match="policies"):
        AccuracyCostDisplay.from_estimator(fitted, *fresh_digits, policies=policies)


def test_properties_of_the_first_curve_are_the_users(fitted, fresh_digits):
    display = AccuracyCostDisplay.from_estimator(
        fitted, *fresh_digits, policies=[], curve_kwargs={"c": "red", "lw": 7}
    )
    assert display.line_.get_color() == "red" and display.line_.get_linewidth() == 7


# Exits by name.


def test_rates_are_bars_by_name_from_zero_with_their_counts(fitted, fresh_digits):
    X, y = fresh_digits
    display = ExitRatesDisplay.from_estimator(fitted, X, y)
    ax, taken = display.ax_, fitted.predict_exit(X)
    counts = np.bincount(taken, minlength=len(fitted.exit_costs_))
    right, wrong = display.bars_
    assert [bar.get_x() for bar in right] == [0] * len(counts) and ax.get_xlim()[0] == 0
    rates = [a.get_width() + b.get_width() for a, b in zip(right, wrong, strict=True)]
    np.testing.assert_allclose(rates, counts / len(y))
    mistakes = fitted.predict(X) != y
    np.testing.assert_allclose(
        [bar.get_width() for bar in wrong],
        np.bincount(taken[mistakes], minlength=len(counts)) / len(y),
    )
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert [label.split("\n")[0] for label in labels] == [*fitted.exits_, "last exit"]
    assert all(
        f"{n:,} sample" in words or n == 0
        for n, words in zip(counts.tolist(), words_on(ax), strict=True)
    )
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first exit is on top"


def test_rates_without_labels_are_bars_of_one_colour(fitted, fresh_digits):
    X, _ = fresh_digits
    display = ExitRatesDisplay.from_estimator(fitted, X)
    assert len(display.bars_) == 1 and display.ax_.get_legend() is None
    taken = fitted.predict_exit(X)
    again = ExitRatesDisplay.from_predictions(taken, exit_names=display.exit_names)
    assert np.array_equal(again.n_samples, display.n_samples)


def test_sets_are_bars_from_zero_with_the_confidence_level_written(fitted, fresh_digits):
    X, y = fresh_digits
    display = PredictionSetDisplay.from_estimator(fitted, X, y, confidence_level=0.8)
    sets, taken = fitted.predict_set(X, confidence_level=0.8), fitted.predict_exit(X)
    covered, exits = sets[np.arange(len(y)), y], np.unique(taken)
    for ax, values in zip(display.axes_, (covered, sets.sum(1)), strict=True):
        bars = ax.patches
        assert all(bar.get_x() == 0 for bar in bars) and ax.get_xlim()[0] == 0
        expected = [*(values[taken == i].mean() for i in exits), values.mean()]
        np.testing.assert_allclose([bar.get_width() for bar in bars], expected)
    assert "confidence level 80\N{NO-BREAK SPACE}%" in words_on(display.ax_)
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels[-1] == f"all samples\n{len(y):,} samples"
    assert [label.split("\n")[1] for label in labels[:-1]] == [
        f"{n:,} sample{'s' * (n != 1)}" for n in np.bincount(taken)[exits].tolist()
    ]


def test_sets_are_drawn_into_one_axes_or_two(fitted, fresh_digits):
    one = plt.subplots(layout="constrained")[1]
    display = PredictionSetDisplay.from_estimator(fitted, *fresh_digits, ax=one)
    assert display.figure_ is one.figure and len(display.axes_) == 2
    two = plt.subplots(1, 2)[1]
    assert list(display.plot(ax=two).axes_) == list(two)
    inset = plt.figure().add_axes((0.2, 0.2, 0.7, 0.7))
    assert display.plot(ax=inset).figure_ is inset.figure
    with pytest.raises(ValueError, match="ax has 3 axes"):
        display.plot(ax=plt.subplots(1, 3)[1])


# Reliability.


def test_reliability_counts_samples_and_has_intervals(fitted, fresh_digits):
    X, y = fresh_digits
    display = ReliabilityDisplay.from_estimator(fitted, X, y, n_bins=5)
    probabilities, taken = fitted.predict_proba(X), fitted.predict_exit(X)
    counts = np.bincount(taken)
    names = [*fitted.exits_, "last exit"]
    assert list(display.curves) == [names[i] for i in np.flatnonzero(counts >= 10)]
    first = int(np.flatnonzero(counts >= 10)[0])
    curve, own = display.curves[names[first]], taken == first
    assert curve.n_samples.sum() == counts[first]
    confidence = np.average(curve.confidence, weights=curve.n_samples)
    assert confidence == pytest.approx(probabilities[own].max(1).mean())
    assert np.average(curve.accuracy, weights=curve.n_samples) == pytest.approx(
        (fitted.predict(X) == y)[own].mean()
    )
    assert legend_of(display.ax_)[0].startswith(f"{names[first]}: {counts[first]:,} samples in")
    assert "perfectly calibrated" in legend_of(display.ax_)
    assert "perfectly calibrated" not in legend_of(display.plot(ref_line=False).ax_)


def test_exits_with_too_few_samples_are_told_and_not_drawn():
    probabilities = np.tile([0.7, 0.3], (40, 1))
    exits = np.r_[np.zeros(33, int), np.ones(7, int)]
    display = ReliabilityDisplay.from_predictions(
        np.arange(40) % 2, probabilities, exits, exit_names=["a", "b"]
    )
    assert list(display.curves) == ["a"]
    assert any(text.startswith("b: 7 samples, too few") for text in legend_of(display.ax_))


@pytest.mark.parametrize(("n_samples", "n_bins"), [(10, 1), (59, 1), (100, 3), (900, 10)])
def test_bins_hold_at_least_thirty_samples(n_samples, n_bins):
    probabilities = np.tile([0.7, 0.3], (n_samples, 1))
    drawn = ReliabilityDisplay.from_predictions(np.arange(n_samples) % 2, probabilities)
    assert len(drawn.curves["all samples"].n_samples) == n_bins


def test_wilsons_interval_holds_its_share_and_stays_within_zero_and_one():
    down, up = wilson_errors(np.array([0, 5, 10]), np.array([10, 10, 10]))
    assert down[0] == 0 and up[2] == 0
    # Of 10 of 10, from 72 % on: Brown, Cai, DasGupta 2001.
    assert 1 - down[2] == pytest.approx(0.722, abs=0.001)
    assert (down >= 0).all() and (up >= 0).all()


# Examples.


def test_images_of_an_exit_are_samples_that_left_there(fitted, fresh_digits):
    X, y = fresh_digits
    display = ExitExamplesDisplay.from_estimator(fitted, X, y, image_shape=(8, 8), n_examples=3)
    taken, predicted = fitted.predict_exit(X), fitted.predict(X)
    scaled = (X - X.min()) / (X.max() - X.min())
    for exit_index, images in enumerate(display.examples.images):
        assert len(images) == min(3, (taken == exit_index).sum())
        captions = display.examples.captions[exit_index]
        for image, caption in zip(images, captions, strict=True):
            (row,) = np.flatnonzero(np.abs(scaled - image.ravel()).max(1) < 1e-6)
            assert taken[row] == exit_index
            is_right = predicted[row] == y[row]
            expected = f"{predicted[row]}" if is_right else f"{predicted[row]}\nnot {y[row]}"
            assert caption == expected
    shown = sum(len(images) for images in display.examples.images)
    assert len(display.ax_.images) == shown
    again = ExitExamplesDisplay.from_estimator(fitted, X, y, image_shape=(8, 8), n_examples=3)
    assert np.array_equal(display.examples.images[0], again.examples.images[0])


@pytest.mark.parametrize("shape", [(9, 9), (9, 7, 3), (3, 9, 7), (1, 9, 7), (9, 7, 4)])
def test_images_of_any_order_of_axes_are_drawn(shape):
    images, exits = rng.random((20, *shape)), np.arange(20) % 3
    display = ExitExamplesDisplay.from_predictions(images, exits, n_examples=2)
    assert {image.shape[-1] for own in display.examples.images for image in own} <= {1, 3}
    assert len(display.ax_.images) == 6


def table(n_samples=400):
    exits = np.arange(n_samples) % 2
    frame = pd.DataFrame(
        {
            "noise": rng.standard_normal(n_samples),
            "age": 30 + 20 * exits + rng.standard_normal(n_samples),
            "city": np.where(rng.random(n_samples) < 0.2 + 0.6 * exits, "Paris", "Rome"),
            "gaps": np.where(rng.random(n_samples) < 0.5, np.nan, 3.0 * exits),
        }
    )
    return frame, exits


def test_the_most_telling_features_come_first_with_their_means():
    frame, exits = table()
    display = ExitExamplesDisplay.from_predictions(frame, exits, exit_names=["a", "b"])
    found = display.examples
    assert set(found.names[:2]) == {"age", "gaps"} and found.names[-1] == "noise"
    age = found.names.index("age")
    np.testing.assert_allclose(found.means[age], frame.groupby(exits)["age"].mean())
    city = next(i for i, name in enumerate(found.names) if name.startswith("city = "))
    word = found.names[city].removeprefix("city = ")
    np.testing.assert_allclose(found.means[city], (frame["city"] == word).groupby(exits).mean())
    gaps = found.names.index("gaps")
    np.testing.assert_allclose(found.means[gaps], [0, 3])
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == found.names
    few = ExitExamplesDisplay.from_predictions(frame, exits, n_features=2)
    assert few.examples.names == found.names[:2]


def test_frames_of_polars_are_drawn_as_those_of_pandas():
    polars = pytest.importorskip("polars")
    frame, exits = table()
    frame = frame.fillna(-1.0)
    one = ExitExamplesDisplay.from_predictions(frame, exits).examples
    other = ExitExamplesDisplay.from_predictions(
        polars.DataFrame(frame.to_dict("list")), exits
    ).examples
    assert one.names == other.names
    np.testing.assert_allclose(one.means, other.means)


def test_what_does_not_fit_the_samples_is_refused():
    frame, exits = table()
    draw = ExitExamplesDisplay.from_predictions
    for given, name in [
        ({"image_shape": (3, 3)}, "image_shape"),
        ({"feature_names": ["one"]}, "feature_names"),
        ({"n_examples": 0}, "n_examples"),
        ({"n_features": 0.5}, "n_features"),
        ({"exit_names": ["one"]}, "exit_names"),
        ({"exit_costs": [1.0]}, "exit_costs"),
        ({"y_pred": [1, 2]}, "y_pred"),
    ]:
        with pytest.raises(ValueError, match=name):
            draw(frame, exits, **given)
    with pytest.raises(ValueError, match="exit_index has 400 exits, but there are 10 samples"):
        draw(frame[:10], exits)
    with pytest.raises(ValueError, match="exit_index"):
        draw(frame, exits / 2)
    with pytest.raises(ValueError, match="X has shape"):
        draw(np.arange(5.0), np.zeros(5, int))


# All displays.


@pytest.fixture(scope="module")
def words():
    """A classifier of a frame with words as labels, and samples that it has not seen."""
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    y = np.array(["malignant", "benign"])[y]
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
    clf = quick_classifier(max_epochs=3, cv=None).fit(X, y)
    return clf, X_test, y_test


@pytest.mark.parametrize("display", DISPLAYS)
def test_labels_may_be_words_and_samples_a_frame(words, display):
    clf, X, y = words
    drawn = display.from_estimator(clf, X, y)
    assert drawn.plot() is drawn and drawn.figure_ is drawn.ax_.figure
    drawn.figure_.canvas.draw()


def test_predictions_give_the_picture_that_the_estimator_gives(words):
    clf, X, y = words
    exits, names = clf.predict_exit(X), [*clf.exits_, "last exit"]
    costs, named = clf.exit_costs_, {"exit_names": names}
    sets = clf.predict_set(X)
    pairs = [
        (
            ExitRatesDisplay.from_estimator(clf, X, y),
            ExitRatesDisplay.from_predictions(
                exits, y_true=y, y_pred=clf.predict(X), exit_costs=costs, **named
            ),
        ),
        (
            ReliabilityDisplay.from_estimator(clf, X, y),
            ReliabilityDisplay.from_predictions(y, clf.predict_proba(X), exits, **named),
        ),
        (
            PredictionSetDisplay.from_estimator(clf, X, y),
            PredictionSetDisplay.from_predictions(y, sets, exits, confidence_level=0.9, **named),
        ),
        (
            ExitExamplesDisplay.from_estimator(clf, X, y),
            ExitExamplesDisplay.from_predictions(X, exits, exit_costs=costs, **named),
        ),
    ]
    for one, other in pairs:
        images = []
        for display in (one, other):
            display.figure_.canvas.draw()
            images.append(np.asarray(display.figure_.canvas.buffer_rgba()))
        assert np.array_equal(*images), type(one).__name__


def test_all_samples_alone_are_drawn_without_exits(words):
    clf, X, y = words
    sets = PredictionSetDisplay.from_predictions(y, clf.predict_set(X), confidence_level=0.9)
    assert [t.get_text() for t in sets.ax_.get_yticklabels()] == ["all samples\n285 samples"]
    reliability = ReliabilityDisplay.from_predictions(y, clf.predict_proba(X))
    assert list(reliability.curves) == ["all samples"]


@pytest.mark.parametrize("build", [lambda p: p, lambda p: GridSearchCV(p, {}, cv=2)])
def test_displays_take_pipelines_searches_and_columns_of_labels(build, digits, fresh_digits):
    X, y = digits
    tiny = quick_classifier(max_epochs=1, module__width=16, module__n_blocks=2)
    piped = make_pipeline(StandardScaler(), tiny)
    estimator = build(piped).fit(X, y)
    X_new, y_new = fresh_digits
    display = AccuracyCostDisplay.from_estimator(estimator, X_new, y_new, policies=[])
    assert display.operating_point.accuracy == estimator.score(X_new, y_new)
    for display in DISPLAYS[1:]:
        assert display.from_estimator(estimator, X_new, y_new).figure_
    raw = ExitExamplesDisplay.from_estimator(estimator, X_new, image_shape=(8, 8))
    assert raw.examples.images[-1].min(initial=0) >= 0
    with pytest.warns(match="column-vector y"):
        PredictionSetDisplay.from_estimator(estimator, X_new, y_new[:, None])
    with pytest.raises(ValueError, match=r"y has labels \[11\] that are not among classes_"):
        ReliabilityDisplay.from_estimator(estimator, X_new, np.full(len(y_new), 11))


@pytest.mark.parametrize("display", DISPLAYS)
def test_a_mistake_is_refused_with_what_to_do(display, fitted, fresh_digits):
    X, y = fresh_digits
    draw = display.from_estimator
    unfitted = EarlyExitClassifier()
    for estimator in (
        unfitted,
        make_pipeline(StandardScaler(), unfitted),
        GridSearchCV(unfitted, {}),
    ):
        with pytest.raises(NotFittedError, match=r"call its fit\(X, y\)"):
            draw(estimator, X, y)
    with pytest.raises(TypeError, match="is a class; fit an instance"):
        draw(EarlyExitClassifier, X, y)
    with pytest.raises(TypeError, match="EarlyExitClassifier"):
        draw(LogisticRegression(max_iter=5000).fit(X[:99], y[:99]), X, y)
    with pytest.raises(TypeError, match="from_predictions"):
        draw(fitted.predictor(), X, y)
    with pytest.raises(ValueError, match="X has 10 features"):
        draw(fitted, X[:, :10], y)
    with pytest.raises(ValueError, match="numbers with a fraction are no labels"):
        draw(fitted, X, y + 0.5)
    with pytest.raises(ValueError, match="labels of the type that fit was given, such as 0"):
        draw(fitted, X, y.astype(str))
    with pytest.raises(ValueError, match="y has shape"):
        draw(fitted, X, y[:10])
    with pytest.raises(TypeError, match="ax=Figure is not a matplotlib Axes"):
        draw(fitted, X, y, ax=plt.figure())


def test_samples_that_networks_have_learned_from_are_warned_of(fitted, digits):
    for display in DISPLAYS:
        if display is not ExitExamplesDisplay:
            with pytest.warns(UserWarning, match="better answers than new samples would get"):
                display.from_estimator(fitted, *digits)


def test_bilevel_gates_have_no_frontier_to_draw(digits, fresh_digits):
    clf = quick_classifier(max_epochs=1, gate_training="bilevel").fit(*digits)
    with pytest.raises(ValueError, match="gate_training"):
        AccuracyCostDisplay.from_estimator(clf, *fresh_digits)


@pytest.mark.parametrize("display", DISPLAYS)
def test_without_matplotlib_the_error_names_the_extra(display, fitted, fresh_digits, monkeypatch):
    load = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"sklearn_jeidnn\[plot\]"):
        display.from_estimator(fitted, *fresh_digits)


def test_predictions_that_do_not_fit_are_refused():
    y, proba = np.arange(30) % 2, np.full((30, 2), 0.5)
    refused = [
        (lambda: ReliabilityDisplay.from_predictions(y, proba * 3), "y_proba"),
        (lambda: ReliabilityDisplay.from_predictions(y, proba[:, :1]), "y_proba has 1 columns"),
        (lambda: ReliabilityDisplay.from_predictions(y, proba, y[:3]), "exit_index has 3 exits"),
        (lambda: ReliabilityDisplay.from_predictions(y, proba, n_bins=0), "n_bins"),
        (lambda: ReliabilityDisplay.from_predictions(y, proba, classes=[1, 0]), "sorted"),
        (
            lambda: PredictionSetDisplay.from_predictions(y, proba, confidence_level=0.9),
            "sets has float64",
        ),
        (
            lambda: PredictionSetDisplay.from_predictions(y, proba > 0, confidence_level=2),
            "confidence_level",
        ),
        (lambda: ExitRatesDisplay.from_predictions(y, y_true=y), "y_true and y_pred"),
        (lambda: ExitRatesDisplay.from_predictions(y - 1), "exit_index"),
        (lambda: AccuracyCostDisplay.from_predictions(y, {}, y_backbone=y), "curves"),
        (
            lambda: AccuracyCostDisplay.from_predictions(y, {"a": [(y, -1)]}, y_backbone=y),
            "number above 0",
        ),
        (
            lambda: AccuracyCostDisplay.from_predictions(y, {"a": y}, y_backbone=y),
            "list of pairs",
        ),
        (
            lambda: AccuracyCostDisplay.from_predictions(y, {"a": [(y, 1)]}, y_backbone=y[:3]),
            "y_backbone has 3 labels",
        ),
    ]
    for call, match in refused:
        with pytest.raises(ValueError, match=match):
            call()


def test_every_display_is_public():
    assert {display.__name__ for display in DISPLAYS} <= set(plotting.__all__)


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_what_is_drawn_can_be_told_from_the_background(style, fitted, fresh_digits):
    with plt.style.context(style):
        display = AccuracyCostDisplay.from_estimator(fitted, *fresh_digits, policies=[])
        paper = np.array(matplotlib.colors.to_rgb(display.ax_.get_facecolor()))
        for word in ("learned gates", "plain backbone"):
            color = matplotlib.colors.to_rgb(line_of(display.ax_, word).get_color())
            assert np.abs(paper - color).mean() > 0.3

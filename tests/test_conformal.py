from itertools import product

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.base import BaseEstimator, ClassifierMixin

from sklearn_jeidnn import conformal
from sklearn_jeidnn._conformal.rounding import rounding_of


def test_quantile_is_the_finite_sample_one():
    scores = np.arange(1, 10) / 10
    assert conformal.score_quantile(scores, 0.5) == 0.5
    assert conformal.score_quantile(scores, 0.9) == 0.9


def test_too_few_scores_give_full_sets():
    assert conformal.score_quantile(np.zeros(8), 0.9) == np.inf
    assert conformal.prediction_sets(np.ones((2, 3)), np.inf).all()


@pytest.mark.parametrize("confidence_level", [0.5, 0.8, 0.9, 0.93, 0.95, 0.99])
def test_least_calibration_size_is_the_first_that_is_enough(confidence_level):
    enough = conformal.least_calibration_size(confidence_level)
    assert np.isfinite(conformal.score_quantile(np.zeros(enough), confidence_level))
    assert conformal.score_quantile(np.zeros(enough - 1), confidence_level) == np.inf


def test_true_label_values_take_the_column_of_the_code():
    scores = conformal.lac_scores(np.array([[0.75, 0.25], [0.125, 0.875]]))
    assert conformal.true_label_values(scores, [1, 1]).tolist() == [0.75, 0.125]


def test_a_label_that_scores_exactly_the_quantile_is_in_the_set():
    assert conformal.prediction_sets(np.array([[0.3, 0.31]]), 0.3).tolist() == [[True, False]]


@pytest.fixture(scope="module")
def probabilities():
    return np.random.default_rng(0).dirichlet(np.full(6, 0.3), size=400)


@pytest.fixture(scope="module")
def codes(probabilities):
    rng = np.random.default_rng(1)
    return np.array([rng.choice(6, p=own / own.sum()) for own in probabilities])


def rows_of(probabilities, uniform=None):
    zeros = np.zeros(len(probabilities), dtype=int)
    return conformal.RoutedSamples(
        probabilities, zeros, zeros if uniform is None else uniform, zeros
    )


def test_aps_scores_are_the_cumulated_mass_less_one():
    scores = conformal.aps_scores(np.array([[0.1, 0.6, 0.3]]))
    np.testing.assert_allclose(scores, [[0, -0.4, -0.1]], atol=1e-12)
    own_share = conformal.aps_scores(np.array([[0.1, 0.6, 0.3]]), np.array([0.5]))
    np.testing.assert_allclose(own_share, [[-0.05, -0.7, -0.25]])


def test_raps_scores_add_a_penalty_from_the_first_label_that_is_not_free():
    row = np.array([[0.1, 0.6, 0.3]])
    added = conformal.raps_scores(row, penalty=0.2, n_free=1) - conformal.aps_scores(row)
    np.testing.assert_allclose(added, [[0.4, 0, 0.2]])


def test_aps_scores_of_sure_rows_do_not_tie():
    sure = np.array([[1, 1e-18, 1e-20], [1, 1e-19, 1e-21]])
    assert len(np.unique(conformal.aps_scores(sure)[:, :2])) == 4


@pytest.mark.parametrize("score", [conformal.aps_scores, conformal.raps_scores])
def test_the_more_probable_label_scores_lower(score, probabilities):
    by_score = np.argsort(score(probabilities), axis=1)
    assert np.array_equal(by_score, np.argsort(-probabilities, axis=1))


def test_the_chosen_penalties_give_sets_no_larger_than_aps(probabilities, codes):
    def size(score):
        sets = conformal.ConformalSets(score, conformal.pooled, rows_of(probabilities), codes)
        return sets.sets(rows_of(probabilities), [0.9]).sum()

    assert size(conformal.smallest_raps(probabilities, codes)) <= size(conformal.aps_scores)


def test_a_rows_random_number_is_its_own_in_every_batch():
    X = np.random.default_rng(0).normal(size=(20000, 5)).astype(np.float32)
    numbers = conformal.row_uniform([X], seed=3)
    assert np.array_equal(conformal.row_uniform([X[::-1][:70]], seed=3), numbers[::-1][:70])
    assert not np.array_equal(conformal.row_uniform([X], seed=4), numbers)
    assert kstest(numbers, "uniform").pvalue > 1e-3
    zero = np.zeros((1, 5), dtype=np.float32)
    assert conformal.row_uniform([zero], 3) == conformal.row_uniform([-zero], 3)


def test_random_numbers_read_every_array_of_a_row():
    X, Z = np.zeros((2, 3), dtype=np.float32), np.array([[1], [2]])
    assert len(set(conformal.row_uniform([X, Z], seed=0))) == 2


def test_a_group_borrows_no_threshold():
    scores, groups = np.arange(1, 13) / 100, np.array([0] * 9 + [2] * 3)
    of_0, of_1, of_2, unknown = conformal.group_quantiles(scores, groups, 0.9)
    assert of_0 == 0.09
    assert of_1 == of_2 == unknown == np.inf


def test_sets_of_rows_do_not_depend_on_how_many_there_are(probabilities, codes, monkeypatch):
    fitted = conformal.ConformalSets(
        conformal.aps_scores, conformal.by_class, rows_of(probabilities), codes
    )
    at_once = fitted.sets(rows_of(probabilities), [0.5, 0.8])
    monkeypatch.setattr("sklearn_jeidnn._conformal.blocks.ROWS_AT_ONCE", 7)
    assert np.array_equal(fitted.sets(rows_of(probabilities), [0.5, 0.8]), at_once)


def halves(probabilities, codes):
    return probabilities[:200], codes[:200], probabilities[200:], codes[200:]


@pytest.mark.parametrize("score", ["lac", "aps"])
@pytest.mark.filterwarnings("ignore")
def test_pooled_sets_equal_those_of_mapie(score, probabilities, codes):
    classification = pytest.importorskip("mapie.classification")
    known, known_codes, new, _ = halves(probabilities, codes)
    classifier = classification.SplitConformalClassifier(
        Given().fit(known, known_codes),
        confidence_level=[0.6, 0.8, 0.9],
        conformity_score=score,
        random_state=5,
    )
    classifier.conformalize(known, known_codes)
    further = {"include_last_label": "randomized"} if score == "aps" else {}
    _, theirs = classifier.predict_set(new, conformity_score_params=further)
    # MAPIE draws random numbers for the batch, the same ones from the same seed.
    uniform = np.random.RandomState(5).uniform(size=200)
    fitted = conformal.ConformalSets(
        conformal.SCORES[score], conformal.pooled, rows_of(known, uniform), known_codes
    )
    assert np.array_equal(fitted.sets(rows_of(new, uniform), [0.6, 0.8, 0.9]), theirs)


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
def test_pooled_and_grouped_sets_equal_those_of_crepes(score, probabilities, codes):
    crepes = pytest.importorskip("crepes")
    known, known_codes, new, _ = halves(probabilities, codes)
    score = conformal.SCORES[score]
    scores = conformal.true_label_values(score(known), known_codes)
    pooled = crepes.ConformalClassifier().fit(scores)
    theirs = pooled.predict_set(score(new), confidence=0.85, smoothing=False)
    own = conformal.ConformalSets(score, conformal.pooled, rows_of(known), known_codes)
    assert np.array_equal(own.sets(rows_of(new), [0.85])[..., 0], theirs)
    groups, new_groups = np.arange(200) % 3, np.arange(200) % 2
    theirs = crepes.ConformalClassifier().fit(scores, bins=groups)
    theirs = theirs.predict_set(score(new), bins=new_groups, confidence=0.85, smoothing=False)
    rows, new_rows = (
        rows_of(p)._replace(groups=g) for p, g in ((known, groups), (new, new_groups))
    )
    own = conformal.ConformalSets(score, conformal.by_own_groups, rows, known_codes)
    assert np.array_equal(own.sets(new_rows, [0.85])[..., 0], theirs)


@pytest.mark.parametrize("n_scores", [1, 2, 19, 500])
def test_quantile_is_the_score_of_its_rank_in_any_order(n_scores):
    scores = np.random.default_rng(0).permutation(n_scores)
    for rank in range(1, n_scores + 1):
        assert conformal.score_quantile(scores, (rank - 0.5) / (n_scores + 1)) == rank - 1


def test_raps_penalises_by_a_hundredth_from_the_second_label_on():
    row = np.array([[0.1, 0.6, 0.3]])
    by_default = conformal.raps_scores(row)
    assert np.array_equal(by_default, conformal.raps_scores(row, penalty=0.01, n_free=1))


@pytest.mark.parametrize("n_classes, free_labels", [(6, (1, 2, 3, 5)), (5, (1, 2, 3))])
def test_penalties_from_a_thousandth_to_a_third_are_tried(n_classes, free_labels, monkeypatch):
    tried, raps_scores = [], conformal.raps_scores

    def noted(probabilities, *, penalty, n_free):
        tried.append((penalty, n_free))
        return raps_scores(probabilities, penalty=penalty, n_free=n_free)

    monkeypatch.setattr("sklearn_jeidnn._conformal.scores.raps_scores", noted)
    conformal.smallest_raps(np.full((20, n_classes), 1 / n_classes), np.zeros(20, dtype=int))
    assert tried == list(product((0.001, 0.01, 0.03, 0.1, 0.3), free_labels))


def test_random_numbers_are_a_multilinear_hash_of_the_words():
    words = np.array([[0, 1, 2], [3, 2**31, 2**32 - 1]], dtype=np.uint32)
    offset, *factors = np.random.default_rng(7).integers(2**64, size=4, dtype=np.uint64).tolist()
    hashed = [
        (offset + sum(factor * word for factor, word in zip(factors, row))) % 2**64
        for row in words.tolist()
    ]
    expected = [number // 2**32 / 2**32 for number in hashed]
    assert conformal.row_uniform([words], seed=7).tolist() == expected


def test_booleans_are_hashed_as_the_numbers_that_they_are():
    X = np.array([[True, False], [False, False]])
    assert np.array_equal(
        conformal.row_uniform([X], seed=0), conformal.row_uniform([X.astype(np.int32)], seed=0)
    )


@pytest.mark.parametrize(
    "name, expected",
    [
        ("pooled", [[0, 0, 0], [0, 0, 0]]),
        ("exit", [[2, 2, 2], [0, 0, 0]]),
        ("class", [[0, 1, 2], [0, 1, 2]]),
        ("exit_and_class", [[6, 7, 8], [0, 1, 2]]),
    ],
)
def test_groups_are_numbered_by_exit_then_class(name, expected):
    rows = rows_of(np.full((2, 3), 1 / 3))._replace(exit_index=np.array([2, 0]))
    groups = conformal.GROUPS[name](rows)
    assert np.broadcast_to(groups, (2, 3)).tolist() == expected


def sets_of_two_classes(new, levels, **options):
    """Sets of new rows by the probability of the first of two classes; quantiles are 0.1 and 0.8."""
    known = np.array([0.9] * 5 + [0.2] * 4)
    known = np.column_stack([known, 1 - known])
    fitted = conformal.ConformalSets(
        conformal.lac_scores, conformal.pooled, rows_of(known), np.zeros(9, dtype=int)
    )
    assert np.allclose(fitted.scores, 1 - known[:, 0]) and not fitted.groups.any()
    new = np.column_stack([new, 1 - np.array(new)])
    return fitted.sets(rows_of(new), levels, **options)


def test_an_empty_set_gets_the_best_label_only_where_that_is_asked_for():
    new = [0.95, 0.4, 0.05]
    sets = sets_of_two_classes(new, [0.5, 0.9])
    assert sets.dtype == bool
    assert sets[..., 0].tolist() == [[True, False], [False, False], [False, True]]
    assert sets[..., 1].tolist() == [[True, False], [True, True], [False, True]]
    filled = sets_of_two_classes(new, [0.5, 0.9], allow_empty=False)
    assert filled[..., 0].tolist() == [[True, False], [False, True], [False, True]]
    assert np.array_equal(filled[..., 1], sets[..., 1])


def test_a_set_that_is_not_empty_is_left_as_it_is_even_without_the_best_label():
    known, codes = np.array([[0.9, 0.1], [0.2, 0.8]] * 9), np.zeros(18, dtype=int)
    codes[1::2] = 1
    known[1::2] = 0.8, 0.2
    fitted = conformal.ConformalSets(
        conformal.lac_scores, conformal.by_class, rows_of(known), codes
    )
    sets = fitted.sets(rows_of(np.array([[0.6, 0.4]])), [0.9], allow_empty=False)
    assert sets[..., 0].tolist() == [[False, True]]


def test_rows_of_a_group_beyond_the_known_ones_get_full_sets():
    known = np.full((40, 2), 0.5)
    rows = rows_of(known)._replace(exit_index=np.arange(40) % 2)
    fitted = conformal.ConformalSets(
        lambda probabilities, uniform: np.array([[0.0, 1.0]] * len(probabilities)),
        conformal.by_exit,
        rows,
        np.zeros(40, dtype=int),
    )
    new = rows_of(known[:4])._replace(exit_index=np.arange(4))
    assert fitted.sets(new, [0.9])[:, 1, 0].tolist() == [False, False, True, True]


class Given(ClassifierMixin, BaseEstimator):
    """Answers its X as probabilities."""

    def fit(self, X, y):
        self.classes_ = np.arange(X.shape[1])
        return self

    def predict_proba(self, X):
        return X

    def predict(self, X):
        return X.argmax(axis=1)


def nearly_equal_rows(n_samples, seed):
    """Few distinct rows of three probabilities whose last digits of single precision differ."""
    rng = np.random.default_rng(seed)
    distinct = np.random.default_rng(0).dirichlet(np.ones(3), size=4)
    numbers = rng.integers(4, size=n_samples)
    noise = 1e-6 * rng.standard_normal((n_samples, 3))
    probabilities = distinct[numbers] * (1 + noise)
    return probabilities / probabilities.sum(1, keepdims=True), numbers


def minus_log(probabilities, uniform):
    return -np.log(probabilities)


@pytest.mark.parametrize("score", [*conformal.SCORES, minus_log])
@pytest.mark.parametrize("allow_empty", [True, False])
def test_scores_that_tie_within_rounding_are_in_the_same_sets(score, allow_empty):
    known, numbers = nearly_equal_rows(300, seed=1)
    codes = np.random.default_rng(2).integers(3, size=300)
    if score == "raps":
        score = conformal.smallest_raps(known, codes)
    score = conformal.SCORES.get(score, score) if isinstance(score, str) else score
    fitted = conformal.ConformalSets(score, conformal.pooled, rows_of(known), codes)
    new, numbers = nearly_equal_rows(200, seed=3)
    sets = fitted.sets(rows_of(new), [0.2, 0.5, 0.8, 0.9], allow_empty=allow_empty)
    for number in range(4):
        assert (sets[numbers == number] == sets[numbers == number][:1]).all()


@pytest.mark.parametrize("score", [conformal.lac_scores, conformal.aps_scores])
def test_rounding_only_adds_labels_and_hardly_any(score, probabilities, codes):
    known, known_codes, new, _ = halves(probabilities, codes)
    fitted = conformal.ConformalSets(score, conformal.pooled, rows_of(known), known_codes)
    sets = fitted.sets(rows_of(new), [0.9])[..., 0]
    strict = score(new) <= conformal.score_quantile(fitted.scores, 0.9)
    assert (sets >= strict).all() and sets.sum() - strict.sum() <= 2


def test_rounding_is_small_where_probabilities_are_near_0_or_1():
    sure = np.array([[1 - 1e-9, 1e-9]])
    for score in (conformal.lac_scores, conformal.aps_scores):
        widths = rounding_of(score, rows_of(sure), score(sure))
        assert (widths < 1e-13).all()


def test_samples_without_an_answer_score_infinity_and_get_full_sets(probabilities, codes):
    gaps = probabilities.copy()
    gaps[:3] = np.nan
    fitted = conformal.ConformalSets(conformal.aps_scores, conformal.by_class, rows_of(gaps), codes)
    assert np.isinf(fitted.scores[:3]).all() and np.isfinite(fitted.scores[3:]).all()
    sets = fitted.sets(rows_of(gaps), [0.01, 0.5])
    assert sets[:3].all() and not sets[3:].all()


@pytest.mark.parametrize(
    "returned, match",
    [
        (
            lambda p, u: np.where(p > p.min(), p, np.nan),
            "conformity_score returned NaN for 1 of 200",
        ),
        (lambda p, u: p[:, 0], r"conformity_score returned an array of shape \(200,\)"),
    ],
)
def test_scores_that_are_none_are_refused(returned, match, probabilities, codes):
    with pytest.raises(ValueError, match=match):
        conformal.ConformalSets(
            returned, conformal.pooled, rows_of(probabilities[:200]), codes[:200]
        )


def test_infinite_scores_of_a_function_exclude_labels(probabilities, codes):
    def without_first(probabilities, uniform):
        scores = 1 - probabilities
        scores[:, 0] = np.inf
        return scores

    known = codes > 0
    fitted = conformal.ConformalSets(
        without_first, conformal.pooled, rows_of(probabilities[known]), codes[known]
    )
    sets = fitted.sets(rows_of(probabilities), [0.9], allow_empty=False)
    assert not sets[:, 0].any() and sets.any(axis=1).all()


def test_a_score_that_writes_into_probabilities_changes_nothing(probabilities, codes):
    def writing(probabilities, uniform):
        scores = 1 - probabilities
        probabilities[:] = 0
        return scores

    own, plain = (
        conformal.ConformalSets(score, conformal.pooled, rows_of(probabilities.copy()), codes)
        for score in (writing, conformal.lac_scores)
    )
    given = probabilities.copy()
    assert np.array_equal(own.sets(rows_of(given), [0.9]), plain.sets(rows_of(given), [0.9]))
    assert np.array_equal(given, probabilities)


@pytest.mark.parametrize("level", [0, 1, -0.1, np.nan, "0.9"])
def test_levels_outside_of_0_and_1_have_no_quantile(level):
    with pytest.raises(ValueError, match="confidence_level"):
        conformal.score_quantile(np.arange(5.0), level)
    with pytest.raises(ValueError, match="confidence_level"):
        conformal.least_calibration_size(level)

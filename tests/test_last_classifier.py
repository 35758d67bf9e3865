"""Any classifier may be the last member, which costs are relative to."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._fit import member_prices
from sklearn_jeidnn._fit.prices import N_COUNTED_SAMPLES

from .conftest import quick_classifier
from .test_table_samples import people

# Small trees on a few samples are faster than what stands in front of them, or not, as the machine likes.
pytestmark = pytest.mark.filterwarnings("ignore:nothing is saved")

SMALL = (None, {"width": 16, "n_blocks": 2})


class Counting(ExtraTreesClassifier):
    """Notes how many samples it is given at once."""

    given = ()

    def predict_proba(self, X):
        Counting.given = (*Counting.given, len(X))
        return super().predict_proba(X)


class InContext(ClassifierMixin, BaseEstimator):
    """Like TabPFN and TabICL: ``fit`` keeps the samples, and ``predict_proba`` reads them again."""

    def __init__(self, n_estimators=4, device="cpu", random_state=None):
        self.n_estimators = n_estimators
        self.device = device
        self.random_state = random_state

    def fit(self, X, y):
        self.classes_, self.codes_ = np.unique(y, return_inverse=True)
        self.context_ = np.asarray(X, dtype=float)
        return self

    def predict_proba(self, X):
        X = np.asarray(X, dtype=float)
        distances = np.square(X[:, None] - self.context_[None]).sum(2)
        weights = np.exp(-distances / (0.1 * np.median(distances, axis=1, keepdims=True)))
        votes = weights @ np.eye(len(self.classes_))[self.codes_]
        return votes / votes.sum(1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(1)]


def slow():
    return ExtraTreesClassifier(100, random_state=0)


@pytest.fixture(scope="module")
def cascade(digits):
    """Naive Bayes, a network and trees."""
    module = [GaussianNB(), SMALL, slow()]
    return quick_classifier(module=module, validation_fraction=0.3).fit(*digits)


def test_trees_are_the_last_member_and_costs_are_relative_to_them(cascade, fresh_digits):
    X, y = fresh_digits
    assert cascade.exits_ == ["0", "1"]
    assert (np.diff(cascade.exit_costs_) >= 0).all()
    # What ran before the trees is paid, too.
    assert 1 < cascade.exit_costs_[-1]
    assert isinstance(cascade.module_, ExtraTreesClassifier)
    assert np.array_equal(cascade.predict_backbone(X), cascade.module_.predict(X))
    cheapest = cascade.at(budget=cascade.exit_costs_[0])
    assert cheapest.mean_cost(X) == pytest.approx(cascade.exit_costs_[0])
    assert cascade.score(X, y) > 0.6
    assert cascade.predict_set(X).shape == (len(X), 10)


def test_no_network_need_be_among_the_members(digits, fresh_digits):
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    clf = quick_classifier(module=[linear, slow()], validation_fraction=0.3).fit(*digits)
    assert clf.exits_ == ["0"] and clf.score(*fresh_digits) > 0.8
    again = pickle.loads(pickle.dumps(clf))
    assert np.array_equal(again.predict_proba(fresh_digits[0]), clf.predict_proba(fresh_digits[0]))
    assert np.array_equal(clone(clf).fit(*digits).exits_, clf.exits_)


def test_a_fitted_classifier_is_taken_as_it_is(digits, fresh_digits):
    X, y = fresh_digits
    trained = FrozenEstimator(slow().fit(*digits))
    clf = quick_classifier(module=[GaussianNB(), trained])
    clf.fit(*digits, X_val=X[:400], y_val=y[:400])
    assert clf.module_ is trained
    # Of what it learned from nothing can be calibrated.
    own = quick_classifier(module=[GaussianNB(), trained])
    with pytest.warns(UserWarning, match=r"module\[1\] came trained.*X_val is not given"):
        own.fit(*digits)


def test_companions_are_made_for_a_lone_classifier(digits, fresh_digits):
    clf = quick_classifier(module=slow(), max_epochs=3, validation_fraction=0.3, companion="auto")
    clf.fit(*digits)
    assert len(clf.exits_) >= 1 and isinstance(clf.module_, ExtraTreesClassifier)
    by_default = quick_classifier(module=slow(), max_epochs=3, validation_fraction=0.3)
    by_default.set_params(companion="tabular").fit(*digits)
    assert len(by_default.exits_) >= 1
    with pytest.raises(
        ValueError, match="one classifier with nothing in front of it.*companion='auto'"
    ):
        quick_classifier(module=slow(), companion=None).fit(*digits)


def test_a_slow_classifier_is_timed_once_and_never_asked_to_count(digits, monkeypatch):
    timed = []
    member_times = member_prices.member_times

    def recorded(members, samples):
        timed.append(len(members))
        return member_times(members, samples)

    monkeypatch.setattr(member_prices, "member_times", recorded)
    Counting.given = ()
    clf = quick_classifier(module=Counting(5, random_state=0), validation_fraction=0.3)
    clf.set_params(companion="auto", max_epochs=2).fit(*digits)
    # All that may stand in front, and itself.
    assert len(timed) == 1 and timed[0] > 2
    assert min(Counting.given) > N_COUNTED_SAMPLES


def test_a_lone_classifier_is_imitated(digits, fresh_digits):
    clf = quick_classifier(module=slow(), max_epochs=2, validation_fraction=0.3, companion="auto")
    clf.fit(*digits)
    answers = clf.exit_answers(*fresh_digits)
    # Who reaches it gets its own answer.
    assert np.array_equal(answers.logits[:, -1], answers.backbone_logits)
    own = clf._predictor.frontier.answers
    # By its probabilities alone it is known what going on gains, so labels do not matter.
    other_labels = replace(own, codes=(own.codes + 1) % 10).smoothed_errors
    assert (other_labels >= other_labels[:, -1:] - 1e-6).all()
    # Which a member of a list does not, if its answer is better combined.
    listed = quick_classifier(module=[GaussianNB(), slow()], validation_fraction=0.3).fit(*digits)
    assert (listed._predictor.frontier.answers.smoothed_errors.argmin(1) == 0).any()


def test_companions_of_a_classifier_take_words_and_missing_values():
    class Words(ExtraTreesClassifier):
        def fit(self, X, y):
            return super().fit(self.numbers(X), y)

        def predict_proba(self, X):
            return super().predict_proba(self.numbers(X))

        def numbers(self, X):
            return np.column_stack([X["age"].fillna(-1), X["job"] == "smith", X["member"]])

    X, y = people(600)
    clf = EarlyExitClassifier(Words(50, random_state=0), max_epochs=3, random_state=0).fit(X, y)
    assert clf.score(*people(200, seed=1)) > 0.95


def test_a_classifier_is_called_in_chunks_of_the_size_that_it_likes(digits):
    X, y = digits
    module = [GaussianNB(), (Counting(20, random_state=0), {"batch_size": 32})]
    clf = quick_classifier(module=module).fit(X, y)
    Counting.given = ()
    clf.predict_backbone(X)
    assert max(Counting.given) == 32 and sum(Counting.given) == len(X)


def test_costs_may_be_told(digits):
    module = [GaussianNB(), SMALL, slow()]
    told = quick_classifier(module=module, companion_costs=[0.01, 0.1], max_epochs=1).fit(*digits)
    np.testing.assert_allclose(told.exit_costs_, [0.01, 0.11, 1.11])
    table = quick_classifier(module=module, cost=[0.1, 0.2, 1.5], max_epochs=1).fit(*digits)
    np.testing.assert_allclose(table.exit_costs_, [0.1, 0.2, 1.5])


def test_costs_of_exits_inside_a_network_are_shares_of_its_time(digits):
    clf = quick_classifier(module=[SMALL, slow()], exits=[1, "auto"], max_epochs=1).fit(*digits)
    assert clf.exits_ == ["0.blocks.0", "0"]
    first, second, last = clf.exit_costs_
    assert 0 < first < second <= last


def test_run_times_are_measured_whole(digits):
    clf = quick_classifier(module=[GaussianNB(), slow()], cost="seconds", cost_batch_size=1)
    clf.fit(*digits)
    assert clf.exit_costs_[0] <= clf.exit_costs_[-1] and clf.plain_seconds_ > 0


@pytest.mark.parametrize(
    "params, match",
    [
        (
            {"module": [SMALL, slow()], "exits": [1, ["a"]]},
            r"exits=\['a'\] names exits inside of the",
        ),
        (
            {"module": [GaussianNB(), slow()], "module__width": 3},
            r"\['width'\] build a torch module",
        ),
        ({"module": [GaussianNB(), (slow(), {"n": 3})]}, r"with \['n'\]; beside a classifier only"),
        ({"module": [GaussianNB(), (slow(), {"batch_size": 0})]}, "batch_size of the member"),
    ],
)
def test_what_a_classifier_does_not_have_is_refused(digits, params, match):
    with pytest.raises(ValueError, match=match):
        quick_classifier(**params).fit(*digits)


def test_a_last_member_that_is_faster_than_what_stands_in_front_is_told(digits):
    module = [slow(), GaussianNB()]
    with pytest.warns(UserWarning, match=r"nothing is saved: .* costs 3 times .*GaussianNB\(\)"):
        quick_classifier(module=module, companion_costs=[3.0], max_epochs=1).fit(*digits)


class ChangesItsParameter(GaussianNB):
    """As CatBoost's classifier, of which scikit-learn makes no clone."""

    def __init__(self, columns=None):
        super().__init__()
        self.columns = None if columns is None else list(columns)


def test_what_scikit_learn_does_not_clone_is_copied(digits):
    given = ChangesItsParameter([1, 2])
    with pytest.raises(RuntimeError, match="Cannot clone"):
        clone(given)
    clf = quick_classifier(module=[given, slow()], max_epochs=1).fit(*digits)
    assert clf.exits_ == ["0"] and not hasattr(given, "classes_")


def test_a_classifier_that_reads_its_training_samples_again_is_the_last_member(
    digits, fresh_digits
):
    X, y = digits
    clf = quick_classifier(module=[SMALL, (InContext(), {"batch_size": 100})]).fit(X, y)
    assert isinstance(clf.module_, InContext)
    assert np.array_equal(
        clf.predict_backbone(fresh_digits[0]), clf.module_.predict(fresh_digits[0])
    )
    assert clf.predict_set(fresh_digits[0][:5]).shape == (5, 10)
    pickle.loads(pickle.dumps(clf)).predict(X[:5])
    with pytest.raises(ValueError, match="takes no sample_weight"):
        clone(clf).fit(X, y, sample_weight=np.linspace(0.5, 1, len(X)))

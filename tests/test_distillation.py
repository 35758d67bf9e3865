"""What companions learn from a last member that is a classifier."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.neighbors import KNeighborsClassifier

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._fit import companions, trees
from sklearn_jeidnn._fit.classifiers import ClassifierStage
from sklearn_jeidnn._fit.distillation import soft_labels
from sklearn_jeidnn._fit.learning import MemberTrainer
from sklearn_jeidnn._fit.members import Member
from sklearn_jeidnn._schema import InputSchema, Samples

from .conftest import quick_classifier
from .test_table_samples import people

N = 60
RNG = np.random.default_rng(0)
X = np.float32(RNG.standard_normal((N, 3)))
CODES = (X[:, 0] > 0).astype(int)
SCHEMA = InputSchema(
    estimator_name="EarlyExitClassifier",
    input_names=None,
    sample_shapes=((3,),),
    dtypes=(X.dtype,),
    classes=np.array(["no", "yes"]),
    n_features=3,
    feature_names=None,
    keeps_integers=False,
)


class Bag(KNeighborsClassifier):
    """Keeps answers as scikit-learn's bags do, of all but the first sample."""

    def fit(self, X, y):
        super().fit(X, y)
        self.oob_decision_function_ = np.tile([0.8, 0.2], (len(X), 1))
        self.oob_decision_function_[0] = np.nan
        return self


class Wrong(Bag):
    """Keeps answers of other samples."""

    def fit(self, X, y):
        super().fit(X, y)
        self.oob_decision_function_ = self.oob_decision_function_[1:]
        return self


def learned_from(classifier, codes=CODES):
    """Soft labels of samples on which the classifier is fitted, if it is not."""
    member = Member(classifier, {})
    labels = SCHEMA.classes[codes]
    fitted = classifier if hasattr(classifier, "classes_") else clone(classifier).fit(X, labels)
    samples = Samples(inputs=(X,), codes=codes, weights=np.ones(N))
    return soft_labels(member, ClassifierStage(fitted, SCHEMA), samples, np.ones(N))


def test_half_of_what_companions_learn_is_what_a_bag_answers_without_a_sample():
    soft = learned_from(Bag())
    np.testing.assert_allclose(soft[1:], (np.eye(2)[CODES[1:]] + [0.8, 0.2]) / 2, rtol=1e-6)
    # All members of the bag have learned from the first.
    assert np.array_equal(soft[0], np.eye(2)[CODES[0]])


@pytest.mark.parametrize("nearest", [KNeighborsClassifier(1), Wrong(1)])
def test_a_classifier_that_is_fitted_here_answers_as_it_was_fitted_without_a_sample(nearest):
    row = int(np.abs(X[:, 0]).argmax())
    flipped = CODES.copy()
    flipped[row] = 1 - CODES[row]
    soft = learned_from(nearest, flipped)
    # As it was fitted with it, its nearest neighbour is itself.
    np.testing.assert_allclose(soft[row], [0.5, 0.5], atol=1e-5)
    assert set(np.round(soft.max(1), 3)) == {0.5, 1.0}


def test_a_classifier_that_came_fitted_is_asked_as_it_is():
    fitted = KNeighborsClassifier(1).fit(X, SCHEMA.classes[1 - CODES])
    np.testing.assert_allclose(learned_from(fitted), 0.5, atol=1e-5)


def test_the_only_sample_of_a_class_is_learned_as_its_label_says():
    codes = np.zeros(N, dtype=int)
    codes[0] = 1
    soft = learned_from(KNeighborsClassifier(1), codes)
    assert np.array_equal(soft[0], [0, 1])
    # Others may have it for a neighbour.
    assert (soft[1:, 0] > 0.49).all() and np.median(soft[1:, 0]) > 0.99


def test_distilled_trees_answer_what_scikit_learns_do():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(2), N)
    member = trees.distilled_extra_trees(X, probabilities, SCHEMA.classes, np.ones(N), seed=3)
    assert np.array_equal(member.module.classes_, SCHEMA.classes)
    usual = ExtraTreesRegressor(trees.N_EXTRA, random_state=3).fit(X, probabilities)
    answered = member.module.predict_proba(X)
    np.testing.assert_allclose(answered, usual.predict(X), rtol=1e-6)
    assert trees.multiply_adds_of(member.module) > 0


@pytest.fixture
def few_candidates(monkeypatch):
    """Fewer companions to choose among."""
    monkeypatch.setattr(companions, "TREES_IN_FRONT", ())
    monkeypatch.setattr(companions, "TABLES_IN_FRONT", companions.TABLES_IN_FRONT[:1])


@pytest.mark.usefixtures("few_candidates")
def test_companions_of_a_lone_classifier_are_taught_by_it(monkeypatch):
    taught = []
    learn_network = MemberTrainer._learn_network

    def recorded(trainer, cut, samples, early_weight, n_epochs):
        taught.append(samples.y.numpy())
        return learn_network(trainer, cut, samples, early_weight, n_epochs)

    monkeypatch.setattr(MemberTrainer, "_learn_network", recorded)
    made = []
    distilled_extra_trees = trees.distilled_extra_trees

    def kept(X, probabilities, *others):
        made.append(probabilities)
        return distilled_extra_trees(X, probabilities, *others)

    monkeypatch.setattr("sklearn_jeidnn._fit.assembly.distilled_extra_trees", kept)
    slow = ExtraTreesClassifier(100, bootstrap=True, oob_score=True, random_state=0)
    table, y = people(500)
    inputs = table[["age", "member"]].fillna(-1.0).to_numpy(np.float32)
    clf = EarlyExitClassifier(
        slow, max_epochs=2, companion_training="distilled", random_state=0
    ).fit(inputs, y)
    (labels,) = made
    own = clf.module_.oob_decision_function_
    np.testing.assert_allclose((2 * labels - own).max(1), 1, atol=1e-5)
    (of_network,) = taught
    np.testing.assert_allclose(of_network, labels, rtol=1e-6)
    again = pickle.loads(pickle.dumps(clf))
    assert np.array_equal(again.predict_proba(inputs), clf.predict_proba(inputs))


# So small a forest may take no longer than what stands in front, as the clock has it.
@pytest.mark.filterwarnings("ignore:nothing is saved")
@pytest.mark.usefixtures("few_candidates")
def test_words_and_missing_values_are_no_matter():
    class OfFrames(ExtraTreesClassifier):
        def fit(self, X, y, sample_weight=None):
            return super().fit(self.numbers(X), y, sample_weight)

        def predict_proba(self, X):
            return super().predict_proba(self.numbers(X))

        def numbers(self, X):
            return np.column_stack([X["age"].fillna(-1), X["job"] == "smith", X["member"]])

    clf = EarlyExitClassifier(
        OfFrames(20, random_state=0),
        max_epochs=2,
        companion_training="distilled",
        random_state=0,
    )
    assert clf.fit(*people(500)).score(*people(200, seed=1)) > 0.9


def test_folds_and_a_classifier_that_teaches_do_not_go_together(digits):
    clf = quick_classifier(module=KNeighborsClassifier(), companion_training="distilled", cv=3)
    with pytest.raises(ValueError, match=r"cv=3 .*companion_training='distilled'.*cv=None"):
        clf.set_params(companion="auto").fit(*digits)

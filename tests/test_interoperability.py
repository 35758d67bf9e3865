"""Each row of docs/interoperability.md: its code runs, and what it says is so."""

# Some names are read by the page's code alone.
# ruff: noqa: F401

import inspect
import pathlib
import re
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy import sparse
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import get_tags
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    LRScheduler,
    ProgressBar,
)
from torch.optim.lr_scheduler import StepLR

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn.model_selection import mean_cost

from .conftest import TinyConv, quick_classifier

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "interoperability.md"
ROW = re.compile(r"^\| (?!with )([^|]+?) \| `(.+?)` \|", re.MULTILINE)
CODE = dict(ROW.findall(PAGE.read_text()))
EPOCHS = 5
# scikit-learn 1.6 reads no names of polars 2.
reads_polars = pytest.mark.skipif(sklearn.__version__ < "1.7", reason="scikit-learn before 1.7")


def run(row, **names):
    """What the row's code gives, with these names."""
    return eval(CODE[row], {**globals(), **names})


def small(**params):
    """Fitted in a tenth of a second, with gates that need no descent."""
    quick = {"module__width": 32, "module__n_blocks": 2, "max_epochs": EPOCHS}
    return quick_classifier(**{**quick, "exit_policy": "confidence", **params})


@pytest.fixture
def clf():
    return small()


@pytest.fixture(scope="module")
def X(digits):
    return digits[0]


@pytest.fixture(scope="module")
def y(digits):
    return digits[1]


@pytest.fixture(scope="module")
def new(fresh_digits):
    return fresh_digits[0][:400], fresh_digits[1][:400]


@pytest.fixture(scope="module")
def fitted(X, y):
    return small().fit(X, y)


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True, as_frame=True)


@pytest.fixture(scope="module")
def fitted_on_iris(iris):
    return small(max_epochs=20).fit(*iris)


@pytest.fixture(scope="module")
def tumours():
    X, y = load_breast_cancer(return_X_y=True)
    return X[:300], y[:300]


def test_each_row_of_the_page_has_a_test_and_each_test_a_row():
    names = {name for name, _ in inspect.getmembers(sys.modules[__name__], inspect.isfunction)}
    tests = {name.removeprefix("test_") for name in names if name.startswith("test_")}
    tests.remove("each_row_of_the_page_has_a_test_and_each_test_a_row")
    assert {re.sub(r"\W", "_", row).lower() for row in CODE} == tests
    assert len(CODE) == len(ROW.findall(PAGE.read_text())) > 30


# Composition.


def test_pipeline(clf, X, y):
    piped = run("Pipeline", clf=clf, X=X, y=y)
    scaled = StandardScaler().fit_transform(X)
    alone = small().fit(scaled, y)
    assert np.array_equal(piped.predict_proba(X), alone.predict_proba(scaled))


def test_columntransformer(iris):
    X, y = iris
    frame = X.assign(colour=np.where(X["petal width (cm)"] > 1, "deep", "pale"))
    piped = run("ColumnTransformer", clf=small(max_epochs=20), frame=frame, y=y)
    assert piped[-1].n_features_in_ == 6 and piped.score(frame, y) > 0.8
    # What is encoded is read: with the other word other answers come.
    other = frame.assign(colour=np.where(frame.colour == "deep", "pale", "deep"))
    assert not np.allclose(piped.predict_proba(other), piped.predict_proba(frame))


def test_calibratedclassifiercv(fitted, X, y, new):
    frozen = run("CalibratedClassifierCV", fitted=fitted, X_new=new[0], y_new=new[1])
    (wrapped,) = frozen.calibrated_classifiers_
    assert np.array_equal(wrapped.estimator.predict(X), fitted.predict(X))
    folded = CalibratedClassifierCV(small(max_epochs=20), cv=2).fit(X, y)
    for calibrated in (frozen, folded):
        assert not np.allclose(calibrated.predict_proba(X), fitted.predict_proba(X))
        assert calibrated.score(X, y) > 0.7


def test_tunedthresholdclassifiercv(clf, tumours):
    X, two = tumours
    tuned = run("TunedThresholdClassifierCV", clf=clf, X=X, two=two)
    of_class = tuned.estimator_.predict_proba(X)[:, 1]
    assert np.array_equal(tuned.predict(X), of_class >= tuned.best_threshold_)
    assert tuned.score(X, two) > 0.8


def test_fixedthresholdclassifier(tumours):
    X, two = tumours
    fitted_two = small().fit(X, two)
    fixed = run("FixedThresholdClassifier", fitted_two=fitted_two, X=X, two=two)
    assert np.array_equal(fixed.predict(X), fitted_two.predict_proba(X)[:, 1] >= 0.9)
    assert fixed.predict(X).sum() < fitted_two.predict(X).sum()


def test_onevsrestclassifier(iris):
    X, y = iris
    several = run("OneVsRestClassifier", clf=small(max_epochs=20), X=X, y=y)
    assert [list(one.classes_) for one in several.estimators_] == [[0, 1]] * 3
    assert several.score(X, y) > 0.8


def test_votingclassifier(iris):
    X, y = iris[0].to_numpy(), np.array(["a", "b", "c"])[iris[1]]
    voting = run("VotingClassifier", clf=small(), X=X, y=y)
    probabilities = [member.predict_proba(X) for member in voting.estimators_]
    np.testing.assert_allclose(voting.predict_proba(X), np.mean(probabilities, axis=0))
    hard = VotingClassifier([("early", small())], voting="hard").fit(X, y)
    assert np.array_equal(
        hard.predict(X), np.array(["a", "b", "c"])[hard.estimators_[0].predict(X)]
    )


def test_stackingclassifier(iris):
    X, y = iris[0].to_numpy(), iris[1]
    stack = run("StackingClassifier", clf=small(), X=X, y=y)
    np.testing.assert_allclose(stack.transform(X)[:, :3], stack.estimators_[0].predict_proba(X))
    assert stack.score(X, y) > 0.8


@pytest.mark.parametrize("routing", [False, True])
def test_baggingclassifier(X, y, routing):
    with sklearn.config_context(enable_metadata_routing=routing):
        clf = small().set_fit_request(sample_weight=True) if routing else small()
        bagged = run("BaggingClassifier", clf=clf, X=X, y=y)
    probabilities = [member.predict_proba(X) for member in bagged.estimators_]
    np.testing.assert_allclose(bagged.predict_proba(X), np.mean(probabilities, axis=0))
    # Of 300 draws about 190 samples are left, of which a twentieth calibrates; copies would make it 15.
    assert all(len(member.conformity_scores_) < 12 for member in bagged.estimators_)


# Search and inspection.


def test_gridsearchcv(clf, X, y):
    search = run("GridSearchCV", clf=clf, X=X, y=y)
    same = small(**search.best_params_).fit(X, y)
    assert np.array_equal(search.predict_proba(X), same.predict_proba(X))
    grid = {
        "earlyexitclassifier__cost_weight": [0, 1],
        "earlyexitclassifier__module__width": [8, 32],
    }
    piped = make_pipeline(StandardScaler(), small(max_epochs=10))
    search = GridSearchCV(piped, grid, cv=2).fit(X, y)
    assert search.best_params_["earlyexitclassifier__module__width"] == 32
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_halvinggridsearchcv(clf, X, y):
    search = run("HalvingGridSearchCV", clf=clf, X=X, y=y)
    assert search.n_resources_ == [1, 3] and search.n_candidates_ == [3, 1]
    assert len(search.best_estimator_.history_) == 3


def test_randomizedsearchcv(clf, X, y):
    search = run("RandomizedSearchCV", clf=clf, X=X, y=y)
    assert len(set(search.cv_results_["param_lr"])) == 2
    same = small(lr=float(search.best_params_["lr"])).fit(X, y)
    assert np.array_equal(search.predict_proba(X), same.predict_proba(X))


def test_cross_validate(clf, X, y):
    scores = run("cross_validate", clf=clf, X=X, y=y)
    folds = StratifiedKFold(2).split(X, y)
    for i, (_, test) in enumerate(folds):
        member = scores["estimator"][i]
        assert scores["test_accuracy"][i] == member.score(X[test], y[test]) > 0.4
        assert scores["test_mean_cost"][i] == member.mean_cost(X[test])


def test_cross_val_predict(clf, X, y):
    found = run("cross_val_predict", clf=clf, X=X, y=y)
    for train, test in StratifiedKFold(2).split(X, y):
        np.testing.assert_array_equal(
            found[test], small().fit(X[train], y[train]).predict_proba(X[test])
        )


def test_learning_curve(clf, X, y):
    sizes, _, scores = run("learning_curve", clf=clf, X=X, y=y)
    few, many = scores.mean(axis=1)
    assert sizes.tolist() == [30, 150] and few < many


def test_permutation_importance(iris, fitted_on_iris):
    X, y = iris
    frame = X.assign(constant=1.0, word="word")
    fitted = small(max_epochs=20).fit(frame, y)
    found = run("permutation_importance", fitted=fitted, frame=frame, y=y)
    importance = dict(zip(frame, found.importances_mean))
    assert importance["constant"] == importance["word"] == 0
    assert max(importance["petal length (cm)"], importance["petal width (cm)"]) > 0.02


def test_partial_dependence(iris, fitted_on_iris):
    frame, _ = iris
    found = run("partial_dependence", fitted=fitted_on_iris, frame=frame)
    for value, average in zip(found["grid_values"][0], found["average"].T):
        probabilities = fitted_on_iris.predict_proba(frame.assign(**{"petal width (cm)": value}))
        np.testing.assert_allclose(probabilities.mean(axis=0), average, atol=1e-6)
    assert np.ptp(found["average"], axis=1).max() > 0.05


# Protocols.


def test_pandas(clf, iris):
    frame, y = iris
    y = pd.Series(np.array(["a", "b", "c"])[y], index=range(150)[::-1])
    labels = run("pandas", clf=clf, frame=frame, y=y)
    same = small().fit(frame.to_numpy(), y.to_numpy())
    assert np.array_equal(labels, same.predict(frame.to_numpy()))
    assert clf.feature_names_in_.tolist() == list(frame)


@reads_polars
def test_polars(clf, iris):
    polars = pytest.importorskip("polars")
    frame, y = iris
    words = np.array(["a", "b", "c"])[y]
    own = polars.DataFrame({name: frame[name].to_numpy() for name in frame})
    labels = run("polars", clf=clf, polars_frame=own, y=polars.Series(words))
    assert np.array_equal(labels, small().fit(frame, words).predict(frame))
    assert clf.feature_names_in_.tolist() == list(frame)
    search = GridSearchCV(clf, {"cost_weight": [0.1]}, cv=2).fit(own, polars.Series(words))
    assert search.best_estimator_.feature_names_in_.tolist() == list(frame)


def test_set_output(clf, iris):
    frame, y = iris
    piped = run("set_output", clf=clf, frame=frame, y=y)
    assert piped[-1].feature_names_in_.tolist() == list(frame)
    stack = StackingClassifier([("early", small())], cv=2).set_output(transform="pandas")
    columns = list(stack.fit(frame, y).transform(frame))
    assert columns == [f"stackingclassifier_early{i}" for i in range(3)]
    assert not hasattr(clf, "set_output")


def test_metadata_routing(clf, X, y, new):
    X_val, y_val = new[0][:100], new[1][:100]
    weights = np.where(y < 5, 1.0, 1e-3)
    given = {"sample_weight": weights, "X_val": X_val, "y_val": y_val}
    clf.set_params(max_epochs=8)
    with sklearn.config_context(enable_metadata_routing=True):
        clf.set_score_request(sample_weight=True)
        piped = run("metadata routing", clf=clf)
        piped[0].set_fit_request(sample_weight=True)
        searched = GridSearchCV(piped, {"clf__cost_weight": [0.02]}, cv=2).fit(X, y, **given)
        validated = cross_validate(piped, X, y, cv=2, params=given, return_estimator=True)
        members = [piped.fit(X, y, **given), searched.best_estimator_, *validated["estimator"]]
    for member in members:
        # Half of X_val calibrates: no sample of X does.
        assert len(member[-1].conformity_scores_) == 50
        assert member.score(X[y < 5], y[y < 5]) > 0.6 > member.score(X[y >= 5], y[y >= 5])
    # Scored with weights, the samples that are hardly known hardly count.
    assert validated["test_score"].min() > 0.5


def test_callbacks_of_scikit_learn(clf, X, y):
    callback = pytest.importorskip("sklearn.callback").ScoringMonitor(scoring="accuracy")
    fitted = run("callbacks of scikit-learn", clf=clf, callback=callback, X=X, y=y)
    assert callback.get_logs().data[-1]["accuracy"] == fitted.score(X, y)


def test_images(X, y):
    images = X.reshape(-1, 8, 8)
    clf = EarlyExitClassifier(TinyConv, max_epochs=EPOCHS, exit_policy="confidence", random_state=0)
    labels = run("images", image_clf=clf, images=images, y=y)
    assert np.array_equal(labels, clone(clf).fit(X, y).predict(X))
    for several in (
        make_pipeline(clf),
        VotingClassifier([("early", clf)]),
        StackingClassifier([("early", clf)], cv=2),
        CalibratedClassifierCV(FrozenEstimator(clf)),
        GridSearchCV(clf, {"cost_weight": [0.1]}, cv=2),
    ):
        assert several.fit(images, y).predict(images).shape == y.shape
    assert get_tags(clf).input_tags.three_d_array and get_tags(clf).input_tags.dict
    assert get_tags(EarlyExitClassifier()).input_tags.three_d_array
    linear = get_tags(EarlyExitClassifier([LogisticRegression(), None])).input_tags
    assert not linear.three_d_array and not linear.dict and not linear.sparse


def test_sparse_matrices(clf, fitted, X, y):
    X_sparse = sparse.csr_array(X)
    same = run("sparse matrices", clf=clf, X_sparse=X_sparse, y=y)
    assert np.array_equal(same.predict_proba(X), fitted.predict_proba(X))
    for ask in (lambda: small().fit(X_sparse, y), lambda: fitted.predict(X_sparse)):
        with pytest.raises(TypeError, match=r"X\.toarray\(\).*OneHotEncoder\(sparse_output=False"):
            ask()
    with pytest.raises(TypeError, match=r"passed for X_val.*Give X_val\.toarray\(\)"):
        small().fit(X, y, X_val=X_sparse, y_val=y)
    with pytest.raises(TypeError, match="sparse_output=False"):
        fitted.predictor().predict(X_sparse)


# skorch's callbacks.


def test_earlystopping(clf, X, y):
    stopped = run("EarlyStopping", clf=clf, X=X, y=y)
    assert len(stopped.history_) == 2 < EPOCHS


def test_lrscheduler(clf, X, y):
    scheduled = run("LRScheduler", clf=clf, X=X, y=y)
    np.testing.assert_allclose(scheduled.history_[:, "event_lr"], 5e-3 * 0.5 ** np.arange(EPOCHS))


def test_checkpoint(clf, X, y, tmp_path):
    clf.set_params(callbacks__best_epoch=None)
    kept = run("Checkpoint", clf=clf, X=X, y=y, folder=str(tmp_path))
    stored = torch.load(tmp_path / "params.pt")
    own = kept.network_.state_dict()
    stages = {name: value for name, value in stored.items() if name.startswith("stages.")}
    assert stages and all(torch.equal(own[name], value) for name, value in stages.items())
    with pytest.raises(ValueError, match=r"none is held out.*give cv=None"):
        small(cv=2, callbacks=[Checkpoint(dirname=str(tmp_path))]).fit(X, y)


def test_epochscoring(clf, X, y):
    words = np.array(list("abcdefghij"))[y]
    scored = run("EpochScoring", clf=clf, X=X, y=words).history_
    assert scored[:, "score"] == scored[:, "valid_acc"] and len(scored) == EPOCHS
    assert "score" not in clf.set_params(cv=2).fit(X, y).history_[-1]


def test_progressbar(clf, X, y, capsys):
    history = run("ProgressBar", clf=clf, X=X, y=y).history_
    n_batches = history[0, "train_batch_count"] + history[0, "valid_batch_count"]
    assert f"/{n_batches} [" in capsys.readouterr().err


# Other packages.


def recalibrated(fitted, samples):
    """Another classifier with the same weights, whose sets these samples calibrate."""
    own = fitted.at(cost_weight=fitted.cost_weight_)
    return own.conformalize(*samples)


@pytest.mark.filterwarnings("ignore")
def test_mapie(fitted, new, fresh_digits):
    classification = pytest.importorskip("mapie.classification")
    theirs = run(
        "MAPIE",
        fitted=fitted,
        X_new=new[0],
        y_new=new[1],
        SplitConformalClassifier=classification.SplitConformalClassifier,
    )
    X = fresh_digits[0][400:]
    labels, sets = theirs.predict_set(X)
    assert np.array_equal(labels, fitted.predict(X))
    own = recalibrated(fitted, new).predict_set(X, confidence_level=0.9)
    assert np.array_equal(sets[..., 0], own) and 1 <= own.sum(axis=1).mean() < 6


@pytest.mark.filterwarnings("ignore")
def test_crepes(fitted, new, fresh_digits):
    wrap = pytest.importorskip("crepes").WrapClassifier
    theirs = run("crepes", fitted=fitted, X_new=new[0], y_new=new[1], WrapClassifier=wrap)
    X = fresh_digits[0][400:]
    sets = theirs.predict_set(X, confidence=0.9, smoothing=False)
    own = recalibrated(fitted, new).predict_set(X, confidence_level=0.9)
    assert [labels.tolist() for labels in map(np.flatnonzero, own)] == sets


@pytest.mark.filterwarnings("ignore")
def test_dask(clf, X, y):
    distributed = pytest.importorskip("distributed")
    alone = run("Dask", clf=clf, X=X, y=y).cv_results_
    one = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    with distributed.Client(processes=False, **one), joblib.parallel_backend("dask"):
        shared = run("Dask", clf=clf, X=X, y=y).cv_results_
    assert np.array_equal(shared["mean_test_score"], alone["mean_test_score"])
    assert np.isfinite(alone["mean_test_score"]).all()


@pytest.mark.filterwarnings("ignore")
def test_shap(fitted, X):
    shap = pytest.importorskip("shap")
    explainer = run("SHAP", fitted=fitted, X=X, shap=shap)
    found = explainer(X[20:22], max_evals=2 * 64 + 1)
    sums = found.values.sum(axis=1) + found.base_values
    np.testing.assert_allclose(sums, fitted.predict_proba(X[20:22]), atol=1e-6)
    # A pixel that is blank in all images has no part in it.
    assert found.values.shape == (2, 64, 10) and not found.values[:, 0].any()


class Prune(Callback):
    """Reports the loss of each epoch to a trial, and ends the fit where the trial is pruned."""

    def __init__(self, trial, pruned):
        self.trial, self.pruned = trial, pruned

    def on_epoch_end(self, net, **kwargs):
        self.trial.report(net.history[-1, "valid_loss"], len(net.history))
        if self.trial.should_prune():
            raise self.pruned


@pytest.mark.filterwarnings("ignore")
def test_optuna(X, y, new):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.GridSampler({"cost_weight": [0.0, 10.0]}, seed=0)
    study = run("Optuna", optuna=optuna, sampler=sampler)

    def accuracy_and_cost(trial):
        clf = small(cost_weight=trial.suggest_float("cost_weight", 0, 10)).fit(X, y)
        return clf.score(*new), clf.mean_cost(new[0])

    study.optimize(accuracy_and_cost)
    costs = {trial.params["cost_weight"]: trial.values[1] for trial in study.trials}
    assert len(costs) == 2 and costs[10.0] <= costs[0.0]
    clf = small().fit(X, y)
    before = clf.predict_proba(X)

    def loss(trial):
        trial.suggest_categorical("lr", [1e-6])
        clf.set_params(lr=1e-6, callbacks=[Prune(trial, optuna.TrialPruned)])
        return clf.fit(X, y).history_[-1, "valid_loss"]

    pruned = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=0.0))
    pruned.optimize(loss, n_trials=1)
    assert pruned.trials[0].state == optuna.trial.TrialState.PRUNED
    assert np.array_equal(clf.predict_proba(X), before)

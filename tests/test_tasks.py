"""scikit-learn's callbacks are told of trainings and epochs, and may end a training."""

import copy
import importlib
import pickle
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, EarlyStopping

from sklearn_jeidnn._fit import tasks

from .conftest import quick_classifier

# There are callbacks from scikit-learn 1.9 on.
callback = pytest.importorskip("sklearn.callback")
SMALL = (None, {"width": 8, "n_blocks": 1})


class Notes:
    """Notes what it is told."""

    max_propagation_depth = None

    def __init__(self):
        self.rows = []

    def setup(self, estimator, context):
        self.rows.append("setup")

    def teardown(self, estimator, context):
        self.rows.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.rows.append(("begin", context.task_name, context.max_subtasks))

    def on_fit_task_end(self, estimator, context):
        self.rows.append(("end", context.task_name))


class Stops(Notes):
    """Ends each training after an epoch."""

    def on_fit_task_end(self, estimator, context):
        super().on_fit_task_end(estimator, context)
        return context.task_name == "epoch"


class Fails(Notes):
    def __init__(self, where):
        super().__init__()
        self.where = where

    def on_fit_task_end(self, estimator, context):
        if context.task_name == self.where:
            raise RuntimeError("a user's mistake")


def tiny(**params):
    return quick_classifier(**{"max_epochs": 2, "module__n_blocks": 2, **params})


EPOCH = [("begin", "epoch", 0), ("end", "epoch")]
LAST = [("begin", tasks.LAST_TASK, 0), ("end", tasks.LAST_TASK)]


def training(name, n_epochs):
    return [("begin", name, n_epochs), *EPOCH * n_epochs, ("end", name)]


def test_trainings_and_epochs_are_tasks(digits):
    notes = Notes()
    tiny().set_callbacks(notes).fit(*digits)
    name = "TabularResNet, member 1 of 1"
    fit = [("begin", "fit", 2), *training(name, 2), *LAST, ("end", "fit")]
    assert notes.rows == ["setup", *fit, "teardown"]


def test_folds_and_members_that_have_no_epochs_are_tasks_too(digits):
    notes = Notes()
    clf = quick_classifier(module=[GaussianNB(), SMALL], companion_costs=[0.1], cv=2, max_epochs=1)
    clf.set_callbacks(notes).fit(*digits)
    of_fit = notes.rows[2:-4]
    assert notes.rows[1] == ("begin", "fit", 7)
    rounds = ["without fold 1 of 2", "without fold 2 of 2", "on all samples"]
    expected = [
        training("TabularResNet, member 1 of 2, " + of_round, 1)
        + training("GaussianNB, member 2 of 2, " + of_round, 0)
        for of_round in rounds
    ]
    assert of_fit == sum(expected, [])


def test_a_warm_up_and_its_heads_are_one_training_of_all_their_epochs(digits):
    notes = Notes()
    tiny(freeze_backbone="after_warmup").set_callbacks(notes).fit(*digits)
    assert notes.rows[2:11] == training("TabularResNet, member 1 of 1", 4)[:9]


class Order(Callback):
    """Notes an epoch's batches between what scikit-learn's callback is told."""

    def __init__(self, rows):
        self.rows = rows

    def on_train_begin(self, net, **kwargs):
        self.has_noted = False

    def on_batch_end(self, net, **kwargs):
        if not self.has_noted:
            self.rows.append("first batch")
        self.has_noted = True


def test_an_epoch_is_told_before_its_first_batch_and_when_it_is_done(digits):
    notes = Notes()
    tiny(max_epochs=1, callbacks=[Order(notes.rows)]).set_callbacks(notes).fit(*digits)
    assert notes.rows[3:6] == [EPOCH[0], "first batch", EPOCH[1]]


def test_an_epoch_after_which_another_callback_ends_the_training_is_told_whole(digits):
    notes = Notes()
    stop = EarlyStopping(patience=1, threshold=100, threshold_mode="abs")
    tiny(max_epochs=9, callbacks=[stop]).set_callbacks(notes).fit(*digits)
    assert notes.rows[3:-5] == EPOCH * 2 and notes.rows[-5][0] == "end"


def test_callbacks_come_through_pipelines_and_searches(digits):
    notes = Notes()
    search = GridSearchCV(make_pipeline(StandardScaler(), tiny()), {}, cv=2)
    search.set_callbacks(notes).fit(*digits)
    # Two splits, and the best candidate once more.
    assert notes.rows.count(("begin", "TabularResNet, member 1 of 1", 2)) == 3
    assert notes.rows.count(EPOCH[1]) == 6
    assert [notes.rows.count(word) for word in ("setup", "teardown")] == [1, 1]


def test_the_score_of_the_fitted_classifier_is_monitored(digits, monkeypatch):
    monitor = callback.ScoringMonitor(scoring="accuracy")
    clf = tiny().set_callbacks(monitor).fit(*digits)
    (row,) = monitor.get_logs().data
    assert row["task_name"] == "fit" and row["accuracy"] == clf.score(*digits)


def test_the_progress_bar_shows_members(digits, capsys):
    pytest.importorskip("rich")
    tiny().set_callbacks(callback.ProgressBar()).fit(*digits)
    out = capsys.readouterr().out
    assert "EarlyExitClassifier - fit" in out and "TabularResNet, member 1 of 1" in out


def test_a_callback_may_end_trainings(digits):
    clf = tiny().set_callbacks(Stops()).fit(*digits)
    once = tiny(max_epochs=1)
    assert len(clf.history_) == 1 and len(once.fit(*digits).history_) == 1
    assert clf.predict(digits[0]).shape == (300,)


@pytest.mark.parametrize("name", ["memory", "checkpoint"])
def test_what_is_kept_for_other_fits_is_not_ended_by_a_callback(digits, tmp_path, name):
    clf = tiny(**{name: str(tmp_path)}).set_callbacks(Stops())
    with pytest.raises(ValueError, match=rf"ends a training, which {name}='.*give {name}=None"):
        clf.fit(*digits)


@pytest.mark.parametrize("where", ["epoch", tasks.LAST_TASK, "fit"])
def test_a_callback_that_fails_leaves_the_estimator_as_it_was(digits, fitted, where):
    clf = copy.copy(fitted)
    failing = Fails(where)
    before = clf.predict_proba(digits[0])
    clf.set_params(max_epochs=1).set_callbacks(failing)
    with pytest.raises(RuntimeError, match="a user's mistake"):
        clf.fit(*digits)
    assert np.array_equal(clf.predict_proba(digits[0]), before)
    assert failing.rows[-1] == "teardown" and not hasattr(clf, "_callback_fit_ctx")


def test_callbacks_change_no_answer_and_stay_with_copies(digits):
    clf = tiny().set_callbacks(Notes()).fit(*digits)
    plain = tiny().fit(*digits)
    assert np.array_equal(clf.predict_proba(digits[0]), plain.predict_proba(digits[0]))
    for other in (pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf), clone(clf).fit(*digits)):
        assert np.array_equal(other.predict_proba(digits[0]), plain.predict_proba(digits[0]))


def test_callbacks_of_scikit_learns_in_the_place_of_skorchs_are_refused(digits):
    with pytest.raises(TypeError, match=r"no skorch callback.*given to set_callbacks\(\)"):
        tiny(callbacks=[Notes()]).fit(*digits)


def test_without_callbacks_in_scikit_learn_there_is_nothing_to_tell(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "sklearn.callback", None)
        older = importlib.reload(tasks)
        assert not hasattr(older.CallbackSupportMixin, "set_callbacks")
        told = older.FitTasks(older.CallbackSupportMixin(), {})
        told.begin(1)
        with told.of_training("network", 2):
            told.epoch_begun()
            assert told.epoch_done() is False
        told.begin_last()
        told.end(dict)
    importlib.reload(tasks)

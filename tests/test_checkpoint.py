"""A fit that was killed goes on when it is started again, and comes to the result that it would have come to."""

import contextlib
import errno
import os
import pathlib
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._fit import (
    cascade,
    checkpoint,
    checkpoint_files,
    classifiers,
    held_out,
    training,
    whole_times,
)
from sklearn_jeidnn._fit.checkpoint import Checkpoint, StoredLoop
from sklearn_jeidnn._fit.checkpoint_files import (
    DamagedFileError,
    packed,
    read_whole,
    write_whole,
)
from sklearn_jeidnn._fit.schedules import StepLimits
from sklearn_jeidnn._fit.snapshots import Snapshots

from .conftest import TinyConv, gates_descend, quick_classifier

N_EPOCHS = 4


@pytest.fixture(autouse=True, scope="module")
def _stores_everything():
    """Each epoch and each step, however quick it is; trainings that find their end find it soon, and gates are poor."""
    with gates_descend(5), pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "LEAST_SECONDS", 0.0)
        patch.setattr(checkpoint, "SHARE", float("inf"))
        patch.setattr(cascade, "ALONE", StepLimits(fewest=30, enough=100))
        yield


@pytest.fixture
def steps(monkeypatch):
    """Training steps done so far, as a list of one."""
    count = [0]
    original = training.ExitsNet.train_step

    def counted(self, *args, **kwargs):
        count[0] += 1
        return original(self, *args, **kwargs)

    monkeypatch.setattr(training.ExitsNet, "train_step", counted)
    return count


class Killed(BaseException):
    """Ends a fit at once: nothing catches it."""


@contextlib.contextmanager
def killed_after(n_epochs):
    """The fit ends right after it has stored the state of an epoch, its n-th over all trainings."""
    original, done = StoredLoop.epoch_done, []

    def epoch_done(self):
        original(self)
        done.append(1)
        if len(done) == n_epochs:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoredLoop, "epoch_done", epoch_done)
        with pytest.raises(Killed):
            yield


def classifier(**params):
    return quick_classifier(**{"module": TinyConv, "max_epochs": N_EPOCHS, **params})


def weights_of(clf):
    return {**clf.network_.state_dict(), **dict(clf.network_.named_buffers())}


def history_of(clf):
    rows = [] if clf.history_ is None else clf.history_
    return [
        {name: value for name, value in row.items() if name not in ("dur", "batches")}
        for row in rows
    ]


def assert_same(first, second, X):
    own, others = weights_of(first), weights_of(second)
    assert own.keys() == others.keys()
    assert all(torch.equal(own[name], others[name]) for name in own)
    assert np.array_equal(first.predict_proba(X), second.predict_proba(X))
    assert np.array_equal(first.predict_exit(X), second.predict_exit(X))
    assert np.array_equal(first.conformity_scores_, second.conformity_scores_)
    assert history_of(first) == history_of(second)


class NoisyCollate:
    """An augmentation with random numbers of its own, which also counts its calls."""

    def __init__(self):
        self.rng = np.random.default_rng(3)
        self.n_calls = 0

    def __call__(self, batch):
        inputs, y = batch.dataset[batch.rows]
        (X,) = inputs["X"]
        self.n_calls += 1
        noise = self.rng.normal(size=tuple(X.shape)) + self.n_calls / 10
        return {**inputs, "X": (X + torch.as_tensor(noise, dtype=torch.float32),)}, y


def globally_noisy(batch):
    inputs, y = batch.dataset[batch.rows]
    (X,) = inputs["X"]
    noise = np.random.normal(size=tuple(X.shape)) + random.random()  # noqa: NPY002
    return {**inputs, "X": (X + torch.as_tensor(noise, dtype=torch.float32),)}, y


class Anneals(nn.Module):
    """Notes in a number and in a buffer that is not stored with the weights how often it was called."""

    def __init__(self):
        super().__init__()
        self.n_calls = 0
        self.register_buffer("shift", torch.zeros(1), persistent=False)

    def forward(self, h):
        if self.training:
            self.n_calls += 1
            self.shift += 0.01
        return h * (1 + self.n_calls / 100) + self.shift


class Annealing(nn.Module):
    """Anneals inside of a block, which is not traced."""

    def __init__(self, n_classes=10):
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.anneals = Anneals()
        self.last = nn.Linear(16, n_classes)

    def forward(self, X):
        return self.last(self.anneals(self.first(X / 16)).relu())


class Averages(Callback):
    """Keeps a moving average of the weights, and takes it in the end."""

    def __init__(self, decay=0.5):
        self.decay = decay

    def on_train_begin(self, net, **kwargs):
        self.averaged_ = torch.optim.swa_utils.AveragedModel(net.module_)

    def on_epoch_end(self, net, **kwargs):
        self.averaged_.update_parameters(net.module_)

    def on_train_end(self, net, **kwargs):
        net.module_.load_state_dict(self.averaged_.module.state_dict())


FROZEN = {"module": TinyConv().eval(), "freeze_backbone": True}
# What is fitted, and after how many epochs it is killed.
FITS = {
    "a network": ({}, 1),
    "a network in its last epoch": ({}, N_EPOCHS),
    "cycles": ({"max_epochs": "auto"}, 3),
    "heads of a frozen one": (FROZEN, 2),
    "first the network, then its heads": ({"freeze_backbone": "after_warmup"}, N_EPOCHS + 2),
    "two members": ({"module": [TinyConv, TinyConv]}, N_EPOCHS + 2),
    "distilled": (
        {"module": [TinyConv, TinyConv], "companion_training": "distilled"},
        N_EPOCHS + 2,
    ),
    "the first fold": ({"cv": 2}, 2),
    "all folds": ({"cv": 2}, 2 * N_EPOCHS + 2),
    "the heads of bilevel gates": ({"gate_training": "bilevel"}, N_EPOCHS + 2),
    "bilevel gates": ({"gate_training": "bilevel"}, 2 * N_EPOCHS + 2),
    "stops early": (
        {"callbacks": [EarlyStopping(patience=2, monitor="train_loss", load_best=True)]},
        3,
    ),
    "another schedule": ({"callbacks": [LRScheduler(StepLR, step_size=1, gamma=0.5)]}, 2),
    "a plateau": ({"callbacks": [LRScheduler(ReduceLROnPlateau, patience=0, threshold=0.9)]}, 3),
    "a schedule of a function": (
        {"callbacks": [LRScheduler(LambdaLR, lr_lambda=lambda epoch: 0.5**epoch)]},
        2,
    ),
    "averaged weights": ({"callbacks": [Averages()]}, 2),
    "an augmentation": ({"iterator_train__collate_fn": NoisyCollate}, 2),
    "an augmentation in folds": (
        {"iterator_train__collate_fn": NoisyCollate, "cv": 2},
        N_EPOCHS + 2,
    ),
    "one of NumPy's own numbers": ({"iterator_train__collate_fn": globally_noisy}, 2),
    "its own generator": ({"iterator_train__generator": torch.Generator}, 2),
    "momentum": ({"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}, 2),
    "what is no weight": ({"module": Annealing, "exits": ["anneals"]}, 2),
}


def made(params):
    """Objects with a state of their own are made anew, as a program that is started again makes them."""
    stateful = (NoisyCollate, torch.Generator)
    return {name: value() if value in stateful else value for name, value in params.items()}


def seed_globals(seed):
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


@pytest.mark.filterwarnings("ignore:.*(X_val is not given|of the module itself|takes networks)")
@pytest.mark.parametrize("name", FITS)
def test_a_killed_fit_goes_on_to_the_same_result(digits, tmp_path, steps, name):
    params, n_epochs = FITS[name]
    seed_globals(0)
    whole = classifier(**made(params)).fit(*digits)
    n_steps, steps[0] = steps[0], 0
    seed_globals(0)
    with killed_after(n_epochs):
        classifier(**made(params), checkpoint=tmp_path).fit(*digits)
    assert list(tmp_path.iterdir())
    # A program that is started again draws other numbers of NumPy's and Python's.
    seed_globals(1)
    resumed = classifier(**made(params), checkpoint=tmp_path).fit(*digits)
    assert_same(resumed, whole, digits[0])
    assert steps[0] == n_steps, "no step is done twice, none is left out"
    assert not list(tmp_path.iterdir()), "files of a fit that has ended are removed"


def test_a_fit_that_is_killed_again_and_again_ends(digits, tmp_path, steps):
    whole = classifier(cv=2).fit(*digits)
    n_steps, steps[0] = steps[0], 0
    clf = classifier(cv=2, checkpoint=tmp_path)
    for _ in range(5):
        with killed_after(2):
            clf.fit(*digits)
    assert_same(clf.fit(*digits), whole, digits[0])
    assert steps[0] == n_steps


def test_ctrl_c_in_a_notebook_goes_on_with_the_same_estimator(digits, tmp_path, steps, monkeypatch):
    clf = classifier(checkpoint=tmp_path, callbacks=[EarlyStopping(monitor="train_loss")])
    whole = clone(clf).set_params(checkpoint=None).fit(*digits)
    n_steps, steps[0] = steps[0], 0
    original = training.ExitsNet.validation_step

    def interrupted(self, *args, **kwargs):
        if len(self.history) == 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training.ExitsNet, "validation_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(*digits)
    assert_same(clf.fit(*digits), whole, digits[0])
    # Those of the epoch that was not done.
    assert steps[0] == n_steps + n_steps // N_EPOCHS


@pytest.fixture(scope="module")
def whole(digits, _stores_everything):
    """A fit that was not killed."""
    return classifier().fit(*digits)


@pytest.fixture(scope="module")
def of_killed(digits, tmp_path_factory, _stores_everything):
    folder = tmp_path_factory.mktemp("killed")
    with killed_after(N_EPOCHS - 1):
        classifier(checkpoint=folder).fit(*digits)
    return folder


@pytest.fixture
def killed(of_killed, tmp_path):
    """A folder with the same fit, which was killed in its last epoch but one."""
    return pathlib.Path(shutil.copytree(of_killed, tmp_path / "killed"))


class OtherConv(TinyConv):
    def forward(self, X):
        return super().forward(X) * 2


@pytest.mark.parametrize(
    "change",
    [
        {"random_state": 1},
        {"lr": 1e-3},
        {"batch_size": 16},
        {"cost_weight": 0.5},
        {"module": OtherConv},
        {"module__width": 6},
        {"callbacks": [LRScheduler(StepLR, step_size=1)]},
        {"class_weight": "balanced"},
        {"optimizer__weight_decay": 0.1},
        {"max_epochs": N_EPOCHS + 1},
        {"validation_fraction": 0.3},
    ],
)
def test_another_fit_starts_anew(digits, killed, steps, change):
    files = sorted(killed.iterdir())
    other = classifier(checkpoint=killed, **change).fit(*digits)
    assert steps[0] == sum(other.history_[:, "train_batch_count"])
    assert len(other.history_) == change.get("max_epochs", N_EPOCHS)
    assert sorted(killed.iterdir()) == files, "those of the other fit stay"


@pytest.mark.parametrize("part", ["X", "y", "sample_weight", "X_val"])
def test_other_data_start_anew(digits, tmp_path, steps, part):
    X, y = digits
    data = {"X": X[:250], "y": y[:250], "sample_weight": np.ones(250), "X_val": X[250:]}
    data["y_val"] = y[250:]
    with killed_after(2):
        classifier(checkpoint=tmp_path).fit(**data)
    n_before, steps[0] = steps[0], 0
    files = sorted(tmp_path.iterdir())
    changed = {**data, part: data[part].copy()}
    if part == "y":
        changed["y"][[0, 1]] = changed["y"][[1, 0]]
    else:
        changed[part][0] += 1
    classifier(checkpoint=tmp_path).fit(**changed)
    assert steps[0] == n_before * N_EPOCHS // 2
    assert sorted(tmp_path.iterdir()) == files


def test_code_that_a_module_calls_starts_anew(digits, killed, steps, monkeypatch):
    original = TinyConv.forward
    monkeypatch.setattr(TinyConv, "forward", lambda self, X: original(self, X) + 1)
    clf = classifier(checkpoint=killed).fit(*digits)
    assert steps[0] == sum(clf.history_[:, "train_batch_count"])


def test_what_is_only_printed_and_remembered_may_differ(digits, killed, steps, tmp_path, capsys):
    clf = classifier(checkpoint=killed, verbose=1, memory=tmp_path / "memory").fit(*digits)
    assert N_EPOCHS * steps[0] == sum(clf.history_[:, "train_batch_count"])
    printed = capsys.readouterr().out
    assert "checkpoint: goes on from what" in printed
    assert "checkpoint: TinyConv, member 1 of 1 goes on" in printed


def test_verbose_says_that_a_fit_starts_anew(digits, killed, capsys):
    classifier(checkpoint=killed, verbose=1, lr=1e-3).fit(*digits)
    assert "holds nothing of this fit, but of others" in capsys.readouterr().out


def test_classifiers_are_not_fitted_again(digits, tmp_path, monkeypatch):
    fitted, original = [], classifiers.fitted_classifier

    def counted(classifier, X, *args):
        fitted.append(len(X))
        return original(classifier, X, *args)

    monkeypatch.setattr(classifiers, "fitted_classifier", counted)
    params = {"module": [LogisticRegression(max_iter=200), TinyConv], "companion_costs": [0.01]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = classifier(**params, cv=2).fit(*digits)
        n_fits = len(fitted)
        clf = classifier(**params, cv=2, checkpoint=tmp_path)
        with killed_after(2 * N_EPOCHS + 1):
            clf.fit(*digits)
        assert len(fitted) == 2 * n_fits
        assert_same(clf.fit(*digits), whole, digits[0])
    assert len(fitted) == 2 * n_fits


def test_an_augmentation_goes_on_behind_a_fold_that_was_done(digits, tmp_path, monkeypatch):
    original = Checkpoint._forget

    def killed(self, n_used):
        original(self, n_used)
        raise Killed

    params = {"cv": 2, "iterator_train__collate_fn": NoisyCollate}
    whole = classifier(**made(params)).fit(*digits)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoint, "_forget", killed)
        classifier(**made(params), checkpoint=tmp_path).fit(*digits)
    resumed = classifier(**made(params), checkpoint=tmp_path).fit(*digits)
    assert_same(resumed, whole, digits[0])


@pytest.mark.parametrize("gate_training", ["joint", "bilevel"])
def test_gates_are_not_trained_again(digits, tmp_path, monkeypatch, gate_training):
    trained, original = [], held_out.train_gates

    def counted(*args):
        trained.append(1)
        return original(*args)

    def killed(*args):
        raise Killed

    params = {"gate_training": gate_training}
    whole = classifier(**params).fit(*digits)
    monkeypatch.setattr(held_out, "train_gates", counted)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(cascade, "keep_for_later", killed)
        classifier(**params, checkpoint=tmp_path).fit(*digits)
    assert_same(classifier(**params, checkpoint=tmp_path).fit(*digits), whole, digits[0])
    assert trained == [1]


def test_times_that_decided_what_is_trained_decide_again(digits, tmp_path, monkeypatch, steps):
    original = StoredLoop.__init__

    def eager(self, *args):
        original(self, *args)
        self.wait = 0.0

    # No step takes so long, and of each loop one epoch is stored: times are stored however quickly they are measured.
    monkeypatch.setattr(checkpoint, "LEAST_SECONDS", 1e9)
    monkeypatch.setattr(StoredLoop, "__init__", eager)
    times = iter([0.9, 0.01])
    monkeypatch.setattr(
        whole_times.WholeTimes, "_time_of_all_exits", lambda self, network: next(times)
    )
    params = {"module": TinyConv, "cost": "seconds", "checkpoint": tmp_path}
    with killed_after(1):
        classifier(**params).fit(*digits)
    before, steps[0] = steps[0], 0
    classifier(**params).fit(*digits)
    assert steps[0] == (N_EPOCHS - 1) * before
    assert next(times) == 0.01, "the second time was not asked for"


def test_a_network_that_was_trained_in_folds_takes_one_file_a_fold(digits, tmp_path):
    with killed_after(2 * N_EPOCHS + 1):
        classifier(cv=2, checkpoint=tmp_path).fit(*digits)
    assert len(list(tmp_path.iterdir())) == 3


PROGRAM = """
    import os, signal, sys
    import numpy as np
    import torch
    from sklearn.datasets import load_digits
    torch.set_num_threads(1)
    from sklearn_jeidnn import EarlyExitClassifier
    from sklearn_jeidnn._fit import checkpoint
    checkpoint.LEAST_SECONDS, checkpoint.SHARE = 0.0, float("inf")
    folder, n_epochs, result = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    original, done = checkpoint.StoredLoop.epoch_done, []
    def epoch_done(self):
        original(self)
        done.append(1)
        if len(done) == n_epochs:
            os.kill(os.getpid(), signal.SIGKILL)
    checkpoint.StoredLoop.epoch_done = epoch_done
    X, y = load_digits(return_X_y=True)
    clf = EarlyExitClassifier(
        module__width=16, module__n_blocks=2, max_epochs=3, companion=None, cv=2, random_state=0,
        exit_policy="confidence", checkpoint=folder or None,
    ).fit(np.float32(X[:600]), y[:600])
    np.save(result, clf.predict_proba(np.float32(X[600:])))
    print(len(done))
"""


def run_program(folder, n_epochs, result):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(folder), str(n_epochs), str(result)],
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_kill_minus_9_and_the_same_program_again(tmp_path):
    folder = tmp_path / "folder"
    whole = run_program("", 0, tmp_path / "whole.npy")
    assert whole.returncode == 0, whole.stderr
    assert run_program(folder, 5, tmp_path / "never.npy").returncode == -signal.SIGKILL
    resumed = run_program(folder, 0, tmp_path / "resumed.npy")
    assert resumed.returncode == 0, resumed.stderr
    # Two epochs of the first fold's training were not to be done again, nor those of the second that were stored.
    n_done, n_all = int(resumed.stdout.split()[-1]), int(whole.stdout.split()[-1])
    assert n_done == n_all - 5
    assert np.array_equal(np.load(tmp_path / "whole.npy"), np.load(tmp_path / "resumed.npy"))
    assert not list(folder.iterdir())


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty", "another file", "a folder"])
def test_a_damaged_file_is_told_and_not_used(digits, killed, whole, steps, damage):
    (file,) = killed.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {
        "truncated": content[:1000],
        "one bit": content,
        "empty": b"",
        "another file": b"a" * 99,
    }
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    else:
        file.write_bytes(damaged[damage])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resumed = classifier(checkpoint=killed).fit(*digits)
    assert "a file cannot be used" in str(caught[0].message)
    assert_same(resumed, whole, digits[0])
    assert steps[0] == sum(whole.history_[:, "train_batch_count"])


def test_a_file_of_another_structure_is_told_and_not_used(digits, tmp_path, monkeypatch):
    class Holder:
        pass

    class Holding(Callback):
        n_held = 1

        def on_train_begin(self, net, **kwargs):
            self.held_ = [Holder() for _ in range(type(self).n_held)]

    clf = classifier(checkpoint=tmp_path, callbacks=[Holding()])
    with killed_after(1):
        clf.fit(*digits)
    # The class is described as it was: what changes is out of sight.
    key = next(tmp_path.iterdir()).name
    monkeypatch.setattr(Checkpoint, "_path", lambda self, told: os.path.join(self.folder, key))
    Holding.n_held = 2
    with pytest.warns(UserWarning, match="the training of TinyConv.* starts anew"):
        clf.fit(*digits)


@contextlib.contextmanager
def files_of_at_most(n_bytes):
    """Writing more into a file is an error, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_is_told_once_and_the_fit_goes_on(digits, whole, tmp_path):
    clf = classifier(checkpoint=tmp_path)
    with files_of_at_most(5000), pytest.warns(UserWarning) as caught:
        clf.fit(*digits)
    (message,) = {str(warning.message) for warning in caught}
    assert len(caught) == 1
    assert message.startswith(
        f"checkpoint={str(tmp_path)!r}: the state of the fit cannot be stored"
    )
    assert "File too large" in message and "make room" in message
    assert_same(clf, whole, digits[0])
    assert not list(tmp_path.iterdir())


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_memory(*args, **kwargs):
    raise MemoryError


@pytest.mark.parametrize(
    "place, error",
    [("fsync", full_disk), ("replace", full_disk), ("packed", no_memory), ("_write", no_memory)],
)
def test_what_was_stored_before_stays_whole(digits, killed, whole, monkeypatch, place, error):
    (file,) = killed.iterdir()
    content = file.read_bytes()
    owner = {"packed": checkpoint, "_write": checkpoint_files}.get(place, os)
    original = StoredLoop.end

    def end(self):
        original(self)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, place, error)
        patch.setattr(checkpoint, "check_checkpoint_folder", lambda folder: None)
        patch.setattr(sys.modules["sklearn_jeidnn._fit.checks"], "check_checkpoint_folder", print)
        patch.setattr(StoredLoop, "end", end)
        with pytest.warns(UserWarning, match="cannot be stored"), pytest.raises(Killed):
            classifier(checkpoint=killed).fit(*digits)
    assert [path.read_bytes() for path in killed.iterdir()] == [content]
    assert_same(classifier(checkpoint=killed).fit(*digits), whole, digits[0])


def test_ctrl_c_while_a_file_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = str(tmp_path / "file")
    write_whole(path, packed("old"))

    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, packed("new"))
    assert read_whole(path) == "old" and os.listdir(tmp_path) == ["file"]


def test_what_a_killed_process_was_writing_is_removed(digits, killed):
    (file,) = killed.iterdir()
    half = file.with_name(file.name + "abc.tmp")
    half.write_bytes(b"half")
    other = killed / "other.tmp"
    other.write_bytes(b"of another fit")
    with killed_after(1):
        classifier(checkpoint=killed).fit(*digits)
    assert not half.exists() and other.exists()


def test_another_process_may_remove_the_files_of_the_same_fit(digits, whole, tmp_path, monkeypatch):
    original = StoredLoop.epoch_done

    def removed(self):
        original(self)
        for file in tmp_path.iterdir():
            file.unlink()
        tmp_path.rmdir()

    monkeypatch.setattr(StoredLoop, "epoch_done", removed)
    assert_same(classifier(checkpoint=tmp_path).fit(*digits), whole, digits[0])


def test_a_folder_that_is_a_file_is_refused(digits, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "inside"):
        with pytest.raises(
            OSError, match=r"checkpoint='.*file.* is no folder in which files can be"
        ):
            classifier(checkpoint=folder).fit(*digits)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_to_is_refused(digits, tmp_path, monkeypatch, number):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(
        OSError, match=f"checkpoint=.*{os.strerror(number)}.*give a folder"
    ) as caught:
        classifier(checkpoint=tmp_path).fit(*digits)
    assert caught.value.errno == number


@pytest.mark.parametrize("random_state", [None])
def test_random_numbers_that_are_others_next_time_are_refused(digits, tmp_path, random_state):
    clf = classifier(checkpoint=tmp_path, random_state=random_state)
    with pytest.raises(ValueError, match=r"random_state=.* draws other random numbers.*an int"):
        clf.fit(*digits)


def test_a_random_state_made_anew_goes_on(digits, tmp_path, steps):
    params = {"checkpoint": tmp_path}
    with killed_after(3):
        classifier(**params, random_state=np.random.RandomState(3)).fit(*digits)
    before, steps[0] = steps[0], 0
    classifier(**params, random_state=np.random.RandomState(3)).fit(*digits)
    assert steps[0] == before // 3


def test_fits_of_a_grid_search_share_a_folder(digits, tmp_path):
    stored = quick_classifier(max_epochs=2, exit_policy="margin", checkpoint=str(tmp_path))
    assert clone(stored).get_params()["checkpoint"] == str(tmp_path)
    assert pickle.loads(pickle.dumps(stored)).checkpoint == str(tmp_path)
    search = GridSearchCV(stored, {"cost_weight": [0, 0.1]}, cv=2, n_jobs=2, refit=False)
    scores = search.fit(*digits).cv_results_["mean_test_score"]
    alone = search.set_params(estimator__checkpoint=None, n_jobs=1).fit(*digits)
    assert np.array_equal(scores, alone.cv_results_["mean_test_score"])
    assert tmp_path.exists() and not list(tmp_path.iterdir())


def test_a_callback_that_cannot_be_pickled_is_no_obstacle(digits, tmp_path, steps):
    class Writes(Callback):
        def on_train_begin(self, net, **kwargs):
            self.file_ = open(os.devnull, "w")
            self.made_ = lambda: None

        def on_train_end(self, net, **kwargs):
            self.file_.close()

    clf = classifier(checkpoint=tmp_path, callbacks=[Writes()])
    with killed_after(2):
        clf.fit(*digits)
    before, steps[0] = steps[0], 0
    clf.callbacks[0].file_.close()
    clf.fit(*digits)
    assert steps[0] == before


def test_storing_takes_a_few_percent_of_the_time_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "LEAST_SECONDS", 1.0)
    monkeypatch.setattr(checkpoint, "SHARE", 0.05)
    clock, written = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def write(self, path, buffers):
        clock[0] += 0.5
        written.append(clock[0])

    monkeypatch.setattr(Checkpoint, "_write", write)
    stored = Checkpoint(str(tmp_path), "key", device=torch.device("cpu"), options=None, verbose=0)
    loop = stored.loop("a network", lambda: ())
    loop.resume([1.0])
    for _ in range(1000):
        clock[0] += 0.1
        loop.epoch_done()
    assert 0.5 * len(written) <= 0.05 * clock[0] + 0.5
    assert len(written) >= 9


def test_values_of_any_kind_come_back_from_a_file(tmp_path):
    value = {
        "tensors": [
            torch.arange(6.0).reshape(2, 3).T,
            torch.tensor(1.5, dtype=torch.bfloat16),
            torch.empty(0, 3),
        ],
        "arrays": (np.arange(6).reshape(2, 3).T, np.array(["a", "bc"]), np.empty((0, 2))),
        "numbers": (1, 2.5, None, {3}),
    }
    path = str(tmp_path / "file")
    write_whole(path, packed(value))
    found = read_whole(path)
    assert found["numbers"] == value["numbers"]
    for own, stored in zip(value["tensors"], found["tensors"], strict=True):
        assert own.dtype == stored.dtype and torch.equal(own, stored)
    for own, stored in zip(value["arrays"], found["arrays"], strict=True):
        assert own.dtype == stored.dtype and np.array_equal(own, stored)


def test_no_byte_of_a_file_may_change(tmp_path):
    path = tmp_path / "file"
    write_whole(str(path), packed([torch.arange(3), "words"]))
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DamagedFileError):
            read_whole(str(path))


class Holds:
    """Random numbers, numbers and arrays in places of all kinds."""

    def __init__(self):
        self.numpy = np.random.default_rng(1)
        self.legacy = {"inside": [np.random.RandomState(1)]}
        self.python = random.Random(1)
        self.torch = torch.Generator().manual_seed(1)
        self.n_calls, self.array, self.tensor = 0, np.zeros(2), torch.zeros(2)
        self.nested = [Counts(), {"further": Counts()}]
        in_closure = np.random.default_rng(2)
        self.function = lambda: in_closure.random()

    def draw(self):
        self.n_calls += 1
        self.array[0] += self.n_calls
        self.tensor[1] += self.n_calls
        self.nested[0].n += 1
        self.nested[1]["further"].n += 2
        return [
            *(self.numpy.random(), self.legacy["inside"][0].rand(), self.python.random()),
            *(float(torch.rand(1, generator=self.torch)), self.function(), float(torch.rand(1))),
            *(self.n_calls, self.array[0], float(self.tensor[1])),
            *(self.nested[0].n, self.nested[1]["further"].n),
        ]


class Counts:
    def __init__(self):
        self.n = 0


def test_a_snapshot_is_given_to_objects_that_were_made_alike(tmp_path):
    one, other = Holds(), Holds()
    one.draw()
    snapshots = Snapshots(one)
    path = str(tmp_path / "file")
    write_whole(path, packed(snapshots.take()))
    expected = [one.draw() for _ in range(3)]
    assert Snapshots(other).give_back(read_whole(path))
    assert [other.draw() for _ in range(3)] == expected


def test_a_snapshot_is_not_given_to_other_objects():
    one, other = Holds(), Holds()
    other.nested.append(Counts())
    before = other.numpy.bit_generator.state
    assert not Snapshots(other).give_back(Snapshots(one).take())
    assert other.numpy.bit_generator.state == before


def test_random_numbers_of_the_user_that_are_not_drawn_are_left_alone():
    snapshot = Snapshots([1]).take()
    np.random.rand()  # noqa: NPY002
    state = np.random.get_state()[2]  # noqa: NPY002
    assert Snapshots([1]).give_back(snapshot)
    assert np.random.get_state()[2] == state  # noqa: NPY002


def test_the_constructor_takes_it():
    assert EarlyExitClassifier(checkpoint="folder").get_params()["checkpoint"] == "folder"

"""Ctrl-C ends a fit, wherever it is, and leaves no trace of it."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping

from sklearn_jeidnn._fit import (
    bilevel,
    callbacks,
    features,
    held_out,
    joint,
    learning,
    memory,
    training,
)

from .conftest import TinyConv, quick_classifier


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """Programs that a shell starts in the background ignore Ctrl-C, and so would these tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupts(function, after=0):
    """The same function, in whose call Ctrl-C is pressed."""
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) > after:
            signal.raise_signal(signal.SIGINT)
        return function(*args, **kwargs)

    return interrupted


FROZEN = {"module": TinyConv().eval(), "freeze_backbone": True}
# Where Ctrl-C is pressed, how often the place is passed before, and what is fitted.
PLACES = [
    (training.ExitsNet, "train_step", 3, {}),
    (training.ExitsNet, "validation_step", 0, {}),
    (callbacks.KeepBestEpoch, "on_train_end", 0, {}),
    (training.ExitsNet, "train_step", 3, FROZEN),
    (training.ExitsNet, "train_step", 11, {"freeze_backbone": "after_warmup", "module": TinyConv}),
    (training.ExitsNet, "train_step", 11, {"module": [TinyConv, TinyConv]}),
    (features, "_room_for", 0, FROZEN),
    (learning, "exit_features", 1, FROZEN),
    (held_out, "fit_mixing_weights", 0, {}),
    (joint, "descend_gates", 0, {}),
    (joint.HeadTurns, "_descend_heads", 0, {}),
    (bilevel, "_gate_step", 1, {"gate_training": "bilevel"}),
]


@pytest.mark.filterwarnings("ignore:freeze_backbone=True takes networks")
@pytest.mark.parametrize(("owner", "name", "after", "params"), PLACES)
def test_ctrl_c_ends_fit_and_the_old_fit_stays(
    fitted, digits, tmp_path, monkeypatch, owner, name, after, params
):
    clf = quick_classifier(**{"max_epochs": 1, "memory": tmp_path, **params})
    clf._adopt(fitted._predictor)
    before = clf.predict_proba(digits[0])
    stream = torch.get_rng_state()
    monkeypatch.setattr(owner, name, interrupts(getattr(owner, name), after))
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*digits)
    assert np.array_equal(clf.predict_proba(digits[0]), before)
    assert torch.equal(torch.get_rng_state(), stream)


def raise_interrupt():
    raise KeyboardInterrupt


def press_ctrl_c():
    signal.raise_signal(signal.SIGINT)


class Press(Callback):
    """Presses Ctrl-C, or raises what Ctrl-C does, after some epochs; notes that training ended."""

    def __init__(self, epochs, press=raise_interrupt):
        self.epochs, self.press, self.ended = epochs, press, 0

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epochs:
            self.press()

    def on_train_end(self, net, **kwargs):
        self.ended += 1


@pytest.mark.parametrize("press", [raise_interrupt, press_ctrl_c])
def test_a_callback_that_is_interrupted_may_close_what_it_opened(digits, press):
    callback = Press(2, press)
    with pytest.raises(KeyboardInterrupt):
        quick_classifier(callbacks=[callback, EarlyStopping()]).fit(*digits)
    assert callback.ended == 1


def test_an_error_of_a_callback_that_closes_does_not_hide_ctrl_c(digits):
    class Fails(Press):
        def on_train_end(self, net, **kwargs):
            raise ValueError("closed already")

    with pytest.raises(KeyboardInterrupt) as caught:
        quick_classifier(callbacks=[Fails(1)]).fit(*digits)
    assert "closed already" in str(caught.value.__cause__)


def test_nothing_half_trained_is_remembered(digits, tmp_path):
    params = {"max_epochs": 3, "memory": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        quick_classifier(**params, callbacks=[Press(2)]).fit(*digits)
    assert not list(tmp_path.rglob("output.pkl*"))
    assert len(quick_classifier(**params).fit(*digits).history_) == 3


def test_no_half_written_file_remains(digits, tmp_path, monkeypatch):
    from joblib import numpy_pickle

    original = numpy_pickle.dump

    def interrupted(value, file, **kwargs):
        original(value, file, **kwargs)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(numpy_pickle, "dump", interrupted)
    with pytest.raises(KeyboardInterrupt):
        memory.remembered(memory.as_memory(tmp_path), lambda: torch.zeros(10))
    assert not list(tmp_path.rglob("output.pkl*"))


def test_ctrl_c_from_outside_ends_a_program(tmp_path):
    program = textwrap.dedent("""
        import signal
        import numpy as np
        from sklearn.datasets import load_digits
        from skorch.callbacks import Callback
        from sklearn_jeidnn import EarlyExitClassifier
        class Say(Callback):
            def on_batch_end(self, net, **kwargs):
                print("trains", flush=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        X, y = load_digits(return_X_y=True)
        clf = EarlyExitClassifier(max_epochs=10**6, companion=None, callbacks=[Say()])
        try:
            clf.fit(np.float32(X), y)
        except KeyboardInterrupt:
            print("interrupted", hasattr(clf, "classes_"), flush=True)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
    ) as run:
        try:
            next(line for line in run.stdout if "trains" in line)
            time.sleep(0.2)
            run.send_signal(signal.SIGINT)
            rest, _ = run.communicate(timeout=60)
        finally:
            run.kill()
    assert "interrupted False" in rest and run.returncode == 0

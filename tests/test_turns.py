"""Fits in several threads are the fits one after the other."""

import multiprocessing
import os
import threading
import time
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV

from sklearn_jeidnn._fit.turns import FIT_TURNS, FitTurns

from .conftest import TinyConv, quick_classifier


def fits(digits, **params):
    def fit(seed):
        clf = quick_classifier(max_epochs=1, random_state=seed, **params)
        return clf.fit(*digits).predict_proba(digits[0])

    return fit


def in_threads(function, n_threads):
    found = [None] * n_threads

    def call(i):
        found[i] = function(i)

    threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "they wait for each other"
    return found


def test_fits_in_threads_are_the_same_as_one_after_the_other(digits):
    fit = fits(digits)
    torch.manual_seed(7)
    expected, stream = [fit(seed) for seed in range(2)], torch.get_rng_state()
    for own, alone in zip(in_threads(fit, 2), expected, strict=True):
        assert np.array_equal(own, alone)
    assert torch.equal(torch.get_rng_state(), stream), "the caller's random numbers go on"


@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
def test_a_grid_search_in_threads_or_forks_is_the_same(digits, backend):
    if backend == "multiprocessing" and torch.cuda.is_available():
        pytest.skip(
            "torch's optimizers ask for the GPU, which a fork of a process that has seen it cannot"
        )

    def scores(**options):
        grid = {"cost_weight": [0.3]}
        search = GridSearchCV(
            quick_classifier(max_epochs=1), grid, cv=2, refit=False, error_score="raise", **options
        )
        return search.fit(*digits).cv_results_["mean_test_score"]

    with joblib.parallel_backend(backend):
        assert np.array_equal(scores(n_jobs=2), scores())


def test_companions_that_fit_in_threads_of_their_own_do_not_wait_for_ever(digits):
    # In processes of their own gates descend for as long as users' do.
    small = quick_classifier(module=TinyConv, max_epochs=1, exit_policy="confidence")
    several = BaggingClassifier(small, n_estimators=2, n_jobs=2, random_state=0)
    fit = fits(digits, module=[several, TinyConv], companion_costs=[0.1])
    alone = fit(0)

    def fit_in_threads(i):
        with joblib.parallel_backend("threading"):
            return fit(i)

    assert np.array_equal(*in_threads(fit_in_threads, 1), alone)


def test_a_seed_that_another_thread_sets_meanwhile_is_told(digits):
    class Seeds(TinyConv):
        def __init__(self):
            super().__init__()
            thread = threading.Thread(target=torch.manual_seed, args=(3,))
            thread.start()
            thread.join()

    waits = threading.Event()
    other = threading.Thread(target=waits.wait)
    other.start()
    try:
        with pytest.warns(UserWarning, match="torch.manual_seed was called while fit ran"):
            quick_classifier(module=Seeds, max_epochs=1).fit(*digits)
    finally:
        waits.set()
        other.join()


def test_prediction_on_datasets_draws_no_random_numbers(fitted, digits):
    before = torch.get_rng_state()
    fitted.predict(torch.utils.data.TensorDataset(*map(torch.as_tensor, digits)))
    assert torch.equal(torch.get_rng_state(), before)


def test_one_thread_has_the_turn_at_a_time_and_may_take_it_twice():
    turns, inside, most = FitTurns(), [], []

    def take(i):
        with turns.take(), turns.take():
            inside.append(i)
            time.sleep(0.01)
            most.append(len(inside))
            inside.remove(i)

    in_threads(take, 5)
    assert most == [1] * 5


def test_an_error_gives_the_turn_back():
    turns = FitTurns()
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), turns.take():
            raise error
    in_threads(lambda i: turns.take().__enter__(), 1)


def test_only_new_threads_pass_while_a_member_is_fitted():
    turns, passed, may_start = FitTurns(), [], threading.Event()

    def old():
        may_start.wait()
        with turns.take():
            passed.append("old")

    def new():
        with turns.take():
            passed.append("new")

    older = threading.Thread(target=old)
    older.start()
    with turns.take():
        with turns.lend():
            may_start.set()
            newer = threading.Thread(target=new)
            newer.start()
            newer.join(60)
            assert passed == ["new"]
        passed.append("self")
    older.join(60)
    assert passed == ["new", "self", "old"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
def test_a_process_that_was_forked_in_the_middle_of_a_fit_can_fit():
    def take():
        with FIT_TURNS.take():
            pass

    held, done = threading.Event(), threading.Event()

    def hold():
        with FIT_TURNS.take():
            held.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads.
        warnings.simplefilter("ignore")
        child = multiprocessing.get_context("fork").Process(target=take)
        child.start()
    child.join(60)
    done.set()
    holder.join()
    assert child.exitcode == 0

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._fit.assembly import Assembly
from sklearn_jeidnn._fit.companions import companions_for, simplest_of_best
from sklearn_jeidnn._fit.members import as_members
from sklearn_jeidnn.backbones import BagOfEmbeddings, ImageResNet, TabularResNet

from .conftest import MaskedTokens, TinyConv, quick_classifier

SMALL = (None, {"width": 16, "n_blocks": 1})
BACKBONE = {"module__width": 64, "module__n_blocks": 3}


@pytest.fixture(scope="module")
def two(digits):
    return quick_classifier(
        module=[SMALL, None], cost_weight=0.03, validation_fraction=0.3, **BACKBONE
    ).fit(*digits)


def all_logits(clf, X):
    with torch.no_grad():
        return clf.network_(torch.as_tensor(X)).numpy()


def test_exits_of_members_are_numbered_and_cost_more_from_one_to_the_next(two):
    assert two.exits_ == ["0", "1.blocks.0", "1.blocks.1"]
    assert (np.diff(two.exit_costs_) > 0).all() and two.exit_costs_[0] < 0.5


def test_a_row_pays_for_every_member_that_it_goes_through(two, digits):
    alone = quick_classifier(**BACKBONE, max_epochs=1).fit(*digits)
    assert two.exit_costs_[-1] == pytest.approx(
        two.exit_costs_[0] + alone.exit_costs_[-1], rel=1e-2
    )


def test_rows_dropped_between_members_answer_as_all_rows_do(two, fresh_digits):
    X = fresh_digits[0][:200]
    exit_index = two.predict_exit(X)
    assert len(set(exit_index)) > 1
    logits = all_logits(two, X)[np.arange(len(X)), exit_index]
    expected = torch.as_tensor(logits / two.temperatures_[exit_index, None]).softmax(1)
    np.testing.assert_allclose(two.predict_proba(X), expected, rtol=1e-4, atol=1e-5)


def test_neither_the_order_nor_the_number_of_rows_changes_a_rows_answer(two, fresh_digits):
    X = fresh_digits[0][:100]
    probs = two.predict_proba(X)
    np.testing.assert_allclose(two.predict_proba(X[::-1])[::-1], probs, atol=1e-6)
    np.testing.assert_allclose(two.predict_proba(X[:1]), probs[:1], atol=1e-6)


def test_a_row_that_leaves_at_the_companion_never_reaches_the_backbone(two, fresh_digits):
    X, seen = fresh_digits[0][:200], []
    n_left = (two.predict_exit(X) == 0).sum()
    stage = two.network_.stages[1]
    hook = stage.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    two.predict(X)
    hook.remove()
    assert 0 < n_left and sum(seen) == len(X) - n_left


def test_the_last_answer_is_a_weighted_geometric_mean_of_the_members(two, fresh_digits):
    logits = all_logits(two, fresh_digits[0][:50])
    with torch.no_grad():
        own = two.module_(torch.as_tensor(fresh_digits[0][:50]))
    before, first = (torch.as_tensor(logits[:, exit]).log_softmax(1) for exit in (-2, 0))
    heads = two.network_.heads
    expected = own + heads.mixing_weights[-1] * before + heads.member_mixing_weights[-1] * first
    np.testing.assert_allclose(logits[:, -1], expected, rtol=1e-4, atol=1e-4)


def test_a_network_is_restored_from_its_own_state(two, fresh_digits):
    X = torch.as_tensor(fresh_digits[0][:50])
    state = two.network_.state_dict()
    other = copy.deepcopy(two.network_)
    assert other.heads.reads_member or any(other.heads.mixing_weights)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
        other.heads.mix(0.0, 0.0)
        assert not torch.allclose(other(X), two.network_(X))
        other.load_state_dict(state)
        assert torch.equal(other(X), two.network_(X))
    assert other.heads.mixing_weights == two.network_.heads.mixing_weights
    assert other.heads.member_mixing_weights == two.network_.heads.member_mixing_weights


@pytest.mark.parametrize("companion", [GaussianNB(), make_pipeline(PCA(20), GaussianNB())])
def test_any_classifier_stands_in_front_of_a_network(companion, digits, fresh_digits):
    X, y = digits
    labels = np.array(list("abcdefghij"))[y]
    clf = quick_classifier(module=[companion, None], companion_costs=[0.05], **BACKBONE)
    clf.fit(X, labels)
    assert not hasattr(companion, "classes_")
    assert clf.exit_costs_[0] == pytest.approx(0.05, abs=0.02)
    fitted = clf.network_.stages[0].classifier
    first = torch.as_tensor(all_logits(clf, X)[:, 0]).softmax(1)
    np.testing.assert_allclose(first, fitted.predict_proba(X), atol=1e-4)
    assert clf.score(fresh_digits[0], np.array(list("abcdefghij"))[fresh_digits[1]]) > 0.7


@pytest.mark.filterwarnings("ignore:.*(X_val is not given|of the module itself)")
def test_a_fitted_classifier_is_taken_as_it_is(digits):
    companion = LogisticRegression(max_iter=500).fit(digits[0][:100], digits[1][:100])
    before = copy.deepcopy(companion)
    clf = quick_classifier(module=[companion, None], **BACKBONE, max_epochs=2).fit(*digits)
    assert clf.network_.stages[0].classifier is companion
    np.testing.assert_array_equal(companion.coef_, before.coef_)


def test_a_companion_that_is_no_network_costs_what_it_takes(digits):
    clf = quick_classifier(module=[GaussianNB(), None], **BACKBONE, max_epochs=2).fit(*digits)
    assert 0 < clf.network_.told_costs[0] < 100


def test_companions_may_have_exits_inside(digits):
    deep = (TabularResNet, {"width": 16, "n_blocks": 3})
    clf = quick_classifier(
        module=[deep, None], exits=[["blocks.0"], 1], **BACKBONE, max_epochs=2
    ).fit(*digits)
    assert clf.exits_[:2] == ["0.blocks.0", "0"] and len(clf.exits_) == 3


@pytest.mark.filterwarnings("ignore:.*(X_val is not given|of the module itself)")
def test_a_frozen_backbone_stands_behind_a_companion_that_learns(digits):
    torch.manual_seed(0)
    trained = TinyConv()
    weights = copy.deepcopy(trained.state_dict())
    clf = quick_classifier(
        module=[(TinyConv, {"width": 4}), trained], freeze_backbone=True, lr=2e-2
    ).fit(*digits)
    for name, value in clf.module_.state_dict().items():
        assert torch.equal(value, weights[name])
    X, y = digits
    companion = clf.network_.stages[0]
    assert companion.evaluating.module.stem.weight.shape[0] == 4
    assert (companion(torch.as_tensor(X)).argmax(1).numpy() == y).mean() > 0.2


def test_three_members_cost_more_one_after_the_other(digits):
    middle = (None, {"width": 32, "n_blocks": 1})
    clf = quick_classifier(module=[SMALL, middle, None], **BACKBONE, max_epochs=3).fit(*digits)
    assert clf.exits_[:2] == ["0", "1"] and (np.diff(clf.exit_costs_) > 0).all()


def test_members_are_cloned_pickled_and_searched_over(two, digits, fresh_digits):
    X, y = digits
    again = clone(two).fit(X, y)
    some = fresh_digits[0][:100]
    np.testing.assert_array_equal(again.predict_proba(some), two.predict_proba(some))
    loaded = pickle.loads(pickle.dumps(two))
    np.testing.assert_array_equal(loaded.predict_proba(some), two.predict_proba(some))
    assert two.predict_set(some).shape == (100, 10)
    quick = quick_classifier(max_epochs=2, **BACKBONE)
    search = GridSearchCV(
        quick, {"module": [None, [SMALL, None], [GaussianNB(), None]]}, cv=2, refit=False
    )
    assert search.fit(X, y).best_score_ > 0.3


def test_members_are_remembered_one_by_one(digits, tmp_path):
    first = quick_classifier(module=[SMALL, None], memory=str(tmp_path), **BACKBONE, max_epochs=2)
    first.fit(*digits)
    again = clone(first).fit(*digits)
    np.testing.assert_array_equal(again.predict_proba(digits[0]), first.predict_proba(digits[0]))


@pytest.mark.parametrize(
    "params, message",
    [
        ({"module": []}, "names no network"),
        ({"module": [None, GaussianNB()]}, "build a torch module"),
        ({"module": [(None, 3), None]}, "pair of a torch module class"),
        ({"module": [RidgeClassifier(), None]}, "has no predict_proba"),
        ({"module": [SMALL, None], "exits": [1, 2, 3]}, "one entry"),
        ({"module": [SMALL, None], "companion_costs": [0.1, 0.2]}, "one entry for each of the 1"),
        ({"module": [SMALL, None], "companion_costs": [-1.0]}, "number above 0"),
        ({"budget": 0.01}, "less than the first exit costs"),
        ({"budget": 0.5, "gate_training": "bilevel"}, "gate_training='joint'"),
    ],
)
def test_members_that_do_not_fit_are_refused(params, message, digits):
    with pytest.raises((ValueError, TypeError), match=message):
        quick_classifier(**{**BACKBONE, **params}, max_epochs=1).fit(*digits)


def test_a_classifier_fitted_on_other_labels_is_refused(digits):
    companion = GaussianNB().fit(digits[0], digits[1] + 5)
    with pytest.raises(ValueError, match="that y does not have"):
        quick_classifier(module=[companion, None], **BACKBONE, max_epochs=1).fit(*digits)


def test_a_single_module_is_one_member():
    (member,) = as_members(TinyConv, {"width": 3})
    assert member.module is TinyConv and member.params == {"width": 3} and not member.is_classifier


def test_auto_makes_companions_and_keeps_those_that_pay(digits):
    X, y = digits
    clf = quick_classifier(
        companion="auto", cost_weight=0.1, module__width=128, module__n_blocks=4, max_epochs=20
    ).fit(X, y)
    assert clf.exits_[0] == "0" and clf.exit_costs_[0] < 0.3
    free = clone(clf).set_params(cost_weight=0.0, module__width=16).fit(X, y)
    assert len(free.exits_) <= len(clf.exits_)


def counted(of):
    """Multiply-adds relative to so many, by the number of weights."""
    return lambda network: sum(weight.numel() for weight in network.parameters()) / of


def shapes(candidates):
    return [(c.params["n_blocks"], c.params["width"]) for c in candidates]


def test_candidates_are_narrower_networks_of_the_datas_kind(digits):
    options = {"embeds": False, "image_shape": None}
    images = digits[0].reshape(-1, 8, 8)
    candidates = companions_for(images, 10, counted=counted(1e7), **options)
    assert all(candidate.module is ImageResNet for candidate in candidates)
    (_, narrow), (_, wide) = shapes(candidates)
    assert narrow < wide
    (candidate,) = companions_for(digits[0], 10, counted=counted(1e6), **options)
    assert candidate.module is TabularResNet and candidate.params["width"] < 192
    options["image_shape"] = (8, 8)
    (flat,) = {c.module for c in companions_for(digits[0], 10, counted=counted(1e7), **options)}
    assert flat is ImageResNet


def test_where_layers_take_the_time_candidates_are_shallow_and_wide(digits):
    options = {"embeds": False, "image_shape": None, "counted": counted(5e5)}

    def single_row(networks):
        return [0.1 + 0.1 * len(network.blocks) for network in networks]

    def many_rows(networks):
        return [0.01 + counted(1e6)(network) for network in networks]

    ((n_blocks, width),) = shapes(companions_for(digits[0], 10, timed=single_row, **options))
    assert n_blocks == 1 and width >= 256
    deep = shapes(companions_for(digits[0], 10, timed=many_rows, **options))
    assert len(deep) == 1 and deep[0][0] == 3


def test_no_candidate_takes_half_of_the_backbones_time(digits):
    options = {"embeds": False, "image_shape": None, "counted": counted(1e6)}
    slow = companions_for(digits[0], 10, timed=lambda networks: [0.6] * len(networks), **options)
    assert slow == []


def test_shapes_are_chosen_by_the_clock_where_time_is_the_price(digits, monkeypatch):
    asked = []

    def times(assembly, modules):
        asked.append(len(modules))
        return np.array([0.1 * len(getattr(module, "blocks", "trees")) for module in modules])

    monkeypatch.setattr(Assembly, "_times", times)
    options = {"companion": "auto", "max_epochs": 1, **BACKBONE}
    quick_classifier(cost="multiply_adds", **options).fit(*digits)
    assert not asked
    quick_classifier(cost="seconds", cost_batch_size=1, **options).fit(*digits)
    assert asked and asked[0] > 10


def test_auto_puts_nothing_in_front_of_a_backbone_that_is_cheap_already(digits):
    clf = quick_classifier(companion="auto", module__width=8, module__n_blocks=1, exits=["norm"])
    assert clf.fit(*digits).exits_ == ["norm"]


def tokens_of_two_kinds(n_samples=300):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n_samples) % 3
    ids = torch.randint(3, 15, (n_samples, 6), generator=generator) + 12 * y[:, None]
    mask = torch.ones(n_samples, 6, dtype=torch.long)
    mask[:, 4:] = torch.randint(0, 2, (n_samples, 2), generator=generator).sort(1, True).values
    return {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}, y.numpy()


def test_auto_puts_a_bag_of_embeddings_in_front_of_a_token_network():
    X, y = tokens_of_two_kinds()
    clf = quick_classifier(
        module=MaskedTokens, companion="auto", cost_weight=0.5, max_epochs=30
    ).fit(X, y)
    assert type(clf.network_.stages[0].evaluating.module).__name__ == "BagOfEmbeddings"
    assert clf.exits_[0] == "0" and clf.score(X, y) > 0.9 and clf.mean_cost(X) < 0.5


def test_a_bag_of_embeddings_ignores_what_the_mask_hides():
    X, _ = tokens_of_two_kinds()
    bag = BagOfEmbeddings.from_data(X, 3).eval()
    tensors = {name: torch.as_tensor(array) for name, array in X.items()}
    hidden = {**tensors, "input_ids": tensors["input_ids"] * tensors["attention_mask"]}
    torch.testing.assert_close(bag(**tensors), bag(**hidden))


@pytest.mark.filterwarnings("ignore:.*samples of X_val are among those")
def test_distilled_companions_learn_from_rows_without_labels(digits, fresh_digits):
    X, y = digits
    torch.manual_seed(0)
    backbone = quick_classifier(max_epochs=40, **BACKBONE).fit(X, y).module_
    options = {
        "module": [SMALL, backbone],
        "freeze_backbone": True,
        "companion_training": "distilled",
        "max_epochs": 20,
    }
    few = quick_classifier(**options).fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    many = clone(few).fit(
        X[:60], y[:60], X_val=X[60:], y_val=y[60:], X_unlabeled=fresh_digits[0][:800]
    )
    accuracy = [
        (all_logits(clf, fresh_digits[0][800:])[:, 0].argmax(1) == fresh_digits[1][800:]).mean()
        for clf in (few, many)
    ]
    assert accuracy[1] > accuracy[0] + 0.05


def test_rows_without_labels_need_something_to_learn_from_them(digits):
    with pytest.raises(ValueError, match="companion_training='distilled'"):
        quick_classifier(**BACKBONE).fit(*digits, X_unlabeled=digits[0])


def test_companion_auto_takes_one_module(digits):
    with pytest.raises(ValueError, match="2 members already"):
        quick_classifier(module=[SMALL, None], companion="auto").fit(*digits)


def test_the_backbone_behind_companions_is_the_one_that_it_is_alone(two, digits):
    alone = quick_classifier(cost_weight=0.03, validation_fraction=0.3, **BACKBONE).fit(*digits)
    for name, value in alone.module_.state_dict().items():
        assert torch.equal(two.module_.state_dict()[name], value)


def test_by_default_the_ready_tabular_network_has_companions_and_nothing_else_has(digits):
    quick = {"companion": "tabular", "max_epochs": 1}
    table = quick_classifier(**quick, cost_weight=10.0).fit(*digits)
    assert EarlyExitClassifier().companion == "tabular"
    assert table.exits_[0] == "0"
    for others in (
        {"module": TinyConv},
        {"module__image_shape": (8, 8)},
        {"gate_training": "bilevel"},
    ):
        assert quick_classifier(**quick, **others).fit(*digits).exits_[0] != "0"


@pytest.mark.slow  # compiles for half a minute
@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch's compiler imports what torch deprecates
def test_compiled_networks_stand_behind_a_classifier(digits):
    X, y = digits
    options = {
        "module": [LogisticRegression(max_iter=5000), None],
        "exits": [0, 1],
        "max_epochs": 3,
    }
    options |= {"module__width": 32, "module__n_blocks": 2, "cost_weight": 0.05, "random_state": 0}
    options["companion_costs"] = [0.1]
    clf = EarlyExitClassifier(**options).fit(X, y)
    compiled = EarlyExitClassifier(**options, engine="torch.compile").fit(X, y)
    assert len(np.unique(clf.predict_exit(X))) > 1
    assert (clf.predict_exit(X) == compiled.predict_exit(X)).all()
    np.testing.assert_allclose(clf.predict_proba(X), compiled.predict_proba(X), atol=5e-6)


def test_of_candidates_within_rounding_the_simplest_is_taken():
    objectives = [0.1, 0.1 - 4e-6, 0.1 - 2e-6, 0.3]
    assert simplest_of_best(objectives, [(2, 3), (3, 3), (2, 2), (1, 1)]) == 2
    assert simplest_of_best(objectives, [(2, 2), (3, 3), (2, 2), (1, 1)]) == 0


def test_a_candidate_that_saves_is_not_dropped_for_a_simpler_one():
    assert simplest_of_best([0.1, 0.1 - 1e-4], [(1, 1), (3, 9)]) == 1


@pytest.mark.parametrize("exits", [["nonsense", "auto"], ["blocks.0", "blocks.1"]])
def test_an_entry_of_exits_that_is_no_list_of_names_is_refused(digits, exits):
    members = [(None, {"width": 8, "n_blocks": 2}), (None, {"width": 16, "n_blocks": 2})]
    with pytest.raises(ValueError, match=f"exits has the entry '{exits[0]}'"):
        quick_classifier(module=members, exits=exits).fit(*digits)


@pytest.mark.parametrize("cost", [float("nan"), True, 0, "0.1"])
def test_a_companions_cost_that_is_no_number_above_0_is_refused(digits, cost):
    members = [(None, {"width": 8, "n_blocks": 2}), (None, {"width": 16, "n_blocks": 2})]
    with pytest.raises(ValueError, match=r"companion_costs\[0\].*number above 0"):
        quick_classifier(module=members, companion_costs=[cost]).fit(*digits)

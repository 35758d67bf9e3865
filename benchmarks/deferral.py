"""Are no more of the answers wrong than was certified, and how many samples are answered?

A classifier is fitted once. Labelled samples are drawn with replacement, 1,000 times, from rows that trained nothing:
what a threshold does to rows like them is then known exactly, its error on all of these rows. A risk may be broken in
5 % of the draws. Beside ``predict_or_defer`` stand what a user would do instead: take a probability of ``1 - risk`` at
its word; take the least threshold at which the labelled samples have no more errors than that; ask MAPIE's controller
(Learn then Test, 100 thresholds, Bonferroni-Holm); search as Geifman and El-Yaniv (NeurIPS 2017) do.

Pen digits' rows come from writers who wrote none of those that set the gates and the temperatures.

    python benchmarks/deferral.py [--data letter pendigits adult] [--quick]
"""

import warnings

import claims
import datasets
import numpy as np
import records
from claims import Claim, Claims
from mapie.risk_control import BinaryRisk, MultiClassificationLTTController
from scipy.stats import binom, binomtest

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._operate.deferral import Deferral, LabelledAnswers

SEED, QUESTION = 0, "deferral"
CONFIDENCE = 0.95
RISKS = {"letter": [0.01, 0.02, 0.05], "pendigits": [0.01, 0.02], "adult": [0.02, 0.05, 0.1]}
N_LABELLED = [500, 1000, 2000]
OURS, SEARCH, MAPIE, BY_EYE, AT_ITS_WORD = (
    "predict_or_defer",
    "binary search with Bonferroni",
    "MAPIE",
    "threshold by eye",
    "probability of 1 - risk",
)
# MAPIE tries all thresholds on all samples: a tenth of a second a draw.
N_DRAWS = {OURS: 1000, SEARCH: 1000, MAPIE: 200, BY_EYE: 1000, AT_ITS_WORD: 1}


def fitted(name, quick):
    """(estimator, rows that trained nothing, their labels)"""
    split = datasets.load(name)
    params = {"companion": None, "max_epochs": 2 if quick else 30, "random_state": SEED}
    clf = EarlyExitClassifier(**params).fit(split.X_train, split.y_train)
    return clf, split.X_test, split.y_test


def in_one_order(answers):
    """(probabilities from the surest on, how many of the surest are wrong)"""
    order = np.argsort(-answers.confidence, kind="stable")
    return answers.confidence[order], np.cumsum(answers.wrong[order])


def ours(gates, labelled, probabilities, codes, risk):
    return Deferral(gates=gates, labelled=labelled).certified(risk, CONFIDENCE).threshold


def searched(gates, labelled, probabilities, codes, risk):
    """Geifman and El-Yaniv's algorithm 2, with the exact bound of its lemma."""
    sure, n_wrong = in_one_order(labelled)
    steps = int(np.ceil(np.log2(len(sure))))
    low, high, found = 0, len(sure) - 1, np.inf
    for _ in range(steps):
        middle = (low + high + 1) // 2
        if binom.cdf(n_wrong[middle], middle + 1, risk) <= (1 - CONFIDENCE) / steps:
            low, found = middle, sure[middle]
        else:
            high = max(middle - 1, 0)
    return found


def of_mapie(gates, labelled, probabilities, codes, risk):
    """Answers are wrong if they are given and are not the label."""
    error = BinaryRisk(
        risk_occurrence=lambda y_true, y_pred: y_pred != y_true,
        risk_condition=lambda y_true, y_pred: ~np.isnan(y_pred),
        higher_is_better=False,
    )
    controller = MultiClassificationLTTController(
        predict_function=lambda rows: rows,
        risks=[error],
        target_level=[risk],
        confidence_level=CONFIDENCE,
        classes=np.arange(probabilities.shape[1]),
    )
    controller.calibrate(probabilities, codes)
    # Its own choice is the threshold with the least error; a user who wants answers takes the least that is valid.
    return min(np.ravel(controller.valid_predict_params), default=np.inf)


def by_eye(gates, labelled, probabilities, codes, risk):
    """The least threshold at which the labelled samples have no more errors than that."""
    sure, n_wrong = in_one_order(labelled)
    keeps = np.flatnonzero(n_wrong <= risk * np.arange(1, len(sure) + 1))
    return sure[keeps[-1]] if len(keeps) else np.inf


def at_its_word(gates, labelled, probabilities, codes, risk):
    return 1 - risk


WAYS = {OURS: ours, SEARCH: searched, MAPIE: of_mapie, BY_EYE: by_eye, AT_ITS_WORD: at_its_word}


def measured(way, gates, rows, probabilities, codes, risk, n_labelled, n_draws):
    """How often the risk is broken, and how many samples are answered."""
    rng, errors, answered = np.random.default_rng(SEED), [], []
    for _ in range(n_draws):
        drawn = rng.integers(len(codes), size=n_labelled)
        labelled = LabelledAnswers(confidence=rows.confidence[drawn], wrong=rows.wrong[drawn])
        threshold = WAYS[way](gates, labelled, probabilities[drawn], codes[drawn], risk)
        wrong = rows.wrong_from(threshold)
        answered.append(len(wrong) / len(rows))
        errors.append(wrong.mean() if len(wrong) else 0.0)
    n_broken = int(np.sum(np.array(errors) > risk))
    exact = binomtest(n_broken, n_draws).proportion_ci(0.95)
    return {
        "n_draws": n_draws,
        "broken": n_broken / n_draws,
        "broken_low": exact.low,
        "broken_high": exact.high,
        "none_answered": np.mean(np.array(answered) == 0),
        "answered": np.mean(answered),
        "error": np.mean(errors),
        "largest_error": max(errors),
    }


def most_answered(rows, risk):
    """Share that is answered at the least threshold that keeps to the risk, if all labels were known."""
    sure, n_wrong = in_one_order(rows)
    keeps = np.flatnonzero(n_wrong <= risk * np.arange(1, len(sure) + 1))
    return (keeps[-1] + 1) / len(sure) if len(keeps) else 0.0


def run(name, quick):
    clf, X, y = fitted(name, quick)
    probabilities, codes = clf.predict_proba(X), np.searchsorted(clf.classes_, y)
    rows = LabelledAnswers(
        confidence=probabilities.max(axis=1), wrong=probabilities.argmax(axis=1) != codes
    )
    gates, found = clf._predictor._deferral.gates, []
    for risk in RISKS[name]:
        for n_labelled in N_LABELLED:
            for way, n_draws in N_DRAWS.items():
                n = max(1, n_draws // 20) if quick else n_draws
                record = measured(way, gates, rows, probabilities, codes, risk, n_labelled, n)
                setting = {"data": name, "seed": SEED, "risk": risk, "n_labelled": n_labelled}
                setting |= {"way": way, "n_gates": len(gates), "error_of_all": rows.wrong.mean()}
                setting["most_answered"] = most_answered(rows, risk)
                found.append({**setting, **record})
                print(*(v if isinstance(v, str) else f"{v:.4g}" for v in found[-1].values()))
    return found


def of(rows, way, **setting):
    """The rows of a way and a setting."""
    return [r for r in rows if r["way"] == way and all(r[k] == v for k, v in setting.items())]


def settings(rows):
    return list(dict.fromkeys((r["data"], r["risk"], r["n_labelled"]) for r in rows))


def targets(rows):
    for data, risk, n_labelled in settings(rows):
        setting = {"data": data, "risk": risk, "n_labelled": n_labelled}
        name = f"{data}, risk {risk}, {n_labelled} labelled"
        ((own,), *others) = (of(rows, way, **setting) for way in (OURS, SEARCH, MAPIE))
        best = max(row["answered"] for (row,) in others)
        yield Claim(f"{name}: answered, beside others that certify", own["answered"], ">=", best)


def regressions(rows):
    for row in of(rows, OURS):
        name = f"{row['data']}, risk {row['risk']}, {row['n_labelled']} labelled"
        yield Claim(f"{name}: broken for sure", row["broken_low"], "<=", 1 - CONFIDENCE)
    share = np.mean([row["broken"] for row in of(rows, BY_EYE)])
    yield Claim("a threshold by eye breaks the risk more often, on average", share, ">", 0.2)


CLAIMS = {QUESTION: Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="two epochs, a twentieth of the draws")
    parser.add_argument("--data", nargs="+", default=list(RISKS), choices=list(RISKS))
    args = claims.parse(parser, CLAIMS)
    warnings.simplefilter("ignore")
    partly = set(args.data) != set(RISKS)
    found = records.of_others(QUESTION, args.data, args.quick) if partly else []
    for name in args.data:
        found += run(name, args.quick)
    records.write(QUESTION, found, args.quick)
    claims.settle(CLAIMS, quick=args.quick)

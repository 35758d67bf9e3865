"""Are the guarantees kept, exit by exit, over 1,000 draws of the calibration rows?

Sets: test rows of Letter and CIFAR-10 are split at random into rows that calibrate and rows that are covered. How many
rows of a group are covered follows the beta-binomial law exactly, so the mean over the splits must lie within chance of
the law's. Every score, pooled, per exit, per class.

Limits: calibration rows are drawn from the test rows with replacement, so that what a point does to rows like them is
known exactly: its mean over all test rows. A limit on the accuracy drop, the disagreement or the mean cost may be
broken in 5 % of the draws. CIFAR-10 is there twice: in float32, and in 8-bit integers in ONNX Runtime, whose limits are
against the plain network in float32.

Other writers: pen digits' official test rows come from writers who wrote none of the training rows; no guarantee speaks
of them until some of them calibrate.
"""

import warnings

import claims
import datasets
import numpy as np
import records
from claims import Claim, Claims
from scipy.stats import binomtest, norm

from sklearn_jeidnn import EarlyExitClassifier, conformal, metrics
from sklearn_jeidnn._operate import risk as risk_tests
from sklearn_jeidnn._operate.certification import risk_losses

SEED = 0
LEVELS = [0.8, 0.9, 0.95, 0.99]
CONFIDENCE = 0.95
GROUPS = ["pooled", "exit", "class"]
CIFAR10, IN_INT8 = "cifar10", "cifar10_int8"
BUDGETS = {"letter": 0.27, CIFAR10: 0.5, IN_INT8: 0.5}
LIMITS = {
    "accuracy_drop": [0.005, 0.01, 0.02],
    "disagreement": [0.02, 0.05],
    "mean_cost": [0.3, 0.5, 0.7],
}
N_TESTED = {"letter": [1000, 2000], CIFAR10: [2500, 5000], IN_INT8: [2500, 5000]}


def load(name):
    """(parameters, training rows, held-out rows by name, test rows)"""
    if name in (CIFAR10, IN_INT8):
        params, *rows = datasets.load_frozen_cifar10_fit()
        in_int8 = {"engine": "onnxruntime", "precision": "int8"} if name == IN_INT8 else {}
        return {**params, **in_int8}, *rows
    split = datasets.load(name)
    params = {"companion": None, "max_epochs": 30}
    return params, (split.X_train, split.y_train), {}, (split.X_test, split.y_test)


def fitted(name, memory, quick):
    """(estimator, test rows)"""
    params, train, held_out, test = load(name)
    if quick:
        params = {**params, "max_epochs": 2}
    budget = {"budget": BUDGETS[name]} if name in BUDGETS else {}
    clf = EarlyExitClassifier(**params, **budget, memory=memory, random_state=SEED)
    return clf.fit(*train, **held_out), test


def coverage_of_splits(name, clf, X, y, n_splits):
    """One record for each score, grouping and level."""
    found = []
    # Where the true label's row belongs.
    numbers_of = {
        "pooled": np.zeros(len(y), dtype=int),
        "exit": clf.predict_exit(X),
        "class": np.searchsorted(clf.classes_, y),
    }
    for score in conformal.SCORES:
        # Scores of all test rows, as the rows that calibrate would have them, whatever their groups.
        scores = clf.set_params(conformity_score=score).conformalize(X, y).conformity_scores_
        for groups in GROUPS:
            numbers = numbers_of[groups]
            rng = np.random.default_rng(SEED)
            orders = [rng.permutation(len(y)) for _ in range(n_splits)]
            for level in LEVELS:
                record = beside_the_law(scores, numbers, orders, level)
                setting = {"data": name, "seed": SEED, "score": score, "groups": groups}
                setting["level"] = level
                found.append(
                    {**setting, "n_calibration": len(y) // 2, "n_splits": n_splits, **record}
                )
    return found


def beside_the_law(scores, groups, orders, level):
    """Covered rows of each group, summed over splits, beside their mean and deviation by the law.

    Of m new rows beta-binomial(m, k, n + 1 - k) are covered, with k the rank of the quantile among n.
    """
    n_groups, half = groups.max() + 1, len(scores) // 2
    covered, mean, variance, rows = (np.zeros(n_groups) for _ in range(4))
    for order in orders:
        calibration, test = order[:half], order[half:]
        quantiles = conformal.group_quantiles(scores[calibration], groups[calibration], level)
        quantiles = np.append(quantiles, np.full(n_groups, np.inf))[groups[test]]
        covered += np.bincount(groups[test], scores[test] <= quantiles, minlength=n_groups)
        n, m = (np.bincount(groups[part], minlength=n_groups) for part in (calibration, test))
        rank = np.ceil(np.round((n + 1) * level, 9))
        full = rank > n
        mean += np.where(full, m, m * rank / (n + 1))
        spread = m * rank * (n + 1 - rank) * (n + 1 + m) / ((n + 1) ** 2 * (n + 2))
        variance += np.where(full, 0, spread)
        rows += m
    random = variance > 0
    z = (covered - mean)[random] / np.sqrt(variance[random])
    return {
        "mean_coverage": covered.sum() / rows.sum(),
        "coverage_by_law": mean.sum() / rows.sum(),
        "z": (covered - mean).sum() / np.sqrt(variance.sum()),
        "lowest_group_z": z.min(),
        "highest_group_z": z.max(),
        "n_groups": int(random.sum()),
        "share_of_full_sets": 1 - rows[random].sum() / rows.sum(),
    }


def limits_of_draws(name, clf, X, y, n_draws):
    """One record for each limit and number of rows that test it."""
    answers, of_fit = clf.exit_answers(X, y), clf._predictor.frontier
    p_values = {
        "accuracy_drop": risk_tests.drop_p_value,
        "disagreement": risk_tests.binomial_p_value,
        "mean_cost": risk_tests.cost_p_value(clf.exit_costs_),
    }
    found = []
    for risk, limits in LIMITS.items():
        frontier = of_fit.of_agreement() if risk == "disagreement" else of_fit
        expensive_first = frontier.candidates_by_cost
        path = expensive_first[::-1] if risk == "mean_cost" else expensive_first
        losses = np.stack([risk_losses(frontier, answers, risk, point) for point in path])
        costs = [risk_losses(frontier, answers, "mean_cost", point).mean() for point in path]
        safe = clf.exit_costs_[0] if risk == "mean_cost" else clf.exit_costs_[-1]
        for limit in limits:
            for n_tested in N_TESTED[name]:
                record = drawn(losses, [*costs, safe], p_values[risk], limit, n_tested, n_draws)
                setting = {"data": name, "seed": SEED, "risk": risk, "limit": limit}
                setting["n_tested"] = n_tested
                found.append({**setting, "n_draws": n_draws, **record})
    return found


def drawn(losses, costs, p_value_of, limit, n_tested, n_draws):
    """How often a limit is broken, and at what mean cost; the last cost is that of the point without a test."""
    rng, taken = np.random.default_rng(SEED), []
    truth = np.append(losses.mean(axis=1), -np.inf)
    for _ in range(n_draws):
        sample = rng.integers(losses.shape[1], size=n_tested)
        drawn_losses = (own[sample] for own in losses)
        taken.append(risk_tests.last_certified(drawn_losses, p_value_of, limit, CONFIDENCE)[0])
    broken = truth[taken] > limit
    exact = binomtest(int(broken.sum()), n_draws).proportion_ci(0.95)
    return {
        "broken": broken.mean(),
        "broken_low": exact.low,
        "broken_high": exact.high,
        "none_passed": np.mean(np.array(taken) < 0),
        "mean_cost": np.mean(np.array(costs)[taken]),
        "largest_mean_cost": np.max(np.array(costs)[taken]),
        "mean_risk": np.mean(np.where(np.array(taken) < 0, 0, truth[taken])),
    }


def by_the_estimator(clf, X, y):
    """What a user gets who asks the fitted estimator for a limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        controlled = clf.at(max_accuracy_drop=0.01, risk_confidence=CONFIDENCE)
    return {
        "n_samples": controlled.risk_.n_samples,
        "certified": controlled.risk_.certified,
        "mean_cost": controlled.mean_cost(X),
        "accuracy": controlled.score(X, y),
    }


def other_writers(quick):
    """Coverage of pen digits' test writers, calibrated on the training writers, and on half of themselves."""
    clf, (X, y) = fitted("pendigits", None, quick)
    codes = np.searchsorted(clf.classes_, y)
    sets = clf.predict_set(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        p_value = clf.check_exchangeability(X).p_value
    half = np.random.default_rng(SEED).permutation(len(y))
    calibration, test = half[: len(y) // 2], half[len(y) // 2 :]
    again = clf.conformalize(X[calibration], y[calibration]).predict_set(X[test])
    return {
        "data": "pendigits",
        "seed": SEED,
        "coverage_calibrated_on_other_writers": np.take_along_axis(sets, codes[:, None], 1).mean(),
        "p_value_of_check_exchangeability": p_value,
        "coverage_calibrated_on_half_of_them": np.take_along_axis(
            again, codes[test, None], 1
        ).mean(),
        "p_value_then": clf.check_exchangeability(X[test]).p_value,
    }


def run(name, n_splits, memory, quick):
    clf, (X, y) = fitted(name, memory, quick)
    limits = limits_of_draws(name, clf, X, y, n_splits)
    estimator = by_the_estimator(clf, X, y)
    return coverage_of_splits(name, clf, X, y, n_splits), limits, estimator


def report(rows):
    names = list(rows[0])
    print("\n" + " ".join(f"{name[:12]:>12}" for name in names))
    for row in rows:
        cells = (f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values())
        print(" ".join(f"{cell[:15]:>12}" for cell in cells))


def coverage_regressions(rows):
    """Bounds with a thousandth of chance over all of a kind together."""
    few = norm.isf(0.0005 / len(rows))
    few_of_groups = norm.isf(0.0005 / sum(row["n_groups"] for row in rows))
    yield Claim("lowest z of a mean coverage", min(r["z"] for r in rows), ">", -few)
    yield Claim("highest z of a mean coverage", max(r["z"] for r in rows), "<", few)
    lowest = min(row["lowest_group_z"] for row in rows)
    yield Claim("lowest z of a group", lowest, ">", -few_of_groups)


def limits_targets(rows):
    for row in rows:
        if (row["data"], row["risk"], row["limit"]) == ("cifar10", "accuracy_drop", 0.01):
            name = f"CIFAR-10, drop of at most 0.01, {row['n_tested']} rows: mean cost"
            yield Claim(name, row["mean_cost"], "<", 0.9)


def limits_regressions(rows):
    for row in rows:
        name = f"{row['data']}, {row['risk']} at most {row['limit']}, {row['n_tested']} rows"
        yield Claim(f"{name}: broken for sure", row["broken_low"], "<=", 1 - CONFIDENCE)
        if row["risk"] != "mean_cost":
            yield Claim(f"{name}: mean cost", row["mean_cost"], "<", 1)


def writers_regressions(rows):
    (row,) = rows
    p_value = row["p_value_of_check_exchangeability"]
    yield Claim("p-value that warns of other writers", p_value, "<", 0.01)
    # The band of exchangeable halves; 1,749 rows calibrate, and as many are covered.
    low, high = metrics.coverage_band(1749, 1749, 0.9)
    covered = row["coverage_calibrated_on_half_of_them"]
    yield Claim("coverage, calibrated on half of them", covered, ">=", low)
    yield Claim("coverage, calibrated on half of them", covered, "<=", high)


CLAIMS = {
    "coverage": Claims(claims.none, coverage_regressions),
    "limits": Claims(limits_targets, limits_regressions),
    "other_writers": Claims(claims.none, writers_regressions),
}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="two epochs, 50 splits")
    parser.add_argument("--data", nargs="+", default=list(BUDGETS), choices=list(BUDGETS))
    parser.add_argument("--memory", help="folder that keeps trained networks")
    args = claims.parse(parser, CLAIMS)
    found = {"coverage": [], "limits": [], "other_writers": []}
    # Data sets that are not run again keep what was measured.
    for question in found:
        if set(args.data) != set(BUDGETS):
            found[question] = records.of_others(question, args.data, args.quick)
    if not found["other_writers"]:
        found["other_writers"] = [other_writers(args.quick)]
        report(found["other_writers"])
    for name in args.data:
        n_splits = 50 if args.quick else 1000
        coverage, limits, estimator = run(name, n_splits, args.memory, args.quick)
        report(coverage), report(limits), report([estimator])
        found["coverage"] += coverage
        found["limits"] += limits
    for question, rows in found.items():
        records.write(question, rows, args.quick)
    claims.settle(CLAIMS, quick=args.quick)

"""Do learned gates bias probabilities less than confidence thresholds do?

The paper says that gating by confidence makes the probabilities of the rows that leave less reliable, and that joint
learning does not. Here, on the same heads at the same mean cost: calibration error (equal-mass bins, debiased) of the
rows that leave at each exit (mean over exits, weighted by rows) and of all rows, log-loss, and at equal coverage the
mean size of prediction sets; as the heads answer ("raw") and with a temperature for each exit. On CIFAR-10 also the
plain backbone, its temperature fitted and its sets calibrated on the same rows.
"""

import claims
import datasets
import numpy as np
import records
import torch
from claims import Claim, Claims
from operating_points import exits_at
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import ttest_1samp
from sklearn.utils import check_random_state

from sklearn_jeidnn import EarlyExitClassifier, conformal, metrics
from sklearn_jeidnn._splits import halve

POLICIES = ["learned", "confidence", "confidence_per_exit", "margin_per_exit"]
SCORES = ["lac", "randomized_aps"]
BUDGETS = {"cifar10": [0.3, 0.5], "letter": [0.27, 0.3], "krkopt": [0.3, 0.5]}
LEVEL = 0.9


def load(name):
    """(parameters, training rows, held-out rows by name, test rows)"""
    if name == "cifar10":
        return datasets.load_frozen_cifar10_fit()
    split = datasets.load(name)
    params = {"max_epochs": 20, "validation_fraction": 0.2}
    if name == "krkopt":
        params["module__width"] = 128
    return params, (split.X_train, split.y_train), {}, (split.X_test, split.y_test)


def run(name, seeds, memory, quick):
    params, train, held_out, test = load(name)
    if quick:
        params = {**params, "max_epochs": 2}
    plain = plain_logits(params["module"], held_out["X_val"], test[0]) if held_out else None
    found = []
    for seed in seeds:
        asked = {"budget": BUDGETS[name][-1], "conformity_score": SCORES[-1], "companion": None}
        clf = EarlyExitClassifier(**params, **asked, memory=memory, random_state=seed)
        clf.fit(*train, **held_out)
        # What all exits say of the rows that calibrate and of the test rows; each policy takes one a row.
        known, new = clf._predictor.samples.answers, clf.exit_answers(*test)
        rng = np.random.default_rng(seed)
        uniform = [rng.random(len(answers.codes)) for answers in (known, new)]
        for budget in BUDGETS[name]:
            for policy in POLICIES:
                setting = {"data": name, "seed": seed, "budget": budget, "policy": policy}
                at = clf.at(budget=budget, exit_policy=policy)
                found += [{**setting, **row} for row in measured(at, (known, new), uniform)]
        if plain:
            own = of_plain(*plain, held_out["y_val"], test[1], seed)
            found.append({"data": name, "seed": seed, "budget": 1.0, "policy": "plain", **own})
    return found


def measured(clf, answers, uniform):
    """Records of the probabilities as heads answer, and with temperatures.

    Parameters
    ----------
    clf : EarlyExitClassifier
        At an operating point.
    answers, uniform : pair
        Of the rows that calibrate, and of the test rows.
    """
    codes = answers[1].codes
    for name, temperatures in [
        ("raw", np.ones_like(clf.temperatures_)),
        ("temperature", clf.temperatures_),
    ]:
        known, new = (
            routed(clf, own, temperatures, numbers)
            for own, numbers in zip(answers, uniform, strict=True)
        )
        yield {
            "probabilities": name,
            "mean_cost": metrics.mean_cost(new.exit_index, clf.exit_costs_),
            **of_probabilities(new.probabilities, codes, new.exit_index),
            **of_sets(known, answers[0].codes, new, codes),
        }


def routed(clf, answers, temperatures, uniform):
    """Rows at the exits that they take, their logits divided by the exits' temperatures."""
    exits = exits_at(clf, answers)
    logits = answers.logits[np.arange(len(exits)), exits].astype(float)
    probabilities = softmax(logits / temperatures[exits, None], axis=1)
    return conformal.RoutedSamples(probabilities, exits, uniform, np.zeros_like(exits))


def of_probabilities(probabilities, codes, exit_index):
    report = metrics.calibration_report(probabilities, codes, exit_index, exit_index.max() + 1)
    of_exits, of_all = report[:-1], report[-1]
    taken = of_exits["n_rows"] > 1
    shares = of_exits["n_rows"][taken]
    return {
        "accuracy": of_all["accuracy"],
        "log_loss": of_all["log_loss"],
        "brier_score": of_all["brier_score"],
        "error_of_all": of_all["calibration_error"],
        "error_at_exits": np.average(of_exits["calibration_error"][taken], weights=shares),
    }


def of_sets(known, known_codes, new, new_codes):
    """Size and coverage of sets, and the lowest coverage of an exit that one row in twenty takes."""
    n_exits, found = new.exit_index.max() + 1, {}
    often = metrics.exit_rates(new.exit_index, n_exits) >= 0.05
    for score in SCORES:
        # Scores that are not random do not read the random numbers.
        of_score = conformal.SCORES[score], conformal.pooled, known, known_codes
        sets = conformal.ConformalSets(*of_score).sets(new, [LEVEL])[..., 0]
        coverages, _ = metrics.sets_by_exit(sets, new_codes, new.exit_index, n_exits)
        found[f"{score}_size"] = metrics.mean_set_size(sets)
        found[f"{score}_coverage"] = metrics.coverage(sets, new_codes)
        found[f"{score}_lowest_coverage_of_an_exit"] = coverages[often].min()
    return found


@torch.no_grad()
def plain_logits(backbone, *arrays):
    return [
        torch.cat([backbone(torch.as_tensor(rows)) for rows in np.array_split(X, len(X) // 250)])
        for X in arrays
    ]


def of_plain(held_out, test, y_val, y_test, seed):
    """The plain backbone, calibrated on the same rows as the classifier of this seed."""
    gate, calibration = halve(len(y_val), check_random_state(seed))
    y_val, y_test = (np.searchsorted(np.unique(y_val), y) for y in (y_val, y_test))
    temperature = fitted_temperature(held_out[gate], y_val[gate])
    rng, samples = np.random.default_rng(seed), []
    for logits in (held_out[calibration], test):
        at_end, uniform = np.zeros(len(logits), dtype=int), rng.random(len(logits))
        probabilities = softmax(logits.double().numpy() / temperature, axis=1)
        samples.append(conformal.RoutedSamples(probabilities, at_end, uniform, at_end))
    known, new = samples
    return {
        "probabilities": "temperature",
        "mean_cost": 1.0,
        **of_probabilities(new.probabilities, y_test, new.exit_index),
        **of_sets(known, y_val[calibration], new, y_test),
    }


def fitted_temperature(logits, codes):
    """The temperature of least log-loss."""
    logits = logits.double().numpy()

    def loss(log_temperature):
        return metrics.log_loss(softmax(logits / np.exp(log_temperature), axis=1), codes)

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def mean_of(found, column, **asked):
    """Values over the seeds of the records that match."""
    return np.array(
        [row[column] for row in found if all(row[name] == value for name, value in asked.items())]
    )


def report(found):
    kinds = dict.fromkeys(
        (row["data"], row["budget"], row["policy"], row["probabilities"]) for row in found
    )
    names = ("data", "budget", "policy", "probabilities")
    columns = [name for name in found[0] if name not in (*names, "seed")]
    print("\nmeans over seeds\n" + " " * 48 + " ".join(f"{name[:14]:>14}" for name in columns))
    for kind in kinds:
        asked = dict(zip(names, kind, strict=True))
        means = [mean_of(found, column, **asked).mean() for column in columns]
        print(f"{' '.join(map(str, kind)):48}" + " ".join(f"{mean:14.4f}" for mean in means))


def compare(found):
    """Learned gates less one threshold on confidence: mean over seeds, and p-value of no difference."""
    for data in dict.fromkeys(row["data"] for row in found):
        for budget in BUDGETS[data]:
            for probabilities in ("raw", "temperature"):
                asked = {"data": data, "budget": budget, "probabilities": probabilities}
                told = []
                for column in ("error_of_all", "error_at_exits", "log_loss", "lac_size"):
                    learned, other = (
                        mean_of(found, column, policy=policy, **asked)
                        for policy in ("learned", "confidence")
                    )
                    p_value = ttest_1samp(learned - other, 0).pvalue if len(other) > 1 else np.nan
                    told.append(f"{column} {np.mean(learned - other):+.4f} (p {p_value:.3f})")
                print(f"{data:8} {budget:.2f} {probabilities:12} " + ", ".join(told))


def beside_plain(found, column):
    """At half the cost on CIFAR-10, relative to the plain backbone: mean over seeds, NaN where not measured."""
    asked = {"data": "cifar10", "probabilities": "temperature"}
    half = mean_of(found, column, budget=0.5, policy="learned", **asked)
    plain = mean_of(found, column, policy="plain", **asked)
    return np.mean(half / plain) if len(plain) else np.nan


def targets(found):
    for column in ("lac_size", "log_loss"):
        name = f"CIFAR-10 at half the cost, {column} relative to the plain backbone's"
        yield Claim(name, beside_plain(found, column), "<=", 1.15)


def regressions(found):
    for data in dict.fromkeys(row["data"] for row in found):
        for budget in BUDGETS[data]:
            asked = {"data": data, "budget": budget, "policy": "learned"}
            asked["probabilities"] = "temperature"
            name = f"{data} at {budget}, temperatures"
            error = mean_of(found, "error_of_all", **asked).mean()
            yield Claim(f"{name}: calibration error", error, "<=", 0.02)
            for score in SCORES:
                # Five seeds: two standard deviations of a coverage are less than 0.02.
                covered = mean_of(found, f"{score}_coverage", **asked).mean()
                yield Claim(f"{name}: coverage of {score}", covered, ">=", LEVEL - 0.02)
                yield Claim(f"{name}: coverage of {score}", covered, "<=", LEVEL + 0.02)


CLAIMS = {"gates_and_calibration": Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="two epochs")
    parser.add_argument("data", nargs="*", default=list(BUDGETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--memory", help="folder that keeps trained networks")
    args = claims.parse(parser, CLAIMS)
    found = []
    for name in args.data:
        found += run(name, args.seeds, args.memory, args.quick)
    report(found)
    compare(found)
    records.write("gates_and_calibration", found, args.quick)
    claims.settle(CLAIMS, quick=args.quick)

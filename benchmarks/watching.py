"""How often is a false alarm raised, and how soon is it noticed that samples have changed?

Classifiers of letters and of pen digits. Rows that trained nothing are put into a random order, 1,000 times: the first
ones calibrate, the others come one after the other. No more streams than alpha may raise an alarm. Then other rows
come, from the beginning or after 1,000 of the same kind: with other shares of the classes, with noise, with a column
that stands still, of another data set, or written by others. Last, how many labels it takes to show that sets cover
less than they promise.

    python benchmarks/watching.py [--data letter pendigits] [--quick]
"""

import claims
import datasets
import numpy as np
import records
import torch
from claims import Claim, Claims

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._operate.coverage import CoverageCounts
from sklearn_jeidnn._operate.watching import Observed, Watch

SEED, QUESTION = 0, "watching"
ALPHAS, ALPHA, LEVEL = (0.01, 0.05, 0.1), 0.01, 0.9
N_STREAMS, N_SHIFTED, N_CALIBRATION, N_BEFORE = 1000, 200, 1000, 1000
NOISE = 0.5
LETTER, PENDIGITS = "letter", "pendigits"
NAMES = [LETTER, PENDIGITS]
NOTHING = "nothing"
CLASSES, NOISY, STUCK, OTHER, WRITERS = (
    "shares of classes",
    "noise",
    "a column stands still",
    "another data set",
    "other writers",
)


def load(name):
    """(training rows, rows like them that train nothing, further rows by name), each with labels"""
    split = datasets.load(name)
    if name == LETTER:
        digits = datasets.load(PENDIGITS)
        others = {OTHER: (np.round(digits.X_test * 0.15), None)}
        return (split.X_train, split.y_train), (split.X_test, split.y_test), others
    order = np.random.default_rng(SEED).permutation(len(split.X_train))
    train, held_out = order[3500:], order[:3500]
    letters = datasets.load(LETTER)
    others = {
        WRITERS: (split.X_test, split.y_test),
        OTHER: (letters.X_test / 0.15, None),
    }
    return (
        (split.X_train[train], split.y_train[train]),
        (split.X_train[held_out], split.y_train[held_out]),
        others,
    )


class Answered:
    """What a classifier answers to rows: what is watched, and whether sets hold the truth.

    The rows' own calibration samples are others each time, so scores are kept, not sets.
    """

    def __init__(self, clf, X, y):
        probabilities = clf.predict_proba(X)
        self.observed = Observed(
            clf.predict_exit(X), probabilities.max(axis=1), probabilities.argmax(axis=1)
        )
        # LAC: one minus the probability of the true label.
        self.scores = None
        if y is not None:
            codes = np.searchsorted(clf.classes_, y)
            self.scores = 1 - probabilities[np.arange(len(y)), codes]
            self.codes = codes

    def __len__(self):
        return len(self.observed.codes)


def shifts(X, y, others):
    """Rows that have changed, by what has changed."""
    rng = np.random.default_rng(SEED)
    noisy = X + NOISE * X.std(axis=0) * rng.standard_normal(X.shape)
    stuck = X.copy()
    stuck[:, X.std(axis=0).argmax()] = np.median(X[:, X.std(axis=0).argmax()])
    return {NOISY: (np.float32(noisy), y), STUCK: (stuck, y), **others}


def run(name, quick):
    torch.set_num_threads(1)
    train, (X, y), others = load(name)
    params = {"module__width": 64, "module__n_blocks": 4, "companion": None, "cv": None}
    epochs = 2 if quick else 15
    clf = EarlyExitClassifier(**params, max_epochs=epochs, random_state=SEED)
    clf.fit(*train)
    pool = Answered(clf, X, y)
    n_exits, n_classes = len(clf.exits_) + 1, len(clf.classes_)
    sizes = {"n_exits": n_exits, "n_classes": n_classes}
    common = {"data": name, "accuracy": clf.score(X, y), "seed": SEED}
    yield from false_alarms(pool, sizes, common, N_STREAMS // (20 if quick else 1))
    n_shifted = N_SHIFTED // (20 if quick else 1)
    for what, (X_new, y_new) in shifts(X, y, others).items():
        shifted = Answered(clf, X_new, y_new)
        yield from delays(pool, shifted, what, sizes, common, n_shifted)
    yield from delays(pool, pool, CLASSES, sizes, common, n_shifted)


def taken(observed, rows):
    return Observed(*(column[rows] for column in observed))


def false_alarms(pool, sizes, common, n_streams):
    """Share of streams of the same kind whose wealth ever reaches what an alarm takes."""
    most = []
    for stream in range(n_streams):
        order = np.random.default_rng([SEED, stream]).permutation(len(pool))
        known, new = order[:N_CALIBRATION], order[N_CALIBRATION:]
        watch = Watch(taken(pool.observed, known), **sizes, alpha=ALPHA, seed=stream)
        watch.update(taken(pool.observed, new))
        most.append(watch.most_wealth)
    for alpha in ALPHAS:
        row = {
            **common,
            "change": NOTHING,
            "after": 0,
            "alpha": alpha,
            "n_streams": n_streams,
            "n_samples": len(new),
            "alarms": float(np.mean(np.array(most) >= 1 / alpha)),
            "samples_median": np.nan,
            "samples_p90": np.nan,
            "labels_median": np.nan,
        }
        report(row)
        yield row


def delays(pool, shifted, what, sizes, common, n_streams):
    """After how many changed samples the alarm is raised, and coverage is shown to be too low."""
    for after in (0, N_BEFORE):
        samples, labels = [], []
        for stream in range(n_streams):
            rng = np.random.default_rng([SEED, stream, after])
            order = rng.permutation(len(pool))
            known = order[:N_CALIBRATION]
            before = order[N_CALIBRATION : N_CALIBRATION + after]
            rest = order[N_CALIBRATION + after :] if what in (CLASSES, NOISY, STUCK) else None
            new = changed(shifted, what, rest, rng)
            watch = Watch(taken(pool.observed, known), **sizes, alpha=ALPHA, seed=stream)
            watch.update(taken(pool.observed, before))
            if watch.alarm_at is not None:
                continue
            watch.update(taken(shifted.observed, new))
            samples.append(np.inf if watch.alarm_at is None else watch.alarm_at - after)
            labels.append(labels_needed(pool, known, shifted, new))
        row = {
            **common,
            "change": what,
            "after": after,
            "alpha": ALPHA,
            "n_streams": len(samples),
            "n_samples": len(new),
            "alarms": float(np.mean(np.isfinite(samples))),
            "samples_median": quantile(samples, 0.5),
            "samples_p90": quantile(samples, 0.9),
            "labels_median": quantile(labels, 0.5),
        }
        report(row)
        yield row


def changed(shifted, what, rest, rng):
    """Rows that come, in random order; of half of the classes three in four where shares change."""
    rows = np.arange(len(shifted)) if rest is None else rest
    if what != CLASSES:
        return rng.permutation(rows)
    is_first = shifted.codes[rows] < shifted.codes.max() / 2
    weights = np.where(is_first, 3.0, 1.0)
    return rng.choice(rows, len(rows) // 2, replace=False, p=weights / weights.sum())


def labels_needed(pool, known, shifted, new):
    """After how many labels it is shown that sets cover less than they promise; infinity if never."""
    if shifted.scores is None:
        return np.inf
    rank = int(np.ceil((len(known) + 1) * LEVEL))
    covered = shifted.scores[new] <= np.sort(pool.scores[known])[rank - 1]
    counts = CoverageCounts(LEVEL, ALPHA)
    for i, one in enumerate(covered):
        counts.update(np.array([one]))
        if counts.is_below:
            return i + 1
    return np.inf


def quantile(values, share):
    """Of values of which some are infinite."""
    return float(np.sort(values)[min(int(share * len(values)), len(values) - 1)])


def report(row):
    print(
        f"{row['data']:10} {row['change']:22} after {row['after']:4}, alpha {row['alpha']}: alarms {row['alarms']:.3f} "
        f"of {row['n_streams']}, samples {row['samples_median']:.0f} (90 %: {row['samples_p90']:.0f}), "
        f"labels {row['labels_median']:.0f}",
        flush=True,
    )


def of_nothing(rows):
    return [row for row in rows if row["change"] == NOTHING]


def targets(rows):
    for row in rows:
        if row["change"] in (NOISY, CLASSES):
            says = f"{row['data']}, {row['change']} after {row['after']}: noticed"
            yield Claim(says, row["alarms"], ">=", 0.9)


def regressions(rows):
    for row in of_nothing(rows):
        alpha, n_streams = row["alpha"], row["n_streams"]
        # Three standard deviations of chance.
        most = alpha + 3 * np.sqrt(alpha * (1 - alpha) / n_streams)
        yield Claim(f"{row['data']}: false alarms at {alpha}", row["alarms"], "<=", most)
    for row in rows:
        if row["change"] == OTHER:
            says = f"{row['data']}, {row['change']} after {row['after']}: samples until noticed"
            yield Claim(says, row["samples_p90"], "<=", 100)


CLAIMS = {QUESTION: Claims(targets, regressions)}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="two epochs, 50 streams")
    parser.add_argument("--data", nargs="+", default=NAMES, choices=NAMES)
    options = claims.parse(parser, CLAIMS)
    rows = records.of_others(QUESTION, options.data, options.quick)
    for data in options.data:
        rows += run(data, options.quick)
        records.write(QUESTION, rows, options.quick)
    claims.settle(CLAIMS, quick=options.quick)

"""Write the tables of the documentation from the CSVs: no figure in them is typed by hand.

A page says where a table stands by ``<!-- table: NAME -->`` and ``<!-- end -->``, each on a line of its own; what is
between them is written anew.

    python benchmarks/report.py docs/benchmarks.md          # write
    python benchmarks/report.py docs/benchmarks.md --check  # fail where a page is out of date
    python benchmarks/report.py                             # print all tables
"""

import argparse
import functools
import pathlib
import re
import sys

import accuracy_cost_frontier as frontier
import check
import deferral
import engines
import gpu
import images
import long_tail
import low_cost_exits
import main_job
import numpy as np
import out_of_fold_gates as folds
import promise
import real_networks as real
import records
import serving
import single_file
import tables_as_they_come as tables
import watching

TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)
DATA_NAMES = {
    "adult": "Adult",
    "letter": "Letter",
    "letter_int8": "Letter in int8",
    "digits": "Digits",
    "pendigits": "Pen digits",
    "pendigits_int8": "Pen digits in int8",
    "krkopt": "Chess endgames",
    "digit_images": "Digits as images",
    "cifar10": "CIFAR-10",
    "cifar10_int8": "CIFAR-10 in int8",
    "cifar10_companion": "CIFAR-10, a companion in front",
    "cifar10_int8_companion": "CIFAR-10 in int8, a companion in front",
    "cifar10_int8_auto": 'CIFAR-10 in int8, `companion="auto"`',
    "movie_reviews": "Movie reviews",
    "reviews": "Movie reviews",
    "minilm": "MiniLM, movie reviews",
}


def main_table():
    """Early exits beside what a user would do instead."""
    splits = {
        "adult": "Adult (official split)",
        "letter": "Letter (16,000 / 4,000)",
        "digits": "Digits (70/30)",
        "pendigits": "Pen digits (official split)",
        "krkopt": "Chess endgames (70/30)",
        "digit_images": "Digits as images",
        "cifar10": "CIFAR-10, 10,000 rows",
    }
    rows = [main_row(label, records.read(f"main_job_{name}")) for name, label in splits.items()]
    blocks = [f"plain, {n} block{'s' * (n > 1)}" for n in (6, 3, 2, 1)]
    others = ["one exit for all rows", "MLP (256, 256)", "boosted trees", "coverage at 90 %"]
    return table(["", "early exits", *blocks, *others], rows)


def main_row(label, rows):
    def cell(classifier):
        row = main_job.of(rows, classifier)
        return at(row["accuracy"], row["mean_cost"])

    exits, full = (main_job.of(rows, name) for name in (main_job.EXITS, main_job.PLAIN))
    single = next(r["classifier"] for r in rows if r["classifier"].startswith("exit "))
    low, high = percent(exits["band_low"]), percent(exits["band_high"])
    return [
        label,
        f"**{cell(main_job.EXITS)}**",
        percent(full["accuracy"]),
        *(cell(f"plain backbone, {n} blocks") for n in (3, 2, 1)),
        cell(single),
        cell(main_job.MLP),
        cell("HistGradientBoosting"),
        f"{percent(exits['coverage'])} [{low}, {high}]",
    ]


def cost_weights():
    """Accuracy at the mean cost reached, by cost weight."""
    rows, found = records.read("cost_weights"), {}
    for row in rows:
        found.setdefault(row["data"], []).append(at(row["accuracy"], row["mean_cost"]))
    weights = sorted({row["cost_weight"] for row in rows})
    header = ["`cost_weight`", *(f"{weight:g}" for weight in weights)]
    return table(header, [[DATA_NAMES[name], *cells] for name, cells in found.items()])


def low_cost_chess():
    ways = {"nothing": "exits alone", "auto": '`companion="auto"`'}
    return low_cost("krkopt", ways, [0.1, 0.2, 0.3, 0.4, 0.5])


def low_cost_cifar10():
    ways = {
        "nothing": "exits alone",
        frontier.COMPANIONS: "three companions: width 24, too",
        "widths 10, 16": "two companions",
        "widths 10, 16 (36 epochs, before trust in the member)": "the same, exits trusting only the exit before",
        "widths 10, 16 (24 epochs)": "24 epochs, trusting only the exit before",
        "distilled": "distilled without labels",
        "distilled (24 epochs)": "24 epochs, distilled without labels",
    }
    # Three companions are measured with the other ways of exiting.
    further = [
        {**row, "in_front": row["policy"]}
        for row in records.read("accuracy_cost_frontier_cifar10")
        if row["policy"] == frontier.COMPANIONS
    ]
    return low_cost("cifar10", ways, [0.2, 0.3, 0.4, 0.5, 0.6], further)


def low_cost(data, ways, budgets, further=()):
    """Accuracy at the mean cost reached, by budget and by what stands in front; means over the seeds."""
    rows = [*records.read(f"low_cost_exits_{data}"), *further]

    def cell(way, budget):
        accuracy, cost = (
            low_cost_exits.mean_at(rows, way, budget, column)
            for column in ("accuracy", "mean_cost")
        )
        return percent(accuracy) if budget == low_cost_exits.LAST else at(accuracy, cost)

    cells = []
    for way, label in ways.items():
        seeds = {row["seed"] for row in rows if row["in_front"] == way}
        if seeds:
            told = f"{label} ({len(seeds)} seed{'s' * (len(seeds) > 1)})"
            cells.append([told, *(cell(way, budget) for budget in (*budgets, low_cost_exits.LAST))])
    return table(["`budget`", *map(str, budgets), "all to the last exit"], cells)


def low_cost_plain_networks():
    """Smaller networks that a user would train instead, chess endgames."""
    rows = records.read("low_cost_exits_krkopt")
    plain = [row for row in rows if row["in_front"].startswith("plain, ")]
    cells = [
        [
            row["in_front"].removeprefix("plain, ").replace("1 blocks", "1 block"),
            at(row["accuracy"], row["mean_cost"]),
        ]
        for row in sorted(plain, key=lambda row: row["mean_cost"])
    ]
    return table(["plain network", "accuracy"], cells)


def low_cost_tables():
    """By the clock: accuracy the mean, time the median of the seeds."""
    ways = {
        "boosted trees alone": "boosted trees alone",
        "nothing": "network with exits",
        "trees": "trees in front",
        "auto": '`companion="auto"`',
    }
    cells = []
    for name in ("adult", "letter", "pendigits"):
        rows = records.read(f"low_cost_exits_{name}")
        cells.append([DATA_NAMES[name], *(clock_cell(rows, way) for way in ways)])
    return table(["", *ways.values()], cells)


def clock_cell(rows, way):
    own = [row for row in rows if row["in_front"] == way]
    if not own:
        return ""
    accuracy = percent(np.mean([row["accuracy"] for row in own]))
    return f"{accuracy} at {short(np.median([row['microseconds_per_row'] for row in own]))} us"


def frontier_table():
    """Learned gates beside the best other policy, budget by budget; means over the seeds."""
    budgets, cells = [0.2, 0.3, 0.4, 0.5, 0.6], []
    for name in ("cifar10", "krkopt", "pendigits", "letter", "adult", "movie_reviews"):
        rows = records.read(f"accuracy_cost_frontier_{name}")
        points = frontier.mean_by_policy(rows)
        beside = frontier.learned_beside_others(points)
        for label, column in (("learned gates", 0), ("best other", 2)):
            own = [percent(beside[b][column]) if b in beside else "" for b in budgets]
            cells.append([f"{DATA_NAMES[name]}, {label}", *own])
        front = [points.get((frontier.COMPANIONS, b), (np.nan,))[0] for b in budgets]
        if not np.isnan(front).all():
            label = f"{DATA_NAMES[name]}, three companions in front (seed 0)"
            cells.append([label, *map(percent, front)])
    return table(["", *map(str, budgets)], cells)


def promises():
    """Time promised and measured, by network, machine and threads."""
    networks = {
        "cifar10, shared network": "CIFAR-10, the shared network",
        "letter, 8 blocks of width 1024": "Letter, 8 blocks of width 1024",
        "cifar10, small ViT": "CIFAR-10, a small ViT",
    }
    runs = {}
    for row in records.read("routing_speedup_promise"):
        commit = row["commit"].removesuffix("-dirty")
        runs.setdefault((row["data"], row["n_threads"], commit), {})[row["batch_size"]] = row
    cells = [
        [networks[data], str(n_threads), commit, *promise_cells(by_batch)]
        for (data, n_threads, commit), by_batch in runs.items()
    ]
    header = ["", "threads", "commit", "early exits (256 rows, one row)"]
    header += ["256 rows: promised, measured", "by count", "nobody leaves"]
    return table([*header, "one row: promised, measured", "by count"], cells)


def promises_of_calls():
    """Measured over promised time, by network, engine and operating point."""
    found = promise.ratios(records.read(promise.QUESTION))
    points = [promise.FITTED, *promise.SHARES]
    cells = []
    for data, engine, batch_size in dict.fromkeys(key[:3] for key in found):
        own = [found[data, engine, batch_size, point] for point in points]
        what = {1: "single samples"}.get(batch_size, f"calls of {batch_size}")
        cells.append([promise.LABELS[data], engine, what, *(f"{ratio:.2f}" for ratio in own)])
    return table(["", "engine", "", *points], cells)


def promise_cells(by_batch):
    many, one = by_batch[256], by_batch.get(1)

    def times(row):
        if row is None:
            return ["", ""]
        by_count = f"{row['measured_at_counted']:.2f} at {row['counted']:.2f}"
        return [f"{row['promised']:.2f}, {row['measured']:.2f}", by_count]

    exits = ", ".join(str(row["n_early_exits"]) for row in (many, one) if row)
    return [exits, *times(many), f"{many['nobody_leaves']:.2f}", *times(one)]


def companions_by_the_clock():
    """Accuracy in the share of the plain backbone's time that predict really took."""
    calls = {0: "all rows", 256: "256 rows", 1: "one row"}
    found = {}
    for row in records.read("routing_speedup_companions"):
        key = (row["data"], row["batch_size"], row["in_front"])
        found.setdefault(key, {})[row["way"]] = (
            f"{percent(row['accuracy'])} in {row['of_plain']:.2f}"
        )
    budgets = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0]
    cells = [
        [DATA_NAMES[data], calls[size], way, *(own.get(f"budget {b}", "") for b in budgets)]
        for (data, size, way), own in found.items()
    ]
    return table(["", "calls of", "in front", *(f"budget {b}" for b in budgets)], cells)


def instead_of_tables():
    """Accuracy, then microseconds a row: all rows at once, calls of 256, one row."""
    ways = {
        "default network, priced in calls of a batch": 'default network, `cost="seconds"`',
        "default network, priced in calls of 1": "the same, `cost_batch_size=1`",
        "LightGBM": "LightGBM",
        "LightGBM, pred_early_stop": "LightGBM, `pred_early_stop=True`",
        "HistGradientBoosting": "`HistGradientBoostingClassifier`",
        "MLP": "`MLPClassifier((256, 256))`",
    }
    rows = records.read("routing_speedup_tables")
    names = list(dict.fromkeys(row["data"] for row in rows))
    found = {(row["data"], row["way"]): instead_cell(row) for row in rows}
    cells = [[label, *(found[name, way] for name in names)] for way, label in ways.items()]
    return table(["", *(DATA_NAMES[name] for name in names)], cells)


def instead_cell(row):
    times = [short(row[f"microseconds_{column}"]) for column in ("whole", "batch_256", "one_row")]
    return f"{percent(row['accuracy'])}: {', '.join(times)}"


def limits():
    """How often limits with 95 % confidence are broken, and at what mean cost."""
    risks = {
        "accuracy_drop": "accuracy drop",
        "disagreement": "disagreement",
        "mean_cost": "mean cost",
    }
    cells = [
        [
            DATA_NAMES[row["data"]],
            f"{risks[row['risk']]} at most {row['limit']:g}",
            f"{row['n_tested']:,}",
            f"{percent(row['broken'])} %",
            f"{row['mean_cost']:.2f}",
        ]
        for row in records.read("limits")
    ]
    return table(["", "limit", "rows", "broken", "mean cost"], cells)


def one_file():
    """Microseconds of a sample: the file that leaves early by itself, the engine, and ``predictor()``."""
    cells = [
        [
            f"{DATA_NAMES[row['data']]}, {row['batch_size']}",
            f"{row['mean_cost']:.2f}",
            *(
                short(row[f"microseconds_{name}"])
                for name in (single_file.FILE, *single_file.OTHERS)
            ),
            *(f"{single_file.relative(row, name):.2f}" for name in single_file.OTHERS),
            f"{row['labels_differ']} and {row['exits_differ']} of {row['n_compared']:,}",
        ]
        for row in records.read(single_file.QUESTION)
    ]
    header = ["samples in a call", "mean cost", "file", "engine", "`predictor()`"]
    header += ["file / engine", "file / `predictor()`", "labels and exits that differ"]
    return table(header, cells)


def tables_as_they_come():
    """The default classifier beside trees, on untuned tables and on broken ones."""
    cells = []
    for data, breakage in tables.CASES:
        rows = [
            tables.row_of(records.read(tables.QUESTION), data, breakage, name)
            for name in (tables.OWN, tables.BOOSTED, tables.EXTRA)
        ]
        name = DATA_NAMES.get(data, data.replace("_", " "))
        label = name if breakage == tables.CLEAN else f"{name}, {breakage}"
        found = [f"{percent(r['accuracy'])} ({r['fit_cpu_seconds']:.1f} s)" for r in rows]
        cells.append([label, *found])
    return table(["", "default", "boosted trees", "extra trees"], cells)


def images_as_they_come():
    """The default classifier on images beside the same network trained by hand."""
    labels = {
        "cifar10": "CIFAR-10, 10,000 images",
        "cifar10_50": "2,000 images of 50 pixels",
        "cifar10_96": "2,000 images of 96 pixels",
    }
    rows = records.read(images.QUESTION)
    cells = []
    for data in images.DATA:
        own, last, plain = (
            images.of(rows, data, name) for name in (images.OWN, images.LAST, images.BY_HAND)
        )
        label = labels.get(data, DATA_NAMES.get(data))
        changes = f"{'mirrored, ' * own['flip']}shifted by {own['shift']}" if own["shift"] else "no"
        cells.append(
            [
                label,
                f"{at(own['accuracy'], own['mean_cost'])} ({own['fit_cpu_seconds']:.0f} s)",
                percent(last["accuracy"]),
                ""
                if np.isnan(plain["accuracy"])
                else f"{percent(plain['accuracy'])} ({plain['fit_cpu_seconds']:.0f} s)",
                f"{own['epochs_of_classifier']}",
                changes,
            ]
        )
    return table(["", "default", "its last exit", "by hand", "epochs", "changed"], cells)


def rivals_on_tables():
    """Accuracy, and microseconds a row in one call, of the default and what users have; means over splits."""
    rows = records.read("tables")
    names = list(dict.fromkeys(row["classifier"] for row in rows))
    cells = []
    for data in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == data]
        n_splits = len({row["split"] for row in own})
        label = DATA_NAMES.get(data, data.replace("_", " "))
        cells.append([label, str(n_splits), *(rival_cell(own, name) for name in names)])
    return table(["", "splits", "default", *names[1:]], cells)


def engines_side_by_side():
    """Microseconds of a sample: the whole network and its exits in each engine, and through the two doors."""
    rows = records.read(engines.QUESTION)
    columns = {
        "whole, as its user calls it": [
            (engines.WHOLE, engines.TORCH),
            (engines.WHOLE, engines.PYTHON),
        ],
        "whole, ONNX Runtime": [(engines.WHOLE, engines.ONNX)],
        "exits, torch": [(engines.EXITS, engines.TORCH)],
        "exits, ONNX Runtime": [(engines.EXITS, engines.ONNX)],
        "`predictor()`": [(engines.PREDICTOR, engines.ONNX)],
        "`predict`": [(engines.PREDICT, engines.ONNX)],
    }
    cells = []
    keys = ("data", "n_threads", "batch_size")
    for key in dict.fromkeys(tuple(row[name] for name in keys) for row in rows):
        own = [row for row in rows if tuple(row[name] for name in keys) == key]
        found = {(row["what"], row["engine"]): row for row in own}
        at_exits = found[engines.EXITS, engines.ONNX]
        whole = next(row for row in own if row["what"] == engines.WHOLE)
        times = [
            next((short(found[way]["microseconds"]) for way in ways if way in found), "")
            for ways in columns.values()
        ]
        cells.append(
            [
                f"{DATA_NAMES[key[0]]}, {key[2] or 'all'}",
                str(key[1]),
                percent(whole["accuracy"]),
                at(at_exits["accuracy"], at_exits["mean_cost"]),
                *times,
            ]
        )
    return table(["samples in a call", "threads", "whole, %", "exits, % at cost", *columns], cells)


def gpu_side_by_side():
    """Images a second on a GPU: the whole network in both its ways, its exits, and through the two doors."""
    rows = records.read(gpu.QUESTION)
    ways = list(dict.fromkeys(row["what"] for row in rows))
    cells = []
    for batch_size in dict.fromkeys(row["batch_size"] for row in rows):
        own = {row["what"]: row for row in rows if row["batch_size"] == batch_size}
        exits, whole = own[gpu.EXITS], own[gpu.WEIGHTS]
        speeds = [f"{own[way]['images_per_second']:,.0f}" for way in ways]
        relative = f"{gpu.relative_speed(rows, gpu.PREDICTOR, batch_size):.2f}"
        cells.append(
            [
                str(batch_size),
                percent(whole["accuracy"]),
                at(exits["accuracy"], exits["mean_cost"]),
                *speeds,
                relative,
            ]
        )
    named = [f"`{way}`" if way in (gpu.PREDICTOR, gpu.PREDICT) else way for way in ways]
    header = ["images in a call", "whole, %", "exits, % at cost", *named, "`predictor` / whole"]
    return table(header, cells)


def networks_from_packages():
    """Microseconds of a sample: the whole network and its exits in each engine."""
    rows = records.read(real.QUESTION)
    names = {
        real.MINILM: "MiniLM, movie reviews",
        real.FAMILY: "EfficientNets, CIFAR-10",
    }
    asked = ("data", "batch_size", "precision")
    ways = {
        "whole, torch": (real.WHOLE, real.TORCH),
        "exits, torch": (real.EXITS, real.TORCH),
        "whole, ONNX Runtime": (real.WHOLE, real.ONNX),
        "exits, ONNX Runtime": (real.EXITS, real.ONNX),
        "`predictor()`": (real.PREDICTOR, real.ONNX),
    }
    cells = []
    for data, batch_size, precision in dict.fromkeys(
        tuple(row[key] for key in asked) for row in rows
    ):
        own = [
            row for row in rows if tuple(row[key] for key in asked) == (data, batch_size, precision)
        ]
        found = {(row["what"], row["engine"]): row for row in own}
        exits, whole = found[real.EXITS, real.ONNX], found[real.WHOLE, real.ONNX]
        share = real.share_of_whole(rows, data, batch_size, real.ONNX, precision)
        cells.append(
            [
                f"{names[data]}, {precision}, {batch_size}",
                percent(whole["accuracy"]),
                at(exits["accuracy"], exits["mean_cost"]),
                *(
                    f"{found[way]['microseconds']:.0f}" if way in found else ""
                    for way in ways.values()
                ),
                f"{share:.2f}",
            ]
        )
    header = [
        "samples in a call",
        "whole, %",
        "exits, % at cost",
        *ways,
        "exits / whole, ONNX Runtime",
    ]
    return table(header, cells)


def rival_cell(rows, name):
    own = [row for row in rows if row["classifier"] == name]
    accuracy, time = (np.mean([row[key] for row in own]) for key in ("accuracy", "microseconds"))
    return f"{percent(accuracy)} at {time:.1f} us"


def out_of_fold_gates():
    """Learned gates of few rows: set by some rows, in folds by all, and by further ones."""
    rows = records.read(folds.QUESTION)
    cells = [
        [f"{DATA_NAMES.get(data, data.replace('_', ' '))}, {n_rows:,} rows"]
        + [percent(folds.mean_accuracy(rows, way, n_rows, data)) for way in folds.WAYS]
        + [
            f"{100 * folds.over_thresholds(rows, way, n_rows, data):+.2f}"
            for way in (folds.SPLIT, folds.FOLDS)
        ]
        + [percent(folds.mean_coverage(rows, folds.FOLDS, n_rows, data))]
        + [
            " and ".join(
                f"{folds.mean_seconds(rows, way, n_rows, data):.0f} s"
                for way in (folds.SPLIT, folds.FOLDS)
            )
        ]
        for n_rows, data in dict.fromkeys((row["n_rows"], row["data"]) for row in rows)
    ]
    names = ["split", "folds", "folds, further rows"]
    leads = ["split over thresholds", "folds over thresholds"]
    return table(["", *names, *leads, "coverage of folds", "CPU of split and folds"], cells)


def trained_networks():
    """Coverage of frozen networks whose own training rows calibrate, and with fresh rows."""
    cells = [
        [
            row["kind"],
            f"{row['n_train']:,}",
            f"{percent(row['accuracy_on_own_rows'])}, {percent(row['accuracy_on_new_rows'])}",
            f"{percent(row['coverage'])}, {'warned of' if row['warned'] else 'in silence'}",
            f"{percent(row['coverage_with_x_val'])} [{percent(row['band_low'])}, {percent(row['band_high'])}]",
        ]
        for row in records.read("trained_networks")
    ]
    header = [
        "",
        "rows",
        "accuracy on them, on new ones",
        "coverage without `X_val`",
        "with `X_val`",
    ]
    return table(header, cells)


def calibration():
    """Learned gates / one threshold on confidence / one for each exit, means over the seeds."""
    rows = records.read("gates_and_calibration")
    columns = {
        ("error_of_all", "raw"): "error in percent, raw",
        ("error_of_all", "temperature"): "error in percent, temperatures",
        ("log_loss", "temperature"): "log-loss, temperatures",
        ("lac_size", "temperature"): "set size, temperatures",
    }
    points = dict.fromkeys((r["data"], r["budget"]) for r in rows if r["policy"] != "plain")
    cells = [
        [
            f"{DATA_NAMES[data]} at {budget}",
            *(calibration_cell(rows, data, budget, *column) for column in columns),
        ]
        for data, budget in points
    ]
    return table(["", *columns.values()], cells)


def calibration_cell(rows, data, budget, column, probabilities):
    def of(policy):
        asked = (data, budget, policy, probabilities)
        names = ("data", "budget", "policy", "probabilities")
        own = [row[column] for row in rows if tuple(row[name] for name in names) == asked]
        return f"{100 * np.mean(own):.1f}" if column == "error_of_all" else f"{np.mean(own):.3f}"

    return " / ".join(of(policy) for policy in ("learned", "confidence", "confidence_per_exit"))


def set_speed():
    """Seconds to conformalise and to answer, and memory on top of the probabilities."""
    tools = {
        "sklearn_jeidnn": "`conformal.ConformalSets`",
        "mapie": "MAPIE",
        "crepes": "crepes",
    }
    found = {(row["tool"], row["score"]): row for row in records.read("set_speed")}
    cells = [
        [
            label,
            *(cell for score in ("lac", "randomized_aps") for cell in speed(found[tool, score])),
        ]
        for tool, label in tools.items()
    ]
    return table(["", "LAC", "memory", "randomised APS", "memory"], cells)


def speed(row):
    def told(seconds):
        return f"{seconds / 3600:.0f} h" if seconds > 3600 else f"{seconds:.1f} s"

    times = f"{told(row['conformalize_seconds'])} + {told(row['predict_set_seconds'])}"
    # crepes answers a hundred rows only, whose memory says nothing of all.
    memory = "" if row["tool"] == "crepes" else f"{row['further_gigabytes']:.2f} GB"
    return [times, memory]


def exit_heads():
    """Accuracy of each exit taken by all rows, by head."""
    rows = records.read("exit_heads")
    n_exits = max(len(row["accuracy_of_exits"].split()) for row in rows)
    cells = []
    for row in rows:
        exits = [percent(float(accuracy)) for accuracy in row["accuracy_of_exits"].split()]
        # The last exit is the last column, however many come before it.
        exits[-1:] = [*([""] * (n_exits - len(exits))), exits[-1]]
        cells.append([DATA_NAMES[row["data"]], row["head"], *exits, f"{row['overhead']:.4f}"])
    names = [f"exit {number}" for number in range(1, n_exits)]
    return table(["", "head", *names, "last exit", "all heads cost"], cells)


def architectures():
    cells = [
        [
            row["module"],
            f"{row['parameters'] / 1e6:.1f}",
            f"{max(row['difference_all_stay'], row['difference_rows_leave']):.0e}",
            f"{row['time_ratio']:.3f}",
        ]
        for row in records.read("architectures")
    ]
    header = ["", "million parameters", "answers differ by at most", "time in stages"]
    return table(header, cells)


def paper_recipe():
    """Accuracy at the mean cost reached, by cost weight."""
    rows, found = records.read("paper_recipe"), {}
    for row in rows:
        found.setdefault(row["recipe"], []).append(at(row["accuracy"], row["mean_cost"]))
    weights = dict.fromkeys(row["cost_weight"] for row in rows)
    header = ["`cost_weight`", *map(str, weights)]
    return table(header, [[recipe, *cells] for recipe, cells in found.items()])


def missed_targets():
    """Goals that the committed figures do not reach."""
    cells = [
        [
            question,
            claim.name,
            f"{claim.value:.4g}" if claim.was_measured else "not measured",
            f"{claim.relation} {claim.bound:.4g}",
        ]
        for question, kind, claim in check.run()
        if kind == "target" and not claim.holds
    ]
    return table(["figures", "target", "measured", "wanted"], cells)


def services():
    """Requests a second and latencies of a service, beside services of the whole network."""
    rows, cells = records.read(serving.QUESTION), []
    kinds = dict.fromkeys(
        (row["data"], row["n_samples"], row["n_clients"], row["what"]) for row in rows
    )
    for data, n_samples, n_clients, what in kinds:
        found = functools.partial(serving.of, rows, data, what, n_samples)
        keys = ["requests_per_second", *(f"milliseconds_{name}" for name in ("p50", "p95", "p99"))]
        memory = [f"{found(f'megabytes_{name}'):.0f}" for name in ("before", "after")]
        asked = {"data": data, "what": what, "n_samples": n_samples}
        failed = sum(row["failed"] for row in rows if asked.items() <= row.items())
        sample = "sentence" if data == serving.MINILM else "image"
        each = f"{n_samples} {sample}{'s' * (n_samples > 1)}"
        label = f"{DATA_NAMES[data]}, {what}, {each} a request, {n_clients} clients"
        cells.append(
            [label, *(short(found(key)) for key in keys), str(failed), " to ".join(memory)]
        )
    header = ["", "requests a second", "p50, ms", "p95, ms", "p99, ms", "failed", "memory, MB"]
    return table(header, cells)


def changes_noticed():
    """After how many samples a change raises the alarm, and how many labels show it."""
    header = ["", "after", "noticed, %", "samples, median", "samples, 90 %", "labels, median"]
    cells = [
        [
            f"{DATA_NAMES[row['data']]}: {row['change']}",
            str(row["after"]),
            percent(row["alarms"]),
            *(
                f"{row[key]:.0f}" if np.isfinite(row[key]) else "–"
                for key in ("samples_median", "samples_p90", "labels_median")
            ),
        ]
        for row in records.read(watching.QUESTION)
        if row["change"] != watching.NOTHING
    ]
    return table(header, cells)


def false_alarms():
    """Share of streams with a false alarm, by how many may have one."""
    rows = watching.of_nothing(records.read(watching.QUESTION))
    cells = [
        [
            f"{DATA_NAMES[data]}, {next(r['n_samples'] for r in rows if r['data'] == data)} samples",
            *(percent(r["alarms"]) for r in rows if r["data"] == data),
        ]
        for data in dict.fromkeys(row["data"] for row in rows)
    ]
    header = ["in percent", *(f"at most {percent(alpha)}" for alpha in watching.ALPHAS)]
    return table(header, cells)


def answers_and_deferrals():
    """Share that is answered, and how often the risk is broken, by way of finding the threshold."""
    rows, names = (
        records.read(deferral.QUESTION),
        {
            deferral.OURS: "`predict_or_defer`",
            deferral.SEARCH: "search",
            deferral.MAPIE: "MAPIE",
            deferral.BY_EYE: "by eye",
            deferral.AT_ITS_WORD: "at its word",
        },
    )
    cells = []
    for data, risk, n_labelled in deferral.settings(rows):
        setting = {"data": data, "risk": risk, "n_labelled": n_labelled}
        own = [deferral.of(rows, way, **setting)[0] for way in names]
        told = [f"{percent(row['answered'])} ({percent(row['broken'])})" for row in own]
        label = f"{DATA_NAMES[data]}, risk {percent(risk)} %"
        cells.append([label, str(n_labelled), *told, percent(own[0]["most_answered"])])
    return table(["", "labelled", *names.values(), "if all were known"], cells)


LONG_TAIL_NAMES = {
    long_tail.NONE: "no class weights",
    long_tail.BALANCED: '`class_weight="balanced"`',
    long_tail.ROOTS: "square roots of these",
}


def rare_classes():
    """Accuracy and cost with class weights and without, exits beside the plain network."""
    rows = records.read(long_tail.QUESTION)
    columns = [f"accuracy_{name}" for name in ("of_classes", "as_they_come", "of_rare")]
    cells = [
        [
            f"{label}: {way}",
            *(percent(long_tail.of(rows, way, weights, column)) for column in columns),
            *(
                f"{long_tail.of(rows, way, weights, f'cost_{name}'):.2f}"
                for name in ("of_classes", "as_they_come", "of_rare")
            ),
        ]
        for weights, label in LONG_TAIL_NAMES.items()
        for way in (long_tail.PLAIN, long_tail.EXITS, long_tail.AT_BUDGET)
    ]
    names = ["balanced", "as they come", "rare"]
    header = [f"{what}, {name}" for what in ("accuracy", "cost") for name in names]
    return table(["", *header], cells)


def sets_of_rare_classes():
    """Coverage and size of prediction sets, pooled and by class."""
    rows, cells = records.read(long_tail.QUESTION), []
    for weights, label in LONG_TAIL_NAMES.items():
        for kind in ("pooled", "by_class"):
            own = [
                f"{percent(long_tail.of(rows, long_tail.EXITS, weights, f'coverage_{kind}_{name}'))}"
                f" ({long_tail.of(rows, long_tail.EXITS, weights, f'size_{kind}_{name}'):.1f})"
                for name in ("as_they_come", "of_frequent", "of_rare")
            ]
            cells.append([f"{label}, {kind.replace('_', ' ')}", *own])
    return table(["", "as they come", "three most frequent", "three rarest"], cells)


TABLES = {
    "main_job": main_table,
    "cost_weights": cost_weights,
    "low_cost_chess": low_cost_chess,
    "low_cost_plain_networks": low_cost_plain_networks,
    "low_cost_cifar10": low_cost_cifar10,
    "low_cost_tables": low_cost_tables,
    "frontier": frontier_table,
    "promises": promises,
    "promises_of_calls": promises_of_calls,
    "companions_by_the_clock": companions_by_the_clock,
    "instead_of_tables": instead_of_tables,
    "limits": limits,
    "tables_as_they_come": tables_as_they_come,
    "images_as_they_come": images_as_they_come,
    "serving": services,
    "watching": changes_noticed,
    "false_alarms": false_alarms,
    "deferral": answers_and_deferrals,
    "long_tail": rare_classes,
    "long_tail_sets": sets_of_rare_classes,
    "engines": engines_side_by_side,
    "single_file": one_file,
    "gpu": gpu_side_by_side,
    "real_networks": networks_from_packages,
    "rivals_on_tables": rivals_on_tables,
    "out_of_fold_gates": out_of_fold_gates,
    "trained_networks": trained_networks,
    "calibration": calibration,
    "set_speed": set_speed,
    "exit_heads": exit_heads,
    "architectures": architectures,
    "paper_recipe": paper_recipe,
    "missed_targets": missed_targets,
}


def table(header, rows):
    """Markdown of cells that are strings."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def percent(share):
    """In percent; nothing where it was not measured."""
    return "" if np.isnan(share) else f"{100 * share:.1f}"


def at(accuracy, cost):
    """Accuracy in percent, and the mean cost where there is one."""
    return percent(accuracy) if np.isnan(cost) else f"{percent(accuracy)} at {cost:.2f}"


def short(number):
    """Two digits, or all before the point."""
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"


def filled(text):
    """A page with its tables written anew."""
    unknown = {found[1] for found in TABLE.findall(text)} - set(TABLES)
    if unknown:
        raise ValueError(f"no table is called {sorted(unknown)}; there are {list(TABLES)}.")
    return TABLE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", text)


def run(paths, only_check):
    """Write the pages, or tell which are out of date; the paths of those that were."""
    stale = []
    for path in paths:
        text = path.read_text()
        written = filled(text)
        if written != text:
            stale.append(path)
            if not only_check:
                path.write_text(written)
    return stale


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where out of date")
    options = parser.parse_args()
    if not options.pages:
        print("\n".join(f"<!-- table: {name} -->\n{make()}" for name, make in TABLES.items()))
    stale = run(options.pages, options.check)
    for path in stale:
        print(f"{path}: {'out of date' if options.check else 'written'}")
    sys.exit(bool(stale) and options.check)

"""Do gates and temperatures that NumPy alone finds take the time, and come to the same, as torch's and SciPy's?

Four classifiers are fitted. Gates of their held-out samples descend the objective by hand-written gradients, and by
torch's automatic differentiation and Adam: the exits of other samples are compared, and the table of the frontier.
Times are those of samples drawn from the same answers, in turns. Temperatures are compared with L-BFGS-B's.

    python benchmarks/gate_descent.py
"""

import time

import claims
import numpy as np
import records
import torch
from claims import Claim, Claims
from datasets import load
from scipy.optimize import minimize

from sklearn_jeidnn import EarlyExitClassifier
from sklearn_jeidnn._exits.gate_points import GatePoints, mean_and_scale
from sklearn_jeidnn._exits.policy import EXIT_DISTRIBUTIONS, exit_distribution
from sklearn_jeidnn._operate import gate_descent, temperatures
from sklearn_jeidnn._operate.frontier import COST_WEIGHT_GRID, tabulate
from sklearn_jeidnn._operate.objective import expected_cost

SEED = 0
DATA = ["letter", "pendigits", "adult", "digits"]
MOST_ROWS = 12_000
SIZES = [300, 2_000, 10_000]
WEIGHTS = {1: [0.1], len(COST_WEIGHT_GRID): COST_WEIGHT_GRID}
# Steps of the descent, and turns, that are timed.
STEPS, TURNS = 30, 5


def held_out(data):
    """Answers that set the gates and answers that calibrate, and the costs, of a fitted classifier."""
    split = load(data)
    clf = EarlyExitClassifier(cv=None, validation_fraction=0.4, max_epochs=6, random_state=SEED)
    predictor = clf.fit(split.X_train[:MOST_ROWS], split.y_train[:MOST_ROWS])._predictor
    frontier = predictor.frontier
    return frontier.answers, predictor.samples.answers, frontier.exit_costs


def by_torch(answers, exit_mass, exit_costs, cost_weights):
    """``descend_gates`` as torch differentiates and steps."""
    mean, scale = map(torch.as_tensor, mean_and_scale(answers.gate_inputs))
    inputs = ((torch.as_tensor(answers.gate_inputs) - mean) / scale).moveaxis(0, 1)
    weight = torch.zeros(len(cost_weights), *mean.shape, requires_grad=True)
    bias = torch.full(weight.shape[:2], gate_descent.GATE_BIAS, requires_grad=True)
    shares, losses, costs, prices = (
        torch.as_tensor(np.asarray(values, dtype=np.float32))
        for values in (answers.weights, answers.smoothed_errors, exit_costs, cost_weights)
    )
    optimizer = torch.optim.Adam([weight, bias], lr=gate_descent.GATE_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, gate_descent.GATE_STEPS)
    for _ in range(gate_descent.GATE_STEPS):
        scores = inputs @ weight.moveaxis(0, -1) + bias.T[:, None]
        distribution = exit_distribution(scores.sigmoid().moveaxis(0, -1), exit_mass)
        objective = expected_cost(distribution, losses[:, None], costs, prices[:, None])
        penalty = gate_descent.GATE_PENALTY * weight.square().sum()
        optimizer.zero_grad()
        ((shares @ objective).sum() / len(answers) + penalty).backward()
        optimizer.step()
        schedule.step()
    found = {"weight": weight, "bias": bias, "mean": mean, "scale": scale}
    return GatePoints(**{name: tensor.detach().numpy() for name, tensor in found.items()})


def in_turns(*functions):
    """Median seconds of each of several functions, called one after the other."""
    seconds = []
    for _ in range(TURNS):
        moments = [time.perf_counter()]
        for function in functions:
            function()
            moments.append(time.perf_counter())
        seconds.append(np.diff(moments))
    return np.median(seconds, axis=0).tolist()


def timed(data, answers, exit_costs, sizes):
    """Milliseconds that a step of the descent takes."""
    steps, gate_descent.GATE_STEPS = gate_descent.GATE_STEPS, STEPS
    rng, rows = np.random.default_rng(SEED), []
    for n_samples in sizes:
        drawn = answers.take(rng.integers(len(answers), size=n_samples))
        for name, exit_mass in EXIT_DISTRIBUTIONS.items():
            for n_points, cost_weights in WEIGHTS.items():
                asked = (drawn, exit_mass, exit_costs, cost_weights)
                seconds = in_turns(
                    lambda asked=asked: gate_descent.descend_gates(*asked),
                    lambda asked=asked: by_torch(*asked),
                )
                row = {"data": data, "seed": SEED, "exit_distribution": name}
                row |= {"n_samples": n_samples, "n_gates": answers.n_exits - 1}
                row |= {"n_points": n_points, "n_inputs": answers.gate_inputs.shape[-1]}
                own, other = (1000 * value / STEPS for value in seconds)
                rows.append({**row, "numpy_ms_a_step": own, "torch_ms_a_step": other})
                print(rows[-1], flush=True)
    gate_descent.GATE_STEPS = steps
    return rows


def compared(data, answers, others, exit_costs):
    """How exits, and the table of the frontier, of other samples differ between the two descents."""
    rows = []
    for name, exit_mass in EXIT_DISTRIBUTIONS.items():
        asked = (answers, exit_mass, exit_costs, COST_WEIGHT_GRID)
        points = [descend(*asked) for descend in (gate_descent.descend_gates, by_torch)]
        taken = [gates.exits(others.gate_inputs, exit_mass) for gates in points]
        tables = [tabulate(others, exits, exit_costs, COST_WEIGHT_GRID) for exits in taken]
        differing = (taken[0] != taken[1]).mean(0)
        row = {"data": data, "seed": SEED, "exit_distribution": name, "n_samples": len(others)}
        row |= {"differing": differing.mean(), "most_differing": differing.max()}
        for column in ("mean_cost", "accuracy"):
            row[f"{column}_off_by"] = np.abs(tables[0][column] - tables[1][column]).max()
        rows.append(row)
        print(rows[-1], flush=True)
    return rows


def by_lbfgs(logits, codes, weights):
    """``fit_temperatures`` as L-BFGS-B finds them."""
    logits, n_exits = logits.astype(np.float64), logits.shape[1]
    rows, bound = np.arange(len(codes)), temperatures.MAX_LOG_TEMPERATURE
    shares = weights / len(codes)

    def log_loss(log_temperatures):
        scaled = logits / np.exp(log_temperatures)[:, None]
        log_probs = temperatures.log_softmax(scaled)
        slopes = scaled[rows, :, codes] - (np.exp(log_probs) * scaled).sum(-1)
        penalty = temperatures.TEMPERATURE_PENALTY * np.square(log_temperatures).sum()
        gradient = 2 * temperatures.TEMPERATURE_PENALTY * log_temperatures
        value = penalty - (shares @ log_probs[rows, :, codes]).sum()
        return value, gradient + shares @ slopes

    bounds = [(-bound, bound)] * n_exits
    return np.exp(minimize(log_loss, np.zeros(n_exits), jac=True, bounds=bounds).x)


def fitted_temperatures(data, answers):
    """Seconds, and by how much the penalised log-loss of an exit is above that of L-BFGS-B."""
    asked = (answers.without_gaps, answers.codes, answers.weights)
    own, other = in_turns(
        lambda: temperatures.fit_temperatures(*asked),
        lambda: by_lbfgs(*asked),
    )
    losses = [penalised(fit(*asked), *asked) for fit in (temperatures.fit_temperatures, by_lbfgs)]
    row = {"data": data, "seed": SEED, "n_samples": len(answers), "n_exits": answers.n_exits}
    row |= {"numpy_seconds": own, "lbfgs_seconds": other, "excess": (losses[0] - losses[1]).max()}
    print(row, flush=True)
    return row


def penalised(found, logits, codes, weights):
    """What temperatures minimise, for each exit."""
    scaled = logits.astype(np.float64) / found[:, None]
    penalty = temperatures.TEMPERATURE_PENALTY * np.square(np.log(found))
    return weights @ temperatures.log_losses(scaled, codes) / len(codes) + penalty


def run(quick):
    found = {question: [] for question in CLAIMS}
    for data in DATA[-1:] if quick else DATA:
        answers, others, exit_costs = held_out(data)
        found["temperature_fits"].append(fitted_temperatures(data, answers))
        found["gate_descent"] += compared(data, answers, others, exit_costs)
        found["gate_descent_time"] += timed(data, answers, exit_costs, SIZES[: 1 if quick else 3])
    return found


def same_exits(rows):
    for row in rows:
        name = f"{row['data']}, {row['exit_distribution']}"
        yield Claim(f"{name}: share of other exits than torch's", row["differing"], "<=", 0.002)
        for column in ("mean_cost", "accuracy"):
            yield Claim(f"{name}: {column} off by", row[f"{column}_off_by"], "<=", 0.002)


def no_slower(rows):
    worst = max(row["numpy_ms_a_step"] / row["torch_ms_a_step"] for row in rows)
    yield Claim("largest time of a descent relative to torch's", worst, "<=", 1.2)


def no_more_loss(rows):
    yield Claim("loss above L-BFGS-B's", max(row["excess"] for row in rows), "<=", 1e-7)


def no_slower_temperatures(rows):
    worst = max(row["numpy_seconds"] / row["lbfgs_seconds"] for row in rows)
    yield Claim("largest time of temperatures relative to L-BFGS-B's", worst, "<=", 1.2)


CLAIMS = {
    "gate_descent": Claims(claims.none, same_exits),
    "gate_descent_time": Claims(claims.none, no_slower),
    "temperature_fits": Claims(no_slower_temperatures, no_more_loss),
}


if __name__ == "__main__":
    parser = claims.parser(__doc__, quick="digits, 300 samples")
    args = claims.parse(parser, CLAIMS)
    torch.set_num_threads(1)
    for question, rows in run(args.quick).items():
        records.write(question, rows, args.quick)
    claims.settle(CLAIMS, quick=args.quick)

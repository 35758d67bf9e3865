"""Imports run in one direction, what must not know torch does not, and the public names are the promised ones."""

import ast
import graphlib
import importlib
import pathlib
import subprocess
import sys

import pytest

import sklearn_jeidnn

PACKAGE = pathlib.Path(sklearn_jeidnn.__file__).parent
# A floor may import those below it, never those above.
FLOORS = [
    {"_numbers", "_warn"},
    {"_cells", "_chain"},
    {"_given_back"},
    {"_table_columns"},
    {
        "_columns",
        "_cut",
        "_encoding",
        "_given",
        "_image_shapes",
        "_schema",
        "_splits",
        "_conformal",
    },
    {"_history", "_image_layers", "_labels", "_plain_samples", "_table_samples"},
    {"_parts"},
    {"_exits", "conformal", "_samples", "_images", "_tables", "pipeline"},
    {"_datasets", "_operate", "_streams", "backbones"},
    {"_engines", "_predictor", "metrics", "model_selection"},
    {"_plotting", "_store", "_watcher"},
    {"plotting", "_fit", "_prediction", "_portable", "_report", "runtime"},
    {"_deferral", "_html", "_reporting", "_serving", "_storing", "_timing", "reporting"},
    {"_classifier", "serving"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Must run where there is NumPy only: what remains after fit, and all that it holds.
NUMPY_ONLY = [
    "runtime",
    "_cells",
    "_chain",
    "_given_back",
    "_given",
    "_columns",
    "_numbers",
    "_plain_samples",
    "_predictor",
    "_schema",
    "_store.arrays",
    "_store.exported",
    "_table_columns",
    "_history",
    "_parts",
    "conformal",
    "_exits.policy",
    "_exits.arrays",
    "_exits.gate_points",
    "_exits.batch_size",
    "_exits.routing",
    "_engines.onnx_exits",
    "_engines.onnx_graphs",
    "_engines.onnx_runner",
    "_engines.onnx_sessions",
    "_operate.bets",
    "_operate.calibration",
    "_operate.cascade",
    "_operate.certification",
    "_operate.coverage",
    "_operate.deferral",
    "_operate.exit_answers",
    "_operate.fit_summary",
    "_operate.frontier",
    "_operate.gate_descent",
    "_operate.leakage",
    "_operate.objective",
    "_operate.operating_point",
    "_operate.risk",
    "_operate.temperatures",
    "_operate.thresholds",
    "_operate.ties",
    "_operate.unlike",
    "_operate.user_functions",
    "_operate.warn",
    "_operate.watching",
    "_watcher",
]
# Must run without torch.
NO_TORCH = [
    *NUMPY_ONLY,
    "_labels",
    "_samples",
    "_splits",
    "_streams",
    "metrics",
    "model_selection",
    "pipeline",
    "_operate.drift",
]


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}
PACKAGES = {name for name, path in MODULES.items() if path.stem == "__init__"}


def imported(name, path):
    """Modules of the package that a file imports, and packages from outside."""
    inside, outside = set(), set()
    folder = name.split(".") if name in PACKAGES else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [part for part in folder if part][: len(folder) - node.level + 1]
            target = ".".join([*base, *([node.module] if node.module else [])])
            names = {".".join(filter(None, [target, alias.name])) for alias in node.names}
            inside |= {found if found in MODULES else target for found in names}
        elif isinstance(node, ast.ImportFrom):
            outside.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
    return inside - {name}, outside


IMPORTS = {name: imported(name, path) for name, path in MODULES.items() if name}


def test_no_import_goes_round_in_a_circle():
    edges = {name: inside - {""} for name, (inside, _) in IMPORTS.items()}
    assert list(graphlib.TopologicalSorter(edges).static_order())


def test_every_room_stands_on_a_floor():
    assert {name.split(".")[0] for name in IMPORTS} == set(FLOOR)


def test_no_room_imports_a_room_above_it_or_beside_it():
    rooms = {
        (name.split(".")[0], other.split(".")[0])
        for name, (inside, _) in IMPORTS.items()
        for other in inside
        if other
    }
    wrong = [(a, b) for a, b in rooms if a != b and FLOOR[b] >= FLOOR[a]]
    assert not wrong


def test_skorch_is_imported_where_networks_are_trained_only():
    users = sorted(name for name, (_, outside) in IMPORTS.items() if "skorch" in outside)
    assert users == ["_fit.callbacks", "_fit.training"]


def python(code):
    run = [sys.executable, "-c", code]
    return subprocess.run(run, cwd=PACKAGE.parent, capture_output=True, text=True)


WITH_NUMPY_ONLY = (
    "import sys; missing = ['torch', 'skorch', 'sklearn', 'scipy', 'joblib'];"
    "sys.modules.update(dict.fromkeys(missing));"
)


def test_what_remains_after_fit_needs_numpy_only():
    code = f"[__import__('sklearn_jeidnn.' + name) for name in {NUMPY_ONLY}]"
    result = python(WITH_NUMPY_ONLY + code)
    assert result.returncode == 0, result.stderr


# Every policy; every request; the candidates for certification; temperatures and sets.
CHOOSING = """
import numpy as np
from sklearn_jeidnn._exits.policy import EXIT_DISTRIBUTIONS
from sklearn_jeidnn._operate.calibration import Calibration, CalibrationSamples, SetRule
from sklearn_jeidnn._operate.exit_answers import ExitAnswers
from sklearn_jeidnn._operate.frontier import EXIT_POLICIES, Frontier, objective_at

rng, costs, zeros = np.random.default_rng(0), np.array([0.2, 0.6, 1.0]), np.zeros(80, int)
logits = rng.standard_normal((80, 3, 4), dtype=np.float32)
answers = ExitAnswers(
    logits=logits,
    backbone_logits=logits[:, -1],
    gate_inputs=rng.random((80, 2, 15), dtype=np.float32),
    codes=(logits.sum(1) + rng.standard_normal((80, 4))).argmax(1),
    weights=np.ones(80, np.float32),
)
samples = CalibrationSamples(answers=answers, uniform=zeros, groups=zeros, known_groups=zeros[:1])
rule = SetRule(conformity_score="raps", condition_on="exit", seed=0)
requests = [{"cost_weight": 0.1}, {"budget": 0.7}, {"max_accuracy_drop": 0.05}]
for exit_mass in EXIT_DISTRIBUTIONS.values():
    frontier = Frontier(answers=answers, exit_mass=exit_mass, exit_costs=costs)
    assert len(frontier.candidates_by_cost) > 90
    for policy in EXIT_POLICIES:
        moved = frontier.with_policy(policy)
        for request in requests:
            point = moved.choose(**request)
            calibration = Calibration.fit(rule, point, answers, samples, exit_mass)
            assert np.isfinite(calibration.temperatures).all() and calibration.sets is not None
            if "budget" in request:
                assert costs[answers.exits(point.gates, exit_mass)].mean() <= 0.7
    asked = {"cost_weight": 0.1, "budget": 0.7, "least_cost": 0.2}
    assert objective_at(answers, exit_mass, costs, **asked) < 1
"""


def test_points_are_chosen_and_calibrated_with_numpy_only():
    result = python(f"{WITH_NUMPY_ONLY}\n{CHOOSING}")
    assert result.returncode == 0, result.stderr


def test_what_checks_and_reports_needs_no_torch():
    result = python(
        f"import sys; [__import__('sklearn_jeidnn.' + name) for name in {NO_TORCH}];"
        "sys.exit('torch' in sys.modules)"
    )
    assert result.returncode == 0, result.stderr


def test_importing_the_package_loads_no_torch_and_changes_no_warning_filter():
    code = (
        "import sys, warnings; before = warnings.filters[:]; import sklearn_jeidnn;"
        "sys.exit('torch' in sys.modules or before != warnings.filters)"
    )
    assert python(code).returncode == 0


def test_loading_the_estimator_loads_no_plotting_and_changes_no_setting():
    code = (
        # sympy, which torch loads late, sets a filter of its own.
        "import sys, torch, skorch, sklearn.base, sympy, warnings;"
        "settings = lambda: (torch.initial_seed(), torch.get_num_threads(), warnings.filters[:]);"
        "before = settings(); from sklearn_jeidnn import EarlyExitClassifier;"
        "sys.exit('matplotlib' in sys.modules or before != settings())"
    )
    assert python(code).returncode == 0


def test_public_names():
    assert set(sklearn_jeidnn.__all__) == {"EarlyExitClassifier", "__version__"}
    assert set(sklearn_jeidnn.__all__) <= set(dir(sklearn_jeidnn))
    public = {name for name in dir(sklearn_jeidnn.EarlyExitClassifier) if not name.startswith("_")}
    assert public >= {
        "fit",
        "predict",
        "predict_proba",
        "predict_set",
        "predict_exit",
        "mean_cost",
        "conformalize",
    }


def test_a_name_that_the_package_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="EarlyExit2"):
        sklearn_jeidnn.EarlyExit2  # noqa: B018


@pytest.mark.parametrize("name", sorted(n for n in MODULES if n and "_" not in n[0]))
def test_public_modules_say_what_is_public(name):
    module = importlib.import_module(f"sklearn_jeidnn.{name}")
    assert set(module.__all__) <= set(dir(module))


def attribute_setters(tree):
    """Methods of the estimator in which an attribute with a trailing underscore is set."""
    (estimator,) = (
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "EarlyExitClassifier"
    )
    for method in estimator.body:
        if isinstance(method, ast.FunctionDef):
            stores = (
                node
                for node in ast.walk(method)
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            )
            if any(node.attr.endswith("_") or node.attr == "_predictor" for node in stores):
                yield method.name


def test_fitted_attributes_are_set_in_one_method():
    tree = ast.parse((PACKAGE / "_classifier.py").read_text())
    assert list(attribute_setters(tree)) == ["_adopt"]


def test_no_file_and_no_class_grows_out_of_hand():
    n_lines = {name: path.read_text().count("\n") for name, path in MODULES.items()}
    assert n_lines.pop("_classifier") < 1050
    assert max(n_lines.values()) <= 400, max(n_lines, key=n_lines.get)
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                assert node.end_lineno - node.lineno < 900, (name, node.name)

"""Imports run in one direction, the two islands never meet, and the public names are the promised ones."""

import ast
import pathlib
import subprocess
import sys

import sklearn_jeidnn

PACKAGE = pathlib.Path(sklearn_jeidnn.__file__).parent
FLOOR = {
    "_drift": 1,
    "_gates": 1,
    "_graphs": 1,
    "_heads": 2,
    "_inputs": 1,
    "_memory": 1,
    "_policy": 1,
    "_risk": 1,
    "_rows": 1,
    "_splits": 1,
    "backbones": 1,
    "conformal": 1,
    "_costs": 2,
    "metrics": 2,
    "_thresholds": 2,
    "_losses": 2,
    "model_selection": 1,
    "plotting": 4,
    "_features": 3,
    "_frontier": 3,
    "_stages": 3,
    "_members": 4,
    "_assembly": 5,
    "_route": 3,
    "_network": 4,
    "_training": 4,
    "_bilevel": 5,
    "_joint": 5,
    "_classifier": 6,
    "__init__": 7,
}
NUMPY_ROOMS = {"conformal", "metrics", "_drift", "_inputs", "_risk", "_splits"}


def imports_of(path):
    """(rooms of the package, packages from outside) that a file imports."""
    rooms, outside = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            rooms |= {node.module} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            outside.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
    return rooms, outside


IMPORTS = {path.stem: imports_of(path) for path in PACKAGE.glob("*.py")}


def test_every_file_has_its_floor():
    assert set(IMPORTS) == set(FLOOR)


def test_imports_point_down_only():
    up = [
        (room, other)
        for room, (rooms, _) in IMPORTS.items()
        for other in rooms
        if FLOOR[other] >= FLOOR[room]
    ]
    assert not up


def test_numpy_rooms_and_torch_rooms_meet_in_the_classifier_only():
    for room, (rooms, outside) in IMPORTS.items():
        if room in NUMPY_ROOMS:
            assert "torch" not in outside and "skorch" not in outside, room
            assert rooms <= NUMPY_ROOMS, room
        elif room not in {"_classifier", "plotting"}:
            assert not rooms & NUMPY_ROOMS, room


def test_skorch_is_imported_in_training_only():
    assert [room for room, (_, outside) in IMPORTS.items() if "skorch" in outside] == ["_training"]


def test_public_names():
    assert set(sklearn_jeidnn.__all__) == {"EarlyExitClassifier", "__version__"}
    public = {name for name in vars(sklearn_jeidnn.EarlyExitClassifier) if not name.startswith("_")}
    assert public >= {
        "fit",
        "predict",
        "predict_proba",
        "predict_set",
        "predict_exit",
        "mean_cost",
        "conformalize",
    }


def test_importing_loads_no_plotting_and_changes_no_setting():
    code = (
        "import torch, sys, warnings; before = (torch.initial_seed(), torch.get_num_threads(), warnings.filters[:]);"
        "import sklearn_jeidnn; after = (torch.initial_seed(), torch.get_num_threads(), warnings.filters[:]);"
        "sys.exit('matplotlib' in sys.modules or before[:2] != after[:2])"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent).returncode == 0

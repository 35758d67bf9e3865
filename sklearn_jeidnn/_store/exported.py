"""A fitted classifier as a folder that ONNX Runtime runs: one graph an exit, arrays, and values as JSON."""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import conformal
from .._engines.onnx_exits import MixingWeights
from .._engines.onnx_graphs import ExitGraph, ExitGraphs
from .._engines.onnx_runner import OnnxRunner
from .._engines.onnx_sessions import Sessions
from .._exits.gate_points import GatePoints
from .._exits.policy import EXIT_DISTRIBUTIONS
from .._history import SampleHistory
from .._operate.calibration import Calibration, CalibrationSamples, SetRule
from .._operate.cascade import Cascade
from .._operate.exit_answers import ExitAnswers
from .._operate.frontier import Frontier
from .._operate.operating_point import OperatingPoint, RiskControl
from .._predictor import Predictor
from .._schema import InputSchema
from .._table_columns import TableColumns
from .arrays import read_arrays, write_arrays
from .checking import check_kinds, check_sizes
from .damaged import DamagedFile, naming_file
from .values import Read, Written
from .writing import write_whole_folder

FORMAT, VERSION = "sklearn_jeidnn.export", 1
VALUES, ARRAYS, BACKBONE = "predictor.json", "arrays.safetensors", "backbone.onnx"
KNOWN: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        CalibrationSamples,
        ExitAnswers,
        ExitGraph,
        ExitGraphs,
        Frontier,
        GatePoints,
        InputSchema,
        MixingWeights,
        OperatingPoint,
        RiskControl,
        SetRule,
        TableColumns,
    )
}
NAMED: dict[str, Any] = {**EXIT_DISTRIBUTIONS, **conformal.SCORES}
NO_HISTORY = SampleHistory(
    hashes=np.empty(0, np.uint64), parts=np.empty(0, np.int8), complete=False
)


def write_exported(
    path: str | os.PathLike[str], predictor: Predictor, gate_training: str, version: str
) -> None:
    """Write a predictor whose engine is an :class:`OnnxRunner`.

    Parameters
    ----------
    path : str or path
        Of the folder.
    predictor : Predictor
    gate_training : str
    version : str
        Of this package.

    Raises
    ------
    OSError
        If the folder cannot be written.
    TypeError
        If a value is a function.
    """
    write_whole_folder(
        path,
        partial(_write, predictor, gate_training, version),
        lambda folder: (folder / VALUES).is_file(),
    )


def _write(predictor: Predictor, gate_training: str, version: str, folder: Path) -> None:
    runner: Any = predictor.cascade.engine
    files = graph_files(runner.sessions.graph)
    for name, model in files.items():
        (folder / name).write_bytes(model)
    written = Written(KNOWN, NAMED)
    values = written.json(_as_values(predictor, gate_training), "predictor")
    write_arrays(folder / ARRAYS, written.arrays, {"format": FORMAT})
    names = [*files, ARRAYS]
    document = {
        "format": FORMAT,
        "format_version": VERSION,
        "written_by": version,
        "files": {name: _sha256((folder / name).read_bytes()) for name in names},
        "operating_points": _points(predictor),
        "predictor": values,
    }
    document["sha256"] = _sha256(_canonical(document))
    text = json.dumps(document, indent=1, allow_nan=False)
    (folder / VALUES).write_text(text, encoding="utf-8")


def graph_files(graphs: ExitGraphs) -> dict[str, bytes]:
    """Graphs by the names of their files, which are never read from a file."""
    files = {f"exit_{i}.onnx": part.model for i, part in enumerate(graphs.parts)}
    for i, model in enumerate(graphs.classifiers):
        if model is not None:
            files[f"classifier_{i}.onnx"] = model
    return files if graphs.plain is None else {**files, BACKBONE: graphs.plain}


def _as_values(predictor: Predictor, gate_training: str) -> dict[str, Any]:
    cascade, sets = predictor.cascade, predictor.calibration.sets
    runner: Any = cascade.engine
    graphs = runner.sessions.graph
    return {
        "schema": predictor.schema,
        "graphs": replace(
            graphs,
            parts=tuple(replace(part, model=b"") for part in graphs.parts),
            classifiers=tuple(None if model is None else b"" for model in graphs.classifiers),
            plain=None if graphs.plain is None else b"",
        ),
        "runner": {
            "gates": runner.gates,
            "mixing": MixingWeights(*map(tuple, runner.mixing)),
            "plain_last_exit": runner.plain_last_exit,
            "widest": runner.widest,
            "precision": runner.precision,
            "fixed_batch_size": runner.fixed_batch_size,
        },
        "cascade": {
            "exits": cascade.exits,
            "exit_costs": cascade.exit_costs,
            "exit_distribution": cascade.exit_distribution,
            "plain_seconds": cascade.plain_seconds,
            "first_alone": cascade.first_alone,
            "plain_last_exit": cascade.plain_last_exit,
        },
        "frontier": predictor.frontier,
        # Of the whole grid, so that nobody trains them again.
        "points": predictor.frontier.points,
        "point": predictor.point,
        "rule": predictor.rule,
        "samples": predictor.samples,
        "calibration": {
            "temperatures": predictor.calibration.temperatures,
            "exit_index": predictor.calibration.exit_index,
            "confidence": predictor.calibration.confidence,
            "sets": None if sets is None else _sets_as_values(sets),
        },
        "leakage": predictor.leakage,
        "gate_training": gate_training,
    }


def _sets_as_values(sets: conformal.ConformalSets) -> dict[str, Any]:
    score: Any = sets.score
    is_partial = isinstance(score, partial)
    return {
        "score": score.func if is_partial else score,
        "penalties": dict(score.keywords) if is_partial else {},
        "scores": sets.scores,
        "groups": sets.groups,
        "upper": sets.upper,
    }


def _points(predictor: Predictor) -> list[dict[str, Any]]:
    """What each point of the frontier does to held-out samples, for people and for other runtimes."""
    points, table = predictor.frontier.points, predictor.frontier.table
    return [
        {
            "cost_weight": float(table["cost_weight"][i]),
            "mean_cost": float(table["mean_cost"][i]),
            "accuracy": float(table["accuracy"][i]),
            "gates": [
                {"weight": gate.weight.tolist(), "bias": float(gate.bias)}
                for gate in points.point(i).per_exit()
            ],
        }
        for i in range(len(points))
    ]


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_exported(path: str | os.PathLike[str]) -> tuple[Predictor, str]:
    """Predictor of a folder that :func:`write_exported` wrote, and how its gates were trained.

    Nothing of the folder is run but graphs by ONNX Runtime; no file of another name is opened.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or a file of it is missing.
    DamagedFile
        If it was not written so, or by a newer version.
    """
    folder = Path(path)
    with naming_file(folder):
        document = _document(folder)
        arrays, _ = read_arrays(_checked(folder, ARRAYS, document))
        values = Read(KNOWN, NAMED, arrays).value(document["predictor"])
        graphs = _with_models(values["graphs"], folder, document)
        predictor = _predictor(values, graphs)
        check_kinds(predictor)
        check_sizes(predictor, graphs.n_exits, graphs.n_inputs)
        _try(predictor)
    return predictor, str(values["gate_training"])


def _document(folder: Path) -> dict[str, Any]:
    document = json.loads((folder / VALUES).read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DamagedFile(f"{VALUES} is of no exported classifier")
    version = document.get("format_version")
    if not isinstance(version, int) or version > VERSION:
        raise DamagedFile(
            f"it is of version {version!r:.20} of the format, and this package reads up to {VERSION}: install a newer "
            f"sklearn_jeidnn (it was written by {document.get('written_by')!r:.40})"
        )
    checksum = document.pop("sha256", None)
    if checksum != _sha256(_canonical(document)):
        raise DamagedFile(f"the checksum of {VALUES} is not that of its content")
    return document


def _checked(folder: Path, name: str, document: Mapping[str, Any]) -> Path:
    """Path of a file, if its content is the one that was written."""
    file = folder / name
    if document["files"].get(name) != _sha256(file.read_bytes()):
        raise DamagedFile(f"the checksum of {name} is not that of its content")
    return file


def _with_models(graphs: Any, folder: Path, document: Mapping[str, Any]) -> ExitGraphs:
    """Graphs with what their files hold."""
    if not isinstance(graphs, ExitGraphs):
        raise DamagedFile("it has no graphs")
    check_kinds(graphs, "graphs")
    for part in graphs.parts:
        check_kinds(part, "graphs")
    models = {name: _checked(folder, name, document).read_bytes() for name in graph_files(graphs)}
    return replace(
        graphs,
        parts=tuple(
            replace(part, model=models[f"exit_{i}.onnx"]) for i, part in enumerate(graphs.parts)
        ),
        classifiers=tuple(
            models.get(f"classifier_{i}.onnx") for i in range(len(graphs.classifiers))
        ),
        plain=models.get(BACKBONE),
    )


def _predictor(values: Mapping[str, Any], graphs: ExitGraphs) -> Predictor:
    of_cascade, frontier = values["cascade"], values["frontier"]
    mass = EXIT_DISTRIBUTIONS[of_cascade["exit_distribution"]]
    runner = OnnxRunner(sessions=Sessions(graphs), exit_mass=mass, **values["runner"])
    # The cache of Frontier.points.
    vars(frontier)["points"] = values["points"]
    rule = values["rule"]
    return Predictor(
        schema=values["schema"],
        cascade=Cascade(engine=runner, **of_cascade),
        frontier=frontier,
        point=values["point"],
        rule=rule,
        samples=values["samples"],
        calibration=_calibration(values["calibration"], rule),
        history=NO_HISTORY,
        leakage=values["leakage"],
    )


def _calibration(values: Mapping[str, Any], rule: SetRule) -> Calibration:
    sets = values["sets"]
    if sets is not None:
        score = sets["score"]
        sets = conformal.ConformalSets.of_scores(
            partial(score, **sets["penalties"]) if sets["penalties"] else score,
            rule.groups_of,
            scores=sets["scores"],
            group_numbers=sets["groups"],
            upper=sets["upper"],
        )
    return Calibration(**{**values, "sets": sets})


def _try(predictor: Predictor) -> None:
    """Answer a sample of no meaning, as a service will."""
    arrays = predictor.schema.example(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predictor.probabilities(predictor.schema.encode(arrays))

"""A fitted classifier as a folder that ONNX Runtime runs: one graph an exit, arrays, and values as JSON."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .._engines.onnx_exits import MixingWeights
from .._engines.onnx_graphs import ExitGraph, ExitGraphs
from .._engines.onnx_runner import OnnxRunner
from .._engines.onnx_sessions import Sessions
from .._exits.policy import EXIT_DISTRIBUTIONS
from .._predictor import Predictor
from .arrays import read_arrays, write_arrays
from .checking import check_kinds
from .damaged import DamagedFile, naming_file, read_whole
from .predictors import KNOWN, NAMED, predictor_as_values, predictor_of
from .values import Read, Written
from .writing import as_path, write_whole_folder

FORMAT, VERSION = "sklearn_jeidnn.export", 1
VALUES, ARRAYS, BACKBONE = "predictor.json", "arrays.safetensors", "backbone.onnx"
KNOWN_HERE: dict[str, type] = {
    **KNOWN,
    **{k.__name__: k for k in (ExitGraph, ExitGraphs, MixingWeights)},
}


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
    written = Written(KNOWN_HERE, NAMED)
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
    runner: Any = predictor.cascade.engine
    graphs = runner.sessions.graph
    return {
        **predictor_as_values(predictor),
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
        "gate_training": gate_training,
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


def _sha256(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


def read_exported(
    path: str | os.PathLike[str], n_threads: int | None = None
) -> tuple[Predictor, str]:
    """Predictor of a folder that :func:`write_exported` wrote, and how its gates were trained.

    It runs in so many threads (see :class:`Sessions`).

    Nothing of the folder is run but graphs by ONNX Runtime; no file of another name is opened.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or a file of it is missing.
    DamagedFile
        If it was not written so, or by a newer version.
    """
    folder = as_path(path, "directory")
    with naming_file(folder):
        document = _document(folder)
        _checked(folder, ARRAYS, document)
        arrays, _ = read_arrays(folder / ARRAYS)
        values = Read(KNOWN_HERE, NAMED, arrays).value(document["predictor"])
        graphs = _with_models(values["graphs"], folder, document)
        runner = _runner(values, graphs, n_threads)
        predictor = predictor_of(values, runner, graphs.n_exits, graphs.n_inputs)
    return predictor, str(values["gate_training"])


def _document(folder: Path) -> dict[str, Any]:
    document = json.loads(read_whole(folder / VALUES).decode("utf-8"))
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


def _checked(folder: Path, name: str, document: Mapping[str, Any]) -> bytearray:
    """Bytes of a file, if they are those that were written."""
    data = read_whole(folder / name)
    if document["files"].get(name) != _sha256(data):
        raise DamagedFile(f"the checksum of {name} is not that of its content")
    return data


def _with_models(graphs: Any, folder: Path, document: Mapping[str, Any]) -> ExitGraphs:
    """Graphs with what their files hold."""
    if not isinstance(graphs, ExitGraphs):
        raise DamagedFile("it has no graphs")
    check_kinds(graphs, "graphs")
    for part in graphs.parts:
        check_kinds(part, "graphs")
    models = {name: bytes(_checked(folder, name, document)) for name in graph_files(graphs)}
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


def _runner(values: Mapping[str, Any], graphs: ExitGraphs, n_threads: int | None) -> OnnxRunner:
    mass = EXIT_DISTRIBUTIONS[values["cascade"]["exit_distribution"]]
    runner = OnnxRunner(sessions=Sessions(graphs, n_threads), exit_mass=mass, **values["runner"])
    check_kinds(runner, "runner")
    return runner

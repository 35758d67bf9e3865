"""A fitted classifier as one file: values as JSON, beside the arrays of safetensors."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .arrays import read_arrays, write_arrays
from .damaged import DamagedFile
from .values import Read, Written
from .writing import write_whole

FORMAT, VERSION = "sklearn_jeidnn.model", 1


def write_model(
    path: str | os.PathLike[str],
    values: Mapping[str, Any],
    known: Mapping[str, type],
    named: Mapping[str, Any],
    version: str,
) -> None:
    """Write values; ``version`` is that of this package.

    Raises
    ------
    OSError
        If the file cannot be written; what was there before stays.
    TypeError
        If a value is of a kind that is not known.
    """
    written = Written(known, named)
    texts = {
        "format": FORMAT,
        "format_version": str(VERSION),
        "written_by": version,
        "values": json.dumps(written.json(values, "model"), allow_nan=False),
    }
    write_whole(path, lambda file: write_arrays(file, written.arrays, texts))


def read_model(
    path: str | os.PathLike[str], known: Mapping[str, type], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Values of a file that :func:`write_model` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DamagedFile
        If it is another one, or was written by a newer version.
    """
    arrays, texts = read_arrays(path)
    _check_format(texts)
    values = read_values(texts.get("values", ""), known, named, arrays)
    if not isinstance(values, dict):
        raise DamagedFile("it holds no values")
    return values


def _check_format(texts: Mapping[str, str]) -> None:
    if texts.get("format") != FORMAT:
        raise DamagedFile("it holds no fitted classifier")
    version = texts.get("format_version", "")
    if not version.isdigit() or int(version[:9]) > VERSION:
        raise DamagedFile(
            f"it is of version {version!r:.20} of the format, and this package reads up to {VERSION}: install a newer "
            f"sklearn_jeidnn (it was written by {texts.get('written_by')!r:.40})"
        )


def read_values(
    text: str,
    known: Mapping[str, type],
    named: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> Any:
    """Values of a text of JSON."""
    return Read(known, named, arrays).value(json.loads(text))

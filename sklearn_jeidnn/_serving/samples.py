"""What a request asks: samples from JSON or from a file of NumPy's, and options."""

import functools
import io
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .refusals import Refusal

JSON, NPY = "application/json", ("application/octet-stream", "application/x-npy")
NUMBERS = "fiub"
MOST_HEADER_BYTES = 1024
TRUTH_VALUES = {"true": True, "false": False}


class Asked(NamedTuple):
    """A request's samples, not checked yet, and its options."""

    X: Any
    options: dict[str, Any]


def read_request(
    content_type: str, body: bytes, query: Mapping[str, str], known: frozenset[str]
) -> Asked:
    """Samples and options of a request.

    Parameters
    ----------
    content_type : str
    body : bytes
    query : mapping of str to str
        Options after the question mark, which stand behind those of JSON.
    known : frozenset of str
        Names of options.

    Raises
    ------
    Refusal
        If it has another form.
    """
    kind = content_type.partition(";")[0].strip().lower()
    options = {name: _option(text) for name, text in query.items()}
    if kind == JSON:
        document = read_json(body)
        if not isinstance(document, dict) or "X" not in document:
            raise Refusal(400, 'the body must be an object with the samples as "X".')
        options |= {name: value for name, value in document.items() if name != "X"}
        X = _samples_of_json(document["X"])
    elif kind in NPY:
        X = read_npy(body)
    else:
        raise Refusal(
            415,
            f"Content-Type is {kind[:60]!r}; send {JSON}, or {NPY[0]} with what numpy.save writes.",
        )
    unknown = sorted(set(options) - known)
    if unknown:
        raise Refusal(422, f"{unknown[0][:60]!r} is no option; there are {sorted(known)}.")
    return Asked(X, options)


def _option(text: str) -> Any:
    """An option of the query as JSON has it; a word stays one."""
    if text in TRUTH_VALUES:
        return TRUTH_VALUES[text]
    try:
        return float(text)
    except ValueError:
        return text


def read_json(body: bytes) -> Any:
    """A document of JSON, without the numbers that JSON does not have."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply.") from None
    except ValueError as error:
        # Messages of the parser name places, and nothing of what stands there.
        what = getattr(error, "msg", None) or "it is no text in UTF-8, or has too long a number"
        where = f" at byte {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise Refusal(400, f"the body is no JSON: {what}{where}.") from None


def _refuse_constant(name: str) -> Any:
    raise Refusal(400, f"{name} is no number of JSON; a missing value is null.")


def _samples_of_json(X: Any) -> Any:
    """Columns or inputs by name, an array of numbers, or lists where they hold anything else."""
    if isinstance(X, dict):
        return X
    if not isinstance(X, list):
        raise Refusal(422, '"X" must be a list of samples, or an object of columns or inputs.')
    if X and isinstance(X[0], dict):
        return _columns_of(X)
    try:
        array = np.asarray(X)
    except ValueError:
        return X
    return array if array.dtype.kind in NUMBERS else X


def _columns_of(rows: list[Any]) -> dict[str, list[Any]]:
    """Columns by name of samples as objects, which must all have the same names."""
    names = list(rows[0])
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != rows[0].keys():
            raise Refusal(
                422,
                f"sample {i} has other names than the first, {names[:8]}; give null where a value is missing.",
            )
    return {name: [row[name] for row in rows] for name in names}


def n_samples_of(X: Any) -> int:
    """How many samples there are, before they are checked."""
    if isinstance(X, dict):
        first = next(iter(X.values()), ())
        return len(first) if isinstance(first, list) else 0
    return len(X)


def read_npy(body: bytes) -> np.ndarray:
    """The array of a file of NumPy's, as a view of the body."""
    start = _start_of_array(body)
    dtype, shape, is_fortran = _header(body[:start])
    if len(body) - start != math.prod(shape) * dtype.itemsize:
        raise Refusal(
            400, f"the body has {len(body) - start} bytes of numbers, not those of {shape} {dtype}."
        )
    array = np.frombuffer(body, dtype, offset=start)
    return array.reshape(shape, order="F" if is_fortran else "C")


def _start_of_array(body: bytes) -> int:
    """Where the header of a file of NumPy's ends."""
    width = {b"\x01": 2, b"\x02": 4}.get(body[6:7], 0)
    start = 8 + width + int.from_bytes(body[8 : 8 + width], "little")
    if not body.startswith(b"\x93NUMPY") or not width or start > min(len(body), MOST_HEADER_BYTES):
        raise Refusal(400, "the body is no file of numpy.save's.")
    return start


# Most requests have the same.
@functools.lru_cache(maxsize=256)
def _header(header: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Dtype, shape, and whether the first axis changes fastest."""
    file = io.BytesIO(header)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        shape, is_fortran, dtype = read[np.lib.format.read_magic(file)](file)
    except (ValueError, KeyError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise Refusal(400, "the body is no file of numpy.save's.") from None
    if dtype.kind not in NUMBERS or not shape or min(shape) < 0:
        raise Refusal(422, f"the array is {dtype} of shape {shape}; it must hold samples.")
    return dtype, shape, is_fortran

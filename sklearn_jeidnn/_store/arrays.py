"""Arrays and a text in one file, in the format of safetensors, which holds nothing that could be run.

The format: 8 bytes, the length of the header (little endian); the header, JSON with dtype, shape and place of each
array; the bytes of all arrays, one after the other. It is read here with NumPy alone, since an exported classifier
must be loaded where there is nothing else; the library safetensors reads what is written here.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .damaged import DamagedFile, read_whole

# Names that the format has for dtypes.
DTYPES = {
    "BOOL": "|b1",
    "U8": "|u1",
    "I8": "|i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "BF16": "<u2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}
NAMES = {dtype: name for name, dtype in DTYPES.items() if name != "BF16"}
METADATA = "__metadata__"
MOST_HEADER_BYTES = 100_000_000
MOST_AXES = 32
ALIGNMENT = 8


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    """Write arrays and texts by name, and a checksum of all of them."""
    # The widest numbers first, so that all are aligned, as the library does it.
    names = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    ordered = {name: np.asarray(arrays[name], order="C") for name in names}
    header: dict[str, Any] = {}
    end = 0
    for name, array in ordered.items():
        start, end = end, end + array.nbytes
        dtype = np.dtype(array.dtype).newbyteorder("<").str
        header[name] = {
            "dtype": NAMES[dtype],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    checksum = checksum_of(header, texts, (_bytes(array) for array in ordered.values()))
    header[METADATA] = {**texts, "sha256": checksum}
    with open(path, "wb") as file:
        _write_header(file, header)
        for array in ordered.values():
            file.write(_bytes(array))


def _write_header(file: BinaryIO, header: dict[str, Any]) -> None:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)


def _bytes(array: np.ndarray) -> memoryview:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return memoryview(little.reshape(-1).view(np.uint8).data)


def checksum_of(header: Mapping[str, Any], texts: Mapping[str, str], parts: Any) -> str:
    """SHA-256 of names, dtypes and shapes, texts, and the bytes of arrays."""
    found = hashlib.sha256(json.dumps([header, dict(texts)], sort_keys=True).encode())
    for part in parts:
        found.update(part)
    return found.hexdigest()


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays, all in the memory that the file was read into, and texts by name.

    Raises
    ------
    DamagedFile
        If something is wrong with the file; nothing larger than the file is allocated to find that out.
    """
    data = read_whole(path)
    n_header = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= n_header <= min(len(data) - 8, MOST_HEADER_BYTES):
        raise DamagedFile(f"it says that {n_header} bytes of its {len(data)} are its header")
    try:
        header = json.loads(bytes(data[8 : 8 + n_header]).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"its header is no JSON ({error})") from error
    if not isinstance(header, dict):
        raise DamagedFile("its header names no arrays")
    texts = header.pop(METADATA, None)
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise DamagedFile("it holds no fitted classifier")
    body = memoryview(data)[8 + n_header :]
    arrays = _placed(header, body)
    checksum = texts.pop("sha256", None)
    if checksum != checksum_of(header, texts, [body]):
        raise DamagedFile("its checksum is not that of its content")
    return arrays, texts


def _placed(header: dict[str, Any], body: memoryview) -> dict[str, np.ndarray]:
    """Arrays where the header says they are, one after the other from the first byte to the last."""
    places = {name: _place(name, entry, len(body)) for name, entry in header.items()}
    end = 0
    arrays = {}
    for name, (dtype, shape, start, stop) in sorted(places.items(), key=lambda place: place[1][2:]):
        if start != end or stop > len(body):
            raise DamagedFile(f"the array {name[:80]!r} is not where the one before it ends")
        end = stop
        array = np.frombuffer(body[start:stop], dtype).reshape(shape)
        arrays[name] = array if array.flags.aligned else array.copy()
        if dtype.kind == "b" and (arrays[name].view(np.uint8) > 1).any():
            raise DamagedFile(f"the array {name[:80]!r} holds neither true nor false")
    if end != len(body):
        raise DamagedFile(f"it has {len(body)} bytes of arrays, and its header names {end}")
    return arrays


def _place(name: str, entry: Any, n_bytes: int) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Dtype, shape, and first and last place of an array; the file has so many bytes of arrays."""
    whole = f"the array {name[:80]!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise DamagedFile(f"{whole} has no dtype, shape and place")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise DamagedFile(f"{whole} is of a dtype that is not known")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise DamagedFile(f"{whole} has a shape or a place that is none")
    dtype = np.dtype(DTYPES[entry["dtype"]])
    # An array without numbers may name any other size, of which something else would then be made.
    without_zeros = math.prod(size for size in shape if size)
    if without_zeros > n_bytes and 0 in shape:
        raise DamagedFile(f"{whole} has a shape or a place that is none")
    if len(shape) > MOST_AXES or math.prod(shape) * dtype.itemsize != offsets[1] - offsets[0]:
        raise DamagedFile(f"{whole} is not of the size of its shape")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 2**62 for value in values
    )

"""Files that are always whole: written beside and renamed, and read only if their checksum is right."""

import contextlib
import hashlib
import io
import os
import pickle
import struct
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from .code import as_bytes

MAGIC = b"sklearn_jeidnn checkpoint 1\n"
# Of a file that is being written; nothing reads it.
TEMPORARY = ".tmp"


class DamagedFileError(ValueError):
    """A file is not as it was written."""


def packed(value: Any) -> list[Any]:
    """Pickle a value into buffers, without copies of the tensors and arrays in it."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(value)
    buffers = [np.frombuffer(file.getbuffer(), dtype=np.uint8), *pickler.buffers]
    sizes = [len(buffers), *(len(buffer) for buffer in buffers)]
    return [struct.pack(f"<{len(sizes)}Q", *sizes), *buffers]


def count_bytes(buffers: Iterable[Any]) -> int:
    return sum(len(buffer) for buffer in buffers)


def write_whole(path: str, buffers: Iterable[Any]) -> None:
    """Write a file so that a reader finds the old content or the new one, whenever the writer ends.

    Raises
    ------
    OSError
        The file is then as it was, and nothing half-written remains.
    """
    folder, name = os.path.split(path)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=name, suffix=TEMPORARY)
    try:
        with open(handle, "wb") as file:
            _write(file, list(buffers))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise
    _sync_folder(folder)


def _write(file: Any, buffers: list[Any]) -> None:
    digest = hashlib.sha256()
    for buffer in buffers:
        digest.update(buffer)
    for buffer in (MAGIC, digest.digest(), *buffers):
        file.write(buffer)
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: str) -> None:
    """Let a renamed file outlive a loss of power, where a folder can be synchronised."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_whole(path: str) -> Any:
    """Return the value in a file that :func:`write_whole` wrote.

    Raises
    ------
    DamagedFileError
        If anything in it has changed; nothing of it is unpickled then.
    OSError
        If it cannot be read.
    """
    with open(path, "rb") as file:
        content = memoryview(bytearray(os.fstat(file.fileno()).st_size))
        file.readinto(content)
    start = len(MAGIC) + hashlib.sha256().digest_size
    checksum, body = content[len(MAGIC) : start], content[start:]
    if content[: len(MAGIC)] != MAGIC or hashlib.sha256(body).digest() != checksum:
        raise DamagedFileError("its checksum is wrong")
    try:
        return _unpacked(body)
    except Exception as error:  # whatever a class that has changed since raises
        raise DamagedFileError(f"{type(error).__name__}: {error}") from error


def _unpacked(body: memoryview) -> Any:
    (n_buffers,) = struct.unpack_from("<Q", body)
    sizes = struct.unpack_from(f"<{n_buffers}Q", body, 8)
    ends = 8 * (n_buffers + 1) + np.cumsum(sizes)
    content, *buffers = (body[end - size : end] for size, end in zip(sizes, ends, strict=True))
    return _Unpickler(io.BytesIO(content), buffers).load()


class _Pickler(pickle.Pickler):
    """Puts the bytes of tensors and arrays aside."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5, buffer_callback=self._put_aside)
        self.buffers: list[Any] = []

    def _put_aside(self, buffer: pickle.PickleBuffer) -> bool:
        self.buffers.append(buffer.raw())
        return False

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return None
        self.buffers.append(as_bytes(value))
        return value.dtype, tuple(value.shape), str(value.device)


class _Unpickler(pickle.Unpickler):
    """Buffers come in the order in which they were put aside."""

    def __init__(self, file: io.BytesIO, buffers: list[memoryview]) -> None:
        self.waiting = iter(buffers)
        super().__init__(file, buffers=self.waiting)

    def persistent_load(self, told: tuple[torch.dtype, tuple[int, ...], str]) -> torch.Tensor:
        dtype, shape, device = told
        content = np.array(next(self.waiting), dtype=np.uint8)
        if not content.size:
            return torch.empty(shape, dtype=dtype, device=device)
        return torch.from_numpy(content).view(dtype).reshape(shape).to(device)

"""Keep what was learned across fits that differ only in what comes after."""

import copy
import glob
import hashlib
import io
import os
import pickle
import tempfile
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import joblib
import numpy as np
import torch
from sklearn.utils.validation import check_memory
from torch import fx, nn

from .. import __version__
from .._warn import warn_caller
from .code import as_bytes, describe, is_library_class

Result = TypeVar("Result")
# Attributes that every module has: parameters, buffers, submodules, hooks.
OF_EVERY_MODULE = set(vars(nn.Module()))


class Parcel(NamedTuple):
    """A result as it is stored, with a checksum by which damage is noticed."""

    content: bytes  # pickled, without tensors
    tensors: list[np.ndarray]  # bytes of each
    checksum: str

    @classmethod
    def of(cls, result: Any) -> "Parcel":
        file = io.BytesIO()
        pickler = _TensorPickler(file)
        pickler.dump(result)
        content = file.getvalue()
        return cls(content, pickler.tensors, _checksum(content, pickler.tensors))

    def opened(self) -> Any:
        """Return the result.

        Raises
        ------
        ValueError
            If it is damaged.
        """
        if _checksum(self.content, self.tensors) != self.checksum:
            raise ValueError("its checksum is wrong")
        return _TensorUnpickler(io.BytesIO(self.content), self.tensors).load()


class _TensorPickler(pickle.Pickler):
    """Puts the bytes of tensors aside, which joblib writes without another copy."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.tensors: list[np.ndarray] = []

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return None
        self.tensors.append(as_bytes(value))
        return len(self.tensors) - 1, value.dtype, tuple(value.shape)


class _TensorUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: list[np.ndarray]) -> None:
        super().__init__(file)
        self.tensors = tensors

    def persistent_load(self, told: tuple[int, torch.dtype, tuple[int, ...]]) -> torch.Tensor:
        number, dtype, shape = told
        if not self.tensors[number].size:
            return torch.empty(shape, dtype=dtype)
        content = np.require(self.tensors[number], requirements=["C", "W"])
        return torch.from_numpy(content).view(dtype).reshape(shape)


def _checksum(content: bytes, tensors: list[np.ndarray]) -> str:
    digest = hashlib.sha256(content)
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


def remembered(memory: joblib.Memory, compute: Callable[[], Result], **affects: Any) -> Result:
    """``compute()``, or what it returned in an earlier call in which everything that affects it was the same.

    torch's random numbers go on from where they went on then.

    Parameters
    ----------
    memory : joblib.Memory
    compute : callable
        Returns what can be pickled.
    **affects
        All that the result depends on, beside the state of torch's random numbers.
    """
    versions = {"sklearn_jeidnn": __version__, "torch": torch.__version__}
    affects = {**versions, "random": torch.get_rng_state().numpy(), **affects}
    try:
        key = joblib.hash(affects)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        warn_caller(
            f"memory: this fit is not remembered, since one of its parameters cannot be told from another: "
            f"{error.args[0]}",
        )
        return compute()
    result, random_state = _stored(memory, key, lambda: (compute(), torch.get_rng_state()))
    torch.set_rng_state(random_state)
    return result


def check_memory_folder(memory: Any) -> None:
    """Refuse a folder that cannot be made or written to, before there is anything to store."""
    try:
        location = getattr(getattr(as_memory(memory), "store_backend", None), "location", None)
        if isinstance(location, str):
            os.makedirs(location, exist_ok=True)
            with tempfile.TemporaryFile(dir=location):
                pass
    except OSError as error:
        raise ValueError(
            f"memory={memory!r} is no folder in which files can be stored ({error}); give another folder."
        ) from error


def as_memory(memory: Any) -> Any:
    """Return a ``joblib.Memory`` for a folder, or what the user gives in its place."""
    return check_memory(os.fspath(memory) if isinstance(memory, os.PathLike) else memory)


def _stored(memory: Any, key: str, compute: Callable[[], Result]) -> Result:
    """``compute()``, or what is stored for this key if it is not damaged."""
    computed: list[Result] = []

    def parcel() -> Parcel:
        computed.append(compute())
        return Parcel.of(computed[0])

    cached = memory.cache(_parcel, ignore=["parcel"])
    try:
        shelved = _shelved(cached, key, parcel)
        if computed:
            return computed[0]
        try:
            result: Result = shelved.get().opened()
            return result
        except Exception as error:  # whatever damaged bytes raise when they are unpickled
            warn_caller(f"memory: what was stored is damaged ({error}); it is computed anew.")
            shelved.clear()
            _shelved(cached, key, parcel)
            return computed[0] if computed else compute()
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        if not computed:
            raise
        warn_caller(f"memory: this fit is not remembered, since it cannot be pickled: {error}")
        return computed[0]
    except BaseException:
        _remove_half_written(cached)
        raise


def _parcel(key: str, parcel: Callable[[], Parcel]) -> Parcel:
    return parcel()


class _Unshelved(NamedTuple):
    """What a cache other than joblib's returns, which cannot be cleared."""

    parcel: Parcel

    def get(self) -> Parcel:
        return self.parcel

    def clear(self) -> None: ...


def _shelved(cached: Any, key: str, parcel: Callable[[], Parcel]) -> Any:
    """Call a cached function; what it returns is not yet read from the disk."""
    if hasattr(cached, "call_and_shelve"):
        return cached.call_and_shelve(key, parcel)
    # A cache in memory must not hold weights that are trained on.
    return _Unshelved(cached(key, lambda: copy.deepcopy(parcel())))


def _remove_half_written(cached: Any) -> None:
    """Remove files that joblib was about to rename when it was interrupted."""
    location = getattr(getattr(cached, "store_backend", None), "location", None)
    writer = (str(os.getpid()), str(id(threading.current_thread())))
    for file in glob.iglob(os.path.join(str(location), "**", "output.pkl.*"), recursive=True):
        if all(number in os.path.basename(file) for number in writer):
            os.remove(file)


def fingerprint(module: nn.Module) -> str:
    """What a module computes: its weights, its structure, its settings, and the code of its parts."""
    tensors = {**module.state_dict(), **dict(module.named_buffers())}
    return describe(tensors, repr(module), *(_told(part) for part in module.modules()))


def _told(part: nn.Module) -> tuple[Any, ...]:
    """What one module does by itself: its class, the attributes that forward may read, its hooks."""
    hooks = [*part._forward_pre_hooks.values(), *part._forward_hooks.values()]
    if isinstance(part, fx.GraphModule):
        called = [node.target for node in part.graph.nodes if node.op == "call_function"]
        return part.code, called, hooks
    # Private attributes of library classes are caches.
    is_cache = "_" if is_library_class(type(part)) else ()
    settings = {
        name: value
        for name, value in vars(part).items()
        if name not in OF_EVERY_MODULE and not name.startswith(is_cache)
    }
    return type(part), settings, hooks

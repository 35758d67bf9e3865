"""Values as JSON, with arrays beside it: what dataclasses hold, and nothing that could be run.

A value that JSON has not is an object with a key that begins with "@": ``{"@tuple": [...]}``, ``{"@array": name}`` and
so on. A dataclass is ``{"@": name of its class, field: value, ...}``; only the classes that are named here are known.
"""

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from .damaged import DamagedFile
from .frame_dtypes import dtype_as_value, dtype_of_value, library_of

KIND = "@"
# Kinds of dtypes whose arrays are kept as bytes, beside the JSON.
AS_BYTES = "biuf"
MOST_TEXT = 2**20
MOST_BYTES_IN_JSON = 256


class Written:
    """Values as JSON, and the arrays beside it.

    Parameters
    ----------
    known : mapping of str to class
        Dataclasses and named tuples that may be written.
    named : mapping of str to object
        Functions and other objects that are written as their names.
    """

    def __init__(self, known: Mapping[str, type], named: Mapping[str, Any]) -> None:
        self._class_names = {kind: name for name, kind in known.items()}
        self._names = {id(value): name for name, value in named.items()}
        self.arrays: dict[str, np.ndarray] = {}

    def json(self, value: Any, where: str) -> Any:
        """A value as what JSON has; ``where`` names it in messages, and its arrays."""
        if value is None or isinstance(value, bool | str | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"@float": repr(value)}
        if id(value) in self._names:
            return {"@named": self._names[id(value)]}
        if type(value) in self._class_names:
            return self._object(value, where)
        if isinstance(value, np.ndarray):
            return self._array(value, where)
        if isinstance(value, np.generic):
            return {"@scalar": self.json(np.asarray(value), where)}
        if isinstance(value, np.dtype):
            return {"@dtype": value.str}
        if isinstance(value, bytes):
            return self._bytes(value, where)
        if isinstance(value, list):
            return self._items(value, where)
        if isinstance(value, tuple):
            return {"@tuple": self._items(value, where)}
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {"@dict": {key: self.json(v, f"{where}.{key}") for key, v in value.items()}}
        if type(value).__name__ == "NAType":
            return {"@missing": "NA"}
        library = library_of(value)
        if library is not None:
            return {"@frame_dtype": self.json(dtype_as_value(value, library), where)}
        raise TypeError(
            f"{where} is {value!r}, a {type(value).__name__}, which cannot be stored as a value."
        )

    def _bytes(self, value: bytes, where: str) -> dict[str, Any]:
        if len(value) <= MOST_BYTES_IN_JSON:
            return {"@bytes": base64.b64encode(value).decode()}
        self.arrays[where] = np.frombuffer(value, np.uint8)
        return {"@bytes_of": where}

    def _items(self, values: Any, where: str) -> list[Any]:
        return [self.json(value, f"{where}.{i}") for i, value in enumerate(values)]

    def _object(self, value: Any, where: str) -> dict[str, Any]:
        names = [f.name for f in fields(value)] if is_dataclass(value) else value._fields
        found = {name: self.json(getattr(value, name), f"{where}.{name}") for name in names}
        return {KIND: self._class_names[type(value)], **found}

    def _array(self, array: np.ndarray, where: str) -> dict[str, Any]:
        if array.dtype.kind in AS_BYTES and array.dtype.itemsize <= 8:
            self.arrays[where] = array
            return {"@array": where}
        if array.dtype.kind not in "UO":
            raise TypeError(f"{where} is an array of {array.dtype}, which cannot be stored.")
        items = [self.json(item, where) for item in array.ravel().tolist()]
        return {"@items": items, "dtype": array.dtype.str, "shape": list(array.shape)}


class Read:
    """Values from what :class:`Written` makes of them.

    Parameters
    ----------
    known : mapping of str to class
    named : mapping of str to object
    arrays : mapping of str to ndarray
    """

    def __init__(
        self,
        known: Mapping[str, type],
        named: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        self._known, self._named, self._arrays = known, named, arrays
        self._readers: dict[str, Callable[[Any], Any]] = {
            "@float": self._float,
            "@named": self._named_value,
            "@array": self._array,
            "@scalar": lambda item: self.value(item)[()],
            "@dtype": self._dtype,
            "@bytes": lambda text: base64.b64decode(text, validate=True),
            "@bytes_of": lambda name: self._array(name).tobytes(),
            "@tuple": lambda items: tuple(map(self.value, _as(list, items))),
            "@dict": lambda items: {k: self.value(v) for k, v in _as(dict, items).items()},
            "@missing": lambda _: _not_available(),
            "@frame_dtype": lambda parts: dtype_of_value(*self.value(_as(list, parts))),
        }

    def value(self, found: Any) -> Any:
        """The value that JSON stands for."""
        if found is None or isinstance(found, bool | str | int | float):
            return found
        if isinstance(found, list):
            return [self.value(item) for item in found]
        if KIND in found:
            return self._object(found)
        if "@items" in found:
            return self._items(found)
        ((kind, content),) = found.items()
        if kind not in self._readers:
            raise DamagedFile(f"it has a value of the kind {kind[:40]!r}, which is not known")
        return self._readers[kind](content)

    def _object(self, found: dict[str, Any]) -> Any:
        kind = self._known.get(_as(str, found[KIND]))
        if kind is None:
            raise DamagedFile(f"it has a {found[KIND][:40]!r}, which is not known")
        named_fields: Any = fields(kind) if is_dataclass(kind) else ()
        names = {f.name for f in named_fields} or set(getattr(kind, "_fields", ()))
        content = {name: self.value(v) for name, v in found.items() if name != KIND}
        unknown = sorted(set(content) - names)
        if unknown:
            raise DamagedFile(f"its {found[KIND]} has {unknown[:5]}, which are not known")
        return kind(**content)

    def _float(self, text: Any) -> float:
        if text not in ("nan", "inf", "-inf"):
            raise DamagedFile(f"it has a number {text!r:.40}")
        return float(text)

    def _named_value(self, name: Any) -> Any:
        if name not in self._named:
            raise DamagedFile(f"it has a function {name!r:.40}, which is not known")
        return self._named[name]

    def _array(self, name: Any) -> np.ndarray:
        if name not in self._arrays:
            raise DamagedFile(f"it lacks the array {name!r:.80}")
        return self._arrays[name]

    def _dtype(self, text: Any) -> np.dtype:
        dtype: np.dtype[Any] = np.dtype(_as(str, text))
        if dtype.kind not in AS_BYTES or dtype.itemsize > 8:
            raise DamagedFile(f"it has the dtype {text!r:.40}, which holds no numbers")
        return dtype

    def _items(self, found: dict[str, Any]) -> np.ndarray:
        items = [self.value(item) for item in _as(list, found["@items"])]
        dtype = _as(str, found["dtype"])
        if dtype == "|O":
            array = np.empty(len(items), dtype=object)
            array[:] = items
        else:
            if not dtype.lstrip("<>=|").startswith("U") or not all(
                isinstance(item, str) for item in items
            ):
                raise DamagedFile(f"it has items of the dtype {dtype!r:.40}")
            width = max(map(len, items), default=1)
            if width * len(items) > MOST_TEXT + 4 * sum(map(len, items)):
                raise DamagedFile("it has texts whose lengths differ too much")
            array = np.array(items, dtype=f"<U{max(1, width)}")
        return array.reshape(_as(list, found["shape"]))


def _as(kind: type, value: Any) -> Any:
    """A value, if it is of a kind."""
    if not isinstance(value, kind):
        raise DamagedFile(f"it has a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _not_available() -> Any:
    """What pandas has for a missing value, or None without pandas."""
    try:
        import pandas
    except ImportError:
        return None
    return pandas.NA

"""Dtypes of data frames as values, and back where their library is installed."""

import importlib
import re
from typing import Any

from .damaged import DamagedFile

# What a dtype may be called; of polars an attribute of the module, and pandas looks it up in its own list.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\[[a-z0-9_, /]*\])?")
LIBRARIES = ("pandas", "polars")


def library_of(dtype: Any) -> str | None:
    """The library whose dtype this is, if it is one."""
    kind = dtype if isinstance(dtype, type) else type(dtype)
    root = kind.__module__.partition(".")[0]
    return root if root in LIBRARIES and "ype" in str(kind.__mro__) else None


def dtype_as_value(dtype: Any, library: str) -> list[Any]:
    """Name of the library and of the dtype; of one of categories also these, and whether they are in order."""
    categories = getattr(dtype, "categories", None)
    if categories is None:
        return [library, str(dtype)]
    ordered = bool(getattr(dtype, "ordered", False))
    name = "category" if library == "pandas" else type(dtype).__name__
    return [library, name, categories.to_list(), ordered]


def dtype_of_value(library: Any, name: Any, categories: Any = None, ordered: Any = False) -> Any:
    """The dtype, or its name where the library is not installed."""
    if library not in LIBRARIES or not isinstance(name, str) or not NAME.fullmatch(name):
        raise DamagedFile(f"it has the dtype {name!r:.40} of {library!r:.40}, which is not known")
    try:
        module = importlib.import_module(library)
    except ImportError:
        return name
    if library == "pandas":
        if categories is not None:
            return module.CategoricalDtype(categories, ordered=ordered)
        return module.api.types.pandas_dtype(name)
    kind = getattr(module, name, None)
    if not (isinstance(kind, type) and issubclass(kind, module.DataType)):
        raise DamagedFile(f"it has the dtype {name!r:.40} of {library}, which is not known")
    return kind(categories) if name == "Enum" else kind

"""What code does, as a digest: functions and classes with all that they use."""

import dis
import enum
import functools
import hashlib
import inspect
import os
import pathlib
import sys
import sysconfig
import types
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
import torch

PLAIN = (type(None), type(Ellipsis), bool, int, float, complex, str, bytes, pathlib.PurePath)
PYTHON_FOLDERS = {
    os.path.realpath(sysconfig.get_paths()[name]) + os.sep for name in ("stdlib", "platstdlib")
}
PACKAGE_FOLDERS = ("site-packages", "dist-packages")
OUR_FOLDER = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep
# Attributes of classes that say nothing of what they do, or say it again.
OF_EVERY_CLASS = {
    *("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__"),
    *("__firstlineno__", "__static_attributes__", "_abc_impl", "__abstractmethods__"),
}
# Names in code that can reach any attribute of a module.
REACH_ANYTHING = {"getattr", "vars", "__dict__", "globals", "eval"}


def describe(*values: Any) -> str:
    """Return a digest of values: of functions and classes by what they do, of everything else by its content.

    A function is told by its bytecode, and by the functions, classes and constants that it names, wherever they
    are. Code of installed packages is told by their version and the content of its file.
    """
    description = _Description()
    for value in values:
        description.add(value)
    return description.digest.hexdigest()


def as_bytes(tensor: torch.Tensor) -> np.ndarray:
    """Return the content of a tensor of any dtype and device as bytes (n_bytes,)."""
    content: np.ndarray = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return content


class _Description:
    """A digest to which values are added; an object that came before is told by its number."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
        # Objects are kept, so that no later one gets the identity of an earlier one.
        self.seen: dict[int, tuple[int, Any]] = {}

    def add(self, value: Any) -> None:
        if isinstance(value, PLAIN):
            self._note(type(value).__name__, repr(value))
        elif isinstance(value, tuple | frozenset | types.CodeType):
            # Python shares equal constants or not, depending on how it read the file.
            self._add_content(value)
        elif id(value) in self.seen:
            self._note("again", str(self.seen[id(value)][0]))
        else:
            self.seen[id(value)] = (len(self.seen), value)
            self._add_content(value)

    def _add_content(self, value: Any) -> None:
        if isinstance(value, Mapping):
            items = sorted(value.items(), key=lambda item: describe(item[0]))
            self._add_all("mapping", [part for item in items for part in item])
        elif isinstance(value, Set):
            self._add_all("set", sorted(value, key=describe))
        elif isinstance(value, list | tuple):
            self._add_all(type(value).__name__, value)
        elif isinstance(value, torch.Tensor):
            self._note("tensor", f"{value.dtype} {tuple(value.shape)} {_hash(as_bytes(value))}")
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self._note("array", f"{value.dtype} {value.shape} {_hash(value)}")
        elif isinstance(value, types.CodeType):
            names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
            self._add_all("code", (value.co_code, value.co_consts, *names))
        else:
            self._add_definition(value)

    def _add_definition(self, value: Any) -> None:
        if isinstance(value, type):
            self._add_class(value)
        elif isinstance(value, types.FunctionType):
            self._add_function(value)
        elif inspect.ismodule(value):
            is_library = _is_library(value.__name__)
            self._note("module", _stamp(value.__name__) if is_library else value.__name__)
        elif isinstance(value, property):
            self._add_all("property", (value.fget, value.fset, value.fdel))
        elif isinstance(value, staticmethod | classmethod):
            self._add_all(type(value).__name__, (value.__func__,))
        elif callable(value) and "__wrapped__" in getattr(value, "__dict__", ()):
            self._add_all("wrapper", (value.__wrapped__,))
        elif isinstance(value, enum.Enum):
            self._add_all("enum", (type(value), value.value))
        else:
            self._add_object(value)

    def _add_class(self, kind: type) -> None:
        self._note("class", f"{kind.__module__}.{kind.__qualname__}")
        if _is_library(kind.__module__):
            self._note("library", _stamp(kind.__module__))
            return
        members = {name: v for name, v in vars(kind).items() if name not in OF_EVERY_CLASS}
        self._add_all("bases and members", (*kind.__bases__, members))

    def _add_function(self, function: types.FunctionType) -> None:
        # A decorator of a library wraps a function of the user's, which it then holds.
        cells = [_content(cell) for cell in function.__closure__ or ()]
        self._add_all("function", (function.__defaults__, function.__kwdefaults__, *cells))
        home = function.__globals__.get("__name__")
        if _is_library(home):
            self._note("library", f"{_stamp(home)} {function.__qualname__}")
        else:
            self.add(function.__code__)
            self.add(named_values(function))

    def _add_object(self, value: Any) -> None:
        """Add what pickle would store."""
        try:
            parts = value.__reduce_ex__(4)
        except Exception:  # whatever an object of the user's raises when it is pickled
            parts = (type(value),)
        if isinstance(parts, str):
            parts = (getattr(value, "__module__", None), parts)
        constructor, *state = parts
        self._add_all("object", (constructor, *(_plain_iterator(part) for part in state)))

    def _add_all(self, kind: str, parts: Iterable[Any]) -> None:
        parts = list(parts)
        self._note(kind, str(len(parts)))
        for part in parts:
            self.add(part)

    def _note(self, kind: str, text: str) -> None:
        self.digest.update(f"{kind} {len(text)} {text}\n".encode(errors="surrogatepass"))


def _hash(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _plain_iterator(part: Any) -> Any:
    """Return the items of a list or dict, which pickle is given one by one, as a list."""
    return list(part) if hasattr(part, "__next__") else part


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return None


def named_values(function: types.FunctionType) -> dict[str, Any]:
    """Return what names in a function's code stand for: globals, and attributes of modules that are the user's."""
    names, imported = _names(function.__code__)
    known = function.__globals__
    found = {name: known[name] for name in names if name in known}
    package = known.get("__package__") or ""
    for name in imported:
        found |= {m: sys.modules[m] for m in (name, f"{package}.{name}") if m in sys.modules}
    found = {n: v for n, v in found.items() if n in names or not _is_library_module(v)}
    modules = [value for value in found.values() if _is_own_module(value)]
    while modules:
        module = modules.pop()
        if names & REACH_ANYTHING:
            found[f"content of {module.__name__}"] = _content_digest(module.__name__)
        for name in names & vars(module).keys():
            key, value = f"{module.__name__}.{name}", vars(module)[name]
            if key not in found:
                found[key] = value
                modules += [value] if _is_own_module(value) else []
    return found


def values_of_function(function: types.FunctionType) -> dict[str, Any]:
    """Return what a function uses: values that it was made with, and those that a user's function names."""
    made_with = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    made_with += [_content(cell) for cell in function.__closure__ or ()]
    values = {str(number): value for number, value in enumerate(made_with)}
    is_library = _is_library(function.__globals__.get("__name__"))
    return values if is_library else {**values, **named_values(function)}


def _names(code: types.CodeType) -> tuple[set[str], set[str]]:
    """Return names of globals and attributes, and of imported modules, in code and in the functions inside of it."""
    names = set(code.co_names)
    imported = {i.argval for i in dis.get_instructions(code) if i.opname == "IMPORT_NAME"}
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names, imported = (a | b for a, b in zip((names, imported), _names(const)))
    return names, imported


def is_library_class(kind: type) -> bool:
    return _is_library(kind.__module__)


def _is_own_module(value: Any) -> bool:
    return inspect.ismodule(value) and not _is_library(value.__name__)


def _is_library_module(value: Any) -> bool:
    return inspect.ismodule(value) and _is_library(value.__name__)


@functools.cache
def _is_library(module_name: str | None) -> bool:
    """Whether a module is of Python, of an installed package, or ours."""
    if module_name is None:
        return False
    file = getattr(sys.modules.get(module_name), "__file__", None)
    if file is None:
        return module_name in sys.builtin_module_names
    path = os.path.realpath(file)
    is_installed = any(f"{os.sep}{name}{os.sep}" in path for name in PACKAGE_FOLDERS)
    return is_installed or path.startswith((*PYTHON_FOLDERS, OUR_FOLDER))


@functools.cache
def _stamp(module_name: str) -> str:
    """Return name of a library's module, version of its package and digest of its file."""
    package = sys.modules.get(module_name.partition(".")[0])
    version = getattr(package, "__version__", "")
    return f"{module_name} {version} {_content_digest(module_name)}"


def _content_digest(module_name: str) -> str:
    file = getattr(sys.modules.get(module_name), "__file__", None)
    if file is None or not file.endswith(".py"):
        return ""
    with open(file, "rb") as source:
        return hashlib.sha256(source.read()).hexdigest()

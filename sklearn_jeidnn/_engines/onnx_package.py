"""Packages that answers in ONNX Runtime need."""

import importlib
from typing import Any


def package(name: str) -> Any:
    """Import a package of the extra ``onnx``.

    Raises
    ------
    ImportError
        That says what to do without it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"the classifier answers in ONNX Runtime, which needs {name} here: pip install 'sklearn_jeidnn[onnx]' (of "
            f"an exported one: pip install {name}), or take clf.at(engine='torch')."
        ) from error

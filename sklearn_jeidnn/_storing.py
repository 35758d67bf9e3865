"""How a fitted classifier leaves the process that fitted it: exported, for a machine without torch."""

import os
from typing import Any

from sklearn.utils.validation import check_is_fitted

from ._fit.exporting import for_export
from ._fit.spec import CascadeSpec
from ._predictor import Predictor
from ._store.exported import write_exported


class StoringMixin:
    """How :class:`EarlyExitClassifier` is exported."""

    _predictor: Predictor
    gate_training: Any

    def export(self, directory: str | os.PathLike[str]) -> None:
        """Write a folder from which :meth:`sklearn_jeidnn.runtime.Predictor.load` answers without torch.

        The folder holds one ONNX graph an exit, and all that operating points and prediction sets need: what the gates
        and the calibration learned from held-out samples, as logits and labels. It holds no samples and no code. A
        machine that only answers needs ``onnxruntime`` and NumPy. A classifier whose engine is torch is exported in
        float32, in which it answers the same but for rounding.

        Parameters
        ----------
        directory : str or path
            A new folder, an empty one, or one that was exported before, which is replaced once the new one is whole.

        Raises
        ------
        ImportError
            Without the extra ``onnx``.
        ValueError
            If a member has no graph, as scikit-learn's classifiers, or if the classifier is on a GPU or in bfloat16.
        TypeError
            If ``conformity_score`` or ``condition_on`` is a function.
        OSError
            If the folder cannot be written, or is another one; what was there stays.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_jeidnn import EarlyExitClassifier
        >>> from sklearn_jeidnn.runtime import Predictor
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = EarlyExitClassifier(max_epochs=2, cv=None, random_state=0).fit(X, y)
        >>> clf.export("iris")  # doctest: +SKIP
        >>> Predictor.load("iris").predict(X[:1])  # doctest: +SKIP
        array([0])
        """
        check_is_fitted(self)
        from . import __version__

        predictor = for_export(CascadeSpec.of(self), self._predictor)
        write_exported(directory, predictor, self.gate_training, __version__)

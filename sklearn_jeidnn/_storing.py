"""How a fitted classifier leaves the process that fitted it: saved, or exported for a machine without torch."""

import inspect
import os
from collections.abc import Collection
from typing import Any

from sklearn.utils.validation import check_is_fitted

from ._fit.exporting import for_export
from ._fit.loading import Loading, with_structure
from ._fit.saving import KNOWN_OF_MODELS, fitted_as_values
from ._fit.single_file import single_file
from ._fit.spec import CascadeSpec
from ._portable import in_device, on_its_device
from ._predictor import Predictor
from ._store.damaged import naming_file
from ._store.exported import write_exported
from ._store.models import read_model, write_model
from ._store.predictors import NAMED
from ._store.writing import as_path, write_bytes
from ._warn import warn_caller


class StoringMixin:
    """How :class:`EarlyExitClassifier` is saved, loaded and exported."""

    _predictor: Predictor
    gate_training: Any
    get_params: Any
    _adopt: Any

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted classifier into one file that holds no code.

        The file is in the format of safetensors: weights, what gates and calibration learned from held-out samples (as
        logits, labels and hashes; no samples), the parameters, and a checksum. Members that are scikit-learn's
        classifiers, as the trees beside the ready network for tables, are stored by skops. The file is written beside
        its place and moved there when it is whole.

        Parameters
        ----------
        path : str or path
            Of the file; one that is there is replaced.

        Raises
        ------
        ImportError
            If a member is a classifier and skops is missing (the extra ``save``).
        TypeError
            If ``conformity_score`` or ``condition_on`` is a function, or skops does not store a member.
        OSError
            If the file cannot be written; what was there stays.

        See Also
        --------
        load : Loads it.
        export : Writes a folder that answers without torch.
        export_onnx : Writes one graph for any ONNX runtime.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_jeidnn import EarlyExitClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = EarlyExitClassifier(max_epochs=2, cv=None, random_state=0).fit(X, y)
        >>> clf.save("iris.jeidnn")  # doctest: +SKIP
        >>> EarlyExitClassifier.load("iris.jeidnn").predict(X[:1])  # doctest: +SKIP
        array([0])
        """
        check_is_fitted(self)
        from . import __version__

        values = fitted_as_values(self.get_params(deep=False), _defaults(self), self._predictor)
        write_model(path, values, KNOWN_OF_MODELS, NAMED, __version__)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        module: Any = None,
        *,
        head: Any = None,
        trusted: Collection[str] = (),
    ) -> Any:
        """Load a classifier that :meth:`save` wrote.

        No code of the file is run. Sizes are checked before anything is allocated, and the checksum before anything is
        used. Modules are built, cut at the same exits, and given their weights.

        Parameters
        ----------
        path : str or path
        module : torch module class, instance, pair or list, default=None
            What was fitted, unless that was the ready backbone: its class, which is built with the ``module__*``
            parameters of the file; an instance, whose weights do not matter; a pair of a class and a dict of its
            parameters. For several a list of them, in the order of the members.
        head : class, default=None
            If a class was given in the constructor.
        trusted : collection of str, default=()
            Types of members beside scikit-learn's whose code may be run, by the names that a message gives.

        Returns
        -------
        EarlyExitClassifier
            Fitted. Parameters that a file cannot hold, as callbacks, are as by default, which a warning says.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is damaged, another file, or of a newer version, or if ``module``, ``head`` or ``trusted`` lack
            something or do not fit; the message says what.
        ImportError
            If a member is a classifier and skops is missing (the extra ``save``).
        """
        path = as_path(path, "path")
        with naming_file(path):
            values = read_model(path, KNOWN_OF_MODELS, NAMED)
            loading = Loading(values, module, head, trusted)
            classifier = cls(**loading.params())
            spec = CascadeSpec.of(classifier)
            predictor = with_structure(loading.predictor(), spec)
            device, left_out = values["engine"]["device"], list(values["left_out"])
            if device != "cpu":
                predictor = on_its_device(in_device(predictor, device))
        if left_out:
            warn_caller(
                f"parameters {left_out} are functions or objects that no file holds, so they are as by "
                f"default; set them before you fit the loaded classifier again."
            )
        return classifier._adopt(predictor)

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

    def export_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write one ONNX graph that leaves early inside the graph, for any ONNX runtime, without Python.

        The graph has this operating point built in. Its inputs are those of the module by name, ``X`` where there is
        one without a name, (n_samples, ...), with the dtypes that the module takes (float32, int64, bool). Its
        outputs are ``label`` (n_samples,), as ``classes_`` has them; ``probabilities`` (n_samples, n_classes),
        calibrated, float32; ``exit`` (n_samples,), int64. Any number of samples goes, none included; some hundreds at
        once are fastest.

        What the classifier does before the network, it does not do: it takes a table as numbers, with the positions
        of categories (-1 for one that ``fit`` did not see, NaN for none) less each column's offset, and checks
        nothing. The entry ``columns`` of its ``metadata_props`` tells them, in JSON: ``name``, ``categories``,
        ``offset``, and ``fill``, which stands for a missing number where ``fit`` missed none. Other entries are
        ``version``, ``classes``, ``exits``, ``exit_costs`` and ``precision``.

        Labels and exits are those of ``engine="onnxruntime"``, but for decisions that hang on rounding, which the
        classifier makes for each sample by itself. Samples that the last exit answers with NaN or infinity have
        uniform probabilities, but the first of the classes, not the label of an exit before.

        Parameters
        ----------
        path : str or path
            A file that is there already is replaced, once the new one is whole.

        Raises
        ------
        ImportError
            If a package of the extra ``onnx`` is missing.
        OSError
            If the file cannot be written.
        ValueError
            If a member has no ONNX graph (a classifier of yours), the module cannot run in ONNX Runtime, labels are
            neither numbers nor words, or an input has the name of an output.
        """
        check_is_fitted(self)
        place = as_path(path, "path")
        write_bytes(place, single_file(CascadeSpec.of(self), self._predictor))


def _defaults(estimator: Any) -> dict[str, Any]:
    """Parameters of an estimator's constructor as they are by default."""
    signature = inspect.signature(type(estimator))
    return {name: parameter.default for name, parameter in signature.parameters.items()}

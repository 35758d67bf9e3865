"""The estimator's methods that write files for other programs."""

import os

from sklearn.utils.validation import check_is_fitted

from ._fit import CascadeSpec
from ._fit.single_file import single_file
from ._predictor import Predictor
from ._writing import check_writable, write_file


class ExportMixin:
    """The methods of :class:`EarlyExitClassifier` that write files for other programs."""

    _predictor: Predictor

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
            If a member has no ONNX graph (a classifier of yours, or boosted trees that read categories, which
            ``companion=None`` does without), the module cannot run in ONNX Runtime, labels are neither numbers nor
            words, or an input has the name of an output.
        """
        check_is_fitted(self)
        target = check_writable(path)
        write_file(target, single_file(CascadeSpec.of(self), self._predictor))

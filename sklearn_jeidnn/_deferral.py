"""Answers that are sure enough, and samples that are left to a human: the estimator's method."""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._operate.deferral import DeferredLabels
from ._prediction import PredictionMixin, concatenated
from ._predictor import Predictor
from ._schema import Arrays


class DeferralMixin(PredictionMixin):
    """The method of :class:`EarlyExitClassifier` that leaves samples to a human."""

    def predict_or_defer(self, X: Any, *, risk: float, confidence: float = 0.95) -> DeferredLabels:
        """Labels of the samples whose answer is sure enough; the others are to be given to a human.

        Of the answers that are given at most the share ``risk`` is wrong, for samples like those that calibrate (those
        that ``fit`` held out, or those of :meth:`conformalize`), with probability ``confidence`` over the drawing of
        these. A sample is answered if its label is at least as probable as a threshold, at the exit that it takes. The
        threshold is the least that the calibration samples show to keep to the risk, tested one after the other with
        exact binomial p-values [1]_, in an order that the samples which set the gates give. Each pair of risk and
        confidence is a statement by itself.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset
        risk : float
            Largest share of wrong answers among those that are given, in (0, 1).
        confidence : float, default=0.95
            Probability with which that holds, in (0, 1).

        Returns
        -------
        labels : ndarray (n_samples,)
            As :meth:`predict` gives them, also where a human is to answer.
        deferred : ndarray of bool (n_samples,)
            Samples that are to be given to a human: ``labels[~deferred]`` are the answers that are certified. Samples
            that the network answers with NaN or infinity are always deferred.
        certificate : DeferralCertificate
            ``threshold``, ``n_samples`` that calibrate, ``n_answered`` and ``n_errors`` of these, ``p_value``,
            ``certified``. If no threshold passes, a warning says so and how many samples it would take, and every
            sample is deferred.

        Raises
        ------
        ValueError
            If no sample calibrates, or networks may have learned from those that do, or ``risk`` or ``confidence`` is
            not in its range.

        See Also
        --------
        sklearn_jeidnn.metrics.samples_needed : How many labelled samples it takes, before there are any.
        predict_set : Several labels instead of none.

        References
        ----------
        .. [1] Angelopoulos, Bates, Candès, Jordan, Lei, "Learn then Test", Annals of Applied
           Statistics 2025. The risk is that of Geifman, El-Yaniv, "Selective Classification for Deep Neural Networks",
           NeurIPS 2017.
        """
        check_is_fitted(self)
        certificate = self._predictor.deferral_certificate(risk, confidence)

        def answer(predictor: Predictor, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
            return predictor.labels_and_deferred(arrays, certificate.threshold)

        labels, deferred = concatenated(self._over_chunks(X, answer))
        return DeferredLabels(labels, deferred, certificate)

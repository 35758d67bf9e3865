"""Displays: accuracy over cost, where samples leave and what they are like, reliability, prediction sets.

They need matplotlib (extra ``plot``), which is imported when something is drawn. ``from_estimator`` takes fitted
classifiers, pipelines and searches; ``from_predictions`` the answers of any classifier; ``plot(ax=)`` draws again.
A legend is put below axes in figures whose layout makes room for it (``plt.subplots(layout="constrained")``).

>>> import matplotlib
>>> matplotlib.use("Agg")
>>> from sklearn.datasets import load_digits
>>> from sklearn_jeidnn import EarlyExitClassifier
>>> from sklearn_jeidnn.plotting import AccuracyCostDisplay, ExitExamplesDisplay, ExitRatesDisplay
>>> X, y = load_digits(return_X_y=True)
>>> clf = EarlyExitClassifier(companion=None, max_epochs=2, cv=None, random_state=0).fit(X[:900], y[:900])
>>> display = AccuracyCostDisplay.from_estimator(clf, X[900:], y[900:])
>>> display.ax_.get_ylabel()[:8]
'Accuracy'
>>> rates = ExitRatesDisplay.from_estimator(clf, X[900:], y[900:])
>>> int(rates.n_samples.sum())
897
>>> examples = ExitExamplesDisplay.from_estimator(clf, X[900:], y[900:], image_shape=(8, 8))
>>> again = rates.plot(ax=matplotlib.pyplot.subplots()[1])
>>> matplotlib.pyplot.close("all")
"""

from ._plotting.accuracy_cost import AccuracyCostDisplay
from ._plotting.examples import ExampleImages, FeatureMeans
from ._plotting.exit_examples import ExitExamplesDisplay
from ._plotting.exit_rates import ExitRatesDisplay
from ._plotting.intervals import CostCurve
from ._plotting.prediction_sets import PredictionSetDisplay
from ._plotting.reliability import ReliabilityCurve, ReliabilityDisplay

__all__ = [
    "AccuracyCostDisplay",
    "CostCurve",
    "ExampleImages",
    "ExitExamplesDisplay",
    "ExitRatesDisplay",
    "FeatureMeans",
    "PredictionSetDisplay",
    "ReliabilityCurve",
    "ReliabilityDisplay",
]

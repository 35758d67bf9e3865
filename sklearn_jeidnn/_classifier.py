"""The estimator: arrays in, arrays out."""

import contextlib
import copy
import itertools
import warnings
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    check_memory,
    validate_data,
)
from torch.utils.data import DataLoader, Dataset

from . import _drift, _risk, conformal, metrics
from ._assembly import HEADS_LR, Assembly, as_price_table, exits_of_members
from ._bilevel import train_bilevel
from ._costs import relative_exit_costs, seconds_of_exits
from ._features import exit_features
from ._frontier import Frontier, objective_at, outcomes
from ._gates import all_gate_inputs
from ._graphs import Answering, embeds
from ._heads import HEADS
from ._inputs import as_integers, holds_integers, is_named, named_arrays, pieces, pieces_of, rows_of
from ._joint import learn_trust, outcomes_of, train_jointly
from ._losses import GATE_LOSSES, temperatures, temperatures_of_leavers
from ._members import as_given, as_members, simplest_of_best
from ._memory import fingerprint, remembered
from ._network import N_PROBE_ROWS, PRECISIONS
from ._policy import EXIT_MASSES, exits_taken
from ._rows import RowsDataset, side_by_side, tiled
from ._splits import halve, hold_out
from ._thresholds import THRESHOLD_POLICIES
from ._training import train_exits, train_heads

PREFIXES = ("module__", "optimizer__", "iterator_train__", "iterator_valid__", "callbacks__")
# Parameters that name an operating point in the place of cost_weight.
OPTIONAL = ("budget", "max_accuracy_drop")
EXIT_POLICIES = ("learned", *THRESHOLD_POLICIES)
STREAMED = ("predict", "predict_proba", "predict_exit", "predict_set")
# Of the rows that are checked and routed together.
CHUNK_BYTES = 2**25
BAR_AFTER_SECONDS = 1
# Of the rows whose time is taken where many are predicted: survivors of several run on together.
TIMED_BATCHES, MOST_TIMED_ROWS = 4, 4096
COUNTED, TIMED = "multiply_adds", "seconds"
EARLY_WEIGHT = 0.2
TEACHER_TEMPERATURE = 2.0


class Routed(NamedTuple):
    """Where rows left, and with what probabilities."""

    probabilities: np.ndarray  # (n_samples, n_classes)
    exit_index: np.ndarray  # (n_samples,)


class Answers(NamedTuple):
    """What every exit says of some rows: all that any operating point needs of them."""

    logits: torch.Tensor  # (n_samples, n_exits, n_classes)
    gate_inputs: torch.Tensor  # (n_samples, n_gates, n_inputs)
    codes: torch.Tensor  # (n_samples,), class codes
    uniform: torch.Tensor  # (n_samples,), 0 where scores are not random
    own_groups: torch.Tensor  # (n_samples,), 0 where there are none

    def take(self, rows):
        return Answers(*(column[rows] for column in self))


class Rows(NamedTuple):
    """Validated rows of data."""

    inputs: tuple  # ndarrays (n_samples, ...), one for each input of the module
    y: np.ndarray  # (n_samples,) class codes
    weight: np.ndarray  # (n_samples,)

    def take(self, rows):
        return Rows(tuple(array[rows] for array in self.inputs), self.y[rows], self.weight[rows])


class EarlyExitClassifier(ClassifierMixin, BaseEstimator):
    """Neural classifier that spends on a row only as much computation as the row needs.

    A torch backbone is cut into stages. After each stage but the last stand a head, a small
    classifier, and a gate, which decides row by row whether to leave with the head's answer. Heads
    and gates are trained for accuracy plus ``cost_weight`` times cost [1]_. Prediction sets are
    split-conformal.

    Parameters
    ----------
    module : torch module (class or instance), or list of members, default=None
        The backbone: takes float tensors ``(n_samples, ...)``, or whole numbers that it embeds, and
        answers logits ``(n_samples, n_classes)``, or an object that holds them as ``logits``. A
        class is built as ``module.from_data(X, n_classes, **module__params)`` where it has that
        method, else as ``module(**module__params)``; an instance is copied. None takes
        :class:`~sklearn_jeidnn.backbones.TabularResNet` for 2-D ``X`` and
        :class:`~sklearn_jeidnn.backbones.ImageResNet` for 3-D and 4-D ``X``, and for 2-D ``X`` if
        ``module__image_shape`` is given. A list puts companions in front of the backbone, its last
        entry: rows that stay start the next member anew. A companion is a torch module, None, a pair
        of a class (or None) and a dict of its parameters, or any classifier with ``predict_proba``
        (cloned and fitted, unless it is fitted; in a search or after ``clone``, inside
        ``sklearn.frozen.FrozenEstimator``).
    exits : "auto", int or list of str, default="auto"
        Names of the backbone's submodules after which rows may leave; or how many early exits, spread
        evenly by cost over its repeated blocks. "auto" takes every block that saves more than a head
        costs, at most eight of them. Of several members, one such entry for each (0: no exit but its
        end); "auto" takes 0 for companions.
    companion : {"tabular", "auto"} or None, default="tabular"
        "auto" trains narrower ready networks (a bag of embeddings, where ``X`` is tokens) and puts
        those of them in front of the backbone that lower errors plus cost on the held-out rows. With
        ``cost="seconds"`` their shapes, too, are chosen by the time of ``cost_batch_size`` rows (shallow
        and wide ones for a single row), and with ``exits="auto"`` it may keep no exit inside the
        backbone. "tabular" does so for the ready tabular network only (where
        ``gate_training="joint"``); None never does.
    companion_costs : list of float or None, default=None
        What each companion costs, relative to one pass of the plain backbone; None, also as an entry,
        counts multiply-adds of networks, and measures the time of other classifiers (which differs a
        little from fit to fit).
    companion_training : {"labels", "distilled"}, default="labels"
        What companions that are networks learn: the labels, or the backbone's probabilities [2]_,
        which need none (see ``X_unlabeled`` in :meth:`fit`).
    head : {"pooled", "linear"} or torch module class, default="pooled"
        What classifies at an early exit. "pooled" reads the log-probabilities of the exit before and, of
        vectors, all, of maps the deviation and the mean and maximum of each quarter, of tokens the
        first and the mean, with two layers on maps and tokens. "linear" is the paper's: one layer
        on the mean. A class is built as ``head(n_features, n_classes)`` on the features that "pooled"
        reads, or on ``head.pool(output)``, and answers logits.
    cost : {"multiply_adds", "seconds"} or array-like (n_exits,), default="multiply_adds"
        What costs are counted in. "seconds" times ``predict`` on this device, of rows that all leave at one
        exit, in turns with a pass of the plain backbone (medians; so costs differ a little from fit to fit), and
        with ``exits="auto"`` takes no more exits than are worth their time. An array is a stored price table: the
        ``exit_costs_`` of another fit, or what :meth:`measure_costs` answered on another machine.
    cost_batch_size : int, default=None
        Rows of a call to ``predict`` that "seconds" times: 1 where rows come one by one. None takes several
        batches, as where many rows are predicted.
    cost_weight : float, default=0.1
        What one unit of cost, a pass of the plain backbone, is worth in units of the loss: at 0.1
        a row runs on only if every tenth of a pass makes it 1 % likelier to be right.
    budget : float, default=None
        Largest mean cost of a row, relative to one pass of the plain backbone. The cost weight that
        keeps to it is found on held-out rows, and ``cost_weight`` is not read.
    max_accuracy_drop : float, default=None
        Largest loss of accuracy against the last exit: the cheapest point of ``frontier_`` that
        keeps to it on held-out rows. ``cost_weight`` is not read, and ``budget`` must be None.
    risk_confidence : float, default=None
        With ``max_accuracy_drop`` or ``budget``: the limit holds for rows like the calibration rows
        with this probability, 0.95 say. A random half of the calibration rows tests operating points,
        whose order the gates' rows set, one by one; the other half alone gives the prediction sets,
        which so stay exact. Where no point passes, a warning says so, and all rows run to the last
        exit (for ``budget``, leave at the first). ``risk_`` tells what was shown.
    exit_policy : str, default="learned"
        What lets a row leave: "learned" gates, or a threshold on the exit's largest probability
        ("confidence"), its "entropy", its top-2 "margin", or on how many exits in a row were of one
        mind ("patience") [3]_. One threshold serves all exits; "confidence_per_exit",
        "entropy_per_exit" and "margin_per_exit" have one each. Thresholds are set on held-out rows
        by the same objective; ``gate_training`` and heads' joint training concern learned gates only.
    gate_training : {"joint", "bilevel"}, default="joint"
        "joint" descends the objective itself, the gates on held-out rows. "bilevel" is the paper's:
        warm-up, then turns of heads and gates, the gates on surrogate targets.
    gate_loss : {"cross_entropy", "zero_one", "minus_true_probability"}, default="cross_entropy"
        What "bilevel" compares exits by. "joint" counts errors (zero-one).
    exit_distribution : {"sequential", "direct"}, default="sequential"
        How gate values become exit probabilities: each takes its share of what is left, or its own
        value as far as it is left (the paper's).
    freeze_backbone : bool or "after_warmup", default=False
        Take the module, a trained instance, as it is, and train heads and gates only. Companions that
        are instances are taken as they are, too, classes are trained. "after_warmup" trains every
        network without regard to its exits first, as if alone, and then its heads. False trains
        networks with their exits, instances from their weights on.
    feature_passes : int, default=1
        Passes of a frozen backbone over the training rows whose exit features are kept. More than
        one make sense with a random transform in ``iterator_train__collate_fn``.
    max_epochs : int, default=100
        Epochs of the backbone with its exits (of the heads, where the backbone is frozen).
    lr : float, default=None
        Largest learning rate, of every member; it rises and falls once over the training
        (``callbacks__lr_schedule=None`` keeps it constant). None takes a ready network's own
        ``learning_rate``, which is higher for narrow ones, 0.002 for others, and 0.01 for heads alone.
    batch_size : int, default=256
        Rows of a training step; -1 takes all.
    optimizer : torch optimizer class, default=torch.optim.AdamW
    callbacks : list of skorch callbacks, default=None
        Added to the learning-rate schedule ("lr_schedule") and to the callback that puts back an
        earlier epoch where held-out rows say that the last one overfits ("best_epoch").
    class_weight : dict or "balanced", default=None
        Weights of the classes, as in scikit-learn. Calibration takes all rows alike.
    conformity_score : str or callable, default="lac"
        What ranks labels in :meth:`predict_set`: "lac", "aps", "raps", "randomized_aps" or
        "randomized_raps" (see :mod:`~sklearn_jeidnn.conformal`). Random numbers are told by the row
        itself, so that a row has the same set in every batch; the penalties of "raps" are those of
        the smallest sets on the gates' rows. A callable takes probabilities ``(n_samples,
        n_classes)`` and uniform numbers ``(n_samples,)`` and answers scores ``(n_samples,
        n_classes)``, larger for labels that fit worse.
    condition_on : {"pooled", "exit", "class", "exit_and_class"} or callable, default="pooled"
        Groups in each of which sets hold the truth with the confidence asked for: all rows, those
        that leave at an exit, those of a class, both; or those that a callable tells: the array of
        validated rows (of several inputs a dict of arrays) -> labels of their groups
        ``(n_samples,)``. A group has a threshold from its own calibration rows only; where these are
        too few for the level, it gets sets of all labels.
    validation_fraction : float, default=0.1
        Share of the rows that is held out if ``fit`` is given no ``X_val``: half of it for the
        gates and the choice of epoch, half for calibration.
    memory : str or joblib.Memory, default=None
        Where to keep a trained backbone, its heads and exit features, so that fits which differ
        only in ``cost_weight`` and the gates' parameters train it once. What is kept is told by
        data, weights, code and parameters; callbacks are not called where it is taken from there.
    precision : {"float32", "bfloat16"}, default="float32"
        What stages and heads compute in where they do not learn. In bfloat16 a row's answer may
        differ in the last digit with the size of its batch.
    compile : bool, default=False
        Compile stages, heads and gates with ``torch.compile`` for prediction, each when it is first run
        (seconds to a minute, and a C++ compiler must be there). Labels, exits and probabilities are the
        same up to rounding.
    device : str or torch.device, default="cpu"
    verbose : int, default=0
        1 prints skorch's line for each epoch.
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same result in every call.
    **kwargs
        ``module__*``, ``optimizer__*``, ``iterator_train__*``, ``iterator_valid__*``,
        ``callbacks__*``, as in skorch.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
    n_features_in_ : int
        Length of the second axis of ``X``; not where ``X`` is a dict.
    feature_names_in_ : ndarray (n_features_in_,)
        Only where ``X`` has column names that are all strings.
    exits_ : list of str
        Submodules after which rows may leave, in order; the last exit is the backbone's end. With
        companions, "0" is the end of the first member, "1.blocks.0" an exit inside the second.
    exit_costs_ : ndarray (n_exits,)
        Cost of everything run up to each exit, in the unit that ``cost`` names, relative to one pass of
        the plain backbone. The last is more than 1: it counts companions, heads and gates on the way.
    plain_seconds_ : float
        Time of one pass of the plain backbone, for a row; only where ``cost="seconds"``.
    cost_weight_ : float
        ``cost_weight``, or what was found for ``budget`` or ``max_accuracy_drop`` (NaN where a budget
        chose the one threshold of an ``exit_policy``).
    frontier_ : structured ndarray (n_points,)
        Operating points over a grid of cost weights on the held-out rows that set the gates: fields
        ``cost_weight``, ``mean_cost``, ``accuracy``, ``log_loss`` and ``exit_rates`` (n_exits,); then
        ``single_exit``, the most accurate exit that costs no more when every row takes it (-1 where
        none does), its ``single_accuracy``, and ``single_exit_suffices``, true where these rows do not
        show (5 %, one-sided) that the point is better than that exit. Computed when first read. Not
        where ``gate_training="bilevel"``.
    module_ : torch module
        The plain backbone, trained.
    network_ : torch module
        Its stages with heads and gates.
    history_ : skorch History
        Of the backbone's training, or of the heads' where it is frozen.
    conformity_scores_ : ndarray (n_calibration,)
        Scores of the calibration rows' labels.
    temperatures_ : ndarray (n_exits,)
        What each exit's logits are divided by, so that the probabilities of the rows that leave there
        are calibrated (fitted on those of the gates' rows that do; labels and exits do not change).
    risk_ : RiskControl
        What was shown of the operating point: ``risk``, ``limit``, ``confidence``, ``n_rows``,
        ``estimate``, ``p_value``, ``certified``. Only with ``risk_confidence``, or after
        :meth:`control_risk`.

    References
    ----------
    .. [1] Regol, Chataoui, Coates, "Jointly-Learned Exit and Inference for a Dynamic Neural Network",
       ICLR 2024, arXiv 2310.09163.
    .. [2] Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531.
    .. [3] Zhou et al., "BERT Loses Patience: Fast and Robust Inference with Early Exit", NeurIPS 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sklearn_jeidnn import EarlyExitClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> clf = EarlyExitClassifier(max_epochs=20, random_state=0).fit(X_train, y_train)
    >>> bool(clf.score(X_test, y_test) > 0.9)
    True
    >>> bool(clf.mean_cost(X_test) < 1)
    True
    """

    _parameter_constraints: dict = {
        "exits": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), "array-like"],
        "companion": [StrOptions({"tabular", "auto"}), None],
        "companion_costs": ["array-like", None],
        "companion_training": [StrOptions({"labels", "distilled"})],
        "head": [StrOptions(set(HEADS)), type],
        "cost": [StrOptions({COUNTED, TIMED}), "array-like"],
        "cost_batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "cost_weight": [Interval(Real, 0, None, closed="left")],
        "budget": [Interval(Real, 0, None, closed="neither"), None],
        "max_accuracy_drop": [Interval(Real, 0, 1, closed="left"), None],
        "risk_confidence": [Interval(Real, 0, 1, closed="neither"), None],
        "exit_policy": [StrOptions(set(EXIT_POLICIES))],
        "gate_training": [StrOptions({"joint", "bilevel"})],
        "gate_loss": [StrOptions(set(GATE_LOSSES))],
        "exit_distribution": [StrOptions(set(EXIT_MASSES))],
        "freeze_backbone": ["boolean", StrOptions({"after_warmup"})],
        "feature_passes": [Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({-1})],
        "optimizer": [callable],
        "callbacks": [list, tuple, None],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "conformity_score": [StrOptions(set(conformal.SCORES)), callable],
        "condition_on": [StrOptions(set(conformal.GROUPS)), callable],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "memory": [str, HasMethods(["cache"]), None],
        "precision": [StrOptions(set(PRECISIONS))],
        "compile": ["boolean"],
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        module=None,
        *,
        exits="auto",
        companion="tabular",
        companion_costs=None,
        companion_training="labels",
        head="pooled",
        cost="multiply_adds",
        cost_batch_size=None,
        cost_weight=0.1,
        budget=None,
        max_accuracy_drop=None,
        risk_confidence=None,
        exit_policy="learned",
        gate_training="joint",
        gate_loss="cross_entropy",
        exit_distribution="sequential",
        freeze_backbone=False,
        feature_passes=1,
        max_epochs=100,
        lr=None,
        batch_size=256,
        optimizer=torch.optim.AdamW,
        callbacks=None,
        class_weight=None,
        conformity_score="lac",
        condition_on="pooled",
        validation_fraction=0.1,
        memory=None,
        precision="float32",
        compile=False,
        device="cpu",
        verbose=0,
        random_state=None,
        **kwargs,
    ):
        self.module = module
        self.exits = exits
        self.companion = companion
        self.companion_costs = companion_costs
        self.companion_training = companion_training
        self.head = head
        self.cost = cost
        self.cost_batch_size = cost_batch_size
        self.cost_weight = cost_weight
        self.budget = budget
        self.max_accuracy_drop = max_accuracy_drop
        self.risk_confidence = risk_confidence
        self.exit_policy = exit_policy
        self.gate_training = gate_training
        self.gate_loss = gate_loss
        self.exit_distribution = exit_distribution
        self.freeze_backbone = freeze_backbone
        self.feature_passes = feature_passes
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.callbacks = callbacks
        self.class_weight = class_weight
        self.conformity_score = conformity_score
        self.condition_on = condition_on
        self.validation_fraction = validation_fraction
        self.memory = memory
        self.precision = precision
        self.compile = compile
        self.device = device
        self.verbose = verbose
        self.random_state = random_state
        vars(self).update(kwargs)

    def _prefixed(self, *prefixes):
        return {name: value for name, value in vars(self).items() if name.startswith(prefixes)}

    def _without_prefix(self, prefix):
        return {name.removeprefix(prefix): value for name, value in self._prefixed(prefix).items()}

    def _further_params(self):
        """Parameters that came as ``**kwargs``, or were set under a skorch prefix."""
        own = self._get_param_names()
        return {
            name: value
            for name, value in vars(self).items()
            if name not in own and not name.startswith("_") and not name.endswith("_")
        }

    def get_params(self, deep=True):
        """Parameters by name, those with a skorch prefix included.

        Parameters
        ----------
        deep : bool, default=True

        Returns
        -------
        dict
        """
        return {**super().get_params(deep=deep), **self._further_params()}

    def set_params(self, **params):
        """Set parameters by name, those with a skorch prefix included.

        Returns
        -------
        self
        """
        prefixed = {name: value for name, value in params.items() if name.startswith(PREFIXES)}
        super().set_params(**{name: params[name] for name in params if name not in prefixed})
        vars(self).update(prefixed)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X,
        y,
        sample_weight=None,
        *,
        X_val=None,
        y_val=None,
        sample_weight_val=None,
        X_unlabeled=None,
    ):
        """Train the backbone, its heads and its gates, and calibrate prediction sets.

        Parameters
        ----------
        X : array-like (n_samples, ...) or dict of str to array-like
            2-D for tables, 3-D or 4-D for images; made float32. For a module of several inputs, the
            arrays by the names of its forward's arguments; integers stay integers.
        y : array-like (n_samples,)
            Labels.
        sample_weight : array-like (n_samples,), default=None
            Weights in what is minimised; rows of weight 0 are left out. Calibration takes the
            others alike.
        X_val, y_val : array-like, default=None
            Held-out rows, halved at random for the gates and for calibration; all of ``X`` then
            trains. None splits off ``validation_fraction`` of ``X``.
        sample_weight_val : array-like, default=None
        X_unlabeled : array-like, default=None
            Rows without labels from which companions learn, too, where ``companion_training`` is
            "distilled".

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            Where a parameter or the data do not fit; the message says what came and what is
            allowed.
        """
        _refuse_unknown(self._further_params())
        rng = check_random_state(self.random_state)
        with _all_or_nothing(self):
            held_out = (X_val, y_val, sample_weight_val)
            train, gate, calibration = self._three_parts(X, y, sample_weight, *held_out, rng)
            with _seeded(rng.randint(2**31), _usable(self.device)):
                cuts = self._build(train)
                unlabeled = self._unlabeled(X_unlabeled)
                self._train(cuts, self._dataset(train), self._dataset(gate), unlabeled)
            self._seed = rng.randint(2**31)
            self._calibrate(calibration)
            self._keep_to_risk()
        return self

    def _three_parts(self, X, y, sample_weight, X_val, y_val, sample_weight_val, rng):
        """Rows that train, rows that set the gates, rows that calibrate."""
        rows = self._training_rows(X, y, sample_weight)
        if X_val is None and y_val is None and sample_weight_val is None:
            numbers = hold_out(rows.y, self.validation_fraction, rng)
            return [rows.take(part) for part in numbers]
        if X_val is None or y_val is None:
            raise ValueError(
                "X_val and y_val go together (and sample_weight_val with them); one is missing."
            )
        held_out = self._held_out_rows(X_val, y_val, sample_weight_val)
        return [rows, *(held_out.take(part) for part in halve(len(held_out.y), rng))]

    def _training_rows(self, X, y, sample_weight):
        inputs, y = self._first_inputs(X, y)
        check_classification_targets(y)
        weight = _check_sample_weight(
            sample_weight, inputs[0], dtype=np.float64, ensure_non_negative=True
        )
        inputs = tuple(array[weight > 0] for array in inputs)
        y, weight = y[weight > 0], weight[weight > 0]
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has {len(self.classes_)} class (of rows with sample_weight above 0); a classifier "
                f"needs at least 2 classes."
            )
        self._row_shapes = [array.shape[1:] for array in inputs]
        return Rows(inputs, codes, np.float32(weight))

    def _first_inputs(self, X, y):
        """Arrays of the training rows, and their labels; what later rows must be like is noted."""
        if is_named(X):
            y = validate_data(self, X="no_validation", y=y)
            arrays = named_arrays(X)
            self._input_names, inputs = tuple(arrays), tuple(arrays.values())
            check_consistent_length(inputs[0], y)
            return inputs, y
        self._input_names = None
        X, y = validate_data(self, X, y, dtype=self._dtype(X), allow_nd=True)
        return (X,), y

    def _dtype(self, X):
        """A module may embed whole numbers (which is seen once it is built); ready backbones take floats."""
        return np.int64 if self.module is not None and holds_integers(X) else np.float32

    def _held_out_rows(self, X, y, sample_weight):
        inputs = self._check_inputs(X)
        codes = self._codes(y, inputs, "y_val")
        weight = _check_sample_weight(
            sample_weight, inputs[0], dtype=np.float64, ensure_non_negative=True
        )
        rows = Rows(inputs, codes, np.float32(weight))
        return rows.take(weight > 0)

    def _dataset(self, rows):
        """Rows as skorch takes them, weighted by class too, with weights of mean 1."""
        weight = _tensor(np.float32(rows.weight * self._class_weights(rows)))
        inputs = self._tensors(rows.inputs)
        return RowsDataset(inputs, torch.as_tensor(rows.y), weight / weight.mean())

    def _class_weights(self, rows):
        return compute_sample_weight(self.class_weight, self.classes_[rows.y])

    def _tensors(self, inputs):
        """What the module takes: of a lone array floats, unless it embeds whole numbers."""
        if self._input_names is None:
            array = as_integers(inputs[0]) if self._embeds else np.asarray(inputs[0], np.float32)
            inputs = (array,)
        return tuple(_tensor(array) for array in inputs)

    def _check_inputs(self, X):
        """Arrays of rows like those of the training."""
        name = type(self).__name__
        if is_named(X) != (self._input_names is not None):
            came, fitted = ("a mapping", "an array") if is_named(X) else ("an array", "a mapping")
            raise ValueError(f"X is {came}, but {name} was fitted on {fitted}.")
        if is_named(X):
            arrays = named_arrays(X)
            if set(arrays) != set(self._input_names):
                raise ValueError(
                    f"X has keys {sorted(arrays)}, but {name} was fitted on keys {sorted(self._input_names)}."
                )
            inputs = tuple(arrays[key] for key in self._input_names)
        else:
            dtype = self._dtype(X)
            inputs = (validate_data(self, X, dtype=dtype, allow_nd=True, reset=False),)
        shapes = [array.shape[1:] for array in inputs]
        if shapes != self._row_shapes:
            came, fitted = (s[0] if len(s) == 1 else s for s in (shapes, self._row_shapes))
            raise ValueError(
                f"X has rows of shape {came}, but {name} was fitted on rows of shape {fitted}."
            )
        return inputs

    def _codes(self, y, inputs, name):
        """Labels -> columns of ``classes_``."""
        y = np.asarray(y)
        if y.shape != (len(inputs[0]),):
            raise ValueError(f"{name} has shape {y.shape}, but there are {len(inputs[0])} rows.")
        unknown = sorted(set(y.tolist()) - set(self.classes_.tolist()), key=str)
        if unknown:
            raise ValueError(
                f"{name} has labels {unknown[:5]} that are not among classes_ {self.classes_[:12].tolist()}."
            )
        return np.searchsorted(self.classes_, y)

    def _build(self, train):
        """Each member, cut into stages, heads and gates untrained; together they are the network."""
        *companions, backbone = as_members(self.module, self._module_params())
        assembly = self._assembly()
        self.module_ = assembly.made(backbone, train.inputs, is_backbone=True)
        self._embeds = self._input_names is None and embeds(
            Answering(self.module_, None), train.inputs[0][:N_PROBE_ROWS], self.device
        )
        train = train._replace(
            inputs=tuple(tensor.numpy() for tensor in self._tensors(train.inputs))
        )
        few = self._few = self._some(train, N_PROBE_ROWS)
        makes = self._makes_companions()
        if makes:
            self._check_auto(companions)
            companions = assembly.candidates(
                self.module_, backbone.params, train.inputs, few, embeds=self._embeds
            )
        *inside, exits = exits_of_members(self.exits, len(companions) + 1, only_the_last=makes)
        weight = train.weight * self._class_weights(train)
        cuts = [
            assembly.cut_companion(companion, own, train, few, weight)
            for companion, own in zip(companions, inside, strict=True)
        ]
        cuts.append(assembly.cut_module(backbone, self.module_, exits, few))
        self._chain(cuts, train)
        self._check_operating_point()
        return cuts

    def _assembly(self):
        trained = self.freeze_backbone and not isinstance(self.freeze_backbone, str)
        return Assembly(
            classes=self.classes_,
            input_names=self._input_names,
            device=self.device,
            head=self.head,
            exit_distribution=self.exit_distribution,
            precision=self.precision,
            takes_trained=bool(trained),
            companion_costs=self.companion_costs,
            timed_rows=(self.cost_batch_size or 0) if self._is_timed() else None,
        )

    def _is_timed(self):
        return isinstance(self.cost, str) and self.cost == TIMED

    def _chain(self, cuts, rows):
        some = self._some(rows, max(cut.network.rows_at_once for cut in cuts))
        chained = self._assembly().chained(cuts, self.module_, some)
        self.network_, self.exits_, self.exit_costs_ = chained
        if not isinstance(self.cost, str):
            self.exit_costs_ = as_price_table(self.cost, "cost", self.exits_)

    def _take_time(self):
        """Price exits by the clock, where that is asked for."""
        if self._is_timed():
            self.exit_costs_, self.plain_seconds_ = self._timed(self.cost_batch_size)

    def _timed(self, n_rows):
        """(cost of each exit relative to the plain backbone, seconds of that for a row)"""
        several = min(TIMED_BATCHES * self._rows_at_once(), MOST_TIMED_ROWS)
        rows = tiled(self._few, n_rows or several)
        X = as_given([tensor.cpu().numpy() for tensor in rows], self._input_names)
        ready = copy.copy(self)
        ready.network_ = self.network_.ready(self.compile)
        return seconds_of_exits(
            lambda exits: ready._labels(ready._check_inputs(X), exits.to(self.device)),
            lambda: ready._plain_labels(X),
            len(rows[0]),
            self.network_.n_exits,
        )

    def _plain_labels(self, X):
        """As ``predict``, of the plain backbone: for comparison."""
        batches = self._batches(self._check_inputs(X))
        codes = [self.network_.plain(*batch).argmax(1).cpu().numpy() for batch in batches]
        return self.classes_[np.concatenate(codes)]

    def measure_costs(self, cost=TIMED, *, batch_size=None):
        """What it costs to leave at each exit, in another unit or on another machine.

        Parameters
        ----------
        cost : {"seconds", "multiply_adds"}, default="seconds"
        batch_size : int, default=None
            Rows of a call to ``predict`` that is timed; None takes several batches, of at most 4096 rows.

        Returns
        -------
        exit_costs : ndarray (n_exits,)
            Relative to one pass of the plain backbone: a price table for ``cost`` of another fit, or
            for ``at(exit_costs=...)``.

        Raises
        ------
        ValueError
            Where there is no such unit.
        """
        check_is_fitted(self)
        if cost not in (COUNTED, TIMED):
            raise ValueError(f"cost={cost!r} is not known; give {TIMED!r} or {COUNTED!r}.")
        if cost == COUNTED:
            return relative_exit_costs(self.network_, self._few)
        return self._timed(batch_size)[0]

    def _some(self, rows, n_rows):
        """The first rows, as tensors."""
        some = self._tensors(tuple(array[:n_rows] for array in rows.inputs))
        return tuple(tensor.to(self.device) for tensor in some)

    def _module_params(self):
        return self._without_prefix("module__")

    def _makes_companions(self):
        """Whether companions are made here: where that is asked for, or for the ready tabular network.

        Measured: on chess endgames, Letter, pen digits and Adult they give the accuracy of exits alone at a third
        to a twelfth of the cost.
        """
        if self.companion != "tabular":
            return self.companion == "auto"
        is_table = self._input_names is None and len(self._row_shapes[0]) == 1
        is_ready = self.module is None and self._module_params().get("image_shape") is None
        return is_table and is_ready and self.gate_training == "joint"

    def _check_auto(self, companions):
        if companions:
            raise ValueError(
                f"companion={self.companion!r} puts a companion in front of one module, but module has "
                f"{len(companions) + 1} members already."
            )
        if self.companion_costs is not None:
            raise ValueError(
                f"companion_costs={self.companion_costs!r} are for companions that you give; with "
                f"companion={self.companion!r} they are counted."
            )

    def _check_operating_point(self):
        given = {name: getattr(self, name) for name in OPTIONAL}
        asked = {name: value for name, value in given.items() if value is not None}
        if len(asked) > 1:
            raise ValueError(f"{asked} name different operating points; give one of them.")
        if self.risk_confidence is not None and not asked:
            raise ValueError(
                f"risk_confidence={self.risk_confidence!r} is the confidence of a limit; give one of {OPTIONAL}."
            )
        if asked or self.exit_policy != "learned":
            self._refuse_bilevel(asked or {"exit_policy": self.exit_policy})
        if not (self._makes_companions() or self._is_timed()):
            self._check_budget(self.budget)

    def _check_budget(self, budget):
        if budget is not None and budget < self.exit_costs_[0]:
            raise ValueError(
                f"budget={budget!r} is less than the first exit costs, {self.exit_costs_[0]:.3g}; give more, "
                f"an earlier exit, or a cheaper companion in front."
            )

    def _train(self, cuts, train, gate, unlabeled):
        """Each member with its exits (or its heads alone, where it stays), then trust, then gates with heads."""
        *companions, backbone = (network for network, _ in cuts)
        self.history_, *answers = self._learn(backbone, train, gate)
        learned = [answers]
        taught = train
        if self.companion_training == "distilled" and companions:
            taught = self._taught(backbone, train, unlabeled, answers[0])
        for companion in reversed(companions):
            learned.insert(0, self._learn(companion, train, gate, taught)[1:])
        learned = [(seen, held_out.to(self.device)) for seen, held_out in learned]
        if self._makes_companions():
            cuts, learned = zip(*self._chosen(list(zip(cuts, learned, strict=True)), train))
            self._chain(cuts, train)
        seen, held_out = zip(*learned, strict=True)
        seen, held_out = side_by_side(seen, len(train)), side_by_side(held_out, len(gate))
        # Bilevel gates alone are the paper's, whose exits answer by themselves.
        if self.gate_training == "joint" or len(cuts) > 1:
            learn_trust(self.network_.heads, held_out)
        self._take_time()
        self._check_budget(self.budget)
        self._train_gates(seen, held_out)
        self.network_ = self.network_.requires_grad_(False).eval().ready(self.compile)
        self._keep_gate_rows(held_out)

    def _chosen(self, members, train):
        """Which of the candidates to put in front of the backbone: (cut, what it learned) of those that stay."""
        *candidates, backbone = members
        subsets = [
            [*some, backbone]
            for n_some in range(len(candidates) + 1)
            for some in itertools.combinations(candidates, n_some)
        ]
        if self._is_timed() and isinstance(self.exits, str):
            # Behind companions exits inside the backbone may take more time than they save.
            whole = self._without_exits(backbone)
            subsets += [[*some, whole] for *some, _ in subsets if some]
        objectives = [self._objective(*zip(*subset, strict=True), train) for subset in subsets]
        sizes = [(len(subset), sum(len(cut.names) for cut, _ in subset)) for subset in subsets]
        return subsets[simplest_of_best(objectives, sizes)]

    def _objective(self, cuts, learned, train):
        """What some members would reach on the rows that set the gates."""
        self._chain(cuts, train)
        held_out = [part for _, part in learned]
        rows = side_by_side(held_out, len(held_out[0].y))
        learn_trust(self.network_.heads, rows)
        self._take_time()
        at = {"cost_weight": self.cost_weight, "budget": self.budget}
        outcome, mass = outcomes_of(self.network_, rows), self.network_.exit_mass
        return objective_at(outcome, mass, self._costs(), **at)

    def _without_exits(self, member):
        """The backbone, which has learned with its exits, as one stage."""
        _, learned = member
        at_end = [part._replace(features=part.features[-1:]) for part in learned]
        return self._assembly().uncut(self.module_, self._few), at_end

    def _taught(self, backbone, train, unlabeled, answers):
        """Rows, those without labels too, with what the backbone says of them instead of labels."""
        logits, inputs, weight = answers.features[-1][: len(train)], train.inputs, train.weight
        if unlabeled is not None:
            further = self._features(backbone, unlabeled).features[-1]
            logits = torch.cat([logits, further])
            inputs = tuple(torch.cat(pair) for pair in zip(inputs, unlabeled.inputs, strict=True))
            weight = torch.cat([weight, unlabeled.weight])
        return RowsDataset(inputs, (logits / TEACHER_TEMPERATURE).softmax(1), weight)

    def _unlabeled(self, X):
        """Rows without labels, with codes that nothing reads; None where there are none."""
        if X is None:
            return None
        if self.companion_training != "distilled":
            raise ValueError(
                f"X_unlabeled is given, but only companions with companion_training='distilled' learn from it; got "
                f"companion_training={self.companion_training!r}."
            )
        inputs = self._tensors(self._check_inputs(X))
        n_rows = len(inputs[0])
        return RowsDataset(inputs, torch.zeros(n_rows, dtype=torch.long), torch.ones(n_rows))

    def _learn(self, member, train, gate, taught=None):
        """(history, exit features of the rows that train, and of those that set the gates)"""
        taught = train if taught is None else taught
        if self.freeze_backbone == "after_warmup" and not member.frozen:
            self._learn_member(member, train, gate, taught, early_weight=0.0)
            member.frozen = True
        if member.frozen:
            return self._learn_heads(member, train, gate)
        return self._learn_member(member, train, gate, taught, early_weight=self._early_weight())

    def _skorch_options(self):
        return dict(
            max_epochs=self.max_epochs,
            lr=HEADS_LR if self.lr is None else self.lr,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            callbacks=self.callbacks,
            device=self.device,
            **self._prefixed(*PREFIXES[1:]),
        )

    def _learn_member(self, member, train, gate, taught, *, early_weight):
        """As :meth:`_learn`, of one that learns, from rows as ``taught`` labels them."""
        options = self._skorch_options()
        if self.lr is None:
            options["lr"] = member.learning_rate

        def learn():
            net = train_exits(
                member,
                taught,
                gate,
                early_weight=early_weight,
                verbose=self.verbose,
                **options,
            )
            features = [self._features(member, rows) for rows in (train, gate)]
            return member.state_dict(), net.history, *features

        affects = {"options": options, "early_weight": early_weight}
        state, history, seen, held_out = self._remembered(
            member, learn, train, gate, taught, **affects
        )
        member.load_state_dict(state)
        return history, seen, held_out

    def _learn_heads(self, member, train, gate):
        """As :meth:`_learn`, of one that stays as it is: it runs over the rows once."""
        options = self._skorch_options()
        passes = {"n_passes": self.feature_passes}
        if "iterator_train__collate_fn" in options:
            passes["collate_fn"] = options["iterator_train__collate_fn"]

        def run():
            return self._features(member, train, **passes), self._features(member, gate)

        heads = member.heads
        if not any(True for _ in heads.parameters()):
            return None, *run()
        seen, held_out = self._remembered(member, run, train, gate, passes=passes)

        def learn():
            net = train_heads(heads, seen, held_out, verbose=self.verbose, **options)
            return heads.state_dict(), net.history

        state, history = self._remembered(
            member, learn, train, gate, passes=passes, options=options
        )
        heads.load_state_dict(state)
        return history, seen, held_out

    def _features(self, member, rows, **passes):
        return exit_features(member, rows, self._rows_at_once(), self.device, **passes)

    def _early_weight(self):
        """Early exits weigh more where the budget sends most rows out at one of them.

        Not behind companions, which take those rows. Measured on chess endgames: at mean costs of 0.3
        and 0.4 weights of 1 and 0.5 gain 3 and 1.5 points over 0.2, which is best from 0.5 on.
        """
        if self.budget is None or len(self.network_.heads.first_exits) > 1:
            return EARLY_WEIGHT
        return float(np.clip(0.08 / self.budget**2, EARLY_WEIGHT, 1))

    def _rows_at_once(self):
        return getattr(self, "iterator_valid__batch_size", self.network_.rows_at_once)

    def _remembered(self, member, compute, *datasets, **affects):
        if self.memory is None:
            return compute()
        return remembered(
            check_memory(self.memory),
            compute,
            network=fingerprint(member),
            rows=[
                [tensor.numpy() for tensor in (*rows.inputs, rows.y, rows.weight)]
                for rows in datasets
            ],
            precision=self.precision,
            device=str(self.device),
            **affects,
        )

    def _costs(self):
        return torch.as_tensor(self.exit_costs_, dtype=torch.float32, device=self.device)

    def _train_gates(self, seen, held_out):
        batch_size = self.batch_size if self.batch_size > 0 else len(seen.y)
        learn = (self.network_, seen, held_out, self._costs())
        if self.gate_training == "joint":
            asked = {name: getattr(self, name) for name in ("cost_weight", *OPTIONAL)}
            self._frontier, chosen = train_jointly(*learn, asked, batch_size, self.exit_policy)
            self.cost_weight_ = chosen.cost_weight
            if self.verbose:
                print(self._advice(self._frontier.summary(chosen)))
            return
        self._frontier, self.cost_weight_ = None, self.cost_weight
        train_bilevel(
            *learn,
            self.cost_weight,
            gate_loss=self.gate_loss,
            max_epochs=self.max_epochs,
            batch_size=batch_size,
        )

    def _advice(self, point):
        """What an operating point does to the held-out rows, and whether one exit would do."""
        says = f"Held-out rows: accuracy {point['accuracy']:.4f} at mean cost {point['mean_cost']:.3f}."
        if not point["single_exit_suffices"]:
            return says
        name = [*self.exits_, "the last exit"][point["single_exit"]]
        cost = self.exit_costs_[point["single_exit"]]
        return (
            f"{says} One exit for all rows would do: {name} has accuracy {point['single_accuracy']:.4f} at cost "
            f"{cost:.3f}; a backbone cut there needs no gates."
        )

    def at(
        self,
        *,
        cost_weight=None,
        budget=None,
        max_accuracy_drop=None,
        risk_confidence=None,
        exit_policy=None,
        exit_costs=None,
    ):
        """The same classifier at another operating point.

        Parameters
        ----------
        cost_weight, budget, max_accuracy_drop : float, default=None
            One of them, as in the constructor.
        risk_confidence : float, default=None
            As in the constructor, for the last two; the calibration rows of this classifier are
            halved for it. Each call's statement holds by itself, not all calls' together.
        exit_policy : str, default=None
            As in the constructor; None keeps the policy.
        exit_costs : array-like (n_exits,), default=None
            Another price table, of a smaller machine say (:meth:`measure_costs`); None keeps ``exit_costs_``.

        Returns
        -------
        EarlyExitClassifier
            Fitted; shares the weights, has gates and temperatures of its own, and is calibrated for
            them on the rows that calibrate this one.

        Raises
        ------
        ValueError
            Where not exactly one is given, or it is not in its range, or gates are bilevel.
        """
        check_is_fitted(self)
        asked = {
            "cost_weight": cost_weight,
            "budget": budget,
            "max_accuracy_drop": max_accuracy_drop,
        }
        if sum(value is not None for value in asked.values()) != 1:
            raise ValueError(
                f"at() takes one of cost_weight, budget, max_accuracy_drop; got {asked}."
            )
        self._refuse_bilevel("at()")
        kept = self.cost_weight if cost_weight is None else cost_weight
        policy = self.exit_policy if exit_policy is None else exit_policy
        params = {**asked, "cost_weight": kept, "exit_policy": policy}
        other = copy.copy(self).set_params(**params, risk_confidence=risk_confidence)
        other._validate_params()
        if exit_costs is not None:
            other.exit_costs_ = as_price_table(exit_costs, "exit_costs", self.exits_)
        other._check_operating_point()
        other._check_budget(budget)
        other._frontier = self._frontier.of_policy(policy, other._costs())
        other._move_to(other._frontier.choose(**asked))
        other._keep_to_risk()
        return other

    def _move_to(self, chosen):
        """Take over an operating point: its gates, then temperatures and scores for them."""
        self.cost_weight_ = chosen.cost_weight
        self.network_ = self.network_.with_gates(chosen.gates)
        self._fit_temperatures()
        self._keep_scores(self._calibration)

    def _keep_to_risk(self):
        """Where a confidence is asked for, half of the calibration rows test points, half give the sets."""
        vars(self).pop("risk_", None)
        if self.risk_confidence is None:
            return
        order = torch.as_tensor(
            np.random.default_rng(self._seed).permutation(len(self._calibration.codes))
        )
        tested, kept = (self._calibration.take(part) for part in order.tensor_split(2))
        risk = "mean_cost" if self.budget is not None else "accuracy_drop"
        limit = self.max_accuracy_drop if self.budget is None else self.budget
        self._control(self._frontier, tested, risk, limit, self.risk_confidence)
        self._keep_scores(kept)

    def control_risk(
        self,
        X,
        y=None,
        *,
        max_disagreement=None,
        max_accuracy_drop=None,
        budget=None,
        risk_confidence=0.95,
    ):
        """The same classifier at the cheapest operating point that keeps to a limit, as rows of yours show.

        For rows like ``X``, and with probability ``risk_confidence`` over the drawing of ``X``, the
        limit holds [1]_. Points are tested one after the other, in an order that the rows held out in
        ``fit`` set, up to the first that these rows do not show to keep to the limit.

        Parameters
        ----------
        X : array-like (n_samples, ...)
            Rows that trained, chose and calibrate nothing.
        y : array-like (n_samples,), default=None
            Only for ``max_accuracy_drop``.
        max_disagreement : float, default=None
            Largest share of rows whose label is not the last exit's. Gates are made for it.
        max_accuracy_drop : float, default=None
            Largest loss of accuracy against the last exit.
        budget : float, default=None
            Largest mean cost; the dearest point that keeps to it is taken.
        risk_confidence : float, default=0.95

        Returns
        -------
        EarlyExitClassifier
            As :meth:`at` returns it; ``risk_`` tells what was shown. Where no point passes, a warning
            says so, and all rows run to the last exit (for ``budget``, leave at the first).

        References
        ----------
        .. [1] Angelopoulos, Bates, Candès, Jordan, Lei, "Learn then Test", Annals of Applied
           Statistics 2025.
        """
        check_is_fitted(self)
        self._refuse_bilevel("control_risk()")
        limits = {
            "disagreement": max_disagreement,
            "accuracy_drop": max_accuracy_drop,
            "mean_cost": budget,
        }
        risk, limit = _one_limit(limits, y, risk_confidence)
        self._check_budget(budget)
        inputs = self._check_inputs(X)
        codes = np.zeros(len(inputs[0]), int) if y is None else self._codes(y, inputs, "y")
        answers = self._answers(self._logits(inputs), codes)
        order = np.random.default_rng(self._seed).permutation(len(codes))
        other = copy.copy(self)
        frontier = self._agreement() if risk == "disagreement" else self._frontier
        other._control(frontier, answers.take(torch.as_tensor(order)), risk, limit, risk_confidence)
        return other

    def _agreement(self):
        """A frontier whose errors are labels that differ from the last exit's."""
        logits = self._gate_rows.logits
        alike = outcomes(logits, logits[:, -1].argmax(1), torch.ones_like(logits[:, 0, 0]))
        return Frontier(alike, self.network_.exit_mass, self._costs(), self.exit_policy)

    def _control(self, frontier, rows, risk, limit, confidence):
        """Move to the last point of a frontier's path that rows in random order show to keep to a limit."""
        cheap_first = risk == "mean_cost"
        path = frontier.path[::-1] if cheap_first else frontier.path
        losses = (self._losses(risk, rows, chosen.gates) for chosen in path)
        p_value_of = {
            "accuracy_drop": _risk.drop_p_value,
            "disagreement": _risk.binomial_p_value,
            "mean_cost": _risk.cost_p_value(self.exit_costs_),
        }[risk]
        passed, p_value = _risk.last_certified(losses, p_value_of, limit, confidence)
        safe = frontier.at_once() if cheap_first else frontier.never()
        chosen = safe if passed < 0 else path[passed]
        self._move_to(chosen)
        estimate = float(self._losses(risk, rows, chosen.gates).mean())
        shown = (risk, limit, confidence, len(rows.codes), estimate, p_value, passed >= 0)
        self.risk_ = _risk.RiskControl(*shown)
        if passed < 0:
            _warn_of_too_few(self.risk_)

    def _losses(self, risk, rows, gates):
        """Of rows, where gates send them: (n_samples,)"""
        taken = exits_taken(gates.probabilities(rows.gate_inputs)[:, 0], self.network_.exit_mass)
        if risk == "mean_cost":
            return self.exit_costs_[taken.cpu().numpy()]
        full, here = rows.logits[:, -1].argmax(1), _at_exit(rows.logits, taken).argmax(1)
        if risk == "disagreement":
            return (here != full).cpu().numpy()
        return ((full == rows.codes).int() - (here == rows.codes).int()).cpu().numpy()

    @property
    def frontier_(self):
        if vars(self).get("_frontier") is None:
            raise AttributeError("frontier_ is there after fit with gate_training='joint'.")
        return self._frontier.table

    def frontier(self, X, y, *, exit_policy=None):
        """What each operating point of ``frontier_`` does to other rows.

        Parameters
        ----------
        X : array-like (n_samples, ...)
        y : array-like (n_samples,)
        exit_policy : str, default=None
            Another policy on the same exits, tuned on the same held-out rows: one of those of the
            constructor. None keeps the policy.

        Returns
        -------
        structured ndarray (n_points,)
            Fields as in ``frontier_``.
        """
        policy = self.exit_policy if exit_policy is None else exit_policy
        return self._compared(X, y, [policy])[1][policy]

    def _compared(self, X, y, policies):
        """(outcomes of these rows, table of each policy by its name)"""
        check_is_fitted(self)
        self._refuse_bilevel("a frontier")
        unknown = [name for name in policies if name not in EXIT_POLICIES]
        if unknown:
            raise ValueError(
                f"exit policies {unknown} are not known; give some of {EXIT_POLICIES}."
            )
        rows = self._outcomes(X, y)
        tables = {name: self._frontier.of_policy(name).measured(rows) for name in policies}
        return rows, tables

    def _outcomes(self, X, y):
        """What all exits say of some rows."""
        inputs = self._check_inputs(X)
        codes = torch.as_tensor(self._codes(y, inputs, "y"), device=self.device)
        return outcomes(self._logits(inputs), codes, torch.ones(len(codes), device=self.device))

    def _refuse_bilevel(self, what):
        if self.gate_training != "joint":
            raise ValueError(f"{what} needs gate_training='joint'; got {self.gate_training!r}.")

    def _logits(self, inputs):
        """Of all exits, whoever would leave: (n_samples, n_exits, n_classes)"""
        with self.network_.inference():
            return torch.cat([self.network_(*batch) for batch in self._batches(inputs)])

    def _batches(self, inputs):
        """Tensors of a few rows each, on the device."""
        columns = [tensor.split(self._rows_at_once()) for tensor in self._tensors(inputs)]
        for batch in zip(*columns, strict=True):
            yield tuple(tensor.to(self.device) for tensor in batch)

    def conformalize(self, X, y, *, groups=None):
        """Calibrate prediction sets on rows that trained and chose nothing.

        Parameters
        ----------
        X : array-like (n_samples, ...)
        y : array-like (n_samples,)
        groups : array-like (n_samples,), default=None
            Groups of these rows, in the place of ``condition_on``; :meth:`predict_set` then takes
            those of its rows.

        Returns
        -------
        self
            Only what ``predict_set`` answers changes.
        """
        check_is_fitted(self)
        inputs = self._check_inputs(X)
        self._calibrate(Rows(inputs, self._codes(y, inputs, "y"), None), groups)
        return self

    def _calibrate(self, rows, groups=None):
        """Keep what any operating point needs of the rows that calibrate, and scores for this one."""
        self._groups_given = groups is not None
        labels = self._group_labels(rows.inputs, groups)
        self._known_groups, own_groups = np.unique(labels, return_inverse=True)
        uniform = self._uniform(rows.inputs)
        self._calibration = self._answers(self._logits(rows.inputs), rows.y, uniform, own_groups)
        self._keep_scores(self._calibration)

    def _answers(self, logits, codes, uniform=None, own_groups=None):
        zeros = np.zeros(len(codes), dtype=int)
        uniform, own_groups = (zeros if v is None else v for v in (uniform, own_groups))
        codes = torch.as_tensor(codes, device=self.device)
        # Not for the device, which may lack double precision.
        columns = torch.as_tensor(uniform), torch.as_tensor(own_groups)
        return Answers(logits, all_gate_inputs(logits), codes, *columns)

    @torch.no_grad()
    def _keep_gate_rows(self, held_out):
        """What temperatures, at this operating point and others, are fitted on."""
        self._gate_rows = self._answers(self.network_.heads(held_out.features), held_out.y)
        logits, codes = self._gate_rows.logits, self._gate_rows.codes
        self._temperatures_of_all = temperatures(logits, codes, torch.ones_like(logits[:, 0, 0]))
        self._fit_temperatures()

    @torch.no_grad()
    def _exits_of(self, rows):
        return exits_taken(self.network_.gates(rows.gate_inputs), self.network_.exit_mass)

    def _fit_temperatures(self):
        rows, taken = self._gate_rows, self._exits_of(self._gate_rows)
        leaving = _at_exit(rows.logits, taken)
        found = temperatures_of_leavers(leaving, rows.codes, taken, self._temperatures_of_all)
        self.temperatures_ = found.cpu().double().numpy()

    def _keep_scores(self, calibration):
        """Of the exits that the calibration rows take at this operating point."""
        rows, codes = self._answered(calibration), calibration.codes.cpu().numpy()
        by_own = self._groups_given or callable(self.condition_on)
        groups = conformal.by_own_groups if by_own else conformal.GROUPS[self.condition_on]
        self._sets = conformal.ConformalSets(self._score(), groups, rows, codes)
        self.conformity_scores_ = self._sets.scores
        self._calibrated = rows.exit_index, rows.probabilities.max(axis=1)

    def _answered(self, rows):
        """Rows at the exits that they take."""
        taken = self._exits_of(rows)
        probabilities = self._probabilities(_at_exit(rows.logits, taken), taken)
        others = (column.numpy() for column in (taken.cpu(), rows.uniform, rows.own_groups))
        return conformal.AnsweredRows(probabilities, *others)

    def _score(self):
        if callable(self.conformity_score):
            return self.conformity_score
        score = conformal.SCORES[self.conformity_score]
        if score is not conformal.raps_scores:
            return score
        codes = self._gate_rows.codes.cpu().numpy()
        return conformal.smallest_raps(self._answered(self._gate_rows).probabilities, codes)

    def _uniform(self, inputs):
        """Random numbers of rows, if the scores need them."""
        named = isinstance(self.conformity_score, str)
        if named and not self.conformity_score.startswith(conformal.RANDOMIZED):
            return np.zeros(len(inputs[0]))
        arrays = [tensor.numpy() for tensor in self._tensors(inputs)]
        return conformal.row_uniform(arrays, self._seed)

    def _group_labels(self, inputs, groups):
        """The user's groups of rows; one for all, where there are none."""
        if groups is None and callable(self.condition_on):
            named = self._input_names is not None
            X = dict(zip(self._input_names, inputs, strict=True)) if named else inputs[0]
            groups = self.condition_on(X)
        labels = np.zeros(len(inputs[0]), int) if groups is None else np.asarray(groups)
        if labels.shape != (len(inputs[0]),):
            raise ValueError(
                f"groups has shape {labels.shape}, but there are {len(inputs[0])} rows."
            )
        return labels

    def _own_groups(self, inputs, groups):
        """Numbers of the groups, as the calibration rows have them; one more for all that they lack."""
        if (groups is not None) != self._groups_given:
            were, came = ("", "none") if self._groups_given else ("out", "some")
            raise ValueError(
                f"conformalize was called with{were} groups, but predict_set was given {came}."
            )
        labels, known = self._group_labels(inputs, groups), self._known_groups
        number = np.minimum(np.searchsorted(known, labels), len(known) - 1)
        return np.where(known[number] == labels, number, len(known))

    def _route(self, X):
        """Rows stage by stage, those that left dropped; results in the order of the rows."""
        check_is_fitted(self)
        parts = [self._routed(inputs) for inputs in self._chunks(X)]
        return Routed(*map(np.concatenate, zip(*parts, strict=True)))

    def _routed(self, inputs):
        """As :meth:`_route`, of checked rows."""
        logits, exit_index = self._left(inputs)
        return Routed(self._probabilities(logits, exit_index), exit_index.cpu().numpy())

    def _labels(self, inputs, exits=None):
        return self.classes_[self._left(inputs, exits).logits.argmax(1).cpu().numpy()]

    def _left(self, inputs, exits=None):
        """Logits that checked rows left with, and where: tensors; ``exits`` forces that."""
        tensors = (tensor.to(self.device) for tensor in self._tensors(inputs))
        return self.network_.route(*tensors, rows_at_once=self._rows_at_once(), exits=exits)

    def _probabilities(self, logits, exit_index):
        """Calibrated, of the exits taken: tensors (n_samples, n_classes), (n_samples,) -> ndarray"""
        temperatures = torch.as_tensor(self.temperatures_)[exit_index.cpu()]
        # In double precision: few probabilities, and scores, round to 1 and tie.
        return (logits.cpu().double() / temperatures[:, None]).softmax(1).numpy()

    def _chunks(self, X):
        """Checked rows, some at a time: copies and answers of all rows are never held at once."""
        least = self._rows_at_once()
        given = self._loaded(X) if isinstance(X, Dataset) else pieces(X, CHUNK_BYTES, least)
        for piece in _progressing(given, self.verbose):
            yield from pieces_of(self._check_inputs(piece), CHUNK_BYTES, least)

    def _loaded(self, dataset):
        """Rows of a torch dataset, a batch at a time; labels that stand beside them are left out."""
        options = self._without_prefix("iterator_valid__")
        for batch in DataLoader(dataset, **{"batch_size": self._rows_at_once(), **options}):
            yield rows_of(batch)

    def predict(self, X):
        """Label of each row, as the exit it takes gives it.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset
            A memory map is read piece by piece; so is a dataset, of rows or of (row, label).

        Returns
        -------
        y : ndarray (n_samples,)
        """
        check_is_fitted(self)
        return np.concatenate([self._labels(inputs) for inputs in self._chunks(X)])

    def predict_proba(self, X):
        """Probabilities of the exit that each row takes.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset

        Returns
        -------
        probabilities : ndarray (n_samples, n_classes)
            Columns as ``classes_``.
        """
        return self._route(X).probabilities

    def predict_exit(self, X):
        """Exit that each row takes.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset

        Returns
        -------
        exit_index : ndarray of int (n_samples,)
            From 0; ``len(exits_)`` is the last.
        """
        check_is_fitted(self)
        exits = [self._left(inputs).exit_index.cpu().numpy() for inputs in self._chunks(X)]
        return np.concatenate(exits)

    def predict_stream(self, batches, *, method="predict"):
        """Answers for one batch after the other, as they come; no more than a batch is held.

        Parameters
        ----------
        batches : iterable
            Of arrays (n_rows, ...), or of pairs of such and labels, which are left out; a torch
            ``DataLoader`` is one.
        method : {"predict", "predict_proba", "predict_exit", "predict_set"}, default="predict"

        Yields
        ------
        ndarray
            What the method answers for each batch.

        Raises
        ------
        ValueError
            Where there is no such method.
        """
        check_is_fitted(self)
        if method not in STREAMED:
            raise ValueError(f"method={method!r} is not known; give one of {STREAMED}.")
        answer = getattr(self, method)
        return (answer(rows_of(batch)) for batch in batches)

    def mean_cost(self, X):
        """Mean cost of these rows, relative to one pass of the plain backbone.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset

        Returns
        -------
        float
        """
        exit_index = self.predict_exit(X)
        return metrics.mean_cost(exit_index, self.exit_costs_)

    def predict_set(self, X, *, confidence_level=0.9, allow_empty=True, groups=None):
        """Labels that hold the truth with the given confidence.

        On rows exchangeable with the calibration rows a set holds the right label with probability
        at least ``confidence_level``, on average over the rows of each group (``condition_on``).
        Groups whose calibration rows are too few for the level get sets of all labels.

        Parameters
        ----------
        X : array-like (n_samples, ...)
        confidence_level : float or sequence of float (n_levels,), default=0.9
            In (0, 1).
        allow_empty : bool, default=True
            An empty set says that no label fits well. False puts the best label into it.
        groups : array-like (n_samples,), default=None
            Groups of these rows, where :meth:`conformalize` was given those of its rows; one that it
            did not see gets sets of all labels.

        Returns
        -------
        sets : ndarray of bool (n_samples, n_classes), or (n_samples, n_classes, n_levels)
            Columns as ``classes_``; a last axis where levels are a sequence.

        Raises
        ------
        ValueError
            Where a confidence level is not in (0, 1), or groups are missing.
        """
        levels = _as_levels(confidence_level)
        check_is_fitted(self)
        found, n_rows = [], 0
        for inputs in self._chunks(X):
            own = None if groups is None else groups[n_rows : n_rows + len(inputs[0])]
            own_groups = self._own_groups(inputs, own)
            rows = conformal.AnsweredRows(*self._routed(inputs), self._uniform(inputs), own_groups)
            found.append(self._sets.sets(rows, levels, allow_empty=allow_empty))
            n_rows += len(inputs[0])
        if groups is not None and len(groups) != n_rows:
            raise ValueError(f"groups has {len(groups)} entries, but there are {n_rows} rows.")
        sets = np.concatenate(found)
        return sets[..., 0] if isinstance(confidence_level, Real) else sets

    def check_exchangeability(self, X, *, significance=0.01):
        """Whether new rows differ from the calibration rows more than chance allows, as far as exits can tell.

        Compares which exits rows take, and how probable the labels are that they get. Where that
        differs, no statement about the calibration rows, prediction sets included, need hold for
        the new ones. Needs no labels, and so misses rows whose labels alone have changed.

        Parameters
        ----------
        X : array-like (n_samples, ...)
            New rows, not picked by what the classifier says of them.
        significance : float, default=0.01
            A warning is given where the p-value is less.

        Returns
        -------
        Exchangeability
            p-values ``exit_rates``, ``scores``, and ``p_value`` of both together.
        """
        routed = self._route(X)
        new = routed.exit_index, routed.probabilities.max(axis=1)
        found = _drift.compare_rows(self._calibrated, new)
        if found.p_value < significance:
            warnings.warn(
                f"X is not like the calibration rows (p-value {found.p_value:.2g}): {found}. Prediction sets and "
                f"limits need not hold for it; conformalize on labelled rows like X.",
                UserWarning,
                stacklevel=2,
            )
        return found

    def calibration_report(self, X, y):
        """How good probabilities are, for the rows that leave at each exit and for all rows.

        Parameters
        ----------
        X : array-like (n_samples, ...)
        y : array-like (n_samples,)

        Returns
        -------
        structured ndarray (n_exits + 1,)
            As :func:`metrics.calibration_report` gives it.
        """
        return metrics.calibration_report(*self._answers_and_truth(X, y), len(self.exit_costs_))

    def _answers_and_truth(self, X, y):
        """(probabilities, class codes, exit of each row)"""
        check_is_fitted(self)
        inputs = self._check_inputs(X)
        codes = self._codes(y, inputs, "y")
        probabilities, exit_index = self._routed(inputs)
        return probabilities, codes, exit_index


def _at_exit(logits, exit_index):
    """(n_samples, n_exits, n_classes), (n_samples,) -> (n_samples, n_classes)"""
    return logits[torch.arange(len(logits), device=logits.device), exit_index]


def _as_levels(confidence_level):
    levels = np.atleast_1d(confidence_level)
    numbers = levels.ndim == 1 and levels.size and levels.dtype.kind == "f"
    if not numbers or not np.all((levels > 0) & (levels < 1)):
        raise ValueError(
            f"confidence_level={confidence_level!r} is not allowed; give a number above 0 and below 1, or several."
        )
    return levels.tolist()


def _one_limit(limits, y, risk_confidence):
    """(name, limit) of the risk that is asked for."""
    asked = {name: limit for name, limit in limits.items() if limit is not None}
    if len(asked) != 1:
        raise ValueError(
            f"control_risk() takes one of max_disagreement, max_accuracy_drop, budget; got {limits}."
        )
    ((risk, limit),) = asked.items()
    if risk != "mean_cost" and not 0 <= limit < 1:
        raise ValueError(f"the limit of {risk} is {limit!r}; give a number from 0 to less than 1.")
    if not 0 < risk_confidence < 1:
        raise ValueError(
            f"risk_confidence={risk_confidence!r} is not allowed; give a number above 0 and below 1."
        )
    if (risk == "accuracy_drop") != (y is not None):
        raise ValueError(
            f"y is {'missing' if y is None else 'given'}; max_accuracy_drop alone needs it."
        )
    return risk, limit


def _warn_of_too_few(shown):
    where = "leave at the first exit" if shown.risk == "mean_cost" else "run to the last exit"
    warnings.warn(
        f"{shown.n_rows} rows do not show any operating point to keep {shown.risk} to {shown.limit} with "
        f"confidence {shown.confidence}: all rows {where}. Give more rows, or a larger limit.",
        UserWarning,
        stacklevel=4,
    )


def _refuse_unknown(further_params):
    unknown = [name for name in further_params if not name.startswith(PREFIXES)]
    if unknown:
        raise TypeError(
            f"EarlyExitClassifier got unexpected parameters {unknown}; besides its own it takes those that "
            f"start with one of {PREFIXES}."
        )


def _usable(device):
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={device!r} cannot be used on this machine: {error}") from error


@contextlib.contextmanager
def _all_or_nothing(estimator):
    """Where fitting fails, what was fitted before is put back."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


@contextlib.contextmanager
def _seeded(seed, device):
    """torch's random numbers from this seed on, and the caller's as they were afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _progressing(batches, verbose):
    """The same with a progress bar, where that is asked for and there is more than one batch."""
    if not verbose:
        return batches
    from tqdm import tqdm

    return tqdm(batches, desc="Rows", unit=" batches", delay=BAR_AFTER_SECONDS)


def _tensor(array):
    # torch warns of arrays that it may not write to, and takes no negative strides.
    return torch.as_tensor(np.require(array, requirements=["C", "W"]))

"""The estimator: parameters, documentation, and the public methods over a :class:`Predictor`."""

import contextlib
import copy
import os
from collections.abc import Callable
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted

from . import conformal, runtime
from ._datasets import collate, is_dataset, read_dataset
from ._deferral import DeferralMixin
from ._exits.heads import HEAD_NAMES
from ._exits.policy import EXIT_DISTRIBUTIONS
from ._fit import CascadeSpec, fit_cascade
from ._fit.checks import (
    check_prefixed_names,
    check_valid_options,
    refuse_booleans,
    warn_of_small_classes,
    warn_of_unread,
)
from ._fit.engine_choice import in_engine
from ._fit.fold_count import AUTO, folds_of
from ._fit.leakage import history_of_members
from ._fit.logit_order import labels_of_logits
from ._fit.losses import GATE_LOSSES
from ._fit.members import (
    as_backbone,
    as_members,
    take_tables,
    takes_missing,
    takes_named_inputs,
)
from ._fit.moving import moved_to_precision
from ._fit.prices import COUNTED, TIMED, as_price_table
from ._fit.resuming import check_random_state_is_given
from ._fit.schedules import FOUND
from ._fit.spec import ANY_PRECISION, ENGINES, FLOAT32, MODULE_PREFIX, SKORCH_PREFIXES, TORCH
from ._fit.tasks import CallbackSupportMixin, FitTasks
from ._fit.warm_start import going_on
from ._given import naming
from ._history import input_hashes
from ._html import HtmlMixin
from ._operate.calibration import CalibrationSamples, SetRule
from ._operate.certification import ACCURACY_DROP, DISAGREEMENT, MEAN_COST, one_limit
from ._operate.exit_answers import ExitAnswers
from ._operate.frontier import EXIT_POLICIES, LEARNED
from ._operate.leakage import WHAT_TO_DO, check_certifiable
from ._operate.operating_point import check_budget, check_joint, check_limit, check_one_target
from ._portable import PortableMixin
from ._prediction import VALID
from ._predictor import Predictor
from ._reporting import ReportingMixin
from ._samples import (
    GivenSamples,
    ReadingOptions,
    check_inputs,
    check_weights,
    codes_of,
    read_parts,
)
from ._storing import StoringMixin
from ._table_columns import FROM_DTYPE
from ._timing import TimingMixin
from ._warn import warn_caller

PREFIXES = (MODULE_PREFIX, *SKORCH_PREFIXES)
BATCH_SIZE = VALID + "batch_size"
# Fitted attributes that are there only where they mean something.
OPTIONAL_ATTRIBUTES = (
    "n_features_in_",
    "feature_names_in_",
    "plain_seconds_",
    "risk_",
    "conformity_scores_",
)


class EarlyExitClassifier(
    PortableMixin,
    CallbackSupportMixin,  # type: ignore[misc]  # no types
    StoringMixin,
    DeferralMixin,
    TimingMixin,
    HtmlMixin,
    ReportingMixin,
    ClassifierMixin,  # type: ignore[misc]  # no types
    BaseEstimator,  # type: ignore[misc]  # no types
):
    """Neural classifier that spends on a sample only as much computation as it needs.

    A torch backbone is cut into stages. After each stage but the last stand a head, a small
    classifier, and a gate, which decides sample by sample whether to leave with the head's answer.
    Heads and gates are trained for accuracy plus ``cost_weight`` times cost [1]_. Prediction sets are
    split-conformal.

    The parameters come in seven groups: backbone and exits (``module`` to ``freeze_backbone``),
    companions (``companion`` to ``companion_training``), cost and operating point (``cost`` to
    ``risk_confidence``), gates (``exit_policy`` to ``exit_distribution``), training (``max_epochs`` to
    ``feature_passes``), prediction sets (``conformity_score``, ``condition_on``) and execution
    (``memory`` to ``random_state``). ``docs/parameters.md`` says more of each.

    Parameters
    ----------
    module : torch module (class, function or instance), classifier, or list of members, default=None
        The backbone, from float tensors (or whole numbers that it embeds) to logits, or any classifier with
        ``predict_proba``. None takes a ready network for tables or images; a list puts companions in front of
        its last entry.
    classes : array-like of labels (n_classes,), default=None
        Labels in the order of the module's logits, those that ``y`` lacks included. None takes the module's
        ``config.id2label`` where ``y`` has its labels, else the sorted labels of ``y``.
    categorical_features : "from_dtype", array-like or None, default="from_dtype"
        Columns of a table that the ready network takes as categories, by name, position or mask. "from_dtype" takes
        columns of words, and those with a dtype of categories; None none.
    exits : "auto", int or list of str, default="auto"
        Submodules after which samples may leave, or how many early exits. "auto" takes up to eight that
        save more than a head costs. With several members, one such entry for each.
    head : {"pooled", "linear"} or torch module class, default="pooled"
        Classifier at an early exit. "pooled" reads several pools of the stage's output and the exit before,
        "linear" only the mean. A class is built as ``head(n_features, n_classes)``.
    freeze_backbone : bool or "after_warmup", default=False
        True takes a trained instance as it is and trains heads and gates only; give :meth:`fit` an ``X_val`` that
        it did not learn from, else no guarantee holds (a warning says so). "after_warmup" trains every
        network without its exits first, then its heads. False trains networks with their exits.
    companion : {"tabular", "auto"} or None, default="tabular"
        "auto" trains smaller ready networks and puts those that pay in front of the backbone; "tabular" does
        so for the ready tabular network only, None never.
    companion_costs : list of float or None, default=None
        Cost of each companion that you give, relative to one pass of the plain backbone. None counts the
        multiply-adds of networks and measures the time of other classifiers.
    companion_training : {"labels", "distilled"}, default="labels"
        What companions that are networks learn: the labels, or the backbone's probabilities [2]_, which need
        no labels (``X_unlabeled`` in :meth:`fit`). Of a last member that is a classifier they learn half from
        the labels, half from its answers to samples that it has not learned from: its
        ``oob_decision_function_`` if it keeps one, else from five more fits of it.
    cost : {"multiply_adds", "seconds"} or array-like (n_exits,), default="multiply_adds"
        Unit of costs, relative to one pass of the plain backbone. "seconds" times calls of :meth:`predictor` on
        this machine, relative to the bare module's own call; an array is a price table (:meth:`measure_costs`).
    cost_batch_size : int, default=None
        Batch size at which run time is measured. Use 1 if samples arrive one at a time. None takes several
        full batches.
    cost_weight : float, default=0.02
        What one pass of the plain backbone is worth in units of the loss: at 0.02 a sample runs on only if
        every half of a pass makes its answer 1 % likelier to be right.
    budget : float, default=None
        Largest mean cost of a sample, on held-out samples; then ``cost_weight`` is not read.
    max_accuracy_drop : float, default=None
        Largest loss of accuracy against the plain backbone, on held-out samples; then ``cost_weight`` is not
        read. Excludes ``budget``.
    seconds_per_sample : float, default=None
        Largest mean time of a sample, on held-out samples, in calls of ``cost_batch_size`` samples to
        :meth:`predictor`; then ``cost_weight`` is not read. Needs ``cost="seconds"``, excludes the other limits.
    risk_confidence : float, default=None
        Certify ``max_accuracy_drop`` or ``budget`` (``seconds_per_sample``) with this probability, on a random half
        of the calibration samples; the other half gives the prediction sets. ``risk_`` holds the result.
    exit_policy : str, default="learned"
        What lets a sample leave: "learned" gates; a threshold on "confidence", "entropy", "margin" or
        "patience" [3]_; or one for each exit ("confidence_per_exit" and so on).
    gate_training : {"joint", "bilevel"}, default="joint"
        "joint" descends the objective itself, the gates on held-out samples. "bilevel" is the paper's recipe.
    gate_loss : {"cross_entropy", "zero_one", "minus_true_probability"}, default="cross_entropy"
        What "bilevel" compares exits by.
    exit_distribution : {"sequential", "direct"}, default="sequential"
        How gate values become exit probabilities: each takes its share of what is left, or its own value as
        far as it is left (the paper's).
    max_epochs : int or "auto", default="auto"
        Epochs of every network with its exits (of heads alone, where the backbone is frozen). "auto" takes the
        network's own ``max_epochs`` (ready networks for images: 20 to 100, by the number of images); others train in
        cycles of 2, 4, 8, ... epochs, at most 254 in all, until a cycle hardly lowers the Brier score of held-out
        samples [4]_ (100 epochs where an ``LRScheduler`` among ``callbacks`` or "bilevel" gates leave no cycles).
    lr : float, default=None
        Largest learning rate; it rises and falls once over the training, or in each cycle. None takes the network's own
        ``learning_rate``, else 0.002, more for fewer than 200 steps (0.01 for heads alone).
    batch_size : int, default=256
        Samples of a training step; -1 takes all.
    optimizer : torch optimizer class, default=torch.optim.AdamW
    callbacks : list of skorch callbacks, default=None
        Added to the learning-rate schedule ("lr_schedule", which an ``LRScheduler`` of yours replaces), to the
        callback that restores an earlier epoch where the last one overfits ("best_epoch"), and to the error where
        weights are not finite ("stop_if_not_finite").
    class_weight : dict or "balanced", default=None
        Weights of the classes in all that learns, as in scikit-learn; ``budget`` and other limits without
        ``risk_confidence`` count them, too. What calibrates or certifies takes all samples alike.
    cv : int, "auto" or None, default="auto"
        Number of stratified folds. Every training sample sets the gates, as members answer it that were trained
        without its fold, and then all members learn from all folds. None holds samples out that set the gates
        alone. "auto" takes five folds for tables of 500 to 2,000 samples that the ready network takes, three up to
        5,000.
    validation_fraction : float, default=0.1
        Share of the samples held out if :meth:`fit` is given no ``X_val``: half sets the gates and the epoch,
        half calibrates. With folds only the half that calibrates is held out; 0 holds none out, and there are no
        prediction sets before :meth:`conformalize`.
    feature_passes : int, default=1
        Passes of a frozen backbone over the training samples whose features are kept; more than one make
        sense with a random ``iterator_train__collate_fn``.
    conformity_score : str or callable, default="lac"
        Score of :meth:`predict_set`: "lac", "aps", "raps", "randomized_aps", "randomized_raps", or a function
        of probabilities and uniform numbers (see :mod:`~sklearn_jeidnn.conformal`).
    condition_on : {"pooled", "exit", "class", "exit_and_class"} or callable, default="pooled"
        Groups within each of which sets hold the truth with the confidence asked for. A callable maps checked
        samples, an array also where ``X`` is a data frame, to group labels ``(n_samples,)``.
    memory : str, path or joblib.Memory, default=None
        Where trained networks and exit features are kept, so that fits which differ only in what comes after
        do not train again.
    precision : {"float32", "bfloat16", "int8", "auto"}, default="float32"
        What networks compute in outside of training. In bfloat16 an answer may depend on the batch. "int8" (of
        ``engine`` "onnxruntime" or "auto") computes convolutions and matrix products in 8-bit integers, and leaves in
        float32 what would lose more accuracy on held-out samples than chance explains; "auto" takes the fastest of
        these whose loss chance explains. What is learned on held-out samples is learned on these answers; limits
        (``max_accuracy_drop``) are against the plain backbone in float32.
    engine : {"torch", "torch.compile", "onnxruntime", "auto"}, default="torch"
        What runs stages, heads and gates in prediction. "torch.compile" needs a C++ compiler, "onnxruntime" the
        extra ``onnx``; "auto" takes it if it is there and faster than torch on this machine.
    device : str or torch.device, default="cpu"
    verbose : int, default=0
        1 prints which member is being trained and what is to come, skorch's line for each epoch, and a summary:
        accuracy, cost, time, and what would do as well. At 0 a fit of more than ten seconds shows a progress bar
        in a terminal.
    warm_start : bool, default=False
        Go on from the networks of the last :meth:`fit` (backbone, companions and heads, with their exits) instead
        of new ones. Samples that were held out stay held out.
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same result in every call, but for what run times that ``fit`` measures change
        (``cost="seconds"``; classifiers of yours whose cost ``companion_costs`` does not give).
    **kwargs
        ``module__*``, ``optimizer__*``, ``iterator_train__*``, ``iterator_valid__*``, ``callbacks__*``, as
        in skorch.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
        Sorted labels of ``y``, or ``classes``.
    n_features_in_ : int
        Length of the second axis of ``X``; not where ``X`` is a dict.
    feature_names_in_ : ndarray (n_features_in_,)
        Only where ``X`` has column names that are all strings.
    exits_ : list of str
        Submodules after which samples may leave; the last exit, the backbone's end, has no name. With
        companions "0" is the end of the first member, "1.blocks.0" an exit inside the second.
    exit_costs_ : ndarray (n_exits,)
        Cost of everything run up to each exit, relative to one pass of the plain backbone. The last is more
        than 1: it includes companions, heads and gates on the way.
    plain_seconds_ : float
        Time of one pass of the plain backbone, for a sample, as measured in ``engine`` (in torch the module's own
        call, in ONNX Runtime the whole graph in one session), in calls of ``cost_batch_size`` samples; only where
        ``cost="seconds"``.
    cost_weight_ : float
        ``cost_weight``, or what was found for ``budget`` or ``max_accuracy_drop`` (NaN where a budget chose
        the one threshold of an ``exit_policy``).
    frontier_ : dict of str to ndarray (n_points,)
        Operating points over a grid of cost weights on the held-out samples that set the gates; make a data
        frame of it. Keys as in :meth:`frontier`. Computed when first read; not with "bilevel" gates.
    module_ : torch module
        The plain backbone, trained; its logits are in the order of ``classes``.
    network_ : torch module
        Its stages with heads and gates.
    history_ : skorch History
        Of the backbone's training, or of the heads' where it is frozen.
    conformity_scores_ : ndarray (n_calibration,)
        Scores of the calibration samples' labels; infinite where an exit has no answer for one. Not where no sample
        calibrates.
    temperatures_ : ndarray (n_exits,)
        What each exit's logits are divided by, so that the probabilities of the samples that leave there are
        calibrated. Labels and exits do not depend on them.
    risk_ : RiskControl
        What was certified: ``risk``, ``limit``, ``confidence``, ``n_samples``, ``estimate``, ``p_value``,
        ``certified``. Only with ``risk_confidence``, or after :meth:`control_risk`.

    References
    ----------
    .. [1] Regol, Chataoui, Coates, "Jointly-Learned Exit and Inference for a Dynamic Neural Network",
       ICLR 2024, arXiv 2310.09163.
    .. [2] Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531.
    .. [3] Zhou et al., "BERT Loses Patience: Fast and Robust Inference with Early Exit", NeurIPS 2020.
    .. [4] Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017,
       arXiv 1608.03983.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sklearn_jeidnn import EarlyExitClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> clf = EarlyExitClassifier(max_epochs=10, random_state=0).fit(X_train, y_train)
    >>> bool(clf.score(X_test, y_test) > 0.9)
    True
    >>> bool(clf.mean_cost(X_test) < 1)
    True
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "classes": ["array-like", None],
        "categorical_features": ["array-like", StrOptions({FROM_DTYPE}), None],
        "exits": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), "array-like"],
        "head": [StrOptions(set(HEAD_NAMES)), type],
        "freeze_backbone": ["boolean", StrOptions({"after_warmup"})],
        "companion": [StrOptions({"tabular", "auto"}), None],
        "companion_costs": ["array-like", None],
        "companion_training": [StrOptions({"labels", "distilled"})],
        "cost": [StrOptions({COUNTED, TIMED}), "array-like"],
        "cost_batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "cost_weight": [Interval(Real, 0, None, closed="left")],
        "budget": [Interval(Real, 0, None, closed="neither"), None],
        "max_accuracy_drop": [Interval(Real, 0, 1, closed="left"), None],
        "seconds_per_sample": [Interval(Real, 0, None, closed="neither"), None],
        "risk_confidence": [Interval(Real, 0, 1, closed="neither"), None],
        "exit_policy": [StrOptions(set(EXIT_POLICIES))],
        "gate_training": [StrOptions({"joint", "bilevel"})],
        "gate_loss": [StrOptions(set(GATE_LOSSES))],
        "exit_distribution": [StrOptions(set(EXIT_DISTRIBUTIONS))],
        "max_epochs": [StrOptions({FOUND}), Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), Options(Integral, {-1})],
        "optimizer": [callable],
        "callbacks": [list, tuple, None],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "cv": [Interval(Integral, 2, None, closed="left"), StrOptions({AUTO}), None],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "feature_passes": [Interval(Integral, 1, None, closed="left")],
        "conformity_score": [StrOptions(set(conformal.SCORES)), callable],
        "condition_on": [StrOptions(set(conformal.GROUPS)), callable],
        "memory": [str, os.PathLike, HasMethods(["cache"]), None],
        "checkpoint": [str, os.PathLike, None],
        "precision": [StrOptions(set(ANY_PRECISION))],
        "engine": [StrOptions(set(ENGINES))],
        "device": [str, torch.device],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        module: Any = None,
        *,
        classes: Any = None,
        categorical_features: Any = FROM_DTYPE,
        exits: Any = "auto",
        head: Any = "pooled",
        freeze_backbone: bool | str = False,
        companion: str | None = "tabular",
        companion_costs: Any = None,
        companion_training: str = "labels",
        cost: Any = "multiply_adds",
        cost_batch_size: int | None = None,
        cost_weight: float = 0.02,
        budget: float | None = None,
        max_accuracy_drop: float | None = None,
        seconds_per_sample: float | None = None,
        risk_confidence: float | None = None,
        exit_policy: str = "learned",
        gate_training: str = "joint",
        gate_loss: str = "cross_entropy",
        exit_distribution: str = "sequential",
        max_epochs: int | str = FOUND,
        lr: float | None = None,
        batch_size: int = 256,
        optimizer: Callable[..., Any] = torch.optim.AdamW,
        callbacks: Any = None,
        class_weight: Any = None,
        cv: int | str | None = AUTO,
        validation_fraction: float = 0.1,
        feature_passes: int = 1,
        conformity_score: str | Callable[..., Any] = "lac",
        condition_on: str | Callable[..., Any] = "pooled",
        memory: Any = None,
        checkpoint: Any = None,
        precision: str = "float32",
        engine: str = TORCH,
        device: str | torch.device = "cpu",
        verbose: int = 0,
        warm_start: bool = False,
        random_state: Any = None,
        **kwargs: Any,
    ) -> None:
        self.module = module
        self.classes = classes
        self.categorical_features = categorical_features
        self.exits = exits
        self.head = head
        self.freeze_backbone = freeze_backbone
        self.companion = companion
        self.companion_costs = companion_costs
        self.companion_training = companion_training
        self.cost = cost
        self.cost_batch_size = cost_batch_size
        self.cost_weight = cost_weight
        self.budget = budget
        self.max_accuracy_drop = max_accuracy_drop
        self.seconds_per_sample = seconds_per_sample
        self.risk_confidence = risk_confidence
        self.exit_policy = exit_policy
        self.gate_training = gate_training
        self.gate_loss = gate_loss
        self.exit_distribution = exit_distribution
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.callbacks = callbacks
        self.class_weight = class_weight
        self.cv = cv
        self.validation_fraction = validation_fraction
        self.feature_passes = feature_passes
        self.conformity_score = conformity_score
        self.condition_on = condition_on
        self.memory = memory
        self.checkpoint = checkpoint
        self.precision = precision
        self.engine = engine
        self.device = device
        self.verbose = verbose
        self.warm_start = warm_start
        self.random_state = random_state
        self.__dict__.update({name: kwargs[name] for name in kwargs if name.startswith(PREFIXES)})
        # Apart, so that none of them is taken for an attribute.
        unexpected = {name: kwargs[name] for name in kwargs if not name.startswith(PREFIXES)}
        if unexpected:
            self._unexpected = unexpected

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name, those with a skorch prefix included.

        Parameters
        ----------
        deep : bool, default=True

        Returns
        -------
        dict
        """
        prefixed = {name: value for name, value in vars(self).items() if name.startswith(PREFIXES)}
        # Names that fit refuses, too, so that a clone keeps them for it to refuse.
        unexpected = vars(self).get("_unexpected", {})
        return {**super().get_params(deep=deep), **prefixed, **unexpected}

    def set_params(self, **params: Any) -> "EarlyExitClassifier":
        """Set parameters by name, those with a skorch prefix included.

        ``iterator_valid__batch_size`` also changes how many samples a fitted classifier predicts at once (-1: all).

        Returns
        -------
        self
        """
        prefixed = {name: value for name, value in params.items() if name.startswith(PREFIXES)}
        if "_predictor" in vars(self):
            check_valid_options(prefixed)
        super().set_params(**{name: params[name] for name in params if name not in prefixed})
        self.__dict__.update(prefixed)
        if BATCH_SIZE in prefixed and "_predictor" in vars(self):
            self._adopt(self._predictor.with_batch_size(prefixed[BATCH_SIZE]))
        return self

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]  # no types
    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        X_unlabeled: Any = None,
    ) -> "EarlyExitClassifier":
        """Train the backbone, its heads and its gates, and calibrate prediction sets.

        If fitting fails, what was fitted before stays.

        Parameters
        ----------
        X : array-like (n_samples, ...), dict of str to array-like, or torch Dataset
            2-D for tables, 3-D or 4-D for images; made float32. For a module of several inputs, the
            arrays by the names of its forward's arguments; integers stay integers. A dataset is read
            once, into memory.
        y : array-like (n_samples,) or None
            Labels. None if ``X`` is a dataset of pairs (sample, label).
        sample_weight : array-like (n_samples,), default=None
            Weights in what is minimised; samples of weight 0 are left out. Calibration takes the
            others alike.
        X_val, y_val : array-like or torch Dataset, default=None
            Held-out samples that no network learned from, halved at random for the gates and for
            calibration; all of ``X`` then trains, without folds. None splits off ``validation_fraction`` of ``X``.
        sample_weight_val : array-like, default=None
        X_unlabeled : array-like, default=None
            Samples without labels from which companions learn, too, where ``companion_training`` is
            "distilled".

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data do not fit; the message says what came and what is allowed.
        OSError
            If nothing can be written into the folder ``checkpoint``.
        """
        _refuse_unexpected(type(self).__name__, list(vars(self).get("_unexpected", ())))
        self._check_operating_point()
        check_random_state_is_given(self.checkpoint, self.random_state)
        spec = CascadeSpec.of(self)
        takes_tables = take_tables(as_members(spec.module, spec.module_params))
        last = self._last_fit()
        if last is not None:
            spec = going_on(spec, last.cascade.trained)
        rng = check_random_state(self.random_state)
        # A user's collate_fn joins what skorch trains on, not samples of a dataset.
        options = {**self._loader_options(), "collate_fn": collate}
        members = as_members(spec.module, spec.module_params)
        given = read_dataset(GivenSamples(X=X, y=y, weights=sample_weight), options)
        with naming("X_val"):
            held_out = read_dataset(
                GivenSamples(X=X_val, y=y_val, weights=sample_weight_val), options
            )
        schema, parts = read_parts(
            given,
            held_out,
            ReadingOptions(
                estimator_name=type(self).__name__,
                keeps_integers=self.module is not None,
                takes_tables=takes_tables,
                categorical_features=self.categorical_features,
                classes=self.classes,
                likely_classes=labels_of_logits(as_backbone(spec.module)),
                last=None if last is None else last.schema,
            ),
            validation_fraction=self.validation_fraction,
            rng=rng,
            n_folds=folds_of(
                self.cv,
                spec,
                members,
                warm_start=self.warm_start,
                gives_held_out=not held_out.is_empty,
                validation_fraction=self.validation_fraction,
            ),
            earlier=history_of_members(members),
        )
        with naming("X_unlabeled"):
            X_unlabeled = read_dataset(GivenSamples(X=X_unlabeled, y=None), options).X
        warn_of_small_classes(self.cv, schema, parts)
        warn_of_unread(self, spec, schema, holds_out=X_val is None)
        try_rule = self._set_rule(seed=0).try_functions
        metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
        tasks = FitTasks(self, {"X": X, "y": y, "metadata": metadata})
        fitted = fit_cascade(spec, schema, parts, X_unlabeled, rng, try_rule, tasks)
        rule = self._set_rule(seed=rng.randint(2**31))
        samples = None
        if len(parts.calibration):
            arrays, codes = parts.calibration.inputs, parts.calibration.codes
            samples = CalibrationSamples.read(rule, fitted.schema, fitted.cascade, arrays, codes)
        predictor = Predictor.fit(
            schema=fitted.schema,
            cascade=fitted.cascade,
            frontier=fitted.frontier,
            point=fitted.point,
            rule=rule,
            samples=samples,
            history=fitted.history,
            leakage=fitted.leakage,
        )
        predictor = self._certified(predictor)
        tasks.end(lambda: dict(vars(copy.copy(self)._adopt(predictor))))
        self._adopt(predictor)
        self._tell(predictor, parts.n_folds)
        fitted.stored.remove()
        return self

    def _validate_params(self) -> None:
        super()._validate_params()
        refuse_booleans(self._parameter_constraints, vars(self))
        prefixed = {name: value for name, value in vars(self).items() if name.startswith(PREFIXES)}
        check_prefixed_names(prefixed)
        check_valid_options(prefixed)

    def _last_fit(self) -> Predictor | None:
        """What this fit goes on from, if anything."""
        found: Predictor | None = vars(self).get("_predictor") if self.warm_start else None
        return found

    def _set_rule(self, seed: int, takes_groups: bool = False) -> SetRule:
        return SetRule(
            conformity_score=self.conformity_score,
            condition_on=self.condition_on,
            seed=seed,
            takes_groups=takes_groups,
        )

    def _certified(self, predictor: Predictor) -> Predictor:
        """At a point that keeps to its limit with ``risk_confidence``, where that is asked for."""
        if self.risk_confidence is None:
            return predictor
        budget = CascadeSpec.of(self).budget_at(predictor.cascade.plain_seconds)
        limits = {MEAN_COST: budget, ACCURACY_DROP: self.max_accuracy_drop}
        ((risk, limit),) = ((r, limit) for r, limit in limits.items() if limit is not None)
        return predictor.certified(risk=risk, limit=limit, confidence=self.risk_confidence)

    def _tell(self, predictor: Predictor, n_folds: int) -> None:
        """Say what the fit came to, where that is asked for."""
        if self.verbose:
            print(predictor.summary(n_folds).text())

    def _adopt(self, predictor: Predictor) -> "EarlyExitClassifier":
        """Set every fitted attribute: nothing else does."""
        schema, cascade, point = predictor.schema, predictor.cascade, predictor.point
        sets = predictor.calibration.sets
        values = (
            schema.n_features,
            schema.feature_names,
            cascade.plain_seconds,
            point.risk,
            None if sets is None else sets.scores,
        )
        optional = zip(OPTIONAL_ATTRIBUTES, values, strict=True)
        others = {name: v for name, v in vars(self).items() if name not in OPTIONAL_ATTRIBUTES}
        # All at once: neither Ctrl-C nor another thread finds old attributes beside new ones.
        self.__dict__ = {
            **others,
            **{name: value for name, value in optional if value is not None},
            "_predictor": predictor,
            "classes_": schema.classes,
            "exits_": cascade.exits,
            "exit_costs_": cascade.exit_costs,
            "history_": cascade.history,
            "module_": cascade.engine.module,
            "network_": cascade.engine.network,
            "cost_weight_": point.cost_weight,
            "temperatures_": predictor.calibration.temperatures,
        }
        return self

    def __sklearn_tags__(self) -> Any:
        """Say what samples may be: tables with words, and with missing values unless a member takes none; images."""
        tags = super().__sklearn_tags__()
        with contextlib.suppress(ValueError, TypeError):
            members = as_members(self.module, CascadeSpec.of(self).module_params)
            tags.input_tags.three_d_array = not any(member.is_classifier for member in members)
            tags.input_tags.dict = all(map(takes_named_inputs, members))
            tags.input_tags.string = take_tables(members)
            with_gaps = take_tables(members) and all(map(takes_missing, members))
            # To scikit-learn categories without missing values are whole numbers and nothing else.
            tags.input_tags.allow_nan = tags.input_tags.categorical = with_gaps
        return tags

    def _check_operating_point(self) -> None:
        """Refuse parameters of the operating point that do not go together."""
        given = {
            "budget": self.budget,
            "max_accuracy_drop": self.max_accuracy_drop,
            "seconds_per_sample": self.seconds_per_sample,
        }
        asked = {name: value for name, value in given.items() if value is not None}
        if len(asked) > 1:
            raise ValueError(f"{asked} name different operating points; give one of them.")
        if self.risk_confidence is not None and not asked:
            raise ValueError(
                f"risk_confidence={self.risk_confidence!r} is the confidence of a limit; give one of {tuple(given)}."
            )
        if self.seconds_per_sample is not None and not CascadeSpec.of(self).is_timed:
            raise ValueError(
                f"seconds_per_sample={self.seconds_per_sample!r} needs cost={TIMED!r}, which times exits; got "
                f"cost={self.cost!r}."
            )
        if asked or self.exit_policy != LEARNED:
            self._refuse_bilevel(asked or {"exit_policy": self.exit_policy})

    def _refuse_bilevel(self, what: Any) -> None:
        check_joint(what, self.gate_training)

    def at(
        self,
        *,
        cost_weight: float | None = None,
        budget: float | None = None,
        max_accuracy_drop: float | None = None,
        seconds_per_sample: float | None = None,
        risk_confidence: float | None = None,
        exit_policy: str | None = None,
        exit_costs: Any = None,
        cost_batch_size: int | None = None,
        engine: str | None = None,
        precision: str | None = None,
        X_val: Any = None,
        y_val: Any = None,
    ) -> "EarlyExitClassifier":
        """The same classifier at another operating point, or in another engine or precision.

        Parameters
        ----------
        cost_weight, budget, max_accuracy_drop, seconds_per_sample : float, default=None
            One of them, as in the constructor. Seconds also go with a classifier that was fitted with another
            ``cost``: its exits are then timed here.
        risk_confidence : float, default=None
            As in the constructor, for all but ``cost_weight``; the calibration samples of this classifier are
            halved for it. Each call's statement holds by itself, not all calls' together.
        exit_policy : str, default=None
            As in the constructor; None keeps the policy.
        exit_costs : array-like (n_exits,), default=None
            Another price table, of a smaller machine say (:meth:`measure_costs`); None keeps
            ``exit_costs_``, or times exits anew in another engine if they are run times.
        cost_batch_size : int, default=None
            Times exits anew, in calls of so many samples. Given alone, it keeps the operating point.
        engine : str, default=None
            As in the constructor; None keeps the engine. Given alone, it keeps the operating point.
        precision : str, default=None
            As in the constructor; None keeps the precision. Another one answers other things, so that gates,
            probabilities and sets are learned anew on ``X_val``.
        X_val, y_val : array-like, default=None
            Only for ``precision``: samples that no network learned from, halved at random for the gates and for
            calibration.

        Returns
        -------
        EarlyExitClassifier
            Fitted; shares the weights, has gates and temperatures of its own, and is calibrated for
            them on the samples that calibrate this one.

        Raises
        ------
        ValueError
            If not exactly one of the first four is given, or it is not in its range, or gates are bilevel.
        """
        check_is_fitted(self)
        asked = {
            "cost_weight": cost_weight,
            "budget": budget,
            "max_accuracy_drop": max_accuracy_drop,
            "seconds_per_sample": seconds_per_sample,
        }
        if exit_costs is not None and (seconds_per_sample, cost_batch_size) != (None, None):
            raise ValueError(
                f"exit_costs={exit_costs!r} are costs that are known, but seconds_per_sample and cost_batch_size are "
                f"for costs that are timed here; leave out one of them."
            )
        there = self._in_engine(engine, precision, X_val, y_val)
        if exit_costs is None and there._is_to_be_timed(self, seconds_per_sample, cost_batch_size):
            there = there._timed(
                self.cost_batch_size if cost_batch_size is None else cost_batch_size
            )
        if there is not self:
            others = {
                **asked,
                "risk_confidence": risk_confidence,
                "exit_policy": exit_policy,
                "exit_costs": exit_costs,
            }
            is_alone = all(value is None for value in others.values())
            return there if is_alone else there.at(**others)
        check_one_target(asked)
        self._refuse_bilevel("at()")
        kept = self.cost_weight if cost_weight is None else cost_weight
        policy = self.exit_policy if exit_policy is None else exit_policy
        params = {**asked, "cost_weight": kept, "exit_policy": policy}
        other = copy.copy(self).set_params(**params, risk_confidence=risk_confidence)
        other._validate_params()
        other._check_operating_point()
        costs, least = self._predictor.frontier.exit_costs, self._predictor.least_cost
        if exit_costs is not None:
            costs = as_price_table(exit_costs, "exit_costs", self.exits_)
            least = costs[0]
        plain_seconds = self._predictor.cascade.plain_seconds
        check_limit(budget, seconds_per_sample, least, plain_seconds)
        target = CascadeSpec.of(other).operating_target(plain_seconds)
        moved = self._predictor.at(**target, exit_policy=policy, exit_costs=costs)
        return other._adopt(other._certified(moved))

    def _in_engine(
        self, engine: str | None, precision: str | None, X_val: Any, y_val: Any
    ) -> "EarlyExitClassifier":
        """The same classifier, which another engine answers, in another precision; itself if none is given."""
        for name, given in (("X_val", X_val), ("y_val", y_val)):
            if precision is None and given is not None:
                raise ValueError(f"{name} is given, but only another precision learns from it.")
        asked = {"engine": engine, "precision": precision}
        others = {name: value for name, value in asked.items() if value is not None}
        if not others:
            return self
        other = copy.copy(self).set_params(**others)
        other._validate_params()
        spec, predictor = CascadeSpec.of(other), self._predictor
        if precision not in (None, predictor.cascade.engine.precision):
            options = self._loader_options()
            rng = check_random_state(self.random_state)
            predictor = moved_to_precision(spec, predictor, X_val, y_val, options, rng)
        # Only float32 is the same in another engine.
        moves = predictor.cascade.engine.precision == FLOAT32 or predictor is self._predictor
        return other._adopt(in_engine(spec, predictor) if moves else predictor)

    def predictor(self) -> runtime.Predictor:
        """What answers, without the estimator: for a service that answers one sample at a time.

        Returns
        -------
        :class:`~sklearn_jeidnn.runtime.Predictor`
            At this operating point, with ``predict``, ``predict_proba``, ``predict_exit``, ``predict_set``, ``at``.
        """
        check_is_fitted(self)
        return runtime.Predictor(self._predictor, self.gate_training)

    def control_risk(
        self,
        X: Any,
        y: Any = None,
        *,
        max_disagreement: float | None = None,
        max_accuracy_drop: float | None = None,
        budget: float | None = None,
        risk_confidence: float = 0.95,
    ) -> "EarlyExitClassifier":
        """The same classifier at the cheapest operating point that keeps to a limit, as samples of yours show.

        For samples like ``X``, and with probability ``risk_confidence`` over the drawing of ``X``, the
        limit holds [1]_. Points are tested one after the other, in an order that the samples held out in
        ``fit`` set, up to the first that these samples do not show to keep to the limit.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset
            Samples that trained, chose and calibrate nothing.
        y : array-like (n_samples,), default=None
            Only for ``max_accuracy_drop``; a dataset of pairs (sample, label) brings it.
        max_disagreement : float, default=None
            Largest share of samples whose label is not the plain backbone's. Gates are made for it, and at
            the last exit samples get the plain backbone's answer.
        max_accuracy_drop : float, default=None
            Largest loss of accuracy against the plain backbone.
        budget : float, default=None
            Largest mean cost; the most expensive point that keeps to it is taken.
        risk_confidence : float, default=0.95

        Returns
        -------
        EarlyExitClassifier
            As :meth:`at` returns it; ``risk_`` tells what was shown. If no point passes, a warning says
            so, and all samples get the plain backbone's answer (for ``budget``, leave at the first exit).

        References
        ----------
        .. [1] Angelopoulos, Bates, Candès, Jordan, Lei, "Learn then Test", Annals of Applied
           Statistics 2025.
        """
        check_is_fitted(self)
        self._refuse_bilevel("control_risk()")
        limits = {
            DISAGREEMENT: max_disagreement,
            ACCURACY_DROP: max_accuracy_drop,
            MEAN_COST: budget,
        }
        brings_labels = is_dataset(X) and max_accuracy_drop is not None
        risk, limit = one_limit(limits, y is not None or brings_labels, risk_confidence)
        check_budget(budget, self.exit_costs_)
        given = read_dataset(GivenSamples(X=X, y=y), self._loader_options())
        answers, leakage = self._answers_and_leakage(
            given.X, given.y, needs_labels=risk == ACCURACY_DROP
        )
        check_certifiable(leakage, risk_confidence)
        controlled = self._predictor.controlled(
            answers, risk=risk, limit=limit, confidence=risk_confidence
        )
        return copy.copy(self)._adopt(controlled)

    def conformalize(self, X: Any, y: Any = None, *, groups: Any = None) -> "EarlyExitClassifier":
        """Calibrate prediction sets, and what is left to a human, on samples that trained and chose nothing.

        ``conformity_score`` and ``condition_on`` are read anew.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset
        y : array-like (n_samples,)
            None if ``X`` is a dataset of pairs (sample, label).
        groups : array-like (n_samples,), default=None
            Groups of these samples, in the place of ``condition_on``; :meth:`predict_set` then takes
            those of its samples.

        Returns
        -------
        self
            Only what :meth:`predict_set` and :meth:`predict_or_defer` answer changes.
        """
        check_is_fitted(self)
        self._validate_params()
        predictor = self._predictor
        given = read_dataset(GivenSamples(X=X, y=y), self._loader_options())
        arrays = check_inputs(predictor.schema, given.X)
        codes = codes_of(predictor.schema, given.y, len(arrays[0]))
        rule = self._set_rule(predictor.rule.seed, takes_groups=groups is not None)
        rule.try_functions(predictor.schema, arrays)
        samples = CalibrationSamples.read(
            rule, predictor.schema, predictor.cascade, arrays, codes, groups
        )
        leakage = predictor.leakage_of(input_hashes(arrays), codes)
        if leakage is not None:
            warn_caller(f"{leakage}. {WHAT_TO_DO}")
        return self._adopt(predictor.conformalized(rule, samples, leakage))

    @property
    def frontier_(self) -> dict[str, np.ndarray]:
        predictor = vars(self).get("_predictor")
        if predictor is None or self.gate_training != "joint":
            raise AttributeError("frontier_ is there after fit with gate_training='joint'.")
        table: dict[str, np.ndarray] = predictor.frontier.table
        return table

    def frontier(
        self, X: Any, y: Any = None, *, exit_policy: str | None = None
    ) -> dict[str, np.ndarray]:
        """What each operating point of ``frontier_`` does to other samples.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset
        y : array-like (n_samples,)
            None if ``X`` is a dataset of pairs (sample, label).
        exit_policy : str, default=None
            Another policy on the same exits, tuned on the same held-out samples: one of those of the
            constructor. None keeps the policy.

        Returns
        -------
        dict of str to ndarray (n_points,)
            ``cost_weight``, ``mean_cost``, ``accuracy``, ``backbone_accuracy`` (of the plain backbone, the same
            in every row), ``log_loss``; ``exit0_rate`` and so on, the share of samples that leave at each exit;
            ``single_exit``, the most accurate exit that costs no
            more if every sample leaves there (-1 if none does), and its ``single_accuracy``;
            ``single_exit_suffices``, True where these samples do not show (5 %, one-sided) that the point is
            better than that exit.

        Raises
        ------
        ValueError
            If there is no such policy, or gates are bilevel.
        """
        check_is_fitted(self)
        self._refuse_bilevel("a frontier")
        policy = self.exit_policy if exit_policy is None else exit_policy
        if not isinstance(policy, str) or policy not in EXIT_POLICIES:
            raise ValueError(f"exit_policy={policy!r} is not known; give one of {EXIT_POLICIES}.")
        return self._predictor.frontier.with_policy(policy).measured(self._answers(X, y))

    def exit_answers(self, X: Any, y: Any = None, sample_weight: Any = None) -> ExitAnswers:
        """What every exit answers for some samples, whichever exit they would take.

        Parameters
        ----------
        X : array-like (n_samples, ...) or torch Dataset
        y : array-like (n_samples,)
            None if ``X`` is a dataset of pairs (sample, label).
        sample_weight : array-like (n_samples,), default=None

        Returns
        -------
        ExitAnswers
            ``logits`` (n_samples, n_exits, n_classes), ``gate_inputs``, ``codes``, ``weights``,
            ``errors`` and ``log_losses`` (n_samples, n_exits); ``exit_errors()`` (n_exits,).
        """
        check_is_fitted(self)
        answers = self._answers(X, y)
        return replace(answers, weights=check_weights(sample_weight, answers.codes))


def _refuse_unexpected(name: str, unexpected: list[str]) -> None:
    if unexpected:
        raise TypeError(
            f"{name} got unexpected parameters {unexpected}; besides its own it takes those that "
            f"start with one of {PREFIXES}."
        )

"""Metrics. Those that are one value a row run inside the Plan; the others are computed exactly at an epoch's end, from
the predictions that the epoch made (each row's before its own update).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastnn import evaluation, losses
from fastnn.configurable import Configurable, number, table
from fastnn.graph import Tensor
from fastnn.ops import loss, metric
from fastnn.ops.declare import Op


class Metric(Configurable):
    """Base class. ``name`` is the key in ``History.history``. Called on arrays it gives the metric.

    >>> BinaryAccuracy()([1, 0, 1, 1], [0.9, 0.2, 0.4, 0.8])
    0.75
    """

    default_name: ClassVar[str] = ""

    def __init__(self, name: str | None = None) -> None:
        if name is not None and not isinstance(name, str):
            raise ValueError(f"{type(self).__name__}: name must be a text. Received: name={name!r:.80}")
        self.name = name or self.default_name

    def __call__(self, y_true: Any, y_pred: Any) -> float:
        p = np.asarray(y_pred, np.float64)
        y = np.asarray(y_true, np.float64)
        p = p[:, None] if p.ndim == 1 else p
        y = y[:, None] if y.ndim == 1 else y
        return self.compute(y, p)

    def compute(self, y: np.ndarray, p: np.ndarray) -> float:
        """The metric for targets ``y`` and predictions ``p``, both (N, C) (labels are (N, 1))."""
        raise NotImplementedError

    def check(self, y: np.ndarray, outputs: int | None) -> None:
        """Before anything runs: whether the metric can be had of targets ``y`` and so many outputs; else ValueError."""


class _Alike(Metric):
    """Compares outputs with as many targets."""

    def check(self, y: np.ndarray, outputs: int | None) -> None:
        if y.shape[1:] != (outputs,):
            raise ValueError(f"{type(self).__name__}: needs targets of shape (N, {outputs}). Received: shape {y.shape}")


class _OfClasses(_Alike):
    """Compares with targets that are 0 or 1."""

    def check(self, y: np.ndarray, outputs: int | None) -> None:
        super().check(y, outputs)
        other = (y != 0) & (y != 1)
        if other.any():
            raise ValueError(f"{type(self).__name__}: needs targets 0 and 1. Received: {y[other][0]:g}")


class RowMetric(Metric):
    """The mean of one value a row, given by ``op(p, y)``."""

    op: ClassVar[Op]

    def rows(self, y: Tensor, p: Tensor) -> Any:
        """One value a row, (N,)."""
        return self.op(p, y)

    def compute(self, y: np.ndarray, p: np.ndarray) -> float:
        return float(np.mean(self.rows(y, p)))  # type: ignore[arg-type]


class BinaryAccuracy(RowMetric):
    """The share of outputs with ``(p > threshold) == y``."""

    default_name = "binary_accuracy"

    def __init__(self, name: str | None = None, threshold: float = 0.5) -> None:
        super().__init__(name)
        self.threshold = number("BinaryAccuracy", "threshold", threshold)

    def rows(self, y: Tensor, p: Tensor) -> Any:
        return metric.binary_accuracy(p, y, threshold=self.threshold)


class CategoricalAccuracy(RowMetric):
    """How often the largest prediction is at the largest target.

    Example:
        >>> CategoricalAccuracy()([[0, 1], [1, 0]], [[0.2, 0.8], [0.3, 0.7]])
        0.5
    """

    default_name = "categorical_accuracy"
    op = metric.categorical_accuracy


class SparseCategoricalAccuracy(RowMetric):
    """How often the largest prediction is at the label.

    Example:
        >>> SparseCategoricalAccuracy()([1, 0], [[0.2, 0.8], [0.3, 0.7]])
        0.5
    """

    default_name = "sparse_categorical_accuracy"
    op = metric.sparse_categorical_accuracy


class MeanSquaredError(RowMetric):
    """The mean of ``(y - p)^2``.

    Example:
        >>> MeanSquaredError()([1.0, 4.0], [0.0, 2.0])
        2.5
    """

    default_name = "mean_squared_error"
    op = loss.mean_squared_error


class MeanAbsoluteError(RowMetric):
    """The mean of ``|y - p|``.

    Example:
        >>> MeanAbsoluteError()([1.0, 4.0], [0.0, 2.0])
        1.5
    """

    default_name = "mean_absolute_error"
    op = loss.mean_absolute_error


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


class _Binary(_OfClasses):
    """A metric of two classes, from ``fastnn.evaluation``."""

    key: ClassVar[str]

    def __init__(self, name: str | None = None, threshold: float = 0.5) -> None:
        super().__init__(name)
        self.threshold = number(type(self).__name__, "threshold", threshold)

    def compute(self, y: np.ndarray, p: np.ndarray) -> float:
        self.check(y, p.shape[1])
        return _or_nan(evaluation.binary_metrics(y.reshape(-1), p.reshape(-1), self.threshold)[self.key])


class Precision(_Binary):
    """True positives among predicted positives; NaN where nothing is predicted positive.

    Example:
        >>> Precision()([1, 0, 1], [0.9, 0.8, 0.2])
        0.5
    """

    default_name = key = "precision"


class Recall(_Binary):
    """True positives among positives (sensitivity); NaN without positives.

    Example:
        >>> Recall()([1, 0, 1], [0.9, 0.8, 0.2])
        0.5
    """

    default_name = key = "recall"


class Specificity(_Binary):
    """True negatives among negatives; NaN without negatives.

    Example:
        >>> Specificity()([1, 0, 0], [0.9, 0.8, 0.2])
        0.5
    """

    default_name = key = "specificity"


class F1Score(_Binary):
    """The harmonic mean of precision and recall.

    Example:
        >>> F1Score()([1, 0, 1], [0.9, 0.8, 0.2])
        0.5
    """

    default_name = "f1_score"
    key = "f1"


class AUC(_OfClasses):
    """The exact area under the ROC curve, ties counted half; NaN if only one class is there.

    Example:
        >>> AUC()([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9])
        0.875
    """

    default_name = "auc"

    def compute(self, y: np.ndarray, p: np.ndarray) -> float:
        return _or_nan(evaluation.roc_auc(y.reshape(-1), p.reshape(-1)))


class RootMeanSquaredError(_Alike):
    """``sqrt(mean((y - p)^2))``.

    Example:
        >>> RootMeanSquaredError()([0.0, 0.0], [3.0, 3.0])
        3.0
    """

    default_name = "root_mean_squared_error"

    def compute(self, y: np.ndarray, p: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.square(p.astype(np.float64) - y))))


class R2Score(_Alike):
    """The share of the targets' variance that is explained; NaN for constant targets.

    Example:
        >>> R2Score()([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
        1.0
    """

    default_name = "r2_score"

    def compute(self, y: np.ndarray, p: np.ndarray) -> float:
        return _or_nan(evaluation.regression_metrics(y.reshape(-1), p.reshape(-1))["r2"])


class FunctionMetric(Metric):
    """Any function ``f(y_true, y_pred) -> float`` of two arrays (N, C), such as ``sklearn.metrics.roc_auc_score``."""

    def __init__(self, function: Callable[[np.ndarray, np.ndarray], float], name: str | None = None) -> None:
        super().__init__(name or getattr(function, "__name__", "metric"))
        self.function = function

    def compute(self, y: np.ndarray, p: np.ndarray) -> float:
        return float(self.function(y, p))


METRICS = table(
    [BinaryAccuracy, CategoricalAccuracy, SparseCategoricalAccuracy, MeanSquaredError, MeanAbsoluteError, Precision,
     Recall, Specificity, F1Score, AUC, RootMeanSquaredError, R2Score]
)  # fmt: skip
_NAMES: dict[str, type[Metric]] = {
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "precision": Precision,
    "recall": Recall,
    "sensitivity": Recall,
    "specificity": Specificity,
    "f1_score": F1Score,
    "f1": F1Score,
    "auc": AUC,
    "root_mean_squared_error": RootMeanSquaredError,
    "rmse": RootMeanSquaredError,
    "r2_score": R2Score,
    "r2": R2Score,
}


def get(value: Any, of_loss: losses.Loss, outputs: int | None) -> Metric:
    """The metric with that name, the object itself, or one made of a function.

    A metric asked for by name is called so in the history. "accuracy" is the one that suits the loss and the outputs.
    """
    if isinstance(value, Metric):
        return value
    if isinstance(value, type) and issubclass(value, Metric):
        return value()
    if isinstance(value, str) and value.lower() in ("accuracy", "acc"):
        if of_loss.labels:
            return SparseCategoricalAccuracy(value)
        if isinstance(of_loss, losses.BinaryCrossentropy) or outputs == 1:
            threshold = 0.0 if of_loss.from_logits else 0.5
            return BinaryAccuracy(value, threshold=threshold)
        return CategoricalAccuracy(value)
    if isinstance(value, str) and value.lower() in _NAMES:
        chosen = _NAMES[value.lower()]
        if issubclass(chosen, _Binary | BinaryAccuracy) and of_loss.from_logits:
            return chosen(value, threshold=0.0)  # the model's outputs are logits: 0 is the probability 0.5
        return chosen(value)
    if callable(value):
        return FunctionMetric(value)
    known = ", ".join(["accuracy", *_NAMES])
    raise ValueError(f"metrics: each must be a Metric, a function or one of {known}. Received: {value!r}")

"""Metrics of rows: accuracies, errors, and those of two classes and of regression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastnn import evaluation
from fastnn.configurable import number
from fastnn.metrics.base import Metric, RowMetric
from fastnn.ops import loss, metric


class Alike(Metric):
    """Compares outputs with as many targets."""

    def check(self, y: np.ndarray, outputs: int | None) -> None:
        if y.shape[-1] != outputs:
            wanted = ", ".join(map(str, ("N", *y.shape[1:-1], outputs)))
            raise ValueError(f"{type(self).__name__}: needs targets of shape ({wanted}). Received: shape {y.shape}")


class OfClasses(Alike):
    """Compares with targets that are 0 or 1."""

    def check(self, y: np.ndarray, outputs: int | None) -> None:
        super().check(y, outputs)
        other = (y != 0) & (y != 1)
        if other.any():
            raise ValueError(f"{type(self).__name__}: needs targets 0 and 1. Received: {y[other][0]:g}")


class BinaryAccuracy(RowMetric):
    """The share of outputs with ``(p > threshold) == y``."""

    default_name = "binary_accuracy"

    def __init__(self, name: str | None = None, threshold: float = 0.5) -> None:
        super().__init__(name)
        self.threshold = number("BinaryAccuracy", "threshold", threshold)

    def rows(self, y: Any, p: Any) -> Any:
        return metric.binary_accuracy(p, y, threshold=self.threshold)


class CategoricalAccuracy(RowMetric):
    """How often the largest prediction is at the largest target.

    Example:
        >>> CategoricalAccuracy()([[0, 1], [1, 0]], [[0.2, 0.8], [0.3, 0.7]])
        0.5
    """

    default_name = "categorical_accuracy"
    op = metric.categorical_accuracy


class ClassAccuracy(RowMetric):
    """CategoricalAccuracy, or SparseCategoricalAccuracy where the targets are labels: their shape says it."""

    default_name = "accuracy"

    def rows(self, y: Any, p: Any) -> Any:
        labels = y.shape[-1] == 1 and p.shape[-1] > 1
        return metric.sparse_categorical_accuracy(p, y) if labels else metric.categorical_accuracy(p, y)


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


class Binary(OfClasses):
    """A metric of two classes, from ``fastnn.evaluation``."""

    key: ClassVar[str]

    def __init__(self, name: str | None = None, threshold: float = 0.5) -> None:
        super().__init__(name)
        self.threshold = number(type(self).__name__, "threshold", threshold)

    def compute(self, y: np.ndarray, p: np.ndarray) -> float:
        self.check(y, p.shape[-1])
        return _or_nan(evaluation.binary_metrics(y.reshape(-1), p.reshape(-1), self.threshold)[self.key])


class Precision(Binary):
    """True positives among predicted positives; NaN where nothing is predicted positive.

    Example:
        >>> Precision()([1, 0, 1], [0.9, 0.8, 0.2])
        0.5
    """

    default_name = key = "precision"


class Recall(Binary):
    """True positives among positives (sensitivity); NaN without positives.

    Example:
        >>> Recall()([1, 0, 1], [0.9, 0.8, 0.2])
        0.5
    """

    default_name = key = "recall"


class Specificity(Binary):
    """True negatives among negatives; NaN without negatives.

    Example:
        >>> Specificity()([1, 0, 0], [0.9, 0.8, 0.2])
        0.5
    """

    default_name = key = "specificity"


class F1Score(Binary):
    """The harmonic mean of precision and recall.

    Example:
        >>> F1Score()([1, 0, 1], [0.9, 0.8, 0.2])
        0.5
    """

    default_name = "f1_score"
    key = "f1"


class AUC(OfClasses):
    """The exact area under the ROC curve, ties counted half; NaN if only one class is there.

    Example:
        >>> AUC()([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9])
        0.875
    """

    default_name = "auc"

    def compute(self, y: np.ndarray, p: np.ndarray) -> float:
        return _or_nan(evaluation.roc_auc(y.reshape(-1), p.reshape(-1)))


class RootMeanSquaredError(Alike):
    """``sqrt(mean((y - p)^2))``.

    Example:
        >>> RootMeanSquaredError()([0.0, 0.0], [3.0, 3.0])
        3.0
    """

    default_name = "root_mean_squared_error"

    def compute(self, y: np.ndarray, p: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.square(p.astype(np.float64) - y))))


class R2Score(Alike):
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

"""Metrics. Those that are made of sums over rows or pixels run inside the Plan; the others are computed exactly at an
epoch's end, from the predictions that the epoch made (each row's before its own update).
"""

from __future__ import annotations

from typing import Any

from fastnn import losses
from fastnn.configurable import table
from fastnn.metrics.base import Metric, RowMetric, SummedMetric
from fastnn.metrics.basic import (
    AUC,
    Binary,
    BinaryAccuracy,
    CategoricalAccuracy,
    ClassAccuracy,
    F1Score,
    FunctionMetric,
    MeanAbsoluteError,
    MeanSquaredError,
    Precision,
    R2Score,
    Recall,
    RootMeanSquaredError,
    SparseCategoricalAccuracy,
    Specificity,
)
from fastnn.metrics.overlap import BinaryIoU, DiceScore, IoU, MeanIoU, OneHotIoU, OneHotMeanIoU, Overlap

__all__ = [
    "AUC",
    "METRICS",
    "BinaryAccuracy",
    "BinaryIoU",
    "CategoricalAccuracy",
    "DiceScore",
    "F1Score",
    "FunctionMetric",
    "IoU",
    "MeanAbsoluteError",
    "MeanIoU",
    "MeanSquaredError",
    "Metric",
    "OneHotIoU",
    "OneHotMeanIoU",
    "Precision",
    "R2Score",
    "Recall",
    "RootMeanSquaredError",
    "RowMetric",
    "SparseCategoricalAccuracy",
    "Specificity",
    "SummedMetric",
    "get",
]

METRICS = table(
    [BinaryAccuracy, CategoricalAccuracy, SparseCategoricalAccuracy, MeanSquaredError, MeanAbsoluteError, Precision,
     Recall, Specificity, F1Score, AUC, RootMeanSquaredError, R2Score, DiceScore, IoU, MeanIoU, BinaryIoU, OneHotIoU,
     OneHotMeanIoU]
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
    "dice_score": DiceScore,
    "dice": DiceScore,
    "mean_iou": MeanIoU,
    "binary_iou": BinaryIoU,
    "one_hot_mean_iou": OneHotMeanIoU,
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
        if of_loss.binary or outputs == 1:
            threshold = 0.0 if of_loss.from_logits else 0.5
            return BinaryAccuracy(value, threshold=threshold)
        return ClassAccuracy(value) if of_loss.labels is None else CategoricalAccuracy(value)
    if isinstance(value, str) and value.lower() in _NAMES:
        chosen = _NAMES[value.lower()]
        made = chosen(name=value)
        if isinstance(made, Overlap):
            decisions = outputs == 1 or of_loss.binary or isinstance(made, BinaryIoU)
            made.threshold = (0.0 if of_loss.from_logits else 0.5) if decisions else None
        elif isinstance(made, Binary | BinaryAccuracy) and of_loss.from_logits:
            made.threshold = 0.0  # the model's outputs are logits: 0 is the probability 0.5
        return made
    if callable(value):
        return FunctionMetric(value)
    known = ", ".join(["accuracy", *_NAMES])
    raise ValueError(f"metrics: each must be a Metric, a function or one of {known}. Received: {value!r}")

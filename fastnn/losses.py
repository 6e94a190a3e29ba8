"""Losses. Each gives one value a row; the loss of a batch is their mean, weighted rows counted with their weight."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnn.configurable import Configurable, choose, number, table
from fastnn.graph import Tensor
from fastnn.ops import loss, pointwise, softmax
from fastnn.ops.declare import Op


class Loss(Configurable):
    """Base class.

    ``rows(y, p)`` records the loss of each row, (N,), for targets ``y`` and predictions ``p``, both (N, C) (labels are
    (N, 1)). ``targets(y, shape)`` checks and prepares the targets. Called on arrays, the mean over the rows:

    >>> MeanSquaredError()([[0.0], [2.0]], [[0.0], [0.0]])
    2.0
    """

    op: ClassVar[Op]
    activation: ClassVar[Op | None] = None  # what turns logits into this loss's predictions
    labels: ClassVar[bool] = False
    from_logits = False
    label_smoothing = 0.0

    def rows(self, y: Tensor, p: Any) -> Any:
        """One loss value a row."""
        if self.from_logits and self.activation is not None:
            p = self.activation(p)
        return self.op(p, y)

    def target_shape(self, output: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the targets for predictions of shape ``output``."""
        if len(output) != 2:
            raise ValueError(f"{self._name}: needs a model with outputs (N, C). Received: output shape {output}")
        return (None, 1) if self.labels else output

    def targets(self, y: np.ndarray, output: tuple[int | None, ...]) -> np.ndarray:
        """``y`` in the shape of ``target_shape``, its values checked."""
        shape = self.target_shape(output)
        if y.ndim == 1 and shape[1] == 1:
            y = y[:, None]
        if y.shape[1:] != shape[1:]:
            hint = ""
            if y.ndim <= 2 and y.size == len(y):
                hint = "; for integer labels use sparse_categorical_crossentropy"
            raise ValueError(f"{self._name}: y must have shape (N, {shape[1]}){hint}. Received: shape {y.shape}")
        return self.check(y, output)

    def check(self, y: np.ndarray, output: tuple[int | None, ...]) -> np.ndarray:
        """Check the values of targets that have the right shape."""
        return y

    def smooth(self, y: np.ndarray) -> np.ndarray:
        """The targets as the loss takes them, ``label_smoothing`` applied. Metrics take ``y`` itself."""
        return y

    @property
    def _name(self) -> str:
        return type(self).__name__

    def __call__(self, y_true: Any, y_pred: Any) -> float:
        p = np.asarray(y_pred, np.float64)
        p = p[:, None] if p.ndim == 1 else p
        y = self.targets(np.asarray(y_true, np.float64), p.shape)
        if self.from_logits and self.activation is not None:
            p = self.activation(p)
        return float(np.mean(self.op(p, self.smooth(y))))


class MeanSquaredError(Loss):
    """``mean((y - p)^2)``."""

    op = loss.mean_squared_error


class MeanAbsoluteError(Loss):
    """``mean(|y - p|)``.

    Example:
        >>> MeanAbsoluteError()([[1.0], [4.0]], [[0.0], [2.0]])
        1.5
    """

    op = loss.mean_absolute_error


class _Smoothed(Loss):
    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        self.from_logits = bool(from_logits)
        self.label_smoothing = number(self._name, "label_smoothing", label_smoothing, low=0, high=1)

    def check(self, y: np.ndarray, output: tuple[int | None, ...]) -> np.ndarray:
        if not ((y >= 0) & (y <= 1)).all():
            raise ValueError(f"{self._name}: y must be between 0 and 1. Received: values {y.min():g} to {y.max():g}")
        return y


class BinaryCrossentropy(_Smoothed):
    """``-mean(y log p + (1 - y) log(1 - p))``; targets 0 .. 1.

    After a sigmoid it is computed from the logits. ``label_smoothing`` s pulls targets to 1/2: ``y (1 - s) + s / 2``.

    Example:
        >>> round(BinaryCrossentropy()([1, 0], [0.8, 0.4]), 4)
        0.367
    """

    op = loss.binary_crossentropy
    activation = pointwise.sigmoid

    def smooth(self, y: np.ndarray) -> np.ndarray:
        s = self.label_smoothing
        return y * (1.0 - s) + 0.5 * s if s else y


class CategoricalCrossentropy(_Smoothed):
    """``-sum(y log p)``; targets (N, C) that sum to 1, such as one-hot rows.

    After a softmax it is computed from the logits. ``label_smoothing`` s: ``y (1 - s) + s / C``.

    Example:
        >>> round(CategoricalCrossentropy()([[0, 1]], [[0.2, 0.8]]), 4)
        0.2231
    """

    op = loss.categorical_crossentropy
    activation = softmax.softmax

    def smooth(self, y: np.ndarray) -> np.ndarray:
        s = self.label_smoothing
        return y * (1.0 - s) + s / y.shape[1] if s else y


class SparseCategoricalCrossentropy(Loss):
    """``-log p[label]``; targets are integer labels 0 .. C-1, (N,) or (N, 1).

    Example:
        >>> round(SparseCategoricalCrossentropy()([1], [[0.2, 0.8]]), 4)
        0.2231
    """

    op = loss.sparse_categorical_crossentropy
    activation = softmax.softmax
    labels = True

    def __init__(self, from_logits: bool = False) -> None:
        self.from_logits = bool(from_logits)

    def check(self, y: np.ndarray, output: tuple[int | None, ...]) -> np.ndarray:
        classes = output[1] or 0
        wrong = (y != np.round(y)) | (y < 0) | (y >= classes)
        if wrong.any():
            raise ValueError(f"{self._name}: y must hold the labels 0 to {classes - 1}. Received: {y[wrong][0]:g}")
        return y


LOSSES = table(
    [MeanSquaredError, MeanAbsoluteError, BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy]
)
_NAMES = {
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "binary_crossentropy": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
}


def get(value: Any) -> Loss:
    """The loss with that name, or the object itself."""
    chosen: Loss = choose(value, _NAMES, Loss, "loss")
    return chosen

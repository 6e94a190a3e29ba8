"""Losses that are a mean over rows or pixels: errors and cross-entropies."""

from __future__ import annotations

from typing import Any

from fastnn.configurable import number
from fastnn.losses.base import Loss
from fastnn.ops import loss, pointwise
from fastnn.ops.softmax import softmax


class MeanSquaredError(Loss):
    """``mean((y - p)^2)``.

    Example:
        >>> MeanSquaredError()([[1.0], [4.0]], [[0.0], [2.0]])
        2.5
    """

    op = loss.mean_squared_error


class MeanAbsoluteError(Loss):
    """``mean(|y - p|)``.

    Example:
        >>> MeanAbsoluteError()([[1.0], [4.0]], [[0.0], [2.0]])
        1.5
    """

    op = loss.mean_absolute_error


class Smoothed(Loss):
    """A loss on probabilities or logits, with targets 0 .. 1 that can be smoothed.

    Args:
        from_logits: whether the predictions are logits
        label_smoothing: 0 .. 1, how far targets are pulled to the mean
    """

    unit = True

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        self.from_logits = bool(from_logits)
        self.label_smoothing = number(self._name, "label_smoothing", label_smoothing, low=0, high=1)

    def smooth(self, y: Any, p: Any) -> Any:
        """``y`` pulled to 1 / C, or to 1/2 where each output is a decision of its own. Metrics see ``y`` itself."""
        s = self.label_smoothing
        return pointwise.affine(y, scale=1.0 - s, offset=s / (2 if self.binary else p.shape[-1])) if s else y

    def values(self, y: Any, p: Any) -> Any:
        """One loss value a row or pixel."""
        return super().values(self.smooth(y, p), p)


class BinaryCrossentropy(Smoothed):
    """``-mean(y log p + (1 - y) log(1 - p))``; targets 0 .. 1.

    After a sigmoid it is computed from the logits. ``label_smoothing`` s pulls targets to 1/2: ``y (1 - s) + s / 2``.

    Example:
        >>> round(BinaryCrossentropy()([1, 0], [0.8, 0.4]), 4)
        0.367
    """

    op = loss.binary_crossentropy
    activation = pointwise.sigmoid
    binary = True


class CategoricalCrossentropy(Smoothed):
    """``-sum(y log p)``; targets (N, ..., C) that sum to 1, such as one-hot rows.

    After a softmax it is computed from the logits. ``label_smoothing`` s: ``y (1 - s) + s / C``.

    Example:
        >>> round(CategoricalCrossentropy()([[0, 1]], [[0.2, 0.8]]), 4)
        0.2231
    """

    op = loss.categorical_crossentropy
    activation = softmax


class SparseCategoricalCrossentropy(Loss):
    """``-log p[label]``; targets are integer labels 0 .. C-1, (N, ...) or (N, ..., 1).

    Example:
        >>> round(SparseCategoricalCrossentropy()([1], [[0.2, 0.8]]), 4)
        0.2231
    """

    op = loss.sparse_categorical_crossentropy
    activation = softmax
    labels = True

    def __init__(self, from_logits: bool = False) -> None:
        self.from_logits = bool(from_logits)

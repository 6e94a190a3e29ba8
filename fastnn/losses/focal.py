"""Focal cross-entropies: means over rows or pixels in which those that are right already count less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn.configurable import number
from fastnn.graph import Shape
from fastnn.losses.rowwise import Smoothed
from fastnn.ops import focal, pointwise
from fastnn.ops.softmax import softmax


class BinaryFocalCrossentropy(Smoothed):
    """``-mean(w e^gamma (y log p + (1 - y) log(1 - p)))``, ``e = y (1 - p) + (1 - y) p`` (Lin et al., 2017,
    arXiv:1708.02002).

    After a sigmoid it is computed from the logits, exactly for confident predictions too. Targets are 0 .. 1, of the
    outputs' shape (N, ..., C).

    Args:
        apply_class_balancing: whether ``w = alpha y + (1 - alpha) (1 - y)``; else w is 1
        alpha: 0 .. 1, weight of the class 1
        gamma: not negative, how much less the examples count that are right; 0: as many as in BinaryCrossentropy
        from_logits: whether the predictions are logits
        label_smoothing: 0 .. 1, pulls targets to 1/2

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> round(BinaryFocalCrossentropy(gamma=2)([[0, 1], [0, 0]], [[0.6, 0.4], [0.4, 0.6]]), 4)
        0.2678
    """

    op = focal.binary_focal_crossentropy
    activation = pointwise.sigmoid
    binary = True

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(from_logits, label_smoothing)
        self.apply_class_balancing = bool(apply_class_balancing)
        self.alpha = number(self._name, "alpha", alpha, low=0, high=1)
        self.gamma = number(self._name, "gamma", gamma, low=0)

    def attributes(self, classes: int) -> dict[str, Any]:
        positive, negative = (self.alpha, 1.0 - self.alpha) if self.apply_class_balancing else (1.0, 1.0)
        return {"gamma": self.gamma, "positive": positive, "negative": negative}


class CategoricalFocalCrossentropy(Smoothed):
    """``-sum(alpha y (1 - p)^gamma log p)`` over the classes (Lin et al., 2017, arXiv:1708.02002).

    After a softmax it is computed from the logits. Targets are (N, ..., C), 0 .. 1, or, where labels are not smoothed,
    integer labels (N, ...) or (N, ..., 1).

    Args:
        alpha: a number, or a list of one a class: their weights, not negative
        gamma: not negative, how much less the examples count that are right
        from_logits: whether the predictions are logits
        label_smoothing: 0 .. 1, pulls targets to 1 / C

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> p = [[0.05, 0.9, 0.05], [0.1, 0.85, 0.05]]
        >>> round(CategoricalFocalCrossentropy()([[0, 1, 0], [0, 0, 1]], p), 4)
        0.3381
        >>> round(CategoricalFocalCrossentropy()([1, 2], p), 4)
        0.3381
    """

    op = focal.categorical_focal_crossentropy
    activation = softmax

    def __init__(
        self,
        alpha: float | Sequence[float] = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(from_logits, label_smoothing)
        self.alpha: float | tuple[float, ...]
        if isinstance(alpha, list | tuple | np.ndarray) and len(alpha):
            self.alpha = tuple(number(self._name, "alpha", value, low=0) for value in alpha)
        else:
            self.alpha = number(self._name, "alpha", alpha, low=0)
        self.gamma = number(self._name, "gamma", gamma, low=0)
        self.labels = False if self.label_smoothing else None

    def attributes(self, classes: int) -> dict[str, Any]:
        weights = self.alpha if isinstance(self.alpha, tuple) else (self.alpha,) * classes
        return {"gamma": self.gamma, "class_weights": weights}

    def forms(self, output: Shape) -> list[Shape]:
        if isinstance(self.alpha, tuple) and len(self.alpha) != output[-1]:
            rule = f"{self._name}: alpha must be one number, or one for each of {output[-1]} classes"
            raise ValueError(f"{rule}. Received: alpha={self.alpha}")
        return super().forms(output)

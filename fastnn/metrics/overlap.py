"""Metrics that compare regions, from counts of pixels over the whole epoch: Dice score and intersection over union."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fastnn.configurable import number, whole
from fastnn.losses.base import check_each
from fastnn.metrics.base import SummedMetric
from fastnn.ops import metric
from fastnn.ops.shape import reshape


class Overlap(SummedMetric):
    """The mean, over classes, of a number made of each class's true and false positives and false negatives.

    Predictions are (N, ..., C), targets of the same shape or labels (N, ...) or (N, ..., 1). A pixel's class is that of
    the largest prediction; with one output, or where there is a ``threshold``, outputs above it are positive. Pixels
    are counted over all samples together, as in Keras, in whole numbers: the result is the same on every backend, for
    any batch size and any number of threads. Sample weights do not count. Classes that are neither in the targets nor
    predicted are left out of the mean; it is NaN if none is left.
    """

    threshold: float | None = None
    target_class_ids: tuple[int, ...] | None = None
    num_classes: int | None = None
    joined: ClassVar[bool] = False  # whether all outputs are pixels of the same two classes
    both: ClassVar[bool] = True  # whether one output counts as two classes, 0 and 1

    def _classes(self, target_class_ids: Any) -> tuple[int, ...] | None:
        """The argument, checked."""
        if target_class_ids is None:
            return None
        name = type(self).__name__
        if isinstance(target_class_ids, str) or not isinstance(target_class_ids, Sequence) or not target_class_ids:
            raise ValueError(
                f"{name}: target_class_ids must be a list of classes. Received: target_class_ids={target_class_ids!r}"
            )
        return tuple(whole(name, "target_class_ids", label, low=0) for label in target_class_ids)

    def score(self, tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numerator and denominator for each class."""
        return tp, tp + fp + fn

    def _by_threshold(self, outputs: int) -> bool:
        return outputs == 1 or self.threshold is not None

    def check(self, y: np.ndarray, outputs: int | None) -> None:
        name, outputs = type(self).__name__, outputs or 1
        two = outputs == 1 or self.joined
        classes = 2 if two else outputs
        if self.num_classes is not None and self.num_classes != classes:
            raise ValueError(
                f"{name}: num_classes must be {classes}, that of a model with {outputs} outputs. "
                f"Received: num_classes={self.num_classes}"
            )
        if self.target_class_ids is not None and max(self.target_class_ids) >= classes:
            raise ValueError(
                f"{name}: target_class_ids must be less than {classes}, the number of classes. "
                f"Received: target_class_ids={list(self.target_class_ids)}"
            )
        labels = y.shape[-1] == 1 and not self._by_threshold(outputs)
        if not labels and y.shape[-1] != outputs:
            wanted = ", ".join(map(str, ("N", *y.shape[1:-1], outputs)))
            raise ValueError(f"{name}: needs targets of shape ({wanted}). Received: shape {y.shape}")
        if labels:
            rule = f"hold the labels 0 to {outputs - 1}"
            check_each(name, y, rule, lambda part: (part != np.rint(part)) | (part < 0) | (part >= outputs))
        else:
            check_each(name, y, "be between 0 and 1", lambda part: (part < 0) | (part > 1))

    def summands(self, y: Any, p: Any) -> Any:
        if len(p.shape) == 2:  # a row is one pixel
            p, y = (reshape(array, shape=(1, array.shape[-1])) for array in (p, y))
        if self._by_threshold(p.shape[-1]):
            return metric.threshold_counts(p, y, threshold=0.5 if self.threshold is None else self.threshold)
        return metric.class_counts(p, y)

    def result(self, sums: np.ndarray, rows: int) -> float:
        tp, fp, fn = sums[:3]
        if len(sums) == 4 and (self.joined or (self.both and sums.shape[1] == 1)):
            one = sums.sum(axis=1)  # the class 1; of the class 0 what is not found is found there, and so on
            tp, fp, fn = one[[3, 0]], one[[2, 1]], one[[1, 2]]
        above, below = self.score(tp, fp, fn)
        if self.target_class_ids is not None and len(above) > 1:
            above, below = above[list(self.target_class_ids)], below[list(self.target_class_ids)]
        there = below > 0
        return float((above[there] / below[there]).mean()) if there.any() else float("nan")

    def compute(self, y: np.ndarray, p: np.ndarray) -> float:
        if y.shape == p.shape[:-1]:
            y = y[..., None]
        self.check(y, p.shape[-1])
        return super().compute(y, p)


class DiceScore(Overlap):
    """``2 TP / (2 TP + FP + FN)`` of each class, over all pixels of all samples; the mean over the classes.

    With one output it is that of the class 1. Predictions and targets as said for ``IoU``.

    Args:
        target_class_ids: the classes that count; None: all
        threshold: above it an output counts as positive, each output by itself, as where regions may overlap. None: the
            largest output counts, and with one output, the threshold is 1/2
        name: key in the history

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> DiceScore()([[[1], [1], [0]]], [[[0.9], [0.2], [0.1]]])  # one of two found, no false alarm
        0.6666...
        >>> DiceScore(target_class_ids=[1])([[0, 1, 1]], [[[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]]])
        0.6666...
    """

    default_name = "dice_score"
    both = False

    def __init__(
        self,
        target_class_ids: Sequence[int] | None = None,
        threshold: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.target_class_ids = self._classes(target_class_ids)
        self.threshold = None if threshold is None else number("DiceScore", "threshold", threshold)

    def check(self, y: np.ndarray, outputs: int | None) -> None:
        super().check(y, outputs)
        if outputs == 1 and self.target_class_ids not in (None, (1,)):
            raise ValueError(
                "DiceScore: target_class_ids must be [1], the class of the model's one output. "
                f"Received: target_class_ids={list(self.target_class_ids or ())}"
            )

    def score(self, tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 2.0 * tp, 2.0 * tp + fp + fn


class IoU(Overlap):
    """``TP / (TP + FP + FN)``, intersection over union, of each class, over all pixels; the mean over the classes.

    Predictions are (N, ..., C); a pixel's class is that of the largest, or, with one output, 1 above 1/2, else 0.
    Targets are labels (N, ...) or (N, ..., 1), or one-hot (N, ..., C): the shape says which. Pixels are counted over
    all samples together, in whole numbers; sample weights do not count. Classes that are neither in the targets nor
    predicted are left out of the mean, which is NaN if none is left.

    Args:
        num_classes: C, or 2 with one output
        target_class_ids: the classes that count
        name: key in the history

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> IoU(num_classes=2, target_class_ids=[0])([0, 0, 1, 1], [0, 1, 0, 1])
        0.3333...
    """

    default_name = "iou"

    def __init__(self, num_classes: int, target_class_ids: Sequence[int], name: str | None = None) -> None:
        super().__init__(name)
        self.num_classes = whole(type(self).__name__, "num_classes", num_classes, low=2)
        self.target_class_ids = self._classes(target_class_ids)
        if self.target_class_ids is not None and max(self.target_class_ids) >= num_classes:
            raise ValueError(
                f"{type(self).__name__}: target_class_ids must be less than num_classes={num_classes}. "
                f"Received: target_class_ids={list(self.target_class_ids)}"
            )


class BinaryIoU(Overlap):
    """``TP / (TP + FP + FN)`` of the classes 0 and 1, an output above the threshold being 1; the mean of the two.

    All outputs count as pixels. Targets have the outputs' shape.

    Args:
        target_class_ids: the classes that count, of 0 and 1
        threshold: above it an output counts as 1
        name: key in the history

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> BinaryIoU(target_class_ids=[0, 1], threshold=0.3)([0, 1, 0, 1], [0.1, 0.2, 0.4, 0.7])
        0.3333...
    """

    default_name = "binary_iou"
    joined = True

    def __init__(
        self, target_class_ids: Sequence[int] = (0, 1), threshold: float = 0.5, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.target_class_ids = self._classes(target_class_ids)
        self.threshold = number("BinaryIoU", "threshold", threshold)
        if self.target_class_ids is None or max(self.target_class_ids) > 1:
            raise ValueError(
                f"BinaryIoU: target_class_ids must be 0, 1 or both. Received: target_class_ids={target_class_ids!r}"
            )


class MeanIoU(Overlap):
    """``TP / (TP + FP + FN)``, intersection over union, the mean over all classes. As ``IoU``.

    Args:
        num_classes: C, or 2 with one output; None: whatever the model has
        name: key in the history

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> MeanIoU(num_classes=2)([0, 0, 1, 1], [0, 1, 0, 1])
        0.3333...
        >>> MeanIoU()([[0, 2]], [[[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]])  # the class 1 is nowhere
        1.0
    """

    default_name = "mean_iou"

    def __init__(self, num_classes: int | None = None, name: str | None = None) -> None:
        super().__init__(name)
        what = type(self).__name__
        self.num_classes = None if num_classes is None else whole(what, "num_classes", num_classes, low=2)


class _OneHot(Overlap):
    """Takes one-hot targets only."""

    def check(self, y: np.ndarray, outputs: int | None) -> None:
        super().check(y, outputs)
        if y.shape[-1] != outputs or outputs == 1:
            wanted = ", ".join(map(str, ("N", *y.shape[1:-1], "C")))
            raise ValueError(f"{type(self).__name__}: needs one-hot targets ({wanted}). Received: shape {y.shape}")


class OneHotIoU(_OneHot, IoU):
    """``IoU`` for one-hot targets (N, ..., C).

    Args:
        num_classes: C
        target_class_ids: the classes that count
        name: key in the history

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> y, p = [[0, 0, 1], [1, 0, 0], [0, 1, 0]], [[0.2, 0.3, 0.5], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7]]
        >>> OneHotIoU(num_classes=3, target_class_ids=[0, 2])(y, p)
        0.75
    """

    default_name = "one_hot_iou"


class OneHotMeanIoU(_OneHot, MeanIoU):
    """``MeanIoU`` for one-hot targets (N, ..., C).

    Args:
        num_classes: C; None: whatever the model has
        name: key in the history

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> y, p = [[0, 0, 1], [1, 0, 0], [0, 1, 0]], [[0.2, 0.3, 0.5], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7]]
        >>> OneHotMeanIoU(num_classes=3)(y, p)
        0.5
    """

    default_name = "one_hot_mean_iou"

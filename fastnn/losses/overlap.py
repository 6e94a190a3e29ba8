"""Losses that compare regions: one value a sample, from sums over its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastnn.configurable import number
from fastnn.graph import Shape
from fastnn.losses.base import Loss, weights_apart
from fastnn.ops import overlap
from fastnn.ops.pointwise import multiply
from fastnn.ops.shape import reshape


class Tversky(Loss):
    """``1 - (TP + s) / (TP + alpha FP + beta FN + s)``, the Tversky loss (Salehi et al., 2017, arXiv:1706.05721).

    With predictions p and targets y, the sums over the pixels of a sample are ``TP = sum(p y)``,
    ``FP = sum(p (1 - y))`` and ``FN = sum((1 - p) y)``, one of each for every class. The loss of a sample is the mean
    over the classes, that of a batch the mean over its samples: it does not depend on who shares the batch, and large
    regions do not hide small ones. ``beta`` > ``alpha`` finds more at the price of false alarms. Dice and Jaccard are
    the special cases alpha = beta = 1/2 and alpha = beta = 1.

    Outputs are probabilities (N, ..., C), after a softmax or, for one class or classes that may overlap, a sigmoid;
    (N, P) are samples of P pixels. Targets are of the same shape, 0 .. 1, or, for more than one output, labels (N, ...)
    or (N, ..., 1); nothing is ever expanded to one-hot arrays. Weights of pixels, such as those of classes, weigh the
    pixels in the sums, which (N, P) cannot have; weights of samples their losses.

    Args:
        alpha: weight of false positives, not negative
        beta: weight of false negatives, not negative
        axis: axes that are summed over; None stands for all spatial ones. With the last, for example ``(1, 2, 3)`` for
            images, there is one index of all classes together. Unlike in Keras the batch, axis 0, cannot be among them
        smooth: ``s``, above 0, in pixels. A class that a sample has not and that is not predicted costs nothing

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> Tversky(alpha=0.3, beta=0.7)([[[1.0], [1.0], [0.0]]], [[[1.0], [0.0], [0.0]]])  # one of two found
        0.41176...
    """

    unit = True
    labels = None
    regions = True

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        axis: int | Sequence[int] | None = None,
        smooth: float = 1e-5,
    ) -> None:
        self.alpha = number(self._name, "alpha", alpha, low=0)
        self.beta = number(self._name, "beta", beta, low=0)
        axes = axis if isinstance(axis, list | tuple) else () if axis is None else (axis,)
        if not all(isinstance(a, int) and not isinstance(a, bool) for a in axes):
            raise ValueError(f"{self._name}: axis must be None, an integer or a tuple of them. Received: axis={axis!r}")
        self.axis = tuple(axis) if isinstance(axis, list) else axis
        self.smooth = number(self._name, "smooth", smooth, above=0)

    def _joint(self, rank: int) -> bool:
        """Whether the classes of outputs with so many axes are taken together."""
        if self.axis is None:
            return False
        given = (self.axis,) if isinstance(self.axis, int) else self.axis
        space = set(range(1, max(rank - 1, 2)))  # (N, P) are pixels
        axes = {axis + rank if axis < 0 else axis for axis in given}
        if axes not in (space, {*space, rank - 1}):
            rule = f"{self._name}: axis must be {tuple(sorted(space))}, the pixels, or these and the last axis"
            raise ValueError(f"{rule}, for outputs with {rank} axes. Received: axis={self.axis}")
        return rank > 2 and rank - 1 in axes

    def forms(self, output: Shape) -> list[Shape]:
        self._joint(len(output))
        return super().forms(output)[: 1 if len(output) == 2 else 2]

    def values(self, y: Any, p: Any) -> Any:
        return self.rows(y, p)

    def rows(self, y: Any, p: Any, weights: Any = None) -> Any:
        joint = self._joint(len(p.shape))
        if len(p.shape) == 2:
            p, y = (reshape(array, shape=(math.prod(p.shape[1:]), 1)) for array in (p, y))
        of_rows, of_pixels = weights_apart(weights, p)
        sums = overlap.overlap(p, y, *([] if of_pixels is None else [of_pixels]))
        rows = overlap.tversky(sums, alpha=self.alpha, beta=self.beta, epsilon=self.smooth, joint=joint)
        return rows if of_rows is None else multiply(rows, of_rows)


class Dice(Tversky):
    """``1 - (2 TP + s) / (2 TP + FP + FN + s)``, the Dice loss (Milletari et al., 2016, arXiv:1606.04797; for unequal
    classes Sudre et al., 2017, arXiv:1707.03237).

    As ``Tversky``, which says how sums and means are taken, with alpha = beta = 1/2: ``s`` is twice ``smooth``.

    Args:
        axis: axes that are summed over; None stands for all spatial ones
        smooth: above 0, in pixels

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> y = [[[[1.0], [1.0]], [[0.0], [0.0]]], [[[1.0], [1.0]], [[0.0], [0.0]]]]
        >>> p = [[[[0.0], [1.0]], [[0.0], [1.0]]], [[[0.4], [0.0]], [[0.0], [0.9]]]]
        >>> round(Dice()(y, p), 4)  # the mean of 0.5 and 0.7576
        0.6288
        >>> round(Dice()([[[0, 1]]], [[[[0.9, 0.1], [0.3, 0.7]]]]), 4)  # labels of the two pixels
        0.202
    """

    def __init__(self, axis: int | Sequence[int] | None = None, smooth: float = 1e-5) -> None:
        super().__init__(0.5, 0.5, axis, smooth)


class Jaccard(Tversky):
    """``1 - (TP + s) / (TP + FP + FN + s)``: one minus intersection over union, of soft predictions.

    As ``Tversky``, which says how sums and means are taken, with alpha = beta = 1.

    Args:
        axis: axes that are summed over; None stands for all spatial ones
        smooth: above 0, in pixels

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> round(Jaccard()([[[1.0], [1.0], [0.0]]], [[[1.0], [0.0], [1.0]]]), 4)  # one of three
        0.6667
    """

    def __init__(self, axis: int | Sequence[int] | None = None, smooth: float = 1e-5) -> None:
        super().__init__(1.0, 1.0, axis, smooth)

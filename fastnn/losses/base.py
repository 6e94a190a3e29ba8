"""What all losses share: checks of the targets, weights of rows and pixels, sums of losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from fastnn.configurable import Configurable, number
from fastnn.graph import Shape, Tensor
from fastnn.ops.declare import Op
from fastnn.ops.loss import pixel_means
from fastnn.ops.pointwise import add, affine, multiply
from fastnn.ops.public.arranging import split
from fastnn.ops.shape import reshape

#: Targets are checked so many numbers at a time.
PART = 1 << 20


def check_each(what: str, y: np.ndarray, rule: str, wrong: Callable[[np.ndarray], np.ndarray]) -> None:
    """ValueError that names the first element of the targets that is ``wrong``."""
    rows = max(1, PART // max(1, math.prod(y.shape[1:])))
    for start in range(0, len(y), rows):
        part = y[start : start + rows]
        found = wrong(part)
        if found.any():
            row, *others = (int(i) for i in np.argwhere(found)[0])
            place = ", ".join(map(str, (start + row, *others)))
            raise ValueError(f"{what}: y must {rule}. Received: y[{place}] = {part[(row, *others)]:g}")


def weights_apart(weights: Any, p: Any) -> tuple[Any, Any]:
    """Those of rows, (N,), and of pixels, (N, ...), each None if there are none, for predictions (N, ..., C).

    Given are weights of rows, (N,), of pixels, (N, ...), or of both: (N, 1 + pixels), the row's first.
    """
    if weights is None or len(weights.shape) == 1:
        return weights, None
    if weights.shape[1:] == p.shape[1:-1]:
        return None, weights
    of_rows, of_pixels = split(weights, [1], axis=1)
    return reshape(of_rows, shape=()), reshape(of_pixels, shape=p.shape[1:-1])


class Loss(Configurable):
    """Base class.

    Outputs are (N, C) or, for images, (N, ..., C) with spatial axes between. ``values(y, p)`` records one value for
    each row or pixel, (N, ...), from targets ``y`` and predictions ``p`` (labels are (..., 1)); ``rows`` weighs them
    and takes the mean over the pixels. ``targets(y, shape)`` checks and prepares the targets. Called on arrays, the
    mean over all rows and pixels. Losses can be added and multiplied by numbers, see ``Sum``:

    >>> from fastnn.losses import MeanAbsoluteError, MeanSquaredError
    >>> MeanSquaredError()([[0.0], [2.0]], [[0.0], [0.0]])
    2.0
    >>> (0.5 * MeanSquaredError() + MeanAbsoluteError())([[0.0], [2.0]], [[0.0], [0.0]])
    2.0
    """

    op: ClassVar[Op]
    activation: ClassVar[Op | None] = None  # what turns logits into this loss's predictions
    binary: bool = False  # whether each output is a decision of its own
    unit: ClassVar[bool] = False  # whether targets, where they are not labels, are 0 .. 1
    labels: bool | None = False  # whether targets are integer labels; None: labels, or like the outputs
    from_logits = False
    regions: bool = False  # whether weights of pixels are weights in sums that are compared, not of the loss

    def values(self, y: Any, p: Any) -> Any:
        """One loss value a row or pixel."""
        if self.from_logits and self.activation is not None:
            p = self.activation(p)
        return self.op(p, y, **self.attributes(p.shape[-1]))

    def attributes(self, classes: int) -> dict[str, Any]:
        """The attributes of ``op``, for so many outputs."""
        return {}

    def rows(self, y: Any, p: Any, weights: Any = None) -> Any:
        """One loss value a row, (N,). ``weights`` (N,) are of rows, weights (N, ...) of pixels.

        Those of a loss of regions may also be (N, 1 + pixels): see ``weights_apart``.
        """
        values = self.values(y, p)
        if weights is not None and len(weights.shape) > 1:
            values, weights = multiply(values, weights), None
        rows = pixel_means(values)
        return rows if weights is None else multiply(rows, weights)

    def forms(self, output: Shape) -> list[Shape]:
        """The shapes that targets may have for predictions of shape ``output``, the usual one first."""
        if len(output) < 2:
            raise ValueError(f"{self._name}: needs a model with outputs (N, ..., C). Received: output shape {output}")
        like, labels = [output], [(*output[:-1], 1)]
        return labels if self.labels else like if self.labels is not None or output[-1] == 1 else like + labels

    def target_shape(self, output: Shape) -> Shape:
        """The usual shape of the targets for predictions of shape ``output``."""
        return self.forms(output)[0]

    def targets(self, y: np.ndarray, output: Shape) -> np.ndarray:
        """``y`` in one of the shapes of ``forms``, its values checked. A last axis of size 1 may be missing."""
        forms = self.forms(output)
        for form in forms:
            if y.shape[1:] == form[1:] or (form[-1] == 1 and y.shape[1:] == form[1:-1]):
                labels = self.labels if self.labels is not None else form != output
                self.check(y, output[-1] if labels else None)
                return y.reshape(len(y), *(size for size in form[1:] if size is not None))
        rules = [f"(N, {', '.join(map(str, form[1:]))})" for form in forms]
        hint = ""
        if self.labels is False and y.shape[1:] in (output[1:-1], (*output[1:-1], 1)):
            hint = "; for integer labels use sparse_categorical_crossentropy"
        raise ValueError(f"{self._name}: y must have shape {' or '.join(rules)}{hint}. Received: shape {y.shape}")

    def check(self, y: np.ndarray, classes: int | None) -> None:
        """Check the values of targets that have a right shape: labels of so many classes, or None: like the outputs."""
        if classes is not None:
            rule = f"hold the labels 0 to {classes - 1}"
            check_each(self._name, y, rule, lambda part: (part != np.rint(part)) | (part < 0) | (part >= classes))
        elif self.unit:
            check_each(self._name, y, "be between 0 and 1", lambda part: ~((part >= 0) & (part <= 1)))

    @property
    def _name(self) -> str:
        return type(self).__name__

    def __call__(self, y_true: Any, y_pred: Any) -> float:
        p = np.asarray(y_pred, np.float64)
        p = p[:, None] if p.ndim == 1 else p
        y = self.targets(np.asarray(y_true, np.float64), p.shape)
        return float(np.mean(self.rows(y, p)))

    def __add__(self, other: Any) -> Sum:
        return Sum([self, other]) if isinstance(other, Loss) else NotImplemented

    def __mul__(self, factor: Any) -> Sum:
        return NotImplemented if isinstance(factor, Loss | Tensor) else Sum([self], [factor])

    __rmul__ = __mul__


def _all() -> dict[str, type[Loss]]:
    from fastnn.losses import LOSSES  # which holds Sum

    return LOSSES


class Sum(Loss):
    """The sum of several losses of one output, each with its weight: ``0.5 * Dice() + BinaryCrossentropy()`` makes one.

    Args:
        losses: losses or their names, at least one. Those on logits and those on probabilities do not go together, nor
            those on labels and those on one-hot targets
        weights: one number a loss, not negative; all 1 if None

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> from fastnn.losses import BinaryCrossentropy, Dice
        >>> both = Sum(["dice", "binary_crossentropy"], weights=[0.5, 2.0])
        >>> both
        0.5 * Dice() + 2 * BinaryCrossentropy()
        >>> y, p = [[1.0, 0.0]], [[0.8, 0.4]]
        >>> both(y, p) == 0.5 * Dice()(y, p) + 2.0 * BinaryCrossentropy()(y, p)
        True
    """

    parts: ClassVar[dict[str, Any]] = {"losses": _all}

    def __init__(self, losses: Sequence[Any], weights: Sequence[float] | None = None) -> None:
        from fastnn.losses import get

        if not isinstance(losses, Sequence) or isinstance(losses, str) or not losses:
            raise ValueError(f"Sum: losses must be a list of losses. Received: losses={losses!r}")
        if weights is None:
            weights = [1.0] * len(losses)
        if not isinstance(weights, Sequence | np.ndarray) or len(weights) != len(losses):
            raise ValueError(f"Sum: weights must be one number for each of {len(losses)} losses. Received: {weights!r}")
        self.losses: list[Loss] = []
        self.weights: list[float] = []
        for value, weight in zip(losses, weights, strict=True):
            loss, factor = get(value), number("Sum", "weights", weight, low=0)
            self.losses += loss.losses if isinstance(loss, Sum) else [loss]
            self.weights += [factor * w for w in loss.weights] if isinstance(loss, Sum) else [factor]
        self.binary = any(loss.binary for loss in self.losses)
        self.regions = any(loss.regions for loss in self.losses)
        self.labels = self._agreed("labels", "labels", "one-hot targets")
        self.from_logits = bool(self._agreed("from_logits", "logits", "probabilities"))

    def _agreed(self, attribute: str, yes: str, no: str) -> bool | None:
        """What all losses that are not indifferent say; None if all are."""
        said = {value for loss in self.losses if (value := getattr(loss, attribute)) is not None}
        if len(said) > 1:
            raise ValueError(f"Sum: losses must be all on {yes} or all on {no}. Received: {self!r}")
        return said.pop() if said else None

    def rows(self, y: Any, p: Any, weights: Any = None) -> Any:
        rows = None
        of_rows, of_pixels = weights_apart(weights, p)
        for loss, factor in zip(self.losses, self.weights, strict=True):
            if loss.regions or of_rows is None or of_pixels is None:
                part = loss.rows(y, p, weights)
            else:
                part = multiply(loss.rows(y, p, of_pixels), of_rows)
            part = part if factor == 1.0 else affine(part, scale=factor)
            rows = part if rows is None else add(rows, part)
        return rows

    def forms(self, output: Shape) -> list[Shape]:
        found = [loss.forms(output) for loss in self.losses]
        return [form for form in found[0] if all(form in forms for forms in found)]

    def check(self, y: np.ndarray, classes: int | None) -> None:
        for loss in self.losses:
            loss.check(y, classes)

    def __repr__(self) -> str:
        parts = zip(self.losses, self.weights, strict=True)
        return " + ".join(repr(loss) if weight == 1.0 else f"{weight:g} * {loss!r}" for loss, weight in parts)

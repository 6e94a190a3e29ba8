"""Activations that are layers of their own, with arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from fastnn import initializers, regularizers
from fastnn.configurable import number, whole
from fastnn.graph import Shape
from fastnn.layers.base import Layer, Training
from fastnn.ops import pointwise, rectifier, shape
from fastnn.ops.softmax import softmax


class ReLU(Layer):
    """``x`` above ``threshold``, but at most ``max_value``; at and below it ``negative_slope * (x - threshold)``.

    Args:
        max_value: at least 0; None for no limit
        negative_slope: at least 0
        threshold: at least 0

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> import numpy as np
        >>> ReLU(max_value=2.0, negative_slope=0.5)(np.array([[-1.0, 1.0, 3.0]]))
        array([[-0.5, 1. , 2. ]], dtype=float32)
    """

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        self.max_value = None if max_value is None else number("ReLU", "max_value", max_value, low=0)
        self.negative_slope = number("ReLU", "negative_slope", negative_slope, low=0)
        self.threshold = number("ReLU", "threshold", threshold, low=0)
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        if self.threshold == 0.0 and self.max_value is None:
            return _leaky(x, self.negative_slope)
        limit = math.inf if self.max_value is None else self.max_value
        return rectifier.bounded_relu(
            x, negative_slope=self.negative_slope, limit=limit, threshold=self.threshold
        )


class LeakyReLU(Layer):
    """``x`` where positive, else ``negative_slope * x``.

    Args:
        negative_slope: at least 0

    Example:
        >>> import numpy as np
        >>> LeakyReLU(0.5)(np.array([[-1.0, 2.0]]))
        array([[-0.5, 2. ]], dtype=float32)
    """

    def __init__(
        self, negative_slope: float = 0.3, input_shape: Sequence[int] | None = None, name: str | None = None
    ) -> None:
        self.negative_slope = number("LeakyReLU", "negative_slope", negative_slope, low=0)
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        return _leaky(x, self.negative_slope)


def _leaky(x: Any, negative_slope: float) -> Any:
    return pointwise.leaky_relu(x, negative_slope=negative_slope) if negative_slope else pointwise.relu(x)


class PReLU(Layer):
    """``x`` where positive, else ``alpha * x`` with a slope alpha that is learned (He et al. 2015).

    Args:
        alpha_initializer: name or Initializer
        alpha_regularizer: name or Regularizer or None
        shared_axes: axes, counted from 1, along which all places share their slope: ``(1, 2)`` leaves one for each
            channel of images. None for none

    Input (N, ...), output the same; weights: alpha, of the shape of a row, with 1 for the axes that are shared.

    Raises:
        ValueError: an argument is out of its range, or an axis is not there

    Example:
        >>> import numpy as np
        >>> PReLU("ones", shared_axes=(1, 2))(np.full((1, 2, 2, 3), -2.0))[0, 0, 0]
        array([-2., -2., -2.], dtype=float32)
    """

    parts: ClassVar[dict[str, Any]] = {
        **Layer.parts,
        "alpha_initializer": lambda: initializers.INITIALIZERS,
        "alpha_regularizer": lambda: regularizers.REGULARIZERS,
    }

    def __init__(
        self,
        alpha_initializer: str | initializers.Initializer = "zeros",
        alpha_regularizer: str | regularizers.Regularizer | None = None,
        shared_axes: int | Sequence[int] | None = None,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        self.alpha_initializer = initializers.get(alpha_initializer, "PReLU: alpha_initializer")
        self.alpha_regularizer = regularizers.get(alpha_regularizer, "PReLU: alpha_regularizer")
        axes = shared_axes if shared_axes is None or isinstance(shared_axes, list | tuple) else [shared_axes]
        self.shared_axes = None if axes is None else tuple(whole("PReLU", "shared_axes", axis) for axis in axes)
        super().__init__(input_shape=input_shape, name=name, trainable=trainable)

    def build(self, shape: Shape) -> None:
        shared = self.shared_axes or ()
        if len(shape) < 2 or any(axis >= len(shape) for axis in shared):
            raise ValueError(
                f"{self.name}: PReLU needs rows that have the axes to share. "
                f"Received: shape {shape}, shared_axes={self.shared_axes}"
            )
        sizes = tuple(1 if axis in shared else int(size or 0) for axis, size in enumerate(shape[1:], start=1))
        self.alpha = self.add_weight("alpha", sizes, self.alpha_initializer, self.alpha_regularizer)

    def call(self, x: Any, training: Training | None = None) -> Any:
        return rectifier.prelu(x, self.read(self.alpha, x))


class ELU(Layer):
    """``x`` where positive, else ``alpha * (exp(x) - 1)`` (Clevert et al. 2016).

    Args:
        alpha: at least 0

    Example:
        >>> import numpy as np
        >>> ELU()(np.array([[-100.0, 2.0]]))
        array([[-1., 2.]], dtype=float32)
    """

    def __init__(
        self, alpha: float = 1.0, input_shape: Sequence[int] | None = None, name: str | None = None
    ) -> None:
        self.alpha = number("ELU", "alpha", alpha, low=0)
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        return pointwise.elu(x, alpha=self.alpha)


class Softmax(Layer):
    """``exp(x) / sum(exp(x))`` along an axis.

    Args:
        axis: number of the axis, from 1 on (0 is the batch), or negative from the last on

    Raises:
        ValueError: the axis is not an integer, not there, or the batch

    Example:
        >>> import numpy as np
        >>> Softmax()(np.log(np.array([[1.0, 3.0]])))
        array([[0.25, 0.75]], dtype=float32)
    """

    def __init__(self, axis: int = -1, input_shape: Sequence[int] | None = None, name: str | None = None) -> None:
        if isinstance(axis, bool) or not hasattr(axis, "__index__"):
            raise ValueError(f"Softmax: axis must be an integer. Received: axis={axis!r}")
        self.axis = int(axis.__index__())
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        rank = len(x.shape)
        axis = self.axis + rank if self.axis < 0 else self.axis
        if not 1 <= axis < rank:
            received = f"shape {tuple(x.shape)}, axis={self.axis}"
            raise ValueError(f"{self.name}: Softmax needs rows that have the axis. Received: {received}")
        if axis == rank - 1:
            return softmax(x)
        last = (*(a for a in range(1, rank) if a != axis), axis)
        back = tuple(last.index(a) + 1 for a in range(1, rank))
        return shape.transpose(softmax(shape.transpose(x, perm=last)), perm=back)

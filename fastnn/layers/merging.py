"""Layers that make one Tensor of several: the branches of a network come together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, ClassVar

from fastnn.configurable import whole
from fastnn.graph import Shape
from fastnn.layers.base import Layer, Training
from fastnn.ops import broadcast, join, matrix, merge, pointwise, shape

#: Arrays that the op `concatenate` takes at a time.
AT_ONCE = 6


class Joining(Layer):
    """Base class of layers that make one Tensor of several. They may be called again on other shapes."""

    several: ClassVar[bool] = True

    def prepare(self, shape: Sequence[Shape]) -> None:
        """Check the shapes of this call: ``build`` declares nothing."""
        self.build(shape)


class Merge(Joining):
    """Base class of layers that combine Tensors element by element. An axis of size 1 is repeated as often as needed.

    Called on a list of two or more Tensors (N, ...) of the same number of axes.

    Raises:
        ValueError: shapes do not fit
    """

    most: ClassVar[int | None] = None

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name)

    def build(self, shapes: Sequence[Shape]) -> None:
        if len(shapes) < 2 or len(shapes) > (self.most or len(shapes)):
            wanted = "two" if self.most == 2 else "two or more"
            raise ValueError(f"{self.name}: {self._class} takes {wanted} inputs. Received: {len(shapes)}")
        self._sizes(shapes)

    def _sizes(self, shapes: Sequence[Shape]) -> tuple[int, ...]:
        """Those of the output, without the batch."""
        return tuple(self._common(sizes, shapes) for sizes in zip(*self._same_rank(shapes), strict=True))

    def _same_rank(self, shapes: Sequence[Shape]) -> list[Shape]:
        if len({len(each) for each in shapes}) > 1:
            raise ValueError(f"{self.name}: inputs must have the same number of axes. Received: {listed(shapes)}")
        return [each[1:] for each in shapes]

    def _common(self, sizes: Sequence[int | None], shapes: Sequence[Shape]) -> int:
        largest = max(size or 0 for size in sizes)
        if any(size not in (1, largest) for size in sizes):
            raise ValueError(f"{self.name}: sizes must be equal, or 1 to be repeated. Received: {listed(shapes)}")
        return largest

    def call(self, x: Sequence[Any], training: Training | None = None) -> Any:
        sizes = self._sizes([each.shape for each in x])
        given = [each if each.shape[1:] == sizes else broadcast.broadcast(each, shape=sizes) for each in x]
        return self.combine(given)

    def combine(self, x: list[Any]) -> Any:
        """The result for arrays or Tensors of one shape."""
        raise NotImplementedError


class Add(Merge):
    """The sum of the inputs, element by element.

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Add
        >>> Add()([np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]])])
        array([[11., 22.]], dtype=float32)
    """

    def combine(self, x: list[Any]) -> Any:
        return reduce(pointwise.add, x)


class Subtract(Merge):
    """The first input minus the second.

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Subtract
        >>> Subtract()([np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]])])
        array([[ -9., -18.]], dtype=float32)
    """

    most = 2

    def combine(self, x: list[Any]) -> Any:
        return merge.subtract(*x)


class Multiply(Merge):
    """The product of the inputs, element by element.

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Multiply
        >>> features, gate = np.ones((1, 2, 2, 3)), np.array([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3)
        >>> Multiply()([features, gate])[0, 1, 1]
        array([0. , 0.5, 1. ], dtype=float32)
    """

    def combine(self, x: list[Any]) -> Any:
        return reduce(pointwise.multiply, x)


class Average(Merge):
    """The mean of the inputs, element by element.

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Average
        >>> Average()([np.array([[1.0, 2.0]]), np.array([[3.0, 6.0]])])
        array([[2., 4.]], dtype=float32)
    """

    def combine(self, x: list[Any]) -> Any:
        return pointwise.affine(reduce(pointwise.add, x), scale=1.0 / len(x))


class Maximum(Merge):
    """The largest of the inputs, element by element; NaN where one of them is.

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Maximum
        >>> Maximum()([np.array([[1.0, 5.0]]), np.array([[3.0, 2.0]])])
        array([[3., 5.]], dtype=float32)
    """

    def combine(self, x: list[Any]) -> Any:
        return reduce(merge.maximum, x)


class Minimum(Merge):
    """The smallest of the inputs, element by element; NaN where one of them is.

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Minimum
        >>> Minimum()([np.array([[1.0, 5.0]]), np.array([[3.0, 2.0]])])
        array([[1., 2.]], dtype=float32)
    """

    def combine(self, x: list[Any]) -> Any:
        return reduce(merge.minimum, x)


class Concatenate(Joining):
    """The inputs one after the other along an axis.

    Args:
        axis: the axis, not the batch's; -1 is the last, that of the channels
        name: made up if None

    Called on a list of Tensors (N, ...) whose other sizes are equal.

    Raises:
        ValueError: shapes do not fit, or there is no such axis

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Concatenate
        >>> Concatenate()([np.ones((1, 4, 4, 3)), np.zeros((1, 4, 4, 2))]).shape
        (1, 4, 4, 5)
    """

    def __init__(self, axis: int = -1, name: str | None = None) -> None:
        super().__init__(name=name)
        self.axis = whole("Concatenate", "axis", axis, low=-5)
        if not self.axis:
            raise ValueError("Concatenate: axis must not be the batch's. Received: axis=0")

    def build(self, shapes: Sequence[Shape]) -> None:
        axis = self._along(len(shapes[0]))
        if not 0 < axis < len(shapes[0]):
            raise ValueError(f"{self.name}: there must be an axis {self.axis}. Received: {listed(shapes)}")
        rest = {(*each[:axis], *each[axis + 1 :]) for each in shapes}
        if len({len(each) for each in shapes}) > 1 or len(rest) > 1:
            raise ValueError(
                f"{self.name}: inputs must have the same sizes but along axis {self.axis}. Received: {listed(shapes)}"
            )

    def _along(self, rank: int) -> int:
        """The axis, counted from the front."""
        return self.axis + rank if self.axis < 0 else self.axis

    def call(self, x: Sequence[Any], training: Training | None = None) -> Any:
        parts, axis = list(x), self._along(len(x[0].shape))
        while len(parts) > 1:
            parts = [
                join.concatenate(*parts[i : i + AT_ONCE], axis=axis) if parts[i + 1 : i + 2] else parts[i]
                for i in range(0, len(parts), AT_ONCE)
            ]
        return parts[0]


class Dot(Joining):
    """The products of two inputs summed along one axis of each.

    Args:
        axes: int, or (axis of the first, axis of the second); not the batch's
        name: made up if None

    Inputs (N, K) and (N, K) give (N, 1); (N, I, K) and (N, J, K) with axes=2 give (N, I, J): what is left of the first,
    then of the second.

    Raises:
        ValueError: shapes do not fit, or there is no such axis

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Dot
        >>> Dot(axes=1)([np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])])
        array([[11.]], dtype=float32)
    """

    def __init__(self, axes: int | Sequence[int], name: str | None = None) -> None:
        super().__init__(name=name)
        pair = (axes, axes) if isinstance(axes, int) else tuple(axes)
        if len(pair) != 2 or not all(isinstance(axis, int) and axis for axis in pair):
            raise ValueError(f"Dot: axes must be an axis, or two, not the batch's. Received: axes={axes!r}")
        self.axes = axes if isinstance(axes, int) else list(pair)

    def build(self, shapes: Sequence[Shape]) -> None:
        if len(shapes) != 2 or any(len(each) not in (2, 3) for each in shapes):
            raise ValueError(f"{self.name}: takes two inputs of two or three axes. Received: {listed(shapes)}")
        first, second = self._along(shapes)
        inside = 0 < first < len(shapes[0]) and 0 < second < len(shapes[1])
        if not inside or shapes[0][first] != shapes[1][second]:
            first, second = [self.axes] * 2 if isinstance(self.axes, int) else self.axes
            raise ValueError(
                f"{self.name}: the sizes of axes {first} and {second} must be equal. Received: {listed(shapes)}"
            )

    def _along(self, shapes: Sequence[Shape]) -> list[int]:
        """The axis of each input, counted from the front."""
        pair = [self.axes] * 2 if isinstance(self.axes, int) else self.axes
        return [axis + len(each) if axis < 0 else axis for axis, each in zip(pair, shapes, strict=True)]

    def call(self, x: Sequence[Any], training: Training | None = None) -> Any:
        rows, along = [], self._along([each.shape for each in x])
        for each, axis in zip(x, along, strict=True):
            if len(each.shape) == 2:
                each = shape.reshape(each, shape=(1, each.shape[1]))
            elif axis == 1:
                each = shape.transpose(each, perm=(2, 1))
            rows.append(each)
        y = matrix.batch_dot(*rows)
        left = [
            size
            for each, axis in zip(x, along, strict=True)
            for i, size in enumerate(each.shape)
            if i not in (0, axis)
        ]
        return shape.reshape(y, shape=tuple(left) or (1,)) if tuple(left) != y.shape[1:] else y


def listed(shapes: Sequence[Shape]) -> str:
    """Shapes as text."""
    return " and ".join(map(str, shapes))


def _function(layer: Callable[..., Any]) -> Callable[..., Any]:
    def merge(inputs: Sequence[Any], **arguments: Any) -> Any:
        return layer(**arguments)(inputs)

    name = layer.__name__.lower()
    merge.__name__ = merge.__qualname__ = name
    merge.__doc__ = f"``{layer.__name__}(...)(inputs)``."
    return merge


add, subtract, multiply, average = map(_function, (Add, Subtract, Multiply, Average))
maximum, minimum, concatenate, dot = map(_function, (Maximum, Minimum, Concatenate, Dot))

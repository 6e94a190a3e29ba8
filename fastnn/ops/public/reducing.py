"""Sums, means and extremes along axes, not the batch's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastnn.graph import Tensor
from fastnn.ops import broadcast, pointwise, pool, shape
from fastnn.ops.public.common import axis_of, lifted, lowered, operand, shaped

Axes = int | Sequence[int] | None


def _axes(name: str, x: Any, symbolic: bool, axis: Axes) -> tuple[int, ...]:
    """The axes, counted from the front."""
    if axis is None:
        if symbolic and x.batch:
            raise ValueError(f"{name}: axis must be given, without that of the batch. Received: axis=None")
        return tuple(range(len(x.shape)))
    given = axis if isinstance(axis, list | tuple) else (axis,)
    return tuple(sorted({axis_of(name, each, len(x.shape), x.shape if symbolic else None) for each in given}))


def _end(y: Tensor, x: Tensor, axes: Sequence[int], keepdims: bool) -> Tensor:
    """What is left of ``lifted(x)`` with size 1 along the axes."""
    y = lowered(y, x)
    if keepdims:
        return y
    left = [size for i, size in enumerate(y.shape) if i not in axes and size is not None]
    return shaped(y, left if x.batch else left or [1])


def reduce_sum(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """The sum along axes. Of a weight, the sum along all axes has the shape (1,) in a model.

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.sum(np.ones((5, 2, 3)), axis=(1, 2))
        array([6., 6., 6., 6., 6.])
    """
    symbolic, a = operand("sum", x)
    axes = _axes("sum", a, symbolic, axis)
    if not symbolic:
        return a.sum(axis=axes, keepdims=keepdims)
    rows = lifted(a)
    moved = [i + (not a.batch) for i in axes]
    sizes = tuple(1 if i in moved else size for i, size in enumerate(rows.shape) if i)
    return _end(broadcast.sum_to(rows, shape=sizes), a, axes, keepdims)


def reduce_mean(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """The mean along axes.

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.mean(np.arange(12.0).reshape(2, 2, 3), axis=1)
        array([[1.5, 2.5, 3.5],
               [7.5, 8.5, 9.5]])
    """
    symbolic, a = operand("mean", x)
    axes = _axes("mean", a, symbolic, axis)
    if not symbolic:
        return a.mean(axis=axes, keepdims=keepdims)
    return pointwise.affine(reduce_sum(a, axes, keepdims), scale=1.0 / math.prod(a.shape[i] for i in axes))


def reduce_max(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """The largest along axes; NaN where there is one. The first of several has the gradient.

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.max(np.array([[1.0, 5.0], [7.0, 3.0]]), axis=-1, keepdims=True)
        array([[5.],
               [7.]])
    """
    symbolic, a = operand("max", x)
    axes = _axes("max", a, symbolic, axis)
    if not symbolic:
        return a.max(axis=axes, keepdims=keepdims)
    if not axes:
        return a
    rows = lifted(a)
    moved = [i + (not a.batch) for i in axes]
    kept = [i for i in range(1, rows.rank) if i not in moved]
    perm = (*moved, *kept)
    if perm != tuple(range(1, rows.rank)):
        rows = shape.transpose(rows, perm=perm)
    sizes: Any = rows.shape[1:]
    pairs = math.prod(sizes[: len(moved)]), math.prod(sizes[len(moved) :])
    rows = shape.reshape(rows, shape=pairs)
    whole: Any = lifted(a).shape
    left = tuple(1 if i in moved else size for i, size in enumerate(whole) if i)
    return _end(shape.reshape(pool.global_max_pool(rows), shape=left), a, axes, keepdims)


def reduce_min(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """The smallest along axes; NaN where there is one. The first of several has the gradient."""
    symbolic, a = operand("min", x)
    if not symbolic:
        return a.min(axis=_axes("min", a, symbolic, axis), keepdims=keepdims)
    _axes("min", a, symbolic, axis)
    return pointwise.affine(reduce_max(pointwise.affine(a, scale=-1.0), axis, keepdims), scale=-1.0)

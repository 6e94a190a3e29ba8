"""What public ops share: which operands are meant, and shapes made equal.

A Tensor is *rows* if its first axis is the batch; without a batch it is made of weights alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastnn.graph import Shape, Tensor, format_shape, resolved
from fastnn.ops.arithmetic import repeat_rows
from fastnn.ops.broadcast import broadcast
from fastnn.ops.data import fill
from fastnn.ops.declare import check_tensors
from fastnn.ops.shape import reshape, reshape_weight

Number = int | float | np.number[Any]
_NUMBERS = (bool, int, float, np.number)


def operands(name: str, *given: Any) -> tuple[bool, list[Any]]:
    """Whether they are symbolic, and the operands: Tensors and floats if they are, else arrays and floats.

    Raises:
        TypeError: one of them is of another kind
    """
    found: list[Any] = []
    for each in resolved(given):
        if isinstance(each, Tensor):
            found.append(each)
        elif isinstance(each, _NUMBERS) or (isinstance(each, np.ndarray) and not each.ndim):
            found.append(float(each))
        elif isinstance(each, np.ndarray | list | tuple) and np.asarray(each).dtype.kind in "fiub":
            found.append(np.asarray(each))
        else:
            raise TypeError(f"{name}: takes Tensors, weights, arrays and numbers. Received: {each!r:.200}")
    symbolic = any(isinstance(each, Tensor) for each in found)
    if symbolic:
        check_tensors(name, [each for each in found if not isinstance(each, float)])
    return symbolic, found


def operand(name: str, given: Any) -> tuple[bool, Any]:
    """The same for one operand, which is no number."""
    symbolic, (x,) = operands(name, given)
    return symbolic, np.asarray(x) if isinstance(x, float) else x


def sizes_of(x: Tensor) -> tuple[int, ...]:
    """The sizes of a row, or of a weight."""
    return tuple(size for size in (x.shape[1:] if x.batch else x.shape) if size is not None)


def shaped(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Rows of these sizes, or a weight of them, with the same numbers; a view."""
    if sizes_of(x) == tuple(sizes):
        return x
    return (reshape if x.batch else reshape_weight)(x, shape=tuple(sizes))


def lifted(x: Tensor) -> Tensor:
    """A weight as the only row; rows as they are. ``lowered`` is the way back."""
    return x if x.batch else reshape_weight(x, shape=(1, *x.shape))


def lowered(y: Tensor, x: Tensor) -> Tensor:
    """What was made of ``lifted(x)``."""
    return y if x.batch else reshape_weight(y, shape=y.shape[1:] or (1,))


def constant(x: Tensor, value: float) -> Tensor:
    """A Tensor like ``x`` of one value."""
    size = (math.prod(sizes_of(x)),)
    vector: Tensor = fill(shaped(x, size) if not x.batch else reshape(x, shape=size), fill_value=value)
    return shaped(repeat_rows(x, vector) if x.batch else vector, sizes_of(x))


def common(name: str, tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """The sizes that the rows or weights have when axes of size 1 are repeated.

    Raises:
        ValueError: they do not fit
    """
    every = [sizes_of(x) for x in tensors]
    rank = max(map(len, every))
    rows = {len(x.shape) for x in tensors if x.batch}
    weights = [len(sizes) for x, sizes in zip(tensors, every, strict=True) if not x.batch]
    try:
        if len(rows) > 1 or (rows and weights and max(weights) > rank - (max(rows) - 1 < rank)):
            raise ValueError
        return tuple(int(size) for size in np.broadcast_shapes(*every))
    except ValueError:
        shapes = " and ".join(format_shape(x.shape) for x in tensors)
        raise ValueError(
            f"{name}: sizes must be equal, or 1 to be repeated; rows must have the same number of axes. "
            f"Received: shapes {shapes}"
        ) from None


def repeated(x: Tensor, sizes: tuple[int, ...], rows: Tensor | None = None) -> Tensor:
    """``x`` with axes of size 1 repeated to these sizes; a weight for each of ``rows``, if these are given."""
    own = sizes_of(x)
    if rows is not None and not x.batch:
        x = repeat_rows(rows, shaped(x, (math.prod(own),)))
    elif own == sizes:
        return x
    x = shaped(x, (1,) * (len(sizes) - len(own)) + own)
    return x if sizes_of(x) == sizes else lowered(broadcast(lifted(x), shape=sizes), x)


def joined(name: str, op: Callable[..., Any], a: Tensor, b: Tensor) -> Tensor:
    """``op(a, b)`` of an op that takes equal shapes."""
    sizes = common(name, (a, b))
    rows = a if a.batch else b if b.batch else None
    return op(repeated(a, sizes, rows), repeated(b, sizes, rows))


def axis_of(name: str, axis: Any, rank: int, shape: Shape | None = None) -> int:
    """An axis counted from the front, checked. Of rows, whose shape is given, it must not be the batch's."""
    if not isinstance(axis, int | np.integer) or isinstance(axis, bool) or not -rank <= axis < rank:
        raise ValueError(f"{name}: axis must be an integer from {-rank} to {rank - 1}. Received: axis={axis!r}")
    found = int(axis) % rank
    if not found and shape is not None and shape[0] is None:
        raise ValueError(f"{name}: axis must not be that of the batch. Received: axis={axis!r}")
    return found

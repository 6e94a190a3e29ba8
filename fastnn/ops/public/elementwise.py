"""Element by element. Sizes must be equal, or 1 to be repeated, as in NumPy; numbers and weights may take part."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.graph import Tensor
from fastnn.ops import arithmetic, matrix, merge, pointwise
from fastnn.ops.public.common import (
    Number,
    axis_of,
    common,
    constant,
    joined,
    lifted,
    lowered,
    operand,
    operands,
    repeated,
    shaped,
    sizes_of,
)
from fastnn.ops.shape import transpose
from fastnn.ops.softmax import softmax as softmax_

#: Powers up to this one are products.
PRODUCTS = 16


def _with_vector(name: str, op: Callable[..., Any], a: Tensor, b: Tensor) -> Tensor | None:
    """``op(rows, vector)`` if one of both is a weight that each row has as it is, and the other one are rows."""
    rows, weight = (a, b) if a.batch else (b, a)
    if not rows.batch or weight.batch:
        return None
    sizes, own = common(name, (a, b)), sizes_of(weight)
    own = own[len(own) - next((i for i in range(len(own), 0, -1) if own[-i] != 1), 1) :]
    if sizes[len(sizes) - len(own) :] != own:
        return None
    rows = repeated(rows, sizes)
    size = math.prod(own)
    flat = shaped(rows, (*sizes[: len(sizes) - len(own)], size))
    return shaped(op(flat, shaped(weight, (size,))), sizes)


def add(x1: Any, x2: Any) -> Any:
    """``x1 + x2``.

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.add(np.ones((2, 3)), 1.0)[0]
        array([2., 2., 2.])
    """
    symbolic, (a, b) = operands("add", x1, x2)
    if not symbolic:
        return a + b
    if isinstance(b, float) or isinstance(a, float):
        x, offset = (a, b) if isinstance(b, float) else (b, a)
        return pointwise.affine(x, scale=1.0, offset=offset)
    fast = _with_vector("add", matrix.add_bias, a, b)
    return joined("add", pointwise.add, a, b) if fast is None else fast


def subtract(x1: Any, x2: Any) -> Any:
    """``x1 - x2``."""
    symbolic, (a, b) = operands("subtract", x1, x2)
    if not symbolic:
        return a - b
    if isinstance(b, float):
        return pointwise.affine(a, scale=1.0, offset=-b)
    if isinstance(a, float):
        return pointwise.affine(b, scale=-1.0, offset=a)
    return joined("subtract", merge.subtract, a, b)


def multiply(x1: Any, x2: Any) -> Any:
    """``x1 * x2``.

    Example:
        A gate for each channel of each image:

        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.multiply(np.ones((1, 2, 2, 3)), np.array([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3))[0, 1, 1]
        array([0. , 0.5, 1. ])
    """
    symbolic, (a, b) = operands("multiply", x1, x2)
    if not symbolic:
        return a * b
    if isinstance(b, float) or isinstance(a, float):
        x, factor = (a, b) if isinstance(b, float) else (b, a)
        return pointwise.affine(x, scale=factor)
    fast = _with_vector("multiply", arithmetic.scale_columns, a, b)
    return joined("multiply", pointwise.multiply, a, b) if fast is None else fast


def divide(x1: Any, x2: Any) -> Any:
    """``x1 / x2``."""
    symbolic, (a, b) = operands("divide", x1, x2)
    if not symbolic:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.divide(a, b)
    if isinstance(b, float):
        return pointwise.affine(a, scale=1.0 / b) if b else joined("divide", arithmetic.divide, a, constant(a, b))
    if isinstance(a, float):
        inverse = arithmetic.reciprocal(b)
        return inverse if a == 1.0 else pointwise.affine(inverse, scale=a)
    return joined("divide", arithmetic.divide, a, b)


def maximum(x1: Any, x2: Any) -> Any:
    """The larger one; NaN where one of them is. Where they are equal, each has half of the gradient."""
    return _extreme("maximum", np.maximum, merge.maximum, x1, x2)


def minimum(x1: Any, x2: Any) -> Any:
    """The smaller one; NaN where one of them is. Where they are equal, each has half of the gradient."""
    return _extreme("minimum", np.minimum, merge.minimum, x1, x2)


def _extreme(name: str, at_once: Callable[..., Any], op: Callable[..., Any], x1: Any, x2: Any) -> Any:
    symbolic, (a, b) = operands(name, x1, x2)
    if not symbolic:
        return at_once(a, b)
    if isinstance(b, float):
        b = constant(a, b)
    elif isinstance(a, float):
        a = constant(b, a)
    return joined(name, op, a, b)


def clip(x: Any, x_min: Number, x_max: Number) -> Any:
    """``x`` limited to what lies between two numbers; outside them there is no gradient.

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.clip(np.array([[-3.0, 0.5, 3.0]]), -1.0, 1.0)
        array([[-1. ,  0.5,  1. ]])
    """
    return minimum(maximum(x, x_min), x_max)


def negative(x: Any) -> Any:
    """``-x``."""
    symbolic, a = operand("negative", x)
    return pointwise.affine(a, scale=-1.0) if symbolic else -a


def absolute(x: Any) -> Any:
    """``|x|``; the gradient is 0 at 0."""
    symbolic, a = operand("abs", x)
    return merge.maximum(a, pointwise.affine(a, scale=-1.0)) if symbolic else np.abs(a)


def square(x: Any) -> Any:
    """``x * x``."""
    _, a = operand("square", x)
    return pointwise.multiply(a, a)


def rsqrt(x: Any) -> Any:
    """``1 / sqrt(x)``."""
    _, a = operand("rsqrt", x)
    return arithmetic.reciprocal(arithmetic.sqrt(a))


def power(x1: Any, x2: Any) -> Any:
    """``x1 ** x2``. Unless x2 is a whole number of at most 16 or a half, x1 must be positive: NaN where it is not.

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.power(np.array([[4.0, 9.0]]), -0.5)
        array([[0.5       , 0.33333333]])
    """
    symbolic, (a, b) = operands("power", x1, x2)
    if not symbolic:
        with np.errstate(all="ignore"):
            return np.power(a, b)
    if isinstance(b, float):
        if b < 0:
            return arithmetic.reciprocal(power(a, -b))
        if b == 0.5:
            return arithmetic.sqrt(a)
        if b == int(b) and b <= PRODUCTS:
            return _product(a, int(b))
        return pointwise.exponential(pointwise.affine(arithmetic.log(a), scale=b))
    if isinstance(a, float):
        if a <= 0:
            raise ValueError(f"power: a number that is raised must be positive. Received: {a}")
        return pointwise.exponential(pointwise.affine(b, scale=math.log(a)))
    return pointwise.exponential(multiply(b, arithmetic.log(a)))


def _product(x: Tensor, times: int) -> Tensor:
    if times < 2:
        return x if times else constant(x, 1.0)
    half = _product(x, times // 2)
    whole: Tensor = pointwise.multiply(half, half)
    return pointwise.multiply(whole, x) if times % 2 else whole


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """``x`` where positive, else ``negative_slope * x``; the slope is 0 or more."""
    return pointwise.leaky_relu(x, negative_slope=float(negative_slope))


def elu(x: Any, alpha: float = 1.0) -> Any:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``."""
    return pointwise.elu(x, alpha=float(alpha))


def softmax(x: Any, axis: int = -1) -> Any:
    """``exp(x) / sum(exp(x))`` along an axis, not the batch's.

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.softmax(np.array([[0.0, 0.0], [0.0, np.log(3.0)]]))
        array([[0.5 , 0.5 ],
               [0.25, 0.75]])
    """
    symbolic, a = operand("softmax", x)
    along = axis_of("softmax", axis, len(a.shape), a.shape if symbolic else None)
    if not symbolic:
        return np.moveaxis(softmax_.reference(np.moveaxis(a, along, -1)), -1, along)
    rows = lifted(a)
    along += not a.batch
    if along == rows.rank - 1:
        return lowered(softmax_(rows), a)
    perm = tuple(i for i in range(1, rows.rank) if i != along)
    back = tuple(sorted(range(1, rows.rank), key=lambda i: (*perm, along)[i - 1]))
    return lowered(transpose(softmax_(transpose(rows, perm=(*perm, along))), perm=back), a)

"""Matrix products, convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn.graph import Tensor, format_shape
from fastnn.ops import depthwise, matrix, pool
from fastnn.ops.conv import conv as conv_
from fastnn.ops.public.common import operand, operands
from fastnn.ops.shape import transpose
from fastnn.ops.window import resolve_padding


def matmul(x1: Any, x2: Any) -> Any:
    """The matrix product: rows (N, ..., K) with a weight (K, F), or rows (N, I, K) with rows (N, K, J).

    Raises:
        ValueError: the shapes do not fit

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.matmul(np.ones((5, 4, 3)), np.ones((3, 2))).shape
        (5, 4, 2)
    """
    symbolic, (a, b) = operands("matmul", x1, x2)
    if not symbolic:
        return np.matmul(a, b)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if not b.batch and b.rank == 2 and a.rank >= 2:
            return matrix.matmul(a, b)
        if a.batch and b.batch and a.rank == b.rank == 3:
            return matrix.batch_dot(a, transpose(b, perm=(2, 1)))
    shapes = " and ".join(format_shape(x.shape) if isinstance(x, Tensor) else str(x) for x in (a, b))
    raise ValueError(
        f"matmul: takes rows (N, ..., K) with a weight (K, F), or rows (N, I, K) with rows (N, K, J). "
        f"Received: {shapes}"
    )


def _windows(
    name: str, x: Any, kernel: Sequence[int], strides: Any, padding: Any, dilations: Any = 1
) -> dict[str, tuple[Any, ...]]:
    """The attributes of an op with windows. One integer is for all axes of space."""
    rank = len(x.shape) - 2
    found = {}
    for what, value in (("kernel", tuple(kernel)), ("strides", strides), ("dilations", dilations)):
        values = tuple(value) if isinstance(value, list | tuple) else (value,) * rank
        whole = all(isinstance(v, int | np.integer) and not isinstance(v, bool) and v > 0 for v in values)
        if rank < 1 or len(values) != rank or not whole:
            raise ValueError(
                f"{name}: takes rows of one to three axes of space and channels, and a positive integer for each of "
                f"these axes. Received: shape {x.shape}, {what}={value!r}"
            )
        found[what] = tuple(int(v) for v in values)
    if padding not in ("valid", "same"):
        raise ValueError(f"{name}: padding must be 'valid' or 'same'. Received: padding={padding!r}")
    pads = resolve_padding(padding, x.shape[1:-1], found["kernel"], found["strides"], found["dilations"])
    return {**found, "pads": pads}


def conv(
    x: Any,
    kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    dilation_rate: int | Sequence[int] = 1,
) -> Any:
    """The convolution of rows (N, *space, C) with a kernel (*sizes, C / groups, F): (N, *space, F).

    One integer for strides or dilations is for all axes of space. There are as many groups of channels as the kernel's
    channels say.

    Raises:
        ValueError: an argument is out of its range, or the shapes do not fit

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.conv(np.ones((5, 8, 8, 3)), np.ones((3, 3, 3, 16)), strides=2, padding="same").shape
        (5, 4, 4, 16)
    """
    _, (a, w) = operands("conv", x, kernel)
    attrs = _windows("conv", a, w.shape[:-2], strides, padding, dilation_rate)
    channels, own = a.shape[-1], w.shape[-2]
    if channels % own:
        raise ValueError(f"conv: the channels must be a multiple of the kernel's. Received: {channels} and {own}")
    del attrs["kernel"]
    return conv_(a, w, **attrs, groups=channels // own)


def depthwise_conv(
    x: Any,
    kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    dilation_rate: int | Sequence[int] = 1,
) -> Any:
    """Each channel of rows (N, *space, C) with M kernels of its own, (*sizes, C, M): (N, *space, C * M).

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.depthwise_conv(np.ones((5, 8, 8, 3)), np.ones((3, 3, 3, 2)), padding="same").shape
        (5, 8, 8, 6)
    """
    _, (a, w) = operands("depthwise_conv", x, kernel)
    attrs = _windows("depthwise_conv", a, w.shape[:-2], strides, padding, dilation_rate)
    del attrs["kernel"]
    return depthwise.depthwise_conv(a, w, **attrs)


def max_pool(
    x: Any, pool_size: int | Sequence[int], strides: int | Sequence[int] | None = None, padding: str = "valid"
) -> Any:
    """The largest in each window of rows (N, *space, C); ``strides`` are the window's sizes if None.

    Example:
        >>> import numpy as np
        >>> from fastnn import ops
        >>> ops.max_pool(np.ones((5, 8, 8, 3)), 2).shape
        (5, 4, 4, 3)
    """
    return _pooled("max_pool", pool.max_pool, x, pool_size, strides, padding)


def average_pool(
    x: Any, pool_size: int | Sequence[int], strides: int | Sequence[int] | None = None, padding: str = "valid"
) -> Any:
    """The mean of each window of rows (N, *space, C), padding not counted; ``strides`` as for ``max_pool``."""
    return _pooled("average_pool", pool.average_pool, x, pool_size, strides, padding)


def _pooled(name: str, op: Any, x: Any, size: Any, strides: Any, padding: Any) -> Any:
    _, a = operand(name, x)
    kernel = tuple(size) if isinstance(size, list | tuple) else (size,) * (len(a.shape) - 2)
    attrs = _windows(name, a, kernel, kernel if strides is None else strides, padding)
    del attrs["dilations"]
    return op(a, **attrs)

"""Rows in another shape: Reshape, Permute, UpSampling, ZeroPadding, Cropping. None of them has weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fastnn.configurable import whole
from fastnn.layers.base import Layer, Training
from fastnn.layers.window import check_rows, per_axis
from fastnn.ops import resize, shape
from fastnn.ops.declare import Op
from fastnn.ops.window import LIMIT, Pads

Sizes = int | Sequence[int]
#: One number, or one or a pair (before, after) for each axis.
Edges = int | Sequence[int] | Sequence[Sequence[int]]


def _listed(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _indices(what: str, name: str, value: Any) -> tuple[Any, ...]:
    """``value`` as a tuple of ints."""
    if not _listed(value) or any(isinstance(v, bool) or not hasattr(v, "__index__") for v in value):
        raise ValueError(f"{what}: {name} must be a tuple of integers. Received: {name}={value!r}")
    return tuple(int(v.__index__()) for v in value)


def _pairs(what: str, name: str, value: Any, rank: int) -> Pads:
    """(before, after) for each axis of space: ``value`` is one number for all, or for each axis a number or a pair.

    With one axis, two numbers are its pair.
    """
    entries = [value] * rank if not _listed(value) else [value] if rank == 1 and len(value) == 2 else list(value)
    pairs = [tuple(e) if _listed(e) else (e, e) for e in entries]
    flat = [n for pair in pairs for n in pair]
    good = all(not isinstance(n, bool) and hasattr(n, "__index__") and 0 <= n.__index__() < LIMIT for n in flat)
    if not good or len(pairs) != rank or any(len(pair) != 2 for pair in pairs):
        forms = "an integer or a pair" if rank == 1 else f"an integer, {rank} integers or {rank} pairs"
        raise ValueError(f"{what}: {name} must be {forms}, 0 or more and below 2**31. Received: {name}={value!r}")
    return tuple((int(before), int(after)) for before, after in pairs)


class _Reshaping(Layer):
    """A layer that is one op on rows with ``rank`` axes of space (0: any)."""

    rank: ClassVar[int] = 0

    def apply(self, op: Op, x: Any, **attrs: Any) -> Any:
        """The op, after a check of the shape in the name of the layer: arrays are not checked by ops."""
        if self.rank:
            check_rows(self.name, self._class, x.shape, self.rank)
        try:
            op.shape(x.shape, **attrs)
        except ValueError as error:
            raise ValueError(f"{self.name}: {self._class}: {error}") from None
        return op(x, **attrs)


class Reshape(_Reshaping):
    """Rows of any shape become rows of ``target_shape``, in the same order. Costs nothing: it is a view.

    Args:
        target_shape: sizes of the new rows, without the batch axis; one of them may be -1: what is left

    Raises:
        ValueError: a size is 0 or below -1, more than one is -1, or the sizes do not multiply to those of a row

    Example:
        >>> import numpy as np
        >>> Reshape((7, -1))(np.ones((5, 28, 2))).shape
        (5, 7, 8)
    """

    def __init__(
        self, target_shape: Sequence[int], input_shape: Sequence[int] | None = None, name: str | None = None
    ) -> None:
        self.target_shape = _indices("Reshape", "target_shape", target_shape)
        if any(size < 1 and size != -1 for size in self.target_shape) or self.target_shape.count(-1) > 1:
            raise ValueError(
                "Reshape: target_shape must have positive integers and at most one -1. "
                f"Received: target_shape={target_shape!r}"
            )
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        known, size = 1, 1
        for number in self.target_shape:
            known *= abs(number)
        for number in x.shape[1:]:
            size *= number
        if size % known or (size != known and -1 not in self.target_shape):
            raise ValueError(
                f"{self.name}: Reshape needs rows that fit target_shape={self.target_shape}. "
                f"Received: shape {tuple(x.shape)}"
            )
        return self.apply(shape.reshape, x, shape=tuple(size // known if n == -1 else n for n in self.target_shape))


class Permute(_Reshaping):
    """The axes of the rows in another order.

    Args:
        dims: for each axis of the output the number of the input's axis, from 1 on; the batch axis stays

    Raises:
        ValueError: dims does not name each axis once

    Example:
        >>> import numpy as np
        >>> Permute((2, 1))(np.ones((5, 3, 7))).shape
        (5, 7, 3)
    """

    def __init__(self, dims: Sequence[int], input_shape: Sequence[int] | None = None, name: str | None = None) -> None:
        self.dims = _indices("Permute", "dims", dims)
        if not self.dims or sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ValueError(f"Permute: dims must have each of 1, 2, ... once. Received: dims={dims!r}")
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        return self.apply(shape.transpose, x, perm=self.dims)


class UpSampling1D(_Reshaping):
    """Each step ``size`` times: (N, T, C) -> (N, T * size, C).

    Args:
        size: positive int

    Example:
        >>> import numpy as np
        >>> UpSampling1D(2)(np.array([[[1.0], [2.0]]]))[0, :, 0]
        array([1., 1., 2., 2.], dtype=float32)
    """

    rank = 1

    def __init__(self, size: int = 2, input_shape: Sequence[int] | None = None, name: str | None = None) -> None:
        self.size = whole("UpSampling1D", "size", size)
        if self.size >= LIMIT:
            raise ValueError(f"UpSampling1D: size must be below 2**31. Received: size={size!r}")
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        return self.apply(resize.upsample_nearest, x, kernel=(self.size,))


class UpSampling2D(_Reshaping):
    """Images ``size`` times as large: (N, H, W, C) -> (N, H * size[0], W * size[1], C).

    Args:
        size: positive int or two
        interpolation: "nearest" repeats each pixel; "bilinear" takes pixels for areas whose centres lie half a pixel
            inside, and goes on with the edge beyond the outermost centres

    Raises:
        ValueError: an argument is out of its range, or the input is no (N, H, W, C)

    Example:
        >>> import numpy as np
        >>> x = np.array([[[[1.0], [3.0]]]])
        >>> UpSampling2D((1, 2))(x)[0, 0, :, 0]
        array([1., 1., 3., 3.], dtype=float32)
        >>> UpSampling2D((1, 2), interpolation="bilinear")(x)[0, 0, :, 0]
        array([1. , 1.5, 2.5, 3. ], dtype=float32)
    """

    rank = 2

    def __init__(
        self,
        size: Sizes = (2, 2),
        interpolation: str = "nearest",
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        self.size = per_axis("UpSampling2D", "size", size, 2)
        if not isinstance(interpolation, str) or interpolation.lower() not in ("nearest", "bilinear"):
            received = f"interpolation={interpolation!r}"
            raise ValueError(f"UpSampling2D: interpolation must be 'nearest' or 'bilinear'. Received: {received}")
        self.interpolation = interpolation.lower()
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        op = resize.upsample_nearest if self.interpolation == "nearest" else resize.upsample_bilinear
        return self.apply(op, x, kernel=self.size)


class UpSampling3D(_Reshaping):
    """Each place of volumes ``size`` times: (N, D, H, W, C) -> (N, D * size[0], H * size[1], W * size[2], C).

    Args:
        size: positive int or three

    Example:
        >>> import numpy as np
        >>> UpSampling3D()(np.ones((1, 2, 3, 4, 5))).shape
        (1, 4, 6, 8, 5)
    """

    rank = 3

    def __init__(
        self, size: Sizes = (2, 2, 2), input_shape: Sequence[int] | None = None, name: str | None = None
    ) -> None:
        self.size = per_axis("UpSampling3D", "size", size, 3)
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        return self.apply(resize.upsample_nearest, x, kernel=self.size)


class _Padding(_Reshaping):
    def __init__(self, padding: Edges, input_shape: Sequence[int] | None, name: str | None) -> None:
        pads = _pairs(self._class, "padding", padding, self.rank)
        self.padding: Any = pads[0] if self.rank == 1 else pads
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        return self.apply(shape.zero_pad, x, pads=(self.padding,) if self.rank == 1 else self.padding)


class ZeroPadding1D(_Padding):
    """Zeros before and after: (N, T, C) -> (N, before + T + after, C).

    Args:
        padding: int, or (before, after)

    Example:
        >>> import numpy as np
        >>> ZeroPadding1D((2, 1))(np.ones((1, 2, 1)))[0, :, 0]
        array([0., 0., 1., 1., 0.], dtype=float32)
    """

    rank = 1

    def __init__(
        self,
        padding: int | Sequence[int] = 1,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(padding, input_shape, name)


class ZeroPadding2D(_Padding):
    """Zeros around images: (N, H, W, C) -> (N, top + H + bottom, left + W + right, C).

    Args:
        padding: int, or one for height and one for width, or ((top, bottom), (left, right))

    Example:
        >>> import numpy as np
        >>> ZeroPadding2D(((1, 0), (0, 2)))(np.ones((1, 2, 2, 3))).shape
        (1, 3, 4, 3)
    """

    rank = 2

    def __init__(
        self, padding: Edges = (1, 1), input_shape: Sequence[int] | None = None, name: str | None = None
    ) -> None:
        super().__init__(padding, input_shape, name)


class ZeroPadding3D(_Padding):
    """Zeros around volumes (N, D, H, W, C).

    Args:
        padding: int, or one for each axis, or a pair (before, after) for each axis

    Example:
        >>> import numpy as np
        >>> ZeroPadding3D((0, 1, 2))(np.ones((1, 2, 2, 2, 3))).shape
        (1, 2, 4, 6, 3)
    """

    rank = 3

    def __init__(
        self,
        padding: Edges = ((1, 1), (1, 1), (1, 1)),
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(padding, input_shape, name)


class _Cropping(_Reshaping):
    def __init__(self, cropping: Edges, input_shape: Sequence[int] | None, name: str | None) -> None:
        pads = _pairs(self._class, "cropping", cropping, self.rank)
        self.cropping: Any = pads[0] if self.rank == 1 else pads
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        return self.apply(shape.crop, x, pads=(self.cropping,) if self.rank == 1 else self.cropping)


class Cropping1D(_Cropping):
    """Without the first and the last steps: (N, T, C) -> (N, T - before - after, C).

    Args:
        cropping: int, or (before, after)

    Raises:
        ValueError: an argument is out of its range, or nothing of a row would be left

    Example:
        >>> import numpy as np
        >>> Cropping1D((1, 2))(np.arange(5.0).reshape(1, 5, 1))[0, :, 0]
        array([1., 2.], dtype=float32)
    """

    rank = 1

    def __init__(
        self,
        cropping: int | Sequence[int] = (1, 1),
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(cropping, input_shape, name)


class Cropping2D(_Cropping):
    """Images without their edges: (N, H, W, C) -> (N, H - top - bottom, W - left - right, C).

    Args:
        cropping: int, or one for height and one for width, or ((top, bottom), (left, right))

    Example:
        >>> import numpy as np
        >>> Cropping2D(((1, 0), (0, 2)))(np.ones((1, 4, 4, 3))).shape
        (1, 3, 2, 3)
    """

    rank = 2

    def __init__(
        self, cropping: Edges = ((0, 0), (0, 0)), input_shape: Sequence[int] | None = None, name: str | None = None
    ) -> None:
        super().__init__(cropping, input_shape, name)


class Cropping3D(_Cropping):
    """Volumes (N, D, H, W, C) without their edges.

    Args:
        cropping: int, or one for each axis, or a pair (before, after) for each axis

    Example:
        >>> import numpy as np
        >>> Cropping3D((0, 1, 2))(np.ones((1, 5, 5, 5, 3))).shape
        (1, 5, 3, 1, 3)
    """

    rank = 3

    def __init__(
        self,
        cropping: Edges = ((1, 1), (1, 1), (1, 1)),
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(cropping, input_shape, name)

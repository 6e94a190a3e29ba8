"""Pooling: the largest or the mean of the pixels in each window, or of all pixels, of signals, images and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from fastnn.layers.base import Layer, Training
from fastnn.layers.window import check_padding, check_rows, fit, per_axis
from fastnn.ops import Op, pool, shape

Sizes = int | Sequence[int]
Padding = str | Sequence[Sequence[int]]


class Pooling(Layer):
    """What pooling layers have in common, for ``rank`` axes of space; see MaxPooling2D."""

    rank: ClassVar[int]
    op: ClassVar[Op]

    def __init__(
        self,
        pool_size: Sizes = 2,
        strides: Sizes | None = None,
        padding: Padding = "valid",
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        what = self._class
        self.pool_size = per_axis(what, "pool_size", pool_size, self.rank)
        self.strides = self.pool_size if strides is None else per_axis(what, "strides", strides, self.rank)
        self.padding = check_padding(what, padding, self.rank, "valid", "same")
        if not isinstance(self.padding, str):
            for size, pair in zip(self.pool_size, self.padding, strict=True):
                if max(pair) >= size:
                    raise ValueError(
                        f"{what}: padding must be smaller than pool_size. "
                        f"Received: padding={padding!r}, pool_size={pool_size!r}"
                    )
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        ones = (1,) * self.rank
        pads, _ = fit(self.name, self._class, x.shape, self.padding, self.pool_size, self.strides, ones)
        return self.op(x, kernel=self.pool_size, strides=self.strides, pads=pads)


class MaxPooling1D(Pooling):
    """The largest value of each window of a signal. See MaxPooling2D.

    Input (N, T, C), output (N, T', C).

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import MaxPooling1D
        >>> MaxPooling1D()(np.array([[[1.0], [3.0], [2.0], [0.0]]]))[0, :, 0]
        array([3., 2.], dtype=float32)
    """

    rank, op = 1, pool.max_pool


class MaxPooling2D(Pooling):
    """The largest pixel of each window of an image, in every channel.

    Of equal pixels the first, row by row, gets the gradient. A NaN in a window is its result.

    Args:
        pool_size: int, or one for each axis: the size of the window
        strides: int, or one for each axis: how far the window moves; None for ``pool_size``, windows side by side
        padding: ``"valid"``: none, pixels that do not fill a window are left out; ``"same"``: windows reach over the
            edges evenly (an odd pixel comes after), so that the output has the input's size divided by the strides,
            rounded up; or ``((top, bottom), (left, right))`` pixels, fewer than the window has. Padding is never the
            largest
        input_shape: ``(H, W, C)``, where the layer is the first of a Sequential
        name: made up if None

    Input (N, H, W, C), output (N, H', W', C).

    Raises:
        ValueError: an argument is out of its range, or the window is larger than the padded input

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import MaxPooling2D
        >>> x = np.arange(16.0).reshape(1, 4, 4, 1)
        >>> MaxPooling2D(2)(x)[0, :, :, 0]
        array([[ 5.,  7.],
               [13., 15.]], dtype=float32)
        >>> MaxPooling2D(3, strides=2, padding="same")(x)[0, :, :, 0]
        array([[10., 11.],
               [14., 15.]], dtype=float32)
    """

    rank, op = 2, pool.max_pool


class MaxPooling3D(Pooling):
    """The largest value of each window of a volume. See MaxPooling2D.

    Input (N, D, H, W, C), output (N, D', H', W', C).

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import MaxPooling3D
        >>> MaxPooling3D((2, 1, 1))(np.arange(8.0).reshape(1, 2, 2, 2, 1))[0, 0, :, :, 0]
        array([[4., 5.],
               [6., 7.]], dtype=float32)
    """

    rank, op = 3, pool.max_pool


class AveragePooling1D(Pooling):
    """The mean of each window of a signal. See AveragePooling2D.

    Input (N, T, C), output (N, T', C).

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import AveragePooling1D
        >>> AveragePooling1D(3, strides=2, padding="same")(np.array([[[1.0], [3.0], [8.0]]]))[0, :, 0]
        array([2. , 5.5], dtype=float32)
    """

    rank, op = 1, pool.average_pool


class AveragePooling2D(Pooling):
    """The mean of the pixels in each window of an image, in every channel. Padding does not count.

    Args:
        pool_size: int, or one for each axis: the size of the window
        strides: int, or one for each axis: how far the window moves; None for ``pool_size``, windows side by side
        padding: ``"valid"``, ``"same"`` or ``((top, bottom), (left, right))``, as for MaxPooling2D
        input_shape: ``(H, W, C)``, where the layer is the first of a Sequential
        name: made up if None

    Input (N, H, W, C), output (N, H', W', C).

    Raises:
        ValueError: an argument is out of its range, or the window is larger than the padded input

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import AveragePooling2D
        >>> AveragePooling2D(2)(np.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
        array([[ 2.5,  4.5],
               [10.5, 12.5]], dtype=float32)
    """

    rank, op = 2, pool.average_pool


class AveragePooling3D(Pooling):
    """The mean of each window of a volume. See AveragePooling2D.

    Input (N, D, H, W, C), output (N, D', H', W', C).

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import AveragePooling3D
        >>> AveragePooling3D(2)(np.arange(8.0).reshape(1, 2, 2, 2, 1)).ravel()
        array([3.5], dtype=float32)
    """

    rank, op = 3, pool.average_pool


class GlobalPooling(Layer):
    """What layers that pool all pixels have in common, for ``rank`` axes of space; see GlobalAveragePooling2D."""

    rank: ClassVar[int]
    op: ClassVar[Op]

    def __init__(
        self, keepdims: bool = False, input_shape: Sequence[int] | None = None, name: str | None = None
    ) -> None:
        self.keepdims = bool(keepdims)
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        sizes, channels = check_rows(self.name, self._class, x.shape, self.rank)
        if not math.prod(sizes):
            raise ValueError(f"{self.name}: {self._class} needs rows with pixels. Received: shape {x.shape}")
        y = self.op(x)
        return shape.reshape(y, shape=(*(1,) * self.rank, channels)) if self.keepdims else y


class GlobalMaxPooling1D(GlobalPooling):
    """The largest value of each channel of a signal. See GlobalAveragePooling2D.

    Input (N, T, C), output (N, C), or (N, 1, C) with ``keepdims``.

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import GlobalMaxPooling1D
        >>> GlobalMaxPooling1D()(np.array([[[1.0, 5.0], [3.0, 4.0]]]))
        array([[3., 5.]], dtype=float32)
    """

    rank, op = 1, pool.global_max_pool


class GlobalMaxPooling2D(GlobalPooling):
    """The largest pixel of each channel of an image. See GlobalAveragePooling2D.

    Of equal pixels the first, row by row, gets the gradient. A NaN is the result of its channel.

    Input (N, H, W, C), output (N, C), or (N, 1, 1, C) with ``keepdims``.

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import GlobalMaxPooling2D
        >>> GlobalMaxPooling2D()(np.arange(8.0).reshape(1, 2, 2, 2))
        array([[6., 7.]], dtype=float32)
    """

    rank, op = 2, pool.global_max_pool


class GlobalMaxPooling3D(GlobalPooling):
    """The largest value of each channel of a volume. See GlobalMaxPooling2D.

    Input (N, D, H, W, C), output (N, C), or (N, 1, 1, 1, C) with ``keepdims``.

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import GlobalMaxPooling3D
        >>> GlobalMaxPooling3D()(np.arange(8.0).reshape(1, 2, 2, 2, 1))
        array([[7.]], dtype=float32)
    """

    rank, op = 3, pool.global_max_pool


class GlobalAveragePooling1D(GlobalPooling):
    """The mean of each channel of a signal. See GlobalAveragePooling2D.

    Input (N, T, C), output (N, C), or (N, 1, C) with ``keepdims``.

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import GlobalAveragePooling1D
        >>> GlobalAveragePooling1D()(np.array([[[1.0, 5.0], [3.0, 4.0]]]))
        array([[2. , 4.5]], dtype=float32)
    """

    rank, op = 1, pool.global_average_pool


class GlobalAveragePooling2D(GlobalPooling):
    """The mean of each channel of an image.

    Args:
        keepdims: whether the axes of space stay, with size 1
        input_shape: ``(H, W, C)``, where the layer is the first of a Sequential
        name: made up if None

    Input (N, H, W, C), output (N, C), or (N, 1, 1, C) with ``keepdims``.

    Raises:
        ValueError: the rows have another number of axes, or no pixels

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import GlobalAveragePooling2D
        >>> GlobalAveragePooling2D()(np.arange(8.0).reshape(1, 2, 2, 2))
        array([[3., 4.]], dtype=float32)
        >>> GlobalAveragePooling2D(keepdims=True)(np.ones((5, 7, 7, 3))).shape
        (5, 1, 1, 3)
    """

    rank, op = 2, pool.global_average_pool


class GlobalAveragePooling3D(GlobalPooling):
    """The mean of each channel of a volume. See GlobalAveragePooling2D.

    Input (N, D, H, W, C), output (N, C), or (N, 1, 1, 1, C) with ``keepdims``.

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import GlobalAveragePooling3D
        >>> GlobalAveragePooling3D()(np.arange(8.0).reshape(1, 2, 2, 2, 1))
        array([[3.5]], dtype=float32)
    """

    rank, op = 3, pool.global_average_pool


#: The short names of the same layers.
MaxPool1D, MaxPool2D, MaxPool3D = MaxPooling1D, MaxPooling2D, MaxPooling3D
AvgPool1D, AvgPool2D, AvgPool3D = AveragePooling1D, AveragePooling2D, AveragePooling3D
GlobalMaxPool1D, GlobalMaxPool2D, GlobalMaxPool3D = GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D
GlobalAvgPool1D, GlobalAvgPool2D, GlobalAvgPool3D = (
    GlobalAveragePooling1D, GlobalAveragePooling2D, GlobalAveragePooling3D,
)  # fmt: skip

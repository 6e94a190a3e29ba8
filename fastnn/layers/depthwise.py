"""Depthwise and separable convolutions of signals and images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from fastnn import initializers, regularizers
from fastnn.configurable import whole
from fastnn.graph import Shape
from fastnn.layers.base import Layer, Training
from fastnn.layers.core import activate, check_activation
from fastnn.layers.window import check_padding, check_rows, check_size, fit, per_axis
from fastnn.ops import depthwise, matrix
from fastnn.ops.conv import conv
from fastnn.ops.window import LIMIT, Pads

Sizes = int | Sequence[int]
Padding = str | Sequence[Sequence[int]]


def _below_limit(what: str, name: str, value: Any) -> int:
    if whole(what, name, value) >= LIMIT:
        raise ValueError(f"{what}: {name} must be below 2**31. Received: {name}={value!r}")
    return whole(what, name, value)


class DepthwiseConv(Layer):
    """What depthwise and separable convolutions have in common, for ``rank`` axes of space; see DepthwiseConv2D."""

    rank: ClassVar[int]
    parts: ClassVar[dict[str, Any]] = {
        **Layer.parts,
        "depthwise_initializer": lambda: initializers.INITIALIZERS,
        "pointwise_initializer": lambda: initializers.INITIALIZERS,
        "depthwise_regularizer": lambda: regularizers.REGULARIZERS,
        "pointwise_regularizer": lambda: regularizers.REGULARIZERS,
    }

    def __init__(
        self,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: Padding = "valid",
        *,
        depth_multiplier: int = 1,
        dilation_rate: Sizes = 1,
        activation: str | None = None,
        use_bias: bool = True,
        depthwise_initializer: str | initializers.Initializer = "glorot_uniform",
        bias_initializer: str | initializers.Initializer = "zeros",
        depthwise_regularizer: str | regularizers.Regularizer | None = None,
        bias_regularizer: str | regularizers.Regularizer | None = None,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        what = self._class
        self.kernel_size = per_axis(what, "kernel_size", kernel_size, self.rank)
        self.strides = per_axis(what, "strides", strides, self.rank)
        self.padding = check_padding(what, padding, self.rank, "valid", "same")
        self.depth_multiplier = _below_limit(what, "depth_multiplier", depth_multiplier)
        self.dilation_rate = per_axis(what, "dilation_rate", dilation_rate, self.rank)
        self.activation = check_activation(what, activation)
        self.use_bias = bool(use_bias)
        self.depthwise_initializer = initializers.get(depthwise_initializer, f"{what}: depthwise_initializer")
        self.bias_initializer = initializers.get(bias_initializer, f"{what}: bias_initializer")
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer, f"{what}: depthwise_regularizer")
        self.bias_regularizer = regularizers.get(bias_regularizer, f"{what}: bias_regularizer")
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"{what}: dilation_rate must be 1 where strides are larger than 1. "
                f"Received: dilation_rate={self.dilation_rate}, strides={self.strides}"
            )
        super().__init__(input_shape=input_shape, name=name, trainable=trainable)

    def build(self, shape: Shape) -> None:
        kernel, row = self._shapes(shape)
        self.kernel = self.add_weight("kernel", kernel, self.depthwise_initializer, self.depthwise_regularizer)
        if self.use_bias:
            self.bias = self.add_weight("bias", row[-1:], self.bias_initializer, self.bias_regularizer)

    def call(self, x: Any, training: Training | None = None) -> Any:
        return self._end(self._convolve(x, self.read(self.kernel, x)))

    def _shapes(self, shape: Shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of the depthwise kernel and of a row of its output, for rows of this shape."""
        channels = check_rows(self.name, self._class, shape, self.rank)[1]
        kernel = (*self.kernel_size, channels, self.depth_multiplier)
        row = (*self._fit(shape)[1], channels * self.depth_multiplier)
        check_size(self.name, self._class, "a depthwise kernel", kernel)
        check_size(self.name, self._class, "rows of the output", row)
        return kernel, row

    def _fit(self, shape: Shape) -> tuple[Pads, tuple[int, ...]]:
        return fit(self.name, self._class, shape, self.padding, self.kernel_size, self.strides, self.dilation_rate)

    def _convolve(self, x: Any, w: Any) -> Any:
        pads = self._fit(x.shape)[0]
        return depthwise.depthwise_conv(x, w, strides=self.strides, pads=pads, dilations=self.dilation_rate)

    def _end(self, y: Any) -> Any:
        if self.use_bias:
            y = matrix.add_bias(y, self.read(self.bias, y))
        return activate(self.activation, y)


class DepthwiseConv1D(DepthwiseConv):
    """Depthwise convolution of signals. See DepthwiseConv2D.

    Input (N, T, C), output (N, T', C * M); weights: kernel (K, C, M), bias (C * M,).

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import DepthwiseConv1D
        >>> layer = DepthwiseConv1D(2, depthwise_initializer="ones")
        >>> layer(np.array([[[1.0, 10.0], [2.0, 20.0], [5.0, 50.0]]]))[0]
        array([[ 3., 30.],
               [ 7., 70.]], dtype=float32)
    """

    rank = 1


class DepthwiseConv2D(DepthwiseConv):
    """Depthwise convolution of images: each channel is convolved with ``depth_multiplier`` kernels of its own.

    Then come bias and activation.

    As in every framework, what is computed is the cross-correlation, not the convolution of mathematics:

        y[h, w, c * M + m] = sum over i, j of x[h * stride + i, w * stride + j, c] * kernel[i, j, c, m].

    Args:
        kernel_size: int, or one for each axis: the size of the window
        strides: int, or one for each axis: how far the window moves. Not with a dilation_rate above 1
        padding: ``"valid"``: none; ``"same"``: zeros evenly on both sides (an odd one comes after), so that the output
            has the input's size divided by the strides, rounded up; or ``((top, bottom), (left, right))`` zeros
        depth_multiplier: int, number of output channels M of each input channel
        dilation_rate: int, or one for each axis: how far apart the elements of the window are
        activation: name of an activation, None for linear
        use_bias: whether a bias is added
        depthwise_initializer, bias_initializer: name or Initializer
        depthwise_regularizer, bias_regularizer: name or Regularizer or None
        input_shape: ``(H, W, C)``, where the layer is the first of a Sequential

    Input (N, H, W, C), output (N, H', W', C * M); weights: kernel (KH, KW, C, M), bias (C * M,).

    Raises:
        ValueError: an argument is out of its range; when it meets its input: the input has another number of axes, or
            the window is larger than the padded input

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import DepthwiseConv2D
        >>> DepthwiseConv2D(3, padding="same", strides=2)(np.zeros((1, 28, 28, 16))).shape
        (1, 14, 14, 16)
        >>> x = np.arange(8.0).reshape(1, 2, 2, 2)
        >>> DepthwiseConv2D(2, depthwise_initializer="ones")(x)
        array([[[[12., 16.]]]], dtype=float32)
    """

    rank = 2


class SeparableConv(DepthwiseConv):
    """What separable convolutions have in common, for ``rank`` axes of space; see SeparableConv2D."""

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: Padding = "valid",
        *,
        dilation_rate: Sizes = 1,
        depth_multiplier: int = 1,
        activation: str | None = None,
        use_bias: bool = True,
        depthwise_initializer: str | initializers.Initializer = "glorot_uniform",
        pointwise_initializer: str | initializers.Initializer = "glorot_uniform",
        bias_initializer: str | initializers.Initializer = "zeros",
        depthwise_regularizer: str | regularizers.Regularizer | None = None,
        pointwise_regularizer: str | regularizers.Regularizer | None = None,
        bias_regularizer: str | regularizers.Regularizer | None = None,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        what = self._class
        self.filters = _below_limit(what, "filters", filters)
        self.pointwise_initializer = initializers.get(pointwise_initializer, f"{what}: pointwise_initializer")
        self.pointwise_regularizer = regularizers.get(pointwise_regularizer, f"{what}: pointwise_regularizer")
        super().__init__(
            kernel_size,
            strides,
            padding,
            depth_multiplier=depth_multiplier,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            depthwise_initializer=depthwise_initializer,
            bias_initializer=bias_initializer,
            depthwise_regularizer=depthwise_regularizer,
            bias_regularizer=bias_regularizer,
            input_shape=input_shape,
            name=name,
            trainable=trainable,
        )

    def build(self, shape: Shape) -> None:
        kernel, row = self._shapes(shape)
        pointwise = (*(1,) * self.rank, row[-1], self.filters)
        check_size(self.name, self._class, "a pointwise kernel", pointwise)
        check_size(self.name, self._class, "rows of the output", (*row[:-1], self.filters))
        self.depthwise_kernel = self.add_weight(
            "depthwise_kernel", kernel, self.depthwise_initializer, self.depthwise_regularizer
        )
        self.pointwise_kernel = self.add_weight(
            "pointwise_kernel", pointwise, self.pointwise_initializer, self.pointwise_regularizer
        )
        if self.use_bias:
            self.bias = self.add_weight("bias", (self.filters,), self.bias_initializer, self.bias_regularizer)

    def call(self, x: Any, training: Training | None = None) -> Any:
        y, w = self._convolve(x, self.read(self.depthwise_kernel, x)), self.read(self.pointwise_kernel, x)
        one = (1,) * self.rank
        return self._end(conv(y, w, strides=one, pads=((0, 0),) * self.rank, dilations=one, groups=1))


class SeparableConv1D(SeparableConv):
    """Separable convolution of signals. See SeparableConv2D.

    Input (N, T, C), output (N, T', F); weights: depthwise kernel (K, C, M), pointwise kernel (1, C * M, F), bias (F,).

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import SeparableConv1D
        >>> layer = SeparableConv1D(1, 2, depthwise_initializer="ones", pointwise_initializer="ones")
        >>> layer(np.array([[[1.0, 10.0], [2.0, 20.0], [5.0, 50.0]]]))[0, :, 0]
        array([33., 77.], dtype=float32)
    """

    rank = 1


class SeparableConv2D(SeparableConv):
    """Depthwise convolution of images, then a 1 x 1 convolution that mixes the channels; then bias and activation.

    It does the work of a Conv2D with a fraction of its weights and operations (Chollet 2017, "Xception: deep learning
    with depthwise separable convolutions", https://arxiv.org/abs/1610.02357). As there, what is computed is the
    cross-correlation, not the convolution of mathematics:

        t[h, w, c * M + m] = sum over i, j of x[h * stride + i, w * stride + j, c] * depthwise_kernel[i, j, c, m],
        y[h, w, f] = sum over e of t[h, w, e] * pointwise_kernel[0, 0, e, f].

    Args:
        filters: int, number of output channels F
        kernel_size: int, or one for each axis: the size of the window
        strides: int, or one for each axis: how far the window moves. Not with a dilation_rate above 1
        padding: ``"valid"``: none; ``"same"``: zeros evenly on both sides (an odd one comes after), so that the output
            has the input's size divided by the strides, rounded up; or ``((top, bottom), (left, right))`` zeros
        dilation_rate: int, or one for each axis: how far apart the elements of the window are
        depth_multiplier: int, number of depthwise channels M of each input channel
        activation: name of an activation, None for linear
        use_bias: whether a bias is added
        depthwise_initializer, pointwise_initializer, bias_initializer: name or Initializer
        depthwise_regularizer, pointwise_regularizer, bias_regularizer: name or Regularizer or None
        input_shape: ``(H, W, C)``, where the layer is the first of a Sequential

    Input (N, H, W, C), output (N, H', W', F); weights: depthwise kernel (KH, KW, C, M), pointwise kernel (1, 1, C * M,
    F), bias (F,).

    Raises:
        ValueError: an argument is out of its range; when it meets its input: the input has another number of axes, or
            the window is larger than the padded input

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import SeparableConv2D
        >>> layer = SeparableConv2D(32, 3, padding="same", activation="relu")
        >>> layer(np.zeros((1, 28, 28, 16))).shape
        (1, 28, 28, 32)
        >>> [weight.shape for weight in layer.get_weights()]
        [(3, 3, 16, 1), (1, 1, 16, 32), (32,)]
    """

    rank = 2

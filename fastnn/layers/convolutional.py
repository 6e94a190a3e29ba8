"""Convolutions and transposed convolutions of signals, images and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from fastnn import initializers, regularizers
from fastnn.configurable import whole
from fastnn.graph import Shape
from fastnn.layers.base import Layer, Training
from fastnn.layers.core import activate, check_activation
from fastnn.layers.window import check_padding, check_rows, check_size, fit, per_axis
from fastnn.ops import matrix
from fastnn.ops.conv import conv, conv_dx
from fastnn.ops.window import LIMIT, Pads, spread

Sizes = int | Sequence[int]
Padding = str | Sequence[Sequence[int]]


class Conv(Layer):
    """What convolutions have in common, for ``rank`` axes of space; see Conv2D."""

    rank: ClassVar[int]
    #: What ``padding`` may say besides pairs.
    paddings: ClassVar[tuple[str, ...]] = ("valid", "same")

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: Padding = "valid",
        *,
        dilation_rate: Sizes = 1,
        groups: int = 1,
        activation: str | None = None,
        use_bias: bool = True,
        kernel_initializer: str | initializers.Initializer = "glorot_uniform",
        bias_initializer: str | initializers.Initializer = "zeros",
        kernel_regularizer: str | regularizers.Regularizer | None = None,
        bias_regularizer: str | regularizers.Regularizer | None = None,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        what = self._class
        self.filters = whole(what, "filters", filters)
        self.kernel_size = per_axis(what, "kernel_size", kernel_size, self.rank)
        self.strides = per_axis(what, "strides", strides, self.rank)
        self.padding = check_padding(what, padding, self.rank, *self.paddings)
        self.dilation_rate = per_axis(what, "dilation_rate", dilation_rate, self.rank)
        self.groups = whole(what, "groups", groups)
        self.activation = check_activation(what, activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer, f"{what}: kernel_initializer")
        self.bias_initializer = initializers.get(bias_initializer, f"{what}: bias_initializer")
        self.kernel_regularizer = regularizers.get(kernel_regularizer, f"{what}: kernel_regularizer")
        self.bias_regularizer = regularizers.get(bias_regularizer, f"{what}: bias_regularizer")
        if self.filters >= LIMIT:
            raise ValueError(f"{what}: filters must be below 2**31. Received: filters={filters!r}")
        if self.filters % self.groups:
            raise ValueError(f"{what}: groups must divide filters. Received: groups={groups}, filters={filters}")
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"{what}: dilation_rate must be 1 where strides are larger than 1. "
                f"Received: dilation_rate={self.dilation_rate}, strides={self.strides}"
            )
        super().__init__(input_shape=input_shape, name=name, trainable=trainable)

    def build(self, shape: Shape) -> None:
        channels = check_rows(self.name, self._class, shape, self.rank)[1]
        if channels % self.groups:
            raise ValueError(
                f"{self.name}: {self._class} needs channels that groups divide. "
                f"Received: groups={self.groups}, shape {shape}"
            )
        outputs, kernel = self._outputs(shape)[1], self._kernel_shape(channels)
        check_size(self.name, self._class, "a kernel", kernel)
        check_size(self.name, self._class, "rows of the output", (*outputs, self.filters))
        self.kernel = self.add_weight("kernel", kernel, self.kernel_initializer, self.kernel_regularizer)
        if self.use_bias:
            self.bias = self.add_weight("bias", (self.filters,), self.bias_initializer, self.bias_regularizer)

    def call(self, x: Any, training: Training | None = None) -> Any:
        y = self._convolve(x, self.read(self.kernel, x))
        if self.use_bias:
            y = matrix.add_bias(y, self.read(self.bias, x))
        return activate(self.activation, y)

    def _kernel_shape(self, channels: int) -> tuple[int, ...]:
        return (*self.kernel_size, channels // self.groups, self.filters)

    def _outputs(self, shape: Shape) -> tuple[Pads, tuple[int, ...]]:
        """The padding of the convolution and its output sizes, for rows of this shape."""
        padding = self.padding
        if padding == "causal":
            padding = ((spread(self.kernel_size, self.dilation_rate)[0] - 1, 0),)
        return fit(self.name, self._class, shape, padding, self.kernel_size, self.strides, self.dilation_rate)

    def _convolve(self, x: Any, w: Any) -> Any:
        pads = self._outputs(x.shape)[0]
        return conv(
            x, w, strides=self.strides, pads=pads, dilations=self.dilation_rate, groups=self.groups
        )


class Conv1D(Conv):
    """Convolution of signals: ``activation(conv(x, kernel) + bias)``. See Conv2D.

    ``padding`` may also be ``"causal"``: zeros come before the signal only, so that no output sees a later step.

    Input (N, T, C), output (N, T', F); weights: kernel (K, C / groups, F), bias (F,).

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Conv1D
        >>> layer = Conv1D(1, 2, padding="causal", kernel_initializer="ones")
        >>> layer(np.array([[[1.0], [2.0], [5.0]]]))[0, :, 0]
        array([1., 3., 7.], dtype=float32)
    """

    rank = 1
    paddings = ("valid", "same", "causal")


class Conv2D(Conv):
    """Convolution of images: ``activation(conv(x, kernel) + bias)``.

    As in every framework, what is computed is the cross-correlation

        y[h, w, f] = sum over m, n, c of x[h * stride + m, w * stride + n, c] * kernel[m, n, c, f].

    The convolution of mathematics, with sum over m, n of ``K(m, n) I(x - m, y - n)``, is the same with the kernel
    flipped along both axes; where kernels are learned it makes no difference.

    Args:
        filters: int, number of output channels F
        kernel_size: int, or one for each axis: the size of the window
        strides: int, or one for each axis: how far the window moves. Not with a dilation_rate above 1
        padding: ``"valid"``: none; ``"same"``: zeros evenly on both sides (an odd one comes after), so that the output
            has the input's size divided by the strides, rounded up; or ``((top, bottom), (left, right))`` zeros
        dilation_rate: int, or one for each axis: how far apart the elements of the window are
        groups: the channels and the filters are cut into so many groups, and each group of filters sees its group of
            channels only
        activation: name of an activation, None for linear
        use_bias: whether a bias is added
        kernel_initializer, bias_initializer: name or Initializer
        kernel_regularizer, bias_regularizer: name or Regularizer or None
        input_shape: ``(H, W, C)``, where the layer is the first of a Sequential

    Input (N, H, W, C), output (N, H', W', F); weights: kernel (KH, KW, C / groups, F), bias (F,).

    Raises:
        ValueError: an argument is out of its range; when it meets its input: the input has another number of axes, the
            window is larger than the padded input, or groups does not divide the channels

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Conv2D
        >>> Conv2D(16, 3, padding="same", activation="relu")(np.zeros((1, 28, 28, 1))).shape
        (1, 28, 28, 16)
        >>> Conv2D(1, 2, kernel_initializer="ones")(np.arange(6.0).reshape(1, 2, 3, 1))[0, :, :, 0]
        array([[ 8., 12.]], dtype=float32)
    """

    rank = 2


class Conv3D(Conv):
    """Convolution of volumes: ``activation(conv(x, kernel) + bias)``. See Conv2D.

    Input (N, D, H, W, C), output (N, D', H', W', F); weights: kernel (KD, KH, KW, C / groups, F), bias (F,).

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Conv3D
        >>> Conv3D(4, (1, 3, 3), strides=2)(np.zeros((1, 8, 9, 9, 2))).shape
        (1, 4, 4, 4, 4)
    """

    rank = 3


class ConvTranspose(Conv):
    """What transposed convolutions have in common, for ``rank`` axes of space; see Conv2DTranspose."""

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: Padding = "valid",
        output_padding: Sizes | None = None,
        *,
        dilation_rate: Sizes = 1,
        activation: str | None = None,
        use_bias: bool = True,
        kernel_initializer: str | initializers.Initializer = "glorot_uniform",
        bias_initializer: str | initializers.Initializer = "zeros",
        kernel_regularizer: str | regularizers.Regularizer | None = None,
        bias_regularizer: str | regularizers.Regularizer | None = None,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            strides,
            padding,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            input_shape=input_shape,
            name=name,
            trainable=trainable,
        )
        self.output_padding = None
        if output_padding is not None:
            self.output_padding = per_axis(self._class, "output_padding", output_padding, self.rank, low=0)
            if any(more >= stride for more, stride in zip(self.output_padding, self.strides, strict=True)):
                raise ValueError(
                    f"{self._class}: output_padding must be smaller than strides. "
                    f"Received: output_padding={self.output_padding}, strides={self.strides}"
                )

    def _kernel_shape(self, channels: int) -> tuple[int, ...]:
        return (*self.kernel_size, self.filters, channels)

    def _outputs(self, shape: Shape) -> tuple[Pads, tuple[int, ...]]:
        sizes, channels = check_rows(self.name, self._class, shape, self.rank)
        check_size(self.name, self._class, "rows", (*sizes, channels))
        pads, outputs = [], []
        for axis, (size, width) in enumerate(zip(sizes, spread(self.kernel_size, self.dilation_rate), strict=True)):
            cut, more = self._cut(axis, width)
            pads.append((cut, max(0, -more)))
            outputs.append((size - 1) * self.strides[axis] + width - cut + more)
        if min(outputs) < 1:
            raise ValueError(
                f"{self.name}: {self._class} has no output for this shape with padding={self.padding!r}, "
                f"output_padding={self.output_padding}, kernel_size={self.kernel_size}. Received: shape {shape}"
            )
        return tuple(pads), tuple(outputs)

    def _cut(self, axis: int, width: int) -> tuple[int, int]:
        """How much shorter at the start and longer at the end than (size - 1) * stride + width the output is."""
        stride, given = self.strides[axis], None if self.output_padding is None else self.output_padding[axis]
        if self.padding == "valid":
            return 0, max(0, stride - width) if given is None else given
        if not isinstance(self.padding, str):
            before, after = self.padding[axis]
            return before, (given or 0) - after
        # The output has size * stride elements, or (size - 1) * stride + width % 2 + output_padding as Keras has it
        longer = stride - width if given is None else width % 2 + given - width
        zeros = longer + 2 * (width - 1)  # around the gradient, were this a convolution of it
        before = width - 1 - min(zeros - zeros // 2, width - 1)
        return before, longer + before

    def _convolve(self, x: Any, w: Any) -> Any:
        pads, outputs = self._outputs(x.shape)
        return conv_dx(
            x, w, sizes=outputs, strides=self.strides, pads=pads, dilations=self.dilation_rate, groups=1
        )


class Conv1DTranspose(ConvTranspose):
    """Transposed convolution of signals. See Conv2DTranspose.

    Input (N, T, C), output (N, T', F); weights: kernel (K, F, C), bias (F,).

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Conv1DTranspose
        >>> Conv1DTranspose(1, 3, strides=2, kernel_initializer="ones")(np.array([[[1.0], [5.0]]]))[0, :, 0]
        array([1., 1., 6., 5., 5.], dtype=float32)
    """

    rank = 1


class Conv2DTranspose(ConvTranspose):
    """Transposed convolution of images, the step up of U-Net: ``activation(conv_dx(x, kernel) + bias)``.

    What a convolution of these arguments does to the gradient of its output, this does to its input: each pixel is
    spread over a window, and the windows are added up. Weights lie as those of that convolution, which goes from F to C
    channels.

    Args:
        filters: int, number of output channels F
        kernel_size: int, or one for each axis: the size of the window
        strides: int, or one for each axis: how many times larger the output is. Not with a dilation_rate above 1
        padding: ``"valid"``: the output has ``(size - 1) * stride + max(kernel_size, stride)`` elements along an axis;
            ``"same"``: ``size * stride``; or ``((top, bottom), (left, right))`` elements that are cut off
        output_padding: int, or one for each axis, smaller than the strides: the output has that many more elements than
            ``(size - 1) * stride + kernel_size`` with ``"valid"`` or pairs (which come off), than
            ``(size - 1) * stride + kernel_size % 2`` with ``"same"``
        dilation_rate: int, or one for each axis: how far apart the elements of the window are
        activation: name of an activation, None for linear
        use_bias: whether a bias is added
        kernel_initializer, bias_initializer: name or Initializer
        kernel_regularizer, bias_regularizer: name or Regularizer or None
        input_shape: ``(H, W, C)``, where the layer is the first of a Sequential

    Input (N, H, W, C), output (N, H', W', F); weights: kernel (KH, KW, F, C), bias (F,).

    Raises:
        ValueError: an argument is out of its range; when it meets its input: the input has another number of axes, or
            nothing is left of the output

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Conv2DTranspose
        >>> Conv2DTranspose(8, 2, strides=2)(np.zeros((1, 7, 9, 16))).shape
        (1, 14, 18, 8)
    """

    rank = 2


class Conv3DTranspose(ConvTranspose):
    """Transposed convolution of volumes. See Conv2DTranspose.

    Input (N, D, H, W, C), output (N, D', H', W', F); weights: kernel (KD, KH, KW, F, C), bias (F,).

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Conv3DTranspose
        >>> Conv3DTranspose(2, 3, strides=2, padding="same")(np.zeros((1, 2, 3, 4, 5))).shape
        (1, 4, 6, 8, 2)
    """

    rank = 3

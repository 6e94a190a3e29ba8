"""Layers that shift and scale numbers to mean 0 and variance 1, then by a learned gamma and beta.

    y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

They differ in which numbers share a mean and a (biased) variance. Channels are the last axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from fastnn import initializers, regularizers
from fastnn.configurable import number, whole
from fastnn.graph import Shape, Tensor
from fastnn.layers.base import Layer, Training
from fastnn.layers.weight import Weight
from fastnn.ops import batch_norm, data, layer_norm, norm, shape, update

Initial = str | initializers.Initializer
Penalty = str | regularizers.Regularizer | None


class _Normalization(Layer):
    """What the layers have in common: gamma and beta, each of them optional, and epsilon."""

    parts: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(
            ("beta_initializer", "gamma_initializer", "moving_mean_initializer", "moving_variance_initializer"),
            lambda: initializers.INITIALIZERS,
        ),
        **dict.fromkeys(("beta_regularizer", "gamma_regularizer"), lambda: regularizers.REGULARIZERS),
    }

    def __init__(
        self,
        epsilon: float,
        center: bool,
        scale: bool,
        initial: tuple[Initial, Initial],
        penalties: tuple[Penalty, Penalty],
        **options: Any,
    ) -> None:
        what = self._class
        self.epsilon = number(what, "epsilon", epsilon, above=0)
        self.center = bool(center)
        self.scale = bool(scale)
        self.beta_initializer = initializers.get(initial[0], f"{what}: beta_initializer")
        self.gamma_initializer = initializers.get(initial[1], f"{what}: gamma_initializer")
        self.beta_regularizer = regularizers.get(penalties[0], f"{what}: beta_regularizer")
        self.gamma_regularizer = regularizers.get(penalties[1], f"{what}: gamma_regularizer")
        super().__init__(**options)

    def _channels(self, shape: Shape) -> int:
        if len(shape) < 2 or None in shape[1:]:
            raise ValueError(f"{self.name}: {self._class} needs rows (batch, ..., channels). Received: shape {shape}")
        return shape[-1]  # type: ignore[return-value]

    def _add_affine(self, shape: tuple[int, ...]) -> None:
        if self.scale:
            self.gamma = self.add_weight("gamma", shape, self.gamma_initializer, self.gamma_regularizer)
        if self.center:
            self.beta = self.add_weight("beta", shape, self.beta_initializer, self.beta_regularizer)

    def _affine(self, x: Any, size: int, like: Any) -> tuple[Any, Any]:
        """gamma and beta as vectors of that size for use with ``x``.

        Where there is none, ones or zeros are made from what there is, or from ``like``, whose last axis has that size.
        """
        known = [self._vector(weight, x, size) for weight in self.weights[: self.scale + self.center]]
        like = known[0] if known else like
        gamma = known[0] if self.scale else data.fill(like, fill_value=1.0)
        beta = known[-1] if self.center else data.fill(like, fill_value=0.0)
        return gamma, beta

    def _vector(self, weight: Weight, x: Any, size: int) -> Any:
        value = self.read(weight, x)
        return value if len(weight.shape) == 1 else shape.reshape_weight(value, shape=(size,))


class BatchNormalization(_Normalization):
    """Normalizes each channel over the batch and all axes of space.

    Ioffe & Szegedy 2015, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift".

    In training, mean and variance are those of the batch, and moving averages of both are kept: ``moving = momentum *
    moving + (1 - momentum) * batch``. Outside of training, and in training where the layer is frozen (``trainable`` is
    False), the moving averages take their place, so that a row's output does not depend on the others.

    Args:
        axis: the axis of the channels, which is the last
        momentum: of the moving averages, from 0 to 1
        epsilon: what is added to the variance, above 0
        center: whether there is a beta
        scale: whether there is a gamma
        beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer: name or Initializer
        beta_regularizer, gamma_regularizer: name or Regularizer or None
        input_shape: shape of a row, where the layer is the first of a Sequential

    Input and output (N, ..., C); weights: gamma, beta, moving_mean, moving_variance, all (C,). The last two are not
    trained.

    Raises:
        ValueError: an argument is out of its range, or the axis is not the last of the input

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import BatchNormalization
        >>> x = np.array([[1.0, 10.0], [3.0, 10.0]])
        >>> layer = BatchNormalization(momentum=0.5, epsilon=1e-9)
        >>> layer(x, training=True)
        array([[-1.,  0.],
               [ 1.,  0.]], dtype=float32)
        >>> layer.get_weights()[2:]  # halfway from mean 0, variance 1 to those of the batch
        [array([1., 5.], dtype=float32), array([1. , 0.5], dtype=float32)]
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Initial = "zeros",
        gamma_initializer: Initial = "ones",
        moving_mean_initializer: Initial = "zeros",
        moving_variance_initializer: Initial = "ones",
        beta_regularizer: Penalty = None,
        gamma_regularizer: Penalty = None,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        what = self._class
        self.axis = _check_axis(what, axis)
        self.momentum = number(what, "momentum", momentum, low=0, high=1)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer, f"{what}: moving_mean_initializer")
        self.moving_variance_initializer = initializers.get(
            moving_variance_initializer, f"{what}: moving_variance_initializer"
        )
        super().__init__(
            epsilon,
            center,
            scale,
            (beta_initializer, gamma_initializer),
            (beta_regularizer, gamma_regularizer),
            input_shape=input_shape,
            name=name,
            trainable=trainable,
        )

    def build(self, shape: Shape) -> None:
        channels = self._channels(shape)
        _check_last(self, self.axis, shape)
        self._add_affine((channels,))
        self.moving_mean = self.add_weight(
            "moving_mean", (channels,), self.moving_mean_initializer, trainable=False
        )
        self.moving_variance = self.add_weight(
            "moving_variance", (channels,), self.moving_variance_initializer, trainable=False
        )

    def call(self, x: Any, training: Training | None = None) -> Any:
        mean, variance = self.read(self.moving_mean, x), self.read(self.moving_variance, x)
        gamma, beta = self._affine(x, x.shape[-1], mean)
        if training is None or not self.trainable:
            return batch_norm.normalize(x, mean, variance, gamma, beta, epsilon=self.epsilon)
        moments = batch_norm.moments(x)
        for index, weight in enumerate((self.moving_mean, self.moving_variance)):
            new = update.moving_average(self.read(weight, x), data.take(moments, index=index), momentum=self.momentum)
            if isinstance(x, Tensor):
                training.updates.append(new)
            else:
                weight.assign(new[0])
        return batch_norm.batch_norm(x, moments, gamma, beta, epsilon=self.epsilon)


class LayerNormalization(_Normalization):
    """Normalizes each row along its last axis, or along its last axes: in training and outside of it the same.

    Ba et al. 2016, "Layer normalization".

    Args:
        axis: int or several: the axes which share a mean and a variance. They must be the last ones: -1, or all axes
            but the batch, or something between
        epsilon: what is added to the variance, above 0
        center: whether there is a beta
        scale: whether there is a gamma
        beta_initializer, gamma_initializer: name or Initializer
        beta_regularizer, gamma_regularizer: name or Regularizer or None
        input_shape: shape of a row, where the layer is the first of a Sequential

    Input and output (N, ..., C); weights: gamma, beta, both of the sizes of the axes.

    Raises:
        ValueError: an argument is out of its range, or the axes are not the last ones of the input

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import LayerNormalization
        >>> LayerNormalization(epsilon=1e-9)(np.array([[1.0, 3.0], [10.0, -30.0]]))
        array([[-1.,  1.],
               [ 1., -1.]], dtype=float32)
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Initial = "zeros",
        gamma_initializer: Initial = "ones",
        beta_regularizer: Penalty = None,
        gamma_regularizer: Penalty = None,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        self.axis = _check_axes(self._class, axis)
        super().__init__(
            epsilon,
            center,
            scale,
            (beta_initializer, gamma_initializer),
            (beta_regularizer, gamma_regularizer),
            input_shape=input_shape,
            name=name,
            trainable=trainable,
        )

    def build(self, shape: Shape) -> None:
        self._channels(shape)
        rank = len(shape)
        axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        found = sorted(axis + rank if axis < 0 else axis for axis in axes)
        if found != list(range(rank - len(axes), rank)) or found[0] == 0:
            raise ValueError(
                f"{self.name}: LayerNormalization needs axis to be the last axes of the rows, without the batch. "
                f"Received: axis={self.axis}, shape {shape}"
            )
        self._sizes: tuple[int, ...] = shape[-len(axes) :]  # type: ignore[assignment]
        self._add_affine(self._sizes)

    def call(self, x: Any, training: Training | None = None) -> Any:
        size = math.prod(self._sizes)
        rows = x
        if len(self._sizes) > 1:
            rows = shape.reshape(x, shape=(*x.shape[1 : -len(self._sizes)], size))
        y = layer_norm.layer_norm(rows, *self._affine(x, size, rows), epsilon=self.epsilon)
        return y if rows is x else shape.reshape(y, shape=x.shape[1:])


class GroupNormalization(_Normalization):
    """Normalizes groups of neighbouring channels over all axes of space, in each row of the batch by itself.

    It does the same in training and outside of it.

    Wu & He 2018, "Group normalization". With one group for each channel it is instance normalization (Ulyanov et al.
    2016), with one group it is layer normalization over all axes but with one gamma and beta for each channel.

    Args:
        groups: number of groups, a divisor of the channels; -1 for one group for each channel
        axis: the axis of the channels, which is the last
        epsilon: what is added to the variance, above 0
        center: whether there is a beta
        scale: whether there is a gamma
        beta_initializer, gamma_initializer: name or Initializer
        beta_regularizer, gamma_regularizer: name or Regularizer or None
        input_shape: shape of a row, where the layer is the first of a Sequential

    Input and output (N, ..., C); weights: gamma, beta, both (C,).

    Raises:
        ValueError: an argument is out of its range, groups does not divide the channels, or the axis is not the last

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import GroupNormalization
        >>> GroupNormalization(groups=2, epsilon=1e-9)(np.array([[1.0, 3.0, 10.0, -30.0]]))
        array([[-1.,  1.,  1., -1.]], dtype=float32)
    """

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Initial = "zeros",
        gamma_initializer: Initial = "ones",
        beta_regularizer: Penalty = None,
        gamma_regularizer: Penalty = None,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
        trainable: bool = True,
    ) -> None:
        what = self._class
        self.groups = -1 if _is_integer(groups) and groups == -1 else whole(what, "groups", groups)
        self.axis = _check_axis(what, axis)
        super().__init__(
            epsilon,
            center,
            scale,
            (beta_initializer, gamma_initializer),
            (beta_regularizer, gamma_regularizer),
            input_shape=input_shape,
            name=name,
            trainable=trainable,
        )

    def build(self, shape: Shape) -> None:
        channels = self._channels(shape)
        _check_last(self, self.axis, shape)
        if channels % self.groups:
            raise ValueError(
                f"{self.name}: GroupNormalization needs channels that groups divide. "
                f"Received: groups={self.groups}, shape {shape}"
            )
        self._add_affine((channels,))

    def call(self, x: Any, training: Training | None = None) -> Any:
        channels = x.shape[-1]
        moments = norm.group_moments(x, groups=channels if self.groups == -1 else self.groups)
        return norm.group_norm(x, moments, *self._affine(x, channels, x), epsilon=self.epsilon)


def _is_integer(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _check_axis(what: str, axis: Any) -> int:
    if not _is_integer(axis):
        raise ValueError(f"{what}: axis must be an integer, the number of the last axis. Received: axis={axis!r}")
    return int(axis.__index__())


def _check_axes(what: str, axis: Any) -> int | tuple[int, ...]:
    if _is_integer(axis):
        return int(axis.__index__())
    several = isinstance(axis, Sequence) and not isinstance(axis, str)
    if not several or not axis or not all(_is_integer(entry) for entry in axis) or len(set(axis)) < len(axis):
        raise ValueError(f"{what}: axis must be an integer or several different ones. Received: axis={axis!r}")
    return tuple(int(entry.__index__()) for entry in axis)


def _check_last(layer: Layer, axis: int, shape: Shape) -> None:
    if axis not in (-1, len(shape) - 1):
        raise ValueError(
            f"{layer.name}: {type(layer).__name__} needs the channels in the last axis. "
            f"Received: axis={axis}, shape {shape}"
        )

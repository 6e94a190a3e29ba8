"""Input, Dense, Activation, Flatten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastnn import initializers, regularizers
from fastnn.configurable import whole
from fastnn.graph import Shape, Tensor
from fastnn.layers.base import Call, Layer, Training, check_shape
from fastnn.ops import matrix, pointwise, shape
from fastnn.ops.softmax import softmax

#: Activations by name.
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "linear": lambda x: x,
    "relu": pointwise.relu,
    "sigmoid": pointwise.sigmoid,
    "tanh": pointwise.tanh,
    "softmax": softmax,
    "softplus": pointwise.softplus,
    "softsign": pointwise.softsign,
    "exponential": pointwise.exponential,
    "hard_sigmoid": pointwise.hard_sigmoid,
    "relu6": pointwise.relu6,
    "selu": pointwise.selu,
    "gelu": pointwise.gelu,
    "silu": pointwise.silu,
    "swish": pointwise.silu,
    "mish": pointwise.mish,
    "hard_silu": pointwise.hard_silu,
    "hard_swish": pointwise.hard_silu,
    "leaky_relu": partial(pointwise.leaky_relu, negative_slope=0.2),
    "elu": partial(pointwise.elu, alpha=1.0),
}


def check_activation(what: str, activation: Any) -> str:
    """The name of an activation; None is linear."""
    name = "linear" if activation is None else activation
    name = getattr(name, "name", name)  # an op, such as fastnn.ops.pointwise.relu
    if not isinstance(name, str) or name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"{what}: activation must be one of {known}. Received: activation={activation!r}")
    return name


def activate(name: str, x: Any) -> Any:
    """Apply the activation of that name. Softmax runs along the last axis."""
    return ACTIVATIONS[name](x)


class InputLayer(Layer):
    """The place where data enters. ``shape`` is that of one row, without the batch axis."""

    def __init__(self, shape: Sequence[int], name: str | None = None) -> None:
        super().__init__(input_shape=check_shape("Input", "shape", shape), name=name)
        self.shape = self.input_shape

    def call(self, x: Any, training: Training | None = None) -> Any:
        return x

    def tensor(self) -> Tensor:
        """A Tensor to call layers on."""
        tensor = Tensor((None, *self.shape), name=self.name)  # type: ignore[misc]
        Call(self, (), False, (tensor,))
        return tensor


def Input(shape: Sequence[int], name: str | None = None) -> Tensor:  # Keras's name
    """A Tensor to call layers on, or the first entry of a Sequential.

    Args:
        shape: sizes of one row, without the batch axis
        name: made up if None

    Returns:
        Tensor of shape (None, *shape)

    Example:
        >>> from fastnn.layers import Dense, Input
        >>> from fastnn.models import Model
        >>> x = Input(shape=(30,))
        >>> Model(x, Dense(1, activation="sigmoid")(x)).count_params()
        31
    """
    return InputLayer(shape, name).tensor()


class Dense(Layer):
    """``activation(x @ kernel + bias)``, along the last axis.

    Args:
        units: int, number of outputs F
        activation: name of an activation, None for linear
        use_bias: whether a bias is added
        kernel_initializer, bias_initializer: name or Initializer
        kernel_regularizer, bias_regularizer: name or Regularizer or None
        input_shape: ``(K,)`` or ``(..., K)``, where the layer is the first of a Sequential; ``input_dim=K`` says the
            same as ``(K,)``

    Input (N, K), output (N, F); weights: kernel (K, F), bias (F,). Rows of more axes, (N, ..., K), become (N, ..., F):
    the same weights at each place.

    Raises:
        ValueError: an argument is out of its range, or the input is not (N, ..., K)

    Example:
        >>> import numpy as np
        >>> from fastnn.layers import Dense
        >>> Dense(3, activation="relu", kernel_initializer="ones")(np.array([[1.0, 2.0]]))
        array([[3., 3., 3.]], dtype=float32)
        >>> Dense(3)(np.ones((5, 28, 28, 2))).shape
        (5, 28, 28, 3)
    """

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        use_bias: bool = True,
        kernel_initializer: str | initializers.Initializer = "glorot_uniform",
        bias_initializer: str | initializers.Initializer = "zeros",
        kernel_regularizer: str | regularizers.Regularizer | None = None,
        bias_regularizer: str | regularizers.Regularizer | None = None,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
        trainable: bool = True,
        input_dim: int | None = None,
    ) -> None:
        if input_dim is not None and input_shape is None:
            input_shape = (whole("Dense", "input_dim", input_dim),)
        self.units = whole("Dense", "units", units)
        self.activation = check_activation("Dense", activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer, "Dense: kernel_initializer")
        self.bias_initializer = initializers.get(bias_initializer, "Dense: bias_initializer")
        self.kernel_regularizer = regularizers.get(kernel_regularizer, "Dense: kernel_regularizer")
        self.bias_regularizer = regularizers.get(bias_regularizer, "Dense: bias_regularizer")
        super().__init__(input_shape=input_shape, name=name, trainable=trainable)
        self.input_dim = None

    def build(self, shape: Shape) -> None:
        if len(shape) < 2 or shape[-1] is None:
            raise ValueError(f"{self.name}: Dense needs rows of (batch, ..., features). Received: shape {shape}")
        sizes = (shape[-1], self.units)
        self.kernel = self.add_weight("kernel", sizes, self.kernel_initializer, self.kernel_regularizer)
        if self.use_bias:
            self.bias = self.add_weight("bias", (self.units,), self.bias_initializer, self.bias_regularizer)

    def call(self, x: Any, training: Training | None = None) -> Any:
        y = matrix.matmul(x, self.read(self.kernel, x))
        if self.use_bias:
            y = matrix.add_bias(y, self.read(self.bias, x))
        return activate(self.activation, y)


class Activation(Layer):
    """An activation by itself: ``Activation("relu")``.

    Example:
        >>> import numpy as np
        >>> Activation("relu")(np.array([[-1.0, 2.0]]))
        array([[0., 2.]], dtype=float32)
    """

    def __init__(
        self, activation: str, input_shape: Sequence[int] | None = None, name: str | None = None
    ) -> None:
        self.activation = check_activation("Activation", activation)
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        return activate(self.activation, x)


class Flatten(Layer):
    """Rows of any shape become rows of one axis: (N, A, B, ...) -> (N, A * B * ...). Costs nothing: it is a view.

    Example:
        >>> import numpy as np
        >>> Flatten()(np.ones((5, 28, 28))).shape
        (5, 784)
    """

    def __init__(self, input_shape: Sequence[int] | None = None, name: str | None = None) -> None:
        super().__init__(input_shape=input_shape, name=name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        size = int(np.prod(x.shape[1:]))
        return x if len(x.shape) == 2 else shape.reshape(x, shape=(size,))

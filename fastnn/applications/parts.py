"""What the networks share: arguments checked, layers named, convolutions that are normalized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastnn.configurable import whole
from fastnn.graph import Tensor
from fastnn.layers import Activation, BatchNormalization, Conv2D, Dense, Dropout, Flatten
from fastnn.layers.base import check_name, check_shape, unique_name
from fastnn.layers.core import check_activation

#: Weights in front of a ReLU are drawn so that signals keep their size from layer to layer (He et al. 2015).
BEFORE_RELU = "he_uniform"


class Names:
    """Names of a network's layers: those of the modules of its PyTorch version.

    Args:
        kind: the network's own name if ``name`` is None, made unique
        name: given, it is the network's name, and with a dot it begins the names of all layers, so that several
            networks of one kind can be parts of one model
    """

    def __init__(self, kind: str, name: str | None) -> None:
        self.model = unique_name(kind.lower()) if name is None else check_name(kind, name)
        self._start = "" if name is None else f"{name}."

    def __call__(self, name: str) -> str:
        """The name of a layer."""
        return self._start + name


def check_images(what: str, input_shape: Any, least: int) -> tuple[int, ...]:
    """``input_shape`` as (H, W, C) with images of at least ``least`` pixels in height and width."""
    shape = check_shape(what, "input_shape", input_shape)
    if len(shape) != 3 or min(shape[:2]) < least:
        raise ValueError(
            f"{what}: input_shape must be (H, W, C) with H and W of at least {least}. "
            f"Received: input_shape={input_shape!r}"
        )
    return shape


def check_classifier(what: str, classes: Any, activation: Any) -> tuple[int, str]:
    """The number of classes and the name of the last activation."""
    classes = whole(what, "classes", classes)
    chosen = check_activation(f"{what}: classifier_activation", activation)
    if classes == 1 and chosen == "softmax":
        raise ValueError(
            f"{what}: classifier_activation must be 'sigmoid' or None where there is one class: its softmax is always "
            f"1. Received: classes=1, classifier_activation={activation!r}"
        )
    return classes, chosen


def conv_norm_relu(
    x: Tensor,
    filters: int,
    kernel_size: int,
    names: Sequence[str],
    *,
    strides: int = 1,
    padding: Any = "same",
    epsilon: float = 1e-5,
    relu: bool = True,
) -> Any:
    """Convolution without bias, batch normalization with PyTorch's momentum and, if asked for, ReLU.

    ``names`` are those of the three layers.
    """
    conv = Conv2D(
        filters,
        kernel_size,
        strides,
        padding,
        use_bias=False,
        kernel_initializer=BEFORE_RELU,
        name=names[0],
    )
    x = BatchNormalization(momentum=0.9, epsilon=epsilon, name=names[1])(conv(x))
    return Activation("relu", name=names[2])(x) if relu else x


def dense_relu(x: Tensor, units: int, name: str) -> Any:
    """Dense with ReLU."""
    return Dense(units, "relu", kernel_initializer=BEFORE_RELU, name=name)(x)


def flat(x: Tensor, name: str) -> Any:
    """Rows of one axis."""
    return Flatten(name=name)(x)


def dropout(x: Tensor, rate: float, name: str) -> Any:
    """In training, some elements set to 0."""
    return Dropout(rate, name=name)(x)


def pairs(*sizes: int) -> tuple[tuple[int, int], ...]:
    """As many zeros on both sides, for each axis of an image."""
    return tuple((size, size) for size in (sizes * 2)[:2])

"""U-Net for images and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastnn.applications.parts import BEFORE_RELU, Names, check_classifier
from fastnn.configurable import whole
from fastnn.graph import Tensor
from fastnn.layers import (
    Activation,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Conv3D,
    Conv3DTranspose,
    Input,
    MaxPooling2D,
    MaxPooling3D,
)
from fastnn.layers.base import check_shape
from fastnn.models import Model

#: Convolution, transposed convolution and pooling by the number of axes of space.
LAYERS: dict[int, tuple[Any, Any, Any]] = {
    2: (Conv2D, Conv2DTranspose, MaxPooling2D),
    3: (Conv3D, Conv3DTranspose, MaxPooling3D),
}


def UNet(
    input_shape: Sequence[int],
    classes: int,
    base_filters: int = 32,
    depth: int = 4,
    batch_norm: bool = False,
    classifier_activation: str | None = "auto",
    name: str | None = None,
) -> Model:
    """U-Net, which says of each pixel what it belongs to.

    Ronneberger, Fischer & Brox 2015, "U-Net: convolutional networks for biomedical image segmentation",
    https://arxiv.org/abs/1505.04597; for volumes Cicek et al. 2016, "3D U-Net", https://arxiv.org/abs/1606.06650. On
    the way down ``depth`` times two 3x3 convolutions and a 2x2 max pooling, at the bottom two convolutions, on the way
    up ``depth`` times a transposed 2x2 convolution, joined with what was there on the way down at that size, and two
    convolutions; at last a 1x1 convolution to the classes. There are ``base_filters`` filters at the top, and twice as
    many with each step down. Other than in the paper, convolutions pad with zeros, so that the output has the input's
    size, and there is no dropout at the bottom.

    The paper's network, ``UNet((H, W, 1), 2, base_filters=64)``, has 31,030,658 weights. With ``batch_norm`` layers,
    their order and their weights are those of the U-Net for brain MRI on PyTorch Hub
    (mateuszbuda/brain-segmentation-pytorch, Buda et al. 2019), whose weights load with ``load_torch``: ``UNet((256,
    256, 3), 1, batch_norm=True)`` has 7,763,041 trained weights.

    Args:
        input_shape: (H, W, C), or (D, H, W, C) for volumes; 2**depth must divide the sizes in space
        classes: int, number of classes: channels of the output. 1 for one thing and the rest
        base_filters: int, filters of the first convolutions
        depth: int, number of steps down
        batch_norm: whether each convolution but the last is batch-normalized (and has no bias)
        classifier_activation: name of the last activation; "auto" is "softmax" for several classes and "sigmoid" for
            one; None for logits
        name: of the model; given, the layers' names begin with it and a dot

    Returns:
        Model: input (N, H, W, C), output (N, H, W, classes); for volumes with D before H

    Raises:
        ValueError: an argument is out of its range; for sizes that do not go with depth the message names the next ones

    Example:
        >>> from fastnn.applications import UNet
        >>> UNet((64, 96, 1), classes=3, base_filters=8).output_shape
        (None, 64, 96, 3)
        >>> UNet((16, 32, 32, 2), classes=1, base_filters=4, depth=3).output_shape
        (None, 16, 32, 32, 1)
        >>> UNet((256, 256, 1), 2, base_filters=64).count_params()
        31030658
    """
    what = "UNet"
    base_filters, depth = whole(what, "base_filters", base_filters), whole(what, "depth", depth)
    shape = _check_sizes(what, input_shape, depth)
    if classifier_activation == "auto":
        classifier_activation = "sigmoid" if classes == 1 else "softmax"
    classes, activation = check_classifier(what, classes, classifier_activation)
    names = Names(what, name)
    conv, transposed, pooling = LAYERS[len(shape) - 1]

    def twice(x: Tensor, filters: int, start: str) -> Any:
        """Two convolutions with ReLU."""
        for number in (1, 2):
            label = names(f"{start}conv{number}")
            kept = {"padding": "same", "kernel_initializer": BEFORE_RELU, "name": label}
            if batch_norm:
                x = conv(filters, 3, use_bias=False, **kept)(x)
                x = BatchNormalization(momentum=0.9, epsilon=1e-5, name=names(f"{start}norm{number}"))(x)
                x = Activation("relu", name=names(f"{start}relu{number}"))(x)
            else:
                x = conv(filters, 3, activation="relu", **kept)(x)
        return x

    x = entry = Input(shape)
    beside = []
    for level in range(1, depth + 1):
        x = twice(x, base_filters << (level - 1), f"encoder{level}.enc{level}")
        beside.append(x)
        x = pooling(2, name=names(f"pool{level}"))(x)
    x = twice(x, base_filters << depth, "bottleneck.bottleneck")
    for level in range(depth, 0, -1):
        filters = base_filters << (level - 1)
        x = transposed(filters, 2, strides=2, name=names(f"upconv{level}"))(x)
        x = Concatenate(name=names(f"skip{level}"))([x, beside[level - 1]])
        x = twice(x, filters, f"decoder{level}.dec{level}")
    return Model(entry, conv(classes, 1, activation=activation, name=names("conv"))(x), name=names.model)


def _check_sizes(what: str, input_shape: Any, depth: int) -> tuple[int, ...]:
    """``input_shape`` if it is that of images or volumes which can be halved ``depth`` times."""
    shape = check_shape(what, "input_shape", input_shape)
    if len(shape) - 1 not in LAYERS:
        raise ValueError(
            f"{what}: input_shape must be (H, W, C) or (D, H, W, C). Received: input_shape={input_shape!r}"
        )
    if depth > 16:
        raise ValueError(f"{what}: depth must be at most 16. Received: depth={depth}")
    step = 2**depth
    if any(size % step for size in shape[:-1]):
        fits = [sorted({max(step, size // step * step), -(-size // step) * step}) for size in shape[:-1]]
        listed = ", ".join(" or ".join(map(str, sizes)) for sizes in fits)
        raise ValueError(
            f"{what}: the sizes of input_shape must be multiples of 2**depth = {step}, here {listed}: pad or crop. "
            f"Received: input_shape={input_shape!r}, depth={depth}"
        )
    return shape

"""ResNet with 18 and 34 layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastnn.applications.parts import Names, check_classifier, check_images, conv_norm_relu, pairs
from fastnn.graph import Tensor
from fastnn.layers import Activation, Add, Dense, GlobalAveragePooling2D, Input, MaxPooling2D
from fastnn.models import Model

#: Filters of the four stages.
FILTERS = (64, 128, 256, 512)


def ResNet18(
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
) -> Model:
    """ResNet with 18 layers: sums of what goes through two convolutions and what goes past them.

    He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385. A
    convolution of 7x7 and a 3x3 max pooling, both with stride 2; four stages of two blocks with 64, 128, 256 and 512
    filters, from the second on each beginning with stride 2, where a 1x1 convolution takes what goes past to the new
    size; the mean of all pixels; a layer of ``classes``. All convolutions are batch-normalized. Layers, padding and
    weights are those of torchvision's ``resnet18``: 11,689,512 trained weights and 9,600 moving means and variances.

    The weights of torchvision's model load with ``load_torch``.

    Args:
        input_shape: (H, W, C) of any size
        classes: int, number of outputs
        classifier_activation: name of the last activation; None for logits
        name: of the model; given, the layers' names begin with it and a dot

    Returns:
        Model: input (N, H, W, C), output (N, classes). For 224x224 pixels the stages end in 56x56x64, 28x28x128,
        14x14x256 and 7x7x512 elements

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> from fastnn.applications import ResNet18
        >>> sum(weight.size for weight in ResNet18((64, 64, 3)).trainable_weights)
        11689512
    """
    return _resnet("ResNet18", (2, 2, 2, 2), input_shape, classes, classifier_activation, name)


def ResNet34(
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
) -> Model:
    """ResNet with 34 layers: stages of 3, 4, 6 and 3 blocks, 21,797,672 trained weights and 17,024 moving means and
    variances, as torchvision's ``resnet34``. See ResNet18.

    Example:
        >>> from fastnn.applications import ResNet34
        >>> ResNet34((64, 64, 3), classes=5).output_shape
        (None, 5)
    """
    return _resnet("ResNet34", (3, 4, 6, 3), input_shape, classes, classifier_activation, name)


def _resnet(
    what: str,
    blocks: Sequence[int],
    input_shape: Sequence[int],
    classes: int,
    classifier_activation: str | None,
    name: str | None,
) -> Model:
    """The network with so many blocks in its stages."""
    shape = check_images(what, input_shape, 1)
    classes, activation = check_classifier(what, classes, classifier_activation)
    names = Names(what, name)
    entry = Input(shape)
    labels = [names(part) for part in ("conv1", "bn1", "relu")]
    x = conv_norm_relu(entry, FILTERS[0], 7, labels, strides=2, padding=pairs(3))
    x = MaxPooling2D(3, 2, pairs(1), name=names("maxpool"))(x)
    for stage, (filters, times) in enumerate(zip(FILTERS, blocks, strict=True), start=1):
        for number in range(times):
            strides = 2 if stage > 1 and number == 0 else 1
            x = _block(x, filters, strides, names(f"layer{stage}.{number}."))
    x = GlobalAveragePooling2D(name=names("avgpool"))(x)
    return Model(entry, Dense(classes, activation, name=names("fc"))(x), name=names.model)


def _block(x: Tensor, filters: int, strides: int, start: str) -> Any:
    """Two convolutions, and a way past them."""
    labels = [start + part for part in ("conv1", "bn1", "relu1")]
    y = conv_norm_relu(x, filters, 3, labels, strides=strides, padding=pairs(1))
    y = conv_norm_relu(y, filters, 3, [start + "conv2", start + "bn2"], relu=False)
    if strides > 1:
        labels = [start + part for part in ("downsample.0", "downsample.1")]
        x = conv_norm_relu(x, filters, 1, labels, strides=strides, padding="valid", relu=False)
    return Activation("relu", name=start + "relu2")(Add(name=start + "add")([y, x]))

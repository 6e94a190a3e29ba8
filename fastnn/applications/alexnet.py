"""AlexNet."""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.applications.parts import (
    BEFORE_RELU,
    Names,
    check_classifier,
    check_images,
    dense_relu,
    dropout,
    flat,
    pairs,
)
from fastnn.layers import Conv2D, Dense, Input, MaxPooling2D
from fastnn.models import Model

#: Filters, kernel size, stride, padding; 0 is a pooling. Numbers of the PyTorch modules are counted with their ReLUs.
FEATURES = (
    (64, 11, 4, 2), 0, (192, 5, 1, 2), 0, (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), 0,
)  # fmt: skip
#: Units of the two dense layers before the last.
HIDDEN = 4096


def AlexNet(
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
) -> Model:
    """AlexNet, the network that won ImageNet in 2012, in its one-column form.

    Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional neural networks",
    https://doi.org/10.1145/3065386; the one column is that of Krizhevsky 2014, "One weird trick for parallelizing
    convolutional neural networks", https://arxiv.org/abs/1404.5997. Five convolutions (11x11 with stride 4, 5x5, three
    of 3x3; 64, 192, 384, 256, 256 filters), three poolings of 3x3 with stride 2, two layers of 4096 units behind
    dropouts of 0.5, one of ``classes``. Layers, their order and their weights are those of torchvision's ``alexnet``:
    61,100,840 weights for 224x224x3 and 1000 classes. As there, the responses are not normalized locally, which is what
    the paper does after the first two convolutions.

    The weights of torchvision's model load with ``load_torch``.

    Args:
        input_shape: (H, W, C) with H and W of at least 63. The maps before the dense layers are flattened whatever
            their size; where torchvision makes them 6x6 by adaptive pooling, they are 6x6 here for H and W from 223 to
            254
        classes: int, number of outputs
        classifier_activation: name of the last activation; None for logits
        name: of the model; given, the layers' names begin with it and a dot

    Returns:
        Model: input (N, H, W, C), output (N, classes). For 224x224 pixels the maps have 55x55x64, 27x27x192, 13x13x256
        and 6x6x256 elements

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> from fastnn.applications import AlexNet
        >>> AlexNet((64, 64, 1), classes=5).output_shape
        (None, 5)
    """
    what = "AlexNet"
    shape = check_images(what, input_shape, 63)
    classes, activation = check_classifier(what, classes, classifier_activation)
    names = Names(what, name)
    x = entry = Input(shape)
    number = 0
    for layer in FEATURES:
        label = names(f"features.{number}")
        if isinstance(layer, tuple):
            filters, size, strides, zeros = layer
            conv = Conv2D(
                filters, size, strides, pairs(zeros), activation="relu", kernel_initializer=BEFORE_RELU, name=label
            )
            x, number = conv(x), number + 2
        else:
            x, number = MaxPooling2D(3, 2, name=label)(x), number + 1
    x = flat(x, names("flatten"))
    for number in (0, 3):
        x = dropout(x, 0.5, names(f"classifier.{number}"))
        x = dense_relu(x, HIDDEN, names(f"classifier.{number + 1}"))
    return Model(entry, Dense(classes, activation, name=names("classifier.6"))(x), name=names.model)

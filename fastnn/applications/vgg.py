"""VGG with 11, 13, 16 and 19 layers."""

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
)
from fastnn.layers import Conv2D, Dense, Input, MaxPooling2D
from fastnn.models import Model

#: Filters of the convolutions of each block, each block followed by a pooling.
FILTERS = (64, 128, 256, 512, 512)
#: How many convolutions the blocks have, by the columns of the paper.
CONVOLUTIONS = {
    "VGG11": (1, 1, 2, 2, 2),
    "VGG13": (2, 2, 2, 2, 2),
    "VGG16": (2, 2, 3, 3, 3),
    "VGG19": (2, 2, 4, 4, 4),
}
#: Units of the two dense layers before the last.
HIDDEN = 4096


def VGG11(
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
) -> Model:
    """VGG with 8 convolutions, column A of the paper: 132,863,336 weights for 224x224x3 and 1000 classes. See VGG16.

    Example:
        >>> from fastnn.applications import VGG11
        >>> VGG11((32, 32, 3), classes=10).output_shape
        (None, 10)
    """
    return _vgg("VGG11", input_shape, classes, classifier_activation, name)


def VGG13(
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
) -> Model:
    """VGG with 10 convolutions, column B of the paper: 133,047,848 weights for 224x224x3 and 1000 classes. See VGG16.

    Example:
        >>> from fastnn.applications import VGG13
        >>> VGG13((32, 32, 3), classes=10).output_shape
        (None, 10)
    """
    return _vgg("VGG13", input_shape, classes, classifier_activation, name)


def VGG16(
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
) -> Model:
    """VGG with 13 convolutions, column D of the paper: 138,357,544 weights for 224x224x3 and 1000 classes.

    Simonyan & Zisserman 2015, "Very deep convolutional networks for large-scale image recognition",
    https://arxiv.org/abs/1409.1556. Five blocks of 3x3 convolutions (64, 128, 256, 512, 512 filters), each halved by
    2x2 max pooling, then two layers of 4096 units with dropouts of 0.5 and one of ``classes``. The numbers of weights
    are those of the paper (table 2), of torchvision and of Keras.

    The weights of torchvision's model load with ``load_torch``, those of Keras's VGG16 and VGG19 with
    ``load_keras``: kernels and the order of flattened maps are the same.

    Args:
        input_shape: (H, W, C) with H and W of at least 32. The maps before the dense layers are flattened whatever
            their size, as in Keras; torchvision makes them 7x7 by adaptive pooling, and 7x7 they are for H and W from
            224 to 255, so that its weights fit
        classes: int, number of outputs
        classifier_activation: name of the last activation; None for logits
        name: of the model; given, the layers' names begin with it and a dot

    Returns:
        Model: input (N, H, W, C), output (N, classes). For 224x224 pixels the blocks end in 112x112x64, 56x56x128,
        28x28x256, 14x14x512 and 7x7x512 elements

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> from fastnn.applications import VGG16
        >>> VGG16((32, 32, 3), classes=10).output_shape
        (None, 10)
    """
    return _vgg("VGG16", input_shape, classes, classifier_activation, name)


def VGG19(
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
) -> Model:
    """VGG with 16 convolutions, column E of the paper: 143,667,240 weights for 224x224x3 and 1000 classes. See VGG16.

    Example:
        >>> from fastnn.applications import VGG19
        >>> VGG19((32, 32, 3), classes=10).output_shape
        (None, 10)
    """
    return _vgg("VGG19", input_shape, classes, classifier_activation, name)


def _vgg(
    what: str,
    input_shape: Sequence[int],
    classes: int,
    classifier_activation: str | None,
    name: str | None,
) -> Model:
    """The network of that name."""
    shape = check_images(what, input_shape, 32)
    classes, activation = check_classifier(what, classes, classifier_activation)
    names = Names(what, name)
    x = entry = Input(shape)
    number = 0  # of the PyTorch module, counted with the ReLUs
    for filters, times in zip(FILTERS, CONVOLUTIONS[what], strict=True):
        for _ in range(times):
            label = names(f"features.{number}")
            conv = Conv2D(
                filters, 3, padding="same", activation="relu", kernel_initializer=BEFORE_RELU, name=label
            )
            x, number = conv(x), number + 2
        x, number = MaxPooling2D(2, name=names(f"features.{number}"))(x), number + 1
    x = flat(x, names("flatten"))
    for number in (0, 3):
        x = dense_relu(x, HIDDEN, names(f"classifier.{number}"))
        x = dropout(x, 0.5, names(f"classifier.{number + 2}"))
    return Model(entry, Dense(classes, activation, name=names("classifier.6"))(x), name=names.model)

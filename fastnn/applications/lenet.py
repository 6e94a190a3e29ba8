"""LeNet-5."""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.applications.parts import Names, check_classifier, check_images, flat
from fastnn.layers import AveragePooling2D, Conv2D, Dense, Input
from fastnn.models import Model


def LeNet5(
    input_shape: Sequence[int] = (32, 32, 1),
    classes: int = 10,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
) -> Model:
    """LeNet-5, which reads digits.

    LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition",
    https://doi.org/10.1109/5.726791. Two convolutions of 5x5 (6 and 16 filters) with means over 2x2 pixels behind each,
    then 120, 84 and ``classes`` units; tanh everywhere. As is usual today, and other than in the paper, each of the
    second convolution's filters sees all channels, means have no weights, and the last layer is an ordinary one, so
    that there are 61,706 weights (the paper: about 60,000).

    Args:
        input_shape: (H, W, C) with H and W of at least 16. The paper's digits are 28x28 in a frame of 2 zeros
        classes: int, number of outputs
        classifier_activation: name of the last activation; None for logits
        name: of the model; given, the layers' names begin with it and a dot

    Returns:
        Model: input (N, H, W, C), output (N, classes). For 32x32 pixels the maps have 28x28x6, 14x14x6, 10x10x16 and
        5x5x16 elements

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> from fastnn.applications import LeNet5
        >>> LeNet5().count_params()
        61706
    """
    what = "LeNet5"
    shape = check_images(what, input_shape, 16)
    classes, activation = check_classifier(what, classes, classifier_activation)
    names = Names(what, name)
    x = entry = Input(shape)
    for number, filters in enumerate((6, 16), start=1):
        x = Conv2D(filters, 5, activation="tanh", name=names(f"conv{number}"))(x)
        x = AveragePooling2D(2, name=names(f"pool{number}"))(x)
    x = flat(x, names("flatten"))
    for number, units in enumerate((120, 84), start=1):
        x = Dense(units, "tanh", name=names(f"fc{number}"))(x)
    return Model(entry, Dense(classes, activation, name=names("fc3"))(x), name=names.model)

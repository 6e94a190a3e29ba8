"""GoogLeNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastnn.applications.parts import (
    BEFORE_RELU,
    Names,
    check_classifier,
    check_images,
    conv_norm_relu,
    dense_relu,
    dropout,
    flat,
)
from fastnn.graph import Tensor
from fastnn.layers import (
    AveragePooling2D,
    Concatenate,
    Conv2D,
    Dense,
    GlobalAveragePooling2D,
    Input,
    MaxPooling2D,
)
from fastnn.models import Model

#: Filters of each module: 1x1; 3x3 reduced and 3x3; 5x5 reduced and 5x5; behind the pooling (table 1 of the paper).
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
#: The window of the pooling behind a module.
POOLED = {"3b": 3, "4e": 2}
#: The auxiliary classifier behind a module.
AUXILIARY = {"4a": "aux1", "4d": "aux2"}


def GoogLeNet(
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
    *,
    auxiliary: bool = False,
    batch_norm: bool = True,
) -> Model:
    """GoogLeNet, also known as Inception v1: nine modules whose branches see 1x1, 3x3 and 5x5 pixels.

    Szegedy et al. 2015, "Going deeper with convolutions", https://arxiv.org/abs/1409.4842.

    With ``batch_norm`` layers and weights are those of torchvision's ``googlenet``: every convolution without bias and
    batch-normalized, and, a slip that its trained weights made permanent, 3x3 where the paper has 5x5. 6,624,904
    trained weights for 224x224x3 and 1000 classes, 13,004,888 with the auxiliary classifiers. Its weights load with
    ``load_torch``; the trained ones take images scaled to -1 .. 1. Without ``batch_norm`` the network is the paper's:
    5x5, biases, no normalization (not the local one of responses either): 6,998,552 weights, 13,378,280 with the
    auxiliary classifiers, as in the authors' Caffe model.

    Args:
        input_shape: (H, W, C) with H and W of at least 15
        classes: int, number of outputs
        classifier_activation: name of the last activation; None for logits
        name: of the model; given, the layers' names begin with it and a dot
        auxiliary: whether the two auxiliary classifiers, behind modules 4a and 4d, are outputs too. They are for
            training only, where the paper weighs their losses with 0.3. Both begin with means over 5x5 pixels with
            stride 3, as in the paper (all pixels, where there are fewer than 5 along an axis), which for 224x224 are
            the 4x4 that torchvision makes by adaptive pooling
        batch_norm: torchvision's network, or the paper's

    Returns:
        Model: input (N, H, W, C), output (N, classes); with ``auxiliary`` a list of three such: the main one, that
        behind 4a and that behind 4d. For 224x224 pixels modules 3b, 4e and 5b end in 28x28x480, 14x14x832 and 7x7x1024
        elements

    Raises:
        ValueError: an argument is out of its range

    Example:
        >>> from fastnn.applications import GoogLeNet
        >>> GoogLeNet(batch_norm=False).count_params()
        6998552
        >>> GoogLeNet((64, 64, 3), classes=4, auxiliary=True).output_shape
        [(None, 4), (None, 4), (None, 4)]
    """
    what = "GoogLeNet"
    shape = check_images(what, input_shape, 15)
    classes, activation = check_classifier(what, classes, classifier_activation)
    names = Names(what, name)
    net = _Parts(names, bool(batch_norm))
    x = entry = Input(shape)
    x = net.conv(x, 64, 7, "conv1", strides=2)
    x = net.pool(x, 3, "maxpool1")
    x = net.conv(x, 64, 1, "conv2")
    x = net.conv(x, 192, 3, "conv3")
    x = net.pool(x, 3, "maxpool2")
    others = []
    for module, filters in MODULES.items():
        x = net.inception(x, filters, f"inception{module}")
        if auxiliary and module in AUXILIARY:
            others.append(net.auxiliary(x, classes, activation, AUXILIARY[module]))
        if module in POOLED:
            x = net.pool(x, POOLED[module], f"maxpool{module[0]}")
    x = GlobalAveragePooling2D(name=names("avgpool"))(x)
    x = dropout(x, 0.2 if batch_norm else 0.4, names("dropout"))
    x = Dense(classes, activation, name=names("fc"))(x)
    return Model(entry, [x, *others] if auxiliary else x, name=names.model)


class _Parts:
    """The parts that the network is made of."""

    def __init__(self, names: Names, batch_norm: bool) -> None:
        self.names, self.batch_norm = names, batch_norm

    def conv(self, x: Tensor, filters: int, size: int, name: str, strides: int = 1) -> Any:
        """Convolution and ReLU; as many zeros on both sides."""
        zeros = ((size // 2, size // 2),) * 2
        if self.batch_norm:
            labels = [self.names(f"{name}.{part}") for part in ("conv", "bn", "relu")]
            return conv_norm_relu(x, filters, size, labels, strides=strides, padding=zeros, epsilon=1e-3)
        return Conv2D(
            filters,
            size,
            strides,
            zeros,
            activation="relu",
            kernel_initializer=BEFORE_RELU,
            name=self.names(f"{name}.conv"),
        )(x)

    def pool(self, x: Tensor, size: int, name: str) -> Any:
        """Max pooling with stride 2 that leaves no pixel out: the last window may reach over the edge."""
        over = [(0, max(0, -(-(pixels - size) // 2) * 2 + size - pixels)) for pixels in x.shape[1:3] if pixels]
        return MaxPooling2D(size, 2, over, name=self.names(name))(x)

    def inception(self, x: Tensor, filters: Sequence[int], name: str) -> Any:
        """Four branches side by side."""
        one, before_three, three, before_five, five, pooled = filters
        pixels = MaxPooling2D(3, 1, "same", name=self.names(f"{name}.branch4.0"))(x)
        branches = [
            self.conv(x, one, 1, f"{name}.branch1"),
            self.conv(self.conv(x, before_three, 1, f"{name}.branch2.0"), three, 3, f"{name}.branch2.1"),
            self.conv(
                self.conv(x, before_five, 1, f"{name}.branch3.0"),
                five,
                3 if self.batch_norm else 5,
                f"{name}.branch3.1",
            ),
            self.conv(pixels, pooled, 1, f"{name}.branch4.1"),
        ]
        return Concatenate(name=self.names(f"{name}.concat"))(branches)

    def auxiliary(self, x: Tensor, classes: int, activation: str, name: str) -> Any:
        """A classifier of what the network has made of the image halfway."""
        window = [min(5, pixels) for pixels in x.shape[1:3] if pixels]
        x = AveragePooling2D(window, 3, name=self.names(f"{name}.pool"))(x)
        x = flat(self.conv(x, 128, 1, f"{name}.conv"), self.names(f"{name}.flatten"))
        x = dropout(dense_relu(x, 1024, self.names(f"{name}.fc1")), 0.7, self.names(f"{name}.dropout"))
        return Dense(classes, activation, name=self.names(f"{name}.fc2"))(x)

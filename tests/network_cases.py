"""The networks that are compared with PyTorch's, small inputs for them, and the weights and data that both sides get.

Numbers come from generators that NumPy promises never to change.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Units of the dense layers of AlexNet and VGG, 4096 otherwise.
HIDDEN = 48
#: Steps of training.
STEPS = 10
AUXILIARY = {"auxiliary": True}


@dataclass(frozen=True)
class Case:
    """A network.

    Attributes:
        name: of the function in fastnn.applications
        shape: of a row, channels last
        rows: number of them
        rate: learning rate of SGD
        options: further arguments
    """

    name: str
    shape: tuple[int, ...]
    rows: int
    rate: float
    classes: int = 5
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def auxiliary(self) -> bool:
        return bool(self.options.get("auxiliary"))

    @property
    def fixed(self) -> dict[str, Any]:
        """Arguments that the network in PyTorch takes besides: no dropout, and HIDDEN units."""
        if self.name.startswith(("AlexNet", "VGG")):
            return {"hidden": HIDDEN, "dropout": 0.0}
        return {"dropout": 0.0} if self.name == "GoogLeNet" else {}

    @property
    def pixels(self) -> bool:
        return self.name == "UNet"


CASES = {
    "lenet5": Case("LeNet5", (28, 32, 1), 4, 0.1),
    "alexnet": Case("AlexNet", (95, 127, 3), 2, 0.0001),
    "vgg11": Case("VGG11", (32, 64, 3), 2, 0.0001),
    "vgg13": Case("VGG13", (32, 32, 1), 2, 0.0003),
    "vgg16": Case("VGG16", (33, 64, 3), 2, 0.0002),
    "vgg19": Case("VGG19", (32, 32, 3), 2, 0.0003),
    "googlenet": Case("GoogLeNet", (33, 128, 3), 4, 0.00002, classes=4, options=AUXILIARY),
    "googlenet-paper": Case(
        "GoogLeNet", (47, 64, 1), 2, 0.0005, classes=4, options={**AUXILIARY, "batch_norm": False}
    ),
    "resnet18": Case("ResNet18", (64, 49, 3), 2, 0.0001),
    "resnet34": Case("ResNet34", (64, 49, 1), 2, 0.00005),
    "unet": Case("UNet", (32, 48, 3), 2, 0.1, classes=3, options={"base_filters": 8}),
    "unet-norm": Case(
        "UNet", (32, 24, 1), 3, 0.03, classes=1,
        options={"base_filters": 8, "depth": 3, "batch_norm": True},
    ),
    "unet-3d": Case(
        "UNet", (8, 12, 16, 2), 2, 0.1, classes=1, options={"base_filters": 4, "depth": 2}
    ),
}  # fmt: skip


def uniform(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers from -1 to 1 that depend on the key only."""
    return np.random.RandomState(zlib.crc32(key.encode())).random_sample(shape) * 2.0 - 1.0


def weight(seed: int, name: str, shape: tuple[int, ...], shifted: dict[str, dict[str, float]]) -> np.ndarray:
    """An entry of a state dict: drawn, but for the channels of biases that are ``shifted``."""
    drawn = uniform(f"{seed} {name}", shape)
    if len(shape) > 1:
        return drawn * math.sqrt(6.0 / math.prod(shape[1:]))
    kind = name.rpartition(".")[2]
    values = {"weight": 1.0, "running_var": 1.0}.get(kind, 0.0) + 0.25 * drawn
    for channel, value in shifted.get(name, {}).items():
        values[int(channel)] = value
    return values


def direction(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """What a gradient, in PyTorch's layout, is projected to."""
    return uniform(f"direction of {name}", shape)


def data(seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, channels last."""
    case = CASES[name]
    x = uniform(f"{seed} {name}: x", (case.rows, *case.shape))
    if case.auxiliary:
        return x, uniform(f"{seed} {name}: y", (case.rows, 3 * case.classes))
    places = (case.rows, *case.shape[:-1]) if case.pixels else (case.rows,)
    drawn = np.abs(uniform(f"{seed} {name}: y", places))
    if case.classes == 1:
        return x, (drawn > 0.6).astype(np.float64)[..., None]
    return x, np.eye(case.classes)[(drawn * case.classes).astype(int)]

"""The networks of the literature as work for all contestants: data, and weights by the names that PyTorch uses."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import applications

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Application:
    """A network of `fastnn.applications` for data of one size.

    Args:
        name: of the function there.
        shape: of a row, channels last.
        classes: outputs; one a pixel for U-Net, then of sigmoids.
        options: further arguments.
    """

    name: str
    shape: tuple[int, ...]
    classes: int
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def title(self) -> str:
        filters = f", {self.options['base_filters']} filters" if "base_filters" in self.options else ""
        return f"{self.name}{filters}, {'x'.join(map(str, self.shape))}"

    def data(self, rows: int) -> tuple[Floats, Floats]:
        """Standard normal inputs; random masks (N, ..., 1), or labels (N,).

        >>> [array.shape for array in UNET.data(2)]
        [(2, 128, 128, 1), (2, 128, 128, 1)]
        """
        rng = np.random.default_rng(17)
        x = rng.standard_normal((rows, *self.shape), dtype=np.float32)
        if self.classes == 1:
            return x, (rng.random((rows, *self.shape[:-1], 1)) > 0.5).astype(np.float32)
        return x, rng.integers(0, self.classes, rows).astype(np.float32)

    def flops(self, batch: int, *, training: bool) -> float:
        """Floating-point operations of a step or a prediction, those of direct summation, whatever the algorithm."""
        model = getattr(applications, self.name)(self.shape, self.classes, **self.options)
        model.compile("adam", "binary_crossentropy" if self.classes == 1 else "sparse_categorical_crossentropy")
        return float(model.plan(training, batch).flops)

    @staticmethod
    def entry(name: str, shape: tuple[int, ...]) -> Floats:
        """The weights of this name in PyTorch's state dict: He's; no biases, normalization that does nothing."""
        if len(shape) < 2:
            return np.full(shape, name.endswith(("weight", "running_var")), np.float32)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        limit = math.sqrt(6.0 / math.prod(shape[1:]))
        return rng.uniform(-limit, limit, shape).astype(np.float32)


UNET = Application("UNet", (128, 128, 1), 1, {"base_filters": 32})
VGG16 = Application("VGG16", (224, 224, 3), 1000)
GOOGLENET = Application("GoogLeNet", (224, 224, 3), 1000)
ALEXNET = Application("AlexNet", (224, 224, 3), 1000)
RESNET18 = Application("ResNet18", (224, 224, 3), 1000)
UNET3D = Application("UNet", (64, 64, 64, 1), 1, {"base_filters": 16, "depth": 3})

#: name at the command line -> network, rows of a batch
APPLICATIONS = {
    "unet": (UNET, 4),
    "vgg16": (VGG16, 4),
    "googlenet": (GOOGLENET, 8),
    "alexnet": (ALEXNET, 32),
    "resnet18": (RESNET18, 8),
    "unet3d": (UNET3D, 1),
}
#: Batches of those on images, beside the one above.
BATCHES = (1, 8, 32)
#: How time grows: U-Nets of other image sizes and other widths than the one above.
GROWING = {
    **{f"size-{size}": Application("UNet", (size, size, 1), 1, {"base_filters": 32}) for size in (64, 256, 512)},
    **{f"width-{width}": Application("UNet", (128, 128, 1), 1, {"base_filters": width}) for width in (8, 16, 64)},
}

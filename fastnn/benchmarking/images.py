"""Single operations on images, signals and volumes, as a network's step uses them.

N batch; C channels in, F filters out; channels last. A convolution's figure is in operations of direct summation,
whatever the algorithm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Operation:
    """One operation, forward or with its gradients.

    Args:
        group: the operations that are judged together.
        op: the name of fastnn's op.
        n, space, c, f: batch, sizes of an image, channels, filters (0 where the op has no weights of its own).
        kernel, stride, dilation, groups: the window, the same along each axis; padding is half of what it covers.
        gradients: forward, then the gradients of input and weights; else forward only.
        first: the input needs no gradient: it is data.
    """

    group: str
    op: str
    n: int
    space: tuple[int, ...]
    c: int
    f: int = 0
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    gradients: bool = False
    first: bool = False

    @property
    def name(self) -> str:
        rank, filters = len(self.space), f"->{self.f}" if self.f else ""
        window = "x".join([str(self.kernel)] * rank)
        more = [f"s{self.stride}"] if self.stride > 1 and self.op != "upsample" else []
        more += [f"d{self.dilation}"] if self.dilation > 1 else []
        more += [f"g{self.groups}"] if self.groups > 1 else []
        form = "step" if self.gradients else "forward"
        space = "x".join(map(str, self.space))
        return " ".join([form, self.op, window, *more, f"{self.c}{filters}", space, f"N={self.n}"])

    @property
    def windowed(self) -> dict[str, Any]:
        """Strides and padding along each axis."""
        rank = len(self.space)
        pad = 0 if self.op.endswith("pool") else self.dilation * (self.kernel - 1) // 2
        return {"strides": (self.stride,) * rank, "pads": ((pad, pad),) * rank}

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes of fastnn's op."""
        rank = len(self.space)
        if self.op.startswith("upsample"):
            return {"kernel": (self.kernel,) * rank}
        if self.op == "batch_norm":
            return {"epsilon": 1e-3}
        if self.op.endswith("pool"):
            return {"kernel": (self.kernel,) * rank, **self.windowed}
        dilations = {"dilations": (self.dilation,) * rank}
        return {**self.windowed, **dilations, **({"groups": self.groups} if self.op == "conv" else {})}

    @property
    def outputs(self) -> tuple[int, ...]:
        """Spatial sizes of the output."""
        if self.op.startswith("upsample"):
            return tuple(size * self.kernel for size in self.space)
        if self.op == "batch_norm":
            return self.space
        pad = self.windowed["pads"][0][0]
        covered = self.dilation * (self.kernel - 1) + 1
        return tuple((size + 2 * pad - covered) // self.stride + 1 for size in self.space)

    @property
    def flops(self) -> float:
        """Operations of direct summation; 0 for what moves data rather than computes."""
        taps = self.kernel ** len(self.space)
        once = 2.0 * self.n * math.prod(self.outputs) * taps
        if self.op == "conv":
            once *= self.c // self.groups * self.f
        elif self.op == "depthwise_conv":
            once *= self.c
        else:
            return 0.0
        return float(once) * (1 if not self.gradients else 2 if self.first else 3)

    def arrays(self) -> dict[str, Floats]:
        """Input x, weights w (for batch_norm gamma and beta) and the output's gradient g, standard normal."""
        rng = np.random.default_rng(5)
        rank = len(self.space)
        shapes: dict[str, tuple[int, ...]] = {"x": (self.n, *self.space, self.c)}
        if self.op == "conv":
            shapes["w"] = (*(self.kernel,) * rank, self.c // self.groups, self.f)
        elif self.op == "depthwise_conv":
            shapes["w"] = (*(self.kernel,) * rank, self.c, 1)
        elif self.op == "batch_norm":
            shapes |= {"gamma": (self.c,), "beta": (self.c,)}
        shapes["g"] = (self.n, *self.outputs, self.f or self.c)
        return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def _convolutions(group: str, *settings: tuple[Any, ...], **more: Any) -> list[Operation]:
    """Forward, then a step, for each (C, F, size, N, kernel, ...)."""
    found = []
    for c, f, size, n, kernel, *extra in settings:
        window = dict(zip(("stride", "dilation", "groups"), extra, strict=False))
        space = size if isinstance(size, tuple) else (size, size)
        forward = Operation(group, "conv", n, space, c, f, kernel, **window, **more)
        found += [forward, replace(forward, gradients=True)]
    return found


def _others() -> list[Operation]:
    found = []
    for op, size, kernel, stride in (
        ("depthwise_conv", 56, 3, 1), ("depthwise_conv", 56, 3, 2), ("max_pool", 56, 2, 2), ("average_pool", 56, 2, 2),
        ("batch_norm", 56, 1, 1), ("upsample_nearest", 64, 2, 1), ("upsample_bilinear", 64, 2, 1),
    ):  # fmt: skip
        n = 4 if op.startswith("up") else 16
        forward = Operation("other", op, n, (size, size), 64, kernel=kernel, stride=stride)
        found += [forward, replace(forward, gradients=True)]
    return found


OPERATIONS = (
    *_convolutions(
        "3x3", (32, 32, 128, 8, 3), (32, 32, 224, 4, 3), (64, 64, 56, 16, 3), (64, 64, 224, 4, 3),
        (128, 128, 28, 16, 3), (128, 128, 112, 4, 3), (256, 256, 14, 32, 3), (256, 256, 56, 4, 3),
        (512, 512, 14, 16, 3), (512, 512, 28, 4, 3),
    ),
    *_convolutions(
        "first", (1, 32, 28, 32, 3), (3, 64, 224, 4, 3), (3, 64, 224, 4, 7, 2), (3, 64, 224, 4, 11, 4), first=True
    ),
    *_convolutions("5x5", (32, 32, 56, 16, 5), (64, 64, 28, 16, 5), (96, 128, 28, 8, 5)),
    *_convolutions(
        "direct", (64, 256, 56, 8, 1), (512, 128, 28, 8, 1), (64, 128, 56, 16, 3, 2), (256, 512, 28, 8, 3, 2),
        (64, 64, 56, 8, 3, 1, 2), (128, 128, 28, 16, 3, 1, 1, 2), (256, 256, 28, 8, 3, 1, 1, 32),
    ),
    *_others(),
    *_convolutions("volumes", (16, 16, (32, 32, 32), 2, 3), (32, 32, (32, 32, 32), 1, 3)),
    *_convolutions("signals", (64, 64, (4096,), 8, 3), (64, 64, (4096,), 8, 5), (32, 32, (16384,), 4, 3)),
)  # fmt: skip
#: What the groups are called.
GROUPS = {
    "3x3": "3x3, stride 1",
    "first": "First layers (step: without the gradient of the data)",
    "5x5": "5x5, stride 1",
    "direct": "1x1, strided, dilated, grouped",
    "other": "Depthwise, pooling, normalization, up-sampling",
    "volumes": "3x3x3 on volumes",
    "signals": "Signals",
}

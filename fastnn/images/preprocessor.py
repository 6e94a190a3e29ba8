"""From pixels to network inputs: the preprocessing that is stored inside a model of images.

N images, height H, width W, C channels (1 grey, 3 colour), K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn.configurable import whole
from fastnn.jobs.preprocessor import Preprocessor
from fastnn.jobs.stored import Fields

__all__ = ["CHANNELS", "ImagePreprocessor"]

FORMAT = 1
CHANNELS = {"grey": 1, "rgb": 3}
CHUNK = 1 << 22  # numbers, about, that statistics are summed over at a time
MAX_SIDE = 16384
LEAST_SCALE = 1e-6  # a deviation below this is that of a constant


class ImagePreprocessor(Preprocessor):
    """The size and colour that images are brought to, and each channel's mean and deviation in the training images.

    Args:
        size: (H, W), pixels.
        color: "grey" or "rgb".

    Attributes:
        kind: "binary" or "multiclass", once learnt.
        classes: class names in the order of the network's outputs; of two the second is the positive one.
        mean, scale: for each channel mean and deviation, of values from 0 to 1; the deviation of a constant is 1.

    Raises:
        ValueError: a side is not a positive integer or above 16384, or ``color`` is something else.

    Example:
        >>> pre = ImagePreprocessor(size=(1, 2), color="grey")
        >>> x = np.array([0.0, 0.5, 0.5, 1.0], np.float32).reshape(2, 1, 2, 1)
        >>> pre.learn_statistics(x)
        >>> pre.mean
        (0.5,)
        >>> pre.normalize(x)
        >>> x[:, 0, :, 0]
        array([[-1.4142135,  0.       ],
               [ 0.       ,  1.4142135]], dtype=float32)
    """

    def __init__(self, *, size: Sequence[int], color: str) -> None:
        if len(size) != 2:
            raise ValueError(f"ImagePreprocessor: size must be (height, width). Received: size={size!r}")
        height, width = (whole("ImagePreprocessor", "size", side) for side in size)
        self.size = height, width
        if max(self.size) > MAX_SIDE:
            raise ValueError(f"ImagePreprocessor: size must be at most {MAX_SIDE} a side. Received: size={size!r}")
        if color not in CHANNELS:
            raise ValueError(f"ImagePreprocessor: color must be one of {', '.join(CHANNELS)}. Received: {color!r}")
        self.color = color
        self.mean: tuple[float, ...] = ()
        self.scale: tuple[float, ...] = ()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)``."""
        return (*self.size, CHANNELS[self.color])

    def learn_statistics(self, x: np.ndarray) -> None:
        """Learn means and deviations from the training images (N, H, W, C), values from 0 to 1."""
        step = max(1, CHUNK // x[0].size)
        chunks = [x[start : start + step] for start in range(0, len(x), step)]
        count = x[..., 0].size
        mean = sum(chunk.sum(axis=(0, 1, 2), dtype=np.float64) for chunk in chunks) / count
        variance = sum(((chunk - mean) ** 2).sum(axis=(0, 1, 2)) for chunk in chunks) / count
        scale = np.sqrt(variance)
        self.mean = tuple(np.clip(mean, 0.0, 1.0).tolist())
        self.scale = tuple(np.where(scale < LEAST_SCALE, 1.0, scale).tolist())

    def normalize(self, x: np.ndarray) -> None:
        """Overwrite float32 images (N, H, W, C), values from 0 to 1, with network inputs."""
        if not self.mean:
            raise ValueError("ImagePreprocessor: nothing was learnt yet; call learn_statistics first")
        x -= np.array(self.mean, np.float32)
        x /= np.array(self.scale, np.float32)

    def describe(self) -> str:
        """What it does, in lines of text."""
        height, width = self.size
        lines = [
            f"images: {self.describe_target()}",
            f"resized to {height} x {width} pixels (height x width), {'colour' if self.color == 'rgb' else 'grey'}",
        ]
        names = ("red", "green", "blue") if self.color == "rgb" else ("grey",)
        for name, mean, scale in zip(names, self.mean, self.scale, strict=True):
            lines.append(f"  {name:<5}  mean {mean:.4f}, deviation {scale:.4f} of 1")
        return "\n".join(lines)

    def to_config(self) -> dict[str, Any]:
        """All that was learnt, as JSON-able data; ``from_config`` is the way back, bit for bit."""
        return {
            "data": "images",
            "format": FORMAT,
            "classes": list(self.classes),
            "size": list(self.size),
            "color": self.color,
            "mean": list(self.mean),
            "scale": list(self.scale),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ImagePreprocessor:
        """Rebuild from ``to_config``'s data, which may come from an untrusted file: everything is checked.

        Raises:
            ValueError: anything missing, unknown, of the wrong type or out of range; the message names it.
        """
        fields = Fields(config, "preprocessing")
        fields.text("data", ("images",))
        fields.demand(fields.number("format") == FORMAT, "format", f"must be {FORMAT} in this version of fastnn")
        size = fields.numbers("size", 2, positive=True)
        fields.demand(all(side == int(side) for side in size), "size", "must be whole numbers")
        pre = cls(size=[int(side) for side in size], color=fields.text("color", tuple(CHANNELS)))
        classes = fields.texts("classes")
        fields.demand(len(classes) >= 2, "classes", "must be two or more")
        pre.learn_classes(classes, None, "classes")
        pre.mean = fields.numbers("mean", CHANNELS[pre.color])
        fields.demand(all(0 <= value <= 1 for value in pre.mean), "mean", "must hold numbers from 0 to 1")
        pre.scale = fields.numbers("scale", CHANNELS[pre.color])
        known = all(LEAST_SCALE <= value <= 1 for value in pre.scale)
        fields.demand(known, "scale", f"must hold numbers from {LEAST_SCALE:g} to 1")
        fields.done()
        return pre

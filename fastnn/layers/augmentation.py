"""Layers that change images at random while training: RandomFlip, RandomRotation, RandomZoom, RandomTranslation,
RandomContrast.

Images are (N, H, W, C). What becomes of an image depends on the model's seed (or the layer's own), the training step,
the layer and the image's row in the batch, nothing else: the same on every backend and for any number of threads.
Outside of training these layers do nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastnn.configurable import number
from fastnn.graph import Shape
from fastnn.layers.base import Training
from fastnn.layers.regularization import _Noise
from fastnn.ops import augment

Factor = float | tuple[float, float]

#: Numbers in images are float32.
_LARGEST = 3e38


class _Augmentation(_Noise):
    """A layer that changes images."""

    def build(self, shape: Shape) -> None:
        if len(shape) != 4 or any(size is None for size in shape[1:]):
            raise ValueError(
                f"{self.name}: {self._class} needs images (batch, height, width, channels). Received: shape {shape}"
            )


class _Geometric(_Augmentation):
    """A change that moves pixels; see ``matrices``."""

    def __init__(
        self,
        fill_mode: str,
        interpolation: str,
        seed: int | None,
        fill_value: float,
        input_shape: Sequence[int] | None,
        name: str | None,
    ) -> None:
        self.fill_mode = _one_of(self._class, "fill_mode", fill_mode, augment.FILL_MODES)
        self.interpolation = _one_of(self._class, "interpolation", interpolation, augment.INTERPOLATIONS)
        self.fill_value = number(self._class, "fill_value", fill_value, low=-_LARGEST, high=_LARGEST)
        super().__init__(seed, input_shape, name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        if training is None:
            return x
        return augment.affine_transform(
            x,
            self.matrices(x, training),
            interpolation=self.interpolation,
            fill_mode=self.fill_mode,
            fill_value=self.fill_value,
        )

    def matrices(self, x: Any, training: Training) -> Any:
        """Where each pixel comes from, (N, 6). See ``fastnn.ops.augment``."""
        raise NotImplementedError


class RandomFlip(_Augmentation):
    """In training, mirrors half of the images; which ones is drawn anew in each step.

    Args:
        mode: "horizontal" (left and right change places), "vertical" (top and bottom), or "horizontal_and_vertical":
            both, each by a draw of its own
        seed: None for the model's seed

    Input and output (N, H, W, C).

    Raises:
        ValueError: mode is none of these

    Example:
        >>> import numpy as np
        >>> image = np.arange(3.0).reshape(1, 1, 3, 1)
        >>> RandomFlip("horizontal")(image).reshape(-1)  # not in training
        array([0., 1., 2.], dtype=float32)
    """

    def __init__(
        self,
        mode: str = "horizontal_and_vertical",
        seed: int | None = None,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        self.mode = _one_of("RandomFlip", "mode", mode, ("horizontal_and_vertical", "horizontal", "vertical"))
        super().__init__(seed, input_shape, name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        if training is None:
            return x
        across, down = "horizontal" in self.mode, "vertical" in self.mode
        return self.draw(augment.random_flip, x, training, horizontal=across, vertical=down)


class RandomRotation(_Geometric):
    """In training, turns each image about its centre.

    Args:
        factor: parts of a whole turn: ``(low, high)``, or one number for ``(-factor, factor)``; -1 to 1. Positive
            is against the clock
        fill_mode: what stands beyond the edges of an image a b c d:
            "reflect" d c b a | a b c d | d c b a; "constant" k k k k | a b c d | k k k k;
            "wrap" a b c d | a b c d | a b c d; "nearest" a a a a | a b c d | d d d d
        interpolation: "bilinear" or "nearest"
        seed: None for the model's seed
        fill_value: the k of "constant"

    Input and output (N, H, W, C).

    Raises:
        ValueError: an argument is none of these

    Example:
        >>> import numpy as np
        >>> image = np.arange(4.0).reshape(1, 2, 2, 1)
        >>> RandomRotation((0.25, 0.25))(image, training=True)[0, :, :, 0]  # [[0, 1], [2, 3]] a quarter turn on
        array([[1., 3.],
               [0., 2.]], dtype=float32)
    """

    def __init__(
        self,
        factor: Factor,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        self.factor = _factor("RandomRotation", "factor", factor, low=-1, high=1)
        super().__init__(fill_mode, interpolation, seed, fill_value, input_shape, name)

    def matrices(self, x: Any, training: Training) -> Any:
        return self.draw(augment.rotation_matrices, x, training, turns=_span(self.factor))


class RandomZoom(_Geometric):
    """In training, zooms each image about its centre.

    Args:
        height_factor: ``(low, high)``, or one number for ``(-factor, factor)``; above -1, at most 1. An image that
            draws f shows (1 + f) times its height: -0.5 makes the picture twice as large, 1 half as large
        width_factor: the same for the width; None: always by as much as the height
        fill_mode, interpolation, seed, fill_value: see ``RandomRotation``

    Input and output (N, H, W, C).

    Raises:
        ValueError: an argument is none of these

    Example:
        >>> import numpy as np
        >>> image = np.array([0.0, 8.0]).reshape(1, 1, 2, 1)
        >>> RandomZoom((-0.5, -0.5))(image, training=True).reshape(-1)
        array([2., 6.], dtype=float32)
    """

    def __init__(
        self,
        height_factor: Factor,
        width_factor: Factor | None = None,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        self.height_factor = _factor("RandomZoom", "height_factor", height_factor, above=-1, high=1)
        self.width_factor = (
            None if width_factor is None else _factor("RandomZoom", "width_factor", width_factor, above=-1, high=1)
        )
        super().__init__(fill_mode, interpolation, seed, fill_value, input_shape, name)

    def matrices(self, x: Any, training: Training) -> Any:
        heights = _span(self.height_factor, 1.0)
        widths = None if self.width_factor is None else _span(self.width_factor, 1.0)
        return self.draw(augment.zoom_matrices, x, training, heights=heights, widths=widths)


class RandomTranslation(_Geometric):
    """In training, moves each image.

    Args:
        height_factor: parts of the height: ``(low, high)``, or one number for ``(-factor, factor)``; -1 to 1. Positive
            is down
        width_factor: the same for the width; positive is to the right
        fill_mode, interpolation, seed, fill_value: see ``RandomRotation``

    Input and output (N, H, W, C).

    Raises:
        ValueError: an argument is none of these

    Example:
        >>> import numpy as np
        >>> image = np.arange(1.0, 5.0).reshape(1, 1, 4, 1)
        >>> RandomTranslation(0.0, (0.25, 0.25), fill_mode="constant")(image, training=True).reshape(-1)
        array([0., 1., 2., 3.], dtype=float32)
    """

    def __init__(
        self,
        height_factor: Factor,
        width_factor: Factor,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        self.height_factor = _factor("RandomTranslation", "height_factor", height_factor, low=-1, high=1)
        self.width_factor = _factor("RandomTranslation", "width_factor", width_factor, low=-1, high=1)
        super().__init__(fill_mode, interpolation, seed, fill_value, input_shape, name)

    def matrices(self, x: Any, training: Training) -> Any:
        heights, widths = _span(self.height_factor), _span(self.width_factor)
        return self.draw(augment.translation_matrices, x, training, heights=heights, widths=widths)


class RandomContrast(_Augmentation):
    """In training, ``(x - mean) * f + mean``, with the mean of each channel of an image and an f for each image.

    Args:
        factor: f is drawn from 1 - factor to 1 + factor; ``(lower, upper)``: from 1 - lower to 1 + upper. 0 to 1
        value_range: ``(low, high)``, the range of the images' numbers; the result is cut off there
        seed: None for the model's seed

    Input and output (N, H, W, C).

    Raises:
        ValueError: an argument is none of these

    Example:
        >>> import numpy as np
        >>> image = np.array([10.0, 20.0, 60.0]).reshape(1, 1, 3, 1)
        >>> RandomContrast((0.0, 0.0))(image, training=True).reshape(-1)
        array([10., 20., 60.], dtype=float32)
    """

    def __init__(
        self,
        factor: Factor,
        value_range: tuple[float, float] = (0.0, 255.0),
        seed: int | None = None,
        input_shape: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        self.factor = _factor("RandomContrast", "factor", factor, low=0, high=1)
        self.value_range = _factor("RandomContrast", "value_range", value_range, low=-_LARGEST, high=_LARGEST)
        if isinstance(self.value_range, float) or self.value_range[0] >= self.value_range[1]:
            raise ValueError(
                "RandomContrast: value_range must be two numbers, the lower one first. "
                f"Received: value_range={value_range!r}"
            )
        super().__init__(seed, input_shape, name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        if training is None:
            return x
        lower, upper = (self.factor, self.factor) if isinstance(self.factor, float) else self.factor
        factors = (1.0 - lower, 1.0 + upper)
        return self.draw(augment.random_contrast, x, training, factors=factors, limits=self.value_range)


def _one_of(what: str, name: str, value: Any, known: Sequence[str]) -> str:
    """``value`` if it is one of the known words."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{what}: {name} must be one of {', '.join(known)}. Received: {name}={value!r}")
    return value


def _factor(what: str, name: str, value: Any, **bounds: float) -> Factor:
    """``value``, a number or two, as floats within the bounds that ``fastnn.configurable.number`` takes."""
    pair = isinstance(value, tuple | list)
    numbers = [number(what, name, part, **bounds) for part in (value if pair else [value])]
    if pair and len(numbers) != 2:
        raise ValueError(f"{what}: {name} must be a number or two numbers. Received: {name}={value!r}")
    return (numbers[0], numbers[1]) if pair else numbers[0]


def _span(factor: Factor, around: float = 0.0) -> tuple[float, float]:
    """The range (low, high) that a factor stands for, about ``around``."""
    low, high = sorted((-factor, factor) if isinstance(factor, float) else factor)
    return around + low, around + high

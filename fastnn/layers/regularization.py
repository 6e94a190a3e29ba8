"""Layers that disturb the numbers in training: dropout and noise. Outside of training they do nothing.

What they draw depends on the model's seed (or the layer's own), the training step, the layer and the element, nothing
else: it is the same on every backend and for any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from fastnn.configurable import number, whole
from fastnn.layers.base import Layer, Training
from fastnn.layers.window import check_rows
from fastnn.ops import random


class _Noise(Layer):
    """A layer that draws; see ``draw``."""

    def __init__(self, seed: int | None, input_shape: Sequence[int] | None, name: str | None) -> None:
        self.seed = None if seed is None else whole(self._class, "seed", seed, low=0)
        if self.seed is not None and self.seed >= 2**64:
            raise ValueError(f"{self._class}: seed must be below 2**64. Received: seed={seed!r}")
        super().__init__(input_shape=input_shape, name=name)

    def draw(self, op: Any, x: Any, training: Training, **attrs: Any) -> Any:
        """Apply a random op under this layer's key."""
        seed = training.seed if self.seed is None else self.seed
        return op(x, training.step, seed=seed, stream=next(training.streams), **attrs)


class Dropout(_Noise):
    """In training, sets each element to 0 with probability ``rate`` and scales the others by ``1 / (1 - rate)``.

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".

    Args:
        rate: at least 0 and below 1
        seed: None for the model's seed

    Example:
        >>> import numpy as np
        >>> Dropout(0.5)(np.ones((1, 3)))
        array([[1., 1., 1.]], dtype=float32)
        >>> Dropout(0.5, seed=3)(np.ones((1, 3)), training=True)
        array([[2., 0., 2.]], dtype=float32)
    """

    op: ClassVar[Any] = random.dropout

    def __init__(
        self, rate: float, seed: int | None = None, input_shape: Sequence[int] | None = None, name: str | None = None
    ) -> None:
        self.rate = number(self._class, "rate", rate, low=0, below=1)
        super().__init__(seed, input_shape, name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        if training is None or self.rate == 0.0:
            return x
        return self.draw(self.op, x, training, rate=self.rate)


class _SpatialDropout(Dropout):
    rank: ClassVar[int]
    op = random.spatial_dropout

    def call(self, x: Any, training: Training | None = None) -> Any:
        check_rows(self.name, self._class, x.shape, self.rank)
        return super().call(x, training)


class SpatialDropout1D(_SpatialDropout):
    """Dropout of whole channels of (N, T, C): a channel of a row is 0 at all places, or at none. See Dropout.

    Tompson et al. 2015, "Efficient object localization using convolutional networks".

    Args:
        rate: at least 0 and below 1
        seed: None for the model's seed

    Example:
        >>> import numpy as np
        >>> SpatialDropout1D(0.5, seed=3)(np.ones((1, 2, 3)), training=True)
        array([[[2., 0., 2.], [2., 0., 2.]]], dtype=float32)
    """

    rank = 1


class SpatialDropout2D(_SpatialDropout):
    """Dropout of whole channels of images (N, H, W, C). See SpatialDropout1D.

    Example:
        >>> import numpy as np
        >>> SpatialDropout2D(0.5)(np.ones((2, 4, 4, 3))).shape
        (2, 4, 4, 3)
    """

    rank = 2


class SpatialDropout3D(_SpatialDropout):
    """Dropout of whole channels of volumes (N, D, H, W, C). See SpatialDropout1D.

    Example:
        >>> import numpy as np
        >>> SpatialDropout3D(0.5)(np.ones((2, 4, 4, 4, 3))).shape
        (2, 4, 4, 4, 3)
    """

    rank = 3


class GaussianNoise(_Noise):
    """In training, adds to each element a normal random number with mean 0 and standard deviation ``stddev``.

    Args:
        stddev: at least 0
        seed: None for the model's seed

    Example:
        >>> import numpy as np
        >>> GaussianNoise(0.1)(np.ones((1, 3)))
        array([[1., 1., 1.]], dtype=float32)
        >>> GaussianNoise(0.1, seed=3)(np.ones((1, 3)), training=True).round(3)
        array([[0.977, 0.889, 1.029]], dtype=float32)
    """

    def __init__(
        self, stddev: float, seed: int | None = None, input_shape: Sequence[int] | None = None, name: str | None = None
    ) -> None:
        self.stddev = number("GaussianNoise", "stddev", stddev, low=0)
        super().__init__(seed, input_shape, name)

    def call(self, x: Any, training: Training | None = None) -> Any:
        if training is None or self.stddev == 0.0:
            return x
        return self.draw(random.gaussian_noise, x, training, stddev=self.stddev)

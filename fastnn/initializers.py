"""Initial weights. Each is a function of a shape and a random generator; names and formulas are Keras's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.configurable import Configurable, choose, number, table


class Initializer(Configurable):
    """Base class: ``initializer(shape, rng)`` returns a float64 array.

    >>> import numpy as np
    >>> GlorotUniform()((2, 3), np.random.default_rng(0)).shape
    (2, 3)
    """

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError


class Zeros(Initializer):
    """All 0.

    Example:
        >>> import numpy as np
        >>> Zeros()((1, 2), np.random.default_rng(0))
        array([[0., 0.]])
    """

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return np.zeros(shape)


class Ones(Initializer):
    """All 1.

    Example:
        >>> import numpy as np
        >>> Ones()((1, 2), np.random.default_rng(0))
        array([[1., 1.]])
    """

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return np.ones(shape)


class Constant(Initializer):
    """All ``value``.

    Example:
        >>> import numpy as np
        >>> Constant(0.5)((2,), np.random.default_rng(0))
        array([0.5, 0.5])
    """

    def __init__(self, value: float = 0.0) -> None:
        self.value = number("Constant", "value", value)

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return np.full(shape, self.value)


class RandomNormal(Initializer):
    """Normal with ``mean`` and ``stddev``.

    Example:
        >>> import numpy as np
        >>> RandomNormal()((30, 64), np.random.default_rng(0)).shape
        (30, 64)
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05) -> None:
        self.mean = number("RandomNormal", "mean", mean)
        self.stddev = number("RandomNormal", "stddev", stddev, low=0)

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return rng.normal(self.mean, self.stddev, shape)


class RandomUniform(Initializer):
    """Uniform between ``minval`` and ``maxval``.

    Example:
        >>> import numpy as np
        >>> RandomUniform()((30, 64), np.random.default_rng(0)).shape
        (30, 64)
    """

    def __init__(self, minval: float = -0.05, maxval: float = 0.05) -> None:
        self.minval = number("RandomUniform", "minval", minval)
        self.maxval = number("RandomUniform", "maxval", maxval, low=self.minval)

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(self.minval, self.maxval, shape)


def fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """Inputs and outputs of one unit, for kernels whose last two axes are (in, out) behind the window's axes."""
    if len(shape) < 2:
        size = float(shape[0]) if shape else 1.0
        return size, size
    window = float(np.prod(shape[:-2])) if len(shape) > 2 else 1.0
    return shape[-2] * window, shape[-1] * window


class _Scaled(Initializer):
    """Variance ``factor / fan``."""

    factor = 1.0
    mode = "in"
    shape = "uniform"

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        fan_in, fan_out = fans(shape)
        variance = self.factor / max(1.0, fan_in if self.mode == "in" else (fan_in + fan_out) / 2.0)
        if self.shape == "uniform":
            limit = math.sqrt(3.0 * variance)
            return rng.uniform(-limit, limit, shape)
        return truncated_normal(shape, rng) * (math.sqrt(variance) / 0.87962566103423978)


def truncated_normal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Standard normal, what lies beyond two standard deviations drawn again."""
    values = rng.standard_normal(shape)
    while (outside := abs(values) > 2.0).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return values


class GlorotUniform(_Scaled):
    """Uniform within ``sqrt(6 / (fan_in + fan_out))`` (Glorot & Bengio 2010, eq. 16). The default of kernels."""

    mode = "average"


class GlorotNormal(_Scaled):
    """Truncated normal with variance ``2 / (fan_in + fan_out)``.

    Example:
        >>> import numpy as np
        >>> GlorotNormal()((30, 64), np.random.default_rng(0)).shape
        (30, 64)
    """

    mode, shape = "average", "normal"


class HeUniform(_Scaled):
    """Uniform within ``sqrt(6 / fan_in)`` (He et al. 2015).

    Example:
        >>> import numpy as np
        >>> HeUniform()((30, 64), np.random.default_rng(0)).shape
        (30, 64)
    """

    factor = 2.0


class HeNormal(_Scaled):
    """Truncated normal with variance ``2 / fan_in`` (He et al. 2015, eq. 10).

    Example:
        >>> import numpy as np
        >>> HeNormal()((30, 64), np.random.default_rng(0)).shape
        (30, 64)
    """

    factor, shape = 2.0, "normal"


class LecunUniform(_Scaled):
    """Uniform within ``sqrt(3 / fan_in)``.

    Example:
        >>> import numpy as np
        >>> LecunUniform()((30, 64), np.random.default_rng(0)).shape
        (30, 64)
    """


class LecunNormal(_Scaled):
    """Truncated normal with variance ``1 / fan_in``.

    Example:
        >>> import numpy as np
        >>> LecunNormal()((30, 64), np.random.default_rng(0)).shape
        (30, 64)
    """

    shape = "normal"


INITIALIZERS = table(
    [Zeros, Ones, Constant, RandomNormal, RandomUniform, GlorotUniform, GlorotNormal, HeUniform, HeNormal,
     LecunUniform, LecunNormal]
)  # fmt: skip
_NAMES: dict[str, Callable[[], Any]] = {
    "zeros": Zeros, "ones": Ones, "random_normal": RandomNormal, "random_uniform": RandomUniform,
    "glorot_uniform": GlorotUniform, "glorot_normal": GlorotNormal, "he_uniform": HeUniform, "he_normal": HeNormal,
    "lecun_uniform": LecunUniform, "lecun_normal": LecunNormal,
}  # fmt: skip


def get(value: Any, what: str = "initializer") -> Initializer:
    """The initializer with that name, or the object itself."""
    chosen: Initializer = choose(value, _NAMES, Initializer, what)
    return chosen

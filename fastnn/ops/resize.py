"""Up-sampling, and its gradients.

N batch; D H W depth, height, width, of which a signal has W and an image H and W; C channels, always last. ``kernel``
has a factor for each of these axes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import Case, op
from fastnn.ops.shape import SPACES, space_of, with_space, written


def _shape_up(x: Shape, *, kernel: tuple[int, ...]) -> Shape:
    sizes = space_of(x, "kernel", kernel, 1)
    return with_space(x, [size * k for size, k in zip(sizes, kernel, strict=True)])


def _shape_down(g: Shape, *, kernel: tuple[int, ...]) -> Shape:
    sizes = space_of(g, "kernel", kernel, 1)
    if any(size % k for size, k in zip(sizes, kernel, strict=True)):
        raise ValueError(f"needs sizes that are multiples of kernel. Received: shape {g}, kernel={kernel}")
    return with_space(g, [size // k for size, k in zip(sizes, kernel, strict=True)])


def _image(rule: Any) -> Any:
    """The shape rule for images only."""

    def shape(x: Shape, *, kernel: tuple[int, ...]) -> Shape:
        if len(x) != 4:
            raise ValueError(f"needs images (N, H, W, C). Received: shape {x}")
        return rule(x, kernel=kernel)

    return shape


def _up_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, shape in enumerate(SPACES):
        kernel = tuple((2, 3, 1, 2, 4)[(number + axis) % 5] for axis in range(len(shape) - 2))
        yield (rng.standard_normal(shape),), {"kernel": kernel}
    for c in (1, 3, 16, 20, 70):
        yield (rng.standard_normal((3, 4, 6, c)),), {"kernel": (2, 2)}
    yield (rng.standard_normal((4, 1, 3, 2)),), {"kernel": (3, 700)}
    yield (rng.standard_normal((3, 300, 5)),), {"kernel": (5,)}


def _down_cases(rng: np.random.Generator) -> Iterator[Case]:
    for (x,), attrs in _up_cases(rng):
        yield (rng.standard_normal(_shape_up(x.shape, **attrs)),), attrs  # type: ignore[arg-type]


def _images(cases: Any) -> Any:
    """Those of the cases that are images, and some with large factors."""

    def images(rng: np.random.Generator) -> Iterator[Case]:
        yield from (((x,), attrs) for (x,), attrs in cases(rng) if x.ndim == 4)
        for c, kernel in ((1, (80, 3)), (18, (2, 150)), (5, (140, 2)), (6, (3, 3))):
            shape = (3, 2, 3, c) if cases is _up_cases else (3, 2 * kernel[0], 3 * kernel[1], c)
            yield (rng.standard_normal(shape),), {"kernel": kernel}

    return images


@op(
    shape=_shape_up,
    gradient=lambda g, y, x, kernel: (upsample_nearest_dx(g, kernel=kernel),),
    terms=lambda x, **attrs: 0,
    flops=written(_shape_up),
    cases=_up_cases,
)
def upsample_nearest(x, *, kernel):
    """Each place of ``x (N, *space, C)`` repeated ``kernel`` times along each axis."""
    for axis, k in enumerate(kernel, start=1):
        x = np.repeat(x, k, axis=axis)
    return x


@op(
    shape=_shape_down,
    terms=lambda g, kernel: math.prod(kernel) - 1,
    scale=lambda g, kernel: upsample_nearest_dx.reference(abs(g), kernel=kernel),
    flops=lambda g, **attrs: 4.0 * math.prod(g),
    cases=_down_cases,
)
def upsample_nearest_dx(g, *, kernel):
    """The sums over blocks of ``kernel`` places of ``g (N, *space, C)``."""
    sizes = [(size // k, k) for size, k in zip(g.shape[1:-1], kernel, strict=True)]
    blocks = g.reshape(len(g), *itertools.chain(*sizes), g.shape[-1])
    return blocks.sum(axis=tuple(range(2, 2 * len(kernel) + 1, 2)))


def _phases(k: int, even: bool) -> Iterator[tuple[int, int, float]]:
    """For the outputs ``h * k + phase``: whether they lie between the inputs h - 1 and h (-1) or h and h + 1 (0), and
    the share of the second one: half if ``even``. Output o is centred over the input's ``(o + 1/2) / k - 1/2``.
    """
    for phase in range(k):
        at = (phase + 0.5) / k - 0.5
        yield phase, math.floor(at), 0.5 if even else at - math.floor(at)


def _shifted(x: Any, by: int) -> Any:
    """``x[h + by]`` along the first axis, beyond the edges that of the edge; |by| <= 1."""
    if by == 0:
        return x
    return np.concatenate((x[:1], x[:-1]) if by < 0 else (x[1:], x[-1:]))


def _shifted_back(g: Any, by: int) -> Any:
    """The adjoint of ``_shifted``: ``g[h]`` added to place ``h + by``."""
    if by == 0:
        return g
    result = np.zeros_like(g)
    if by < 0:
        result[:-1] = g[1:]
        result[0] += g[0]
    else:
        result[1:] = g[:-1]
        result[-1] += g[-1]
    return result


def _interpolate(x: Any, axis: int, k: int, even: bool = False) -> Any:
    x = np.moveaxis(x, axis, 0)
    y = np.empty((len(x), k, *x.shape[1:]), x.dtype)
    for phase, before, share in _phases(k, even):
        y[:, phase] = _shifted(x, before) * (1.0 - share) + _shifted(x, before + 1) * share
    return np.moveaxis(y.reshape(len(x) * k, *x.shape[1:]), 0, axis)


def _interpolate_back(g: Any, axis: int, k: int, even: bool = False) -> Any:
    g = np.moveaxis(g, axis, 0)
    parts = g.reshape(len(g) // k, k, *g.shape[1:])
    x = np.zeros((len(g) // k, *g.shape[1:]), g.dtype)
    for phase, before, share in _phases(k, even):
        x += _shifted_back(parts[:, phase] * (1.0 - share), before) + _shifted_back(parts[:, phase] * share, before + 1)
    return np.moveaxis(x, 0, axis)


def _share_scale(along: Any) -> Any:
    """The magnitudes of what is summed, and once more with even shares: a share may be rounded by 2^-25, which is much
    beside a small one.
    """

    def scale(x: np.ndarray, *, kernel: tuple[int, ...]) -> Any:
        return sum(along(along(abs(x), 2, kernel[1], even), 1, kernel[0], even) for even in (False, True))

    return scale


@op(
    shape=_image(_shape_up),
    gradient=lambda g, y, x, kernel: (upsample_bilinear_dx(g, kernel=kernel),),
    terms=lambda x, **attrs: 8,
    scale=_share_scale(_interpolate),
    flops=lambda x, kernel: 8.0 * math.prod(x) * math.prod(kernel),
    cases=_images(_up_cases),
)
def upsample_bilinear(x, *, kernel):
    """``x (N, H, W, C)`` interpolated to ``kernel`` times its size: pixels are areas, so that output h lies over the
    input's ``(h + 1/2) / KH - 1/2``; beyond the outermost centres the edge goes on.
    """
    return _interpolate(_interpolate(x, 2, kernel[1]), 1, kernel[0])


@op(
    shape=_image(_shape_down),
    terms=lambda g, kernel: 4 * math.prod(kernel) + 6,
    scale=_share_scale(_interpolate_back),
    flops=lambda g, kernel: 8.0 * math.prod(g),
    cases=_images(_down_cases),
)
def upsample_bilinear_dx(g, *, kernel):
    """The adjoint of upsample_bilinear."""
    return _interpolate_back(_interpolate_back(g, 1, kernel[0]), 2, kernel[1])

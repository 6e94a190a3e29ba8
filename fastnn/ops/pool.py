"""Pooling: the largest or the mean of the pixels in each window, or of all pixels.

N batch; sizes of space (W, H W or D H W), C channels; attributes as in ``window.py``. Padding is no pixel: it never is
the largest, and a mean does not count it. Every window must hold a pixel, so padding is smaller than the window.

Of equal pixels the first in the order of the window (row by row) is the largest, and it alone gets the gradient. A NaN
in a window is its result; the gradient then goes to the first NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import Case, op
from fastnn.ops.window import Pads, output_sizes, scatter_windows, windows

#: (N, *sizes, C), kernel, strides, pads: channels around vector widths, windows that overlap, touch and leave gaps.
POOLS: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], Pads], ...] = (
    ((2, 9, 1), (2,), (2,), ((0, 0),)),
    ((3, 17, 3), (3,), (2,), ((1, 1),)),
    ((4, 31, 7), (3,), (1,), ((0, 0),)),
    ((1, 5, 33), (5,), (1,), ((2, 2),)),
    ((2, 6, 16), (2,), (2,), ((0, 0),)),
    ((1, 67, 2), (4,), (3,), ((3, 1),)),
    ((3, 19, 21, 1), (2, 2), (2, 2), ((0, 0), (0, 0))),
    ((2, 14, 37, 2), (3, 3), (2, 2), ((0, 1), (1, 1))),
    ((1, 12, 41, 5), (2, 4), (2, 3), ((0, 0), (1, 2))),
    ((2, 7, 9, 15), (2, 2), (2, 2), ((0, 1), (0, 1))),
    ((3, 8, 6, 16), (2, 2), (2, 2), ((0, 0), (0, 0))),
    ((2, 9, 13, 17), (3, 3), (2, 2), ((1, 1), (1, 1))),
    ((1, 13, 11, 8), (3, 3), (1, 1), ((1, 1), (1, 1))),
    ((2, 10, 7, 31), (2, 3), (3, 2), ((0, 1), (2, 0))),
    ((2, 6, 8, 9), (2, 2), (3, 3), ((0, 0), (0, 0))),
    ((1, 1, 8, 4), (3, 8), (1, 3), ((1, 1), (0, 0))),
    ((2, 4, 6, 5, 7), (2, 2, 2), (2, 2, 2), ((0, 0), (0, 0), (0, 1))),
    ((1, 5, 7, 6, 17), (3, 3, 3), (2, 2, 2), ((1, 1), (1, 1), (0, 1))),
    ((2, 4, 5, 3, 3), (2, 3, 1), (1, 2, 1), ((1, 0), (1, 1), (0, 0))),
    ((3, 8, 12, 72), (3, 3), (2, 2), ((0, 1), (0, 1))),
)

#: (N, *sizes, C)
WHOLES = (
    (2, 9, 1),
    (3, 5, 17),
    (2, 3, 12),
    (1, 130, 3),
    (2, 7, 6, 33),
    (4, 8, 9, 16),
    (1, 19, 21, 2),
    (2, 3, 4, 5, 7),
    (1, 2, 4099),
    (3, 5, 6, 72),
)


def _distinct(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Numbers of which no two are within 1/256 of each other, so that a small step does not change which is larger.

    All are negative: a 0 that gets in from somewhere shows.
    """
    size = math.prod(shape)
    return (rng.permutation(size) - size).reshape(shape) / 256.0


def _few(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Numbers of which many are equal."""
    return rng.integers(-2, 3, shape).astype(float)


def _attrs(kernel: Any, strides: Any, pads: Any) -> dict[str, Any]:
    return {"kernel": kernel, "strides": strides, "pads": pads}


def _cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape, *rest in POOLS:
        yield (_distinct(rng, shape),), _attrs(*rest)


def _max_dx_cases(rng: np.random.Generator) -> Iterator[Case]:
    for draw in (_few, _distinct):
        for shape, *rest in POOLS:
            attrs = _attrs(*rest)
            x = draw(rng, shape)
            y = max_pool.reference(x, **attrs)
            yield (rng.standard_normal(y.shape), x, y), attrs


def _average_dx_cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape, *rest in POOLS:
        attrs = _attrs(*rest)
        yield (rng.standard_normal(_shape(shape, **attrs)),), {"sizes": shape[1:-1], **attrs}  # type: ignore[arg-type]


def _shape(x: Shape, *, kernel: Sequence[int], strides: Sequence[int], pads: Pads) -> Shape:
    found = output_sizes(x[1:-1], kernel, strides, (1,) * len(kernel), pads)
    if not x[-1]:
        raise ValueError(f"needs channels. Received: shape {x}")
    if any(p >= k for k, pair in zip(kernel, pads, strict=True) for p in pair):
        raise ValueError(
            f"padding must be smaller than the window. Received: kernel={tuple(kernel)}, pads={tuple(pads)}"
        )
    return (x[0], *found, x[-1])


def _check(wanted: Shape, *received: Shape) -> None:
    if any(shape != wanted for shape in received):
        raise ValueError(f"needs arrays of shape {wanted}. Received: {', '.join(map(str, received))}")


def _shape_max_dx(g: Shape, x: Shape, y: Shape, **attrs: Any) -> Shape:
    _check(_shape(x, **attrs), g, y)
    return x


def _shape_average_dx(g: Shape, *, sizes: Sequence[int], **attrs: Any) -> Shape:
    x = (g[0], *sizes, g[-1])
    _check(_shape(x, **attrs), g)
    return x


def _work(*shapes: Shape) -> float:
    """What reading and writing these arrays takes, in the time of so many operations of a product."""
    return 8.0 * sum(math.prod(float(size or 0) for size in shape) for shape in shapes)


def _overlap(kernel: Sequence[int], strides: Sequence[int]) -> int:
    """The most windows that share a pixel."""
    return math.prod(-(-k // s) for k, s in zip(kernel, strides, strict=True))


def _taps(x: np.ndarray, kernel: Any, strides: Any, pads: Any, fill: Any) -> Iterator[np.ndarray]:
    """For each place in the window, in order: what is there, (N, *outputs, C)."""
    rank = len(kernel)
    every = windows(x, kernel, strides, (1,) * rank, pads, fill)
    for tap in np.ndindex(*kernel):
        yield every[(slice(None),) * (1 + rank) + tap]


def _inside(sizes: Sequence[int], kernel: Any, strides: Any, pads: Any) -> Iterator[np.ndarray]:
    """For each place in the window, in order: which windows have a pixel there, (1, *outputs, 1)."""
    return _taps(np.ones((1, *sizes, 1), bool), kernel, strides, pads, False)


@op(
    shape=_shape,
    gradient=lambda g, y, x, **attrs: (max_pool_dx(g, x, y, **attrs),),
    terms=lambda x, **attrs: 0,
    flops=lambda x, **attrs: _work(x, _shape(x, **attrs)),
    cases=_cases,
    slices=(0,),
)
def max_pool(x, *, kernel, strides, pads):
    """The largest of each window: ``x (N, *sizes, C)`` -> (N, *outputs, C)."""
    taps = _taps(x, kernel, strides, pads, -np.inf)
    y = next(taps).copy()
    for tap in taps:
        np.maximum(y, tap, out=y)
    return y


@op(
    shape=_shape_max_dx,
    terms=lambda g, x, y, *, kernel, strides, pads: _overlap(kernel, strides) - 1,
    scale=lambda g, x, y, **attrs: max_pool_dx(abs(g), x, y, **attrs),
    flops=lambda g, x, y, **attrs: _work(g, x, y, x),
    cases=_max_dx_cases,
)
def max_pool_dx(g, x, y, *, kernel, strides, pads):
    """``g`` where ``x`` is the first in its window to be ``y``, the window's largest; summed where windows overlap."""
    sizes = x.shape[1:-1]
    parts = np.empty((*y.shape[:-1], *kernel, y.shape[-1]), g.dtype)
    left = np.ones(y.shape, bool)
    values, real = _taps(x, kernel, strides, pads, -np.inf), _inside(sizes, kernel, strides, pads)
    for tap, value, inside in zip(np.ndindex(*kernel), values, real, strict=True):
        wins = ((value == y) | np.isnan(value)) & inside & left
        parts[(..., *tap, slice(None))] = np.where(wins, g, g.dtype.type(0))
        left &= ~wins
    return scatter_windows(parts, sizes, strides, (1,) * len(kernel), pads)


@op(
    shape=_shape,
    gradient=lambda g, y, x, **attrs: (average_pool_dx(g, sizes=x.shape[1:-1], **attrs),),
    terms=lambda x, *, kernel, strides, pads: math.prod(kernel) + 2,
    scale=lambda x, **attrs: average_pool(abs(x), **attrs),
    flops=lambda x, **attrs: _work(x, _shape(x, **attrs)),
    cases=_cases,
    slices=(0,),
)
def average_pool(x, *, kernel, strides, pads):
    """The mean of the pixels in each window: ``x (N, *sizes, C)`` -> (N, *outputs, C)."""
    taps = _taps(x, kernel, strides, pads, 0.0)
    y = next(taps).copy()
    for tap in taps:
        y += tap
    return y / _counts(x.shape[1:-1], kernel, strides, pads, x.dtype)


@op(
    shape=_shape_average_dx,
    terms=lambda g, *, sizes, kernel, strides, pads: _overlap(kernel, strides) + 2,
    scale=lambda g, **attrs: average_pool_dx(abs(g), **attrs),
    flops=lambda g, *, sizes, **attrs: _work(g, (g[0], *sizes, g[-1])),
    cases=_average_dx_cases,
)
def average_pool_dx(g, *, sizes, kernel, strides, pads):
    """``g`` divided by the number of the window's pixels, for each of them; summed where windows overlap."""
    rank = len(kernel)
    part = g / _counts(sizes, kernel, strides, pads, g.dtype)
    part = part.reshape(*g.shape[:-1], *(1,) * rank, g.shape[-1])
    parts = np.broadcast_to(part, (*g.shape[:-1], *kernel, g.shape[-1]))
    return scatter_windows(parts, sizes, strides, (1,) * rank, pads)


def _counts(sizes: Sequence[int], kernel: Any, strides: Any, pads: Any, dtype: Any) -> Any:
    """The number of pixels in each window, (1, *outputs, 1)."""
    return sum(inside.astype(dtype) for inside in _inside(sizes, kernel, strides, pads))


def _shape_whole(x: Shape) -> Shape:
    if not 3 <= len(x) <= 5 or 0 in x[1:]:
        raise ValueError(f"needs rows with one to three axes of space, and channels. Received: shape {x}")
    return (x[0], x[-1])


def _shape_whole_max_dx(g: Shape, x: Shape, y: Shape) -> Shape:
    _check(_shape_whole(x), g, y)
    return x


def _shape_whole_average_dx(g: Shape, *, sizes: Sequence[int]) -> Shape:
    x = (g[0], *sizes, g[-1])
    _check(_shape_whole(x), g)
    return x


def _whole_max_dx_cases(rng: np.random.Generator) -> Iterator[Case]:
    for draw in (_few, _distinct):
        for shape in WHOLES:
            x = draw(rng, shape)
            y = global_max_pool.reference(x)
            yield (rng.standard_normal(y.shape), x, y), {}


def _whole_average_dx_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n, *sizes, c in WHOLES:
        yield (rng.standard_normal((n, c)),), {"sizes": tuple(sizes)}


def _space(x: Any) -> tuple[int, ...]:
    return tuple(range(1, len(x.shape) - 1))


@op(
    shape=_shape_whole,
    gradient=lambda g, y, x: (global_max_pool_dx(g, x, y),),
    terms=lambda x: 0,
    flops=_work,
    cases=lambda rng: (((_distinct(rng, shape),), {}) for shape in WHOLES),
)
def global_max_pool(x):
    """The largest pixel of each channel: ``x (N, *sizes, C)`` -> (N, C)."""
    return x.max(axis=_space(x))


@op(
    shape=_shape_whole_max_dx,
    terms=lambda g, x, y: 0,
    flops=lambda g, x, y: _work(x, x),
    cases=_whole_max_dx_cases,
)
def global_max_pool_dx(g, x, y):
    """``g (N, C)`` where ``x (N, *sizes, C)`` is the first of its channel to be ``y (N, C)``, the largest."""
    flat = x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1])
    first = ((flat == y[:, None]) | np.isnan(flat)).argmax(axis=1)[:, None]
    dx = np.zeros(flat.shape, g.dtype)
    np.put_along_axis(dx, first, g[:, None], axis=1)
    return dx.reshape(x.shape)


@op(
    shape=_shape_whole,
    gradient=lambda g, y, x: (global_average_pool_dx(g, sizes=x.shape[1:-1]),),
    terms=lambda x: math.prod(x[1:-1]) + 2,
    scale=lambda x: abs(x).mean(axis=_space(x)),
    flops=_work,
    cases=lambda rng: (((rng.standard_normal(shape),), {}) for shape in WHOLES),
)
def global_average_pool(x):
    """The mean of each channel: ``x (N, *sizes, C)`` -> (N, C)."""
    return x.mean(axis=_space(x), dtype=np.float64).astype(x.dtype)


@op(
    shape=_shape_whole_average_dx,
    terms=lambda g, *, sizes: 2,
    scale=lambda g, *, sizes: abs(g).reshape(len(g), *(1,) * len(sizes), g.shape[-1]) / math.prod(sizes),
    flops=lambda g, *, sizes: _work((g[0], *sizes, g[-1])),
    cases=_whole_average_dx_cases,
)
def global_average_pool_dx(g, *, sizes):
    """``g (N, C)`` divided by the number of pixels, for each of them: (N, *sizes, C)."""
    part = (g / g.dtype.type(math.prod(sizes))).reshape(len(g), *(1,) * len(sizes), g.shape[-1])
    return np.broadcast_to(part, (len(g), *sizes, g.shape[-1]))

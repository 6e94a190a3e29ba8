"""Rectifiers with more than a slope: with a threshold and a limit, or with a slope that is learned."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import SIZES, Case, op, same_shape
from fastnn.ops.matrix import sum_rows
from fastnn.ops.shape import reshape, reshape_weight, transpose

# A threshold and a limit


def _bounded_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n, limit, threshold in zip(SIZES, (1.5, math.inf) * 5, (0.0, 0.5, 1.25, 0.0, 0.0) * 2, strict=True):
        slope = (0.0, 0.25, 2.0)[n % 3]
        yield (3.0 * rng.standard_normal((n, 5)),), {"negative_slope": slope, "limit": limit, "threshold": threshold}


@op(
    shape=lambda x, **attrs: x,
    gradient=lambda g, y, x, **attrs: (bounded_relu_dx(g, x, **attrs),),
    terms=lambda x, **attrs: 2,
    scale=lambda x, negative_slope, limit, threshold: (1.0 + negative_slope) * (np.minimum(abs(x), 1e3) + threshold),
    cases=_bounded_cases,
    elementwise=True,
)
def bounded_relu(x, *, negative_slope, limit, threshold):
    """``min(x, limit)`` where x is above ``threshold``, else ``negative_slope * (x - threshold)``."""
    below = negative_slope * (x - threshold) if negative_slope else np.where(np.isnan(x), x, np.asarray(0.0, x.dtype))
    return np.where(x > threshold, np.minimum(x, limit), below)


@op(
    shape=same_shape,
    terms=lambda g, x, **attrs: 1,
    scale=lambda g, x, negative_slope, **attrs: abs(g) * (1.0 + negative_slope),
    cases=lambda rng: (((rng.standard_normal(x.shape), x), attrs) for (x,), attrs in _bounded_cases(rng)),
    elementwise=True,
)
def bounded_relu_dx(g, x, *, negative_slope, limit, threshold):
    return np.where(x > threshold, np.where(x < limit, g, 0.0), negative_slope * g)


# A slope that is learned


def _shape_prelu(x: Shape, alpha: Shape) -> Shape:
    if len(alpha) != len(x) - 1 or any(a not in (1, size) for a, size in zip(alpha, x[1:], strict=True)):
        raise ValueError(f"alpha must have the sizes of a row, or 1 in their place. Received: shapes {x} and {alpha}")
    return x


def _shape_prelu_dx(g: Shape, x: Shape, alpha: Shape) -> Shape:
    return _shape_prelu(same_shape(g, x), alpha)


def _prelu_cases(rng: np.random.Generator) -> Iterator[Case]:
    for x, alpha in (
        ((7, 3), (3,)),
        ((9, 16), (1,)),
        ((5, 33), (33,)),
        ((4, 7, 3), (1, 3)),
        ((3, 5, 20), (5, 1)),
        ((4, 6, 5, 17), (1, 1, 17)),
        ((5, 4, 3, 8), (4, 1, 8)),
        ((4, 3, 5, 2), (1, 5, 2)),
        ((3, 4, 5, 6), (1, 1, 1)),
        ((4, 3, 2, 5, 9), (1, 2, 1, 9)),
        ((5, 2, 3, 4, 1), (2, 3, 4, 1)),
        ((3, 2, 3, 4, 6), (1, 1, 4, 1)),
    ):
        yield (rng.standard_normal(x), rng.standard_normal(alpha)), {}


def _sum_to(parts: Any, shape: tuple[int, ...]) -> Any:
    """The sums of ``parts (N, ...)`` over the batch and the axes that are 1 in ``shape``."""
    sizes = parts.shape[1:]
    shared = [axis for axis, size in enumerate(shape, start=1) if size == 1]
    kept = [axis for axis, size in enumerate(shape, start=1) if size != 1]
    perm = tuple(shared + kept)
    if perm != tuple(sorted(perm)):
        parts = transpose(parts, perm=perm)
    rows = reshape(parts, shape=(math.prod(sizes[axis - 1] for axis in shared), math.prod(shape)))
    return reshape_weight(sum_rows(rows), shape=tuple(shape))


@op(
    shape=_shape_prelu,
    gradient=lambda g, y, x, alpha: (prelu_dx(g, x, alpha), _sum_to(prelu_parts(g, x), alpha.shape)),
    scale=lambda x, alpha: abs(x) * (1.0 + abs(alpha)),
    cases=_prelu_cases,
    elementwise=True,
)
def prelu(x, alpha):
    """``x`` where positive, else ``alpha * x`` (He et al. 2015, eq. 1); alpha has the shape of a row, with 1 along axes
    that share it.
    """
    return np.where(x > 0, x, alpha * x)


@op(
    shape=_shape_prelu_dx,
    scale=lambda g, x, alpha: abs(g) * (1.0 + abs(alpha)),
    cases=lambda rng: (((rng.standard_normal(x.shape), x, alpha), {}) for (x, alpha), _ in _prelu_cases(rng)),
    elementwise=True,
)
def prelu_dx(g, x, alpha):
    """The gradient of prelu with respect to its input."""
    return np.where(x > 0, g, alpha * g)


@op(
    shape=same_shape,
    scale=lambda g, x: abs(g * x),
    cases=lambda rng: (((rng.standard_normal(x.shape), x), {}) for (x, _), _ in _prelu_cases(rng)),
    elementwise=True,
)
def prelu_parts(g, x):
    """``g * min(x, 0)``: what each element adds to the gradient of its alpha."""
    return g * np.minimum(x, 0.0)

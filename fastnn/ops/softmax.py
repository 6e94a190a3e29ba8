"""Softmax over the last axis: rows (N, C) or (N, ..., C). N batch, C classes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import SIZES, Case, op, same_shape


def _rows(rng: np.random.Generator) -> Iterator[Case]:
    for n, c in zip(SIZES, SIZES[4:] + SIZES[:4], strict=True):
        yield (4.0 * rng.standard_normal((n, c)),), {}
    for shape in ((6, 5, 3), (5, 2, 7, 17)):
        yield (4.0 * rng.standard_normal(shape),), {}
    yield (np.array([[1e30, 0.0, -1e30], [80.0, 90.0, 100.0]]),), {}


def _gradient_rows(rng: np.random.Generator) -> Iterator[Case]:
    for (x,), _ in _rows(rng):
        yield (rng.standard_normal(x.shape), softmax(x).astype(np.float32).astype(float)), {}


def _shape(x: Shape) -> Shape:
    if len(x) < 2:
        raise ValueError(f"needs an array of shape (batch, ..., classes). Received: shape {x}")
    return x


@op(
    shape=_shape,
    gradient=lambda g, y, x: (softmax_dx(g, y),),
    terms=lambda x: x[-1] + 8,
    scale=lambda x: 1.0 + np.minimum(abs(x - x.max(axis=-1, keepdims=True)), 100.0) / 8,
    cases=_rows,
)
def softmax(x):
    """``exp(x) / sum(exp(x))`` along the last axis, shifted by the row's maximum."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@op(
    shape=same_shape,
    terms=lambda g, y: g[-1] + 3,
    scale=lambda g, y: y * (abs(g) + (abs(g) * y).sum(axis=-1, keepdims=True)),
    cases=_gradient_rows,
)
def softmax_dx(g, y):
    """``y * (g - sum(g * y))``."""
    return y * (g - (g * y).sum(axis=-1, keepdims=True))

"""Two arrays made one, element by element, beside ``add`` and ``multiply``: what merging layers do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastnn.ops.declare import SIZES, Case, op, same_shape
from fastnn.ops.pointwise import affine


def _two(rng: np.random.Generator) -> Iterator[Case]:
    for n in SIZES:
        yield (rng.standard_normal((n, 5)), rng.standard_normal((n, 5))), {}


def _two_with_ties(rng: np.random.Generator) -> Iterator[Case]:
    yield from _two(rng)
    for n in SIZES:
        yield (rng.integers(-2, 3, (n, 3)).astype(float), rng.integers(-2, 3, (n, 3)).astype(float)), {}


@op(
    shape=same_shape,
    gradient=lambda g, y, a, b: (g, affine(g, scale=-1.0)),
    scale=lambda a, b: abs(a) + abs(b),
    cases=_two,
    elementwise=True,
)
def subtract(a, b):
    """``a - b``."""
    return a - b


@op(
    shape=same_shape,
    gradient=lambda g, y, a, b: (maximum_dx(g, a, b), maximum_dx(g, b, a)),
    terms=lambda a, b: 0,
    cases=_two_with_ties,
    elementwise=True,
)
def maximum(a, b):
    """The larger one; NaN where either is."""
    return np.maximum(a, b)


@op(
    shape=same_shape,
    gradient=lambda g, y, a, b: (maximum_dx(g, b, a), maximum_dx(g, a, b)),
    terms=lambda a, b: 0,
    cases=_two_with_ties,
    elementwise=True,
)
def minimum(a, b):
    """The smaller one; NaN where either is."""
    return np.minimum(a, b)


@op(
    shape=same_shape,
    terms=lambda g, a, b: 0,
    cases=lambda rng: (((rng.standard_normal(a.shape), a, b), {}) for (a, b), _ in _two_with_ties(rng)),
    elementwise=True,
)
def maximum_dx(g, a, b):
    """The gradient of maximum with respect to ``a``: g where it is the larger one, half of g where both are equal."""
    return np.where(a > b, g, np.where(a == b, 0.5 * g, 0.0))


@op(
    shape=same_shape,
    scale=lambda a, b: abs(a) + abs(b),
    cases=_two,
    elementwise=True,
)
def add_relu(a, b):
    """``relu(a + b)``: what the Plan makes of an activation after a sum."""
    return np.maximum(a + b, 0.0)


@op(
    shape=same_shape,
    scale=lambda a, b, y: abs(a) + abs(b),
    cases=lambda rng: (((a, b, rng.standard_normal(a.shape)), {}) for (a, b), _ in _two(rng)),
    elementwise=True,
)
def add_relu_dx(a, b, y):
    """``relu_dx(a + b, y)``: two gradients of the output ``y`` of a relu, taken back together."""
    return np.where(y > 0, a + b, 0.0)

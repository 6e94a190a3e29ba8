"""Quotients, roots and logarithms, and rows times a vector: what layers of the user's own are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import SIZES, Case, op, same_shape
from fastnn.ops.matrix import add_bias, sum_rows
from fastnn.ops.pointwise import affine, multiply
from fastnn.ops.shape import written


def _positive(rng: np.random.Generator) -> Iterator[Case]:
    for n in SIZES:
        yield (np.exp(rng.standard_normal((n, 5))) + 0.05,), {}
    yield (np.array([[0.1, 0.999, 1.0, 1.001, 50.0, 1e10, 1e30]]),), {}


def _apart_from_0(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    x = rng.standard_normal(shape)
    return x + np.where(x < 0, -0.25, 0.25)


def _not_0(rng: np.random.Generator) -> Iterator[Case]:
    for n in SIZES:
        yield (_apart_from_0(rng, (n, 5)),), {}


def _quotients(rng: np.random.Generator) -> Iterator[Case]:
    for n in SIZES:
        yield (rng.standard_normal((n, 3)), _apart_from_0(rng, (n, 3))), {}


def _function(gradient: Callable[..., tuple[Any, ...]], cases: Any, scale: Callable[..., Any], terms: int = 2) -> Any:
    return op(
        shape=lambda x: x,
        gradient=gradient,
        terms=lambda x: terms,
        scale=scale,
        cases=cases,
        elementwise=True,
    )


@_function(lambda g, y, x: (divide(g, x),), _positive, lambda x: 1.0 + abs(np.log(abs(x))), 8)
def log(x):
    """The natural logarithm; -inf at 0, NaN below."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(x)


@_function(lambda g, y, x: (affine(divide(g, y), scale=0.5),), _positive, lambda x: abs(x) ** 0.5)
def sqrt(x):
    """The square root; NaN below 0."""
    with np.errstate(invalid="ignore"):
        return np.sqrt(x)


@_function(lambda g, y, x: (affine(multiply(g, multiply(y, y)), scale=-1.0),), _not_0, lambda x: abs(1 / x))
def reciprocal(x):
    """``1 / x``."""
    with np.errstate(divide="ignore"):
        return 1 / x


@op(
    shape=same_shape,
    gradient=lambda g, y, a, b: (divide(g, b), affine(divide(multiply(g, y), b), scale=-1.0)),
    terms=lambda a, b: 1,
    scale=lambda a, b: 0.0,
    cases=_quotients,
    elementwise=True,
)
def divide(a, b):
    """``a / b``, element by element."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return a / b


def _row_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n, f in zip(SIZES, SIZES[4:] + SIZES[:4], strict=True):
        yield (rng.standard_normal((n, f)), rng.standard_normal(f)), {}
    for shape in ((9, 5, 3), (7, 4, 6, 20), (5, 2, 3, 4, 65)):
        yield (rng.standard_normal(shape), rng.standard_normal(shape[-1])), {}


@op(
    shape=add_bias.shape,
    gradient=lambda g, y, x, v: (scale_columns(g, v), sum_rows(multiply(g, x))),
    scale=lambda x, v: abs(x * v),
    cases=_row_cases,
    elementwise=(0,),
)
def scale_columns(x, v):
    """``x (N, F) * v (F,)``."""
    return x * v


def _shape_repeat_rows(x: Shape, v: Shape) -> Shape:
    if not x or len(v) != 1:
        raise ValueError(f"needs rows (N, ...) and a vector (F,). Received: shapes {x} and {v}")
    return (x[0], *v)


def _repeat_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n, f in zip(SIZES, SIZES[4:] + SIZES[:4], strict=True):
        yield (rng.standard_normal((n, 2)), rng.standard_normal(f)), {}
    yield (rng.standard_normal((5, 3, 4)), rng.standard_normal(700)), {}


@op(
    shape=_shape_repeat_rows,
    gradient=lambda g, y, x, v: (None, sum_rows(g)),
    terms=lambda x, v: 0,
    flops=written(_shape_repeat_rows),
    cases=_repeat_cases,
)
def repeat_rows(x, v):
    """The vector ``v (F,)`` for each of the rows of ``x (N, ...)``: (N, F)."""
    return np.broadcast_to(v, (len(x), len(v)))

"""Bringing data in; parts of small arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import SIZES, Case, op


def _cases(rng: np.random.Generator) -> Iterator[Case]:
    for n, f in zip(SIZES, SIZES[5:] + SIZES[:5], strict=True):
        yield (rng.standard_normal((n + 2, f)), rng.integers(0, n + 2, n)), {}


def _shape_gather(x: Shape, index: Shape) -> Shape:
    if len(index) != 1:
        raise ValueError(f"needs an index (N,). Received: {index}")
    return (index[0], *x[1:])


def _shape_scatter(store: Shape, rows: Shape, index: Shape) -> None:
    if rows != (*index, *store[1:]):
        raise ValueError(f"needs rows (N, ...) as in the store and an index (N,). Received: {store}, {rows}, {index}")


@op(shape=_shape_gather, terms=lambda x, index: 0, cases=_cases)
def gather(x, index):
    """The rows of ``x`` named by ``index (N,)``: a batch."""
    return x[index]


@op(
    shape=_shape_scatter,
    updates=(0,),
    terms=lambda store, rows, index: 0,
    cases=lambda rng: (
        ((x, rng.standard_normal((len(x) - 2, x.shape[1])), rng.permutation(len(x))[:-2]), {})
        for (x, _), _ in _cases(rng)
    ),
)
def scatter(store, rows, index):
    """Write ``rows (N, ...)`` to the rows of ``store`` that ``index (N,)`` names: an epoch's predictions."""
    store = store.copy()
    store[index] = rows
    return (store,)


def _shape_take(x: Shape, *, index: int) -> Shape:
    if len(x) < 2 or not 0 <= index < (x[-2] or 0):
        raise ValueError(f"needs x (..., R, C) and the number of one of its R rows. Received: {x}, index={index}")
    return (*x[:-2], x[-1])


def _take_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, shape in enumerate(((3, 1), (3, 7), (2, 33), (5, 2, 17), (8, 3, 16), (3, 4, 5, 9))):
        yield (rng.standard_normal(shape),), {"index": (shape[-2] - 1) * (number % 2)}


@op(shape=_shape_take, terms=lambda x, **attrs: 0, cases=_take_cases)
def take(x: Any, *, index: Any) -> Any:
    """Row ``index`` of a small matrix, or of each: ``x (..., R, C) -> (..., C)``."""
    return x[..., index, :]


@op(
    shape=lambda x, **attrs: x[-1:],
    gradient=lambda g, y, x, fill_value: (None,),
    terms=lambda x, **attrs: 0,
    cases=lambda rng: (((rng.standard_normal((3, c)),), {"fill_value": 1.0 - c}) for c in SIZES),
)
def fill(x: Any, *, fill_value: Any) -> Any:
    """A vector of one value, as long as the last axis of ``x``: gamma or beta of a layer that has none."""
    return np.full(x.shape[-1], fill_value, x.dtype)

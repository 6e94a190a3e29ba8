"""Bringing data in."""

from __future__ import annotations

from collections.abc import Iterator

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

"""Rows repeated along axes of size 1, and the sums that are their gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import Case, op
from fastnn.ops.matrix import SUM_ROWS
from fastnn.ops.shape import with_sizes, written


def _shape_broadcast(x: Shape, *, shape: tuple[int, ...]) -> Shape:
    if len(shape) != len(x) - 1 or any(size not in (1, to) for size, to in zip(x[1:], shape, strict=True)):
        raise ValueError(f"rows of shape {x[1:]} can be repeated along axes of size 1 only. Received: shape={shape}")
    return with_sizes(x, shape)


def _shape_sum_to(g: Shape, *, shape: tuple[int, ...]) -> Shape:
    if len(shape) != len(g) - 1 or any(to not in (1, size) for size, to in zip(g[1:], shape, strict=True)):
        raise ValueError(f"rows of shape {g[1:]} can be summed along axes up to size 1 only. Received: shape={shape}")
    return (g[0], *shape)


#: The batch, sizes of the larger rows, and the axes that have size 1 in the smaller ones.
REPEATED: tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...] = (
    (5, (7,), (1,)), (3, (33,), ()), (7, (5, 1), (1,)), (5, (6, 3), (2,)), (4, (7, 17), (1,)), (9, (5, 31), (2,)),
    (3, (4, 8), (1, 2)), (4, (3, 5, 1), (1, 2)), (5, (6, 7, 3), (1, 2)), (3, (9, 4, 16), (1, 2)),
    (4, (5, 3, 33), (1, 2)), (5, (4, 3, 2), (3,)), (3, (5, 4, 15), (3,)), (4, (3, 5, 17), (3,)), (3, (2, 7, 40), (3,)),
    (7, (3, 4, 9), (1,)), (5, (4, 6, 8), (2,)), (3, (5, 4, 7), (1, 3)), (4, (3, 2, 20), (2, 3)),
    (3, (5, 9, 4), (1, 2, 3)), (4, (2, 3, 5, 7), (1, 3)), (3, (4, 2, 3, 16), (2, 4)), (3, (2, 3, 2, 5, 4), (1, 3, 5)),
    (4, (3, 2, 3, 2, 5), (2, 4)), (2, (40, 37, 5), (1, 2)), (3, (35, 31, 18), (1, 2)), (2, (3, 1100), (2,)),
    (2, (3, 40, 33, 2), (1, 2, 3)), (1, (130, 140), (1, 2)), (2, (1030, 3, 2), (1, 3)), (2, (3, 1100, 2), (1, 2)),
)  # fmt: skip


def _small(sizes: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if axis in axes else size for axis, size in enumerate(sizes, start=1))


def _broadcast_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n, sizes, axes in REPEATED:
        yield (rng.standard_normal((n, *_small(sizes, axes))),), {"shape": sizes}


def _sum_to_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n, sizes, axes in REPEATED:
        yield (rng.standard_normal((n, *sizes)),), {"shape": _small(sizes, axes)}


def _summed(x: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that are summed."""
    return tuple(axis for axis, (size, to) in enumerate(zip(x.shape[1:], shape, strict=True), start=1) if size != to)


def _parts(g: Shape, shape: tuple[int, ...]) -> tuple[int, int]:
    """Of the last summed axes that lie side by side: the number of elements; and of all sums of SUM_ROWS of them, or
    less, how many there are for an element of the result.
    """
    sizes = [(size or 1, size != to) for size, to in zip(g[1:], shape, strict=True) if size != 1]
    while sizes and not sizes[-1][1]:
        sizes.pop()
    side_by_side = 1
    while sizes and sizes[-1][1]:
        side_by_side *= sizes.pop()[0]
    return side_by_side, math.prod(size for size, summed in sizes if summed) * -(-side_by_side // SUM_ROWS)


def _terms_sum_to(g: Shape, *, shape: tuple[int, ...]) -> int:
    side_by_side, parts = _parts(g, shape)
    return min(side_by_side, SUM_ROWS) + parts


def _workspace_sum_to(g: Shape, *, shape: tuple[int, ...]) -> int:
    side_by_side, parts = _parts(g, shape)
    return parts * g[0] * math.prod(shape) if side_by_side >= 4 * SUM_ROWS else 0  # type: ignore[operator]


@op(
    shape=_shape_broadcast,
    gradient=lambda g, y, x, shape: (sum_to(g, shape=tuple(x.shape[1:])),),
    terms=lambda x, **attrs: 0,
    flops=written(_shape_broadcast),
    cases=_broadcast_cases,
)
def broadcast(x, *, shape):
    """The rows of ``x (N, ...)`` repeated along axes of size 1 to rows of a shape with as many axes: (N, *shape)."""
    return np.broadcast_to(x, (len(x), *shape))


@op(
    shape=_shape_sum_to,
    gradient=lambda g, y, x, shape: (broadcast(g, shape=tuple(x.shape[1:])),),
    terms=_terms_sum_to,
    scale=lambda g, shape: abs(g).sum(axis=_summed(g, shape), keepdims=True),
    flops=lambda g, shape: 2.0 * math.prod(g),
    workspace=_workspace_sum_to,
    cases=_sum_to_cases,
)
def sum_to(g, *, shape):
    """The rows of ``g (N, ...)`` summed along the axes where ``shape``, of as many axes, has size 1: (N, *shape)."""
    return g.sum(axis=_summed(g, shape), keepdims=True, dtype=np.float64).astype(g.dtype)

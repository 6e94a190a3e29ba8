"""Arrays joined along an axis, and parts of arrays. The axis is never the batch, axis 0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import Case, op
from fastnn.ops.shape import with_sizes, written


def _sizes(x: Shape, axis: int) -> tuple[int, ...]:
    """The sizes of a row, checked together with the axis."""
    if None in x[1:] or not 1 <= axis < len(x):
        raise ValueError(f"needs rows of known size and one of their axes, from 1 on. Received: shape {x}, axis={axis}")
    return x[1:]  # type: ignore[return-value]


def _with_size(x: Shape, axis: int, size: int) -> Shape:
    """The shape with another size along an axis."""
    return with_sizes(x, (*x[1:axis], size, *x[axis + 1 :]))  # type: ignore[arg-type]


def _shape_concatenate(*inputs: Shape, axis: int) -> Shape:
    first = inputs[0]
    for shape in inputs:
        _sizes(shape, axis)
        if len(shape) != len(first) or any(shape[a] != first[a] for a in range(len(first)) if a != axis):
            raise ValueError(
                f"the arrays must have equal sizes along all axes but axis={axis}. "
                f"Received: shapes {', '.join(map(str, inputs))}"
            )
    return _with_size(first, axis, sum(shape[axis] for shape in inputs))  # type: ignore[misc]


def _shape_part(x: Shape, *, axis: int, start: int, size: int) -> Shape:
    whole = _sizes(x, axis)[axis - 1]
    if start < 0 or size < 1 or start + size > whole:
        raise ValueError(f"the part must lie inside. Received: shape {x}, axis={axis}, start={start}, size={size}")
    return _with_size(x, axis, size)


def _shape_embed(g: Shape, *, axis: int, start: int, whole: int) -> Shape:
    size = _sizes(g, axis)[axis - 1]
    if start < 0 or start + size > whole:
        raise ValueError(f"the part must lie inside. Received: shape {g}, axis={axis}, start={start}, whole={whole}")
    return _with_size(g, axis, whole)


#: The shape of the first array, the axis, its sizes in all the arrays.
JOINS: tuple[tuple[tuple[int, ...], int, tuple[int, ...]], ...] = (
    ((5, 1), 1, (1, 2)), ((7, 3), 1, (3, 5, 8)), ((9, 30), 1, (30, 7)), ((3, 33), 1, (33, 16, 15, 17)),
    ((4, 7, 1), 2, (1, 1)), ((3, 17, 2), 2, (2, 1, 4, 3, 7, 9)), ((3, 5, 8), 2, (8, 31)), ((4, 9, 5), 1, (9, 1, 3)),
    ((4, 3, 5, 3), 3, (3, 5)), ((3, 7, 4, 16), 3, (16, 32)), ((3, 4, 5, 15), 3, (15, 17, 1)), ((4, 6, 5, 2), 2, (5, 1)),
    ((3, 2, 9, 6), 1, (2, 4, 1)), ((5, 4, 2, 6), 3, (6, 1, 6, 1, 6, 1)), ((4, 2, 3, 5, 7), 4, (7, 8)),
    ((3, 4, 2, 5, 3), 2, (2, 3, 1)), ((2, 130, 141, 3), 3, (3, 1)), ((1, 3, 21000), 2, (21000, 17000)),
    ((3, 2, 3, 2, 5, 4), 3, (2, 1)),
)  # fmt: skip


def _join_cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape, axis, sizes in JOINS:
        yield tuple(rng.standard_normal((*shape[:axis], size, *shape[axis + 1 :])) for size in sizes), {"axis": axis}


def _part_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, (inputs, attrs) in enumerate(_join_cases(rng)):
        axis = attrs["axis"]
        sizes = [x.shape[axis] for x in inputs]
        chosen = number % len(sizes)
        whole = rng.standard_normal((*inputs[0].shape[:axis], sum(sizes), *inputs[0].shape[axis + 1 :]))
        yield (whole,), {"axis": axis, "start": sum(sizes[:chosen]), "size": sizes[chosen]}


def _embed_cases(rng: np.random.Generator) -> Iterator[Case]:
    for (x,), attrs in _part_cases(rng):
        axis, start = attrs["axis"], attrs["start"]
        yield (part.reference(x, **attrs),), {"axis": axis, "start": start, "whole": x.shape[axis]}


def _parts(g: Any, *inputs: Any, axis: int) -> tuple[Any, ...]:
    """What of the gradient belongs to each input."""
    parts, start = [], 0
    for x in inputs:
        parts.append(part(g, axis=axis, start=start, size=x.shape[axis]))
        start += x.shape[axis]
    return tuple(parts)


@op(
    shape=_shape_concatenate,
    gradient=lambda g, y, *inputs, axis: _parts(g, *inputs, axis=axis),
    terms=lambda *inputs, **attrs: 0,
    flops=written(_shape_concatenate),
    cases=_join_cases,
)
def concatenate(a, b, c=None, d=None, e=None, f=None, *, axis):
    """Two to six arrays (N, ...) one behind the other along an axis."""
    return np.concatenate([x for x in (a, b, c, d, e, f) if x is not None], axis=axis)


@op(
    shape=_shape_part,
    gradient=lambda g, y, x, axis, start, size: (embed(g, axis=axis, start=start, whole=x.shape[axis]),),
    terms=lambda x, **attrs: 0,
    flops=written(_shape_part),
    cases=_part_cases,
)
def part(x, *, axis, start, size):
    """The elements ``start`` to ``start + size - 1`` of ``x (N, ...)`` along an axis."""
    return x[(*(slice(None),) * axis, slice(start, start + size))]


@op(
    shape=_shape_embed,
    gradient=lambda g, y, x, axis, start, whole: (part(g, axis=axis, start=start, size=x.shape[axis]),),
    terms=lambda g, **attrs: 0,
    flops=written(_shape_embed),
    cases=_embed_cases,
)
def embed(g, *, axis, start, whole):
    """``g`` as the part of an array of size ``whole`` along an axis that begins at ``start``, zeros around it."""
    pads = [(0, 0)] * g.ndim
    pads[axis] = (start, whole - start - g.shape[axis])
    return np.pad(g, pads)

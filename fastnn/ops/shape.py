"""The same numbers in another shape or order, with zeros around them, or without their edges.

N batch; D H W depth, height, width, of which a signal has W and an image H and W; C channels, always last. ``pads`` has
(before, after) for each of these axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import SIZES, Case, op
from fastnn.ops.window import LIMIT, Pads, padded

#: Signals, images and volumes, with channels around the vector widths.
SPACES = (
    (3, 9, 1), (4, 7, 3), (3, 5, 8), (7, 6, 17), (3, 33, 2),
    (4, 6, 5, 1), (5, 4, 7, 3), (4, 5, 3, 16), (5, 3, 4, 9), (3, 2, 5, 33), (5, 8, 9, 4), (4, 1, 1, 7), (3, 17, 2, 1),
    (4, 2, 3, 5, 2), (4, 3, 2, 3, 15), (3, 2, 2, 1, 40),
)  # fmt: skip


# Views


def _shape(x: Shape, *, shape: tuple[int, ...]) -> Shape:
    sizes = [size for size in x[1:] if size is not None]
    if len(sizes) < len(x) - 1 or math.prod(sizes) != math.prod(shape):
        raise ValueError(f"rows of shape {x[1:]} cannot become rows of another size. Received: shape={shape}")
    return (x[0], *shape)


def _cases(rng: np.random.Generator) -> Iterator[Case]:
    for n in SIZES:
        yield (rng.standard_normal((n, 4, 6)),), {"shape": (24,)}


@op(
    shape=_shape,
    gradient=lambda g, y, x, shape: (reshape(g, shape=x.shape[1:]),),
    terms=lambda x, **attrs: 0,
    cases=_cases,
    view=True,
)
def reshape(x: Any, *, shape: Any) -> Any:
    """The rows of ``x`` (N, ...) in another shape: (N, *shape)."""
    return x.reshape(len(x), *shape)


def _shape_weight(w: Shape, *, shape: tuple[int, ...]) -> Shape:
    if math.prod(w) != math.prod(shape):  # type: ignore[arg-type]
        raise ValueError(f"a weight of shape {w} cannot become one of another size. Received: shape={shape}")
    return shape


def _weight_cases(rng: np.random.Generator) -> Iterator[Case]:
    for c, f in zip(SIZES, SIZES[4:] + SIZES[:4], strict=True):
        yield (rng.standard_normal((1, 1, c, f)),), {"shape": (c, f)}


@op(
    shape=_shape_weight,
    gradient=lambda g, y, w, shape: (reshape_weight(g, shape=w.shape),),
    terms=lambda w, **attrs: 0,
    cases=_weight_cases,
    view=True,
)
def reshape_weight(w: Any, *, shape: Any) -> Any:
    """A weight, which has no batch axis, in another shape."""
    return w.reshape(shape)


# Rows with axes of space


def space_of(x: Shape, name: str, numbers: Sequence[Any], low: int) -> tuple[int, ...]:
    """The sizes of the axes of space, checked together with the attribute that has an entry for each of them."""
    sizes = x[1:-1]
    if not 1 <= len(sizes) <= 3 or None in x[1:] or len(numbers) != len(sizes):
        raise ValueError(
            f"needs rows of one to three axes of space and channels, and {name} for each of these axes. "
            f"Received: shape {x}, {name}={tuple(numbers)}"
        )
    flat = [n for entry in numbers for n in (entry if isinstance(entry, tuple) else (entry,))]
    if any(not low <= n < LIMIT for n in flat):
        raise ValueError(f"{name} must be {low} or more and below 2**31. Received: {name}={tuple(numbers)}")
    return sizes  # type: ignore[return-value]


def with_space(x: Shape, sizes: Sequence[int]) -> Shape:
    """The shape with other sizes of space."""
    return with_sizes(x, (*sizes, x[-1]))  # type: ignore[arg-type]


def with_sizes(x: Shape, sizes: Sequence[int]) -> Shape:
    """The shape of as many rows of these sizes."""
    shape = (x[0], *sizes)
    if math.prod(sizes) >= LIMIT:
        raise ValueError(f"rows of the result must have fewer than 2**31 elements. Received: shape {shape}")
    return shape


def written(shape: Any) -> Any:
    """For memory-bound ops: so many operations take as long as writing their output."""
    return lambda *inputs, **attrs: 4.0 * math.prod(shape(*inputs, **attrs))


# Transposition


def _shape_transpose(x: Shape, *, perm: tuple[int, ...]) -> Shape:
    if sorted(perm) != list(range(1, len(x))):
        raise ValueError(f"perm must name each axis but the first once. Received: shape {x}, perm={perm}")
    return (x[0], *(x[axis] for axis in perm))


def _transpose_cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape, perm in (
        ((5, 7), (1,)),
        ((3, 17, 33), (2, 1)),
        ((4, 16, 15), (2, 1)),
        ((3, 2, 40), (2, 1)),
        ((4, 5, 6, 7), (2, 1, 3)),
        ((3, 4, 5, 1), (2, 1, 3)),
        ((3, 4, 18, 5), (3, 1, 2)),
        ((3, 6, 2, 19), (2, 3, 1)),
        ((3, 6, 17, 20), (1, 3, 2)),
        ((4, 33, 2, 31), (3, 2, 1)),
        ((3, 2, 3, 4, 5), (4, 2, 1, 3)),
        ((2, 3, 4, 9, 8), (2, 1, 3, 4)),
        ((4, 3, 2, 2, 5), (1, 2, 3, 4)),
        ((3, 2, 3, 2, 5, 4), (5, 1, 4, 2, 3)),
    ):
        yield (rng.standard_normal(shape),), {"perm": perm}


@op(
    shape=_shape_transpose,
    gradient=lambda g, y, x, perm: (transpose(g, perm=tuple(perm.index(a) + 1 for a in range(1, len(perm) + 1))),),
    terms=lambda x, **attrs: 0,
    flops=written(_shape_transpose),
    cases=_transpose_cases,
)
def transpose(x, *, perm):
    """``x (N, ...)`` with its axes in another order: axis i = 1 ... of the result is axis ``perm[i - 1]`` of ``x``."""
    return x.transpose(0, *perm)


# Padding and cropping


def _shape_zero_pad(x: Shape, *, pads: Pads) -> Shape:
    sizes = space_of(x, "pads", pads, 0)
    return with_space(x, [size + before + after for size, (before, after) in zip(sizes, pads, strict=True)])


def _shape_crop(x: Shape, *, pads: Pads) -> Shape:
    sizes = space_of(x, "pads", pads, 0)
    left = [size - before - after for size, (before, after) in zip(sizes, pads, strict=True)]
    if any(size < 1 for size in left):
        raise ValueError(f"must leave something of the rows. Received: shape {x}, pads={pads}")
    return with_space(x, left)


def _pad_cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape in SPACES:
        x = rng.standard_normal(shape)
        yield (x,), {"pads": tuple((int(b), int(a)) for b, a in rng.integers(0, 4, (x.ndim - 2, 2)))}
    yield (rng.standard_normal((3, 4, 5, 6)),), {"pads": ((0, 0), (0, 0))}
    yield (rng.standard_normal((5, 4, 3, 2)),), {"pads": ((0, 20), (17, 0))}


def _crop_cases(rng: np.random.Generator) -> Iterator[Case]:
    for (x,), attrs in _pad_cases(rng):
        pads = attrs["pads"]
        yield (rng.standard_normal(_shape_zero_pad(x.shape, pads=pads)),), {"pads": pads}  # type: ignore[arg-type]


@op(
    shape=_shape_zero_pad,
    gradient=lambda g, y, x, pads: (crop(g, pads=pads),),
    terms=lambda x, **attrs: 0,
    flops=written(_shape_zero_pad),
    cases=_pad_cases,
)
def zero_pad(x, *, pads):
    """Zeros around ``x (N, *space, C)``."""
    return padded(x, pads)


@op(
    shape=_shape_crop,
    gradient=lambda g, y, x, pads: (zero_pad(g, pads=pads),),
    terms=lambda x, **attrs: 0,
    flops=written(_shape_crop),
    cases=_crop_cases,
)
def crop(x, *, pads):
    """``x (N, *space, C)`` without its edges."""
    inside = (slice(before, size - after) for size, (before, after) in zip(x.shape[1:-1], pads, strict=True))
    return x[(slice(None), *inside)]

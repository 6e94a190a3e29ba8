"""What convolutions are made of: the tile of a matrix product, what becomes of its sums, the walk over outputs."""

from __future__ import annotations

import numpy as np
from numba import types

from fastnn.backends.numba.elementary import ZERO
from fastnn.backends.numba.jit import inner
from fastnn.backends.numba.vector import (
    LANES,
    fill,
    fma,
    load,
    load_some,
    pointer,
    positive,
    spread,
    store,
    store_some,
    where_positive,
)

#: Rows and columns of a tile: 12 sums, 2 vectors and 1 factor fit into 16 registers.
ROWS, WIDE = 6, 2 * LANES
#: What becomes of sums: nothing, relu, the slope of relu at its output ``like``.
PLAIN, RELU, RELU_DX = range(3)
#: A row for each of D, H, W, of which the first number says how many places there are.
TABLE, COUNT = types.Array(types.int64, 2, "C", readonly=True), 0
EMPTY = np.empty(0, np.float32)


@inner
def whole(n, size):  # type: ignore[no-untyped-def]
    """``n`` rounded up to a multiple of ``size``."""
    return (n + size - 1) // size * size


@inner
def _finish(out, at, a, b, add):  # type: ignore[no-untyped-def]
    if add:
        a, b = load(out, at) + a, load(out, at + LANES) + b
    store(out, at, a)
    store(out, at + LANES, b)


@inner
def tile(out, at, out_row, x, x_at, x_row, x_step, w, w_at, w_step, k, add):  # type: ignore[no-untyped-def]
    """``out[r] = sum over k of x[r, k] * w[k]`` for ROWS rows of WIDE sums, or with ``add`` that on top of ``out``.

    Each array is given with its first element's place and the distances to the next row and the next k.
    """
    target, v = pointer(out, at), pointer(w, w_at)
    x0, x1, x2 = pointer(x, x_at), pointer(x, x_at + x_row), pointer(x, x_at + 2 * x_row)
    x3, x4, x5 = pointer(x, x_at + 3 * x_row), pointer(x, x_at + 4 * x_row), pointer(x, x_at + 5 * x_row)
    a0 = a1 = a2 = a3 = a4 = a5 = b0 = b1 = b2 = b3 = b4 = b5 = fill(ZERO)
    for i in range(k):
        first, second = load(v, i * w_step), load(v, i * w_step + LANES)
        t = spread(x0, i * x_step)
        a0, b0 = fma(t, first, a0), fma(t, second, b0)
        t = spread(x1, i * x_step)
        a1, b1 = fma(t, first, a1), fma(t, second, b1)
        t = spread(x2, i * x_step)
        a2, b2 = fma(t, first, a2), fma(t, second, b2)
        t = spread(x3, i * x_step)
        a3, b3 = fma(t, first, a3), fma(t, second, b3)
        t = spread(x4, i * x_step)
        a4, b4 = fma(t, first, a4), fma(t, second, b4)
        t = spread(x5, i * x_step)
        a5, b5 = fma(t, first, a5), fma(t, second, b5)
    _finish(target, 0, a0, b0, add)
    _finish(target, out_row, a1, b1, add)
    _finish(target, 2 * out_row, a2, b2, add)
    _finish(target, 3 * out_row, a3, b3, add)
    _finish(target, 4 * out_row, a4, b4, add)
    _finish(target, 5 * out_row, a5, b5, add)


@inner
def deliver(y, at, v, n, b, biased, like, mode):  # type: ignore[no-untyped-def]
    """Store n lanes of sums at ``y[at]`` with bias and activation; b points to that of the first lane."""
    if biased:
        v = v + load_some(b, 0, n)
    if mode == RELU:
        v = positive(v)
    elif mode == RELU_DX:
        v = where_positive(load_some(like, at, n), v)
    if n == LANES:
        store(y, at, v)
    else:
        store_some(y, at, v, n)


@inner
def walk(places, size, axes):  # type: ignore[no-untyped-def]
    """The next ``size`` places as image, d, h, w: the first rows of ``places``, whose last row is the one to begin
    with, and afterwards the one that follows.
    """
    n, d, h, w = places[-1, 0], places[-1, 1], places[-1, 2], places[-1, 3]
    for i in range(size):
        places[i, 0], places[i, 1], places[i, 2], places[i, 3] = n, d, h, w
        w += 1
        if w == axes[2, COUNT]:
            w, h = 0, h + 1
            if h == axes[1, COUNT]:
                h, d = 0, d + 1
                if d == axes[0, COUNT]:
                    d, n = 0, n + 1
    places[-1, 0], places[-1, 1], places[-1, 2], places[-1, 3] = n, d, h, w

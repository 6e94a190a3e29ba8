"""The transforms of Winograd's algorithm in one dimension, on vectors of channels; ``fastnn/ops/winograd.py`` has the
matrices, whose rows for the points p and -p have the same even and the same odd part.
"""

from __future__ import annotations

import math

import numpy as np

from fastnn.backends.numba.elementary import ZERO
from fastnn.backends.numba.jit import inner
from fastnn.backends.numba.vector import fill, fma, load, load_some, spread, store

_A, _B, _A3, _B3 = (np.float32(v) for v in (math.sqrt(0.5), math.sqrt(2.0), math.sqrt(0.125), math.sqrt(8.0)))
_HALF, _TWO, _FIVE_HALVES = np.float32(0.5), np.float32(2.0), np.float32(2.5)


@inner
def inputs_of(x, at, step):  # type: ignore[no-untyped-def]
    """B' d."""
    x0, x1, x2 = load(x, at), load(x, at + step), load(x, at + 2 * step)
    x3, x4, x5 = load(x, at + 3 * step), load(x, at + 4 * step), load(x, at + 5 * step)
    return _points(x0, x1, x2, x3, x4, x5)


@inner
def some_inputs_of(x, at, step, n):  # type: ignore[no-untyped-def]
    """B' d of n lanes only."""
    x0, x1, x2 = load_some(x, at, n), load_some(x, at + step, n), load_some(x, at + 2 * step, n)
    x3, x4, x5 = load_some(x, at + 3 * step, n), load_some(x, at + 4 * step, n), load_some(x, at + 5 * step, n)
    return _points(x0, x1, x2, x3, x4, x5)


@inner
def _points(x0, x1, x2, x3, x4, x5):  # type: ignore[no-untyped-def]
    even, odd = fma(fill(-_TWO), x2, x4), fma(fill(-_TWO), x1, x3)
    even_b, odd_b = fma(fill(-_HALF), x2, x4), fma(fill(-_HALF), x1, x3)
    return (
        fma(fill(-_FIVE_HALVES), x2, x0) + x4,
        fma(fill(_A), odd, even),
        fma(fill(-_A), odd, even),
        fma(fill(_B), odd_b, even_b),
        fma(fill(-_B), odd_b, even_b),
        fma(fill(-_FIVE_HALVES), x3, x1) + x5,
    )


@inner
def outputs_of(m, at, step, four):  # type: ignore[no-untyped-def]
    """A' m: four outputs, or two that count."""
    m0, m1, m2 = load(m, at), load(m, at + step), load(m, at + 2 * step)
    m3, m4, m5 = load(m, at + 3 * step), load(m, at + 4 * step), load(m, at + 5 * step)
    even, odd, even_b, odd_b = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    zero = fill(ZERO)
    y0 = m0 + even + even_b
    y1 = fma(fill(_A), odd, fma(fill(_B), odd_b, zero if four else m5))
    y2 = fma(fill(_HALF), even, fma(fill(_TWO), even_b, zero))
    y3 = fma(fill(_A3), odd, fma(fill(_B3), odd_b, m5))
    return y0, y1, y2, y3


@inner
def gradients_of(y0, y1, y2, y3, four):  # type: ignore[no-untyped-def]
    """A g."""
    even, odd = fma(fill(_HALF), y2, y0), fma(fill(_A3), y3, fma(fill(_A), y1, fill(ZERO)))
    even_b, odd_b = fma(fill(_TWO), y2, y0), fma(fill(_B3), y3, fma(fill(_B), y1, fill(ZERO)))
    return y0, even + odd, even - odd, even_b + odd_b, even_b - odd_b, y3 if four else y1


@inner
def put(target, at, step, six):  # type: ignore[no-untyped-def]
    for i, v in enumerate(six):
        store(target, at + i * step, v)


@inner
def multiply(out, at, out_step, x, x_at, x_step, matrix, rows, columns, row_step, column_step):  # type: ignore[no-untyped-def]
    """The product of a small matrix, row i and column j at ``i * row_step + j * column_step``, with so many vectors."""
    for i in range(rows):
        total = fill(ZERO)
        for j in range(columns):
            total = fma(spread(matrix, i * row_step + j * column_step), load(x, x_at + j * x_step), total)
        store(out, at + i * out_step, total)

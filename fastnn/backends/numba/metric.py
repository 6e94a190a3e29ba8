"""Metrics that are one value a row. N batch, C outputs or classes."""

from __future__ import annotations

import numpy as np

from fastnn.backends.numba.elementary import ONE, ZERO
from fastnn.backends.numba.jit import IN2, OUT1, REAL, compiled, define, inner


@inner
def _argmax(x, n):  # type: ignore[no-untyped-def]
    """The first of the largest elements of row n; a NaN counts as largest, as in NumPy."""
    best = 0
    for c in range(1, x.shape[1]):
        if not x[n, c] <= x[n, best] and x[n, best] == x[n, best]:
            best = c
    return best


@compiled(OUT1, IN2, IN2, REAL)
def _binary_accuracy(rows, p, y, threshold):  # type: ignore[no-untyped-def]
    limit = np.float32(threshold)
    for n in range(p.shape[0]):
        right = 0
        for c in range(p.shape[1]):
            right += (ONE if p[n, c] > limit else ZERO) == y[n, c]
        rows[n] = right / p.shape[1]


@compiled(OUT1, IN2, IN2)
def _categorical_accuracy(rows, p, y):  # type: ignore[no-untyped-def]
    for n in range(p.shape[0]):
        rows[n] = _argmax(p, n) == _argmax(y, n)


@compiled(OUT1, IN2, IN2)
def _sparse_categorical_accuracy(rows, p, y):  # type: ignore[no-untyped-def]
    for n in range(p.shape[0]):
        rows[n] = _argmax(p, n) == y[n, 0]


define("binary_accuracy", _binary_accuracy, "threshold")
define("categorical_accuracy", _categorical_accuracy)
define("sparse_categorical_accuracy", _sparse_categorical_accuracy)

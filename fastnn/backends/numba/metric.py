"""Metrics that are one value a row, and counts of pixels. N rows, along all axes but the last, C outputs or classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.backends.numba.elementary import HALF, ONE, ZERO
from fastnn.backends.numba.jit import IN2, IN3, OUT1, OUT3, REAL, Arrays, compiled, inner, kernel
from fastnn.backends.numba.loss import define_rows
from fastnn.backends.numba.overlap import pixels


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


define_rows("binary_accuracy", _binary_accuracy, "threshold")
define_rows("categorical_accuracy", _categorical_accuracy)
define_rows("sparse_categorical_accuracy", _sparse_categorical_accuracy)


# Counts of pixels. N batch, P pixels, C classes


@inner
def _argmax_of(x, n, q):  # type: ignore[no-untyped-def]
    """As ``_argmax``, of pixel q of sample n."""
    best = 0
    for c in range(1, x.shape[2]):
        if not x[n, q, c] <= x[n, q, best] and x[n, q, best] == x[n, q, best]:
            best = c
    return best


@compiled(OUT3, IN3, IN3)
def _class_counts(counts, p, y):  # type: ignore[no-untyped-def]
    whole = np.empty(counts.shape[1:], np.int64)
    for n in range(p.shape[0]):
        whole[:] = 0
        for q in range(p.shape[1]):
            found = _argmax_of(p, n, q)
            truth = np.int64(y[n, q, 0]) if y.shape[2] < p.shape[2] else _argmax_of(y, n, q)
            if found == truth:
                whole[0, found] += 1
            else:
                whole[1, found] += 1
                whole[2, truth] += 1
        counts[n] = whole


@compiled(OUT3, IN3, IN3, REAL)
def _threshold_counts(counts, p, y, threshold):  # type: ignore[no-untyped-def]
    limit = np.float32(threshold)
    whole = np.empty(counts.shape[1:], np.int64)
    for n in range(p.shape[0]):
        whole[:] = 0
        for q in range(p.shape[1]):
            for c in range(p.shape[2]):
                truth = y[n, q, c] > HALF
                if p[n, q, c] > limit:
                    whole[0 if truth else 1, c] += 1
                else:
                    whole[2 if truth else 3, c] += 1
        counts[n] = whole


@kernel
def class_counts(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _class_counts.run(outputs[0], *map(pixels, inputs))


@kernel
def threshold_counts(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _threshold_counts.run(outputs[0], *map(pixels, inputs), attrs["threshold"])

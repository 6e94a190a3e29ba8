"""Losses: one value a row, and their gradients. N rows, along all axes but the last, C outputs or classes.

Targets ``y`` are (N, C) or, where ``sparse`` is 1, labels (N, 1): one compiled function serves both.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.backends.numba.elementary import ONE, TWO, ZERO, exp, log, log1p, sigmoid, softplus
from fastnn.backends.numba.jit import (
    IN1,
    IN2,
    INTEGER,
    KERNELS,
    OUT1,
    OUT2,
    TOTAL,
    Arrays,
    Compiled,
    compiled,
    define,
    inner,
)
from fastnn.backends.numba.matrix import flat
from fastnn.backends.numba.softmax import row_exp, row_max
from fastnn.ops.loss import EPSILON

_LEAST, _MOST = np.float32(EPSILON), np.float32(1.0 - EPSILON)


@inner
def _probability(p):  # type: ignore[no-untyped-def]
    return _MOST if p > _MOST else (_LEAST if p < _LEAST else p)


@inner
def _target(y, n, c, sparse):  # type: ignore[no-untyped-def]
    if sparse:
        return ONE if y[n, 0] == np.float32(c) else ZERO
    return y[n, c]


@compiled(OUT1, IN2, IN2)
def _mean_squared_error(rows, p, y):  # type: ignore[no-untyped-def]
    size = np.float32(p.shape[1])
    for n in range(p.shape[0]):
        total = ZERO
        for c in range(p.shape[1]):
            total += (p[n, c] - y[n, c]) * (p[n, c] - y[n, c])
        rows[n] = total / size


@compiled(OUT2, IN1, IN2, IN2)
def _mean_squared_error_dx(dx, g, p, y):  # type: ignore[no-untyped-def]
    size = np.float32(p.shape[1])
    for n in range(p.shape[0]):
        scale = g[n] * TWO / size
        for c in range(p.shape[1]):
            dx[n, c] = scale * (p[n, c] - y[n, c])


@compiled(OUT1, IN2, IN2)
def _mean_absolute_error(rows, p, y):  # type: ignore[no-untyped-def]
    size = np.float32(p.shape[1])
    for n in range(p.shape[0]):
        total = ZERO
        for c in range(p.shape[1]):
            total += abs(p[n, c] - y[n, c])
        rows[n] = total / size


@compiled(OUT2, IN1, IN2, IN2)
def _mean_absolute_error_dx(dx, g, p, y):  # type: ignore[no-untyped-def]
    size = np.float32(p.shape[1])
    for n in range(p.shape[0]):
        scale = g[n] / size
        for c in range(p.shape[1]):
            d = p[n, c] - y[n, c]
            dx[n, c] = scale * (ONE if d > ZERO else (-ONE if d < ZERO else d))


@compiled(OUT1, IN2, IN2)
def _binary_crossentropy(rows, p, y):  # type: ignore[no-untyped-def]
    size = np.float32(p.shape[1])
    for n in range(p.shape[0]):
        total = ZERO
        for c in range(p.shape[1]):
            q = _probability(p[n, c])
            total += y[n, c] * log(q) + (ONE - y[n, c]) * log1p(-q)
        rows[n] = -total / size


@compiled(OUT2, IN1, IN2, IN2)
def _binary_crossentropy_dx(dx, g, p, y):  # type: ignore[no-untyped-def]
    size = np.float32(p.shape[1])
    for n in range(p.shape[0]):
        scale = g[n] / size
        for c in range(p.shape[1]):
            q = _probability(p[n, c])
            slope = scale * (q - y[n, c]) / (q * (ONE - q))
            dx[n, c] = slope if (p[n, c] > _LEAST) & (p[n, c] < _MOST) else ZERO


@compiled(OUT1, IN2, IN2)
def _sigmoid_crossentropy(rows, z, y):  # type: ignore[no-untyped-def]
    size = np.float32(z.shape[1])
    for n in range(z.shape[0]):
        total = ZERO
        for c in range(z.shape[1]):
            total += softplus(z[n, c]) - y[n, c] * z[n, c]
        rows[n] = total / size


@compiled(OUT2, IN1, IN2, IN2)
def _sigmoid_crossentropy_dx(dx, g, z, y):  # type: ignore[no-untyped-def]
    size = np.float32(z.shape[1])
    for n in range(z.shape[0]):
        scale = g[n] / size
        for c in range(z.shape[1]):
            dx[n, c] = scale * (sigmoid(z[n, c]) - y[n, c])


@inner
def _row_sum(p, n):  # type: ignore[no-untyped-def]
    total = ZERO
    for c in range(p.shape[1]):
        total += p[n, c]
    return total


@compiled(OUT1, IN2, IN2, INTEGER)
def _categorical_crossentropy(rows, p, y, sparse):  # type: ignore[no-untyped-def]
    for n in range(p.shape[0]):
        whole = _row_sum(p, n)
        total = ZERO
        for c in range(p.shape[1]):
            total += _target(y, n, c, sparse) * log(_probability(p[n, c] / whole))
        rows[n] = -total


@compiled(OUT2, IN1, IN2, IN2, INTEGER)
def _categorical_crossentropy_dx(dx, g, p, y, sparse):  # type: ignore[no-untyped-def]
    for n in range(p.shape[0]):
        whole = _row_sum(p, n)
        mean = ZERO
        for c in range(p.shape[1]):
            q = p[n, c] / whole
            slope = -_target(y, n, c, sparse) / q if (q > _LEAST) & (q < _MOST) else ZERO
            dx[n, c] = slope
            mean += slope * q
        scale = g[n] / whole
        for c in range(p.shape[1]):
            dx[n, c] = scale * (dx[n, c] - mean)


@compiled(OUT1, IN2, IN2, INTEGER)
def _softmax_crossentropy(rows, z, y, sparse):  # type: ignore[no-untyped-def]
    for n in range(z.shape[0]):
        top = row_max(z, n)
        whole = ZERO
        for c in range(z.shape[1]):
            whole += exp(z[n, c] - top)
        log_whole = log(whole)
        total = ZERO
        for c in range(z.shape[1]):
            total += _target(y, n, c, sparse) * ((z[n, c] - top) - log_whole)
        rows[n] = -total


@compiled(OUT2, IN1, IN2, IN2, INTEGER)
def _softmax_crossentropy_dx(dx, g, z, y, sparse):  # type: ignore[no-untyped-def]
    for n in range(z.shape[0]):
        whole = row_exp(dx, z, n)
        weight = ZERO
        for c in range(z.shape[1]):
            weight += _target(y, n, c, sparse)
        scale = weight / whole
        for c in range(z.shape[1]):
            dx[n, c] = g[n] * (dx[n, c] * scale - _target(y, n, c, sparse))


# From rows to the batch


@compiled(OUT1, IN1)
def _mean_seed(seed, rows):  # type: ignore[no-untyped-def]
    seed[:] = np.float32(1.0 / len(rows))


@compiled(OUT1, IN1, IN1)
def _add_rows(y, rows, s):  # type: ignore[no-untyped-def]
    for n in range(len(rows)):
        y[n] = rows[n] + s[0]


@compiled(OUT1, IN1)
def _sum_all(y, rows):  # type: ignore[no-untyped-def]
    total = ZERO
    for n in range(len(rows)):
        total += rows[n]
    y[0] = total


@compiled(TOTAL, IN1)
def _accumulate(total, rows):  # type: ignore[no-untyped-def]
    for n in range(len(rows) // len(total)):
        for i in range(len(total)):
            total[i] += rows[n * len(total) + i]



def define_rows(name: str, function: Compiled, *attrs: str, constants: tuple[Any, ...] = ()) -> None:
    """``function(rows (N), p (N, C), y (N, C or 1), *attributes, *constants)`` is the kernel of the op ``name``."""

    def call(outputs: Arrays, inputs: Arrays, attributes: dict[str, Any]) -> None:
        values = [attributes[attr] for attr in attrs]
        function.run(outputs[0].reshape(-1), *map(flat, inputs), *values, *constants)

    KERNELS[name] = call


def define_rows_dx(name: str, function: Compiled, *attrs: str, constants: tuple[Any, ...] = ()) -> None:
    """``function(dp (N, C), g (N), p (N, C), y (N, C or 1), *attributes, *constants)`` is the kernel of ``name``."""

    def call(outputs: Arrays, inputs: Arrays, attributes: dict[str, Any]) -> None:
        values = [attributes[attr] for attr in attrs]
        function.run(flat(outputs[0]), inputs[0].reshape(-1), *map(flat, inputs[1:]), *values, *constants)

    KERNELS[name] = call


define_rows("mean_squared_error", _mean_squared_error)
define_rows_dx("mean_squared_error_dx", _mean_squared_error_dx)
define_rows("mean_absolute_error", _mean_absolute_error)
define_rows_dx("mean_absolute_error_dx", _mean_absolute_error_dx)
define_rows("binary_crossentropy", _binary_crossentropy)
define_rows_dx("binary_crossentropy_dx", _binary_crossentropy_dx)
define_rows("sigmoid_crossentropy", _sigmoid_crossentropy)
define_rows_dx("sigmoid_crossentropy_dx", _sigmoid_crossentropy_dx)
for _sparse, _prefix in enumerate(("", "sparse_")):
    define_rows(f"{_prefix}categorical_crossentropy", _categorical_crossentropy, constants=(_sparse,))
    define_rows_dx(f"{_prefix}categorical_crossentropy_dx", _categorical_crossentropy_dx, constants=(_sparse,))
    define_rows(f"{_prefix}softmax_crossentropy", _softmax_crossentropy, constants=(_sparse,))
    define_rows_dx(f"{_prefix}softmax_crossentropy_dx", _softmax_crossentropy_dx, constants=(_sparse,))
define("mean_seed", _mean_seed)
define("add_rows", _add_rows)
define("sum_all", _sum_all)
define("accumulate", _accumulate, flat=True)

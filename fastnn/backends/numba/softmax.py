"""Softmax over the last axis. N rows, C classes."""

from __future__ import annotations

from typing import Any

from fastnn.backends.numba.elementary import ONE, ZERO, exp
from fastnn.backends.numba.jit import IN2, OUT2, Arrays, compiled, inner, kernel
from fastnn.backends.numba.matrix import flat


@inner
def row_max(x, n):  # type: ignore[no-untyped-def]
    """The largest element of row n; any number if there is a NaN, which comes through elsewhere."""
    top = x[n, 0]
    for c in range(1, x.shape[1]):
        top = x[n, c] if x[n, c] > top else top
    return top


@inner
def row_exp(e, x, n):  # type: ignore[no-untyped-def]
    """``e[n] = exp(x[n] - max)``; returns the sum, added from the left."""
    top = row_max(x, n)
    for c in range(x.shape[1]):
        e[n, c] = exp(x[n, c] - top)
    total = ZERO
    for c in range(x.shape[1]):
        total += e[n, c]
    return total


@compiled(OUT2, IN2)
def _softmax(y, x):  # type: ignore[no-untyped-def]
    for n in range(x.shape[0]):
        scale = ONE / row_exp(y, x, n)
        for c in range(x.shape[1]):
            y[n, c] *= scale


@compiled(OUT2, IN2, IN2)
def _softmax_dx(dx, g, y):  # type: ignore[no-untyped-def]
    for n in range(g.shape[0]):
        mean = ZERO
        for c in range(g.shape[1]):
            mean += g[n, c] * y[n, c]
        for c in range(g.shape[1]):
            dx[n, c] = y[n, c] * (g[n, c] - mean)


@kernel
def softmax(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _softmax.run(flat(outputs[0]), flat(inputs[0]))


@kernel
def softmax_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _softmax_dx.run(flat(outputs[0]), *map(flat, inputs))

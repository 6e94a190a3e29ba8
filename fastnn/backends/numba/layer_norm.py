"""Layer normalization: each row by itself. N rows, C channels; sums are added in double precision."""

from __future__ import annotations

import math

import numpy as np

from fastnn.backends.numba.jit import IN1, IN2, KERNELS, OUT2, REAL, Arrays, Compiled, compiled, inner
from fastnn.backends.numba.norm import rows


@inner
def _statistics(x, n, epsilon):  # type: ignore[no-untyped-def]
    """Mean and inv of row n."""
    total = square = 0.0
    for c in range(x.shape[1]):
        total += x[n, c]
    mean = total / x.shape[1]
    for c in range(x.shape[1]):
        square += (x[n, c] - mean) ** 2
    return np.float32(mean), np.float32(1.0 / math.sqrt(square / x.shape[1] + epsilon))


@compiled(OUT2, IN2, IN1, IN1, REAL)
def _layer_norm(y, x, gamma, beta, epsilon):  # type: ignore[no-untyped-def]
    for n in range(x.shape[0]):
        mean, inv = _statistics(x, n, epsilon)
        for c in range(x.shape[1]):
            y[n, c] = (x[n, c] - mean) * inv * gamma[c] + beta[c]


@compiled(OUT2, IN2, IN2, REAL)
def _layer_norm_sums(sums, g, x, epsilon):  # type: ignore[no-untyped-def]
    first, second = np.zeros(x.shape[1], np.float64), np.zeros(x.shape[1], np.float64)
    for n in range(x.shape[0]):
        mean, inv = _statistics(x, n, epsilon)
        for c in range(x.shape[1]):
            first[c] += g[n, c]
            second[c] += g[n, c] * ((x[n, c] - mean) * inv)
    sums[0] = first
    sums[1] = second


@compiled(OUT2, IN2, IN2, IN1, REAL)
def _layer_norm_dx(dx, g, x, gamma, epsilon):  # type: ignore[no-untyped-def]
    for n in range(x.shape[0]):
        mean, inv = _statistics(x, n, epsilon)
        first = second = 0.0
        for c in range(x.shape[1]):
            a = g[n, c] * gamma[c]
            first += a
            second += a * ((x[n, c] - mean) * inv)
        pull, tilt = np.float32(first / x.shape[1]), np.float32(second / x.shape[1])
        for c in range(x.shape[1]):
            dx[n, c] = inv * (g[n, c] * gamma[c] - pull - (x[n, c] - mean) * inv * tilt)


def _define(name: str, function: Compiled) -> None:
    def call(outputs: Arrays, inputs: Arrays, attrs: dict[str, float]) -> None:
        arrays = [array if array.ndim == 1 else rows(array) for array in (*outputs, *inputs)]
        function.run(*arrays, attrs["epsilon"])

    KERNELS[name] = call


_define("layer_norm", _layer_norm)
_define("layer_norm_sums", _layer_norm_sums)
_define("layer_norm_dx", _layer_norm_dx)

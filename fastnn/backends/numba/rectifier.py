"""Rectifiers with a threshold and a limit, or with a slope that is learned. Outputs may be one of the inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.backends.numba.elementary import ZERO
from fastnn.backends.numba.jit import IN1, IN2, OUT1, OUT2, REAL, Arrays, compiled, define, kernel


@compiled(OUT1, IN1, REAL, REAL, REAL)
def _bounded_relu(y, x, negative_slope, limit, threshold):  # type: ignore[no-untyped-def]
    slope, top, edge = np.float32(negative_slope), np.float32(limit), np.float32(threshold)
    for i in range(y.size):
        v = x[i]
        below = slope * (v - edge)
        if slope == ZERO:
            below = v if v != v else ZERO
        y[i] = (top if v > top else v) if v > edge else below


@compiled(OUT1, IN1, IN1, REAL, REAL, REAL)
def _bounded_relu_dx(dx, g, x, negative_slope, limit, threshold):  # type: ignore[no-untyped-def]
    slope, top, edge = np.float32(negative_slope), np.float32(limit), np.float32(threshold)
    for i in range(dx.size):
        v = x[i]
        dx[i] = (g[i] if v < top else ZERO) if v > edge else slope * g[i]


@compiled(OUT2, IN2, IN2, IN1)
def _scale_negative(y, values, x, alpha):  # type: ignore[no-untyped-def]
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            v = values[n, i]
            y[n, i] = v if x[n, i] > ZERO else alpha[i] * v


@compiled(OUT1, IN1, IN1)
def _prelu_parts(y, g, x):  # type: ignore[no-untyped-def]
    for i in range(y.size):
        v = x[i]
        y[i] = g[i] * (ZERO if v > ZERO else v)


def _rows(y: Any, values: Any, x: Any, alpha: Any) -> None:
    shape = len(x), alpha.size
    if alpha.shape != x.shape[1:]:
        alpha = np.ascontiguousarray(np.broadcast_to(alpha, x.shape[1:]))
        shape = len(x), alpha.size
    _scale_negative.run(y.reshape(shape), values.reshape(shape), x.reshape(shape), alpha.reshape(-1))


@kernel
def prelu(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, alpha = inputs
    _rows(outputs[0], x, x, alpha)


@kernel
def prelu_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _rows(outputs[0], *inputs)


define("bounded_relu", _bounded_relu, "negative_slope", "limit", "threshold", flat=True)
define("bounded_relu_dx", _bounded_relu_dx, "negative_slope", "limit", "threshold", flat=True)
define("prelu_parts", _prelu_parts, flat=True)

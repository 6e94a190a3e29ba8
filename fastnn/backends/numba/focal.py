"""Focal cross-entropies, one value a row, and their gradients. N rows, C outputs or classes; see fastnn/ops/focal.py.

Targets over classes ``y`` are (N, C) or labels (N, 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.backends.numba.elementary import ONE, TWO, ZERO, exp, expm1_negative, log, log1p, sigmoid, softplus
from fastnn.backends.numba.jit import IN1, IN2, KERNELS, OUT1, OUT2, REAL, Arrays, Compiled, compiled, inner
from fastnn.backends.numba.loss import define_rows, define_rows_dx
from fastnn.backends.numba.matrix import flat
from fastnn.backends.numba.softmax import row_max
from fastnn.ops.loss import EPSILON

_LEAST, _MOST = np.float32(EPSILON), np.float32(1.0 - EPSILON)


@inner
def _probability(p):  # type: ignore[no-untyped-def]
    return _MOST if p > _MOST else (_LEAST if p < _LEAST else p)


@inner
def _power(e, gamma):  # type: ignore[no-untyped-def]
    return exp(np.float32(gamma) * log(_LEAST if e < _LEAST else e))


# Each output a decision of its own


@inner
def _weight(y, positive, negative):  # type: ignore[no-untyped-def]
    return y * np.float32(positive) + (ONE - y) * np.float32(negative)


@compiled(OUT1, IN2, IN2, REAL, REAL, REAL)
def _binary(rows, p, y, gamma, positive, negative):  # type: ignore[no-untyped-def]
    size = np.float32(p.shape[1])
    for n in range(p.shape[0]):
        total = ZERO
        for c in range(p.shape[1]):
            v, q = y[n, c], _probability(p[n, c])
            b = -(v * log(q) + (ONE - v) * log1p(-q))
            e = v * (ONE - p[n, c]) + (ONE - v) * p[n, c]
            total += _weight(v, positive, negative) * _power(e, gamma) * b
        rows[n] = total / size


@compiled(OUT2, IN1, IN2, IN2, REAL, REAL, REAL)
def _binary_dx(dp, g, p, y, gamma, positive, negative):  # type: ignore[no-untyped-def]
    size = np.float32(p.shape[1])
    for n in range(p.shape[0]):
        scale = g[n] / size
        for c in range(p.shape[1]):
            v, q = y[n, c], _probability(p[n, c])
            b = -(v * log(q) + (ONE - v) * log1p(-q))
            e = v * (ONE - p[n, c]) + (ONE - v) * p[n, c]
            db = (q - v) / (q * (ONE - q)) if (p[n, c] > _LEAST) & (p[n, c] < _MOST) else ZERO
            turn = np.float32(gamma) * _power(e, gamma - 1.0) * (ONE - TWO * v) * b
            dp[n, c] = scale * _weight(v, positive, negative) * (turn + _power(e, gamma) * db)


@compiled(OUT1, IN2, IN2, REAL, REAL, REAL)
def _sigmoid(rows, z, y, gamma, positive, negative):  # type: ignore[no-untyped-def]
    size = np.float32(z.shape[1])
    for n in range(z.shape[0]):
        total = ZERO
        for c in range(z.shape[1]):
            v = y[n, c]
            e = v * sigmoid(-z[n, c]) + (ONE - v) * sigmoid(z[n, c])
            total += _weight(v, positive, negative) * _power(e, gamma) * (softplus(z[n, c]) - v * z[n, c])
        rows[n] = total / size


@compiled(OUT2, IN1, IN2, IN2, REAL, REAL, REAL)
def _sigmoid_dx(dz, g, z, y, gamma, positive, negative):  # type: ignore[no-untyped-def]
    size = np.float32(z.shape[1])
    for n in range(z.shape[0]):
        scale = g[n] / size
        for c in range(z.shape[1]):
            v, q, r = y[n, c], sigmoid(z[n, c]), sigmoid(-z[n, c])
            right, wrong = v * r, (ONE - v) * q
            e = right + wrong
            part = q * r / (_LEAST if e < _LEAST else e) * (softplus(z[n, c]) - v * z[n, c])
            slope = np.float32(gamma) * (ONE - TWO * v) * part + (wrong - right)
            dz[n, c] = scale * _weight(v, positive, negative) * _power(e, gamma) * slope


# Classes


@inner
def _target(y, w, n, c):  # type: ignore[no-untyped-def]
    """The weighted target of class c; labels have one column, where there is more than one class."""
    if y.shape[1] < len(w):
        return w[c] if y[n, 0] == np.float32(c) else ZERO
    return y[n, c] * w[c]


@inner
def _sum(p, n):  # type: ignore[no-untyped-def]
    total = ZERO
    for c in range(p.shape[1]):
        total += p[n, c]
    return total


@inner
def _log_sum(z, n, top):  # type: ignore[no-untyped-def]
    total = ZERO
    for c in range(z.shape[1]):
        total += exp(z[n, c] - top)
    return log(total)


@compiled(OUT1, IN2, IN2, REAL, IN1)
def _categorical(rows, p, y, gamma, w):  # type: ignore[no-untyped-def]
    for n in range(p.shape[0]):
        whole = _sum(p, n)
        total = ZERO
        for c in range(p.shape[1]):
            q = _probability(p[n, c] / whole)
            total += _target(y, w, n, c) * _power(ONE - q, gamma) * log(q)
        rows[n] = -total


@compiled(OUT2, IN1, IN2, IN2, REAL, IN1)
def _categorical_dx(dp, g, p, y, gamma, w):  # type: ignore[no-untyped-def]
    for n in range(p.shape[0]):
        whole = _sum(p, n)
        mean = ZERO
        for c in range(p.shape[1]):
            share = p[n, c] / whole
            q = _probability(share)
            part = np.float32(gamma) * _power(ONE - q, gamma - 1.0) * log(q) - _power(ONE - q, gamma) / q
            slope = _target(y, w, n, c) * part if (share > _LEAST) & (share < _MOST) else ZERO
            dp[n, c] = slope
            mean += slope * q
        scale = g[n] / whole
        for c in range(p.shape[1]):
            dp[n, c] = scale * (dp[n, c] - mean)


@compiled(OUT1, IN2, IN2, REAL, IN1)
def _softmax(rows, z, y, gamma, w):  # type: ignore[no-untyped-def]
    for n in range(z.shape[0]):
        top = row_max(z, n)
        log_whole = _log_sum(z, n, top)
        total = ZERO
        for c in range(z.shape[1]):
            log_q = (z[n, c] - top) - log_whole
            total += _target(y, w, n, c) * _power(-expm1_negative(log_q), gamma) * log_q
        rows[n] = -total


@compiled(OUT2, IN1, IN2, IN2, REAL, IN1)
def _softmax_dx(dz, g, z, y, gamma, w):  # type: ignore[no-untyped-def]
    for n in range(z.shape[0]):
        top = row_max(z, n)
        log_whole = _log_sum(z, n, top)
        total = ZERO
        for c in range(z.shape[1]):
            log_q = (z[n, c] - top) - log_whole
            e = -expm1_negative(log_q)
            part = np.float32(gamma) * _power(e, gamma - 1.0) * exp(log_q) * log_q - _power(e, gamma)
            dz[n, c] = _target(y, w, n, c) * part
            total += dz[n, c]
        for c in range(z.shape[1]):
            dz[n, c] = g[n] * (dz[n, c] - exp((z[n, c] - top) - log_whole) * total)


def _define_classes(name: str, value: Compiled, slope: Compiled) -> None:
    """The kernels of the op ``name`` and its gradient: their class weights become arrays."""

    def call(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
        weights = np.array(attrs["class_weights"], np.float32)
        value.run(outputs[0].reshape(-1), *map(flat, inputs), attrs["gamma"], weights)

    def call_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
        weights = np.array(attrs["class_weights"], np.float32)
        slope.run(flat(outputs[0]), inputs[0].reshape(-1), *map(flat, inputs[1:]), attrs["gamma"], weights)

    KERNELS[name], KERNELS[f"{name}_dx"] = call, call_dx


define_rows("binary_focal_crossentropy", _binary, "gamma", "positive", "negative")
define_rows_dx("binary_focal_crossentropy_dx", _binary_dx, "gamma", "positive", "negative")
define_rows("sigmoid_focal_crossentropy", _sigmoid, "gamma", "positive", "negative")
define_rows_dx("sigmoid_focal_crossentropy_dx", _sigmoid_dx, "gamma", "positive", "negative")
_define_classes("categorical_focal_crossentropy", _categorical, _categorical_dx)
_define_classes("softmax_focal_crossentropy", _softmax, _softmax_dx)

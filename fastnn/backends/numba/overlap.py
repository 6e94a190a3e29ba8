"""How far predicted regions lie on the true ones. N batch, P pixels, C classes; targets ``y`` are (N, P, C) or labels
(N, P, 1). Sums over pixels are added in double precision, pixel after pixel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnn.backends.numba.elementary import ONE, ZERO
from fastnn.backends.numba.jit import IN1, IN2, IN3, INTEGER, OUT1, OUT3, REAL, Arrays, compiled, define, inner, kernel

_NO_WEIGHTS = np.ones((1, 1), np.float32)


def pixels(array: Any) -> Any:
    """(N, ..., C) as (N, P, C)."""
    return array.reshape(len(array), math.prod(array.shape[1:-1]), array.shape[-1])


def _weights(given: Arrays) -> tuple[Any, int]:
    """The weights (N, P), and whether there are any."""
    return (given[0].reshape(len(given[0]), math.prod(given[0].shape[1:])), 1) if given else (_NO_WEIGHTS, 0)


@inner
def _truth(y, n, q, c, labels):  # type: ignore[no-untyped-def]
    if labels:
        return ONE if y[n, q, 0] == np.float32(c) else ZERO
    return y[n, q, c]


@compiled(OUT3, IN3, IN3, IN2, INTEGER, INTEGER)
def _overlap(s, p, y, w, weighted, labels):  # type: ignore[no-untyped-def]
    sums = np.empty((3, p.shape[2]), np.float64)
    for n in range(p.shape[0]):
        sums[:] = 0.0
        for q in range(p.shape[1]):
            weight = w[n, q] if weighted else ONE
            for c in range(p.shape[2]):
                truth = _truth(y, n, q, c, labels)
                sums[0, c] += p[n, q, c] * truth * weight
                sums[1, c] += p[n, q, c] * (ONE - truth) * weight
                sums[2, c] += (ONE - p[n, q, c]) * truth * weight
        for k in range(3):
            for c in range(p.shape[2]):
                s[n, k, c] = sums[k, c]


@compiled(OUT3, IN3, IN3, IN2, INTEGER, INTEGER)
def _overlap_dx(dp, g, y, w, weighted, labels):  # type: ignore[no-untyped-def]
    for n in range(dp.shape[0]):
        for q in range(dp.shape[1]):
            weight = w[n, q] if weighted else ONE
            for c in range(dp.shape[2]):
                truth = _truth(y, n, q, c, labels)
                dp[n, q, c] = weight * (truth * (g[n, 0, c] - g[n, 2, c]) + (ONE - truth) * g[n, 1, c])


@kernel
def overlap(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    p, y = map(pixels, inputs[:2])
    _overlap.run(outputs[0], p, y, *_weights(inputs[2:]), int(y.shape[2] < p.shape[2]))


@kernel
def overlap_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    dp, y = pixels(outputs[0]), pixels(inputs[1])
    _overlap_dx.run(dp, inputs[0], y, *_weights(inputs[2:]), int(y.shape[2] < dp.shape[2]))


@inner
def _errors(s, n, c, alpha, beta, epsilon, joint):  # type: ignore[no-untyped-def]
    """True positives and weighted errors of class c, or of all classes together."""
    first, last = (0, s.shape[2]) if joint else (c, c + 1)
    tp, fp, fn = ZERO, ZERO, ZERO
    for i in range(first, last):
        tp += s[n, 0, i]
        fp += s[n, 1, i]
        fn += s[n, 2, i]
    return tp + np.float32(epsilon), np.float32(alpha) * fp + np.float32(beta) * fn


@compiled(OUT1, IN3, REAL, REAL, REAL, INTEGER)
def _tversky(rows, s, alpha, beta, epsilon, joint):  # type: ignore[no-untyped-def]
    parts = 1 if joint else s.shape[2]
    for n in range(s.shape[0]):
        total = ZERO
        for c in range(parts):
            right, wrong = _errors(s, n, c, alpha, beta, epsilon, joint)
            total += wrong / (right + wrong)
        rows[n] = total / np.float32(parts)


@compiled(OUT3, IN1, IN3, REAL, REAL, REAL, INTEGER)
def _tversky_dx(ds, g, s, alpha, beta, epsilon, joint):  # type: ignore[no-untyped-def]
    parts = np.float32(1 if joint else s.shape[2])
    for n in range(s.shape[0]):
        for c in range(s.shape[2]):
            right, wrong = _errors(s, n, c, alpha, beta, epsilon, joint)
            total = right + wrong
            scale = g[n] / parts
            ds[n, 0, c] = -scale * (wrong / total / total)
            ds[n, 1, c] = np.float32(alpha) * (scale * (right / total / total))
            ds[n, 2, c] = np.float32(beta) * (scale * (right / total / total))


define("tversky", _tversky, "alpha", "beta", "epsilon", "joint")
define("tversky_dx", _tversky_dx, "alpha", "beta", "epsilon", "joint")

"""Normalization of groups and of batches. N items of S places; C channels in G groups; see fastnn/ops/norm.py.

A batch is one item that has all its places and in which each channel is a group. Sums are added in double precision,
place after place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnn.backends.numba.elementary import ONE, ZERO
from fastnn.backends.numba.jit import IN1, IN2, INTEGER, KERNELS, OUT2, REAL, Arrays, compiled, inner, kernel


@inner
def _spread(to, values, n):  # type: ignore[no-untyped-def]
    """to (C) = the numbers of the groups, values[n] (G), channel by channel."""
    size = len(to) // values.shape[1]
    for c in range(len(to)):
        to[c] = values[n, c // size]


@inner
def _statistics(mean, inv, moments, n, epsilon):  # type: ignore[no-untyped-def]
    """mean (C) and inv (C) of item n, from moments (2 N, G)."""
    _spread(mean, moments, 2 * n)
    _spread(inv, moments, 2 * n + 1)
    small = np.float32(epsilon)
    for c in range(len(inv)):
        inv[c] = ONE / math.sqrt(inv[c] + small)


@compiled(OUT2, IN2, INTEGER)
def _moments(moments, x, places):  # type: ignore[no-untyped-def]
    items, channels, groups = moments.shape[0] // 2, x.shape[1], moments.shape[1]
    size = channels // groups
    sums, mean = np.empty(channels, np.float64), np.empty(channels, np.float64)
    for n in range(items):
        for power in range(2):
            sums[:] = 0.0
            for s in range(n * places, (n + 1) * places):
                if power == 0:
                    for c in range(channels):
                        sums[c] += x[s, c]
                else:
                    for c in range(channels):
                        sums[c] += (x[s, c] - mean[c]) ** 2
            for group in range(groups):
                total = 0.0
                for c in range(group * size, (group + 1) * size):
                    total += sums[c]
                total /= places * size
                moments[2 * n + power, group] = total
                if power == 0:
                    mean[group * size : (group + 1) * size] = total


@compiled(OUT2, IN2, IN2, IN1, IN1, INTEGER, REAL)
def _forward(y, x, moments, gamma, beta, places, epsilon):  # type: ignore[no-untyped-def]
    channels = x.shape[1]
    mean, scale = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for n in range(x.shape[0] // places):
        _statistics(mean, scale, moments, n, epsilon)
        scale *= gamma
        for s in range(n * places, (n + 1) * places):
            for c in range(channels):
                y[s, c] = (x[s, c] - mean[c]) * scale[c] + beta[c]


@compiled(OUT2, IN2, IN1, IN1, REAL)
def _scale(dx, g, variance, gamma, epsilon):  # type: ignore[no-untyped-def]
    scale, small = gamma.copy(), np.float32(epsilon)
    for c in range(len(scale)):
        scale[c] /= math.sqrt(variance[c] + small)
    for s in range(g.shape[0]):
        for c in range(g.shape[1]):
            dx[s, c] = g[s, c] * scale[c]


@compiled(OUT2, IN2, IN2, IN2, IN1, IN1, INTEGER, REAL, INTEGER)
def _sums(sums, g, x, moments, gamma, beta, places, epsilon, relu):  # type: ignore[no-untyped-def]
    """With ``relu``, g counts where ``(x - mean) * inv * gamma + beta`` is positive, as _forward has it."""
    channels = x.shape[1]
    mean, inv, scale = np.empty(channels, np.float32), np.empty(channels, np.float32), np.empty(channels, np.float32)
    first, second = np.empty(channels, np.float64), np.empty(channels, np.float64)
    for n in range(x.shape[0] // places):
        _statistics(mean, inv, moments, n, epsilon)
        if relu:
            scale[:] = inv * gamma
        first[:] = 0.0
        second[:] = 0.0
        for s in range(n * places, (n + 1) * places):
            if relu:
                for c in range(channels):
                    d = x[s, c] - mean[c]
                    a = g[s, c] if d * scale[c] + beta[c] > ZERO else ZERO
                    first[c] += a
                    second[c] += a * d
            else:
                for c in range(channels):
                    first[c] += g[s, c]
                    second[c] += g[s, c] * (x[s, c] - mean[c])
        for c in range(channels):
            sums[2 * n, c] = first[c]
            sums[2 * n + 1, c] = second[c] * inv[c]


@compiled(OUT2, IN2, IN2, IN2, IN1, IN1, IN2, INTEGER, REAL, INTEGER)
def _dx(dx, g, x, moments, gamma, beta, sums, places, epsilon, relu):  # type: ignore[no-untyped-def]
    channels, groups = x.shape[1], moments.shape[1]
    size = channels // groups
    mean, inv, scale = np.empty(channels, np.float32), np.empty(channels, np.float32), np.empty(channels, np.float32)
    pull, tilt = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for n in range(x.shape[0] // places):
        _statistics(mean, inv, moments, n, epsilon)
        scale[:] = inv * gamma
        for group in range(groups):
            first = second = 0.0
            for c in range(group * size, (group + 1) * size):
                first += gamma[c] * sums[2 * n, c]
                second += gamma[c] * sums[2 * n + 1, c]
            for c in range(group * size, (group + 1) * size):
                pull[c] = inv[c] * np.float32(first / (places * size))
                tilt[c] = inv[c] * inv[c] * np.float32(second / (places * size))
        for s in range(n * places, (n + 1) * places):
            if relu:
                for c in range(channels):
                    d = x[s, c] - mean[c]
                    a = g[s, c] if d * scale[c] + beta[c] > ZERO else ZERO
                    dx[s, c] = scale[c] * a - (d * tilt[c] + pull[c])
            else:
                for c in range(channels):
                    dx[s, c] = scale[c] * g[s, c] - ((x[s, c] - mean[c]) * tilt[c] + pull[c])


def rows(array: Any) -> Any:
    """All axes but the last as one."""
    return array.reshape(-1, array.shape[-1])


def _places(x: Any, moments: Any) -> int:
    """S: all places of a batch, whose moments are (2, C), or those of an item."""
    places: int = x.size // x.shape[-1]
    return places if moments.ndim == 2 else places // len(x)


@kernel
def moments(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _moments.run(rows(outputs[0]), rows(inputs[0]), _places(inputs[0], outputs[0]))


@kernel
def batch_norm(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, m, gamma, beta = inputs
    _forward.run(rows(outputs[0]), rows(x), rows(m), gamma, beta, _places(x, m), attrs["epsilon"])
    if attrs.get("activation", "linear") != "linear":
        KERNELS[attrs["activation"]](outputs, outputs, {})


@kernel
def normalize(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, mean, variance, gamma, beta = inputs
    batch_norm(outputs, (x, np.stack([mean, variance]), gamma, beta), attrs)


@kernel
def normalize_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    g, variance, gamma = inputs
    _scale.run(rows(outputs[0]), rows(g), variance, gamma, attrs["epsilon"])


@kernel
def batch_norm_sums(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    g, x, m, *affine = inputs
    gamma, beta = affine or (m.reshape(-1), m.reshape(-1))  # not read
    attributes = _places(x, m), attrs["epsilon"], bool(affine)
    _sums.run(rows(outputs[0]), rows(g), rows(x), rows(m), gamma, beta, *attributes)


@kernel
def batch_norm_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    g, x, m, gamma, *beta, sums = inputs
    attributes = _places(x, m), attrs["epsilon"], bool(beta)
    arrays = rows(g), rows(x), rows(m), gamma, beta[0] if beta else gamma, rows(sums)
    _dx.run(rows(outputs[0]), *arrays, *attributes)


KERNELS["group_moments"] = moments
KERNELS["group_norm"] = KERNELS["fused_batch_norm"] = batch_norm
KERNELS["group_norm_sums"] = KERNELS["fused_batch_norm_sums"] = batch_norm_sums
KERNELS["group_norm_dx"] = KERNELS["fused_batch_norm_dx"] = batch_norm_dx
KERNELS["fused_normalize"] = normalize

"""Normalization: numbers are shifted and scaled to mean 0 and variance 1, then by what was learned.

N batch; S places, along all axes between the batch and the channels; C channels, always last; G groups of C / G
neighbouring channels. *Moments* are the mean and the biased variance, in this order; ``inv = 1 / sqrt(variance +
epsilon)`` and ``xhat = (x - mean) * inv``.

Groups are normalized in each item of the batch by itself (Wu & He 2018). A batch (Ioffe & Szegedy 2015) is normalized
like one item that has all its places and in which each channel is a group; so the bodies of ``group_...`` serve both.
Moments come from an op of their own, ``moments`` or ``group_moments``, and the gradients of ``batch_norm`` and
``group_norm`` go through them: they must be those of ``x``. ``normalize`` takes any mean and variance as given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.data import take
from fastnn.ops.declare import Case, op
from fastnn.ops.matrix import sum_rows

#: Sums over places are summed in chunks: so many at most, of so many places and elements at least; of those, so many
#: places are added in single precision before they go to a double. csrc/norm_sums.c has the same numbers.
CHUNKS, CHUNK_PLACES, CHUNK_ELEMENTS, SINGLE = 32, 16, 1 << 15, 64


def sizes(x: Shape) -> tuple[int, int, int]:
    """N, S, C."""
    return int(x[0] or 0), math.prod(int(size or 0) for size in x[1:-1]), int(x[-1] or 0)


def check(ok: bool, needs: str, *shapes: Shape) -> None:
    if not ok:
        raise ValueError(f"needs {needs}. Received: shapes {', '.join(map(str, shapes))}")


def touching(factor: int) -> Any:
    """Reading and writing takes the time: ``factor`` for each element of the first input."""
    return lambda *shapes, **attrs: float(factor * math.prod(shapes[0]))


def chunk_memory(items: int, places: int, channels: int) -> int:
    """Two doubles and a float for each chunk and channel, in whole cache lines."""
    chunks = max(1, min(CHUNKS, places // CHUNK_PLACES, places * channels // CHUNK_ELEMENTS))
    return items * chunks * (-(-5 * channels // 16) * 16)


def _group_workspace(*shapes: Shape, **attrs: Any) -> int:
    return chunk_memory(*sizes(shapes[0]))


# Cases: channels straddle the vector widths; places what is summed at a time, and the chunks

_SHAPES: tuple[tuple[int, ...], ...] = (
    (5, 1), (7, 3), (9, 4), (4, 7), (17, 8), (8, 9), (3, 15), (33, 16), (6, 17), (1, 6), (70, 5), (12, 33),
    (3, 5, 2), (4, 9, 15), (3, 4, 5, 8), (3, 31, 24), (4, 9, 7, 3), (3, 2, 3, 4, 6), (130, 64), (5, 1040),
    (3, 20, 20, 4), (3, 11, 13, 160), (2, 37, 1100),
)  # fmt: skip


def single(values: Any) -> Any:
    return np.asarray(values).astype(np.float32).astype(float)


def inputs(rng: np.random.Generator, mean: float = 1.0) -> Iterator[Any]:
    for shape in _SHAPES:
        spread = rng.uniform(0.2, 2.0, shape[-1])
        yield single(mean * rng.standard_normal(shape[-1]) + spread * rng.standard_normal(shape))


def _group_counts(channels: int) -> list[int]:
    """One group, as many as there are channels, and something between."""
    between = [channels // k for k in (2, 3, 5, 11) if channels % k == 0]
    return sorted({1, channels, *between[:1]})


def affine(rng: np.random.Generator, shape: Any) -> tuple[Any, Any]:
    """gamma and beta."""
    return rng.uniform(-2.0, 2.0, shape), rng.standard_normal(shape)


EPSILONS = ({"epsilon": 1e-3}, {"epsilon": 1e-5})


# Moments


def _shape_group_moments(x: Shape, *, groups: int) -> Shape:
    check(len(x) >= 2, "x (N, ..., C)", x)
    if not isinstance(groups, int) or groups < 1 or x[-1] % groups:  # type: ignore[operator]
        raise ValueError(f"groups must divide the channels. Received: groups={groups} for {x[-1]} channels")
    return (x[0], 2, groups)


def group_moments_scale(x: Any, *, groups: int) -> Any:
    """The magnitude of what is summed.

    The native kernels sum deviations from the mean of the first sixteenth of a chunk's places (of one at least). It is
    so near that the squares of these have at most 32 times the sum of those from the mean of all.
    """
    variance = group_moments.reference(x, groups=groups)[:, 1]
    return np.stack([np.sqrt(32.0 * variance), 32.0 * variance], axis=1)


def _group_moments_cases(rng: np.random.Generator) -> Iterator[Case]:
    for mean in (1.0, 1000.0):
        for x in inputs(rng):
            for groups in _group_counts(x.shape[-1]):
                yield (x + mean,), {"groups": groups}


@op(
    shape=_shape_group_moments,
    terms=lambda x, groups: 2 * SINGLE,
    scale=group_moments_scale,
    flops=touching(4),
    workspace=_group_workspace,
    cases=_group_moments_cases,
)
def group_moments(x, *, groups):
    """``x (N, ..., C) -> (N, 2, G)``: mean and biased variance of each group of each item."""
    n, s, c = sizes(x.shape)
    parts = x.reshape(n, s, groups, c // groups).astype(np.float64)
    return np.stack([parts.mean(axis=(1, 3)), parts.var(axis=(1, 3))], axis=1).astype(x.dtype)


# Groups


def _shape_group_norm(x: Shape, m: Shape, gamma: Shape, beta: Shape, **attrs: Any) -> Shape:
    ok = len(x) >= 2 and len(m) == 3 and m[:2] == (x[0], 2) and x[-1] % m[2] == 0 and gamma == beta == x[-1:]  # type: ignore[operator]
    check(ok, "x (N, ..., C), moments (N, 2, G), gamma and beta (C,), G a divisor of C", x, m, gamma, beta)
    return x


def _shape_group_norm_sums(g: Shape, x: Shape, m: Shape, **attrs: Any) -> Shape:
    ok = g == x and len(x) >= 2 and len(m) == 3 and m[:2] == (x[0], 2) and x[-1] % m[2] == 0  # type: ignore[operator]
    check(ok, "g and x (N, ..., C) and moments (N, 2, G), G a divisor of C", g, x, m)
    return (x[0], 2, x[-1])


def _shape_group_norm_dx(g: Shape, x: Shape, m: Shape, gamma: Shape, sums: Shape, **attrs: Any) -> Shape:
    ok = _shape_group_norm_sums(g, x, m) == sums and gamma == x[-1:]
    check(ok, "g and x (N, ..., C), moments (N, 2, G), gamma (C,), sums (N, 2, C)", g, x, m, gamma, sums)
    return x


def _deviations(x: Any, moments: Any, epsilon: float) -> tuple[Any, Any]:
    """``x - mean (N, S, C)`` and ``inv (N, 1, C)``."""
    n, s, c = sizes(x.shape)
    mean, variance = np.moveaxis(np.repeat(moments, c // moments.shape[2], axis=2), 1, 0)[:, :, None]
    return x.reshape(n, s, c) - mean, 1.0 / np.sqrt(variance + epsilon)


def _group_means(values: Any, groups: int, places: int) -> tuple[Any, Any]:
    """Sums ``values (N, 2, C)`` made means over the places and channels of each group, (N, 1, C) twice."""
    n, _, c = values.shape
    means = values.reshape(n, 2, groups, c // groups).sum(axis=3) / (places * (c // groups))
    first, second = np.moveaxis(np.repeat(means, c // groups, axis=2), 1, 0)[:, :, None]
    return first, second


def group_norm_scale(x: Any, moments: Any, gamma: Any, beta: Any, *, epsilon: float) -> Any:
    d, inv = _deviations(x, moments, epsilon)
    return (abs(d * inv * gamma) + abs(beta)).reshape(x.shape)


def group_norm_sums_scale(g: Any, x: Any, moments: Any, *, epsilon: float) -> Any:
    d, inv = _deviations(x, moments, epsilon)
    g = abs(g).reshape(d.shape)
    return np.stack([g.sum(axis=1), (g * abs(d * inv)).sum(axis=1)], axis=1)


def group_norm_dx_scale(g: Any, x: Any, moments: Any, gamma: Any, sums: Any, *, epsilon: float) -> Any:
    d, inv = _deviations(x, moments, epsilon)
    first, second = _group_means(abs(gamma * sums), moments.shape[2], d.shape[1])
    return (inv * (abs(gamma * g.reshape(d.shape)) + first + abs(d * inv) * second)).reshape(x.shape)


def _group_cases(*wanted: str) -> Any:
    """Cases whose inputs are those named."""

    def cases(rng: np.random.Generator) -> Iterator[Case]:
        for number, x in enumerate(inputs(rng)):
            for groups in _group_counts(x.shape[-1]):
                g, attrs = single(rng.standard_normal(x.shape)), EPSILONS[number % 2]
                m = single(group_moments(x, groups=groups))
                gamma, beta = affine(rng, x.shape[-1])
                sums = group_norm_sums(g, x, m, **attrs)
                given = {"g": g, "x": x, "m": m, "gamma": gamma, "beta": beta, "sums": sums}
                yield tuple(given[name] for name in wanted), attrs

    return cases


def _group_gradient(g: Any, y: Any, x: Any, moments: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    sums = group_norm_sums(g, x, moments, epsilon=epsilon)
    dx = group_norm_dx(g, x, moments, gamma, sums, epsilon=epsilon)
    return dx, None, sum_rows(take(sums, index=1)), sum_rows(take(sums, index=0))


@op(
    shape=_shape_group_norm,
    gradient=_group_gradient,
    terms=lambda *shapes, **attrs: 8,
    scale=group_norm_scale,
    flops=touching(4),
    cases=_group_cases("x", "m", "gamma", "beta"),
    elementwise=(0,),
)
def group_norm(x, moments, gamma, beta, *, epsilon):
    """``gamma * xhat + beta`` with the moments (N, 2, G) of ``x (N, ..., C)``; gamma and beta (C,)."""
    d, inv = _deviations(x, moments, epsilon)
    return (d * (gamma * inv) + beta).reshape(x.shape)


@op(
    shape=_shape_group_norm_sums,
    terms=lambda *shapes, **attrs: SINGLE + 8,
    scale=group_norm_sums_scale,
    flops=touching(6),
    workspace=_group_workspace,
    cases=_group_cases("g", "x", "m"),
)
def group_norm_sums(g, x, moments, *, epsilon):
    """``(N, 2, C)``: the sums over the places of ``g`` and of ``g * xhat``, the gradients by beta and gamma."""
    d, inv = _deviations(x, moments, epsilon)
    g = g.reshape(d.shape)
    sums = [g.sum(axis=1, dtype=np.float64), (g * (d * inv)).sum(axis=1, dtype=np.float64)]
    return np.stack(sums, axis=1).astype(g.dtype)


@op(
    shape=_shape_group_norm_dx,
    terms=lambda g, x, m, *rest, **attrs: x[-1] // m[2] + 16,
    scale=group_norm_dx_scale,
    flops=touching(6),
    cases=_group_cases("g", "x", "m", "gamma", "sums"),
    elementwise=(0, 1),
)
def group_norm_dx(g, x, moments, gamma, sums, *, epsilon):
    """``inv * (gamma * g - mean(gamma * g) - xhat * mean(gamma * g * xhat))``, means over a group, from the sums."""
    d, inv = _deviations(x, moments, epsilon)
    first, second = _group_means(gamma * sums, moments.shape[2], d.shape[1])
    return (inv * (gamma * g.reshape(d.shape) - first - d * inv * second)).reshape(x.shape)

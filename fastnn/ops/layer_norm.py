"""Layer normalization (Ba et al. 2016): each row by itself, along the last axis.

N rows, along all axes but the last; C channels. What holds of a row holds of an item of one place and one group: the
bodies are those of ``norm.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.data import take
from fastnn.ops.declare import SIZES, Case, op
from fastnn.ops.norm import EPSILONS, chunk_memory, group_moments, group_norm, group_norm_dx, group_norm_sums


def _check(ok: bool, needs: str, *shapes: Shape) -> None:
    if not ok:
        raise ValueError(f"needs {needs}. Received: shapes {', '.join(map(str, shapes))}")


def _shape_layer_norm(x: Shape, gamma: Shape, beta: Shape, **attrs: Any) -> Shape:
    _check(len(x) >= 2 and gamma == beta == x[-1:], "x (N, ..., C), gamma and beta (C,)", x, gamma, beta)
    return x


def _shape_layer_norm_sums(g: Shape, x: Shape, **attrs: Any) -> Shape:
    _check(g == x and len(x) >= 2, "g and x (N, ..., C)", g, x)
    return (2, x[-1])


def _shape_layer_norm_dx(g: Shape, x: Shape, gamma: Shape, **attrs: Any) -> Shape:
    _check(g == x and len(x) >= 2 and gamma == x[-1:], "g and x (N, ..., C), gamma (C,)", g, x, gamma)
    return x


def _rows(x: Any) -> Any:
    return x.reshape(-1, x.shape[-1])


def _parts(x: Any, epsilon: float) -> tuple[Any, Any]:
    """A bound on ``|xhat|`` that takes in a mean rounded to single precision, and ``inv``."""
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    inv = 1.0 / np.sqrt(variance + epsilon)
    return (abs(x - mean) + abs(mean)) * inv + 1.0, inv


def _sums_scale(g: Any, x: Any, *, epsilon: float) -> Any:
    bound, _ = _parts(x, epsilon)
    return np.stack([_rows(abs(g)).sum(axis=0), _rows(abs(g) * bound).sum(axis=0)])


def _dx_scale(g: Any, x: Any, gamma: Any, *, epsilon: float) -> Any:
    bound, inv = _parts(x, epsilon)
    g = abs(g * gamma)
    return inv * (g + g.mean(axis=-1, keepdims=True) + bound * (g * bound).mean(axis=-1, keepdims=True))


def _cases(*wanted: str) -> Any:
    def cases(rng: np.random.Generator) -> Iterator[Case]:
        shapes = [(n, c) for n, c in zip(SIZES, SIZES[4:] + SIZES[:4], strict=True)]
        for number, shape in enumerate((*shapes, (3, 5, 130), (3, 2, 4, 70), (131, 257), (1100, 40))):
            x = rng.uniform(-3.0, 3.0) + rng.uniform(0.2, 2.0) * rng.standard_normal(shape)
            given = {"g": rng.standard_normal(shape), "x": x}
            given |= {"gamma": rng.uniform(-2.0, 2.0, shape[-1]), "beta": rng.standard_normal(shape[-1])}
            yield tuple(given[name] for name in wanted), EPSILONS[number % 2]

    return cases


def _gradient(g: Any, y: Any, x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    sums = layer_norm_sums(g, x, epsilon=epsilon)
    return layer_norm_dx(g, x, gamma, epsilon=epsilon), take(sums, index=1), take(sums, index=0)


@op(
    shape=_shape_layer_norm,
    gradient=_gradient,
    terms=lambda x, *rest, **attrs: x[-1] + 16,
    scale=lambda x, gamma, beta, epsilon: _parts(x, epsilon)[0] * abs(gamma) + abs(beta),
    flops=lambda x, *rest, **attrs: 8.0 * math.prod(x),
    cases=_cases("x", "gamma", "beta"),
)
def layer_norm(x, gamma, beta, *, epsilon):
    """``gamma * xhat + beta``, mean and variance those of each row of ``x (N, ..., C)``; gamma and beta (C,)."""
    rows = _rows(x)
    return group_norm(rows, group_moments(rows, groups=1), gamma, beta, epsilon=epsilon).reshape(x.shape)


@op(
    shape=_shape_layer_norm_sums,
    terms=lambda g, x, **attrs: math.prod(x[:-1]) + x[-1] + 16,
    scale=_sums_scale,
    flops=lambda g, x, **attrs: 10.0 * math.prod(x),
    workspace=lambda g, x, **attrs: chunk_memory(1, math.prod(x[:-1]), x[-1]),
    cases=_cases("g", "x"),
)
def layer_norm_sums(g, x, *, epsilon):
    """``(2, C)``: the sums over all rows of ``g`` and of ``g * xhat``, the gradients by beta and gamma."""
    g, x = _rows(g), _rows(x)
    sums = group_norm_sums(g, x, group_moments(x, groups=1), epsilon=epsilon)
    return sums.sum(axis=0, dtype=np.float64).astype(g.dtype)


@op(
    shape=_shape_layer_norm_dx,
    terms=lambda g, x, gamma, **attrs: x[-1] + 16,
    scale=_dx_scale,
    flops=lambda g, x, gamma, **attrs: 12.0 * math.prod(x),
    cases=_cases("g", "x", "gamma"),
)
def layer_norm_dx(g, x, gamma, *, epsilon):
    """``inv * (gamma * g - mean(gamma * g) - xhat * mean(gamma * g * xhat))``, means along each row."""
    rows, given = _rows(x), _rows(g)
    m = group_moments(rows, groups=1)
    sums = group_norm_sums(given, rows, m, epsilon=epsilon)
    return group_norm_dx(given, rows, m, gamma, sums, epsilon=epsilon).reshape(x.shape)

"""Normalization of batches (Ioffe & Szegedy 2015): each channel by itself, over all other axes.

N batch; C channels, always last. The bodies are those of ``norm.py``: a batch is one item with all its places in which
each channel is a group. In training the moments are those of the batch, and the gradient of ``batch_norm`` goes through
them; ``normalize`` takes any mean and variance as given, such as moving averages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.data import fill, take
from fastnn.ops.declare import OPS, OUTPUT, Case, op
from fastnn.ops.matrix import sum_rows
from fastnn.ops.norm import (
    EPSILONS,
    SINGLE,
    affine,
    check,
    chunk_memory,
    group_moments,
    group_moments_scale,
    group_norm,
    group_norm_dx,
    group_norm_dx_scale,
    group_norm_scale,
    group_norm_sums,
    group_norm_sums_scale,
    inputs,
    single,
    touching,
)
from fastnn.ops.pointwise import DENSE_ACTIVATIONS, multiply, relu_dx


def _item(x: Any) -> Any:
    """A batch as one item: (1, N * S, C)."""
    return x.reshape(1, -1, x.shape[-1])


def _workspace(*shapes: Shape, **attrs: Any) -> int:
    *places, channels = shapes[0]
    return chunk_memory(1, math.prod(places), channels)  # type: ignore[arg-type]


def _shape_moments(x: Shape) -> Shape:
    check(len(x) >= 2, "x (N, ..., C)", x)
    return (2, x[-1])


def _moments_cases(rng: np.random.Generator) -> Iterator[Case]:
    for mean in (1.0, 1000.0):
        for x in inputs(rng, mean):
            yield (x,), {}


@op(
    shape=_shape_moments,
    terms=lambda x: 2 * SINGLE,
    scale=lambda x: group_moments_scale(_item(x), groups=x.shape[-1])[0],
    flops=touching(4),
    workspace=_workspace,
    cases=_moments_cases,
)
def moments(x):
    """``x (N, ..., C) -> (2, C)``: mean and biased variance of each channel."""
    return group_moments(_item(x), groups=x.shape[-1])[0]


def _shape_batch_norm(x: Shape, m: Shape, gamma: Shape, beta: Shape, **attrs: Any) -> Shape:
    ok = len(x) >= 2 and m == (2, x[-1]) and gamma == beta == x[-1:]
    check(ok, "x (N, ..., C), moments (2, C), gamma and beta (C,)", x, m, gamma, beta)
    return x


def _shape_batch_norm_sums(g: Shape, x: Shape, m: Shape, **attrs: Any) -> Shape:
    check(g == x and len(x) >= 2 and m == (2, x[-1]), "g and x (N, ..., C) and moments (2, C)", g, x, m)
    return m


def _shape_batch_norm_dx(g: Shape, x: Shape, m: Shape, gamma: Shape, sums: Shape, **attrs: Any) -> Shape:
    ok = g == x and len(x) >= 2 and m == sums == (2, x[-1]) and gamma == x[-1:]
    check(ok, "g and x (N, ..., C), moments (2, C), gamma (C,), sums (2, C)", g, x, m, gamma, sums)
    return x


def _cases(*wanted: str) -> Any:
    def cases(rng: np.random.Generator) -> Iterator[Case]:
        for number, x in enumerate(inputs(rng)):
            g, attrs = single(rng.standard_normal(x.shape)), EPSILONS[number % 2]
            m = single(moments(x))
            gamma, beta = affine(rng, x.shape[-1])
            given = {"g": g, "x": x, "m": m, "mean": m[0], "variance": m[1], "gamma": gamma, "beta": beta}
            given["sums"] = batch_norm_sums(g, x, m, **attrs)
            yield tuple(given[name] for name in wanted), attrs

    return cases


def _gradient(g: Any, y: Any, x: Any, moments: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    sums = batch_norm_sums(g, x, moments, epsilon=epsilon)
    dx = batch_norm_dx(g, x, moments, gamma, sums, epsilon=epsilon)
    return dx, None, take(sums, index=1), take(sums, index=0)


@op(
    shape=_shape_batch_norm,
    gradient=_gradient,
    terms=lambda *shapes, **attrs: 8,
    scale=lambda x, m, *rest, epsilon: group_norm_scale(_item(x), m[None], *rest, epsilon=epsilon).reshape(x.shape),
    flops=touching(4),
    cases=_cases("x", "m", "gamma", "beta"),
    elementwise=(0,),
)
def batch_norm(x, moments, gamma, beta, *, epsilon):
    """``gamma * xhat + beta`` with the moments (2, C) of ``x (N, ..., C)``; gamma and beta (C,)."""
    return group_norm(_item(x), moments[None], gamma, beta, epsilon=epsilon).reshape(x.shape)


@op(
    shape=_shape_batch_norm_sums,
    terms=lambda *shapes, **attrs: SINGLE + 8,
    scale=lambda g, x, m, epsilon: group_norm_sums_scale(_item(g), _item(x), m[None], epsilon=epsilon)[0],
    flops=touching(6),
    workspace=_workspace,
    cases=_cases("g", "x", "m"),
)
def batch_norm_sums(g, x, moments, *, epsilon):
    """``(2, C)``: the sums of ``g`` and of ``g * xhat``, the gradients by beta and gamma."""
    return group_norm_sums(_item(g), _item(x), moments[None], epsilon=epsilon)[0]


@op(
    shape=_shape_batch_norm_dx,
    terms=lambda *shapes, **attrs: 16,
    scale=lambda g, x, m, gamma, sums, epsilon: group_norm_dx_scale(
        _item(g), _item(x), m[None], gamma, sums[None], epsilon=epsilon
    ).reshape(x.shape),
    flops=touching(6),
    cases=_cases("g", "x", "m", "gamma", "sums"),
    elementwise=(0, 1),
)
def batch_norm_dx(g, x, moments, gamma, sums, *, epsilon):
    """``gamma * inv * (g - mean(g) - xhat * mean(g * xhat))``, means over the batch, from the sums."""
    item = group_norm_dx(_item(g), _item(x), moments[None], gamma, sums[None], epsilon=epsilon)
    return item.reshape(x.shape)


# Given statistics


def _shape_normalize(x: Shape, *vectors: Shape, **attrs: Any) -> Shape:
    ok = len(x) >= 2 and all(vector == x[-1:] for vector in vectors)
    check(ok, "x (N, ..., C), mean, variance, gamma and beta (C,)", x, *vectors)
    return x


def _shape_normalize_dx(g: Shape, *vectors: Shape, **attrs: Any) -> Shape:
    ok = len(g) >= 2 and all(vector == g[-1:] for vector in vectors)
    check(ok, "g (N, ..., C), variance and gamma (C,)", g, *vectors)
    return g


def _normalize_gradient(
    g: Any, y: Any, x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, epsilon: float
) -> Any:
    one, nothing = fill(gamma, fill_value=1.0), fill(beta, fill_value=0.0)
    xhat = normalize(x, mean, variance, one, nothing, epsilon=epsilon)
    return normalize_dx(g, variance, gamma, epsilon=epsilon), None, None, sum_rows(multiply(g, xhat)), sum_rows(g)


@op(
    shape=_shape_normalize,
    gradient=_normalize_gradient,
    terms=lambda *shapes, **attrs: 8,
    scale=lambda x, mean, variance, gamma, beta, epsilon: (
        abs((x - mean) * gamma / np.sqrt(variance + epsilon)) + abs(beta)
    ),
    flops=touching(4),
    cases=_cases("x", "mean", "variance", "gamma", "beta"),
    elementwise=(0,),
    slices=(OUTPUT,),
)
def normalize(x, mean, variance, gamma, beta, *, epsilon):
    """``gamma * xhat + beta`` with any mean and variance (C,) of ``x (N, ..., C)``: they have no gradient."""
    return (x - mean) * (gamma / np.sqrt(variance + epsilon)) + beta


@op(
    shape=_shape_normalize_dx,
    terms=lambda *shapes, **attrs: 6,
    scale=lambda g, variance, gamma, epsilon: abs(g * gamma / np.sqrt(variance + epsilon)),
    flops=touching(4),
    cases=_cases("g", "variance", "gamma"),
    elementwise=(0,),
)
def normalize_dx(g, variance, gamma, *, epsilon):
    """``g * gamma * inv``."""
    return g * (gamma / np.sqrt(variance + epsilon))


# Fused with the activation that follows. The slope of relu is found from x again, to the bit: nothing more is read.


def _check_activation(activation: str, known: tuple[str, ...]) -> None:
    if activation not in known:
        raise ValueError(f"activation must be one of {', '.join(known)}. Received: {activation!r}")


def _shape_fused_batch_norm(*shapes: Shape, activation: str, **attrs: Any) -> Shape:
    _check_activation(activation, DENSE_ACTIVATIONS)
    return _shape_batch_norm(*shapes)


def _shape_fused_normalize(*shapes: Shape, activation: str, **attrs: Any) -> Shape:
    _check_activation(activation, DENSE_ACTIVATIONS)
    return _shape_normalize(*shapes)


def _shape_fused_sums(
    g: Shape, x: Shape, m: Shape, gamma: Shape, beta: Shape, *, activation: str, **attrs: Any
) -> Shape:
    _check_activation(activation, ("relu",))
    _shape_batch_norm(x, m, gamma, beta)
    return _shape_batch_norm_sums(g, x, m)


def _shape_fused_dx(
    g: Shape, x: Shape, m: Shape, gamma: Shape, beta: Shape, sums: Shape, *, activation: str, **attrs: Any
) -> Shape:
    _shape_fused_sums(g, x, m, gamma, beta, activation=activation)
    return _shape_batch_norm_dx(g, x, m, gamma, sums)


def _with_activations(wanted: Any, *activations: str) -> Any:
    """Cases with each activation in turn. Where the sign of what relu sees may be that of a rounding error, g is 0."""

    def cases(rng: np.random.Generator) -> Iterator[Case]:
        for number, (arrays, attrs) in enumerate(wanted(rng)):
            if len(activations) == 1:
                g, x, m, gamma, beta = arrays[:5]
                near = abs(batch_norm(x, m, single(gamma), single(beta), **attrs)) < 1e-4
                arrays = (np.where(near, 0.0, g), *arrays[1:])
            yield arrays, {**attrs, "activation": activations[number % len(activations)]}

    return cases


def _activated_scale(scale: Any, reference: Any) -> Any:
    """The error before the activation, times the activation's slope: at most 1.1 but for exp, its own slope."""

    def fused(*inputs: Any, activation: str, **attrs: Any) -> Any:
        y = reference(*inputs, activation=activation, **attrs)
        return (scale(*inputs, **attrs) + 1.0) * (1.1 + y * (activation == "exponential"))

    return fused


def _masked(g: Any, x: Any, moments: Any, gamma: Any, beta: Any, epsilon: float, activation: str) -> Any:
    y = fused_batch_norm.reference(x, moments, gamma, beta, epsilon=epsilon, activation=activation)
    return relu_dx(g, y)


@op(
    shape=_shape_fused_batch_norm,
    terms=lambda *shapes, **attrs: 16,
    scale=_activated_scale(batch_norm.scale, lambda *inputs, **attrs: fused_batch_norm(*inputs, **attrs)),
    flops=touching(4),
    cases=_with_activations(_cases("x", "m", "gamma", "beta"), *DENSE_ACTIVATIONS),
    elementwise=(0,),
)
def fused_batch_norm(x, moments, gamma, beta, *, epsilon, activation):
    """batch_norm and an activation in one."""
    y = batch_norm(x, moments, gamma, beta, epsilon=epsilon)
    return y if activation == "linear" else OPS[activation](y)


@op(
    shape=_shape_fused_normalize,
    terms=lambda *shapes, **attrs: 16,
    scale=_activated_scale(normalize.scale, lambda *inputs, **attrs: fused_normalize(*inputs, **attrs)),
    flops=touching(4),
    cases=_with_activations(_cases("x", "mean", "variance", "gamma", "beta"), *DENSE_ACTIVATIONS),
    elementwise=(0,),
    slices=(OUTPUT,),
)
def fused_normalize(x, mean, variance, gamma, beta, *, epsilon, activation):
    """normalize and an activation in one."""
    y = normalize(x, mean, variance, gamma, beta, epsilon=epsilon)
    return y if activation == "linear" else OPS[activation](y)


@op(
    shape=_shape_fused_sums,
    terms=lambda *shapes, **attrs: SINGLE + 8,
    scale=lambda g, x, m, gamma, beta, epsilon, activation: batch_norm_sums.scale(  # type: ignore[misc]
        _masked(g, x, m, gamma, beta, epsilon, activation), x, m, epsilon=epsilon
    ),
    flops=touching(6),
    workspace=_workspace,
    cases=_with_activations(_cases("g", "x", "m", "gamma", "beta"), "relu"),
)
def fused_batch_norm_sums(g, x, moments, gamma, beta, *, epsilon, activation):
    """batch_norm_sums of ``relu_dx(g, y)``, y the output of fused_batch_norm."""
    return batch_norm_sums(_masked(g, x, moments, gamma, beta, epsilon, activation), x, moments, epsilon=epsilon)


@op(
    shape=_shape_fused_dx,
    terms=lambda *shapes, **attrs: 16,
    scale=lambda g, x, m, gamma, beta, sums, epsilon, activation: batch_norm_dx.scale(  # type: ignore[misc]
        g, x, m, gamma, sums, epsilon=epsilon
    ),
    flops=touching(6),
    cases=_with_activations(_cases("g", "x", "m", "gamma", "beta", "sums"), "relu"),
    elementwise=(0, 1),
)
def fused_batch_norm_dx(g, x, moments, gamma, beta, sums, *, epsilon, activation):
    """batch_norm_dx of ``relu_dx(g, y)``, y the output of fused_batch_norm."""
    g = _masked(g, x, moments, gamma, beta, epsilon, activation)
    return batch_norm_dx(g, x, moments, gamma, sums, epsilon=epsilon)

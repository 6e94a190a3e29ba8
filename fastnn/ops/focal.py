"""Focal cross-entropies (Lin et al., 2017): those of examples that are right already count less. One value a row, as
in loss.py; C outputs or classes.

With ``e`` how wrong the prediction is, 0 .. 1, each term of the cross-entropy is multiplied by ``e^gamma``. Below
EPSILON ``e`` counts as that, which bounds the slope of the power.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import Case, op, row_shape
from fastnn.ops.loss import EPSILON, PIXELS, inside, log_softmax, probability, shape_dx, work
from fastnn.ops.overlap import class_shape, dense
from fastnn.ops.pointwise import sigmoid, softplus

_SHAPES = (*PIXELS, (1, 1), (3, 7), (8, 9), (17, 1), (9, 15), (7, 16), (15, 33), (33, 3))
_GAMMAS = (2.0, 1.0, 0.0, 3.5, 0.5)


def _power(e: Any, gamma: float) -> Any:
    return np.maximum(e, EPSILON) ** gamma


# Each output a decision of its own: y 1 or 0. Terms are weighted with `positive` and `negative`


def _weight(y: Any, positive: float, negative: float) -> Any:
    return y * positive + (1.0 - y) * negative


def _binary_cases(logits: bool, gradient: bool = False) -> Any:
    def cases(rng: np.random.Generator) -> Iterator[Case]:
        for number, shape in enumerate(_SHAPES):
            p = 3.0 * rng.standard_normal(shape) if logits else 0.01 + 0.98 * rng.random(shape)
            y = rng.integers(0, 2, shape).astype(float) if number % 3 else rng.random(shape)
            attrs = {"gamma": _GAMMAS[number % 5], "positive": (1.0, 0.25)[number % 2]}
            g = [rng.standard_normal(shape[:-1])] if gradient else []
            yield (*g, p, y), {**attrs, "negative": (1.0, 0.75)[number % 2]}

    return cases


def _binary_size(p: Any, y: Any, gamma: float, positive: float, negative: float) -> Any:
    """How large the errors of a term are in units of rounding: that of the power grows with its logarithm."""
    e, b = y * (1.0 - p) + (1.0 - y) * p, 1.0 - y * np.log(p) - (1.0 - y) * np.log1p(-p)
    return _weight(y, positive, negative) * _power(e, gamma) * b * (1.0 + gamma * (1.0 + abs(np.log(e))))


def _binary_slope_size(p: Any, y: Any, gamma: float, positive: float, negative: float) -> Any:
    e, b = y * (1.0 - p) + (1.0 - y) * p, 1.0 - y * np.log(p) - (1.0 - y) * np.log1p(-p)
    powers = gamma * _power(e, gamma - 1.0) * b + _power(e, gamma) / (p * (1.0 - p))
    return _weight(y, positive, negative) * powers * (1.0 + (gamma + 1.0) * (1.0 + abs(np.log(e))))


@op(
    shape=row_shape,
    gradient=lambda g, l, p, y, **attrs: (binary_focal_crossentropy_dx(g, p, y, **attrs), None),
    terms=lambda p, y, **attrs: p[-1] + 24,
    scale=lambda p, y, **attrs: _binary_size(p, y, **attrs).mean(-1),
    flops=work,
    cases=_binary_cases(logits=False),
)
def binary_focal_crossentropy(p, y, *, gamma, positive, negative):
    """``mean(w e^gamma b)``: b the terms of binary_crossentropy, ``e = y (1 - p) + (1 - y) p``, w the weights."""
    q = probability(p)
    b = -(y * np.log(q) + (1.0 - y) * np.log1p(-q))
    e = y * (1.0 - p) + (1.0 - y) * p
    return (_weight(y, positive, negative) * _power(e, gamma) * b).mean(axis=-1)


@op(
    shape=shape_dx(row_shape),
    terms=lambda g, p, y, **attrs: 32,
    scale=lambda g, p, y, **attrs: abs(g)[..., None] * _binary_slope_size(p, y, **attrs),
    flops=lambda g, p, y, **attrs: work(p, y),
    cases=_binary_cases(logits=False, gradient=True),
)
def binary_focal_crossentropy_dx(g, p, y, *, gamma, positive, negative):
    q = probability(p)
    b = -(y * np.log(q) + (1.0 - y) * np.log1p(-q))
    e = y * (1.0 - p) + (1.0 - y) * p
    db = np.where(inside(p), (q - y) / (q * (1.0 - q)), 0.0)
    slope = gamma * _power(e, gamma - 1.0) * (1.0 - 2.0 * y) * b + _power(e, gamma) * db
    return g[..., None] * _weight(y, positive, negative) * slope / p.shape[-1]


def _sigmoid_slope_size(z: Any, y: Any, gamma: float, positive: float, negative: float) -> Any:
    q, r = sigmoid(z), sigmoid(-z)
    e, b = y * r + (1.0 - y) * q, 1.0 + abs(z)
    size = _power(e, gamma) * (1.0 + gamma * q * r / np.maximum(e, EPSILON) * b)
    return _weight(y, positive, negative) * size * b * (1.0 + (gamma + 1.0) * (1.0 + abs(np.log(e))))


@op(
    shape=row_shape,
    gradient=lambda g, l, z, y, **attrs: (sigmoid_focal_crossentropy_dx(g, z, y, **attrs), None),
    terms=lambda z, y, **attrs: z[-1] + 24,
    scale=lambda z, y, **attrs: ((1.0 + abs(z)) * _binary_size(sigmoid(z), y, **attrs)).mean(-1),
    flops=work,
    cases=_binary_cases(logits=True),
)
def sigmoid_focal_crossentropy(z, y, *, gamma, positive, negative):
    """binary_focal_crossentropy of ``sigmoid(z)``, from the logits."""
    b = softplus(z) - y * z
    e = y * sigmoid(-z) + (1.0 - y) * sigmoid(z)
    return (_weight(y, positive, negative) * _power(e, gamma) * b).mean(axis=-1)


@op(
    shape=shape_dx(row_shape),
    terms=lambda g, z, y, **attrs: 32,
    scale=lambda g, z, y, **attrs: abs(g)[..., None] * _sigmoid_slope_size(z, y, **attrs),
    flops=lambda g, z, y, **attrs: work(z, y),
    cases=_binary_cases(logits=True, gradient=True),
)
def sigmoid_focal_crossentropy_dx(g, z, y, *, gamma, positive, negative):
    q, r = sigmoid(z), sigmoid(-z)
    b = softplus(z) - y * z
    e = y * r + (1.0 - y) * q
    slope = gamma * (1.0 - 2.0 * y) * (q * r / np.maximum(e, EPSILON)) * b + ((1.0 - y) * q - y * r)
    return g[..., None] * _weight(y, positive, negative) * _power(e, gamma) * slope / z.shape[-1]


# Classes, whose terms are weighted with `class_weights` (C)


def _class_shape(p: Shape, y: Shape, *, class_weights: tuple[float, ...], **attrs: Any) -> Shape:
    class_shape(p, y)
    if len(class_weights) != p[-1]:
        raise ValueError(f"needs one of class_weights for each class. Received: {len(class_weights)} for {p}")
    return p[:-1]


def _class_cases(logits: bool, gradient: bool = False) -> Any:
    def cases(rng: np.random.Generator) -> Iterator[Case]:
        for number, shape in enumerate(_SHAPES):
            z, c = 3.0 * rng.standard_normal(shape), shape[-1]
            p = z if logits else 0.01 + 0.9 * np.exp(log_softmax(z))
            y = rng.integers(0, c, (*shape[:-1], 1)).astype(float)
            if number % 2 or c == 1:
                y = rng.dirichlet(np.ones(c), shape[:-1]) if number % 3 else dense(y, p)
            weights = rng.random(c).astype(np.float32).astype(float) if number % 3 else np.full(c, 0.25)
            g = [rng.standard_normal(shape[:-1])] if gradient else []
            yield (*g, p, y), {"gamma": _GAMMAS[number % 5], "class_weights": tuple(weights.tolist())}

    return cases


def _sizes(q: Any, y: Any, gamma: float, class_weights: Any) -> Any:
    """How large the errors of the terms are in units of rounding: of the values, and of q times their slopes."""
    e, l, w = np.maximum(1.0 - q, EPSILON), 1.0 + abs(np.log(q)), dense(y, q) * np.asarray(class_weights)
    lower, of_power = e ** (gamma - 1.0), 1.0 + gamma * abs(np.log(e))
    second = gamma * abs(gamma - 1.0) * lower / e * abs(np.log(q))
    return w * l * (e**gamma * of_power + gamma * lower), w * (second + (gamma * lower * l + e**gamma) * of_power)


def _class_scale(q: Any, y: Any, factor: Any, attrs: Any) -> Any:
    return factor * _sizes(q, y, **attrs)[0].sum(axis=-1)


def _class_scale_dx(q: Any, y: Any, factor: Any, attrs: Any) -> Any:
    slopes = _sizes(q, y, **attrs)[1]
    return factor * (slopes + q * slopes.sum(axis=-1, keepdims=True))


def _scaled(p: Any) -> Any:
    return p / p.sum(axis=-1, keepdims=True)


def _most(z: Any) -> Any:
    return 1.0 + abs(z).max(axis=-1)


@op(
    shape=_class_shape,
    gradient=lambda g, l, p, y, **attrs: (categorical_focal_crossentropy_dx(g, p, y, **attrs), None),
    terms=lambda p, y, **attrs: p[-1] + 24,
    scale=lambda p, y, **attrs: _class_scale(_scaled(p), y, 1.0, attrs),
    flops=work,
    cases=_class_cases(logits=False),
)
def categorical_focal_crossentropy(p, y, *, gamma, class_weights):
    """``-sum(w y (1 - q)^gamma log q)`` over the classes, ``q = p / sum(p)``; ``y (..., C)`` or labels (..., 1)."""
    q = probability(_scaled(p))
    return -(np.asarray(class_weights, p.dtype) * dense(y, p) * _power(1.0 - q, gamma) * np.log(q)).sum(axis=-1)


@op(
    shape=shape_dx(_class_shape),
    terms=lambda g, p, y, **attrs: p[-1] + 32,
    scale=lambda g, p, y, **attrs: (
        abs(g)[..., None] * _class_scale_dx(_scaled(p), y, 1.0 / p, attrs)
        + abs(g)[..., None]
        * _class_scale_dx(_scaled(p), y, 1.0, attrs).sum(-1, keepdims=True)
        / p.sum(-1, keepdims=True)
    ),
    flops=lambda g, p, y, **attrs: work(p, y),
    cases=_class_cases(logits=False, gradient=True),
)
def categorical_focal_crossentropy_dx(g, p, y, *, gamma, class_weights):
    total = p.sum(axis=-1, keepdims=True)
    q = probability(p / total)
    part = gamma * _power(1.0 - q, gamma - 1.0) * np.log(q) - _power(1.0 - q, gamma) / q
    slope = np.where(inside(p / total), np.asarray(class_weights, p.dtype) * dense(y, p) * part, 0.0)
    return g[..., None] * (slope - (slope * q).sum(axis=-1, keepdims=True)) / total


@op(
    shape=_class_shape,
    gradient=lambda g, l, z, y, **attrs: (softmax_focal_crossentropy_dx(g, z, y, **attrs), None),
    terms=lambda z, y, **attrs: z[-1] + 24,
    scale=lambda z, y, **attrs: _class_scale(np.exp(log_softmax(z)), y, _most(z), attrs),
    flops=work,
    cases=_class_cases(logits=True),
)
def softmax_focal_crossentropy(z, y, *, gamma, class_weights):
    """categorical_focal_crossentropy of ``softmax(z)``, from the logits."""
    log_q = log_softmax(z)
    return -(np.asarray(class_weights, z.dtype) * dense(y, z) * _power(-np.expm1(log_q), gamma) * log_q).sum(axis=-1)


@op(
    shape=shape_dx(_class_shape),
    terms=lambda g, z, y, **attrs: z[-1] + 32,
    scale=lambda g, z, y, **attrs: (
        abs(g)[..., None] * _class_scale_dx(np.exp(log_softmax(z)), y, _most(z)[..., None], attrs)
    ),
    flops=lambda g, z, y, **attrs: work(z, y),
    cases=_class_cases(logits=True, gradient=True),
)
def softmax_focal_crossentropy_dx(g, z, y, *, gamma, class_weights):
    log_q = log_softmax(z)
    q, e = np.exp(log_q), -np.expm1(log_q)
    part = gamma * _power(e, gamma - 1.0) * q * log_q - _power(e, gamma)
    h = np.asarray(class_weights, z.dtype) * dense(y, z) * part
    return g[..., None] * (h - q * h.sum(axis=-1, keepdims=True))

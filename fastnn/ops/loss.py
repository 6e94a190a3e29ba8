"""Losses: one value a row. N batch, C outputs or classes; rows lie along all axes but the last, so that those of an
image are its pixels.

Each takes the prediction ``p`` (or the logits ``z``) and the target ``y``, (N, ..., C), and returns (N, ...); the mean
over pixels is ``pixel_means``, that over the batch is taken by the gradient's seed, ``mean_seed``. The forms on logits
are what the Plan puts in place of an activation followed by a loss: they neither overflow nor round a confident
prediction to 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import SIZES, Case, label_shape, op, row_shape, same_shape
from fastnn.ops.pointwise import sigmoid, softplus
from fastnn.ops.pool import global_average_pool
from fastnn.ops.shape import reshape

#: Probabilities are kept this far from 0 and 1 before a logarithm, as in Keras.
EPSILON = 1e-7


#: Signals, images and volumes of a few pixels.
PIXELS = ((3, 9, 2), (4, 3, 5, 1), (3, 7, 5, 3), (5, 3, 7, 17), (3, 2, 5, 4, 4))


def shape_dx(rows: Callable[..., Shape]) -> Callable[..., Shape]:
    """Shape rule of a loss's gradient: one gradient a row in, predictions out."""

    def rule(g: Shape, p: Shape, y: Shape, **attrs: Any) -> Shape:
        if g != rows(p, y, **attrs):
            raise ValueError(f"needs one gradient a row. Received: {g} for predictions {p}")
        return p

    return rule


def work(p: Shape, y: Shape, **attrs: Any) -> float:
    """A loss's floating-point operations: a logarithm and an exponential an output, more or less."""
    return 24.0 * math.prod(size for size in p if size is not None)


def probability(p: np.ndarray) -> np.ndarray:
    """``p`` at a distance from 0 and 1."""
    return np.clip(p, EPSILON, 1.0 - EPSILON)


def inside(p: np.ndarray) -> np.ndarray:
    """Where ``probability`` has a slope."""
    return (p > EPSILON) & (p < 1.0 - EPSILON)


def log_softmax(z: np.ndarray) -> np.ndarray:
    """``log(softmax(z))``."""
    shifted = z - z.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def one_hot(labels: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Labels (..., 1) as rows (..., C) of zeros and a one, C that of ``like``."""
    return (labels == np.arange(like.shape[-1])).astype(like.dtype)


def _round(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float32).astype(np.float64)


def _cases(prediction: str, target: str, gradient: bool = False) -> Any:
    def cases(rng: np.random.Generator) -> Iterator[Case]:
        for shape in (*PIXELS, *zip((*SIZES, 2), (*SIZES[4:], *SIZES[:4], 10), strict=True)):
            rows, c = shape[:-1], shape[-1]
            z = 3.0 * rng.standard_normal(shape)
            soft = np.exp(log_softmax(z))
            p = {"value": z, "logits": z, "unit": 0.01 + 0.98 * rng.random(shape), "classes": 0.01 + 0.9 * soft}
            y = {
                "value": rng.standard_normal(shape),
                "binary": rng.integers(0, 2, shape).astype(float),
                "classes": one_hot(rng.integers(0, c, (*rows, 1)), z),
                "label": rng.integers(0, c, (*rows, 1)).astype(float),
            }
            arrays = _round(p[prediction]), _round(y[target])
            yield ((rng.standard_normal(rows), *arrays) if gradient else arrays), {}

    return cases


def _loss(prediction: str, target: str, gradient: Any, scale: Any) -> Any:
    return op(
        shape=label_shape if target == "label" else row_shape,
        gradient=gradient,
        terms=lambda p, y: p[-1] + 16,
        scale=scale,
        flops=work,
        cases=_cases(prediction, target),
    )


def _loss_gradient(prediction: str, target: str, scale: Any) -> Any:
    return op(
        shape=shape_dx(label_shape if target == "label" else row_shape),
        terms=lambda g, p, y: p[-1] + 12,
        scale=lambda g, p, y: abs(g)[..., None] * scale(p, y),
        flops=lambda g, p, y: work(p, y),
        cases=_cases(prediction, target, gradient=True),
    )


def _row_scale(p: np.ndarray, y: np.ndarray) -> Any:
    return 1.0 + abs(p).max(axis=-1) + abs(y).max(axis=-1)


@_loss(
    "value",
    "value",
    lambda g, l, p, y: (mean_squared_error_dx(g, p, y), None),
    lambda p, y: ((abs(p) + abs(y)) ** 2).mean(-1),
)
def mean_squared_error(p, y):
    """``mean((p - y)^2)`` over the last axis."""
    return np.square(p - y).mean(axis=-1)


@_loss_gradient("value", "value", lambda p, y: abs(p) + abs(y))
def mean_squared_error_dx(g, p, y):
    return g[..., None] * 2.0 * (p - y) / p.shape[-1]


@_loss(
    "value",
    "value",
    lambda g, l, p, y: (mean_absolute_error_dx(g, p, y), None),
    lambda p, y: (abs(p) + abs(y)).mean(-1),
)
def mean_absolute_error(p, y):
    """``mean(|p - y|)`` over the last axis."""
    return abs(p - y).mean(axis=-1)


@_loss_gradient("value", "value", lambda p, y: 1.0)
def mean_absolute_error_dx(g, p, y):
    return g[..., None] * np.sign(p - y) / p.shape[-1]


@_loss(
    "unit",
    "binary",
    lambda g, l, p, y: (binary_crossentropy_dx(g, p, y), None),
    lambda p, y: abs(np.log(p * (1 - p))).mean(-1) + 1,
)
def binary_crossentropy(p, y):
    """``-mean(y log p + (1 - y) log(1 - p))`` over the last axis."""
    q = probability(p)
    return -(y * np.log(q) + (1.0 - y) * np.log1p(-q)).mean(axis=-1)


@_loss_gradient("unit", "binary", lambda p, y: 1 / (p * (1 - p)))
def binary_crossentropy_dx(g, p, y):
    q = probability(p)
    return np.where(inside(p), g[..., None] * (q - y) / (q * (1.0 - q)) / p.shape[-1], 0.0)


@_loss("logits", "binary", lambda g, l, z, y: (sigmoid_crossentropy_dx(g, z, y), None), _row_scale)
def sigmoid_crossentropy(z, y):
    """binary_crossentropy of ``sigmoid(z)``, from the logits: ``mean(softplus(z) - y z)``."""
    return (softplus(z) - y * z).mean(axis=-1)


@_loss_gradient("logits", "binary", lambda z, y: 2.0)
def sigmoid_crossentropy_dx(g, z, y):
    return g[..., None] * (sigmoid(z) - y) / z.shape[-1]


@_loss(
    "classes",
    "classes",
    lambda g, l, p, y: (categorical_crossentropy_dx(g, p, y), None),
    lambda p, y: abs(np.log(p)).max(-1) + 2,
)
def categorical_crossentropy(p, y):
    """``-sum(y log p)`` over the classes, ``p`` scaled to sum 1 as Keras does."""
    return -(y * np.log(probability(p / p.sum(axis=-1, keepdims=True)))).sum(axis=-1)


@_loss_gradient(
    "classes",
    "classes",
    lambda p, y: (1 / p + 1 / p.sum(-1, keepdims=True) + 1) / p.sum(-1, keepdims=True),
)
def categorical_crossentropy_dx(g, p, y):
    total = p.sum(axis=-1, keepdims=True)
    q = p / total
    slope = np.where(inside(q), -y / probability(q), 0.0)
    return g[..., None] * (slope - (slope * q).sum(axis=-1, keepdims=True)) / total


@_loss(
    "logits",
    "classes",
    lambda g, l, z, y: (softmax_crossentropy_dx(g, z, y), None),
    lambda z, y: 4 * _row_scale(z, y),
)
def softmax_crossentropy(z, y):
    """categorical_crossentropy of ``softmax(z)``, from the logits."""
    return -(y * log_softmax(z)).sum(axis=-1)


@_loss_gradient("logits", "classes", lambda z, y: 2.0 + abs(z).max(-1, keepdims=True))
def softmax_crossentropy_dx(g, z, y):
    return g[..., None] * (np.exp(log_softmax(z)) * y.sum(axis=-1, keepdims=True) - y)


@_loss(
    "classes",
    "label",
    lambda g, l, p, y: (sparse_categorical_crossentropy_dx(g, p, y), None),
    lambda p, y: abs(np.log(p)).max(-1) + 2,
)
def sparse_categorical_crossentropy(p, y):
    """categorical_crossentropy for integer labels (..., 1)."""
    return categorical_crossentropy(p, one_hot(y, p))


@_loss_gradient("classes", "label", lambda p, y: (1 / p + 1 / p.sum(-1, keepdims=True) + 1) / p.sum(-1, keepdims=True))
def sparse_categorical_crossentropy_dx(g, p, y):
    return categorical_crossentropy_dx(g, p, one_hot(y, p))


@_loss(
    "logits",
    "label",
    lambda g, l, z, y: (sparse_softmax_crossentropy_dx(g, z, y), None),
    lambda z, y: 4 * (1 + abs(z).max(-1)),
)
def sparse_softmax_crossentropy(z, y):
    """softmax_crossentropy for integer labels (..., 1)."""
    return softmax_crossentropy(z, one_hot(y, z))


@_loss_gradient("logits", "label", lambda z, y: 2.0 + abs(z).max(-1, keepdims=True))
def sparse_softmax_crossentropy_dx(g, z, y):
    return softmax_crossentropy_dx(g, z, one_hot(y, z))


# From rows to the batch


def pixel_means(values: Any) -> Any:
    """One value a pixel, (N, ...), becomes their mean for each row of the batch, (N,)."""
    if len(values.shape) == 1:
        return values
    column = reshape(values, shape=(math.prod(values.shape[1:]), 1))
    return reshape(global_average_pool(column), shape=())


def _one_row(rng: np.random.Generator) -> Iterator[Case]:
    for n in SIZES:
        yield (rng.standard_normal(n),), {}


@op(shape=same_shape, scale=lambda rows: 1.0, cases=_one_row)
def mean_seed(rows):
    """The gradient of ``mean(rows)``: every entry ``1 / N``, N the rows of this batch."""
    return np.full_like(rows, 1.0 / len(rows))


def _shape_add_rows(rows: Shape, s: Shape) -> Shape:
    if len(rows) != 1 or s != (1,):
        raise ValueError(f"needs (N,) and (1,). Received: {rows} and {s}")
    return rows


@op(
    shape=_shape_add_rows,
    gradient=lambda g, y, rows, s: (g, sum_all(g)),
    scale=lambda rows, s: abs(rows) + abs(s),
    cases=lambda rng: (((rows, rng.standard_normal(1)), {}) for (rows,), _ in _one_row(rng)),
)
def add_rows(rows, s):
    """Add one number ``s`` (1,), a penalty, to each row's loss: their mean grows by just ``s``."""
    return rows + s


@op(
    shape=lambda rows: (1,),
    terms=lambda rows: rows[0],
    scale=lambda rows: abs(rows).sum(keepdims=True),
    cases=_one_row,
)
def sum_all(rows):
    """``rows (N,) -> (1,)``: their sum."""
    return rows.sum(keepdims=True)


def _shape_accumulate(total: Shape, rows: Shape) -> None:
    if total != (rows[1:] or (1,)):
        raise ValueError(f"needs rows (N, ...) and a total (...), which is (1,) for (N,). Received: {total} and {rows}")


def _accumulate_cases(rng: np.random.Generator) -> Iterator[Case]:
    for (rows,), _ in _one_row(rng):
        yield (rng.standard_normal(1), rows), {}
    for shape in ((5, 3, 2), (3, 4, 1), (9, 17)):
        yield (rng.standard_normal(shape[1:]), rng.standard_normal(shape)), {}


@op(
    shape=_shape_accumulate,
    updates=(0,),
    terms=lambda total, rows: rows[0],
    scale=lambda total, rows: abs(total) + abs(rows).sum(axis=0),
    cases=_accumulate_cases,
)
def accumulate(total, rows):
    """``total (...) += sum(rows (N, ...))`` in double precision, row after row: a running loss or metric.

    The total of rows (N,) is (1,).
    """
    for row in rows.astype(np.float64):
        total = total + row
    return (total,)

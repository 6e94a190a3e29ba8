"""How far predicted regions lie on the true ones. N batch, P pixels (one or more axes), C classes.

Everything follows from three sums over the pixels of a sample, for each class: true positives ``sum(p y)``, false
positives ``sum(p (1 - y))`` and false negatives ``sum((1 - p) y)``. None is a difference of sums, so that a small one
is as precise as a large one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import Case, op
from fastnn.ops.loss import PIXELS, one_hot

#: As PIXELS, with samples of more pixels than are summed in single precision.
_SHAPES = (*PIXELS, (3, 70, 3), (4, 13, 17, 1), (3, 31, 5, 8), (5, 9, 11, 2), (4, 5, 8, 16), (7, 6, 33), (4, 40, 30, 1))


def class_shape(p: Shape, y: Shape) -> None:
    """Shape rule: targets of predictions (..., C) are (..., C) or labels (..., 1)."""
    if len(p) < 2 or y not in (p, (*p[:-1], 1)):
        raise ValueError(f"needs predictions (..., C) and targets (..., C) or labels (..., 1). Received: {p} and {y}")


def dense(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Targets (..., C), from such or from labels (..., 1)."""
    return y if y.shape == p.shape else one_hot(y, p)


def _check(p: Shape, y: Shape, w: Shape | None) -> None:
    if len(p) < 3:
        raise ValueError(f"needs predictions (N, ..., C) with one or more axes of pixels. Received: {p}")
    class_shape(p, y)
    if w is not None and w != p[:-1]:
        raise ValueError(f"needs weights {p[:-1]}, one a pixel. Received: {w}")


def _shape(p: Shape, y: Shape, w: Shape | None = None) -> Shape:
    _check(p, y, w)
    return (p[0], 3, p[-1])


def _shape_dx(g: Shape, y: Shape, w: Shape | None = None) -> Shape:
    if len(g) != 3 or g[:2] != (y[0], 3):
        raise ValueError(f"needs gradients (N, 3, C) for targets (N, ..., C) or (N, ..., 1). Received: {g} and {y}")
    p = (*y[:-1], g[2])
    _check(p, y, w)
    return p


def _cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, shape in enumerate(_SHAPES):
        c = shape[-1]
        y = rng.random(shape)
        if c > 1 and number % 2:
            y = rng.integers(0, c, (*shape[:-1], 1)).astype(float)
        elif number % 3:
            y = rng.integers(0, 2, shape).astype(float)
        yield (rng.random(shape), y, *([rng.random(shape[:-1])] if number % 5 in (1, 4) else [])), {}


def _cases_dx(rng: np.random.Generator) -> Iterator[Case]:
    for (p, *others), _ in _cases(rng):
        yield (rng.standard_normal((len(p), 3, p.shape[-1])), *others), {}


def _work(p: Shape, y: Shape, w: Shape | None = None) -> float:
    return 8.0 * math.prod(size for size in p if size is not None)


@op(
    shape=_shape,
    gradient=lambda g, s, p, y, *w: (overlap_dx(g, y, *w), None, *(None for _ in w)),
    terms=lambda p, y, w=None: 70,
    scale=lambda p, y, w=None: overlap(abs(p), y, *([] if w is None else [w])),
    flops=_work,
    cases=_cases,
)
def overlap(p, y, w=None):
    """True positives, false positives and false negatives, (N, 3, C), of ``p (N, ..., C)`` and ``y (N, ..., C)`` or
    labels (N, ..., 1); ``w (N, ...)`` are the pixels' weights.
    """
    y = dense(y, p)
    parts = np.stack([p * y, p * (1.0 - y), (1.0 - p) * y], axis=1)
    if w is not None:
        parts = parts * w[:, None, ..., None]
    return parts.reshape(len(p), 3, math.prod(p.shape[1:-1]), p.shape[-1]).sum(axis=2, dtype=np.float64).astype(p.dtype)


@op(
    shape=_shape_dx,
    terms=lambda g, y, w=None: 5,
    scale=lambda g, y, w=None: (
        (1.0 if w is None else w[..., None]) * abs(g).sum(axis=1).reshape(len(g), *(1,) * (y.ndim - 2), g.shape[2])
    ),
    flops=lambda g, y, w=None: _work((*y[:-1], g[2]), y),
    cases=_cases_dx,
)
def overlap_dx(g, y, w=None):
    """``w (y (g_tp - g_fn) + (1 - y) g_fp)``, of the shape of the predictions: (N, ..., C)."""
    tp, fp, fn = (g[:, k].reshape(len(g), *(1,) * (y.ndim - 2), g.shape[2]) for k in range(3))
    if y.shape[-1] != g.shape[2]:
        y = (y == np.arange(g.shape[2])).astype(g.dtype)
    dp = y * (tp - fn) + (1.0 - y) * fp
    return dp if w is None else dp * w[..., None]


# The index of Tversky


def _shape_tversky(s: Shape, **attrs: Any) -> Shape:
    if len(s) != 3 or s[1] != 3:
        raise ValueError(f"needs sums (N, 3, C). Received: {s}")
    return (s[0],)


def _shape_tversky_dx(g: Shape, s: Shape, **attrs: Any) -> Shape:
    if g != _shape_tversky(s):
        raise ValueError(f"needs one gradient a sample. Received: {g} for sums {s}")
    return s


def _tversky_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, (n, c) in enumerate(((1, 1), (3, 2), (9, 1), (7, 3), (17, 8), (5, 17), (4, 33))):
        s = rng.exponential(size=(n, 3, c)) * 10.0 ** rng.integers(-1, 4, (n, 3, c))
        s[rng.random(s.shape) < 0.1] = 0.0
        attrs = {"alpha": (0.5, 1.0, 0.3)[number % 3], "beta": (0.5, 1.0, 0.7)[number % 3]}
        yield (s,), {**attrs, "epsilon": (1e-5, 1.0)[number % 2], "joint": number % 4 == 1}


def _errors(s: Any, alpha: float, beta: float, epsilon: float, joint: bool) -> Any:
    """True positives and weighted errors; of all classes together where they are joint."""
    if joint:
        s = s.sum(axis=2, keepdims=True)
    return s[:, 0] + epsilon, alpha * s[:, 1] + beta * s[:, 2]


@op(
    shape=_shape_tversky,
    gradient=lambda g, y, s, **attrs: (tversky_dx(g, s, **attrs),),
    terms=lambda s, **attrs: 2 * s[2] + 8,
    scale=lambda s, **attrs: tversky(s, **attrs),
    cases=_tversky_cases,
)
def tversky(s, *, alpha, beta, epsilon, joint):
    """``1 - (TP + epsilon) / (TP + alpha FP + beta FN + epsilon)`` of sums (N, 3, C): its mean over the classes, (N,).

    Where ``joint``, the sums of all classes are added up first.
    """
    right, wrong = _errors(s, alpha, beta, epsilon, joint)
    return (wrong / (right + wrong)).mean(axis=1)


@op(
    shape=_shape_tversky_dx,
    terms=lambda g, s, **attrs: 2 * s[2] + 12,
    scale=lambda g, s, **attrs: abs(tversky_dx(g, s, **attrs)),
    cases=lambda rng: (((rng.standard_normal(len(s)), s), attrs) for (s,), attrs in _tversky_cases(rng)),
)
def tversky_dx(g, s, *, alpha, beta, epsilon, joint):
    right, wrong = _errors(s, alpha, beta, epsilon, joint)
    total = right + wrong
    slope = right / total / total
    parts = np.stack([-wrong / total / total, alpha * slope, beta * slope], axis=1) / right.shape[1]
    return np.broadcast_to(g[:, None, None] * parts, s.shape)

"""Matrix products, biases and the fused dense layer. N batch, K summed, F outputs.

Rows may lie along several axes: where a shape says (N, K), it may be (N, H, W, K) just as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import OPS, OUTPUT, SIZES, Case, op
from fastnn.ops.pointwise import DENSE_ACTIVATIONS
from fastnn.ops.shape import transpose

#: (N, K, F): pairwise distinct, around vector widths and register tiles, and across the cache blocks.
PRODUCTS = (
    *((n, k, f) for n, k, f in zip(SIZES, SIZES[3:] + SIZES[:3], SIZES[6:] + SIZES[:6], strict=True)),
    (32, 30, 64),
    (32, 64, 1),
    (5, 33, 2),
    (6, 10, 3),
    (7, 129, 5),
    (2, 1, 130),
    (29, 500, 66),
    (130, 513, 70),
    (1, 784, 10),
    (65, 7, 200),
)


#: Axes that rows lie along, with K and F.
PRODUCTS_OF_ROWS = (((5, 9), 7, 17), ((3, 2, 8), 33, 4), ((2, 3, 7), 16, 1), ((9, 4, 31), 8, 35))

#: Rows that are added up before their sum is added to that of the other rows.
SUM_ROWS = 256


def _products(layout: str) -> Any:
    def cases(rng: np.random.Generator) -> Iterator[Case]:
        for n, k, f in (*(((n,), k, f) for n, k, f in PRODUCTS), *PRODUCTS_OF_ROWS):
            size = {"n": n, "k": (k,), "f": (f,)}
            yield tuple(rng.standard_normal(sum((size[axis] for axis in axes), ())) for axes in layout.split()), {}

    return cases


def _rows(shape: Shape) -> int:
    """How many rows there are."""
    return math.prod(shape[:-1])  # type: ignore[arg-type]


def _flops(x: Shape, g: Shape) -> float:
    return 2.0 * _rows(x) * x[-1] * g[-1]  # type: ignore[operator]


def _flat(x: np.ndarray) -> Any:
    """The rows along one axis."""
    return x.reshape(_rows(x.shape), x.shape[-1])


def _check(ok: bool, first: Shape, second: Shape) -> None:
    if not ok:
        raise ValueError(f"the sizes of the arrays do not fit together. Received: shapes {first} and {second}")


def _shape_matmul(x: Shape, w: Shape) -> Shape:
    _check(len(x) >= len(w) == 2 and x[-1] == w[0], x, w)
    return *x[:-1], w[1]


def _shape_matmul_nt(g: Shape, w: Shape) -> Shape:
    _check(len(g) >= len(w) == 2 and g[-1] == w[1], g, w)
    return *g[:-1], w[0]


def _shape_matmul_tn(x: Shape, g: Shape) -> Shape:
    _check(len(x) == len(g) >= 2 and x[:-1] == g[:-1], x, g)
    return x[-1], g[-1]


@op(
    shape=_shape_matmul,
    gradient=lambda g, y, x, w: (matmul_nt(g, w), matmul_tn(x, g)),
    terms=lambda x, w: x[-1],
    scale=lambda x, w: abs(x) @ abs(w),
    flops=_flops,
    cases=_products("nk kf"),
    slices=(OUTPUT,),
)
def matmul(x, w):
    """``x (N, K) @ w (K, F) -> (N, F)``."""
    return (_flat(x) @ w).reshape(*x.shape[:-1], w.shape[1])


@op(
    shape=_shape_matmul_nt,
    terms=lambda g, w: g[-1],
    scale=lambda g, w: abs(g) @ abs(w).T,
    flops=lambda g, w: _flops(g, w[:1]),
    cases=_products("nf kf"),
)
def matmul_nt(g, w):
    """``g (N, F) @ w (K, F).T -> (N, K)``: the gradient of matmul with respect to its input."""
    return (_flat(g) @ w.T).reshape(*g.shape[:-1], w.shape[0])


@op(
    shape=_shape_matmul_tn,
    terms=lambda x, g: _rows(x),
    scale=lambda x, g: abs(_flat(x)).T @ abs(_flat(g)),
    flops=_flops,
    cases=_products("nk nf"),
)
def matmul_tn(x, g):
    """``x (N, K).T @ g (N, F) -> (K, F)``: the gradient of matmul with respect to its weights."""
    return _flat(x).T @ _flat(g)


def _shape_batch_dot(a: Shape, b: Shape) -> Shape:
    _check(len(a) == len(b) == 3 and a[0] == b[0] and a[2] == b[2], a, b)
    return a[0], a[1], b[1]


def _batch_dot_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n, i, j, k in (
        *((5, 1, 1, k) for k in SIZES), (3, 4, 1, 9), (4, 1, 7, 5), (3, 2, 5, 1), (5, 8, 9, 7), (4, 15, 17, 16),
        (3, 33, 31, 20), (2, 41, 5, 66), (3, 7, 130, 3), (2, 3, 70, 513), (3, 45, 49, 10), (4, 6, 8, 31),
    ):  # fmt: skip
        yield (rng.standard_normal((n, i, k)), rng.standard_normal((n, j, k))), {}


def _transposed(x: Any) -> Any:
    return transpose(x, perm=(2, 1))


@op(
    shape=_shape_batch_dot,
    gradient=lambda g, y, a, b: (batch_dot(g, _transposed(b)), batch_dot(_transposed(g), _transposed(a))),
    terms=lambda a, b: a[2],
    scale=lambda a, b: abs(a) @ abs(b).transpose(0, 2, 1),
    flops=lambda a, b: 2.0 * math.prod(a) * b[1],
    cases=_batch_dot_cases,
)
def batch_dot(a, b):
    """``a[n] (I, K) @ b[n] (J, K).T`` for each row n of the batch -> (N, I, J)."""
    return a @ b.transpose(0, 2, 1)


def _shape_add_bias(y: Shape, b: Shape) -> Shape:
    _check(len(y) >= 2 and len(b) == 1 and y[-1] == b[0], y, b)
    return y


def _row_cases(rng: np.random.Generator) -> Iterator[Case]:
    for n, f in zip(SIZES, SIZES[4:] + SIZES[:4], strict=True):
        yield (rng.standard_normal((n, f)),), {}
    for shape in ((9, 5, 3), (7, 4, 6, 20), (5, 2, 3, 4, 65)):
        yield (rng.standard_normal(shape),), {}


def _sum_cases(rng: np.random.Generator) -> Iterator[Case]:
    yield from _row_cases(rng)
    for n, f in ((SUM_ROWS, 2), (SUM_ROWS + 1, 70), (2 * SUM_ROWS + 3, 1)):
        yield (rng.standard_normal((n, f)),), {}
    for shape in ((5, 17, 31, 3), (3, 29, 30, 33), (4, 7, 60, 130), (2, 3, 19, 31, 8)):
        yield (rng.standard_normal(shape),), {}


@op(
    shape=_shape_add_bias,
    gradient=lambda g, y, x, b: (g, sum_rows(g)),
    scale=lambda x, b: abs(x) + abs(b),
    cases=lambda rng: (((y, rng.standard_normal(y.shape[-1])), {}) for (y,), _ in _row_cases(rng)),
    elementwise=True,
    slices=(OUTPUT,),
)
def add_bias(x, b):
    """``x (N, F) + b (F,)``."""
    return x + b


def _shape_sum_rows(g: Shape) -> Shape:
    _check(len(g) >= 2, g, ())
    return (g[-1],)


def _parts(g: Shape) -> int:
    """How many sums of SUM_ROWS rows there are."""
    return -(-_rows(g) // SUM_ROWS)


@op(
    shape=_shape_sum_rows,
    terms=lambda g: min(_rows(g), SUM_ROWS) + _parts(g) - 1,
    scale=lambda g: abs(_flat(g)).sum(axis=0),
    workspace=lambda g: _parts(g) * g[-1] if _parts(g) >= 4 else 0,
    cases=_sum_cases,
)
def sum_rows(g):
    """``g (N, F) -> (F,)``, the sum over the rows: the gradient of a bias."""
    rows, f = _flat(g), g.shape[-1]
    whole = len(rows) // SUM_ROWS
    sums = rows[: whole * SUM_ROWS].reshape(whole, SUM_ROWS, f).sum(axis=1)
    return sums.sum(axis=0) + rows[whole * SUM_ROWS :].sum(axis=0)


def _shape_dense(x: Shape, w: Shape, b: Shape | None = None, *, activation: str) -> Shape:
    if activation not in DENSE_ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(DENSE_ACTIVATIONS)}. Received: {activation!r}")
    y = _shape_matmul(x, w)
    return y if b is None else _shape_add_bias(y, b)


def _dense_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, ((x, w), _) in enumerate(_products("nk kf")(rng)):
        activation = DENSE_ACTIVATIONS[number % len(DENSE_ACTIVATIONS)]
        yield (x, w, rng.standard_normal(w.shape[1])), {"activation": activation}
    for activation in DENSE_ACTIVATIONS:
        x, w = rng.standard_normal((9, 12)), rng.standard_normal((12, 35))
        yield (x, w, rng.standard_normal(35)), {"activation": activation}
        yield (x, w), {"activation": activation}


def _dense_scale(x: np.ndarray, w: np.ndarray, *b: np.ndarray, activation: str) -> Any:
    """The error before the activation, times the activation's slope: at most 1.1 but for exp, its own slope."""
    before = abs(x) @ abs(w) + (abs(b[0]) if b else 0.0) + 1.0
    return before * (1.1 + dense.reference(x, w, *b, activation=activation) * (activation == "exponential"))


@op(
    shape=_shape_dense,
    terms=lambda x, w, *b, activation: x[-1] + 8,
    scale=_dense_scale,
    flops=lambda x, w, *b, activation: _flops(x, w),
    cases=_dense_cases,
    slices=(OUTPUT,),
)
def dense(x, w, b=None, *, activation="linear"):
    """matmul, add_bias and an activation in one: what the Plan makes of a Dense layer."""
    y = matmul(x, w) if b is None else add_bias(matmul(x, w), b)
    return y if activation == "linear" else OPS[activation](y)


def _shape_dense_dx(g: Shape, w: Shape, y: Shape, *, activation: str) -> Shape:
    shape = _shape_matmul_nt(g, w)
    _check(shape == y, shape, y)
    return shape


def _dense_dx_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, ((g, w), _) in enumerate(_products("nf kf")(rng)):
        activation = DENSE_ACTIVATIONS[1:][number % (len(DENSE_ACTIVATIONS) - 1)]
        y = OPS[activation](rng.standard_normal((*g.shape[:-1], len(w))))
        yield (g, w, y.astype(np.float32).astype(float)), {"activation": activation}


@op(
    shape=_shape_dense_dx,
    terms=lambda g, w, y, *, activation: g[-1] + 8,
    scale=lambda g, w, y, *, activation: abs(g) @ abs(w).T * (1.0 + abs(y)),
    flops=lambda g, w, y, *, activation: _flops(g, w[:1]),
    cases=_dense_dx_cases,
)
def dense_dx(g, w, y, *, activation):
    """matmul_nt, then the gradient of the activation that made ``y``, the input of the dense layer."""
    return OPS[f"{activation}_dx"](matmul_nt(g, w), y)

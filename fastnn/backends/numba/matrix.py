"""Matrix products, biases and the fused dense layer. N rows, along all axes but the last, K summed, F outputs.

All products are one, ``_product``: four rows by two vectors at a time, each element summed over k from 0 on by ``fma``
in a register of its own. So its bits depend neither on the tile it falls in nor on the other rows. Sums over many rows
are sums of parts.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from fastnn.backends.numba.elementary import ZERO
from fastnn.backends.numba.jit import IN1, IN2, INTEGER, KERNELS, OUT1, OUT2, Arrays, compiled, define, inner, kernel
from fastnn.backends.numba.vector import LANES, fma, load, pointer, positive, spread, store
from fastnn.ops.matrix import SUM_ROWS

OUT3, IN3 = types.Array(types.float32, 3, "C"), types.Array(types.float32, 3, "C", readonly=True)
WIDE = 2 * LANES
#: With fewer rows, or weights that stay in the cache anyway, copying the weights costs more than it gains.
PACK_ROWS, PACK_SIZE = 12, 8192
NO_BIAS = np.empty(0, np.float32)
#: Rows that ``matmul_tn`` adds up before their sum is added to that of the other rows.
PART_ROWS = 2048


def flat(array: Any) -> Any:
    """The rows along one axis."""
    return array if array.ndim == 2 else array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


@inner
def _pack(panel, w, j, width, transposed):  # type: ignore[no-untyped-def]
    """Copy the columns j .. j + width of w to ``panel (K, WIDE)``, filled up with zeros."""
    k = len(panel)
    if width < WIDE:
        panel[:] = ZERO
    if transposed:
        for i in range(k):
            for c in range(width):
                panel[i, c] = w[j + c, i]
    else:
        for i in range(k):
            for c in range(width):
                panel[i, c] = w[i, j + c]


@inner
def _tile(out, rows, x_step, w, w_step, start, k, relu):  # type: ignore[no-untyped-def]
    """Four rows of WIDE sums: ``out[r] = start + sum over k of rows[r] * w``, with ``relu`` on top where asked."""
    x0, x1, x2, x3 = rows
    a0 = a1 = a2 = a3 = load(start, 0)
    b0 = b1 = b2 = b3 = load(start, LANES)
    for i in range(k):
        u = load(w, i * w_step)
        v = load(w, i * w_step + LANES)
        t = spread(x0, i * x_step)
        a0 = fma(t, u, a0)
        b0 = fma(t, v, b0)
        t = spread(x1, i * x_step)
        a1 = fma(t, u, a1)
        b1 = fma(t, v, b1)
        t = spread(x2, i * x_step)
        a2 = fma(t, u, a2)
        b2 = fma(t, v, b2)
        t = spread(x3, i * x_step)
        a3 = fma(t, u, a3)
        b3 = fma(t, v, b3)
    if relu:
        a0, a1, a2, a3 = positive(a0), positive(a1), positive(a2), positive(a3)
        b0, b1, b2, b3 = positive(b0), positive(b1), positive(b2), positive(b3)
    store(out[0], 0, a0)
    store(out[0], LANES, b0)
    store(out[1], 0, a1)
    store(out[1], LANES, b1)
    store(out[2], 0, a2)
    store(out[2], LANES, b2)
    store(out[3], 0, a3)
    store(out[3], LANES, b3)


@inner
def _product(y, x, x_first, w, b, k, x_row, x_step, transposed, relu):  # type: ignore[no-untyped-def]
    """``y (N, F) = b + sum over k of x * w``, with ``relu`` on top where asked.

    x has its element (n, k) at ``x_first + n * x_row + k * x_step``; w is (K, F) or, transposed, (F, K); an empty b
    counts as 0.
    """
    n, f = y.shape
    pack = transposed or (n >= PACK_ROWS and k * f >= PACK_SIZE)
    panel = np.empty((k if pack or f % WIDE else 0, WIDE), np.float32)
    start = np.zeros(WIDE, np.float32)
    edge = np.empty((4, WIDE), np.float32)
    for j in range(0, f, WIDE):
        width = min(WIDE, f - j)
        if b.size:
            for c in range(width):
                start[c] = b[j + c]
        if pack or width < WIDE:
            _pack(panel, w, j, width, transposed)
            source, w_step = pointer(panel, 0), WIDE
        else:
            source, w_step = pointer(w, j), f
        for i in range(0, n, 4):
            # Where rows are missing, the last one is computed again
            i1, i2, i3 = min(i + 1, n - 1), min(i + 2, n - 1), min(i + 3, n - 1)
            x0, x1 = pointer(x, x_first + i * x_row), pointer(x, x_first + i1 * x_row)
            x2, x3 = pointer(x, x_first + i2 * x_row), pointer(x, x_first + i3 * x_row)
            if width == WIDE:
                out = pointer(y, i * f + j), pointer(y, i1 * f + j), pointer(y, i2 * f + j), pointer(y, i3 * f + j)
            else:
                out = pointer(edge, 0), pointer(edge, WIDE), pointer(edge, 2 * WIDE), pointer(edge, 3 * WIDE)
            _tile(out, (x0, x1, x2, x3), x_step, source, w_step, pointer(start, 0), k, relu)
            if width < WIDE:
                for r in range(min(4, n - i)):
                    for c in range(width):
                        y[i + r, j + c] = edge[r, c]


@compiled(OUT2, IN2, IN2, IN1, INTEGER)
def _dense(y, x, w, b, relu):  # type: ignore[no-untyped-def]
    k = x.shape[1]
    _product(y, x, 0, w, b, k, k, 1, False, relu)


@compiled(OUT2, IN2, IN2)
def _matmul_nt(dx, g, w):  # type: ignore[no-untyped-def]
    f = g.shape[1]
    _product(dx, g, 0, w, NO_BIAS, f, f, 1, True, False)


@compiled(OUT3, IN3, IN3)
def _batch_dot(y, a, b):  # type: ignore[no-untyped-def]
    k = a.shape[2]
    for n in range(len(y)):
        _product(y[n], a[n], 0, b[n], NO_BIAS, k, k, 1, True, False)


@compiled(OUT2, IN2, IN2, IN2)
def _dense_dx_relu(dx, g, w, y):  # type: ignore[no-untyped-def]
    f = g.shape[1]
    _product(dx, g, 0, w, NO_BIAS, f, f, 1, True, False)
    for n in range(y.shape[0]):
        for k in range(y.shape[1]):
            dx[n, k] = dx[n, k] if y[n, k] > ZERO else ZERO


@compiled(OUT2, IN2, IN2)
def _matmul_tn(dw, x, g):  # type: ignore[no-untyped-def]
    n, k = x.shape
    _product(dw, x, 0, g[:PART_ROWS], NO_BIAS, min(n, PART_ROWS), 1, k, False, False)
    part = np.empty(dw.shape if n > PART_ROWS else (0, 0), np.float32)
    for first in range(PART_ROWS, n, PART_ROWS):
        size = min(n - first, PART_ROWS)
        _product(part, x, first * k, g[first : first + size], NO_BIAS, size, 1, k, False, False)
        for i in range(k):
            for f in range(g.shape[1]):
                dw[i, f] += part[i, f]


@compiled(OUT2, IN2, IN1)
def _add_bias(y, x, b):  # type: ignore[no-untyped-def]
    for n in range(x.shape[0]):
        for f in range(x.shape[1]):
            y[n, f] = x[n, f] + b[f]


@compiled(OUT1, IN2)
def _sum_rows(s, g):  # type: ignore[no-untyped-def]
    s[:] = ZERO
    part = np.empty(s.size, np.float32)
    for first in range(0, g.shape[0], SUM_ROWS):
        part[:] = ZERO
        for n in range(first, min(first + SUM_ROWS, g.shape[0])):
            for f in range(s.size):
                part[f] += g[n, f]
        for f in range(s.size):
            s[f] += part[f]


@kernel
def dense(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, w, *b = inputs
    activation = attrs["activation"]
    _dense.run(flat(outputs[0]), flat(x), w, b[0] if b else NO_BIAS, activation == "relu")
    if activation not in ("linear", "relu"):
        KERNELS[activation](outputs, outputs, {})


@kernel
def dense_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    g, w, y = inputs
    if attrs["activation"] == "relu":
        _dense_dx_relu.run(flat(outputs[0]), flat(g), w, flat(y))
    else:
        _matmul_nt.run(flat(outputs[0]), flat(g), w)
        KERNELS[f"{attrs['activation']}_dx"](outputs, (outputs[0], y), {})


@kernel
def matmul(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _dense.run(flat(outputs[0]), flat(inputs[0]), inputs[1], NO_BIAS, False)


@kernel
def matmul_nt(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _matmul_nt.run(flat(outputs[0]), flat(inputs[0]), inputs[1])


@kernel
def matmul_tn(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _matmul_tn.run(outputs[0], *map(flat, inputs))


@kernel
def add_bias(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _add_bias.run(flat(outputs[0]), flat(inputs[0]), inputs[1])


@kernel
def sum_rows(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _sum_rows.run(outputs[0], flat(inputs[0]))


define("batch_dot", _batch_dot)

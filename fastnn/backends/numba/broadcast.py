"""Repeating along axes of size 1, and sums along axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from fastnn.backends.numba.elementary import ZERO
from fastnn.backends.numba.jit import OUT2, Arrays, compiled, kernel
from fastnn.ops.matrix import SUM_ROWS

IN3 = types.Array(types.float32, 3, "C", readonly=True)


@compiled(OUT2, IN3)
def _sum_middle(y, g):  # type: ignore[no-untyped-def]
    """y (N, C) = g (N, M, C) summed over M: sums of SUM_ROWS, one after the other."""
    part = np.empty(y.shape[1], np.float32)
    for n in range(y.shape[0]):
        y[n] = ZERO
        for first in range(0, g.shape[1], SUM_ROWS):
            part[:] = ZERO
            for m in range(first, min(first + SUM_ROWS, g.shape[1])):
                for c in range(part.size):
                    part[c] += g[n, m, c]
            for c in range(part.size):
                y[n, c] += part[c]


@kernel
def broadcast(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    outputs[0][...] = inputs[0]


@kernel
def sum_to(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    g, y = inputs[0], outputs[0]
    stop = g.ndim
    while stop > 0:  # axes side by side are summed together, the last ones first
        start = stop
        while start > 0 and g.shape[start - 1] != y.shape[start - 1]:
            start -= 1
        if start < stop:
            shape = (*g.shape[:start], *y.shape[start:stop], *g.shape[stop:])
            rows = g.reshape(math.prod(g.shape[:start]), math.prod(g.shape[start:stop]), math.prod(g.shape[stop:]))
            sums = np.empty((rows.shape[0], rows.shape[2]), np.float32)
            _sum_middle.run(sums, rows)
            g = sums.reshape(shape)
            stop = start
        else:
            stop -= 1
    y[...] = g

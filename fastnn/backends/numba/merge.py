"""Two arrays made one, element by element."""

from __future__ import annotations

from fastnn.backends.numba.elementary import HALF, ZERO
from fastnn.backends.numba.jit import IN1, OUT1, compiled, define


@compiled(OUT1, IN1, IN1)
def _subtract(y, a, b):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        y[i] = a[i] - b[i]


@compiled(OUT1, IN1, IN1)
def _maximum(y, a, b):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        y[i] = a[i] if (a[i] >= b[i]) | (a[i] != a[i]) else b[i]


@compiled(OUT1, IN1, IN1)
def _minimum(y, a, b):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        y[i] = a[i] if (a[i] <= b[i]) | (a[i] != a[i]) else b[i]


@compiled(OUT1, IN1, IN1, IN1)
def _maximum_dx(da, g, a, b):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        rest = HALF * g[i] if a[i] == b[i] else ZERO
        da[i] = g[i] if a[i] > b[i] else rest


@compiled(OUT1, IN1, IN1)
def _add_relu(y, a, b):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        total = a[i] + b[i]
        y[i] = ZERO if total <= ZERO else total


@compiled(OUT1, IN1, IN1, IN1)
def _add_relu_dx(dx, a, b, y):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        dx[i] = a[i] + b[i] if y[i] > ZERO else ZERO


define("subtract", _subtract, flat=True)
define("maximum", _maximum, flat=True)
define("minimum", _minimum, flat=True)
define("maximum_dx", _maximum_dx, flat=True)
define("add_relu", _add_relu, flat=True)
define("add_relu_dx", _add_relu_dx, flat=True)

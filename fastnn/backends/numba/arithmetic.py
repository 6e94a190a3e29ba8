"""Quotients, roots and logarithms, and rows times a vector."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.backends.numba.elementary import INFINITY, ONE, ZERO, log
from fastnn.backends.numba.jit import IN1, IN2, OUT1, OUT2, Arrays, compiled, define, kernel
from fastnn.backends.numba.matrix import flat

_TINY = np.float32(np.finfo(np.float32).tiny)
_NAN = np.float32(np.nan)


@compiled(OUT1, IN1)
def _log(y, x):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        below = _NAN if x[i] < ZERO else -INFINITY
        y[i] = below if x[i] < _TINY else log(x[i])


@compiled(OUT1, IN1)
def _sqrt(y, x):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        y[i] = np.sqrt(x[i])


@compiled(OUT1, IN1)
def _reciprocal(y, x):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        y[i] = ONE / x[i]


@compiled(OUT1, IN1, IN1)
def _divide(y, a, b):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        y[i] = a[i] / b[i]


@compiled(OUT2, IN2, IN1)
def _scale_columns(y, x, v):  # type: ignore[no-untyped-def]
    for n in range(x.shape[0]):
        for f in range(x.shape[1]):
            y[n, f] = x[n, f] * v[f]


define("log", _log, flat=True)
define("sqrt", _sqrt, flat=True)
define("reciprocal", _reciprocal, flat=True)
define("divide", _divide, flat=True)


@kernel
def scale_columns(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _scale_columns.run(flat(outputs[0]), flat(inputs[0]), inputs[1])


@kernel
def repeat_rows(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    outputs[0][...] = inputs[1]

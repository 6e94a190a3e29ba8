"""Element by element: activations with their gradients, and plain arithmetic.

An activation is a number here: one compiled function serves all of them, alone and at the end of a dense layer.
"""

from __future__ import annotations

import math

import numpy as np

from fastnn.backends.numba.elementary import (
    HALF,
    ONE,
    SIX,
    THREE,
    TWO,
    ZERO,
    exp,
    expm1_negative,
    sigmoid,
    softplus,
    tanh,
)
from fastnn.backends.numba.jit import IN1, INTEGER, OUT1, REAL, compiled, define, inner
from fastnn.backends.numba.vector import fma
from fastnn.ops.pointwise import DENSE_ACTIVATIONS, SELU_ALPHA, SELU_SCALE

#: What ``activate`` and ``multiply_gradient`` call the activations.
CODES = {name: code for code, name in enumerate((*DENSE_ACTIVATIONS, "leaky_relu", "elu"))}
_RELU = CODES["relu"]
_SIGMOID = CODES["sigmoid"]
_TANH = CODES["tanh"]
_SOFTPLUS = CODES["softplus"]
_EXPONENTIAL = CODES["exponential"]
_SOFTSIGN = CODES["softsign"]
_HARD_SIGMOID = CODES["hard_sigmoid"]
_RELU6 = CODES["relu6"]
_SELU = CODES["selu"]
_GELU = CODES["gelu"]
_SILU = CODES["silu"]
_MISH = CODES["mish"]
_HARD_SILU = CODES["hard_silu"]
_LEAKY_RELU = CODES["leaky_relu"]
_ELU = CODES["elu"]

_SIXTH, _THIRD = np.float32(1.0 / 6.0), np.float32(1.0 / 3.0)
_SCALE, _SCALE_ALPHA = np.float32(SELU_SCALE), np.float32(SELU_SCALE * SELU_ALPHA)
_SQRT_HALF, _DENSITY = np.float32(math.sqrt(0.5)), np.float32(1.0 / math.sqrt(2.0 * math.pi))
#: Elements copied aside at a time where the output may be one of the inputs.
_CHUNK = 512

# erf(x) = x P(x^2) / Q(x^2) for |x| <= 4, the rational function of Eigen
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = (
    np.float32(c)
    for c in (
        -2.72614225801306e-10,
        2.77068142495902e-08,
        -2.10102402082508e-06,
        -5.69250639462346e-05,
        -7.34990630326855e-04,
        -2.95459980854025e-03,
        -1.60960333262415e-02,
    )
)
_Q0, _Q1, _Q2, _Q3, _Q4 = (
    np.float32(c)
    for c in (
        -1.45660718464996e-05,
        -2.13374055278905e-04,
        -1.68282697438203e-03,
        -7.37332916720468e-03,
        -1.42647390514189e-02,
    )
)
_ERF_ONE = np.float32(4.0)


@inner
def _normal_cdf(x):  # type: ignore[no-untyped-def]
    x = x * _SQRT_HALF
    x = _ERF_ONE if x > _ERF_ONE else (-_ERF_ONE if x < -_ERF_ONE else x)
    z = x * x
    p = fma(fma(fma(fma(fma(fma(_P0, z, _P1), z, _P2), z, _P3), z, _P4), z, _P5), z, _P6)
    q = fma(fma(fma(fma(_Q0, z, _Q1), z, _Q2), z, _Q3), z, _Q4)
    return HALF * (ONE + x * p / q)


@inner
def _hard_sigmoid(x):  # type: ignore[no-untyped-def]
    y = x * _SIXTH + HALF
    return ONE if y > ONE else (ZERO if y < ZERO else y)


@inner
def _mish_ratio(x):  # type: ignore[no-untyped-def]
    """tanh(softplus(x)) as ``n / d``, and ``d - n``: with ``e = exp(-|x|)``, nothing overflows or cancels."""
    e = exp(-abs(x))
    rest = TWO * e * e if x >= ZERO else TWO
    n = ONE + TWO * e if x >= ZERO else e * (e + TWO)
    return n, n + rest, rest


@inner
def _mish(x):  # type: ignore[no-untyped-def]
    n, d, _ = _mish_ratio(x)
    return x * (n / d)


@inner
def _mish_slope(x):  # type: ignore[no-untyped-def]
    n, d, rest = _mish_ratio(x)
    t = n / d
    return t + x * (rest / d) * (ONE + t) * sigmoid(x)


@inner
def _silu_slope(x):  # type: ignore[no-untyped-def]
    s = sigmoid(x)
    return s * (ONE + x * (ONE - s))


@inner
def _gelu_slope(x):  # type: ignore[no-untyped-def]
    return _normal_cdf(x) + x * exp(-HALF * x * x) * _DENSITY


@inner
def _elu(x, scale, scale_alpha):  # type: ignore[no-untyped-def]
    return scale * x if x > ZERO else scale_alpha * expm1_negative(ZERO if x > ZERO else x)


@inner
def activate(y, code, alpha):  # type: ignore[no-untyped-def]
    """Replace each element of ``y`` by the activation's value there; ``alpha`` is leaky_relu's or elu's attribute."""
    n = y.size
    if code == _RELU:
        for i in range(n):
            y[i] = ZERO if y[i] <= ZERO else y[i]
    elif code == _SIGMOID:
        for i in range(n):
            y[i] = sigmoid(y[i])
    elif code == _TANH:
        for i in range(n):
            y[i] = tanh(y[i])
    elif code == _SOFTPLUS:
        for i in range(n):
            y[i] = softplus(y[i])
    elif code == _EXPONENTIAL:
        for i in range(n):
            y[i] = exp(y[i])
    elif code == _SOFTSIGN:
        for i in range(n):
            y[i] = y[i] / (ONE + abs(y[i]))
    elif code == _HARD_SIGMOID:
        for i in range(n):
            y[i] = _hard_sigmoid(y[i])
    elif code == _RELU6:
        for i in range(n):
            y[i] = ZERO if y[i] <= ZERO else (SIX if y[i] > SIX else y[i])
    elif code in (_SELU, _ELU):
        scale, scale_alpha = (_SCALE, _SCALE_ALPHA) if code == _SELU else (ONE, alpha)
        for i in range(n):
            y[i] = _elu(y[i], scale, scale_alpha)
    elif code == _GELU:
        for i in range(n):
            y[i] = y[i] * _normal_cdf(y[i])
    elif code == _SILU:
        for i in range(n):
            y[i] = y[i] * sigmoid(y[i])
    elif code == _MISH:
        for i in range(n):
            y[i] = _mish(y[i])
    elif code == _HARD_SILU:
        for i in range(n):
            y[i] = y[i] * _hard_sigmoid(y[i])
    elif code == _LEAKY_RELU:
        for i in range(n):
            y[i] = y[i] if y[i] > ZERO else alpha * y[i]


@inner
def multiply_gradient(g, v, code, alpha):  # type: ignore[no-untyped-def]
    """``g`` times the activation's slope, read off its output (or, for some, its input) ``v``; they share no memory."""
    n = g.size
    if code == _RELU:
        for i in range(n):
            g[i] = g[i] if v[i] > ZERO else ZERO
    elif code == _SIGMOID:
        for i in range(n):
            g[i] = g[i] * v[i] * (ONE - v[i])
    elif code == _TANH:
        for i in range(n):
            g[i] = g[i] * (ONE - v[i] * v[i])
    elif code == _SOFTPLUS:
        for i in range(n):
            g[i] = g[i] * -expm1_negative(-v[i])
    elif code == _EXPONENTIAL:
        for i in range(n):
            g[i] = g[i] * v[i]
    elif code == _SOFTSIGN:
        for i in range(n):
            g[i] = g[i] * ((ONE - abs(v[i])) * (ONE - abs(v[i])))
    elif code == _HARD_SIGMOID:
        for i in range(n):
            g[i] = g[i] * _SIXTH if (v[i] > ZERO) & (v[i] < ONE) else ZERO
    elif code == _RELU6:
        for i in range(n):
            g[i] = g[i] if (v[i] > ZERO) & (v[i] < SIX) else ZERO
    elif code in (_SELU, _ELU):
        scale, scale_alpha = (_SCALE, _SCALE_ALPHA) if code == _SELU else (ONE, alpha)
        for i in range(n):
            g[i] = g[i] * (scale if v[i] > ZERO else v[i] + scale_alpha)
    elif code == _GELU:
        for i in range(n):
            g[i] = g[i] * _gelu_slope(v[i])
    elif code == _SILU:
        for i in range(n):
            g[i] = g[i] * _silu_slope(v[i])
    elif code == _MISH:
        for i in range(n):
            g[i] = g[i] * _mish_slope(v[i])
    elif code == _HARD_SILU:
        for i in range(n):
            slope = v[i] * _THIRD + HALF
            g[i] = g[i] * (ZERO if v[i] <= -THREE else (ONE if v[i] >= THREE else slope))
    elif code == _LEAKY_RELU:
        for i in range(n):
            g[i] = g[i] if v[i] > ZERO else alpha * g[i]


@compiled(OUT1, IN1, REAL, INTEGER)
def _activation(y, x, alpha, code):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        y[i] = x[i]
    activate(y, code, np.float32(alpha))


@compiled(OUT1, IN1, IN1, REAL, INTEGER)
def _activation_dx(dx, g, v, alpha, code):  # type: ignore[no-untyped-def]
    # dx may be g or v: a loop over arrays that overlap is not made vector code
    aside = np.empty(_CHUNK, np.float32)
    for start in range(0, g.size, _CHUNK):
        n = min(_CHUNK, g.size - start)
        for i in range(n):
            aside[i] = v[start + i]
        for i in range(start, start + n):
            dx[i] = g[i]
        multiply_gradient(dx[start : start + n], aside[:n], code, np.float32(alpha))


@compiled(OUT1, IN1, IN1)
def _add(y, a, b):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        y[i] = a[i] + b[i]


@compiled(OUT1, IN1, IN1)
def _multiply(y, a, b):  # type: ignore[no-untyped-def]
    for i in range(a.size):
        y[i] = a[i] * b[i]


@compiled(OUT1, IN1, REAL)
def _clip(y, x, limit):  # type: ignore[no-untyped-def]
    top = np.float32(limit)
    for i in range(x.size):
        y[i] = top if x[i] > top else (-top if x[i] < -top else x[i])


@compiled(OUT1, IN1, REAL, REAL)
def _affine(y, x, scale, offset):  # type: ignore[no-untyped-def]
    a, b = np.float32(scale), np.float32(offset)
    for i in range(x.size):
        y[i] = fma(a, x[i], b)


@compiled(OUT1, IN1, IN1, REAL, REAL)
def _penalty_dx(y, g, w, l1, l2):  # type: ignore[no-untyped-def]
    a, b = np.float32(l1), np.float32(2.0 * l2)
    for i in range(w.size):
        sign = ONE if w[i] > ZERO else (-ONE if w[i] < ZERO else w[i])
        y[i] = g[0] * (a * sign + b * w[i])


for _name, _code in CODES.items():
    _attrs = {"leaky_relu": ("negative_slope",), "elu": ("alpha",)}.get(_name, ())
    _constants = (_code,) if _attrs else (0.0, _code)
    if _name != "linear":
        define(_name, _activation, *_attrs, constants=_constants, flat=True)
        define(f"{_name}_dx", _activation_dx, *_attrs, constants=_constants, flat=True)
define("add", _add, flat=True)
define("multiply", _multiply, flat=True)
define("clip", _clip, "limit", flat=True)
define("affine", _affine, "scale", "offset", flat=True)
define("penalty_dx", _penalty_dx, "l1", "l2", flat=True)

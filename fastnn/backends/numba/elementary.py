"""Elementary functions in single precision, without branches, so that loops over them become vector code.

Every operation is written out, so a value has the same bits wherever in an array it stands, with or without the
machine's vectors. Accurate to a few units in the last place; NaN comes through.
"""

from __future__ import annotations

import math

import numpy as np

from fastnn.backends.numba.jit import inner
from fastnn.backends.numba.vector import as_float, as_int, fma

# A Python float would turn the arithmetic into double precision: all constants are float32.
ZERO, ONE, TWO, THREE, SIX = (np.float32(i) for i in (0, 1, 2, 3, 6))
HALF = np.float32(0.5)
INFINITY = np.float32(np.inf)

_LOG2_E = np.float32(1.0 / math.log(2.0))
# log 2 in two parts: the first, of few bits, times a small integer is exact
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits
_ROUNDER = np.float32(12582912.0)
_ROUNDER_BITS = np.int32(0x4B400000)
_EXP_MIN, _EXP_MAX = np.float32(-104.0), np.float32(89.0)
# Minimax polynomials of Cephes (Moshier): (e^r - 1 - r) / r^2 and (log(1 + f) - f + f^2 / 2) / f^3
_E0, _E1, _E2, _E3, _E4, _E5 = (
    np.float32(c)
    for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = (
    np.float32(c)
    for c in (
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    )
)
_SQRT_HALF_BITS = np.int32(0x3F3504F3)


@inner
def _reduce(x):  # type: ignore[no-untyped-def]
    """``x = n log 2 + r``: returns ``e^r - 1`` and ``n`` as the low bits of an integer."""
    x = _EXP_MAX if x > _EXP_MAX else (_EXP_MIN if x < _EXP_MIN else x)
    shifted = fma(x, _LOG2_E, _ROUNDER)
    n = shifted - _ROUNDER
    r = fma(n, -_LN2_LOW, fma(n, -_LN2_HIGH, x))
    p = fma(fma(fma(fma(fma(_E0, r, _E1), r, _E2), r, _E3), r, _E4), r, _E5)
    return fma(p, r * r, r), np.int32(as_int(shifted) - _ROUNDER_BITS)


@inner
def _power_of_two(n):  # type: ignore[no-untyped-def]
    """``2^n`` for -126 <= n <= 127."""
    return as_float(np.int32((n + 127) << 23))


@inner
def exp(x):  # type: ignore[no-untyped-def]
    p, n = _reduce(x)
    half = n >> 1  # 2^n in two factors: n may be beyond the exponents
    return (p + ONE) * _power_of_two(half) * _power_of_two(n - half)


@inner
def expm1_negative(x):  # type: ignore[no-untyped-def]
    """``e^x - 1`` for x <= 0."""
    p, n = _reduce(x if not (x < np.float32(-80.0)) else np.float32(-80.0))
    scale = _power_of_two(n)
    return fma(p, scale, scale - ONE)


@inner
def log(x):  # type: ignore[no-untyped-def]
    """The natural logarithm of a normal number x > 0."""
    bits = as_int(x)
    n = np.int32(bits - _SQRT_HALF_BITS) >> 23
    f = as_float(np.int32(bits - (n << 23))) - ONE
    e = np.float32(np.int32(n))
    z = f * f
    p = fma(fma(fma(fma(fma(fma(fma(fma(_L0, f, _L1), f, _L2), f, _L3), f, _L4), f, _L5), f, _L6), f, _L7), f, _L8)
    y = fma(e, _LN2_HIGH, f + fma(-HALF, z, fma(e, _LN2_LOW, f * z * p)))
    return y if x < INFINITY else x


@inner
def log1p(x):  # type: ignore[no-untyped-def]
    """``log(1 + x)`` for -1 < x."""
    u = ONE + x
    return log(u) + (x - (u - ONE)) / u


@inner
def tanh(x):  # type: ignore[no-untyped-def]
    t = expm1_negative(-TWO * abs(x))
    y = -t / (TWO + t)
    return y if x >= ZERO else -y


@inner
def sigmoid(x):  # type: ignore[no-untyped-def]
    e = exp(-abs(x))
    return (ONE if x >= ZERO else e) / (ONE + e)


@inner
def softplus(x):  # type: ignore[no-untyped-def]
    return (ZERO if x < ZERO else x) + log1p(exp(-abs(x)))

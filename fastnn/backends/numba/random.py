"""Dropout and noise from Philox4x32-10, bit for bit those of the reference: see ``fastnn.ops.random``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnn.backends.numba.elementary import ONE, ZERO
from fastnn.backends.numba.jit import IN1, IN3, INDEX, INTEGER, OUT1, OUT3, REAL, Arrays, compiled, inner, kernel
from fastnn.backends.numba.vector import as_float, as_int
from fastnn.ops.random import LOG2, SIZE_P, SIZE_Q, SQRT_HALF

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_UNIT = np.float32(2.0**-24)
_BLOCK, _LANES = 64, 16
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7 = LOG2
_P0, _P1, _P2, _P3 = SIZE_P
_Q0, _Q1, _Q2, _Q3 = SIZE_Q
_TOP = np.float32(32.0)


@inner
def _round(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    a, b = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
    c0, c2 = (b >> _HALF) ^ c1 ^ k0, (a >> _HALF) ^ c3 ^ k1
    return c0, b & _LOW, c2, a & _LOW, (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW


@inner
def _philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Ten rounds on 32-bit numbers held in uint64; written out, or the loop around them would not be vector code."""
    c0, c1, c2, c3, k0, k1 = _round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _round(c0, c1, c2, c3, k0, k1)
    return c0, c1, c2, c3


@inner
def _unit(word):  # type: ignore[no-untyped-def]
    """A float32 in [0, 1) of the upper 24 bits of a word (int32)."""
    return np.float32(np.int32(word >> 8 & 0xFFFFFF)) * _UNIT


@inner
def _normal(word):  # type: ignore[no-untyped-def]
    """The standard normal number of a word (int32)."""
    bits = as_int(np.float32(np.int32(word >> 1 & 0x7FFFFFFF | 1)))
    exponent = np.int32(np.int32(bits - SQRT_HALF) >> 23)
    f = as_float(np.int32(bits - np.int32(exponent << 23))) - ONE
    log = ((((((_L7 * f + _L6) * f + _L5) * f + _L4) * f + _L3) * f + _L2) * f + _L1) * f + _L0
    t = np.sqrt((_TOP - np.float32(exponent)) - f * log) - ONE
    size = t * (((_P3 * t + _P2) * t + _P1) * t + _P0) / (((_Q3 * t + _Q2) * t + _Q1) * t + _Q0)
    return as_float(np.int32(as_int(size) ^ np.int32(word << 31)))


@inner
def _fill(words, first, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """The words, as int32, of the 64 elements whose lanes start at ``first``."""
    for lane in range(_LANES):
        w0, w1, w2, w3 = _philox(np.uint64(first + lane), c1, c2, c3, k0, k1)
        words[lane] = np.int32(w0)
        words[_LANES + lane] = np.int32(w1)
        words[2 * _LANES + lane] = np.int32(w2)
        words[3 * _LANES + lane] = np.int32(w3)


@compiled(OUT1, IN1, INDEX, REAL, INTEGER, INTEGER, INTEGER)
def _dropout(y, x, step, rate, key_0, key_1, stream):  # type: ignore[no-untyped-def]
    limit, scale = np.float32(rate), np.float32(1.0 / (1.0 - rate))
    k0, k1, c3 = np.uint64(key_0), np.uint64(key_1), np.uint64(stream)
    c1, c2 = np.uint64(step[0]) & _LOW, np.uint64(step[0]) >> _HALF
    words = np.empty(_BLOCK, np.int32)
    for start in range(0, x.size, _BLOCK):
        _fill(words, start // (_BLOCK // _LANES), c1, c2, c3, k0, k1)
        for i in range(min(_BLOCK, x.size - start)):
            kept = x[start + i] * scale
            y[start + i] = kept if _unit(words[i]) >= limit else ZERO


@compiled(OUT1, IN1, INDEX, REAL, INTEGER, INTEGER, INTEGER)
def _gaussian_noise(y, x, step, stddev, key_0, key_1, stream):  # type: ignore[no-untyped-def]
    deviation = np.float32(stddev)
    k0, k1, c3 = np.uint64(key_0), np.uint64(key_1), np.uint64(stream)
    c1, c2 = np.uint64(step[0]) & _LOW, np.uint64(step[0]) >> _HALF
    words = np.empty(_BLOCK, np.int32)
    for start in range(0, x.size, _BLOCK):
        _fill(words, start // (_BLOCK // _LANES), c1, c2, c3, k0, k1)
        for i in range(min(_BLOCK, x.size - start)):
            y[start + i] = x[start + i] + deviation * _normal(words[i])


@compiled(OUT3, IN3, INDEX, REAL, INTEGER, INTEGER, INTEGER)
def _spatial_dropout(y, x, step, rate, key_0, key_1, stream):  # type: ignore[no-untyped-def]
    limit, scale = np.float32(rate), np.float32(1.0 / (1.0 - rate))
    k0, k1, c3 = np.uint64(key_0), np.uint64(key_1), np.uint64(stream)
    c1, c2 = np.uint64(step[0]) & _LOW, np.uint64(step[0]) >> _HALF
    rows, places, channels = x.shape
    words, keep = np.empty(_BLOCK, np.int32), np.empty(channels, np.bool_)
    for n in range(rows):
        for c in range(channels):
            element = n * channels + c
            if element % _BLOCK == 0:
                _fill(words, element // (_BLOCK // _LANES), c1, c2, c3, k0, k1)
            keep[c] = _unit(words[element % _BLOCK]) >= limit
        for i in range(places):
            for c in range(channels):
                kept = x[n, i, c] * scale
                y[n, i, c] = kept if keep[c] else ZERO


def _keys(attrs: dict[str, Any]) -> tuple[int, int, int]:
    return attrs["seed"] & 0xFFFFFFFF, attrs["seed"] >> 32 & 0xFFFFFFFF, attrs["stream"]


@kernel
def dropout(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, step = inputs
    _dropout.run(outputs[0].reshape(-1), x.reshape(-1), step, attrs["rate"], *_keys(attrs))


@kernel
def gaussian_noise(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, step = inputs
    _gaussian_noise.run(outputs[0].reshape(-1), x.reshape(-1), step, attrs["stddev"], *_keys(attrs))


@kernel
def spatial_dropout(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, step = inputs
    shape = x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]
    _spatial_dropout.run(outputs[0].reshape(shape), x.reshape(shape), step, attrs["rate"], *_keys(attrs))

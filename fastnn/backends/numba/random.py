"""Dropout from Philox4x32-10, bit for bit that of the reference: ``fastnn.ops.random`` gives the order of the words."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.backends.numba.elementary import ZERO
from fastnn.backends.numba.jit import IN1, INDEX, INTEGER, OUT1, REAL, Arrays, compiled, inner, kernel

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_UNIT_SHIFT, _UNIT = np.uint64(8), np.float32(2.0**-24)
_BLOCK, _LANES = 64, 16


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
    """A float32 in [0, 1) of the upper 24 of 32 bits."""
    return np.float32(np.int32(word >> _UNIT_SHIFT)) * _UNIT


@compiled(OUT1, IN1, INDEX, REAL, INTEGER, INTEGER, INTEGER)
def _dropout(y, x, step, rate, key_0, key_1, stream):  # type: ignore[no-untyped-def]
    limit, scale = np.float32(rate), np.float32(1.0 / (1.0 - rate))
    k0, k1, c3 = np.uint64(key_0), np.uint64(key_1), np.uint64(stream)
    c1, c2 = np.uint64(step[0]) & _LOW, np.uint64(step[0]) >> _HALF
    units = np.empty(_BLOCK, np.float32)
    for start in range(0, x.size, _BLOCK):
        first = start // (_BLOCK // _LANES)
        for lane in range(_LANES):
            w0, w1, w2, w3 = _philox(np.uint64(first + lane), c1, c2, c3, k0, k1)
            units[lane] = _unit(w0)
            units[_LANES + lane] = _unit(w1)
            units[2 * _LANES + lane] = _unit(w2)
            units[3 * _LANES + lane] = _unit(w3)
        for i in range(min(_BLOCK, x.size - start)):
            kept = x[start + i] * scale
            y[start + i] = kept if units[i] >= limit else ZERO


@kernel
def dropout(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, step = inputs
    seed = attrs["seed"]
    keys = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    _dropout.run(outputs[0].reshape(-1), x.reshape(-1), step, attrs["rate"], *keys, attrs["stream"])

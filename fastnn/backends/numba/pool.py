"""Pooling, and its gradients. N batch, D H W space, C channels; signals and images are volumes with sizes of 1.

An output row is made of the rows of input that its windows touch: first those are joined, then its columns. Loops over
channels, or over whole rows where windows move by one pixel, become vector code. A pixel's gradient is added up in an
order that the shape fixes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from fastnn.backends.numba.elementary import ZERO
from fastnn.backends.numba.jit import IN2, INTEGER, OUT2, Arrays, Compiled, compiled, inner, kernel
from fastnn.backends.numba.vector import as_float, as_int

_IN5 = types.Array(types.float32, 5, "C", readonly=True)
_OUT5 = types.Array(types.float32, 5, "C")
_SPACE = types.UniTuple(types.int64, 3)
_ONE = np.float32(1.0)
_LEAST = np.float32(-np.inf)
#: With fewer channels a loop over them is not worth its start.
_FEW, _FEW_DX = 8, 16
#: Pixels of a chain of sums, and how many numbers such a chain has side by side where channels are few.
_CHAIN, _WIDE = 64, 64


@inner
def _part(o, axis, sizes, kernel, strides, before):  # type: ignore[no-untyped-def]
    """The pixels in window ``o`` of an axis: the first one, and the one behind the last."""
    start = o * strides[axis] - before[axis]
    return max(start, 0), min(start + kernel[axis], sizes[axis])


@inner
def _inside(width, sizes, kernel, strides, before):  # type: ignore[no-untyped-def]
    """The windows of a row all of whose columns lie inside: the first one, and the one behind the last."""
    end = sizes[2] + before[2] - kernel[2]
    last = min(end // strides[2] + 1, width) if end >= 0 else 0
    return min(-(-before[2] // strides[2]), last), last


@inner
def _join(x, y, average):  # type: ignore[no-untyped-def]
    """The sum; or the larger, of equals ``y``, and NaN if either is."""
    return x + y if average else (x if x > y or x != x else y)


@inner
def _join_rows(out, x, average):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = _join(x[i], out[i], average)


@inner
def _join_tap(out, x, first, last, offset, stride, average):  # type: ignore[no-untyped-def]
    """Join to the windows first .. last - 1 of ``out (OW, C)`` their pixels of ``x (W, C)`` under one tap."""
    channels = out.shape[1]
    if channels < _FEW:
        for c in range(channels):
            for w in range(first, last):
                out[w, c] = _join(x[w * stride + offset, c], out[w, c], average)
    else:
        for w in range(first, last):
            for c in range(channels):
                out[w, c] = _join(x[w * stride + offset, c], out[w, c], average)


@inner
def _scale(y, pixels):  # type: ignore[no-untyped-def]
    scale = _ONE / np.float32(pixels)
    for i in range(y.size):
        y[i] *= scale


@compiled(_OUT5, _IN5, _SPACE, _SPACE, _SPACE, INTEGER)
def _pool(y, x, kernel, strides, before, average):  # type: ignore[no-untyped-def]
    sizes = x.shape[1:4]
    rows, depth, height, width, channels = y.shape
    low, high = _inside(width, sizes, kernel, strides, before)
    start = ZERO if average else _LEAST
    line = np.empty((sizes[2], channels), np.float32)
    flat_line, flat_x = line.reshape(line.size), x.reshape((rows, sizes[0], sizes[1], line.size))
    for n in range(rows):
        for a in range(depth):
            d0, d1 = _part(a, 0, sizes, kernel, strides, before)
            for b in range(height):
                h0, h1 = _part(b, 1, sizes, kernel, strides, before)
                flat_line[:] = start
                for d in range(d0, d1):
                    for h in range(h0, h1):
                        _join_rows(flat_line, flat_x[n, d, h], average)
                out = y[n, a, b]
                flat = out.reshape(out.size)
                flat[:] = start
                for k in range(kernel[2]):
                    if strides[2] == 1:
                        shift = (k - before[2]) * channels
                        i, j = low * channels, high * channels
                        _join_rows(flat[i:j], flat_line[i + shift : j + shift], average)
                    else:
                        _join_tap(out, line, low, high, k - before[2], strides[2], average)
                area = (d1 - d0) * (h1 - h0)
                if average:
                    _scale(flat[low * channels : high * channels], area * kernel[2])
                for edge in range(low + width - high):
                    w = edge if edge < low else edge - low + high
                    w0, w1 = _part(w, 2, sizes, kernel, strides, before)
                    for k in range(w0, w1):
                        _join_tap(out, line, w, w + 1, k - w, 1, average)
                    if average:
                        _scale(out[w], area * (w1 - w0))


@inner
def _spread_rows(dx, left, x, y, average):  # type: ignore[no-untyped-def]
    if average:
        for i in range(left.size):
            dx[i] += left[i]
    else:
        for i in range(left.size):
            wins = (x[i] == y[i]) | (x[i] != x[i])
            dx[i] += left[i] if wins else ZERO
            left[i] = ZERO if wins else left[i]


@inner
def _spread_tap(dx, left, x, y, first, last, offset, stride, average):  # type: ignore[no-untyped-def]
    """Give the pixels ``dx (W, C)`` under one tap what is ``left (OW, C)`` of their windows' gradient, if they win."""
    channels = left.shape[1]
    if channels < _FEW_DX and not average:
        for c in range(channels):
            for w in range(first, last):
                p = w * stride + offset
                value, rest = x[p, c], as_int(left[w, c])
                mine = rest & -np.int32((value == y[w, c]) | (value != value))  # bits: a branch would be guessed wrong
                dx[p, c] += as_float(np.int32(mine))
                left[w, c] = as_float(np.int32(rest ^ mine))
    elif channels < _FEW_DX:
        for c in range(channels):
            for w in range(first, last):
                dx[w * stride + offset, c] += left[w, c]
    elif average:
        for w in range(first, last):
            for c in range(channels):
                dx[w * stride + offset, c] += left[w, c]
    else:
        for w in range(first, last):
            p = w * stride + offset
            for c in range(channels):
                wins = (x[p, c] == y[w, c]) | (x[p, c] != x[p, c])
                dx[p, c] += left[w, c] if wins else ZERO
                left[w, c] = ZERO if wins else left[w, c]


@compiled(_OUT5, _IN5, _IN5, _IN5, _SPACE, _SPACE, _SPACE, INTEGER)
def _pool_dx(dx, g, x, y, kernel, strides, before, average):  # type: ignore[no-untyped-def]
    sizes = x.shape[1:4]
    rows, depth, height, width, channels = g.shape
    low, high = _inside(width, sizes, kernel, strides, before)
    left = np.empty((width, channels), np.float32)
    whole = (rows, sizes[0], sizes[1], sizes[2] * channels)
    flat_dx, flat_x, flat_left = dx.reshape(whole), x.reshape(whole), left.reshape(left.size)
    flat_g = g.reshape((rows, depth, height, left.size))
    for n in range(rows):
        dx[n] = ZERO
        for a in range(depth):
            d0, d1 = _part(a, 0, sizes, kernel, strides, before)
            for b in range(height):
                h0, h1 = _part(b, 1, sizes, kernel, strides, before)
                top = y[n, a, b]
                flat_top = top.reshape(top.size)
                flat_left[:] = flat_g[n, a, b]
                if average:
                    area = (d1 - d0) * (h1 - h0)
                    _scale(flat_left[low * channels : high * channels], area * kernel[2])
                    for edge in range(low + width - high):
                        w = edge if edge < low else edge - low + high
                        w0, w1 = _part(w, 2, sizes, kernel, strides, before)
                        _scale(left[w], area * (w1 - w0))
                for d in range(d0, d1):
                    for h in range(h0, h1):
                        into, value = dx[n, d, h], x[n, d, h]
                        flat_into, flat_value = flat_dx[n, d, h], flat_x[n, d, h]
                        for k in range(kernel[2]):
                            if strides[2] == 1:
                                shift = (k - before[2]) * channels
                                i, j = low * channels, high * channels
                                _spread_rows(
                                    flat_into[i + shift : j + shift], flat_left[i:j],
                                    flat_value[i + shift : j + shift], flat_top[i:j], average,
                                )  # fmt: skip
                            else:
                                _spread_tap(into, left, value, top, low, high, k - before[2], strides[2], average)
                        for edge in range(low + width - high):
                            w = edge if edge < low else edge - low + high
                            w0, w1 = _part(w, 2, sizes, kernel, strides, before)
                            for k in range(w0, w1):
                                _spread_tap(into, left, value, top, w, w + 1, k - w, 1, average)


@inner
def _lanes(channels):  # type: ignore[no-untyped-def]
    """How many numbers side by side count as channels: where channels are few, those of some pixels."""
    return max(_WIDE // channels, 1) * channels


@compiled(OUT2, IN2)
def _global_max_pool(y, x):  # type: ignore[no-untyped-def]
    rows, channels = y.shape
    lanes = _lanes(channels)
    most = np.empty(lanes, np.float32)
    for n in range(rows):
        most[:] = _LEAST
        for start in range(0, x.shape[1], lanes):
            part = x[n, start : start + lanes]
            for i in range(part.size):
                most[i] = _join(part[i], most[i], False)
        for c in range(channels):
            y[n, c] = most[c]
        for i in range(channels, lanes):
            y[n, i % channels] = _join(most[i], y[n, i % channels], False)


@compiled(OUT2, IN2)
def _global_average_pool(y, x):  # type: ignore[no-untyped-def]
    rows, channels = y.shape
    lanes = _lanes(channels)
    chain, total = np.empty(lanes, np.float32), np.empty(lanes, np.float64)
    pixels = x.shape[1] // channels
    for n in range(rows):
        total[:] = 0.0
        for first in range(0, x.shape[1], _CHAIN * lanes):
            chain[:] = ZERO
            for start in range(first, min(first + _CHAIN * lanes, x.shape[1]), lanes):
                part = x[n, start : start + lanes]
                for i in range(part.size):
                    chain[i] += part[i]
            for i in range(lanes):
                total[i] += chain[i]
        for i in range(channels, lanes):
            total[i % channels] += total[i]
        for c in range(channels):
            y[n, c] = total[c] / pixels


@compiled(OUT2, IN2, IN2, IN2)
def _global_max_pool_dx(dx, g, x, y):  # type: ignore[no-untyped-def]
    rows, channels = y.shape
    left = np.empty(channels, np.float32)
    for n in range(rows):
        for c in range(channels):
            left[c] = g[n, c]
        for start in range(0, x.shape[1], channels):
            part, into = x[n, start : start + channels], dx[n, start : start + channels]
            for c in range(channels):
                wins = (part[c] == y[n, c]) | (part[c] != part[c])
                into[c] = left[c] if wins else ZERO
                left[c] = ZERO if wins else left[c]


@compiled(OUT2, IN2)
def _global_average_pool_dx(dx, g):  # type: ignore[no-untyped-def]
    rows, channels = g.shape
    lanes = _lanes(channels)
    share = np.empty(lanes, np.float32)
    pixels = np.float32(dx.shape[1] // channels)
    for n in range(rows):
        for i in range(lanes):
            share[i] = g[n, i % channels] / pixels
        for start in range(0, dx.shape[1], lanes):
            into = dx[n, start : start + lanes]
            for i in range(into.size):
                into[i] = share[i]


def _flat(array: np.ndarray) -> Any:
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _volume(array: np.ndarray) -> Any:
    """(N, ..., C) with all three axes of space."""
    n, *sizes, c = array.shape
    return array.reshape(n, *(1,) * (3 - len(sizes)), *sizes, c)


def _windowed(function: Compiled, arrays: Arrays, attrs: dict[str, Any], average: bool) -> None:
    ones = (1,) * (3 - len(attrs["kernel"]))
    before = (0,) * len(ones) + tuple(before for before, _ in attrs["pads"])
    function.run(*map(_volume, arrays), ones + tuple(attrs["kernel"]), ones + tuple(attrs["strides"]), before, average)


@kernel
def max_pool(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _windowed(_pool, (*outputs, *inputs), attrs, False)


@kernel
def max_pool_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _windowed(_pool_dx, (*outputs, *inputs), attrs, False)


@kernel
def average_pool(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _windowed(_pool, (*outputs, *inputs), attrs, True)


@kernel
def average_pool_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    dx, g = *outputs, *inputs
    _windowed(_pool_dx, (dx, g, dx, g), attrs, True)  # what stands for x and y is not looked at


@kernel
def global_max_pool(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _global_max_pool.run(*map(_flat, (*outputs, *inputs)))


@kernel
def global_max_pool_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _global_max_pool_dx.run(*map(_flat, (*outputs, *inputs)))


@kernel
def global_average_pool(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _global_average_pool.run(*map(_flat, (*outputs, *inputs)))


@kernel
def global_average_pool_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _global_average_pool_dx.run(*map(_flat, (*outputs, *inputs)))

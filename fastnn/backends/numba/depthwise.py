"""Depthwise convolution and its gradients, of signals, images and volumes.

All are one walk over places: where a place lies along an axis, a table says which taps it has and what they read. Four
places with the same taps are computed at a time, channels in the lanes; each sum runs over the taps in their order, for
the gradient of the weights over the places. With M filters for each channel the input is repeated, or the gradient of
the input added up, M times.

N batch, D H W space, C channels, E = C * M of them in the output.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from fastnn.backends.numba.elementary import ZERO
from fastnn.backends.numba.jit import IN1, INDEX, INTEGER, KERNELS, OUT1, Arrays, compiled, inner, kernel
from fastnn.backends.numba.tile import EMPTY, PLAIN, RELU, TABLE, deliver, whole
from fastnn.backends.numba.vector import LANES, fill, fma, load, load_some, pointer, store

#: For each place along an axis: the input and the weight of its first tap, the number of its taps, whether the next
#: three places, ``apart``, have the same taps.
FIRST, WEIGHT, TAPS, FOUR = range(4)


# Geometry


def _table(first: np.ndarray, weight: np.ndarray, taps: np.ndarray, apart: int) -> np.ndarray:
    """The table of an axis."""
    table = np.stack([first, weight, taps, np.zeros_like(first)], axis=1)
    if len(table) > 3 * apart:
        same = [table[i * apart : len(table) - (3 - i) * apart, WEIGHT : TAPS + 1] for i in range(4)]
        table[: -3 * apart, FOUR] = np.all([same[0] == other for other in same], axis=(0, 2))
    return table


@lru_cache(512)
def _forward(size: int, output: int, kernel: int, stride: int, dilation: int, before: int) -> tuple[Any, int, int]:
    """For each output: input ``o * stride + k * dilation - before`` has the weight k.

    Returns the table, and the distances from tap to tap, of inputs and of weights.
    """
    start = np.arange(output) * stride - before
    low = np.clip(-(start // dilation), 0, kernel)
    high = np.clip((size - 1 - start) // dilation + 1, low, kernel)
    return _table(start + low * dilation, low, high - low, 1), dilation, 1


@lru_cache(512)
def _backward(size: int, output: int, kernel: int, stride: int, dilation: int, before: int) -> tuple[Any, int, int]:
    """For each of the ``size`` inputs: output ``(i + before - k * dilation) / stride`` has the weight k, if whole."""
    every = stride // math.gcd(stride, dilation)
    at = np.arange(size) + before
    base = np.full(size, kernel)  # the smallest weight for which it is
    for k in range(min(every, kernel))[::-1]:
        base[(at - k * dilation) % stride == 0] = k
    low = np.maximum(-(((output - 1) * stride - at) // dilation), 0)
    low = base - (base - low) // every * every
    high = base + (np.minimum(at // dilation, kernel - 1) - base) // every * every
    taps = np.where(base < kernel, np.maximum((high - low) // every + 1, 0), 0)
    return _table((at - high * dilation) // stride, high, taps, stride), dilation * every // stride, -every


def _tables(axis: Any, sizes: Any, outputs: Any, kernel: Any, attrs: dict[str, Any]) -> tuple[Any, ...]:
    """The tables of D, H, W, and what else the walk needs to know."""
    missing = 3 - len(kernel)
    numbers = [(1, 1, 1, 1, 1, 0)] * missing
    befores = [before for before, _ in attrs["pads"]]
    numbers += zip(sizes, outputs, kernel, attrs["strides"], attrs["dilations"], befores, strict=True)
    (d, *d_steps), (h, *h_steps), (w, *w_steps) = (axis(*n) for n in numbers)
    read = sizes if axis is _forward else outputs
    read, kernel = (1,) * missing + tuple(read), (1,) * missing + tuple(kernel)
    apart = 1 if axis is _forward else numbers[2][3]
    return d, h, w, np.array([*read, *kernel, *d_steps, *h_steps, *w_steps, apart], np.int64)


# Four places, or one


@inner
def _load(p, at, n):  # type: ignore[no-untyped-def]
    return load(p, at) if n == LANES else load_some(p, at, n)


@inner
def _sums(y, places, x, reads, w, walk, b, biased, mode, n):  # type: ignore[no-untyped-def]
    """``y[places] = the sum over the taps of x[reads] * w``, n lanes; with bias and activation."""
    planes, plane_x, plane_w, lines, line_x, line_w, taps, tap_x, tap_w = walk
    x0, x1, x2, x3 = reads
    a0 = a1 = a2 = a3 = fill(ZERO)
    for i in range(planes):
        for j in range(lines):
            p, q = i * plane_x + j * line_x, i * plane_w + j * line_w
            for _ in range(taps):
                v = _load(w, q, n)
                a0 = fma(_load(x, x0 + p, n), v, a0)
                a1 = fma(_load(x, x1 + p, n), v, a1)
                a2 = fma(_load(x, x2 + p, n), v, a2)
                a3 = fma(_load(x, x3 + p, n), v, a3)
                p += tap_x
                q += tap_w
    deliver(y, places[0], a0, n, b, biased, b, mode)
    deliver(y, places[1], a1, n, b, biased, b, mode)
    deliver(y, places[2], a2, n, b, biased, b, mode)
    deliver(y, places[3], a3, n, b, biased, b, mode)


@inner
def _sum(y, place, x, read, w, walk, b, biased, mode, n):  # type: ignore[no-untyped-def]
    """The same for one place."""
    planes, plane_x, plane_w, lines, line_x, line_w, taps, tap_x, tap_w = walk
    a = fill(ZERO)
    for i in range(planes):
        for j in range(lines):
            p, q = read + i * plane_x + j * line_x, i * plane_w + j * line_w
            for _ in range(taps):
                a = fma(_load(x, p, n), _load(w, q, n), a)
                p += tap_x
                q += tap_w
    deliver(y, place, a, n, b, biased, b, mode)


@inner
def _products(dw, g, places, x, reads, walk, count, n):  # type: ignore[no-untyped-def]
    """``dw += x[reads] * g[places]`` for the first ``count`` of four places, n lanes; the others of dw stay."""
    planes, plane_x, plane_w, lines, line_x, line_w, taps, tap_x, tap_w = walk
    x0, x1, x2, x3 = reads
    g0, g1, g2, g3 = _load(g, places[0], n), _load(g, places[1], n), _load(g, places[2], n), _load(g, places[3], n)
    for i in range(planes):
        for j in range(lines):
            p, q = i * plane_x + j * line_x, i * plane_w + j * line_w
            for _ in range(taps):
                a = fma(_load(x, x0 + p, n), g0, load(dw, q))
                if count == 4:
                    a = fma(_load(x, x1 + p, n), g1, a)
                    a = fma(_load(x, x2 + p, n), g2, a)
                    a = fma(_load(x, x3 + p, n), g3, a)
                store(dw, q, a)
                p += tap_x
                q += tap_w


# All places


@inner
def _channels(y, places, x, reads, w, tap, walk, count, b, mode, gradient, c, n):  # type: ignore[no-untyped-def]
    """n channels from c on of ``count`` places."""
    target, source, weights, bias = pointer(y, c), pointer(x, c), pointer(w, tap + c), pointer(b, c)
    if gradient:
        _products(weights, target, places, source, reads, walk, count, n)
    elif count == 4:
        _sums(target, places, source, reads, weights, walk, bias, b.size > 0, mode, n)
    else:
        _sum(target, places[0], source, reads[0], weights, walk, bias, b.size > 0, mode, n)


@inner
def _every_place(y, x, w, b, deep, high, wide, numbers, e, w_tap, mode, gradient):  # type: ignore[no-untyped-def]
    """y of x and w or, with ``gradient``, w of x and y; w has ``w_tap`` floats a tap, E of which count."""
    size_d, size_h, size_w, kernel_h, kernel_w = numbers[0], numbers[1], numbers[2], numbers[4], numbers[5]
    plane_x, plane_w = numbers[6] * size_h * size_w * e, numbers[7] * kernel_h * kernel_w * w_tap
    line_x, line_w = numbers[8] * size_w * e, numbers[9] * kernel_w * w_tap
    tap_x, tap_w, apart = numbers[10] * e, numbers[11] * w_tap, numbers[12]
    full = e // LANES * LANES
    row = 0
    for image in range(x.size // (size_d * size_h * size_w * e)):
        for d in range(len(deep)):
            for h in range(len(high)):
                line = ((image * size_d + deep[d, FIRST]) * size_h + high[h, FIRST]) * size_w
                kernel = (deep[d, WEIGHT] * kernel_h + high[h, WEIGHT]) * kernel_w
                for phase in range(min(apart, len(wide))):
                    o = phase
                    while o < len(wide):
                        count = 4 if wide[o, FOUR] else 1
                        step = apart if count == 4 else 0
                        o1, o2, o3 = o + step, o + 2 * step, o + 3 * step
                        places = (row + o) * e, (row + o1) * e, (row + o2) * e, (row + o3) * e
                        reads = (
                            (line + wide[o, FIRST]) * e,
                            (line + wide[o1, FIRST]) * e,
                            (line + wide[o2, FIRST]) * e,
                            (line + wide[o3, FIRST]) * e,
                        )
                        tap = (kernel + wide[o, WEIGHT]) * w_tap
                        taps_d, taps_h, taps_w = deep[d, TAPS], high[h, TAPS], wide[o, TAPS]
                        walk = taps_d, plane_x, plane_w, taps_h, line_x, line_w, taps_w, tap_x, tap_w
                        for c in range(0, full, LANES):
                            _channels(y, places, x, reads, w, tap, walk, count, b, mode, gradient, c, LANES)
                        if full < e:
                            _channels(y, places, x, reads, w, tap, walk, count, b, mode, gradient, full, e - full)
                        o += count * apart
                row += len(wide)


@compiled(OUT1, IN1, IN1, IN1, TABLE, TABLE, TABLE, INDEX, INTEGER, INTEGER)
def _outputs(y, x, w, b, deep, high, wide, numbers, e, mode):  # type: ignore[no-untyped-def]
    _every_place(y, x, w, b, deep, high, wide, numbers, e, e, mode, False)


@compiled(OUT1, IN1, IN1, TABLE, TABLE, TABLE, INDEX, INTEGER)
def _weights(dw, x, g, deep, high, wide, numbers, e):  # type: ignore[no-untyped-def]
    w_tap = whole(e, LANES)
    sums = np.zeros(dw.size // e * w_tap, np.float32)
    _every_place(g, x, sums, g[:0], deep, high, wide, numbers, e, w_tap, PLAIN, True)
    for tap in range(dw.size // e):
        for i in range(e):
            dw[tap * e + i] = sums[tap * w_tap + i]


@compiled(OUT1, IN1, INTEGER)
def _add_neighbours(y, parts, m):  # type: ignore[no-untyped-def]
    """Each element of y is the sum of m parts."""
    for i in range(y.size):
        total = parts[i * m]
        for j in range(1, m):
            total += parts[i * m + j]
        y[i] = total


@compiled(OUT1, IN1, INTEGER)
def _repeat(y, x, m):  # type: ignore[no-untyped-def]
    """Each element of x, m times."""
    for i in range(x.size):
        for j in range(m):
            y[i * m + j] = x[i]


def _repeated(x: np.ndarray, m: int) -> np.ndarray:
    """``x (N, ..., C)`` with every channel M times, flat."""
    if m == 1:
        return x.reshape(-1)
    y = np.empty(x.size * m, np.float32)
    _repeat.run(y, x.reshape(-1), m)
    return y


def _convolve(y: np.ndarray, x: np.ndarray, w: np.ndarray, b: np.ndarray, attrs: dict[str, Any], mode: int) -> None:
    tables = _tables(_forward, x.shape[1:-1], y.shape[1:-1], w.shape[:-2], attrs)
    _outputs.run(y.reshape(-1), _repeated(x, w.shape[-1]), w.reshape(-1), b, *tables, y.shape[-1], mode)


@kernel
def depthwise_conv(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, w = inputs
    _convolve(outputs[0], x, w, EMPTY, attrs, PLAIN)


@kernel
def fused_depthwise_conv(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, w, *b = inputs
    activation = attrs["activation"]
    _convolve(outputs[0], x, w, b[0] if b else EMPTY, attrs, RELU if activation == "relu" else PLAIN)
    if activation not in ("linear", "relu"):
        KERNELS[activation](outputs, outputs, {})


@kernel
def depthwise_conv_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    (dx,), (g, w) = outputs, inputs
    m = w.shape[-1]
    parts = dx if m == 1 else np.empty((*dx.shape, m), np.float32)
    tables = _tables(_backward, dx.shape[1:-1], g.shape[1:-1], w.shape[:-2], attrs)
    _outputs.run(parts.reshape(-1), g.reshape(-1), w.reshape(-1), EMPTY, *tables, g.shape[-1], PLAIN)
    if m > 1:
        _add_neighbours.run(dx.reshape(-1), parts.reshape(-1), m)


@kernel
def depthwise_conv_dw(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    (dw,), (x, g) = outputs, inputs
    tables = _tables(_forward, x.shape[1:-1], g.shape[1:-1], dw.shape[:-2], attrs)
    _weights.run(dw.reshape(-1), _repeated(x, dw.shape[-1]), g.reshape(-1), *tables, g.shape[-1])

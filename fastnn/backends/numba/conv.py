"""Convolution, its gradients, and the transposed convolution, of signals, images and volumes.

All are matrix products over the windows, of which a block at a time is copied into a matrix of patches (pixels, K) with
K = taps * channels. Sums over K are cut into parts of at most PART terms, each summed from its first term on; an output
does not depend on its block. Along each axis, tap t of output j sees the input ``j * move + offsets[t]``: so it is for
conv, and for each of the ``stride`` phases of the outputs of conv_dx, on which the same taps lie.

N batch, D H W space, C channels, F filters.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from fastnn.backends.numba.elementary import ZERO
from fastnn.backends.numba.jit import IN1, INDEX, INTEGER, KERNELS, OUT1, Arrays, compiled, inner, kernel
from fastnn.backends.numba.tile import COUNT, EMPTY, PLAIN, RELU, RELU_DX, ROWS, TABLE, WIDE, deliver, tile, walk, whole
from fastnn.backends.numba.vector import LANES, fill, load, load_some, pointer, store

#: Terms of a sum that one tile adds up: so many rows of weights stay in the first-level cache.
PART = 256
#: Pixels of a block: a multiple of ROWS.
PIXELS = 96

#: What is known of an axis: outputs of this phase, the first one and the distance to the next; sizes of the output and
#: the input; how far the window moves; how many taps it has.
FIRST, STEP, OUTPUT, INPUT, MOVE, TAPS = range(COUNT + 1, 7)


# Geometry: for each axis its row of the table, offsets of the taps, and which taps these are


def _forward_axis(size: int, output: int, kernel: int, stride: int, dilation: int, before: int) -> list[Any]:
    taps = list(range(kernel))
    return [([output, 0, 1, output, size, stride, kernel], [t * dilation - before for t in taps], taps)]


def _backward_axis(size: int, output: int, kernel: int, stride: int, dilation: int, before: int) -> list[Any]:
    """Of conv_dx, which makes ``size`` elements out of ``output``: one entry for each phase."""
    phases = []
    for first in range(min(stride, size)):
        taps = [t for t in range(kernel)[::-1] if (first + before - t * dilation) % stride == 0]
        offsets = [(first + before - t * dilation) // stride for t in taps]
        count = (size - first + stride - 1) // stride
        phases.append(([count, first, stride, size, output, 1, len(taps)], offsets, taps))
    return phases


def _axes(axis: Any, sizes: Any, outputs: Any, kernel: Any, attrs: dict[str, Any]) -> list[Any]:
    """Table, offsets and numbers of the taps for each combination of the phases of three axes."""
    strides, dilations = attrs["strides"], attrs["dilations"]
    befores = [before for before, _ in attrs["pads"]]
    missing = 3 - len(kernel)
    numbers = [(1, 1, 1, 1, 1, 0)] * missing
    numbers += zip(sizes, outputs, kernel, strides, dilations, befores, strict=True)
    height, width = numbers[1][2], numbers[2][2]
    found = []
    for d, h, w in itertools.product(*(axis(*n) for n in numbers)):
        taps = [(a * height + b) * width + c for a, b, c in itertools.product(d[2], h[2], w[2])]
        offsets = np.array(d[1] + h[1] + w[1], np.int64)
        found.append((np.array([d[0], h[0], w[0]], np.int64), offsets, np.array(taps, np.int64)))
    return found


# Patches


@inner
def _runs(axes, offsets, part_taps):  # type: ignore[no-untyped-def]
    """Taps side by side along W, none of them across the border of a part: (runs, 5) their offsets along D and H, the
    first one's along W, how many they are, the distance between them; and the first run of each part.
    """
    taps_d, taps_h, taps_w = axes[0, TAPS], axes[1, TAPS], axes[2, TAPS]
    taps = taps_d * taps_h * taps_w
    distance = offsets[taps_d + taps_h + 1] - offsets[taps_d + taps_h] if taps_w > 1 else 1
    runs = np.empty((taps, 5), np.int64)
    starts = np.empty(taps + 1, np.int64)
    count, parts, t = 0, 0, 0
    while t < taps:
        if t % part_taps == 0:
            starts[parts] = count
            parts += 1
        row, first = t // taps_w, t % taps_w
        size = min(taps_w - first, part_taps - t % part_taps)
        runs[count, 0], runs[count, 1] = offsets[row // taps_h], offsets[taps_d + row % taps_h]
        runs[count, 2], runs[count, 3] = offsets[taps_d + taps_h + first], size
        runs[count, 4] = distance
        count += 1
        t += size
    starts[parts] = count
    return runs, starts[: parts + 1]


@inner
def _copy(target, at, source, first, n):  # type: ignore[no-untyped-def]
    """n floats; up to LANES behind them are overwritten."""
    for i in range(0, n - LANES + 1, LANES):
        store(target, at + i, load(source, first + i))
    rest = n % LANES
    if rest:
        store(target, at + n - rest, load_some(source, first + n - rest, rest))


@inner
def _clear(target, at, n):  # type: ignore[no-untyped-def]
    """n zeros; up to LANES behind them are overwritten."""
    for i in range(0, n, LANES):
        store(target, at + i, fill(ZERO))


@inner
def _gather(patches, x, pixels, size, axes, runs, begin, end, all_channels, first, channels):  # type: ignore[no-untyped-def]
    """Copy what some runs of taps see of ``channels`` channels from ``first`` on: (size, taps * channels)."""
    depth, height, width = axes[0, INPUT], axes[1, INPUT], axes[2, INPUT]
    target, source, at = pointer(patches, 0), pointer(x, first), 0
    for i in range(size):
        start_d = pixels[i, 1] * axes[0, MOVE]
        start_h = pixels[i, 2] * axes[1, MOVE]
        start_w = pixels[i, 3] * axes[2, MOVE]
        for r in range(begin, end):
            d, h, w = start_d + runs[r, 0], start_h + runs[r, 1], start_w + runs[r, 2]
            taps, step = runs[r, 3], runs[r, 4]
            line = ((pixels[i, 0] * depth + d) * height + h) * width
            if not (0 <= d < depth and 0 <= h < height):
                _clear(target, at, taps * channels)
            elif channels == all_channels and step == 1 and w >= 0 and w + taps <= width:
                _copy(target, at, source, (line + w) * channels, taps * channels)
            else:
                for t in range(taps):
                    if 0 <= w < width:
                        _copy(target, at + t * channels, source, (line + w) * all_channels, channels)
                    else:
                        _clear(target, at + t * channels, channels)
                    w += step
            at += taps * channels


# conv and conv_dx


@inner
def _pack(packed, w, taps, channels, filters, groups, group, transposed):  # type: ignore[no-untyped-def]
    """The weights of a group as panels (taps * channels, WIDE), filled up with zeros: of the kernel (taps, channels,
    filters) or, transposed, (taps, filters, channels).
    """
    k = taps.size * channels
    if transposed:
        from_tap, from_channel, from_filter = filters * channels * groups, 1, channels * groups
        first = group * channels
    else:
        from_tap, from_channel, from_filter = channels * filters * groups, filters * groups, 1
        first = group * filters
    for j in range(0, filters, WIDE):
        columns = min(WIDE, filters - j)
        for t in range(taps.size):
            for c in range(channels):
                source = first + taps[t] * from_tap + c * from_channel + j * from_filter
                target = j * k + (t * channels + c) * WIDE
                for f in range(columns):
                    packed[target + f] = w[source + f * from_filter]
                for f in range(columns, WIDE):
                    packed[target + f] = ZERO


@inner
def _deliver(y, sums, pixels, size, axes, all_filters, first, filters, b, like, mode):  # type: ignore[no-untyped-def]
    """Put the sums, panels (PIXELS, WIDE), where they belong, with bias and activation."""
    target, pattern, biased = pointer(y, 0), pointer(like, 0), b.size > 0
    for i in range(size):
        place = pixels[i, 0]
        for a in range(3):
            place = place * axes[a, OUTPUT] + axes[a, FIRST] + pixels[i, a + 1] * axes[a, STEP]
        at = place * all_filters + first
        for j in range(0, filters, LANES):
            v = load(pointer(sums, (j // WIDE * PIXELS + i) * WIDE + j % WIDE), 0)
            deliver(target, at + j, v, min(LANES, filters - j), pointer(b, first + j), biased, pattern, mode)


@compiled(OUT1, IN1, IN1, IN1, IN1, TABLE, INDEX, INDEX, INTEGER, INTEGER, INTEGER, INTEGER, INTEGER, INTEGER)
def _convolve(y, x, w, b, like, axes, offsets, taps, batch, channels, filters, groups, transposed, mode):  # type: ignore[no-untyped-def]
    """One phase of ``y (N, ..., groups * filters)``; x has groups * channels."""
    k = taps.size * channels
    part_channels = min(channels, PART)
    part_taps = max(1, min(taps.size, PART // channels))
    panels = whole(filters, WIDE)
    packed = np.empty(k * panels, np.float32)
    patches = np.zeros(PIXELS * part_taps * part_channels + LANES + ROWS, np.float32)
    sums = np.zeros(PIXELS * panels, np.float32)
    pixels = np.zeros((PIXELS + 1, 4), np.int64)
    runs, starts = _runs(axes, offsets, part_taps)
    total = batch * axes[0, COUNT] * axes[1, COUNT] * axes[2, COUNT]
    for group in range(groups):
        _pack(packed, w, taps, channels, filters, groups, group, transposed)
        pixels[-1] = 0
        for first in range(0, total, PIXELS):
            size = min(PIXELS, total - first)
            walk(pixels, size, axes)
            for part in range(starts.size - 1):
                some_taps = min(part_taps, taps.size - part * part_taps)
                for c in range(0, channels, part_channels):
                    some = min(part_channels, channels - c)
                    _gather(
                        patches, x, pixels, size, axes, runs, starts[part], starts[part + 1],
                        channels * groups, group * channels + c, some,
                    )  # fmt: skip
                    n, row = some_taps * some, part * part_taps * channels + c
                    for j in range(0, filters, WIDE):
                        for i in range(0, size, ROWS):
                            tile(
                                sums, j * PIXELS + i * WIDE, WIDE, patches, i * n, n, 1,
                                packed, j * k + row * WIDE, WIDE, n, row > 0,
                            )  # fmt: skip
            _deliver(y, sums, pixels, size, axes, filters * groups, group * filters, filters, b, like, mode)


# conv_dw


@compiled(OUT1, IN1, IN1, TABLE, INDEX, INTEGER, INTEGER, INTEGER, INTEGER)
def _weights(dw, x, g, axes, offsets, batch, channels, filters, groups):  # type: ignore[no-untyped-def]
    """``dw (taps, channels, groups * filters)``: sums over the pixels of blocks, added up in their order."""
    taps = axes[0, TAPS] * axes[1, TAPS] * axes[2, TAPS]
    part_channels = min(channels, PART)
    part_taps = max(1, min(taps, PART // channels))
    panels = whole(filters, WIDE)
    part = whole(part_taps * part_channels, ROWS)  # a part of dw with room for whole tiles
    parts = -(-taps // part_taps) * -(-channels // part_channels)
    sums = np.zeros(parts * part * panels, np.float32)
    patches = np.zeros(PIXELS * part_taps * part_channels + LANES + ROWS, np.float32)
    slopes = np.zeros(PIXELS * panels, np.float32)
    pixels = np.zeros((PIXELS + 1, 4), np.int64)
    runs, starts = _runs(axes, offsets, part_taps)
    total = batch * axes[0, COUNT] * axes[1, COUNT] * axes[2, COUNT]
    for group in range(groups):
        pixels[-1] = 0
        for first in range(0, total, PIXELS):
            size = min(PIXELS, total - first)
            walk(pixels, size, axes)
            rows, copies = pointer(g, (first * groups + group) * filters), pointer(slopes, 0)
            for i in range(size):
                for j in range(0, filters, WIDE):
                    _copy(copies, (j * PIXELS) + i * WIDE, rows, i * groups * filters + j, min(WIDE, filters - j))
            number = 0
            for p in range(starts.size - 1):
                some_taps = min(part_taps, taps - p * part_taps)
                for c in range(0, channels, part_channels):
                    some = min(part_channels, channels - c)
                    _gather(
                        patches, x, pixels, size, axes, runs, starts[p], starts[p + 1],
                        channels * groups, group * channels + c, some,
                    )  # fmt: skip
                    n = some_taps * some
                    for j in range(0, filters, WIDE):
                        for i in range(0, n, ROWS):
                            tile(
                                sums, (number * panels + j) * part + i * WIDE, WIDE, patches, i, 1, n,
                                slopes, j * PIXELS, WIDE, size, first > 0,
                            )  # fmt: skip
                    number += 1
        number = 0
        for tap in range(0, taps, part_taps):
            for c in range(0, channels, part_channels):
                rows = min(part_taps, taps - tap) * min(part_channels, channels - c)
                for i in range(rows):
                    target = ((tap * channels + c + i) * groups + group) * filters
                    for j in range(0, filters, WIDE):
                        source = (number * panels + j) * part + i * WIDE
                        for f in range(min(WIDE, filters - j)):
                            dw[target + j + f] = sums[source + f]
                number += 1


# Kernels


def _forward(y: Any, x: Any, w: Any, b: Any, attrs: dict[str, Any], mode: int = PLAIN) -> None:
    groups = attrs["groups"]
    for axes, offsets, taps in _axes(_forward_axis, x.shape[1:-1], y.shape[1:-1], w.shape[:-2], attrs):
        _convolve.run(
            y.reshape(-1), x.reshape(-1), w.reshape(-1), b, EMPTY, axes, offsets, taps,
            len(x), w.shape[-2], w.shape[-1] // groups, groups, False, mode,
        )  # fmt: skip


def _backward(dx: Any, g: Any, w: Any, like: Any, attrs: dict[str, Any], mode: int = PLAIN) -> None:
    groups = attrs["groups"]
    for axes, offsets, taps in _axes(_backward_axis, dx.shape[1:-1], g.shape[1:-1], w.shape[:-2], attrs):
        if not taps.size:
            outputs = tuple(slice(first, None, step) for first, step in axes[:, [FIRST, STEP]])
            dx.reshape(len(dx), *axes[:, OUTPUT], dx.shape[-1])[(slice(None), *outputs)] = 0.0
            continue
        _convolve.run(
            dx.reshape(-1), g.reshape(-1), w.reshape(-1), EMPTY, like, axes, offsets, taps,
            len(g), w.shape[-1] // groups, w.shape[-2], groups, True, mode,
        )  # fmt: skip


@kernel
def conv(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, w = inputs
    _forward(outputs[0], x, w, EMPTY, attrs)


@kernel
def fused_conv(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, w, *b = inputs
    activation = attrs["activation"]
    _forward(outputs[0], x, w, b[0] if b else EMPTY, attrs, RELU if activation == "relu" else PLAIN)
    if activation not in ("linear", "relu"):
        KERNELS[activation](outputs, outputs, {})


@kernel
def conv_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    g, w = inputs
    _backward(outputs[0], g, w, EMPTY, attrs)


@kernel
def fused_conv_transpose(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    g, w, *b = inputs
    _backward(outputs[0], g, w, EMPTY, attrs)
    if b:
        KERNELS["add_bias"](outputs, (outputs[0], *b), {})
    if attrs["activation"] != "linear":
        KERNELS[attrs["activation"]](outputs, outputs, {})


@kernel
def fused_conv_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    g, w, y = inputs
    activation = attrs["activation"]
    if activation == "relu":
        _backward(outputs[0], g, w, y.reshape(-1), attrs, RELU_DX)
        return
    _backward(outputs[0], g, w, EMPTY, attrs)
    if activation != "linear":
        KERNELS[f"{activation}_dx"](outputs, (outputs[0], y), {})


@kernel
def conv_dw(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    (dw,), (x, g), groups = outputs, inputs, attrs["groups"]
    for axes, offsets, _ in _axes(_forward_axis, x.shape[1:-1], g.shape[1:-1], dw.shape[:-2], attrs):
        _weights.run(
            dw.reshape(-1), x.reshape(-1), g.reshape(-1), axes, offsets,
            len(x), dw.shape[-2], dw.shape[-1] // groups, groups,
        )  # fmt: skip

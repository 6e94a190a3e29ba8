"""Convolution by Winograd's algorithm; ``fastnn/ops/winograd.py`` has the mathematics.

A block of tiles is transformed to V (points, tiles, K), K = KD * C, multiplied by the weights U (points, panels, K, 32)
to M (points, panels, tiles, WIDE), and transformed back. The transforms work on vectors of channels. An output does not
depend on the other tiles.

N batch, D H W space, C channels, F filters.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.backends.numba.elementary import ZERO
from fastnn.backends.numba.jit import IN1, INTEGER, KERNELS, OUT1, Arrays, compiled, inner, kernel
from fastnn.backends.numba.tile import COUNT, EMPTY, PLAIN, RELU, RELU_DX, ROWS, TABLE, WIDE, deliver, tile, walk, whole
from fastnn.backends.numba.transform import gradients_of, inputs_of, multiply, outputs_of, put, some_inputs_of
from fastnn.backends.numba.vector import LANES, fill, fma, load, load_some, pointer, spread, store, store_some
from fastnn.ops.declare import OPS
from fastnn.ops.window import output_sizes
from fastnn.ops.winograd import PANEL, POINTS, matrices, pool_attrs

#: Tiles of a block, a multiple of ROWS; the larger number where it is the weights that take longest to read.
TILES, MANY_TILES, LARGE = 48, 96, 192
#: Channels, and filters, of a block of the weights' gradient, whose sums are to stay in the cache.
BLOCK = 128
#: Rows of transformed weights that are written at a time.
FEW = 16
#: Terms of a sum that one tile of the product adds up.
PART = 512

#: What is known of an axis: tiles, outputs of a tile, zeros before, sizes of the input and the output, taps, points.
STEP, BEFORE, INPUT, OUTPUT, TAPS, SIDE = range(COUNT + 1, 7)

def _axes(inputs: Any, outputs: Any, kernel: Any, pads: Any) -> np.ndarray:
    rows = [[1, 1, 0, 1, 1, 1, 1]] * (3 - len(kernel))
    for size, output, taps, (before, _) in zip(inputs, outputs, kernel, pads, strict=True):
        side = POINTS if rows and taps > 1 else 1
        step = POINTS - taps + 1 if side > 1 else 1
        rows.append([-(-output // step), step, before, size, output, taps, side])
    return np.array(rows, np.int64)


# Weights


@compiled(OUT1, IN1, IN1, IN1, INTEGER, INTEGER, INTEGER, INTEGER, INTEGER, INTEGER)
def _transform_weights(u, w, g_high, g_wide, depth, high, wide, channels, filters, flip):  # type: ignore[no-untyped-def]
    """``u (points, panels, depth * C, 32)`` of ``w (depth, high, wide, channels, filters)``; C = filters with flip."""
    rows, columns = (filters, channels) if flip else (channels, filters)
    side_h, side_w, k, panels = g_high.size // high, g_wide.size // wide, depth * rows, whole(columns, PANEL) // PANEL
    taps, half = np.empty(high * wide * LANES, np.float32), np.empty(side_h * wide * LANES, np.float32)
    left, right, source, middle = pointer(g_high, 0), pointer(g_wide, 0), pointer(taps, 0), pointer(half, 0)
    point = FEW * PANEL
    block = np.empty(side_h * side_w * point, np.float32)  # of u: its points lie far apart, often by a power of two
    for panel in range(panels):
        for first in range(0, k, FEW):
            count = min(FEW, k - first)
            for i in range(count):
                d, row = (first + i) // rows, (first + i) % rows
                for j in range(0, PANEL, LANES):
                    taps[:] = ZERO
                    for t in range(high * wide):
                        tap = (depth - d) * high * wide - 1 - t if flip else d * high * wide + t
                        for f in range(min(LANES, columns - panel * PANEL - j)):
                            column = panel * PANEL + j + f
                            place = column * filters + row if flip else row * filters + column
                            taps[t * LANES + f] = w[tap * channels * filters + place]
                    for t in range(wide):
                        multiply(middle, t * LANES, wide * LANES, source, t * LANES, wide * LANES, left,
                                  side_h, high, high, 1)  # fmt: skip
                    for t in range(side_h):
                        multiply(pointer(block, i * PANEL + j), t * side_w * point, point, middle, t * wide * LANES,
                                  LANES, right, side_w, wide, wide, 1)  # fmt: skip
            for t in range(side_h * side_w):
                target, copied = pointer(u, ((t * panels + panel) * k + first) * PANEL), pointer(block, t * point)
                for i in range(0, count * PANEL, LANES):
                    store(target, i, load(copied, i))


# Inputs, outputs and gradients of tiles


@inner
def _cut(patch, x, image, h, w, axes, all_channels, first, channels):  # type: ignore[no-untyped-def]
    """What a tile at (h, w) sees of some channels, with zeros around the image: ``patch (side, POINTS, channels)``."""
    height, width = axes[1, INPUT], axes[2, INPUT]
    target = 0
    for i in range(h, h + axes[1, SIDE]):
        for j in range(w, w + POINTS):
            if 0 <= i < height and 0 <= j < width:
                source = ((image * height + i) * width + j) * all_channels + first
                for c in range(channels):
                    patch[target + c] = x[source + c]
            else:
                for c in range(channels):
                    patch[target + c] = ZERO
            target += channels


@inner
def _transform_tile(v, point, x, row, column, channels, high, half):  # type: ignore[no-untyped-def]
    """B' d B of one tile; rows of x are ``row`` apart, its columns ``column``, the points of v ``point``."""
    for c in range(0, channels, LANES):
        n = min(LANES, channels - c)
        if high == 1:
            if n == LANES:
                put(v, c, point, inputs_of(x, c, column))
            else:
                put(v, c, point, some_inputs_of(x, c, column, n))
        else:
            if n == LANES:
                for j in range(POINTS):
                    put(half, j * LANES, POINTS * LANES, inputs_of(x, j * column + c, row))
            else:
                for j in range(POINTS):
                    put(half, j * LANES, POINTS * LANES, some_inputs_of(x, j * column + c, row, n))
            for i in range(POINTS):
                put(v, i * POINTS * point + c, point, inputs_of(half, i * POINTS * LANES, LANES))


@inner
def _transform_tiles(v, point, x, tiles, size, axes, all_channels, first, channels, patch, half):  # type: ignore[no-untyped-def]
    """V of a block, of some channels. Vectors that reach beyond the channels are written over by what comes next."""
    depth, height, width, high = axes[0, INPUT], axes[1, INPUT], axes[2, INPUT], axes[1, SIDE]
    for t in range(size):
        h = tiles[t, 2] * axes[1, STEP] - axes[1, BEFORE]
        w = tiles[t, 3] * axes[2, STEP] - axes[2, BEFORE]
        inside = h >= 0 and w >= 0 and h + high <= height and w + POINTS <= width
        for tap in range(axes[0, TAPS]):
            d = tiles[t, 1] + tap - axes[0, BEFORE]
            image = tiles[t, 0] * depth + d
            at = (t * axes[0, TAPS] + tap) * channels
            if d < 0 or d >= depth:
                for i in range(high * POINTS):
                    for c in range(channels):
                        v[i * point + at + c] = ZERO
            elif inside:
                source = pointer(x, ((image * height + h) * width + w) * all_channels + first)
                target, middle = pointer(v, at), pointer(half, 0)
                _transform_tile(target, point, source, width * all_channels, all_channels, channels, high, middle)
            else:
                _cut(patch, x, image, h, w, axes, all_channels, first, channels)
                source, target, middle = pointer(patch, 0), pointer(v, at), pointer(half, 0)
                _transform_tile(target, point, source, POINTS * channels, channels, channels, high, middle)


@inner
def _transform_back(y, m, tiles, size, axes, filters, b, like, mode, half):  # type: ignore[no-untyped-def]
    """A' M A of a block, with bias and activation, to y."""
    high, step_h, step_w = axes[1, SIDE], axes[1, STEP], axes[2, STEP]
    block = len(tiles) - 1
    point = whole(filters, WIDE) * block
    middle, target, pattern, biased = pointer(half, 0), pointer(y, 0), pointer(like, 0), b.size > 0
    for t in range(size):
        image = tiles[t, 0] * axes[0, OUTPUT] + tiles[t, 1]
        h, w = tiles[t, 2] * step_h, tiles[t, 3] * step_w
        rows, columns = min(step_h, axes[1, OUTPUT] - h), min(step_w, axes[2, OUTPUT] - w)
        place = (image * axes[1, OUTPUT] + h) * axes[2, OUTPUT] + w
        for f in range(0, filters, LANES):
            n = min(LANES, filters - f)
            source, bias = pointer(m, (f // WIDE * block + t) * WIDE + f % WIDE), pointer(b, f)
            if high > 1:
                for j in range(POINTS):
                    y0, y1, y2, y3 = outputs_of(source, j * point, POINTS * point, step_h == 4)
                    store(middle, j * LANES, y0)
                    store(middle, (POINTS + j) * LANES, y1)
                    store(middle, (2 * POINTS + j) * LANES, y2)
                    store(middle, (3 * POINTS + j) * LANES, y3)
            for i in range(rows):
                if high > 1:
                    y0, y1, y2, y3 = outputs_of(middle, i * POINTS * LANES, LANES, step_w == 4)
                else:
                    y0, y1, y2, y3 = outputs_of(source, 0, point, step_w == 4)
                at = (place + i * axes[2, OUTPUT]) * filters + f
                deliver(target, at, y0, n, bias, biased, pattern, mode)
                if columns > 1:
                    deliver(target, at + filters, y1, n, bias, biased, pattern, mode)
                if columns > 2:
                    deliver(target, at + 2 * filters, y2, n, bias, biased, pattern, mode)
                if columns > 3:
                    deliver(target, at + 3 * filters, y3, n, bias, biased, pattern, mode)


@compiled(OUT1, IN1, IN1, IN1, IN1, TABLE, INTEGER, INTEGER, INTEGER, INTEGER)
def _convolve(y, x, u, b, like, axes, batch, channels, filters, mode):  # type: ignore[no-untyped-def]
    k, points = axes[0, TAPS] * channels, axes[1, SIDE] * axes[2, SIDE]
    block = MANY_TILES if k > LARGE else TILES
    panels, all_filters = whole(filters, PANEL) // PANEL, whole(filters, WIDE)
    v_point, m_point = block * k + LANES, all_filters * block
    v, m = np.zeros(points * v_point, np.float32), np.zeros(points * m_point, np.float32)
    patch, half = np.empty(points * channels, np.float32), np.empty(POINTS * POINTS * LANES, np.float32)
    tiles = np.zeros((block + 1, 4), np.int64)
    total = batch * axes[0, COUNT] * axes[1, COUNT] * axes[2, COUNT]
    for first in range(0, total, block):
        size = min(block, total - first)
        walk(tiles, size, axes)
        _transform_tiles(v, v_point, x, tiles, size, axes, channels, 0, channels, patch, half)
        for point in range(points):
            for j in range(0, filters, WIDE):
                weights = (point * panels + j // PANEL) * k * PANEL + j % PANEL
                for c in range(0, k, PART):
                    n = min(PART, k - c)
                    for i in range(0, size, ROWS):
                        tile(
                            m, point * m_point + j * block + i * WIDE, WIDE, v, point * v_point + i * k + c, k, 1,
                            u, weights + c * PANEL, PANEL, n, c > 0,
                        )  # fmt: skip
        _transform_back(y, m, tiles, size, axes, filters, b, like, mode, half)


# The weights' gradient


@inner
def _transform_gradient(m, g, tiles, size, axes, all_filters, first, filters, half):  # type: ignore[no-untyped-def]
    """A g A' of a block, of some filters, zeros beyond the image: panels (TILES, WIDE) for each point."""
    high, step_h, step_w = axes[1, SIDE], axes[1, STEP], axes[2, STEP]
    point = whole(filters, WIDE) * TILES
    middle, zero = pointer(half, 0), fill(ZERO)
    for t in range(size):
        image = tiles[t, 0] * axes[0, OUTPUT] + tiles[t, 1]
        h, w = tiles[t, 2] * step_h, tiles[t, 3] * step_w
        rows, columns = min(step_h, axes[1, OUTPUT] - h), min(step_w, axes[2, OUTPUT] - w)
        place = (image * axes[1, OUTPUT] + h) * axes[2, OUTPUT] + w
        for f in range(0, filters, LANES):
            n = min(LANES, filters - f)
            target = pointer(m, (f // WIDE * TILES + t) * WIDE + f % WIDE)
            for i in range(step_h):
                g0 = g1 = g2 = g3 = zero
                if i < rows:
                    source = pointer(g, (place + i * axes[2, OUTPUT]) * all_filters + first + f)
                    g0 = load_some(source, 0, n)
                    if columns > 1:
                        g1 = load_some(source, all_filters, n)
                    if columns > 2:
                        g2 = load_some(source, 2 * all_filters, n)
                    if columns > 3:
                        g3 = load_some(source, 3 * all_filters, n)
                six = gradients_of(g0, g1, g2, g3, step_w == 4)
                if high > 1:
                    put(middle, i * POINTS * LANES, LANES, six)
                else:
                    put(target, 0, point, six)
            if high > 1:
                for j in range(POINTS):
                    g0, g1 = load(middle, j * LANES), load(middle, (POINTS + j) * LANES)
                    g2 = g3 = zero
                    if step_h == 4:
                        g2, g3 = load(middle, (2 * POINTS + j) * LANES), load(middle, (3 * POINTS + j) * LANES)
                    put(target, j * point, POINTS * point, gradients_of(g0, g1, g2, g3, step_h == 4))


@inner
def _finish(dw, sums, point, panel, channels, filters, first_c, c, first_f, f, axes, g_high, g_wide, half):  # type: ignore[no-untyped-def]
    """G' of the sums G for c channels from first_c on and f filters from first_f on: their part of dw."""
    high, wide, side_h, side_w = axes[1, TAPS], axes[2, TAPS], axes[1, SIDE], axes[2, SIDE]
    left, right, middle, given = pointer(g_high, 0), pointer(g_wide, 0), pointer(half, 0), pointer(sums, 0)
    for row in range(axes[0, TAPS] * c):
        for column in range(0, f, LANES):
            n = min(LANES, f - column)
            source = column // WIDE * panel + row * WIDE + column % WIDE
            for j in range(side_w):
                multiply(middle, j * LANES, POINTS * LANES, given, j * point + source, side_w * point, left,
                          high, side_h, 1, high)  # fmt: skip
            place = pointer(dw, (row // c * high * wide * channels + first_c + row % c) * filters + first_f + column)
            for i in range(high):
                for j in range(wide):
                    v = fill(ZERO)
                    for q in range(side_w):
                        v = fma(spread(right, q * wide + j), load(middle, (i * POINTS + q) * LANES), v)
                    store_some(place, (i * wide + j) * channels * filters, v, n)


@compiled(OUT1, IN1, IN1, IN1, IN1, TABLE, INTEGER, INTEGER, INTEGER)
def _weights(dw, x, g, g_high, g_wide, axes, batch, channels, filters):  # type: ignore[no-untyped-def]
    """``dw (depth, high, wide, channels, filters)``: sums over tiles, by blocks and in their order."""
    depth, points = axes[0, TAPS], axes[1, SIDE] * axes[2, SIDE]
    k, wide = depth * min(channels, BLOCK), whole(min(filters, BLOCK), WIDE)
    v, m = np.zeros(points * (TILES * k + LANES + ROWS), np.float32), np.zeros(points * TILES * wide, np.float32)
    sums = np.zeros(points * wide * whole(k, ROWS), np.float32)
    patch, half = np.empty(points * channels, np.float32), np.empty(POINTS * POINTS * LANES, np.float32)
    tiles = np.zeros((TILES + 1, 4), np.int64)
    total = batch * axes[0, COUNT] * axes[1, COUNT] * axes[2, COUNT]
    for first_f in range(0, filters, BLOCK):
        f = min(BLOCK, filters - first_f)
        wide = whole(f, WIDE)
        for first_c in range(0, channels, BLOCK):
            c = min(BLOCK, channels - first_c)
            k = depth * c
            panel, v_point = whole(k, ROWS) * WIDE, TILES * k + LANES + ROWS
            tiles[-1] = 0
            for first in range(0, total, TILES):
                size = min(TILES, total - first)
                walk(tiles, size, axes)
                _transform_tiles(v, v_point, x, tiles, size, axes, channels, first_c, c, patch, half)
                _transform_gradient(m, g, tiles, size, axes, filters, first_f, f, half)
                for point in range(points):
                    for j in range(wide // WIDE):
                        at = point * (wide // WIDE) + j
                        for i in range(0, k, ROWS):
                            tile(
                                sums, at * panel + i * WIDE, WIDE, v, point * v_point + i, 1, k,
                                m, at * TILES * WIDE, WIDE, size, first > 0,
                            )  # fmt: skip
            _finish(
                dw, sums, wide // WIDE * panel, panel, channels, filters, first_c, c, first_f, f, axes,
                g_high, g_wide, half,
            )  # fmt: skip


# Kernels


def _taps(kernel: Any) -> tuple[int, ...]:
    return (1,) * (3 - len(kernel)) + tuple(kernel)


def _g(taps: int) -> Any:
    return matrices(taps)[1].astype(np.float32).reshape(-1)


def _run(y: Any, x: Any, u: Any, b: Any, like: Any, attrs: dict[str, Any], mode: int) -> None:
    axes = _axes(x.shape[1:-1], y.shape[1:-1], attrs["kernel"], attrs["pads"])
    arrays = (a.reshape(-1) for a in (y, x, u, b, like))
    _convolve.run(*arrays, axes, len(x), x.shape[-1], attrs["filters"], mode)


@kernel
def winograd_weights(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    (w,) = inputs
    taps = _taps(w.shape[:-2])
    g_high, g_wide = _g(taps[1]), _g(taps[2])
    _transform_weights.run(outputs[0].reshape(-1), w.reshape(-1), g_high, g_wide, *taps, *w.shape[-2:], attrs["flip"])


def _made(u: Any, attrs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The transformed weights, which are there unless ``flip`` is given, and the attributes without it."""
    if attrs["flip"] is None:
        return u, attrs
    flip = {"flip": attrs["flip"]}
    made: Any = np.empty(OPS["winograd_weights"].shape(u.shape, **flip), np.float32)
    winograd_weights((made,), (u,), flip)
    return made, {**attrs, "flip": None}


@kernel
def winograd_conv(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, u, *b = inputs
    u, attrs = _made(u, attrs)
    activation = attrs["activation"]
    _run(outputs[0], x, u, b[0] if b else EMPTY, EMPTY, attrs, RELU if activation == "relu" else PLAIN)
    if activation not in ("linear", "relu"):
        KERNELS[activation](outputs, outputs, {})


@kernel
def winograd_conv_pool(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, u, *b = inputs
    u, attrs = _made(u, attrs)
    ones = (1,) * len(attrs["kernel"])
    space = output_sizes(x.shape[1:-1], attrs["kernel"], ones, ones, attrs["pads"])
    y = np.empty((1, *space, attrs["filters"]), np.float32)
    pool = pool_attrs(attrs["kernel"])
    for n in range(len(x)):
        winograd_conv((y,), (x[n : n + 1], u, *b), attrs)
        KERNELS["max_pool"]((outputs[0][n : n + 1],), (y,), pool)


@kernel
def winograd_conv_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    g, u, y = inputs
    u, attrs = _made(u, attrs)
    activation = attrs["activation"]
    _run(outputs[0], g, u, EMPTY, y, attrs, RELU_DX if activation == "relu" else PLAIN)
    if activation not in ("linear", "relu"):
        KERNELS[f"{activation}_dx"](outputs, (outputs[0], y), {})


@kernel
def winograd_conv_dw(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    (dw,), (x, g) = outputs, inputs
    axes = _axes(x.shape[1:-1], g.shape[1:-1], attrs["kernel"], attrs["pads"])
    taps = _taps(attrs["kernel"])
    arrays = (a.reshape(-1) for a in (dw, x, g))
    _weights.run(*arrays, _g(taps[1]), _g(taps[2]), axes, len(x), x.shape[-1], g.shape[-1])

"""Random changes of images. What each row draws is the reference's work: a few numbers. Here the images are changed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from fastnn.backends.numba.elementary import ZERO
from fastnn.backends.numba.jit import IN1, IN2, INTEGER, REAL, Arrays, compiled, inner, kernel
from fastnn.ops.augment import FAR, FILL_MODES, contrast_factors, row_numbers

_IN4 = types.Array(types.float32, 4, "C", readonly=True)
_OUT4 = types.Array(types.float32, 4, "C")
_FLAGS = types.Array(types.boolean, 1, "C", readonly=True)
_ONE = np.float32(1.0)
_CONSTANT, _NEAREST, _REFLECT, _WRAP = range(len(FILL_MODES))


@compiled(_OUT4, _IN4, _FLAGS, _FLAGS)
def _random_flip(y, x, across, down):  # type: ignore[no-untyped-def]
    rows, height, width, channels = x.shape
    for n in range(rows):
        for h in range(height):
            line = height - 1 - h if down[n] else h
            for w in range(width):
                pixel = width - 1 - w if across[n] else w
                for c in range(channels):
                    y[n, h, w, c] = x[n, line, pixel, c]


@kernel
def random_flip(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, step = inputs
    numbers = row_numbers(len(x), int(step[0]), seed=attrs["seed"], stream=attrs["stream"])
    wanted = np.array([[attrs["horizontal"]], [attrs["vertical"]]], bool)
    across, down = (numbers[:2] < 0.5) & wanted
    _random_flip.run(outputs[0], x, across, down)


@inner
def _extended(index, size, mode):  # type: ignore[no-untyped-def]
    """The pixel at ``index`` of an axis that goes on beyond its ends; -1 for the filling."""
    if 0 <= index < size:
        return index
    if mode == _CONSTANT:
        return -1
    if mode == _NEAREST:
        return 0 if index < 0 else size - 1
    if mode == _WRAP:
        return index % size
    index %= 2 * size
    return index if index < size else 2 * size - 1 - index


@inner
def _inside(at):  # type: ignore[no-untyped-def]
    """A place that is too far off, or not a number, on the edge of what counts."""
    if not at > -FAR:
        return -FAR
    return min(at, FAR)


@inner
def _samples(place, weight, a, b, height, width, bilinear, mode):  # type: ignore[no-untyped-def]
    """How many pixels are blended at column a, row b; their numbers in the image, -1 for the filling, and weights."""
    a, b = _inside(a), _inside(b)
    if not bilinear:
        column = _extended(int(np.floor(a + 0.5)), width, mode)
        row = _extended(int(np.floor(b + 0.5)), height, mode)
        place[0] = -1 if row < 0 or column < 0 else row * width + column
        weight[0] = _ONE
        return 1
    left, top = np.floor(a), np.floor(b)
    across, down = a - left, b - top
    for t in range(4):
        column = _extended(int(left) + t % 2, width, mode)
        row = _extended(int(top) + t // 2, height, mode)
        place[t] = -1 if row < 0 or column < 0 else row * width + column
        share = np.float32(down if t // 2 else 1.0 - down)
        weight[t] = share * np.float32(across if t % 2 else 1.0 - across)
    return 4


@compiled(_OUT4, _IN4, IN2, INTEGER, INTEGER, REAL)
def _affine_transform(y, x, matrices, bilinear, mode, fill_value):  # type: ignore[no-untyped-def]
    rows, height, width, channels = x.shape
    place, weight, filling = np.empty(4, np.int64), np.empty(4, np.float32), np.float32(fill_value)
    for n in range(rows):
        pixels, m = x[n].reshape(height * width, channels), matrices[n].astype(np.float64)
        for i in range(height):
            for j in range(width):
                a, b = (m[1] * i + m[2]) + m[0] * j, (m[4] * i + m[5]) + m[3] * j
                taps = _samples(place, weight, a, b, height, width, bilinear, mode)
                for c in range(channels):
                    total = ZERO
                    for t in range(taps):
                        total += weight[t] * (filling if place[t] < 0 else pixels[place[t], c])
                    y[n, i, j, c] = total


@kernel
def affine_transform(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    bilinear, mode = attrs["interpolation"] == "bilinear", FILL_MODES.index(attrs["fill_mode"])
    _affine_transform.run(outputs[0], *inputs, bilinear, mode, attrs["fill_value"])


@compiled(_OUT4, _IN4, IN2, INTEGER, INTEGER)
def _affine_transform_dx(dx, g, matrices, bilinear, mode):  # type: ignore[no-untyped-def]
    rows, height, width, channels = g.shape
    place, weight = np.empty(4, np.int64), np.empty(4, np.float32)
    dx[...] = ZERO
    for n in range(rows):
        pixels, m = dx[n].reshape(height * width, channels), matrices[n].astype(np.float64)
        for i in range(height):
            for j in range(width):
                a, b = (m[1] * i + m[2]) + m[0] * j, (m[4] * i + m[5]) + m[3] * j
                for t in range(_samples(place, weight, a, b, height, width, bilinear, mode)):
                    if place[t] >= 0:
                        for c in range(channels):
                            pixels[place[t], c] += weight[t] * g[n, i, j, c]


@kernel
def affine_transform_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    bilinear, mode = attrs["interpolation"] == "bilinear", FILL_MODES.index(attrs["fill_mode"])
    _affine_transform_dx.run(outputs[0], *inputs, bilinear, mode)


@compiled(_OUT4, _IN4, IN1, REAL, REAL)
def _random_contrast(y, x, factors, low, high):  # type: ignore[no-untyped-def]
    rows, height, width, channels = x.shape
    total, least, most = np.empty(channels), np.float32(low), np.float32(high)
    for n in range(rows):
        pixels, out = x[n].reshape(height * width, channels), y[n].reshape(height * width, channels)
        total[:] = 0.0
        for p in range(len(pixels)):
            for c in range(channels):
                total[c] += pixels[p, c]
        mean, factor = (total / len(pixels)).astype(np.float32), factors[n]
        for p in range(len(pixels)):
            for c in range(channels):
                value = (pixels[p, c] - mean[c]) * factor + mean[c]
                value = most if value > most else value  # NaN comes through
                out[p, c] = least if value < least else value


@kernel
def random_contrast(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    x, step = inputs
    _random_contrast.run(outputs[0], x, _factors(len(x), step, attrs), *map(float, attrs["limits"]))


@compiled(_OUT4, _IN4, _IN4, IN1, REAL, REAL)
def _random_contrast_dx(dx, g, y, factors, low, high):  # type: ignore[no-untyped-def]
    rows, height, width, channels = g.shape
    total, least, most = np.empty(channels), np.float32(low), np.float32(high)
    for n in range(rows):
        total[:] = 0.0
        for i in range(height):
            for j in range(width):
                for c in range(channels):
                    kept = g[n, i, j, c] if least < y[n, i, j, c] < most else ZERO
                    dx[n, i, j, c] = factors[n] * kept
                    total[c] += kept
        share = (_ONE - factors[n]) * (total / (height * width)).astype(np.float32)
        for i in range(height):
            for j in range(width):
                for c in range(channels):
                    dx[n, i, j, c] += share[c]


@kernel
def random_contrast_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    g, y, step = inputs
    _random_contrast_dx.run(outputs[0], g, y, _factors(len(g), step, attrs), *map(float, attrs["limits"]))


def _factors(rows: int, step: Any, attrs: dict[str, Any]) -> Any:
    return contrast_factors(attrs["factors"], rows, int(step[0]), seed=attrs["seed"], stream=attrs["stream"])

"""Depthwise convolutions and their gradients as loops in float64, and random ones to try."""

from __future__ import annotations

import numpy as np

EPSILON = 2.0**-24


def places(position, tap, strides, dilations, before):
    return tuple(i * s + t * d - b for i, t, s, d, b in zip(position, tap, strides, dilations, before, strict=True))


def pairs(x_sizes, w, outputs, strides, dilations, before):
    """Each output, tap and input that go together."""
    for position in np.ndindex(*outputs):
        for tap in np.ndindex(*w.shape[:-2]):
            place = places(position, tap, strides, dilations, before)
            if all(0 <= p < size for p, size in zip(place, x_sizes, strict=True)):
                yield (slice(None), *position), tap, (slice(None), *place)


def convolved(x, w, outputs, *geometry):
    y = np.zeros((len(x), *outputs, *w.shape[-2:]))
    for position, tap, place in pairs(x.shape[1:-1], w, outputs, *geometry):
        for m in range(w.shape[-1]):
            y[position][:, :, m] += x[place] * w[tap][:, m]
    return y.reshape(*y.shape[:-2], -1)


def gradients(x, w, g, *geometry):
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    g = g.reshape(*g.shape[:-1], *w.shape[-2:])
    for position, tap, place in pairs(x.shape[1:-1], w, g.shape[1:-2], *geometry):
        for m in range(w.shape[-1]):
            dx[place] += g[position][:, :, m] * w[tap][:, m]
            dw[tap][:, m] += (x[place] * g[position][:, :, m]).sum(axis=0)
    return dx, dw


def along(size, kernel, stride, dilation, padding):
    """Zeros before and after and the output's size, along one axis."""
    covered = (kernel - 1) * dilation + 1
    if padding == "same":
        output = -(-size // stride)
        zeros = max(0, (output - 1) * stride + covered - size)
        return zeros // 2, zeros - zeros // 2, output
    before, after = (0, 0) if padding == "valid" else padding
    return before, after, (size + before + after - covered) // stride + 1


def drawn(rng, rank, free=False):
    """Random sizes, channels, multiplier, kernel, strides, dilations and padding that have an output; ``free``: strides
    and dilations both.
    """
    while True:
        sizes, kernel = (tuple(int(v) for v in rng.integers(1, top, rank)) for top in (24 - 6 * rank, 6 - rank // 3))
        strides = dilations = (1,) * rank
        choice = rng.integers(3)
        if choice == 1 or (free and choice):
            strides = tuple(int(v) for v in rng.integers(1, 5, rank))
        if choice == 2:
            dilations = tuple(int(v) for v in rng.integers(1, 4, rank))
        padding = ("valid", "same", "SAME", "pairs")[rng.integers(4)]
        axes = (padding.lower(),) * rank
        if padding == "pairs":
            padding = axes = tuple(tuple(int(v) for v in rng.integers(0, 4, 2)) for _ in range(rank))
        found = [along(*numbers) for numbers in zip(sizes, kernel, strides, dilations, axes, strict=True)]
        if min(output for _, _, output in found) > 0:
            c, m = int(rng.choice([1, 2, 3, 4, 7, 8, 9, 16, 17, 24, 33])), int(rng.choice([1, 1, 1, 2, 3, 4, 5, 18]))
            return sizes, c, m, kernel, strides, dilations, padding, found

"""Pooling by loops, and random cases of it: they share no code with the ops."""

from __future__ import annotations

import itertools

import numpy as np

EPSILON = 2.0**-24
NAN, INF = np.nan, np.inf


def before_and_after(size, kernel, stride, padding):
    """How many pixels windows reach over the two edges; the odd one comes after."""
    if padding == "valid":
        return 0, 0
    if padding == "same":
        missing = max((int(np.ceil(size / stride)) - 1) * stride + kernel - size, 0)
        return missing // 2, missing - missing // 2
    return padding


def stretches(size, kernel, stride, padding):
    """For each window along an axis the pixels in it."""
    before, after = before_and_after(size, kernel, stride, padding)
    starts = range(-before, size + after - kernel + 1, stride)
    return [[p for p in range(start, start + kernel) if 0 <= p < size] for start in starts]


def windows(sizes, kernel, strides, padding):
    """(output, its pixels in order) for each window."""
    pads = (padding,) * len(sizes) if isinstance(padding, str) else padding
    along = [stretches(*numbers) for numbers in zip(sizes, kernel, strides, pads, strict=True)]
    for output in itertools.product(*(range(len(axis)) for axis in along)):
        yield output, list(itertools.product(*(axis[o] for axis, o in zip(along, output, strict=True))))


def winner(values):
    """The place of the first NaN, else of the first of the largest."""
    best = 0
    for place, value in enumerate(values):
        if np.isnan(value):
            return place
        if value > values[best]:
            best = place
    return best


def pooled(x, kernel, strides, padding, average):
    """The result for float64 images, and a function from its gradient to theirs."""
    every = list(windows(x.shape[1:-1], kernel, strides, padding))
    y = np.zeros((len(x), *(1 + last for last in every[-1][0]), x.shape[-1]))
    shares = []
    for (output, pixels), n, c in itertools.product(every, range(len(x)), range(x.shape[-1])):
        values = [x[(n, *pixel, c)] for pixel in pixels]
        if average:
            y[(n, *output, c)] = sum(values) / len(values)
            shares += [((n, *output, c), (n, *pixel, c), 1 / len(values)) for pixel in pixels]
        else:
            first = winner(values)
            y[(n, *output, c)] = values[first]
            shares.append(((n, *output, c), (n, *pixels[first], c), 1.0))

    def backward(g):
        dx = np.zeros(x.shape)
        for output, pixel, share in shares:
            dx[pixel] += g[output] * share
        return dx

    return y, backward


def drawn(rng, rank):
    """A random window that fits, and images for it: ordinary ones, ones with ties, ones with NaN and infinities."""
    largest = (18, 8, 4)[rank - 1]
    sizes = tuple(int(rng.integers(1, largest + 1)) for _ in range(rank))
    kernel, strides = (tuple(int(rng.integers(1, 5)) for _ in range(rank)) for _ in range(2))
    choice = rng.integers(4)
    if choice < 2:
        padding = ("valid", "same")[choice]
    else:
        padding = tuple(tuple(int(p) for p in rng.integers(0, k, 2)) for k in kernel)
    along = ((padding,) * rank) if isinstance(padding, str) else padding
    if not all(stretches(*numbers) for numbers in zip(sizes, kernel, strides, along, strict=True)):
        return drawn(rng, rank)
    x = rng.standard_normal((2, *sizes, int(rng.choice([1, 2, 3, 5, 9, 17])))).astype(np.float32)
    kind = rng.integers(3)
    if kind == 1:
        x = np.round(x)
    if kind == 2:
        x = np.where(rng.random(x.shape) < 0.1, rng.choice(np.float32([NAN, INF, -INF, 0.0, -0.0]), x.shape), x)
    return x, kernel, strides, padding


def same(actual, wanted, tolerance):
    with np.errstate(invalid="ignore"):
        return np.all((abs(actual - wanted) <= tolerance) | (actual == wanted) | (np.isnan(actual) & np.isnan(wanted)))


def error(kernel, magnitude):
    """What float32 may make of sums over windows of so many terms, and a scale."""
    return 2 * EPSILON * (np.prod(kernel) + 2) * np.nan_to_num(magnitude, posinf=0.0)

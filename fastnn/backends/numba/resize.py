"""Up-sampling and its gradients. N batch; D H W sizes of the smaller array; C channels; KD KH KW factors.

Along an axis, k outputs lie between the centres of the inputs i and i + 1, the cell i: from ``i * k + k // 2`` on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from fastnn.backends.numba.elementary import ONE, ZERO
from fastnn.backends.numba.jit import INTEGER, Arrays, Compiled, compiled, inner, kernel

OUT5, IN5 = types.Array(types.float32, 5, "C"), types.Array(types.float32, 5, "C", readonly=True)


def _volume(array: Any) -> Any:
    """The array as (N, D, H, W, C)."""
    return array.reshape(array.shape[0], *(1,) * (5 - array.ndim), *array.shape[1:])


@inner
def _share(p, k):  # type: ignore[no-untyped-def]
    """The share that the second input of a cell has in its output p."""
    return np.float32((p + (0.0 if k % 2 else 0.5)) / k)


@inner
def _cell(o, k):  # type: ignore[no-untyped-def]
    """The cell in which output o lies, and its number there."""
    i = (o + k - k // 2) // k - 1
    return i, o - i * k - k // 2


@compiled(OUT5, IN5, INTEGER, INTEGER, INTEGER)
def _nearest(y, x, kd, kh, kw):  # type: ignore[no-untyped-def]
    for n in range(y.shape[0]):
        for d in range(y.shape[1]):
            for h in range(y.shape[2]):
                for w in range(x.shape[3]):
                    for q in range(w * kw, (w + 1) * kw):
                        for c in range(x.shape[4]):
                            y[n, d, h, q, c] = x[n, d // kd, h // kh, w, c]


@compiled(OUT5, IN5, INTEGER, INTEGER, INTEGER)
def _nearest_dx(dx, g, kd, kh, kw):  # type: ignore[no-untyped-def]
    width, channels = g.shape[3], g.shape[4]
    sums = np.empty((width, channels), np.float32)
    for n in range(dx.shape[0]):
        for d in range(dx.shape[1]):
            for h in range(dx.shape[2]):
                sums[:] = ZERO
                for i in range(d * kd, (d + 1) * kd):
                    for j in range(h * kh, (h + 1) * kh):
                        for w in range(width):
                            for c in range(channels):
                                sums[w, c] += g[n, i, j, w, c]
                for w in range(dx.shape[3]):
                    for c in range(channels):
                        dx[n, d, h, w, c] = sums[w * kw, c]
                    for q in range(w * kw + 1, (w + 1) * kw):
                        for c in range(channels):
                            dx[n, d, h, w, c] += sums[q, c]


@compiled(OUT5, IN5, INTEGER, INTEGER, INTEGER)
def _bilinear(y, x, kd, kh, kw):  # type: ignore[no-untyped-def]
    height, width, channels = x.shape[2], x.shape[3], x.shape[4]
    line = np.empty((width, channels), np.float32)
    for n in range(y.shape[0]):
        for h in range(y.shape[2]):
            i, p = _cell(h, kh)
            top, bottom, share = max(i, 0), min(i + 1, height - 1), _share(p, kh)
            for w in range(width):
                for c in range(channels):
                    line[w, c] = x[n, 0, top, w, c] * (ONE - share) + x[n, 0, bottom, w, c] * share
            for w in range(width * kw):
                i, p = _cell(w, kw)
                left, right, share = max(i, 0), min(i + 1, width - 1), _share(p, kw)
                for c in range(channels):
                    y[n, 0, h, w, c] = line[left, c] * (ONE - share) + line[right, c] * share


@compiled(OUT5, IN5, INTEGER, INTEGER, INTEGER)
def _bilinear_dx(dx, g, kd, kh, kw):  # type: ignore[no-untyped-def]
    height, width, channels = dx.shape[2], dx.shape[3], dx.shape[4]
    sums = np.empty((width * kw, channels), np.float32)
    for n in range(dx.shape[0]):
        for h in range(height):
            sums[:] = ZERO
            for o in range(max(0, (h - 1) * kh + kh // 2), min(height * kh, (h + 1) * kh + kh // 2)):
                i, p = _cell(o, kh)
                share = _share(p, kh)
                if i == h:
                    share = ONE if h == height - 1 else ONE - share
                elif i < 0:
                    share = ONE
                for w in range(width * kw):
                    for c in range(channels):
                        sums[w, c] += g[n, 0, o, w, c] * share
            dx[n, 0, h] = ZERO
            for o in range(width * kw):
                i, p = _cell(o, kw)
                share = _share(p, kw)
                left, right = max(i, 0), min(i + 1, width - 1)
                if left == right:
                    for c in range(channels):
                        dx[n, 0, h, left, c] += sums[o, c]
                else:
                    for c in range(channels):
                        dx[n, 0, h, left, c] += sums[o, c] * (ONE - share)
                        dx[n, 0, h, right, c] += sums[o, c] * share


def _run(function: Compiled, outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    factors = (1,) * (3 - len(attrs["kernel"])) + tuple(attrs["kernel"])
    function.run(_volume(outputs[0]), _volume(inputs[0]), *factors)


@kernel
def upsample_nearest(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _run(_nearest, outputs, inputs, attrs)


@kernel
def upsample_nearest_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _run(_nearest_dx, outputs, inputs, attrs)


@kernel
def upsample_bilinear(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _run(_bilinear, outputs, inputs, attrs)


@kernel
def upsample_bilinear_dx(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    _run(_bilinear_dx, outputs, inputs, attrs)

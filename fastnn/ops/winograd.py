"""Convolution with fewer multiplications (Winograd 1980; Lavin & Gray 2016, "Fast algorithms for convolutional neural
networks", arXiv 1509.09308), for stride 1: F(m, r) computes m outputs of a kernel of r elements from 6 = m + r - 1
inputs by 6 products.

In two dimensions, with the 6 x 6 inputs d of a tile and the kernel g,

    Y = A' [(G g G') * (B' d B)] A

where * multiplies elements and is summed over the channels: 36 matrix products. The interpolation points are 0,
+-sqrt(1/2), +-sqrt(2) and infinity, which lose four times less accuracy than 0, +-1, +-2 and infinity. The gradient
with respect to the kernel is the exact adjoint, dg = G' [sum over tiles of (B' d B) * (A dY A')] G; that with respect
to the input is a convolution with flipped weights. A kernel of one element along H is transformed along W only; depth
is summed like channels.

U, the transformed weights, has the shape (points, panels, KD * C, 32): filters lie in panels of 32, the last one filled
up with zeros, as the products read them. The convolutions take U, or the weights themselves, to be transformed on the
way: U has four times as many numbers (5x5: 1.44 times), and if no cache holds them it takes longer to write and read
them than to make them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.conv import (
    _flops,
    activated,
    activated_dx,
    activation_scale,
    check_activation,
    check_bias,
)
from fastnn.ops.declare import OPS, OUTPUT, Case, op
from fastnn.ops.pointwise import DENSE_ACTIVATIONS
from fastnn.ops.pool import max_pool
from fastnn.ops.window import Pads, output_sizes, padded

#: Inputs of a tile along each transformed axis.
POINTS = 6
#: Filters side by side in the transformed weights.
PANEL = 32
#: Kernel sizes along a transformed axis.
TAPS = (3, 5)


@cache
def matrices(taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A' (m, 6), G (6, taps), B' (6, 6) in float64; the identity where an axis is not transformed (taps = 1)."""
    if taps == 1:
        one = np.ones((1, 1))
        return one, one, one
    points = [0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2.0), -math.sqrt(2.0)]
    m = POINTS - taps + 1
    a, g, b = np.zeros((m, POINTS)), np.zeros((POINTS, taps)), np.zeros((POINTS, POINTS))
    for j, p in enumerate(points):
        others = [q for q in points if q != p]
        a[:, j] = [p**i for i in range(m)]
        g[j] = [p**k / math.prod(p - q for q in others) for k in range(taps)]
        b[j, :5] = np.poly(others)[::-1]
    a[-1, -1] = g[-1, -1] = 1.0
    b[-1] = np.poly(points)[::-1]
    return a, g, b


def fits(kernel: tuple[int, ...]) -> bool:
    """Whether there is a tile for the kernel: 3 or 5 along W, the same or 1 along H, anything along D."""
    depth, height, width = _space(kernel, 1)
    return width in TAPS and height in (1, width) and depth >= 1


def _space(values: tuple[Any, ...], nothing: Any) -> tuple[Any, ...]:
    """One value for each of D, H, W."""
    return (nothing,) * (3 - len(values)) + tuple(values)


def _points(kernel: tuple[int, ...]) -> int:
    return POINTS * (POINTS if _space(kernel, 1)[1] > 1 else 1)


def _check_kernel(kernel: tuple[int, ...]) -> None:
    if not fits(kernel):
        raise ValueError(f"kernel must be 3 or 5 along W, the same or 1 along H. Received: kernel={tuple(kernel)}")


# Weights


def _shape_weights(w: Shape, *, flip: bool) -> Shape:
    if not 3 <= len(w) <= 5:
        raise ValueError(f"needs w (*kernel, C, F). Received: {w}")
    kernel, c, f = w[:-2], w[-2], w[-1]
    _check_kernel(kernel)  # type: ignore[arg-type]
    c, f = (f, c) if flip else (c, f)
    depth = _space(kernel, 1)[0]
    return _points(kernel), -(-f // PANEL), depth * c, PANEL  # type: ignore[arg-type, operator]


def _transform_weights(w: np.ndarray, flip: bool, absolute: bool = False) -> Any:
    kernel = _space(w.shape[:-2], 1)
    w = w.reshape(*kernel, *w.shape[-2:])
    if flip:
        w = w[::-1, ::-1, ::-1].swapaxes(3, 4)
    g_h, g_w = (matrices(taps)[1] for taps in kernel[1:])
    if absolute:
        g_h, g_w = abs(g_h), abs(g_w)
    u = np.einsum("ih,jw,dhwcf->ijdcf", g_h.astype(w.dtype), g_w.astype(w.dtype), w, optimize=True)
    points, depth, (c, f) = len(g_h) * len(g_w), kernel[0], u.shape[-2:]
    panels = -(-f // PANEL)
    whole = np.zeros((points, depth * c, panels * PANEL), w.dtype)
    whole[..., :f] = u.reshape(points, depth * c, f)
    return np.ascontiguousarray(whole.reshape(points, depth * c, panels, PANEL).swapaxes(1, 2))


def _weights_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, shape in enumerate(
        ((3, 3, 1, 1), (3, 3, 3, 8), (3, 3, 17, 31), (3, 3, 33, 32), (3, 3, 16, 70), (5, 5, 7, 9), (5, 5, 32, 33))
        + ((3, 5, 40), (5, 9, 7), (3, 15, 64), (1, 3, 8, 9), (3, 3, 3, 4, 33), (2, 5, 5, 9, 16), (3, 1, 3, 7, 8))
    ):
        for flip in (False, True) if number % 2 else (True, False):
            yield (rng.standard_normal(shape),), {"flip": flip}


@op(
    shape=_shape_weights,
    terms=lambda w, *, flip: 24,
    scale=lambda w, *, flip: _transform_weights(abs(w), flip, absolute=True),
    flops=lambda w, *, flip: 4.0 * math.prod(map(float, w)) * _points(w[:-2]) ** 0.5,
    cases=_weights_cases,
)
def winograd_weights(w, *, flip):
    """U = G w G' of the weights ``w (*kernel, C, F)``, (points, panels, KD * C, 32).

    With ``flip``, of the weights of the transposed convolution: turned round along the kernel, channels and filters
    exchanged.
    """
    return _transform_weights(w, flip)


# Tiles


def _tiles(x: np.ndarray, kernel: tuple[int, ...], pads: Pads, absolute: bool = False) -> Any:
    """V = B' d B of all tiles: (points, N, OD, TH, TW, KD, C)."""
    depth, height, width = _space(kernel, 1)
    pads = _space(pads, (0, 0))
    x = x.reshape(len(x), *_space(x.shape[1:-1], 1), x.shape[-1])
    steps, counts, more = [], [], []
    for taps, size, (before, after) in zip((height, width), x.shape[2:4], pads[1:], strict=True):
        out = size + before + after - taps + 1
        step = POINTS - taps + 1 if taps > 1 else 1
        count = -(-out // step)
        steps.append(step)
        counts.append(count)
        more.append((before, after + count * step - out))
    x = padded(x, (pads[0], *more))
    b_h, b_w = (matrices(taps)[2].astype(x.dtype) for taps in (height, width))
    if absolute:
        b_h, b_w = abs(b_h), abs(b_w)
    n, d, h, w, c = x.strides
    tiles = np.lib.stride_tricks.as_strided(
        x,
        (len(x), x.shape[1] - depth + 1, *counts, depth, len(b_h), len(b_w), x.shape[-1]),
        (n, d, h * steps[0], w * steps[1], d, h, w, c),
        writeable=False,
    )
    v = np.einsum("ih,jw,ndtskhwc->ijndtskc", b_h, b_w, tiles, optimize=True)
    return v.reshape(len(b_h) * len(b_w), *v.shape[2:])


def _outputs(x: Shape, kernel: tuple[int, ...], pads: Pads) -> tuple[int, ...]:
    ones = (1,) * len(kernel)
    return output_sizes(x[1:-1], kernel, ones, ones, pads)


def _convolve(
    x: np.ndarray, u: np.ndarray, kernel: tuple[int, ...], pads: Pads, filters: int, absolute: bool = False
) -> Any:
    outputs = _outputs(x.shape, kernel, pads)
    depth, oh, ow = _space(outputs, 1)
    a_h, a_w = (matrices(taps)[0].astype(x.dtype) for taps in _space(kernel, 1)[1:])
    if absolute:
        a_h, a_w = abs(a_h), abs(a_w)
    y = np.empty((len(x), depth, oh, ow, filters), x.dtype)
    flat = u.swapaxes(1, 2).reshape(len(u), u.shape[2], -1)[..., :filters]
    for n in range(len(x)):
        v = _tiles(x[n : n + 1], kernel, pads, absolute)
        th, tw = v.shape[3:5]
        m = v.reshape(len(v), -1, flat.shape[1]) @ flat
        m = m.reshape(a_h.shape[1], a_w.shape[1], depth, th, tw, filters)
        tiles = np.einsum("pi,qj,ijdtsf->dtpsqf", a_h, a_w, m, optimize=True)
        y[n] = tiles.reshape(depth, th * len(a_h), tw * len(a_w), filters)[:, :oh, :ow]
    return y.reshape(len(x), *outputs, filters)


def _transformed(u: np.ndarray, flip: bool | None, absolute: bool = False) -> Any:
    """U, which is there if ``flip`` is None."""
    if flip is not None:
        u = _transform_weights(u, flip, absolute)
    return abs(u) if absolute else u


def _shape_winograd(
    x: Shape,
    u: Shape,
    b: Shape | None = None,
    *,
    kernel: Any,
    pads: Pads,
    filters: int,
    flip: bool | None = None,
    activation: str = "linear",
) -> Shape:
    check_activation(activation)
    _check_kernel(kernel)
    depth = _space(kernel, 1)[0]
    expected = (_points(kernel), -(-filters // PANEL), depth * x[-1], PANEL)
    if flip is not None:
        channels = (filters, x[-1]) if flip else (x[-1], filters)
        if u != (*kernel, *channels):
            raise ValueError(f"needs weights of shape {(*kernel, *channels)}. Received: {u}")
    elif u != expected:
        raise ValueError(f"needs transformed weights of shape {expected}. Received: {u}")
    y = (x[0], *_outputs(x, kernel, pads), filters)
    check_bias(y, b)
    return y


#: (space, kernel, pads, channels, filters)
_SETTINGS: tuple[tuple[Any, ...], ...] = (
    ((4, 4), (3, 3), ((1, 1), (1, 1)), 1, 1),
    ((6, 6), (3, 3), ((0, 0), (0, 0)), 3, 8),
    ((7, 9), (3, 3), ((1, 1), (1, 1)), 9, 31),
    ((14, 13), (3, 3), ((1, 1), (1, 1)), 16, 33),
    ((29, 30), (3, 3), ((2, 0), (0, 2)), 33, 32),
    ((5, 3), (3, 3), ((1, 1), (1, 1)), 70, 17),
    ((1, 1), (3, 3), ((1, 1), (1, 1)), 8, 9),
    ((17, 16), (3, 3), ((1, 1), (1, 1)), 64, 70),
    ((6, 7), (5, 5), ((2, 2), (2, 2)), 7, 15),
    ((9, 12), (5, 5), ((0, 1), (4, 0)), 17, 40),
    ((40,), (3,), ((1, 1),), 8, 9),
    ((131,), (3,), ((0, 0),), 31, 33),
    ((23,), (5,), ((2, 2),), 16, 7),
    ((5, 18), (1, 3), ((0, 0), (1, 1)), 9, 16),
    ((4, 5, 6), (3, 3, 3), ((1, 1), (1, 1), (1, 1)), 3, 9),
    ((5, 9, 8), (2, 3, 3), ((0, 0), (1, 1), (1, 1)), 17, 33),
    ((3, 6, 7), (3, 5, 5), ((1, 1), (2, 2), (2, 2)), 4, 8),
)


def _arrays(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, Any]]]:
    for number, (space, kernel, pads, c, f) in enumerate(_SETTINGS):
        x = rng.standard_normal((1 + number % 3, *space, c))
        w = rng.standard_normal((*kernel, c, f)) / 8.0
        u = _transform_weights(w, False).astype(np.float32).astype(float)
        yield x, u, {"kernel": kernel, "pads": pads, "filters": f}
        if number % 2:
            yield x, w, {"kernel": kernel, "pads": pads, "filters": f, "flip": False}
        else:
            w = rng.standard_normal((*kernel, f, c)) / 8.0
            yield x, w, {"kernel": kernel, "pads": pads, "filters": f, "flip": True}


def _cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, (x, u, attrs) in enumerate(_arrays(rng)):
        b = () if number % 4 == 3 else (rng.standard_normal(attrs["filters"]),)
        yield (x, u, *b), {**attrs, "activation": DENSE_ACTIVATIONS[number % len(DENSE_ACTIVATIONS)]}


def _terms(x: Shape, u: Shape, *rest: Shape, kernel: Any, **attrs: Any) -> float:
    """A chain over the channels between two transforms, each two sums of at most six; and that of the weights."""
    return _space(kernel, 1)[0] * x[-1] + 56


def _direct_flops(x: Shape, u: Shape, kernel: Any, pads: Pads, filters: int) -> float:
    y = (x[0], *_outputs(x, kernel, pads), filters)
    return _flops(y, (*kernel, x[-1], filters))


def _scale(
    x: Any, u: Any, *b: Any, kernel: Any, pads: Pads, filters: int, flip: bool | None = None, activation: str
) -> Any:
    before = _convolve(abs(x), _transformed(abs(u), flip, True), kernel, pads, filters, absolute=True)
    before += abs(b[0]) if b else 0.0
    attrs = {"kernel": kernel, "pads": pads, "filters": filters, "flip": flip, "activation": activation}
    return activation_scale(before, winograd_conv.reference(x, u, *b, **attrs), activation)


@op(
    shape=_shape_winograd,
    terms=_terms,
    scale=_scale,
    flops=lambda x, u, *b, kernel, pads, filters, **attrs: _direct_flops(x, u, kernel, pads, filters),
    cases=_cases,
    slices=(OUTPUT,),
)
def winograd_conv(x, u, b=None, *, kernel, pads, filters, flip=None, activation="linear"):
    """conv of stride 1 with weights of which ``winograd_weights`` made ``u``, then a bias and an activation.

    If ``flip`` is not None, ``u`` are the weights themselves, of which ``winograd_weights`` with it would make U.
    """
    y = _convolve(x, _transformed(u, flip), kernel, pads, filters)
    return activated(activation, y if b is None else y + b)


#: Activations that a convolution may have before a pool at its end.
BEFORE_POOL = ("linear", "relu")


def pool_attrs(kernel: Sequence[int]) -> dict[str, Any]:
    """The attributes of the max_pool with which a convolution with such a kernel can end: windows of two outputs along
    each axis that is transformed.
    """
    rank, high = len(kernel), _space(tuple(kernel), 1)[1]
    window = ((1,) * rank + (2 if high > 1 else 1, 2))[-rank:]
    return {"kernel": window, "strides": window, "pads": ((0, 0),) * rank}


def _shape_winograd_pool(x: Shape, u: Shape, b: Shape | None = None, **attrs: Any) -> Shape:
    y = _shape_winograd(x, u, b, **attrs)
    if attrs["activation"] not in BEFORE_POOL:
        raise ValueError(f"activation must be one of {', '.join(BEFORE_POOL)}. Received: {attrs['activation']!r}")
    pool = pool_attrs(attrs["kernel"])
    return (x[0], *output_sizes(y[1:-1], pool["kernel"], pool["strides"], (1,) * (len(y) - 2), pool["pads"]), y[-1])


def _pool_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, (arrays, attrs) in enumerate(_cases(rng)):
        outputs = _outputs(arrays[0].shape, attrs["kernel"], attrs["pads"])
        if all(size >= taps for size, taps in zip(outputs, pool_attrs(attrs["kernel"])["kernel"], strict=True)):
            yield arrays, {**attrs, "activation": BEFORE_POOL[number % 2]}


@op(
    shape=_shape_winograd_pool,
    terms=_terms,
    scale=lambda x, u, *b, kernel, **attrs: max_pool.reference(
        _scale(x, u, *b, kernel=kernel, **attrs), **pool_attrs(kernel)
    ),
    flops=lambda x, u, *b, kernel, pads, filters, **attrs: _direct_flops(x, u, kernel, pads, filters),
    cases=_pool_cases,
    slices=(OUTPUT,),
)
def winograd_conv_pool(x, u, b=None, *, kernel, pads, filters, flip=None, activation="linear"):
    """winograd_conv, then max_pool with a window of two outputs along each axis that is transformed."""
    y = winograd_conv.reference(x, u, b, kernel=kernel, pads=pads, filters=filters, flip=flip, activation=activation)
    return max_pool.reference(y, **pool_attrs(kernel))


def _shape_winograd_dx(g: Shape, u: Shape, y: Shape, *, activation: str, **attrs: Any) -> Shape:
    check_activation(activation)
    x = _shape_winograd(g, u, **attrs)
    if y != x:
        raise ValueError(f"needs the input of the convolution, {x}. Received: {y}")
    return x


def _dx_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, (g, u, attrs) in enumerate(_arrays(rng)):
        activation = DENSE_ACTIVATIONS[1:][number % (len(DENSE_ACTIVATIONS) - 1)]
        x = _shape_winograd(g.shape, u.shape, **attrs)
        y = OPS[activation](rng.standard_normal(x))  # type: ignore[arg-type]
        yield (g, u, y.astype(np.float32).astype(float)), {**attrs, "activation": activation}


@op(
    shape=_shape_winograd_dx,
    terms=lambda g, u, y, **attrs: _terms(g, u, **attrs) + 8,
    scale=lambda g, u, y, *, kernel, pads, filters, flip=None, activation: (
        _convolve(abs(g), _transformed(abs(u), flip, True), kernel, pads, filters, absolute=True) * (1.0 + abs(y))
    ),
    flops=lambda g, u, y, *, kernel, pads, filters, **attrs: _direct_flops(g, u, kernel, pads, filters),
    cases=_dx_cases,
)
def winograd_conv_dx(g, u, y, *, kernel, pads, filters, flip=None, activation):
    """The gradient with respect to the input ``y (N, *space, filters)``, and to the activation that made it: a
    convolution of ``g`` with flipped weights, ``pads`` being that one's.
    """
    return activated_dx(activation, _convolve(g, _transformed(u, flip), kernel, pads, filters), y)


# The weights' gradient


def _shape_winograd_dw(x: Shape, g: Shape, *, kernel: Any, pads: Pads) -> Shape:
    _check_kernel(kernel)
    expected = (x[0], *_outputs(x, kernel, pads), g[-1])
    if g != expected:
        raise ValueError(f"the gradient must have the shape of the output, {expected}. Received: {g}")
    return (*kernel, x[-1], g[-1])


def _weight_gradient(x: np.ndarray, g: np.ndarray, kernel: Any, pads: Pads, absolute: bool = False) -> Any:
    depth, height, width = _space(kernel, 1)
    (a_h, g_h, _), (a_w, g_w, _) = (tuple(m.astype(x.dtype) for m in matrices(taps)) for taps in (height, width))
    if absolute:
        a_h, a_w, g_h, g_w = abs(a_h), abs(a_w), abs(g_h), abs(g_w)
    points, c, f = a_h.shape[1] * a_w.shape[1], x.shape[-1], g.shape[-1]
    du = np.zeros((points, depth * c, f), x.dtype)
    for n in range(len(x)):
        v = _tiles(x[n : n + 1], kernel, pads, absolute)
        od, th, tw = v.shape[2:5]
        whole = np.zeros((od, th * len(a_h), tw * len(a_w), f), g.dtype)
        gradient = g[n].reshape(od, *_space(g.shape[1:-1], 1)[1:], f)
        whole[:, : gradient.shape[1], : gradient.shape[2]] = gradient
        tiles = whole.reshape(od, th, len(a_h), tw, len(a_w), f)
        m = np.einsum("pi,qj,dtpsqf->ijdtsf", a_h, a_w, tiles, optimize=True).reshape(points, -1, f)
        du += v.reshape(points, -1, depth * c).swapaxes(1, 2) @ m
    du = du.reshape(a_h.shape[1], a_w.shape[1], depth, c, f)
    return np.einsum("ih,jw,ijdcf->dhwcf", g_h, g_w, du, optimize=True).reshape(*kernel, c, f)


def _dw_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, (space, kernel, pads, c, f) in enumerate(_SETTINGS):
        x = rng.standard_normal((1 + number % 3, *space, c))
        y = (len(x), *_outputs(x.shape, kernel, pads), f)
        yield (x, rng.standard_normal(y)), {"kernel": kernel, "pads": pads}


#: The sum over tiles is cut into at most so many parts, which threads compute side by side and which are then added.
PARTS = 8


def tile_parts(channels: int, filters: int) -> int:
    """Into how many parts the sum over tiles is cut: few weights need more parts to keep threads busy."""
    return max(1, min(PARTS, 65536 // (channels * filters)))


#: The transformed gradient is summed up in so much memory, or three times what the transformed inputs take, which are
#: transformed anew for each part: some panels at a time.
GRADIENT_FLOATS = 5 << 20


def _dw_workspace(x: Shape, g: Shape, *, kernel: Any, pads: Pads) -> int:
    k, f = _space(kernel, 1)[0] * x[-1], g[-1]
    panels, band = -(-f // PANEL), 1  # type: ignore[operator]
    panel = _points(kernel) * tile_parts(k, f) * k * PANEL  # type: ignore[arg-type]
    steps = (1, *(POINTS + 1 - taps if taps > 1 else 1 for taps in _space(kernel, 1)[1:]))
    counts = (-(-size // step) for size, step in zip(_space(g[1:-1], 1), steps, strict=True))
    tiles = math.prod(counts, start=g[0])  # type: ignore[arg-type]
    most = max(GRADIENT_FLOATS, 3 * _points(kernel) * k * tiles)
    while band < panels and panel * band * 2 <= most:
        band *= 2
    return panel * min(band, panels)


@op(
    shape=_shape_winograd_dw,
    terms=lambda x, g, *, kernel, pads: math.prod(g[:-1]) + PARTS + 48,
    scale=lambda x, g, *, kernel, pads: _weight_gradient(abs(x), abs(g), kernel, pads, absolute=True),
    flops=lambda x, g, *, kernel, pads: _flops(g, (*kernel, x[-1], g[-1])),
    workspace=_dw_workspace,
    cases=_dw_cases,
)
def winograd_conv_dw(x, g, *, kernel, pads):
    """conv_dw of stride 1 by the adjoint of Winograd's algorithm, (*kernel, C, F)."""
    return _weight_gradient(x, g, kernel, pads)

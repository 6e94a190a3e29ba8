"""Depthwise convolution, cross-correlation like ``conv``: every channel is convolved with M filters of its own.

    y[n, o, c * M + m] = sum over k of x[n, o * stride + k * dilation - before, c] * w[k, c, m]

with positions o and k along one to three axes. N batch; C channels; M multiplier; input (N, *space, C), weights
(*kernel, C, M), output (N, *outputs, C * M). Attributes: see ``window.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.conv import activated, activation_scale, check_activation, check_bias
from fastnn.ops.declare import Case, op
from fastnn.ops.pointwise import DENSE_ACTIVATIONS
from fastnn.ops.window import Pads, output_sizes, padded

#: A sum over pixels is cut into parts of PART_PIXELS or more, which threads compute side by side and which are then
#: added: at most PARTS of them, and no more than PART_FLOATS numbers in all, those of a tap filled up to a multiple of
#: ALIGN. As in csrc/depthwise.c.
PART_PIXELS, PARTS, PART_FLOATS, ALIGN = 512, 64, 2**22, 16


def _shape_conv(x: Shape, w: Shape, *, strides: Any, pads: Pads, dilations: Any) -> Shape:
    if not 3 <= len(x) <= 5 or len(w) != len(x) or w[-2] != x[-1] or w[-1] < 1:  # type: ignore[operator]
        raise ValueError(
            "needs x (N, *space, C) and w (*kernel, C, M), 1 to 3 axes of space and the same channels C. "
            f"Received: {x} and {w}"
        )
    outputs = output_sizes(x[1:-1], w[:-2], strides, dilations, pads)  # type: ignore[arg-type]
    return (x[0], *outputs, w[-2] * w[-1])  # type: ignore[operator]


def _check_gradient(g: Shape, x: Shape, w: Shape, **attrs: Any) -> None:
    expected = _shape_conv(x, w, **attrs)
    if g != expected:
        raise ValueError(f"the gradient must have the shape of the output, {expected}. Received: {g}")


def _shape_dx(g: Shape, w: Shape, *, sizes: Any, **attrs: Any) -> Shape:
    x = (g[0], *sizes, w[-2] if len(w) > 2 else 0)
    _check_gradient(g, x, w, **attrs)
    return x


def _shape_dw(x: Shape, g: Shape, *, kernel: Any, **attrs: Any) -> Shape:
    w = (*kernel, x[-1], g[-1] // x[-1] if x[-1] else 0)  # type: ignore[operator]
    _check_gradient(g, x, w, **attrs)
    return w


def _shape_fused(x: Shape, w: Shape, b: Shape | None = None, *, activation: str, **attrs: Any) -> Shape:
    check_activation(activation)
    y = _shape_conv(x, w, **attrs)
    check_bias(y, b)
    return y


def _flops(g: Shape, kernel: Shape) -> float:
    """A multiply-add for each output and each element of the kernel."""
    return 2.0 * math.prod(map(float, (*g, *kernel)))  # type: ignore[arg-type]


def _forward_flops(x: Shape, w: Shape, *b: Shape, strides: Any, pads: Pads, dilations: Any, **attrs: Any) -> float:
    return _flops(_shape_conv(x, w, strides=strides, pads=pads, dilations=dilations), w[:-2])


def _dw_workspace(x: Shape, g: Shape, *, kernel: Any, **attrs: Any) -> int:
    weights = math.prod(kernel) * -(-g[-1] // ALIGN) * ALIGN  # type: ignore[operator]
    most = max(1, min(PARTS, PART_FLOATS // weights))
    return max(1, min(math.prod(g[:-1]) // PART_PIXELS, most)) * weights  # type: ignore[arg-type]


# Cases: (space, kernel, strides, dilations, pads, channels, multiplier)

_SETTINGS: tuple[tuple[Any, ...], ...] = (
    ((9, 7), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 16, 1),
    ((8, 10), (3, 3), (2, 2), (1, 1), ((0, 1), (0, 1)), 17, 1),
    ((7, 9), (3, 3), (1, 1), (1, 1), ((0, 0), (0, 0)), 33, 1),
    ((6, 37), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 1, 1),
    ((5, 40), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 3, 1),
    ((5, 21), (3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)), 3, 1),
    ((9, 8), (5, 5), (1, 1), (1, 1), ((2, 2), (2, 2)), 31, 1),
    ((11, 13), (5, 5), (2, 2), (1, 1), ((2, 2), (1, 2)), 9, 1),
    ((9, 12), (7, 7), (1, 1), (1, 1), ((3, 3), (3, 3)), 8, 1),
    ((10, 15), (3, 3), (1, 1), (2, 2), ((2, 2), (2, 2)), 48, 1),
    ((9, 11), (3, 2), (3, 1), (2, 3), ((4, 1), (0, 5)), 7, 1),
    ((12, 14), (3, 3), (2, 2), (2, 2), ((2, 2), (2, 2)), 16, 1),
    ((13, 11), (3, 4), (3, 2), (2, 3), ((1, 2), (4, 3)), 15, 1),
    ((4, 29), (2, 4), (1, 3), (1, 1), ((0, 0), (7, 2)), 24, 1),
    ((6, 7), (1, 1), (2, 2), (1, 1), ((0, 0), (0, 0)), 8, 1),
    ((2, 2), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 32, 1),
    ((3, 4), (5, 5), (1, 1), (1, 1), ((4, 4), (7, 6)), 16, 1),
    ((6, 9), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 9, 2),
    ((6, 18), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 1, 8),
    ((7, 8), (3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)), 5, 3),
    ((5, 9), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 4, 17),
    ((4, 6), (2, 3), (1, 2), (1, 1), ((0, 1), (1, 0)), 3, 33),
    ((6, 5), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 16, 4),
    ((40,), (5,), (1,), (1,), ((2, 2),), 15, 1),
    ((33,), (4,), (3,), (2,), ((0, 3),), 16, 2),
    ((70,), (3,), (1,), (1,), ((2, 0),), 1, 1),
    ((5, 6, 7), (3, 3, 3), (1, 1, 1), (1, 1, 1), ((1, 1), (1, 1), (1, 1)), 17, 1),
    ((6, 5, 9), (2, 3, 2), (2, 1, 2), (1, 2, 1), ((0, 1), (2, 0), (1, 1)), 4, 2),
    ((30, 29), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 7, 1),
)


def _cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, (space, kernel, strides, dilations, pads, c, m) in enumerate(_SETTINGS):
        x, w = rng.standard_normal((1 + number % 4, *space, c)), rng.standard_normal((*kernel, c, m))
        yield (x, w), {"strides": strides, "pads": pads, "dilations": dilations}


def _fused_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, ((x, w), attrs) in enumerate(_cases(rng)):
        bias = (rng.standard_normal(w.shape[-2] * w.shape[-1]),) if number % 4 < 3 else ()
        activation = DENSE_ACTIVATIONS[number % len(DENSE_ACTIVATIONS)]
        yield (x, w / 3.0, *bias), {**attrs, "activation": activation}


def _gradient_cases(of: str) -> Callable[[np.random.Generator], Iterator[Case]]:
    def cases(rng: np.random.Generator) -> Iterator[Case]:
        for (x, w), attrs in _cases(rng):
            g = rng.standard_normal(_shape_conv(x.shape, w.shape, **attrs))  # type: ignore[arg-type]
            if of == "x":
                yield (g, w), {**attrs, "sizes": x.shape[1:-1]}
            else:
                yield (x, g), {**attrs, "kernel": w.shape[:-2]}

    return cases


def _taps(kernel: Any, outputs: Sequence[int], strides: Any, dilations: Any) -> Iterator[tuple[Any, Any]]:
    """Each element of the kernel, and the part of the padded input that it is multiplied with."""
    for tap in np.ndindex(*kernel):
        place = (
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, o, s in zip(tap, dilations, outputs, strides, strict=True)
        )
        yield tap, (slice(None), *place)


@op(
    shape=_shape_conv,
    gradient=lambda g, y, x, w, **attrs: (
        depthwise_conv_dx(g, w, sizes=x.shape[1:-1], **attrs),
        depthwise_conv_dw(x, g, kernel=w.shape[:-2], **attrs),
    ),
    terms=lambda x, w, **attrs: math.prod(w[:-2]),
    scale=lambda x, w, **attrs: depthwise_conv.reference(abs(x), abs(w), **attrs),
    flops=_forward_flops,
    cases=_cases,
)
def depthwise_conv(x, w, *, strides, pads, dilations):
    """``x (N, *space, C)`` with ``w (*kernel, C, M)`` -> (N, *outputs, C * M)."""
    shape: Any = _shape_conv(x.shape, w.shape, strides=strides, pads=pads, dilations=dilations)
    y = np.zeros((*shape[:-1], *w.shape[-2:]), x.dtype)
    inputs = padded(x, pads)[..., None]
    for tap, place in _taps(w.shape[:-2], shape[1:-1], strides, dilations):
        y += inputs[place] * w[tap]
    return y.reshape(shape)


@op(
    shape=_shape_dx,
    terms=lambda g, w, **attrs: math.prod(w[:-2]) * w[-1],
    scale=lambda g, w, **attrs: depthwise_conv_dx.reference(abs(g), abs(w), **attrs),
    flops=lambda g, w, **attrs: _flops(g, w[:-2]),
    cases=_gradient_cases("x"),
)
def depthwise_conv_dx(g, w, *, sizes, strides, pads, dilations):
    """The gradient of depthwise_conv with respect to its input, which had the spatial ``sizes``."""
    whole = (size + before + after for size, (before, after) in zip(sizes, pads, strict=True))
    dx = np.zeros((len(g), *whole, w.shape[-2]), g.dtype)
    parts = g.reshape(*g.shape[:-1], *w.shape[-2:])
    for tap, place in _taps(w.shape[:-2], g.shape[1:-1], strides, dilations):
        dx[place] += (parts * w[tap]).sum(axis=-1)
    inside = tuple(slice(before, before + size) for size, (before, _) in zip(sizes, pads, strict=True))
    return np.ascontiguousarray(dx[(slice(None), *inside)])


@op(
    shape=_shape_dw,
    terms=lambda x, g, **attrs: math.prod(g[:-1]) + PARTS,
    scale=lambda x, g, **attrs: depthwise_conv_dw.reference(abs(x), abs(g), **attrs),
    flops=lambda x, g, *, kernel, **attrs: _flops(g, kernel),
    workspace=_dw_workspace,
    cases=_gradient_cases("w"),
)
def depthwise_conv_dw(x, g, *, kernel, strides, pads, dilations):
    """The gradient of depthwise_conv with respect to its weights, (*kernel, C, M)."""
    parts = g.reshape(*g.shape[:-1], x.shape[-1], -1)
    dw = np.empty((*kernel, *parts.shape[-2:]), x.dtype)
    inputs = padded(x, pads)
    axes = "ndhw"[: len(kernel) + 1]
    for tap, place in _taps(kernel, g.shape[1:-1], strides, dilations):
        dw[tap] = np.einsum(f"{axes}c,{axes}cm->cm", inputs[place], parts)
    return dw


def _fused_scale(x: Any, w: Any, *b: Any, activation: str, **attrs: Any) -> Any:
    before = depthwise_conv.reference(abs(x), abs(w), **attrs) + (abs(b[0]) if b else 0.0)
    y = fused_depthwise_conv.reference(x, w, *b, activation=activation, **attrs)
    return activation_scale(before, y, activation)


@op(
    shape=_shape_fused,
    terms=lambda x, w, *b, **attrs: math.prod(w[:-2]) + 8,
    scale=_fused_scale,
    flops=_forward_flops,
    cases=_fused_cases,
)
def fused_depthwise_conv(x, w, b=None, *, strides, pads, dilations, activation="linear"):
    """depthwise_conv, add_bias and an activation in one: what the Plan makes of a depthwise convolution layer."""
    y = depthwise_conv.reference(x, w, strides=strides, pads=pads, dilations=dilations)
    return activated(activation, y if b is None else y + b)

"""Convolution of signals, images and volumes, as every framework means it: cross-correlation.

    y[n, o, f] = sum over k, c of x[n, o * stride + k * dilation - before, c] * w[k, c, f]

with positions o and k along one to three axes. N batch; D H W space; C channels; F filters; KD KH KW kernel; OD OH OW
output. Input (N, *space, C), weights (*kernel, C / groups, F), output (N, *outputs, F). Attributes: see ``window.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import OPS, OUTPUT, Case, op
from fastnn.ops.pointwise import DENSE_ACTIVATIONS
from fastnn.ops.window import Pads, output_sizes, scatter_windows, spread, windows

#: A pixel has at most so many channels.
CHANNELS = 2**20


def _check_arrays(x: Shape, w: Shape, groups: int) -> None:
    if not 3 <= len(x) <= 5 or len(w) != len(x):
        raise ValueError(f"needs x (N, *space, C) and w (*kernel, C, F), 1 to 3 axes of space. Received: {x} and {w}")
    if not isinstance(groups, int) or groups < 1 or w[-1] % groups or w[-2] * groups != x[-1]:  # type: ignore[operator]
        raise ValueError(
            "groups must divide channels C and filters F, and w have C / groups channels. "
            f"Received: groups={groups}, x {x} and w {w}"
        )
    if x[-1] > CHANNELS:
        raise ValueError(f"needs at most 2**20 channels. Received: {x}")


def _shape_conv(x: Shape, w: Shape, *, strides: Any, pads: Pads, dilations: Any, groups: int = 1) -> Shape:
    _check_arrays(x, w, groups)
    return (x[0], *output_sizes(x[1:-1], w[:-2], strides, dilations, pads), w[-1])  # type: ignore[arg-type]


def _shape_conv_dx(
    g: Shape, w: Shape, *, sizes: Any, strides: Any, pads: Pads, dilations: Any, groups: int = 1
) -> Shape:
    channels = w[-2] * groups if isinstance(groups, int) else 0  # type: ignore[operator]
    x = (g[0], *sizes, channels)
    expected = _shape_conv(x, w, strides=strides, pads=pads, dilations=dilations, groups=groups)
    if g != expected:
        raise ValueError(f"the gradient must have the shape of the output, {expected}. Received: {g}")
    return x


def _shape_conv_dw(
    x: Shape, g: Shape, *, kernel: Any, strides: Any, pads: Pads, dilations: Any, groups: int = 1
) -> Shape:
    if not isinstance(groups, int) or groups < 1 or x[-1] % groups:  # type: ignore[operator]
        raise ValueError(f"groups must divide the channels. Received: groups={groups}, x {x}")
    w = (*kernel, x[-1] // groups, g[-1])  # type: ignore[operator]
    expected = _shape_conv(x, w, strides=strides, pads=pads, dilations=dilations, groups=groups)
    if g != expected:
        raise ValueError(f"the gradient must have the shape of the output, {expected}. Received: {g}")
    return w


def _flops(g: Shape, w: Shape) -> float:
    """Multiply-adds of direct summation, twice: for each output, its part of the kernel."""
    return 2.0 * math.prod(map(float, g[:-1])) * math.prod(map(float, w))  # type: ignore[arg-type]


def _conv_flops(x: Shape, w: Shape, *rest: Shape, **attrs: Any) -> float:
    return _flops(_shape_conv(x, w, **{k: attrs[k] for k in ("strides", "pads", "dilations", "groups")}), w)


# Cases: (space, kernel, strides, dilations, pads, channels, filters, groups)

_SETTINGS: tuple[tuple[Any, ...], ...] = (
    ((9, 7), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 3, 8, 1),
    ((8, 8), (3, 3), (1, 1), (1, 1), ((0, 0), (0, 0)), 1, 33, 1),
    ((5, 6), (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 17, 31, 1),
    ((7, 9), (1, 1), (2, 2), (1, 1), ((0, 0), (0, 0)), 9, 16, 1),
    ((11, 10), (3, 3), (2, 2), (1, 1), ((1, 1), (0, 1)), 8, 15, 1),
    ((13, 12), (7, 7), (2, 2), (1, 1), ((3, 3), (3, 3)), 3, 17, 1),
    ((23, 21), (11, 11), (4, 4), (1, 1), ((2, 2), (2, 2)), 3, 9, 1),
    ((10, 9), (3, 3), (1, 1), (2, 2), ((2, 2), (2, 2)), 7, 9, 1),
    ((9, 11), (3, 2), (3, 1), (2, 3), ((4, 1), (0, 5)), 4, 7, 1),
    ((6, 7), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 6, 9, 3),
    ((7, 6), (3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)), 32, 64, 2),
    ((5, 5), (5, 5), (1, 1), (1, 1), ((2, 2), (2, 2)), 5, 6, 1),
    ((4, 29), (2, 4), (1, 3), (1, 1), ((0, 0), (7, 2)), 2, 130, 1),
    ((40,), (5,), (1,), (1,), ((2, 2),), 4, 9, 1),
    ((33,), (4,), (3,), (2,), ((0, 3),), 16, 8, 2),
    ((17,), (8,), (2,), (1,), ((3, 4),), 1, 12, 1),
    ((5, 6, 7), (3, 3, 3), (1, 1, 1), (1, 1, 1), ((1, 1), (1, 1), (1, 1)), 3, 10, 1),
    ((6, 5, 4), (2, 3, 2), (2, 1, 2), (1, 2, 1), ((0, 1), (2, 0), (1, 1)), 4, 6, 2),
    ((3, 3), (3, 3), (1, 1), (1, 1), ((0, 0), (0, 0)), 40, 70, 1),
    ((2, 2), (3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)), 5, 3, 1),
    ((18, 19), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 16, 48, 1),
    ((6, 17), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 32, 32, 4),
    ((9, 16), (3, 3), (1, 1), (1, 1), ((1, 1), (2, 0)), 28, 28, 7),
    ((8, 11), (3, 3), (2, 2), (1, 1), ((1, 1), (0, 1)), 20, 20, 5),
    ((5, 31), (2, 3), (1, 1), (1, 2), ((0, 1), (2, 1)), 11, 22, 11),
    ((29,), (3,), (1,), (1,), ((1, 1),), 34, 17, 17),
    ((4, 5, 6), (3, 2, 3), (1, 2, 1), (1, 1, 2), ((1, 1), (0, 1), (2, 0)), 27, 15, 3),
    ((3, 4, 9), (3, 3, 3), (1, 1, 1), (1, 1, 1), ((1, 1), (1, 1), (1, 1)), 12, 24, 6),
    ((6, 5), (1, 1), (2, 1), (1, 1), ((0, 0), (0, 0)), 24, 40, 8),
    ((5, 15), (5, 5), (1, 1), (1, 1), ((2, 2), (2, 2)), 34, 32, 2),
)


def _geometry(setting: tuple[Any, ...]) -> tuple[Shape, Shape, dict[str, Any]]:
    space, kernel, strides, dilations, pads, c, f, groups = setting
    attrs = {"strides": strides, "pads": pads, "dilations": dilations, "groups": groups}
    return (*space, c), (*kernel, c // groups, f), attrs


def _conv_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, setting in enumerate(_SETTINGS):
        x, w, attrs = _geometry(setting)
        yield (rng.standard_normal((1 + number % 3, *x)), rng.standard_normal(w)), attrs  # type: ignore[arg-type]


def _gradient_cases(of: str) -> Callable[[np.random.Generator], Iterator[Case]]:
    def cases(rng: np.random.Generator) -> Iterator[Case]:
        for (x, w), attrs in _conv_cases(rng):
            g = rng.standard_normal(_shape_conv(x.shape, w.shape, **attrs))  # type: ignore[arg-type]
            if of == "x":
                yield (g, w), {**attrs, "sizes": x.shape[1:-1]}
            else:
                yield (x, g), {**attrs, "kernel": w.shape[:-2]}

    return cases


def _patches(image: np.ndarray, kernel: Any, strides: Any, dilations: Any, pads: Pads) -> Any:
    """All windows of one image (1, *space, C) as rows: (outputs, kernel * C)."""
    found = windows(image, kernel, strides, dilations, pads)
    return found.reshape(math.prod(found.shape[1 : 1 + len(kernel)]), -1)


@op(
    shape=_shape_conv,
    gradient=lambda g, y, x, w, **attrs: (
        conv_dx(g, w, sizes=x.shape[1:-1], **attrs),
        conv_dw(x, g, kernel=w.shape[:-2], **attrs),
    ),
    terms=lambda x, w, **attrs: math.prod(w[:-1]),
    scale=lambda x, w, **attrs: conv.reference(abs(x), abs(w), **attrs),
    flops=_conv_flops,
    cases=_conv_cases,
    slices=(0, OUTPUT),
)
def conv(x, w, *, strides, pads, dilations, groups=1):
    """``x (N, *space, C)`` with ``w (*kernel, C / groups, F)`` -> (N, *outputs, F).

    Group i of the filters sees group i of the channels.
    """
    kernel, c, f = w.shape[:-2], w.shape[-2], w.shape[-1] // groups
    attrs = {"strides": strides, "pads": pads, "dilations": dilations, "groups": groups}
    y: Any = np.empty(_shape_conv(x.shape, w.shape, **attrs), x.dtype)
    for n in range(len(x)):
        for i in range(groups):
            filters = slice(i * f, (i + 1) * f)
            rows = _patches(x[n : n + 1, ..., i * c : (i + 1) * c], kernel, strides, dilations, pads)
            y[n, ..., filters] = (rows @ w[..., filters].reshape(-1, f)).reshape(*y.shape[1:-1], f)
    return y


@op(
    shape=_shape_conv_dx,
    gradient=lambda g, y, x, w, sizes, **attrs: (
        conv(g, w, **attrs),
        conv_dw(g, x, kernel=w.shape[:-2], **attrs),
    ),
    terms=lambda g, w, groups, **attrs: math.prod(w[:-2]) * w[-1] // groups,
    scale=lambda g, w, **attrs: conv_dx.reference(abs(g), abs(w), **attrs),
    flops=lambda g, w, **attrs: _flops(g, w),
    cases=_gradient_cases("x"),
    slices=(OUTPUT,),
)
def conv_dx(g, w, *, sizes, strides, pads, dilations, groups=1):
    """The gradient of conv with respect to its input, which had the spatial ``sizes``: the transposed convolution."""
    kernel, c, f = w.shape[:-2], w.shape[-2], w.shape[-1] // groups
    x = np.empty((len(g), *sizes, c * groups), g.dtype)
    for n in range(len(g)):
        for i in range(groups):
            filters = slice(i * f, (i + 1) * f)
            parts = g[n, ..., filters].reshape(-1, f) @ w[..., filters].reshape(-1, f).T
            parts = parts.reshape(1, *g.shape[1:-1], *kernel, c)
            x[n, ..., i * c : (i + 1) * c] = scatter_windows(parts, sizes, strides, dilations, pads)[0]
    return x


#: A sum over pixels is cut into at most so many parts, which threads compute side by side and which are then added.
PARTS = 8


def weight_parts(outputs: int, filters: int) -> int:
    """Into how many parts the sum over pixels is cut, for so many weights of a filter and so many filters: few sums
    need more parts to keep threads busy. A matter of the shape alone.
    """
    tiles = -(-outputs // 16) * -(-filters // 32)
    return max(1, min(PARTS, 16 // tiles))


def _dw_workspace(x: Shape, g: Shape, *, kernel: Any, groups: int, **attrs: Any) -> int:
    outputs = math.prod(kernel) * x[-1] // groups
    return (weight_parts(outputs, g[-1]) - 1) * outputs * g[-1]  # type: ignore[arg-type]


@op(
    shape=_shape_conv_dw,
    terms=lambda x, g, **attrs: math.prod(g[:-1]) + PARTS,
    scale=lambda x, g, **attrs: conv_dw.reference(abs(x), abs(g), **attrs),
    flops=lambda x, g, *, kernel, groups, **attrs: _flops(g, (*kernel, x[-1] // groups, g[-1])),
    workspace=_dw_workspace,
    cases=_gradient_cases("w"),
)
def conv_dw(x, g, *, kernel, strides, pads, dilations, groups=1):
    """The gradient of conv with respect to its weights, (*kernel, C / groups, F)."""
    c, f = x.shape[-1] // groups, g.shape[-1] // groups
    w = np.zeros((*kernel, c, f * groups), x.dtype)
    for n in range(len(x)):
        for i in range(groups):
            filters = slice(i * f, (i + 1) * f)
            rows = _patches(x[n : n + 1, ..., i * c : (i + 1) * c], kernel, strides, dilations, pads)
            w[..., filters] += (rows.T @ g[n, ..., filters].reshape(-1, f)).reshape(*kernel, c, f)
    return w


# Fused


def check_activation(activation: str) -> None:
    """ValueError unless a fused op can end with it."""
    if activation not in DENSE_ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(DENSE_ACTIVATIONS)}. Received: {activation!r}")


def check_bias(y: Shape, b: Shape | None) -> None:
    """ValueError unless ``b`` is a bias for ``y``."""
    if b is not None and b != (y[-1],):
        raise ValueError(f"needs a bias of shape ({y[-1]},). Received: {b}")


def activated(activation: str, y: Any) -> Any:
    """The activation of that name applied to an array."""
    return y if activation == "linear" else OPS[activation](y)


def activated_dx(activation: str, g: Any, y: Any) -> Any:
    """``g`` times the slope of the activation where its output is ``y``."""
    return g if activation == "linear" else OPS[f"{activation}_dx"](g, y)


def activation_scale(before: Any, y: Any, activation: str) -> Any:
    """The error before the activation, times the activation's slope: at most 1.1 but for exp, its own slope."""
    return (before + 1.0) * (1.1 + y * (activation == "exponential"))


def _shape_fused_conv(x: Shape, w: Shape, b: Shape | None = None, *, activation: str, **attrs: Any) -> Shape:
    check_activation(activation)
    y = _shape_conv(x, w, **attrs)
    check_bias(y, b)
    return y


def _fused_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, ((x, w), attrs) in enumerate(_conv_cases(rng)):
        activation = DENSE_ACTIVATIONS[number % len(DENSE_ACTIVATIONS)]
        w /= 10.0
        if number % 4 < 3:
            yield (x, w, rng.standard_normal(w.shape[-1])), {**attrs, "activation": activation}
        else:
            yield (x, w), {**attrs, "activation": activation}


def _fused_scale(x: Any, w: Any, *b: Any, activation: str, **attrs: Any) -> Any:
    before = conv.reference(abs(x), abs(w), **attrs) + (abs(b[0]) if b else 0.0)
    return activation_scale(before, fused_conv.reference(x, w, *b, activation=activation, **attrs), activation)


@op(
    shape=_shape_fused_conv,
    terms=lambda x, w, *b, **attrs: math.prod(w[:-1]) + 8,
    scale=_fused_scale,
    flops=_conv_flops,
    cases=_fused_cases,
    slices=(0, OUTPUT),
)
def fused_conv(x, w, b=None, *, strides, pads, dilations, groups=1, activation="linear"):
    """conv, add_bias and an activation in one: what the Plan makes of a convolution layer."""
    y = conv.reference(x, w, strides=strides, pads=pads, dilations=dilations, groups=groups)
    return activated(activation, y if b is None else y + b)


def _shape_fused_conv_dx(g: Shape, w: Shape, y: Shape, *, activation: str, **attrs: Any) -> Shape:
    check_activation(activation)
    x = _shape_conv_dx(g, w, **attrs)
    if y != x:
        raise ValueError(f"needs the input of the convolution, {x}. Received: {y}")
    return x


def _fused_dx_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, ((g, w), attrs) in enumerate(_gradient_cases("x")(rng)):
        activation = DENSE_ACTIVATIONS[1:][number % (len(DENSE_ACTIVATIONS) - 1)]
        y = OPS[activation](rng.standard_normal(_shape_conv_dx(g.shape, w.shape, **attrs)))  # type: ignore[arg-type]
        yield (g, w, y.astype(np.float32).astype(float)), {**attrs, "activation": activation}


@op(
    shape=_shape_fused_conv_dx,
    terms=lambda g, w, y, *, groups, **attrs: math.prod(w[:-2]) * w[-1] // groups + 8,
    scale=lambda g, w, y, *, activation, **attrs: conv_dx.reference(abs(g), abs(w), **attrs) * (1.0 + abs(y)),
    flops=lambda g, w, y, **attrs: _flops(g, w),
    cases=_fused_dx_cases,
)
def fused_conv_dx(g, w, y, *, sizes, strides, pads, dilations, groups=1, activation):
    """conv_dx, then the gradient of the activation that made ``y``, the input of the convolution."""
    attrs = {"sizes": sizes, "strides": strides, "pads": pads, "dilations": dilations, "groups": groups}
    return activated_dx(activation, conv_dx.reference(g, w, **attrs), y)


def _shape_fused_transpose(g: Shape, w: Shape, b: Shape | None = None, *, activation: str, **attrs: Any) -> Shape:
    check_activation(activation)
    x = _shape_conv_dx(g, w, **attrs)
    check_bias(x, b)
    return x


def _fused_transpose_cases(rng: np.random.Generator) -> Iterator[Case]:
    for number, ((g, w), attrs) in enumerate(_gradient_cases("x")(rng)):
        channels = w.shape[-2] * attrs["groups"]
        bias = (rng.standard_normal(channels),) if number % 4 < 3 else ()
        yield (g, w / 10.0, *bias), {**attrs, "activation": DENSE_ACTIVATIONS[number % len(DENSE_ACTIVATIONS)]}


def _fused_transpose_scale(g: Any, w: Any, *b: Any, activation: str, **attrs: Any) -> Any:
    before = conv_dx.reference(abs(g), abs(w), **attrs) + (abs(b[0]) if b else 0.0)
    after = fused_conv_transpose.reference(g, w, *b, activation=activation, **attrs)
    return activation_scale(before, after, activation)


@op(
    shape=_shape_fused_transpose,
    terms=lambda g, w, *b, groups, **attrs: math.prod(w[:-2]) * w[-1] // groups + 8,
    scale=_fused_transpose_scale,
    flops=lambda g, w, *b, **attrs: _flops(g, w),
    cases=_fused_transpose_cases,
    slices=(OUTPUT,),
)
def fused_conv_transpose(g, w, b=None, *, sizes, strides, pads, dilations, groups=1, activation="linear"):
    """conv_dx, add_bias and an activation in one: what the Plan makes of a layer that is a transposed convolution."""
    x = conv_dx.reference(g, w, sizes=sizes, strides=strides, pads=pads, dilations=dilations, groups=groups)
    return activated(activation, x if b is None else x + b)


def transposed_pads(kernel: Sequence[int], dilations: Sequence[int], pads: Pads) -> Pads:
    """The padding with which conv_dx of stride 1 is itself a convolution of the gradient, with flipped weights."""
    covered = spread(kernel, dilations)
    return tuple((c - 1 - before, c - 1 - after) for c, (before, after) in zip(covered, pads, strict=True))

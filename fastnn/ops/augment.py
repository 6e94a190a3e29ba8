"""Random changes of images (N, H, W, C): flips, rotations, zooms, translations, contrast.

Row n of a batch draws four numbers in [0, 1): the four words of the Philox counter ``(n, t mod 2^32, t div 2^32,
stream)`` under the key ``seed``, divided by 2^32, where t is the training step (see ``fastnn.ops.random``). What they
become is computed in float64, each operation rounded by itself, and then rounded to float32: the same bits on every
backend, and in models of either type.

Rotations, zooms and translations are matrices (N, 6) of rows ``(a0, a1, a2, b0, b1, b2)``: the output's pixel (x, y),
x to the right and y down, is the input's pixel ``(a0 x + a1 y + a2, b0 x + b1 y + b2)``. That place, too, is computed
in float64, so that the same pixels are taken everywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import SIZES, Case, op
from fastnn.ops.random import philox

#: How an image goes on beyond its edges.
FILL_MODES = ("constant", "nearest", "reflect", "wrap")
#: How pixels between pixels are found.
INTERPOLATIONS = ("nearest", "bilinear")
#: Images have at most so many channels, and are less than so many pixels high and wide.
MAX_CHANNELS, MAX_PIXELS = 2**16, 2**24
#: Places further from the image count as here; so does a place that is not a number.
FAR = 2.0**30


def row_numbers(rows: int, step: int, *, seed: int, stream: int) -> np.ndarray:
    """The four numbers in [0, 1) of each row, (4, N) float64."""
    row = np.arange(rows, dtype=np.uint64)
    rest = [np.full_like(row, value) for value in (step & 0xFFFFFFFF, step >> 32, stream)]
    return np.stack(philox([row, *rest], seed)) * 2.0**-32


def uniform_between(span: tuple[float, float], numbers: np.ndarray) -> Any:
    """Numbers in [0, 1) moved to the range ``span``."""
    low, high = span
    return low + (high - low) * numbers


def _check_image(x: Shape) -> None:
    if len(x) != 4 or any(size is None for size in x[1:]):
        raise ValueError(f"needs images (N, H, W, C). Received: shape {x}")
    most = (MAX_PIXELS - 1, MAX_PIXELS - 1, MAX_CHANNELS)
    if any(not 1 <= size <= limit for size, limit in zip(x[1:], most, strict=True)):  # type: ignore[operator]
        raise ValueError(f"needs images (N, H, W, C) of 1 to {most} pixels and channels. Received: shape {x}")


def _random_shape(x: Shape, step: Shape, **attrs: object) -> Shape:
    _check_image(x)
    if step != (1,):
        raise ValueError(f"needs the step number as an array of shape (1,). Received: shape {step}")
    return x


def _matrices_shape(x: Shape, step: Shape, **attrs: object) -> Shape:
    return (_random_shape(x, step)[0], 6)


def _images(rng: np.random.Generator, rows: int = 5, height: int = 6, width: int = 4) -> Iterator[Any]:
    """Images with as many channels as straddle the vector widths, and a few wide ones."""
    for channels in SIZES:
        yield rng.standard_normal((rows, height, width, channels))
    for width in (17, 33):
        yield rng.standard_normal((rows, height, width, 1))


_STEPS = (0, 5, 2**33 + 1)


def _keys(**attrs: object) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Step numbers and attributes of ops that draw."""
    for stream, step in enumerate(itertools.cycle(_STEPS)):
        yield np.array([step]), {**attrs, "seed": 2**63 + 12345, "stream": stream}


# Flips


def _flip_cases(rng: np.random.Generator) -> Iterator[Case]:
    ways = itertools.cycle([(True, True), (True, False), (False, True)])
    for x, (step, key), (horizontal, vertical) in zip(_images(rng, rows=19), _keys(), ways, strict=False):
        yield (x, step), {"horizontal": horizontal, "vertical": vertical, **key}


@op(
    shape=_random_shape,
    gradient=lambda g, y, x, step, **attrs: (random_flip(g, step, **attrs), None),
    terms=lambda x, step, **attrs: 0,
    cases=_flip_cases,
)
def random_flip(x, step, *, horizontal, vertical, seed, stream):
    """Each image as it is or mirrored. Its gradient is itself.

    Left and right change places if ``horizontal`` and the row's first number is below 1/2, top and bottom if
    ``vertical`` and the second one is.
    """
    across, down = (row_numbers(len(x), int(step[0]), seed=seed, stream=stream)[:2] < 0.5)[..., None, None, None]
    x = np.where(across & horizontal, x[:, :, ::-1], x)
    return np.where(down & vertical, x[:, ::-1], x)


# Matrices


def _about_centre(x: Any, a0: Any, a1: Any, b0: Any, b1: Any, right: Any = 0.0, down: Any = 0.0) -> Any:
    """The matrices whose linear part leaves the centre of the images where it is, and then a move."""
    cx, cy = (x.shape[2] - 1) / 2.0, (x.shape[1] - 1) / 2.0
    parts = (a0, a1, (cx - (a0 * cx + a1 * cy)) - right, b0, b1, (cy - (b0 * cx + b1 * cy)) - down)
    columns = [np.broadcast_to(part, len(x)) for part in parts]
    return np.stack(columns, axis=1).astype(np.float32).astype(x.dtype)


def sine_and_cosine(turns: np.ndarray) -> tuple[Any, Any]:
    """Sine and cosine of so many whole turns, exact at multiples of a quarter.

    Taylor's polynomials, taken at most an eighth of a turn away from such a multiple: their error is below 1e-13.
    """
    quarters = np.floor(4.0 * turns + 0.5)
    angle = (4.0 * turns - quarters) * (math.pi / 2.0)
    z, s, c = angle * angle, np.zeros_like(turns), np.zeros_like(turns)
    for power in (13, 11, 9, 7, 5, 3, 1):
        s = s * z + _TAYLOR[power]
    for power in (14, 12, 10, 8, 6, 4, 2, 0):
        c = c * z + _TAYLOR[power]
    s = s * angle
    quadrant = quarters % 4.0
    sine = np.select([quadrant == 0, quadrant == 1, quadrant == 2], [s, c, -s], -c)
    cosine = np.select([quadrant == 0, quadrant == 1, quadrant == 2], [c, -s, -c], s)
    return sine, cosine


_TAYLOR = [(-1.0) ** (power // 2) / math.factorial(power) for power in range(15)]


def _rotation_cases(rng: np.random.Generator) -> Iterator[Case]:
    spans = itertools.cycle([(-1.0, 1.0), (-0.1, 0.1), (0.25, 0.25)])
    for rows, (step, key), span in zip(SIZES, _keys(), spans, strict=False):
        yield (np.zeros((rows, 5, 6, 2)), step), {"turns": span, **key}


def _draw_flops(x: tuple[int, ...], step: object, **attrs: object) -> float:
    return 100.0 * x[0]


@op(
    shape=_matrices_shape,
    terms=lambda x, step, **attrs: 0,
    flops=_draw_flops,
    cases=_rotation_cases,
)
def rotation_matrices(x, step, *, turns, seed, stream):
    """Rotations (N, 6) about the centre of images like ``x``.

    Against the clock, by a part of a turn that the row's first number draws from ``turns`` (low, high).
    """
    numbers = row_numbers(len(x), int(step[0]), seed=seed, stream=stream)
    s, c = sine_and_cosine(uniform_between(turns, numbers[0]))
    return _about_centre(x, c, -s, s, c)


def _zoom_cases(rng: np.random.Generator) -> Iterator[Case]:
    spans = itertools.cycle([((0.5, 1.5), (0.9, 1.1)), ((0.7, 1.3), None), ((0.5, 0.5), (2.0, 2.0))])
    for rows, (step, key), (heights, widths) in zip(SIZES, _keys(), spans, strict=False):
        yield (np.zeros((rows, 5, 6, 2)), step), {"heights": heights, "widths": widths, **key}


@op(
    shape=_matrices_shape,
    terms=lambda x, step, **attrs: 0,
    flops=_draw_flops,
    cases=_zoom_cases,
)
def zoom_matrices(x, step, *, heights, widths, seed, stream):
    """Zooms (N, 6) about the centre of images like ``x``.

    The row's first number draws how much of the height is seen from ``heights`` (low, high), which are positive: below
    1 the picture becomes larger. The second one does so for ``widths``; None: by as much as the height.
    """
    numbers = row_numbers(len(x), int(step[0]), seed=seed, stream=stream)
    high = uniform_between(heights, numbers[0])
    wide = high if widths is None else uniform_between(widths, numbers[1])
    return _about_centre(x, wide, 0.0, 0.0, high)


def _translation_cases(rng: np.random.Generator) -> Iterator[Case]:
    spans = itertools.cycle([((-0.5, 0.5), (-0.3, 0.1)), ((-1.0, 1.0), (0.0, 0.0)), ((0.2, 0.2), (-0.5, -0.5))])
    for rows, (step, key), (heights, widths) in zip(SIZES, _keys(), spans, strict=False):
        yield (np.zeros((rows, 5, 6, 2)), step), {"heights": heights, "widths": widths, **key}


@op(
    shape=_matrices_shape,
    terms=lambda x, step, **attrs: 0,
    flops=_draw_flops,
    cases=_translation_cases,
)
def translation_matrices(x, step, *, heights, widths, seed, stream):
    """Translations (N, 6) of images like ``x``.

    Down by a part of the height that the row's first number draws from ``heights`` (low, high), and to the right by a
    part of the width that the second one draws from ``widths``.
    """
    numbers = row_numbers(len(x), int(step[0]), seed=seed, stream=stream)
    down = uniform_between(heights, numbers[0]) * x.shape[1]
    right = uniform_between(widths, numbers[1]) * x.shape[2]
    return _about_centre(x, 1.0, 0.0, 0.0, 1.0, right, down)


# Sampling


def _extended(index: np.ndarray, size: int, fill_mode: str) -> Any:
    """The pixel at ``index`` of an axis of ``size`` pixels that goes on beyond its ends; -1 for the filling.

    constant k k k k | a b c d | k k k k    nearest a a a a | a b c d | d d d d
    reflect  d c b a | a b c d | d c b a    wrap    a b c d | a b c d | a b c d
    """
    if fill_mode == "constant":
        return np.where((index >= 0) & (index < size), index, -1)
    if fill_mode == "nearest":
        return np.clip(index, 0, size - 1)
    if fill_mode == "wrap":
        return index % size
    index = index % (2 * size)
    return np.minimum(index, 2 * size - 1 - index)


def _taps(at: np.ndarray, size: int, interpolation: str, fill_mode: str) -> list[tuple[Any, Any]]:
    """The pixels of an axis behind the places ``at``, and their weights."""
    at = np.where(at > -FAR, np.minimum(at, FAR), -FAR)
    if interpolation == "nearest":
        low = np.floor(at + 0.5)
        return [(_extended(low.astype(np.int64), size, fill_mode), np.ones_like(at))]
    low = np.floor(at)
    index, part = low.astype(np.int64), at - low
    return [(_extended(index, size, fill_mode), 1.0 - part), (_extended(index + 1, size, fill_mode), part)]


def _samples(matrices: np.ndarray, height: int, width: int, interpolation: str, fill_mode: str) -> Iterator[Any]:
    """The pixels that are blended, one after the other, for all places at once.

    Yields the number within the image, -1 for the filling, and the weight, both (N, H * W, 1).
    """
    a0, a1, a2, b0, b1, b2 = matrices.astype(np.float64).T[..., None, None]
    x, y = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)[:, None]
    across = _taps((a1 * y + a2) + a0 * x, width, interpolation, fill_mode)
    down = _taps((b1 * y + b2) + b0 * x, height, interpolation, fill_mode)
    for row, row_weight in down:
        for column, column_weight in across:
            number = np.where((row < 0) | (column < 0), -1, row * width + column)
            yield tuple(a.reshape(len(matrices), -1, 1) for a in (number, row_weight * column_weight))


def _affine_shape(x: Shape, matrices: Shape, *, interpolation: str, fill_mode: str, fill_value: float = 0.0) -> Shape:
    _check_image(x)
    if matrices != (x[0], 6):
        raise ValueError(f"needs a matrix (N, 6) for each image. Received: shapes {x} and {matrices}")
    if interpolation not in INTERPOLATIONS or fill_mode not in FILL_MODES:
        raise ValueError(
            f"interpolation must be one of {', '.join(INTERPOLATIONS)}, fill_mode one of {', '.join(FILL_MODES)}. "
            f"Received: interpolation={interpolation!r}, fill_mode={fill_mode!r}"
        )
    return x


def _affine_flops(x: tuple[int, ...], matrices: object, **attrs: object) -> float:
    return float(x[0]) * x[1] * x[2] * (40 + 8 * x[3])


def _affine_cases(rng: np.random.Generator) -> Iterator[Case]:
    modes = itertools.cycle(itertools.product(INTERPOLATIONS[::-1], FILL_MODES))
    for x, (interpolation, fill_mode) in zip(itertools.chain(_images(rng), _images(rng)), modes, strict=False):
        matrices = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]) + rng.standard_normal((len(x), 6)) * ([0.4, 0.4, 3.0] * 2)
        yield (x, matrices), {"interpolation": interpolation, "fill_mode": fill_mode, "fill_value": 0.75}


@op(
    shape=_affine_shape,
    gradient=lambda g, y, x, matrices, *, fill_value, **attrs: (affine_transform_dx(g, matrices, **attrs), None),
    terms=lambda x, matrices, **attrs: 8,
    scale=lambda x, matrices, fill_value, **attrs: (
        affine_transform.reference(abs(x), matrices, fill_value=abs(fill_value), **attrs)
    ),
    flops=_affine_flops,
    cases=_affine_cases,
)
def affine_transform(x, matrices, *, interpolation, fill_mode, fill_value):
    """Each image seen through its matrix.

    A pixel between pixels is the bilinear interpolation of the four around it, or the nearest of them; beyond its edges
    an image goes on as ``fill_mode`` says.
    """
    pixels, y = x.reshape(len(x), -1, x.shape[3]), np.zeros((), x.dtype)
    for number, weight in _samples(matrices, x.shape[1], x.shape[2], interpolation, fill_mode):
        taken = np.take_along_axis(pixels, np.maximum(number, 0), axis=1)
        y = y + weight.astype(x.dtype) * np.where(number < 0, np.asarray(fill_value, x.dtype), taken)
    return y.reshape(x.shape)


def _affine_dx_cases(rng: np.random.Generator) -> Iterator[Case]:
    for inputs, attrs in _affine_cases(rng):
        yield inputs, {key: value for key, value in attrs.items() if key != "fill_value"}


@op(
    shape=_affine_shape,
    terms=lambda g, matrices, **attrs: g[1] * g[2] + 8,
    scale=lambda g, matrices, **attrs: affine_transform_dx.reference(abs(g), matrices, **attrs),
    flops=_affine_flops,
    cases=_affine_dx_cases,
)
def affine_transform_dx(g, matrices, *, interpolation, fill_mode):
    """The gradient with respect to the images: a pixel gets its share of the gradients of the pixels it went into."""
    grads = g.reshape(len(g), -1, g.shape[3])
    total = np.zeros_like(grads)
    for number, weight in _samples(matrices, g.shape[1], g.shape[2], interpolation, fill_mode):
        shares = np.where(number < 0, 0.0, weight).astype(g.dtype) * grads
        np.add.at(total, (np.arange(len(g))[:, None], np.maximum(number[..., 0], 0)), shares)
    return total.reshape(g.shape)


# Contrast


def contrast_factors(
    factors: tuple[float, float], rows: int, step: int, *, seed: int, stream: int, dtype: Any = np.float32
) -> Any:
    """A factor for each row, drawn from ``factors`` (low, high) by its first number, rounded to float32: (N,)."""
    drawn = uniform_between(factors, row_numbers(rows, step, seed=seed, stream=stream)[0])
    return drawn.astype(np.float32).astype(dtype)


def _contrast_cases(rng: np.random.Generator) -> Iterator[Case]:
    limits = itertools.cycle([(-1.25, 0.75), (-100.0, 100.0), (0.0, 1.0)])
    keys = _keys(factors=(0.25, 1.75))
    for x, (step, key), span in zip(_images(rng), keys, limits, strict=False):
        yield (x, step), {"limits": span, **key}
    for shape, (step, key) in zip([(3, 40, 53, 1), (3, 2, 4, 2050)], keys, strict=False):
        yield (rng.standard_normal(shape), step), {"limits": (-2.0, 2.0), **key}


def _contrast_scale(x: Any, step: Any, *, factors: Any, limits: Any, seed: int, stream: int) -> Any:
    factor = contrast_factors(factors, len(x), int(step[0]), seed=seed, stream=stream)[:, None, None, None]
    return (abs(x) + abs(x).mean(axis=(1, 2), keepdims=True)) * (1.0 + factor)


@op(
    shape=_random_shape,
    gradient=lambda g, y, x, step, **attrs: (random_contrast_dx(g, y, step, **attrs), None),
    terms=lambda x, step, **attrs: x[1] * x[2] + 8,
    scale=_contrast_scale,
    flops=lambda x, step, **attrs: 8.0 * math.prod(x),
    cases=_contrast_cases,
)
def random_contrast(x, step, *, factors, limits, seed, stream):
    """``(x - mean) factor + mean``, cut off at ``limits`` (low, high).

    The mean is that of a channel of an image, the factor that of the image: see ``contrast_factors``.
    """
    mean = x.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(x.dtype)
    factor = contrast_factors(factors, len(x), int(step[0]), seed=seed, stream=stream, dtype=x.dtype)
    y = (x - mean) * factor[:, None, None, None] + mean
    return np.clip(y, *np.asarray(limits, x.dtype))


def _contrast_dx_cases(rng: np.random.Generator) -> Iterator[Case]:
    for (x, step), attrs in _contrast_cases(rng):
        yield (rng.standard_normal(x.shape), np.clip(x, *attrs["limits"]), step), attrs


def _contrast_dx_shape(g: Shape, y: Shape, step: Shape, **attrs: object) -> Shape:
    if g != y:
        raise ValueError(f"needs gradient and output of one shape. Received: {g} and {y}")
    return _random_shape(g, step)


@op(
    shape=_contrast_dx_shape,
    terms=lambda g, y, step, **attrs: g[1] * g[2] + 8,
    scale=lambda g, y, step, limits, **attrs: _contrast_scale(g, step, limits=limits, **attrs),
    flops=lambda g, y, step, **attrs: 8.0 * math.prod(g),
    cases=_contrast_dx_cases,
)
def random_contrast_dx(g, y, step, *, factors, limits, seed, stream):
    """``factor g + (1 - factor) mean(g)`` with the gradients of the pixels that were not cut off, 0 for the others."""
    low, high = np.asarray(limits, g.dtype)
    g = np.where((low < y) & (y < high), g, np.asarray(0.0, g.dtype))
    mean = g.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(g.dtype)
    factor = contrast_factors(factors, len(g), int(step[0]), seed=seed, stream=stream, dtype=g.dtype)
    factor = factor[:, None, None, None]
    return factor * g + (1 - factor) * mean

"""Randomness that depends on nothing but its key: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3").

The word for element ``e`` at training step ``t`` of the op numbered ``stream`` comes from the counter
``(16 * (e // 64) + e % 16, t mod 2^32, t div 2^32, stream)`` under the 64-bit key ``seed``; of its four words it is
number ``e // 16 % 4``. (Blocks of 64 let sixteen lanes work side by side and store in order.) So the bits are the same
on every backend, for any number of threads, and in the backward pass, which draws them again instead of keeping them.

A normal number is made of one word, too. Its lowest bit is the sign; the others are an odd number v < 2^31, and
``u = v / 2^31`` is the probability that a normal number is at least so large. With ``w = -log2 u`` and
``t = sqrt(1 + w) - 1`` that size is ``t P(t) / Q(t)``, P and Q of degree 3, to 4e-8 on 0 <= w <= 31, which is 6.2
standard deviations. The logarithm is the exponent of v and ``f L(f)``, L of degree 7, to 5e-8, for a mantissa 1 + f
between sqrt(1/2) and sqrt(2). All of it is float32 arithmetic, each operation rounded by itself, square root and
division included: so these bits, too, are the same everywhere. They are within 2e-6 of the exact size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import SIZES, Case, op

_MULTIPLIER = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(counter: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """Ten rounds of Philox4x32 on four arrays of 32-bit counters (held in uint64); returns four arrays of words."""
    c0, c1, c2, c3 = (np.asarray(c, dtype=np.uint64) for c in counter)
    k0, k1 = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32 & 0xFFFFFFFF)
    for _ in range(10):
        a, b = c0 * _MULTIPLIER[0], c2 * _MULTIPLIER[1]
        c0, c1, c2, c3 = (b >> _HALF) ^ c1 ^ k0, b & _LOW, (a >> _HALF) ^ c3 ^ k1, a & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return [c0, c1, c2, c3]


def random_words(count: int, step: int, *, seed: int, stream: int) -> np.ndarray:
    """``count`` random 32-bit words (as uint64) for elements 0 .. count-1 of one op at one step."""
    blocks = -(-count // 64)
    lane = np.arange(16 * blocks, dtype=np.uint64)
    rest = [np.full_like(lane, value) for value in (step & 0xFFFFFFFF, step >> 32, stream)]
    words = np.stack(philox([lane, *rest], seed))
    return words.reshape(4, blocks, 16).transpose(1, 0, 2).reshape(-1)[:count]


def uniform(count: int, step: int, *, seed: int, stream: int) -> np.ndarray:
    """``count`` float32 numbers in [0, 1), multiples of 2^-24."""
    words = random_words(count, step, seed=seed, stream=stream)
    return (words >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)


#: Coefficients of log2(1 + f) / f and of the polynomials P and Q, the constant first.
LOG2 = tuple(
    np.float32(c)
    for c in (1.4426947724, -0.721357149, 0.4809394442, -0.3600872132, 0.2867074705, -0.2500690858, 0.2368902793,
              -0.1457442187)
)  # fmt: skip
SIZE_P = tuple(np.float32(c) for c in (1.7374605488, 2.2034123289, 0.7633554883, 0.0695518118))
SIZE_Q = tuple(np.float32(c) for c in (1.0, 1.4613107338, 0.5913914313, 0.0590351455))
#: The bits of sqrt(1/2): mantissas are taken from there on.
SQRT_HALF = np.int32(0x3F3504F3)


def _polynomial(coefficients: tuple[np.float32, ...], x: Any) -> Any:
    y = coefficients[-1]
    for c in coefficients[-2::-1]:
        y = y * x + c
    return y


def normal_of(words: np.ndarray) -> Any:
    """The normal numbers, float32, that these 32-bit words stand for."""
    words = words.astype(np.uint32)
    v = ((words >> np.uint32(1)) | np.uint32(1)).astype(np.float32)
    bits = v.view(np.int32)
    exponent = (bits - SQRT_HALF) >> np.int32(23)
    f = (bits - (exponent << np.int32(23))).view(np.float32) - np.float32(1.0)
    w = (np.float32(32.0) - exponent.astype(np.float32)) - f * _polynomial(LOG2, f)
    t = np.sqrt(w) - np.float32(1.0)
    size = t * _polynomial(SIZE_P, t) / _polynomial(SIZE_Q, t)
    return (size.view(np.uint32) ^ (words << np.uint32(31))).view(np.float32)


def normal(count: int, step: int, *, seed: int, stream: int) -> Any:
    """``count`` float32 numbers of the standard normal distribution."""
    return normal_of(random_words(count, step, seed=seed, stream=stream))


def _cases(rng: np.random.Generator) -> Iterator[Case]:
    for n in SIZES:
        for step in (0, 5, 2**33 + 1):
            yield (rng.standard_normal((n, 13)), np.array([step])), {"rate": 0.3, "seed": 2**63 + 12345, "stream": n}
    yield (rng.standard_normal((4, 16)), np.array([1])), {"rate": 0.0, "seed": 1, "stream": 0}


def _shape(x: Shape, step: Shape, **attrs: object) -> Shape:
    if step != (1,):
        raise ValueError(f"needs the step number as an array of shape (1,). Received: shape {step}")
    return x


@op(
    shape=_shape,
    gradient=lambda g, y, x, step, **attrs: (dropout(g, step, **attrs), None),
    scale=lambda x, step, rate, **attrs: abs(x) / (1.0 - rate),
    terms=lambda x, step, **attrs: 2,
    cases=_cases,
)
def dropout(x, step, *, rate, seed, stream):
    """``x / (1 - rate)``, with each element set to 0 with probability ``rate`` (Srivastava et al. 2014).

    Its gradient is itself: the same elements are dropped from the gradient.
    """
    keep = uniform(x.size, int(step[0]), seed=seed, stream=stream).reshape(x.shape) >= np.float32(rate)
    return np.where(keep, x * np.asarray(1.0 / (1.0 - rate), x.dtype), np.asarray(0.0, x.dtype))


def _spatial_cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape in (
        (5, 1), (3, 9, 1), (4, 6, 5, 3), (3, 4, 2, 8), (5, 3, 7, 2, 5), (3, 20, 17), (4, 3, 3, 33), (3, 2, 130)
    ):  # fmt: skip
        for step in (0, 2**33 + 1):
            attrs = {"rate": 0.4, "seed": 2**63 + 99, "stream": len(shape)}
            yield (rng.standard_normal(shape), np.array([step])), attrs
    yield (rng.standard_normal((4, 2, 4100)), np.array([1])), {"rate": 0.7, "seed": 3, "stream": 2**32 - 1}
    yield (rng.standard_normal((3, 4, 16)), np.array([1])), {"rate": 0.0, "seed": 1, "stream": 0}


@op(
    shape=_shape,
    gradient=lambda g, y, x, step, **attrs: (spatial_dropout(g, step, **attrs), None),
    scale=lambda x, step, rate, **attrs: abs(x) / (1.0 - rate),
    terms=lambda x, step, **attrs: 2,
    flops=lambda x, step, **attrs: 4.0 * math.prod(x),
    cases=_spatial_cases,
)
def spatial_dropout(x, step, *, rate, seed, stream):
    """Dropout of whole channels (Tompson et al. 2015).

    The number of element ``n * C + c`` decides for channel c of row n of ``x (N, ..., C)`` at all places. Its gradient
    is itself.
    """
    numbers = uniform(len(x) * x.shape[-1], int(step[0]), seed=seed, stream=stream)
    keep = numbers.reshape(len(x), *(1,) * (x.ndim - 2), x.shape[-1]) >= np.float32(rate)
    return np.where(keep, x * np.asarray(1.0 / (1.0 - rate), x.dtype), np.asarray(0.0, x.dtype))


@op(
    shape=_shape,
    gradient=lambda g, y, x, step, **attrs: (g, None),
    scale=lambda x, step, stddev, **attrs: abs(x) + 7.0 * stddev,
    terms=lambda x, step, **attrs: 3,
    flops=lambda x, step, **attrs: 40.0 * math.prod(x),
    cases=lambda rng: (
        (inputs, {"stddev": 0.3, "seed": attrs["seed"], "stream": attrs["stream"]}) for inputs, attrs in _cases(rng)
    ),
)
def gaussian_noise(x, step, *, stddev, seed, stream):
    """``x + stddev * z`` with a standard normal number z for each element."""
    z = normal(x.size, int(step[0]), seed=seed, stream=stream).reshape(x.shape)
    return x + np.asarray(stddev, x.dtype) * z.astype(x.dtype)

"""Randomness that depends on nothing but its key: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3").

The word for element ``e`` at training step ``t`` of the op numbered ``stream`` comes from the counter
``(16 * (e // 64) + e % 16, t mod 2^32, t div 2^32, stream)`` under the 64-bit key ``seed``; of its four words it is
number ``e // 16 % 4``. (Blocks of 64 let sixteen lanes work side by side and store in order.) So the bits are the same
on every backend, for any number of threads, and in the backward pass, which draws them again instead of keeping them.
"""

from __future__ import annotations

from collections.abc import Iterator

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

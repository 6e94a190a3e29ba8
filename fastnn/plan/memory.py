"""Memory: when each tensor is alive, and where in the arena it lives then."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

#: Tensors start at multiples of so many elements: 64 bytes of float32, a cache line.
ALIGNMENT = 16


class Lifetime:
    """A tensor's ``size`` in elements, and the numbers of the first and the last step that touch it."""

    def __init__(self, size: int, first: int, last: int) -> None:
        self.size, self.first, self.last = size, first, last


def assign(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """An offset for each lifetime, such that no two that overlap in time overlap in memory; and the arena's size.

    Greedy: the largest first, each at the lowest gap that holds it (Pisarchyk & Lee 2020, "Efficient memory management
    for deep neural net inference"); or those that live longest first; or those that take most memory for most of the
    time. The best of the three counts.

    >>> assign([Lifetime(16, 0, 1), Lifetime(16, 1, 2), Lifetime(16, 2, 3)])
    ([0, 16, 0], 32)
    """
    change = [0] * (max((lifetime.last for lifetime in lifetimes), default=0) + 2)
    for lifetime in lifetimes:
        change[lifetime.first] += aligned(lifetime.size)
        change[lifetime.last + 1] -= aligned(lifetime.size)
    least = max(itertools.accumulate(change))
    best: tuple[list[int], int] | None = None
    for importance in (_size, _size_and_time, _time):
        found = _assign(lifetimes, importance)
        if best is None or found[1] < best[1]:
            best = found
        if best[1] == least:
            break
    assert best is not None
    return best


def _size(lifetime: Lifetime) -> float:
    return lifetime.size


def _time(lifetime: Lifetime) -> float:
    return lifetime.last - lifetime.first


def _size_and_time(lifetime: Lifetime) -> float:
    return lifetime.size * (lifetime.last - lifetime.first + 1.0)


def _assign(lifetimes: Sequence[Lifetime], importance: Callable[[Lifetime], float]) -> tuple[list[int], int]:
    """The most important first, each at the lowest gap that holds it."""
    offsets = [0] * len(lifetimes)
    placed: list[int] = []
    for index in sorted(range(len(lifetimes)), key=lambda i: (-importance(lifetimes[i]), lifetimes[i].first, i)):
        new = lifetimes[index]
        neighbours = sorted(
            (offsets[i], offsets[i] + aligned(lifetimes[i].size))
            for i in placed
            if lifetimes[i].first <= new.last and new.first <= lifetimes[i].last
        )
        offset = 0
        for start, end in neighbours:
            if offset + new.size <= start:
                break
            offset = max(offset, end)
        offsets[index] = offset
        placed.append(index)
    return offsets, max((offsets[i] + aligned(lifetimes[i].size) for i in range(len(lifetimes))), default=0)


def aligned(size: int) -> int:
    """``size`` rounded up to whole cache lines."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def zeros(count: int, dtype: Any) -> np.ndarray:
    """``count`` zeros that start on a cache line."""
    size = np.dtype(dtype).itemsize
    block = np.zeros(count * size + 64, np.uint8)
    start = -block.ctypes.data % 64
    return block[start : start + count * size].view(dtype)

"""Arguments that layers with sliding windows share: sizes along each axis of space, padding, the shape of the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.window import LIMIT, Pads, output_sizes, resolve_padding

#: Names of the axes of rows by the number of axes of space.
ROWS = {1: "(batch, steps, channels)", 2: "(batch, H, W, channels)", 3: "(batch, D, H, W, channels)"}


def _integers(values: Any, low: int) -> bool:
    return all(not isinstance(v, bool) and hasattr(v, "__index__") and low <= v.__index__() < LIMIT for v in values)


def _listed(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def per_axis(what: str, name: str, value: Any, rank: int, *, low: int = 1) -> tuple[int, ...]:
    """One integer for each axis of space: ``value`` is one for all of them, or as many as there are axes.

    Raises:
        ValueError: a number is not an integer, below ``low``, or 2**31 or more; or there are not ``rank`` of them
    """
    values = tuple(value) if _listed(value) else (value,) * rank
    if len(values) != rank or not _integers(values, low):
        each = "an integer" if rank == 1 else f"an integer or {rank} integers"
        raise ValueError(f"{what}: {name} must be {each}, {low} or more and below 2**31. Received: {name}={value!r}")
    return tuple(int(v.__index__()) for v in values)


def check_padding(what: str, padding: Any, rank: int, *words: str) -> str | Pads:
    """One of the ``words``, in lower case, or ``(before, after)`` for each axis of space."""
    if isinstance(padding, str) and padding.lower() in words:
        return padding.lower()
    if _listed(padding) and len(padding) == rank:
        if all(_listed(pair) and len(pair) == 2 and _integers(pair, 0) for pair in padding):
            return tuple((int(before), int(after)) for before, after in padding)
    known = ", ".join(repr(word) for word in words)
    pairs = ", ".join(["(before, after)"] * rank) + ("," if rank == 1 else "")
    raise ValueError(f"{what}: padding must be one of {known} or ({pairs}). Received: padding={padding!r}")


def check_rows(name: str, what: str, shape: Shape, rank: int) -> tuple[tuple[int, ...], int]:
    """The sizes of space and the number of channels of rows with ``rank`` axes of space, all of them known."""
    if len(shape) != rank + 2 or None in shape[1:]:
        raise ValueError(f"{name}: {what} needs rows of {rank + 1} axes, {ROWS[rank]}. Received: shape {shape}")
    return shape[1:-1], shape[-1]  # type: ignore[return-value]


def check_size(name: str, what: str, part: str, sizes: Sequence[int]) -> None:
    """ValueError if an array of these sizes would have 2**31 elements or more."""
    if math.prod(sizes) >= LIMIT:
        raise ValueError(f"{name}: {what} needs {part} of fewer than 2**31 elements. Received: {tuple(sizes)}")


def fit(
    name: str,
    what: str,
    shape: Shape,
    padding: str | Pads,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[Pads, tuple[int, ...]]:
    """The padding and the output sizes of windows over rows of this shape.

    Raises:
        ValueError: the rows have another number of axes, the window does not fit into them, or they are too large
    """
    sizes, channels = check_rows(name, what, shape, len(kernel))
    pads = resolve_padding(padding, sizes, kernel, strides, dilations)
    whole = [size + before + after for size, (before, after) in zip(sizes, pads, strict=True)]
    check_size(name, what, "padded rows", (*whole, channels))
    try:
        return pads, output_sizes(sizes, kernel, strides, dilations, pads)
    except ValueError as error:
        raise ValueError(f"{name}: {what}: {error}") from None

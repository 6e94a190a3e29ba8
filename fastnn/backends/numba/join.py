"""Joining along an axis, and parts: all axes before the axis count as one, and so do it and those behind it."""

from __future__ import annotations

import math
from typing import Any

from fastnn.backends.numba.elementary import ZERO
from fastnn.backends.numba.jit import IN2, INTEGER, OUT2, Arrays, compiled, kernel


@compiled(OUT2, INTEGER, IN2, INTEGER, INTEGER)
def _place(y, at, x, first, size):  # type: ignore[no-untyped-def]
    """Columns at, at + 1, ... of y are ``size`` columns of x, from ``first`` on."""
    for row in range(y.shape[0]):
        for i in range(size):
            y[row, at + i] = x[row, first + i]


def _flat(array: Any, axis: int) -> Any:
    return array.reshape(math.prod(array.shape[:axis]), math.prod(array.shape[axis:]))


@kernel
def concatenate(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    y, at = _flat(outputs[0], attrs["axis"]), 0
    for array in inputs:
        x = _flat(array, attrs["axis"])
        _place.run(y, at, x, 0, x.shape[1])
        at += x.shape[1]


@kernel
def part(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    axis = attrs["axis"]
    y, x = _flat(outputs[0], axis), _flat(inputs[0], axis)
    _place.run(y, 0, x, attrs["start"] * (y.shape[1] // attrs["size"]), y.shape[1])


@kernel
def embed(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    axis = attrs["axis"]
    y, x = _flat(outputs[0], axis), _flat(inputs[0], axis)
    y[...] = ZERO
    _place.run(y, attrs["start"] * (y.shape[1] // attrs["whole"]), x, 0, x.shape[1])

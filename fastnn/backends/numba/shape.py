"""Zeros around the rows: plain assignments, as fast in NumPy as anywhere."""

from __future__ import annotations

from typing import Any

from fastnn.backends.numba.jit import Arrays, kernel


@kernel
def zero_pad(outputs: Arrays, inputs: Arrays, attrs: dict[str, Any]) -> None:
    y, x = outputs[0], inputs[0]
    for axis, (before, _) in enumerate(attrs["pads"], start=1):
        after = before + x.shape[axis]
        for edge in (slice(before), slice(after, None)):
            y[(slice(None),) * axis + (edge,)] = 0.0
        y = y[(slice(None),) * axis + (slice(before, after),)]
    y[...] = x

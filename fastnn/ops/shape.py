"""Other shapes for the same numbers: views in the Plan."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.graph import Shape
from fastnn.ops.declare import SIZES, Case, op


def _shape(x: Shape, *, shape: tuple[int, ...]) -> Shape:
    sizes = [size for size in x[1:] if size is not None]
    if len(sizes) < len(x) - 1 or math.prod(sizes) != math.prod(shape):
        raise ValueError(f"rows of shape {x[1:]} cannot become rows of another size. Received: shape={shape}")
    return (x[0], *shape)


def _cases(rng: np.random.Generator) -> Iterator[Case]:
    for n in SIZES:
        yield (rng.standard_normal((n, 4, 6)),), {"shape": (24,)}


@op(
    shape=_shape,
    gradient=lambda g, y, x, shape: (reshape(g, shape=x.shape[1:]),),
    terms=lambda x, **attrs: 0,
    cases=_cases,
    view=True,
)
def reshape(x: Any, *, shape: Any) -> Any:
    """The rows of ``x`` (N, ...) in another shape: (N, *shape)."""
    return x.reshape(len(x), *shape)

"""What the numbers mean: windows of CT, and normalization of a volume by its own mean and deviation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, overload

import numpy as np

from fastnn.configurable import number
from fastnn.imaging.volume import Volume, values_of
from fastnn.jobs.words import near_misses

__all__ = ["WINDOWS", "window", "zscore"]

#: Names of windows, and their center and width in HU: the usual ones, after "Windowing (CT)", radiopaedia.org.
WINDOWS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "brain": (40, 80),
        "stroke": (40, 40),
        "temporal_bone": (600, 2800),
        "lung": (-600, 1500),
        "mediastinum": (50, 350),
        "soft_tissue": (50, 400),
        "liver": (30, 150),
        "spine": (50, 250),
        "bone": (400, 1800),
    }
)


@overload
def window(x: Volume, center: float | str, width: float | None = None) -> Volume: ...
@overload
def window(x: Any, center: float | str, width: float | None = None) -> np.ndarray: ...
def window(x: Any, center: float | str, width: float | None = None) -> Volume | np.ndarray:
    """Numbers inside a window to 0..1, those below it to 0, those above it to 1.

    The linear function of DICOM PS3.3 C.11.2.1.2.1 with an output from 0 to 1, c the center and w the width::

        x <= c - 0.5 - (w - 1) / 2   0
        x >  c - 0.5 + (w - 1) / 2   1
        between them                 (x - (c - 0.5)) / (w - 1) + 0.5

    It is made for whole numbers: a window of 80 around 40 leads 0 to 0 and 79 to 1. A width of 1 is a threshold.

    Args:
        x: Volume or array of any shape, in HU for the named windows; NaN stays NaN
        center: middle of the window, or one of the names in ``WINDOWS``, such as "lung"
        width: of the window, 1 or more; None with a name

    Returns:
        float32 of the same shape, 0..1; a Volume if ``x`` is one

    Raises:
        ValueError: the width is below 1, the name unknown, or there is a name and a width

    Example:
        >>> window(np.array([-1000, 0, 40, 79, 500]), "brain").round(3)
        array([0.   , 0.   , 0.506, 1.   , 1.   ], dtype=float32)
    """
    if isinstance(center, str):
        name = center.strip().lower().replace(" ", "_")
        if name not in WINDOWS:
            raise ValueError(f"window: there is no window named {center!r}{near_misses(name, WINDOWS)}")
        if width is not None:
            raise ValueError(f"window: width must be None beside a name. Received: width={width!r}")
        center, width = WINDOWS[name]
    c, w = number("window", "center", center), number("window", "width", width, low=1)
    values = values_of("window", x)
    with np.errstate(over="ignore"):
        y = values.astype(np.float32)
    if w == 1:
        y = np.where(np.isnan(y), y, (y > c - 0.5).astype(np.float32))
    else:
        y -= np.float32(c - 0.5)
        y /= np.float32(w - 1)
        y += np.float32(0.5)
        np.clip(y, 0, 1, out=y)
    return x.with_array(y) if isinstance(x, Volume) else y


@overload
def zscore(x: Volume, mask: Any = None) -> Volume: ...
@overload
def zscore(x: Any, mask: Any = None) -> np.ndarray: ...
def zscore(x: Any, mask: Any = None) -> Volume | np.ndarray:
    """Numbers less their mean, divided by their standard deviation (that of all N, not N - 1).

    Args:
        x: one Volume or array of any shape
        mask: of the same shape, 1 or True where mean and deviation are taken, such as inside the head, 0 elsewhere. All
            voxels are normalized, also those outside. None: everywhere.

    Returns:
        float32 of the same shape; a Volume if ``x`` is one. Computed in float64 and rounded once.

    Raises:
        ValueError: the voxels are all the same, so that there is no deviation to divide by; one is not finite; the mask
            has another shape, other numbers than 0 and 1, or no 1.

    Example:
        >>> zscore(np.array([[1.0, 2.0], [3.0, 4.0]])).round(2)
        array([[-1.34, -0.45],
               [ 0.45,  1.34]], dtype=float32)
    """
    values = values_of("zscore", x)
    parts = values.reshape(len(values) if values.ndim > 1 else 1, -1)  # one after the other: no copy of all in float64
    inside = None if mask is None else _mask(mask, values.shape).reshape(parts.shape)

    def chosen() -> Iterator[np.ndarray]:
        for i, part in enumerate(parts):
            yield np.asarray(part if inside is None else part[inside[i]], np.float64)

    total, count, low, high = 0.0, 0, np.inf, -np.inf
    for part in chosen():
        if part.size:
            total, count = total + float(part.sum()), count + part.size
            low, high = min(low, float(part.min())), max(high, float(part.max()))
            if not np.isfinite(part).all():
                raise ValueError("zscore: x must be finite. Received: NaN or infinity among its numbers")
    if low == high:
        raise ValueError(
            f"zscore: x must vary{'' if mask is None else ' inside the mask'}. Received: {low:g} everywhere"
        )
    mean = total / count
    deviation = np.sqrt(sum(float(np.square(part - mean).sum()) for part in chosen()) / count)
    y = np.empty(values.shape, np.float32)
    for part, out in zip(parts, y.reshape(parts.shape), strict=True):
        out[...] = (np.asarray(part, np.float64) - mean) / deviation
    return x.with_array(y) if isinstance(x, Volume) else y


def _mask(mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    given = values_of("zscore", mask, "mask")
    if given.shape != shape:
        raise ValueError(f"zscore: mask must have the shape of x, {shape}. Received: {given.shape}")
    inside = given != 0
    if (given[inside] != 1).any():
        raise ValueError(f"zscore: mask must be 0 or 1. Received: {given[inside][given[inside] != 1][0]}")
    if not inside.any():
        raise ValueError("zscore: mask must be 1 somewhere. Received: 0 everywhere")
    return inside  # type: ignore[no-any-return]

"""Windows that slide over signals, images and volumes: the geometry that convolution and pooling share.

N batch; D H W depth, height, width, of which a signal has W and an image H and W; C channels, always last; KD KH KW the
window; OD OH OW the output. Attributes that say something of these axes are tuples with one entry each:

    strides     how far the window moves
    dilations   how far apart the elements of the window are
    pads        (before, after): zeros around the input
    kernel      the window's size, where no array says it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Pads = tuple[tuple[int, int], ...]

#: No size, stride or amount of padding is larger: shapes stay within 64 bits.
LIMIT = 2**31


def spread(kernel: Sequence[int], dilations: Sequence[int]) -> tuple[int, ...]:
    """How much of the input a window covers."""
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))


def output_sizes(
    sizes: Sequence[int | None],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Pads,
) -> tuple[int, ...]:
    """How often the window fits along each axis.

    Raises:
        ValueError: the tuples have different lengths, a number is out of its range, or the window is larger than the
            padded input
    """
    rank = len(sizes)
    if not 1 <= rank <= 3 or any(len(v) != rank for v in (kernel, strides, dilations, pads)):
        raise ValueError(
            f"needs one to three spatial axes and one number for each. Received: sizes={tuple(sizes)}, "
            f"kernel={tuple(kernel)}, strides={tuple(strides)}, dilations={tuple(dilations)}, pads={tuple(pads)}"
        )
    for name, numbers, low in (
        ("sizes", sizes, 1),
        ("kernel", kernel, 1),
        ("strides", strides, 1),
        ("dilations", dilations, 1),
        ("pads", [p for pair in pads for p in pair], 0),
    ):
        if any(number is None or not low <= number < LIMIT for number in numbers):
            raise ValueError(f"{name} must be {low} or more and below 2**31. Received: {name}={tuple(numbers)}")
    covered = spread(kernel, dilations)
    found = []
    for size, width, stride, (before, after) in zip(sizes, covered, strides, pads, strict=True):
        assert size is not None
        if width > size + before + after:
            raise ValueError(
                "the window must not be larger than the padded input. Received: input of "
                f"{tuple(sizes)}, kernel {tuple(kernel)} (covers {covered}), padding {tuple(pads)}"
            )
        found.append((size + before + after - width) // stride + 1)
    return tuple(found)


def resolve_padding(
    padding: str | Pads,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Pads:
    """What "valid" (no padding) and "same" (output sizes are input sizes divided by the strides, rounded up; the odd
    zero comes after) mean for these sizes; pairs stay as they are.
    """
    if padding == "valid":
        return ((0, 0),) * len(sizes)
    if padding != "same":
        return padding  # type: ignore[return-value]
    pads = []
    for size, width, stride in zip(sizes, spread(kernel, dilations), strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + width - size, 0)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)


def padded(x: np.ndarray, pads: Pads, fill: float = 0.0) -> Any:
    """``x (N, *sizes, C)`` with ``fill`` around it."""
    if not any(p for pair in pads for p in pair):
        return x
    return np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=np.asarray(fill, x.dtype))


def windows(
    x: np.ndarray,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Pads,
    fill: float = 0.0,
) -> Any:
    """All windows on ``x (N, *sizes, C)``: a read-only view (N, *outputs, *kernel, C) of the padded array."""
    x = padded(x, pads, fill)
    outputs = output_sizes(x.shape[1:-1], kernel, strides, dilations, ((0, 0),) * len(kernel))
    space = x.strides[1:-1]
    steps = (
        x.strides[0],
        *(s * stride for s, stride in zip(space, strides, strict=True)),
        *(s * dilation for s, dilation in zip(space, dilations, strict=True)),
        x.strides[-1],
    )
    shape = (len(x), *outputs, *kernel, x.shape[-1])
    return np.lib.stride_tricks.as_strided(x, shape, steps, writeable=False)


def scatter_windows(
    parts: np.ndarray,
    sizes: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Pads,
) -> Any:
    """The adjoint of ``windows``: ``parts (N, *outputs, *kernel, C)`` added up where they came from, (N, *sizes, C)."""
    rank = len(sizes)
    outputs, kernel = parts.shape[1 : 1 + rank], parts.shape[1 + rank : 1 + 2 * rank]
    whole = [size + before + after for size, (before, after) in zip(sizes, pads, strict=True)]
    total = np.zeros((len(parts), *whole, parts.shape[-1]), parts.dtype)
    for tap in np.ndindex(*kernel):
        place = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, o, s in zip(tap, dilations, outputs, strides, strict=True)
        )
        total[(slice(None), *place)] += parts[(slice(None), *(slice(None),) * rank, *tap)]
    inside = tuple(slice(before, before + size) for size, (before, _) in zip(sizes, pads, strict=True))
    return total[(slice(None), *inside)]

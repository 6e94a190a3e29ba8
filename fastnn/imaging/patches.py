"""Images and volumes cut into patches of one size, and put together again without seams.

Patches stand on a grid: at even distances from the first voxel on, the last one moved back so that it ends where the
image does.
An image smaller than a patch lies in its middle, and is reflected around.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from fastnn.configurable import number, whole
from fastnn.imaging.volume import Volume, check_unmasked

__all__ = ["Grid", "assemble", "patches"]

#: One number for each spatial axis.
Index = tuple[int, ...]


class Grid:
    """Where patches of an image begin, and how much of each voxel comes from which.

    Args:
        what: the caller's name, for errors
        shape: spatial sizes of the image, (H, W) or (D, H, W)
        size: of a patch, as many numbers
        overlap: share of a patch that the next one covers too, 0 to below 1; one number, or one an axis
    """

    def __init__(self, what: str, shape: Sequence[int], size: Sequence[int], overlap: Any) -> None:
        self.what = what
        self.shape = tuple(whole(what, "shape", n) for n in shape)
        self.size = tuple(whole(what, "size", n) for n in size)
        if len(self.shape) != len(self.size):
            raise ValueError(f"{what}: size must have {len(self.shape)} numbers. Received: size={self.size}")
        shares = (overlap,) * len(self.size) if np.ndim(overlap) == 0 else tuple(overlap)
        if len(shares) != len(self.size):
            raise ValueError(f"{what}: overlap must be a number or {len(self.size)}. Received: overlap={overlap!r}")
        shares = tuple(number(what, "overlap", share, low=0, below=1) for share in shares)
        axes = list(zip(self.shape, self.size, shares, strict=True))
        #: For each axis, the first index of each patch; negative where the patch is larger than the image.
        self.starts = [_starts(n, size, share) for n, size, share in axes]
        #: For each axis, by start: the share (size,) of each voxel that comes from this patch.
        self.weights = [
            dict(zip(starts, _weights(starts, size, 24 // len(axes)), strict=True))
            for starts, (_, size, _) in zip(self.starts, axes, strict=True)
        ]

    def __iter__(self) -> Iterator[Index]:
        return product(*self.starts)

    def __contains__(self, position: Index) -> bool:
        return len(position) == len(self.size) and all(p in w for p, w in zip(position, self.weights, strict=True))

    def __len__(self) -> int:
        return int(np.prod([len(starts) for starts in self.starts]))

    def cut(self, x: Any, position: Index) -> np.ndarray:
        """The patch (*size, ...) of ``x`` (*shape, ...) that begins at a position, a view unless it is reflected."""
        inside, _ = self._overlap(position)
        patch = np.asarray(x[inside])
        ends = zip(position, self.size, self.shape, strict=True)
        pads = [(max(0, -p), max(0, p + size - n)) for p, size, n in ends]
        pads += [(0, 0)] * (patch.ndim - len(pads))
        return np.pad(patch, pads, mode="reflect") if np.any(pads) else patch

    def add(self, out: np.ndarray, position: Index, patch: np.ndarray) -> None:
        """Add to ``out`` (*shape, ...) its share of a patch (*size, ...)."""
        there, here = self._overlap(position)
        part = patch[here]
        for axis, start in enumerate(position):
            weights = self.weights[axis][start]
            if (weights != 1).any():
                part = part * weights[here[axis]].reshape(-1, *(1,) * (part.ndim - axis - 1))
        out[there] += part

    def _overlap(self, position: Index) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """What image and patch have in common, in indices of the one and of the other."""
        axes = list(zip(position, self.size, self.shape, strict=True))
        there = tuple(slice(max(0, p), min(n, p + size)) for p, size, n in axes)
        return there, tuple(slice(s.start - p, s.stop - p) for s, p in zip(there, position, strict=True))


def _starts(n: int, size: int, share: float) -> list[int]:
    if size >= n:
        return [-((size - n) // 2)]
    return [*range(0, n - size, max(1, size - round(size * share))), n - size]


def _weights(starts: Sequence[int], size: int, bits: int) -> list[np.ndarray]:
    """For each patch, (size,) float32: falling evenly from its middle to its edges, and 1 where it is alone.

    They are multiples of 2**-bits, and those of a voxel add up to exactly 1. If all axes together have 24 bits, their
    products are exact too, and rounding, which keeps numbers in their order, cannot lead out of the values' range.
    """
    ramp = np.minimum(np.arange(1, 2 * size, 2), np.arange(2 * size - 1, 0, -2))
    weights = np.zeros((len(starts), starts[-1] - starts[0] + size))
    parts = [row[start - starts[0] :][:size] for row, start in zip(weights, starts, strict=True)]
    for part in parts:
        part[:] = ramp
    weights *= 2**bits / weights.sum(axis=0)
    largest = weights.argmax(axis=0), np.arange(weights.shape[1])
    np.floor(weights, out=weights)
    weights[largest] += 2**bits - weights.sum(axis=0)
    return [(part / 2**bits).astype(np.float32) for part in parts]


def patches(x: Any, size: Sequence[int], overlap: float | Sequence[float] = 0.0) -> Iterator[tuple[Index, np.ndarray]]:
    """Cut an image or volume into patches that cover all of it, one after the other, row by row.

    Args:
        x: (H, W), (H, W, C), (D, H, W) or (D, H, W, C), by the length of ``size``: a Volume, an array, or whatever
            has a shape and can be sliced, such as a memmap or an array of Zarr or HDF5
        size: of a patch, (PH, PW) or (PD, PH, PW). Where it is larger than ``x``, ``x`` is reflected at its edges.
        overlap: share of a patch that the next one covers too, 0 to below 1; one number, or one an axis. The last patch
            of an axis may overlap more, so that it ends with the image.

    Yields:
        position of the patch's first voxel (negative if ``x`` is smaller than the patch), and the patch (*size) or
        (*size, C), of the type of ``x`` and a view of it where it can be

    Raises:
        ValueError: the size does not fit the axes of ``x``, or the overlap is another.

    Example:
        >>> [position for position, patch in patches(np.zeros((64, 100)), (64, 64), overlap=0.25)]
        [(0, 0), (0, 36)]
        >>> positions, stack = zip(*patches(np.zeros((64, 100, 3)), (32, 32)))
        >>> np.stack(stack).shape
        (8, 32, 32, 3)
    """
    array, grid = spatial("patches", x, size, overlap)
    return ((position, grid.cut(array, position)) for position in grid)


def spatial(what: str, x: Any, size: Sequence[int], overlap: Any) -> tuple[Any, Grid]:
    """An array (*space) or (*space, C), and the grid on its spatial axes."""
    check_unmasked(what, x)
    array = x.array if isinstance(x, Volume) else x if hasattr(x, "shape") else np.asarray(x)
    if np.ndim(size) != 1 or len(size) not in (2, 3):
        raise ValueError(f"{what}: size must be (H, W) or (D, H, W). Received: size={size!r}")
    rank = len(size)
    if len(array.shape) not in (rank, rank + 1) or 0 in array.shape:
        raise ValueError(f"{what}: x must have {rank} axes, or {rank + 1} with channels. Received: shape {array.shape}")
    return array, Grid(what, array.shape[:rank], size, overlap)


def assemble(
    parts: Iterable[tuple[Sequence[int], Any]],
    shape: Sequence[int],
    size: Sequence[int],
    overlap: float | Sequence[float] = 0.0,
) -> np.ndarray:
    """Put patches, or what a network made of them, together again.

    Where patches overlap, each counts the less the nearer its edge is, and the weights of all add up to 1: there are no
    seams, and probabilities stay between 0 and 1. Only one patch at a time is in memory, if ``parts`` is a generator.

    Args:
        parts: pairs of position and patch (*size) or (*size, F), in any order: all those that ``patches`` gives
        shape: spatial sizes (H, W) or (D, H, W) of the image
        size: of a patch, as for ``patches``
        overlap: as for ``patches``

    Returns:
        float32 (*shape) or (*shape, F). For patches in the same order it is the same to the last bit.

    Raises:
        ValueError: a position is not one of those of ``patches``, is there twice or missing; patches differ in shape.

    Example:
        >>> x = np.random.default_rng(0).random((50, 70)).astype(np.float32)
        >>> y = assemble(((p, 2 * patch) for p, patch in patches(x, (16, 16), 0.5)), x.shape, (16, 16), 0.5)
        >>> bool(np.allclose(y, 2 * x))
        True
    """
    grid = Grid("assemble", shape, size, overlap)
    out: np.ndarray | None = None
    seen = set[Index]()
    for where, given in parts:
        position, patch = tuple(int(p) for p in where), np.asarray(given)
        if position not in grid or position in seen:
            rule = "is there twice" if position in seen else "is none of those that patches gives"
            raise ValueError(f"assemble: the position {position} {rule}")
        wanted = grid.size if out is None else (*grid.size, *out.shape[len(grid.size) :])
        if (patch.shape[: len(grid.size)] if out is None else patch.shape) != wanted or patch.dtype.kind not in "fiub":
            raise ValueError(
                f"assemble: a patch must hold numbers of shape {wanted}. "
                f"Received: {patch.dtype} {patch.shape} at {position}"
            )
        if out is None:
            out = np.zeros((*grid.shape, *patch.shape[len(grid.size) :]), np.float32)
        grid.add(out, position, patch.astype(np.float32, copy=False))
        seen.add(position)
    if out is None or len(seen) < len(grid):
        missing = next(position for position in grid if position not in seen)
        raise ValueError(f"assemble: there are {len(seen)} of {len(grid)} patches; the one at {missing} is missing")
    return out

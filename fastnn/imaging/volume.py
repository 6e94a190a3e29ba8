"""Images with a place in the patient: an array, the distance of its voxels in mm, and where they lie.

The convention, whatever the file was: array axes are (D, H, W), slices, rows, columns, or (H, W) for one image. The
affine leads from an index (d, h, w) to mm in the patient, x growing to the patient's right, y to the front, z to the
head (RAS, as in NIfTI and nibabel; DICOM's own x and y, which grow to the left and to the back, are turned round).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from fastnn.configurable import number

__all__ = ["Volume", "needed", "per_axis", "values_of"]

#: Array axes last to first are x, y, z, when nothing else is known: the same as a NIfTI file without orientation.
PLAIN = np.eye(4)[:, [2, 1, 0, 3]]
#: Names of the directions of x, y, z, towards larger and smaller numbers.
TOWARDS = ("RL", "AP", "SI")
#: Given a spacing and an affine, they may differ by rounding: files hold decimal text and single precision.
ROUNDING = 1e-3


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Volume:
    """A grey image or volume that knows its voxels' size and place. It cannot be changed.

    Args:
        array: (D, H, W) or (H, W) numbers, such as HU; kept as float32. A float32 array is not copied; ``volume.array``
            is a read-only view of it. Labels of a mask are exact up to 2**24.
        spacing: mm from voxel to voxel, for each axis of the array in its order, or one number for all. From the affine
            if None; 1 mm if there is none either.
        affine: (4, 4), from an index (d, h, w, 1) of the array to mm (x, y, z, 1) in the patient, x to the right, y to
            the front, z to the head. An image (H, W) is at d = 0, and column d is its normal of 1 mm. If None, W grows
            along x, H along y, D along z, from 0.

    Raises:
        ValueError: the array is empty, or has not 2 or 3 axes of real numbers; the spacing is not positive, or is not
            that of the affine; the affine is not (4, 4), finite and invertible.

    Example:
        >>> volume = Volume(np.zeros((30, 64, 48)), spacing=(2.5, 0.7, 0.7))
        >>> volume
        <Volume (30, 64, 48), 2.5 x 0.7 x 0.7 mm, axes SAR>
        >>> volume.to_mm([10, 0, 20])
        array([14.,  0., 25.])
        >>> np.asarray(volume).dtype
        dtype('float32')
    """

    array: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray

    def __init__(self, array: Any, spacing: float | Sequence[float] | None = None, affine: Any = None) -> None:
        check_unmasked("Volume", array, "array")
        values = np.asarray(array)
        if values.dtype.kind not in "fiub" or values.ndim not in (2, 3) or not values.size:
            raise ValueError(
                f"Volume: array must hold real numbers (D, H, W) or (H, W). Received: {values.dtype} {values.shape}"
            )
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(values, np.float32)[...]
        values.flags.writeable = False
        steps = None if spacing is None else per_axis("Volume", "spacing", spacing, values.ndim)
        if affine is None:
            matrix = PLAIN * np.array([*(1.0,) * (3 - values.ndim), *(steps or (1.0,) * values.ndim), 1.0])
        else:
            matrix = _checked(affine)
        lengths = tuple(float(s) for s in np.linalg.norm(matrix[:3, 3 - values.ndim : 3], axis=0))
        if steps and not np.allclose(steps, lengths, rtol=ROUNDING, atol=0):
            raise ValueError(f"Volume: spacing must be that of the affine, {lengths}. Received: spacing={steps}")
        matrix.flags.writeable = False
        object.__setattr__(self, "array", values)
        object.__setattr__(self, "spacing", steps or lengths)
        object.__setattr__(self, "affine", matrix)

    @property
    def shape(self) -> tuple[int, ...]:
        """(D, H, W) or (H, W)."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        """3 for a volume, 2 for an image."""
        return self.array.ndim

    @property
    def origin(self) -> np.ndarray:
        """(3,) mm in the patient of the first voxel's centre."""
        return self.affine[:3, 3].copy()

    @property
    def direction(self) -> np.ndarray:
        """(3, 2 or 3): a column for each axis of the array, the unit vector along which its index grows."""
        columns = self.affine[:3, 3 - self.ndim : 3]
        return columns / np.linalg.norm(columns, axis=0)  # type: ignore[no-any-return]

    @property
    def orientation(self) -> str:
        """Where each axis of the array leads, roughly, in letters: R(ight) L(eft) A(nterior) P(osterior) S(uperior)
        I(nferior); "SPL" is a usual CT.
        """
        direction = self.direction
        return "".join(TOWARDS[axis][int(direction[axis, i] < 0)] for i, axis in enumerate(_main_axes(direction)))

    def to_mm(self, index: Any) -> np.ndarray:
        """Indices (..., 3 or 2), which need not be whole, to mm in the patient (..., 3)."""
        points = np.asarray(index, np.float64)
        if points.shape[-1:] != (self.ndim,):
            raise ValueError(f"to_mm: index must have shape (..., {self.ndim}). Received: {points.shape}")
        return points @ self.affine[:3, 3 - self.ndim : 3].T + self.origin  # type: ignore[no-any-return]

    def to_index(self, mm: Any) -> np.ndarray:
        """Mm in the patient (..., 3) to indices (..., 3 or 2), not rounded; an image takes the foot of the point."""
        points = np.asarray(mm, np.float64)
        if points.shape[-1:] != (3,):
            raise ValueError(f"to_index: mm must have shape (..., 3). Received: {points.shape}")
        inverse = np.linalg.inv(self.affine[:3, :3])
        return ((points - self.origin) @ inverse.T)[..., 3 - self.ndim :]  # type: ignore[no-any-return]

    def with_array(self, array: Any) -> Volume:
        """Other numbers, such as a mask or a prediction, at the same place: ``array`` must have the same shape."""
        if np.shape(array) != self.shape:
            raise ValueError(f"with_array: array must have shape {self.shape}. Received: {np.shape(array)}")
        return Volume(array, self.spacing, self.affine)

    def canonical(self) -> Volume:
        """The same voxels with axes turned and swapped, so that D leads to the head, H to the front and W to the right.

        Nothing is interpolated: a volume that is oblique in the patient stays so.

        Raises:
            ValueError: it is one image, not a volume.
        """
        if self.ndim != 3:
            raise ValueError(f"canonical: needs a volume (D, H, W). Received: an image {self.shape}")
        axes = _main_axes(self.direction)
        order = [axes.index(axis) for axis in (2, 1, 0)]
        array, affine = self.array.transpose(order), self.affine[:, [*order, 3]]
        for i, axis in enumerate((2, 1, 0)):
            if affine[axis, i] < 0:
                array = np.flip(array, i)
                affine[:, 3] += (array.shape[i] - 1) * affine[:, i]
                affine[:, i] *= -1
        return Volume(array, [self.spacing[i] for i in order], affine)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.array, dtype=dtype, copy=copy)

    def __reduce__(self) -> tuple[Any, ...]:
        return Volume, (self.array, self.spacing, self.affine)

    def __repr__(self) -> str:
        spacing = " x ".join(f"{s:g}" for s in self.spacing)
        return f"<Volume {self.shape}, {spacing} mm, axes {self.orientation}>"


def _checked(affine: Any) -> np.ndarray:
    """A copy of an affine that can be one."""
    try:
        matrix = np.array(affine, np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or (matrix[3] != (0, 0, 0, 1)).any():
        raise ValueError(f"Volume: affine must be finite, (4, 4), its last row 0, 0, 0, 1. Received: {affine!r:.200}")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if not lengths.all() or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-6:
        raise ValueError(f"Volume: affine must be invertible. Received: {matrix.tolist()}")
    return matrix


def _main_axes(direction: np.ndarray) -> tuple[int, ...]:
    """For each column, the axis x, y, z (0, 1, 2) that it leads along, each axis once: the best fit of them all."""
    count = direction.shape[1]
    fits = permutations(range(3), count)
    return max(fits, key=lambda axes: sum(abs(direction[axis, i]) for i, axis in enumerate(axes)))


def per_axis(what: str, name: str, value: Any, axes: int) -> tuple[float, ...]:
    """Positive numbers, one an axis, from as many or from one for all."""
    given = (value,) * axes if np.ndim(value) == 0 else tuple(value)
    if len(given) != axes:
        raise ValueError(f"{what}: {name} must be a number or {axes} of them. Received: {name}={value!r}")
    return tuple(number(what, name, each, above=0) for each in given)


def check_unmasked(what: str, x: Any, name: str = "x") -> None:
    """ValueError if some numbers are masked: what is computed with them would look like measured ones."""
    if np.ma.is_masked(x):
        raise ValueError(f"{what}: {name} must not have masked values. Received: a masked array")


def values_of(what: str, x: Any, name: str = "x") -> np.ndarray:
    """The numbers of a Volume or an array, as they are.

    Raises:
        ValueError: there are none, they are not real numbers, or some are masked.
    """
    check_unmasked(what, x, name)
    values: np.ndarray = x.array if isinstance(x, Volume) else np.asarray(x)
    if values.dtype.kind not in "fiub" or not values.size:
        raise ValueError(f"{what}: {name} must hold real numbers. Received: {values.dtype} {values.shape}")
    return values


@contextmanager
def needed(what: str, package: str) -> Iterator[None]:
    """An import that says what to do where the package is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ImportError(
            f'{what}: {package} is not installed; it comes with: pip install "fastnn-cpu[imaging]"'
        ) from None

"""Volumes and masks brought to another spacing, with scipy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastnn.configurable import whole
from fastnn.imaging.volume import Volume, needed, per_axis

__all__ = ["resample"]


def resample(
    volume: Volume, spacing: float | Sequence[float], order: int = 1, shape: Sequence[int] | None = None
) -> Volume:
    """The same field of view with other voxels.

    The spacing becomes exactly what is asked for, and the middle of the field of view stays where it is; so each
    edge moves by a quarter of a new voxel at most, which is what rounding to whole voxels takes. Where a new voxel's
    centre lies outside the old outermost centres, these are continued.

    To come back, for instance with a mask that was predicted on a resampled volume:
    ``resample(mask, volume.spacing, order=0, shape=volume.shape)``.

    Args:
        volume: (D, H, W) or (H, W)
        spacing: mm, one number for each axis in the array's order, or one for all
        order: 1 interpolates linearly, after smoothing along axes that become coarser (Gaussian, of a deviation of
            (new / old spacing - 1) / 2 voxels), so that nothing is skipped; 0 takes the nearest voxel, for masks
        shape: number of voxels of each axis; the field of view divided by the spacing, rounded, if None

    Returns:
        Volume with the new spacing and affine

    Raises:
        ValueError: a spacing or size is not positive, or the order is another
        ImportError: scipy is not installed

    Example:
        >>> volume = Volume(np.arange(8.0).reshape(2, 4), spacing=(3, 1))
        >>> resample(volume, 1.5)
        <Volume (4, 3), 1.5 x 1.5 mm, axes AR>
    """
    with needed("resample", "scipy"):
        from scipy import ndimage
    if not isinstance(volume, Volume):
        raise TypeError(f"resample: volume must be a Volume. Received: {type(volume).__name__}")
    if order not in (0, 1) or isinstance(order, bool):
        raise ValueError(f"resample: order must be 0 or 1. Received: order={order!r}")
    new = per_axis("resample", "spacing", spacing, volume.ndim)
    factors = np.array(new) / volume.spacing
    if shape is None:
        sizes = tuple(max(1, round(n / f)) for n, f in zip(volume.shape, factors.tolist(), strict=True))
    else:
        sizes = tuple(whole("resample", "shape", n) for n in shape)
        if len(sizes) != volume.ndim:
            raise ValueError(f"resample: shape must have {volume.ndim} numbers. Received: shape={tuple(shape)}")
    starts = ((np.array(volume.shape) - 1) - (np.array(sizes) - 1) * factors) / 2
    array = volume.array
    if order == 1:
        for axis, factor in enumerate(factors.tolist()):
            if factor > 1:
                array = ndimage.gaussian_filter1d(array, (factor - 1) / 2, axis, mode="nearest")
    array = ndimage.affine_transform(
        array, np.diag(factors), starts, output_shape=sizes, output=np.float32, order=order, mode="nearest"
    )
    affine = volume.affine.copy()
    affine[:3, 3] = volume.to_mm(starts)
    affine[:3, 3 - volume.ndim : 3] *= factors
    return Volume(array, new, affine)

"""NIfTI files, .nii and .nii.gz, with nibabel."""

from __future__ import annotations

import gzip
import io
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from fastnn.configurable import whole
from fastnn.imaging.volume import Volume, needed
from fastnn.jobs.files import staged_files

__all__ = ["read_nifti", "write_nifti"]

logger = logging.getLogger(__name__)

SUFFIXES = (".nii", ".nii.gz")
#: Lengths in mm of the units of a file.
UNITS = {"unknown": 1.0, "mm": 1.0, "meter": 1e3, "micron": 1e-3}
#: The largest axis of NIfTI-1; what is larger becomes NIfTI-2.
LARGEST = 2**15 - 1


def read_nifti(path: str | os.PathLike[str], canonical: bool = False, index: int | None = None) -> Volume:
    """Read a NIfTI file.

    A file's axes are (W, H, D); the array has them the other way round, (D, H, W), as everywhere here. nibabel applies
    scl_slope and scl_inter, in float64; the result is rounded once to float32.

    Args:
        path: a file .nii or .nii.gz
        canonical: turn and swap axes so that D leads to the head, H to the front, W to the right (RAS), without
            interpolation; as stored if False
        index: which volume to read of a file with several, such as a time series (W, H, D, T), from 0

    Returns:
        Volume: (D, H, W), or (H, W) if the file has two axes

    Raises:
        ValueError: with the file's name: it is not NIfTI, truncated, holds colours or complex numbers, or several
            volumes and no ``index``; or its affine makes no sense.
        FileNotFoundError: there is no such file.
        ImportError: nibabel is not installed.

    Example:
        >>> from pathlib import Path
        >>> import nibabel
        >>> path = Path(nibabel.__file__).parent / "tests/data/anatomical.nii"
        >>> read_nifti(path)
        <Volume (25, 41, 33), 2 x 2 x 2 mm, axes SAL>
        >>> read_nifti(path, canonical=True).orientation
        'SAR'
    """
    with needed("read_nifti", "nibabel"):
        import nibabel as nib
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"read_nifti: there is no file {path}")
    if not path.is_file() or not path.name.lower().endswith(SUFFIXES):
        raise ValueError(f"{path}: is not a NIfTI file; these end in .nii or .nii.gz")
    try:
        image: Any = nib.load(path, mmap=False)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: is not a NIfTI file, or is damaged: {error}") from error
    if not isinstance(image, nib.Nifti1Image) or image.affine is None:
        raise ValueError(f"{path}: is not a NIfTI volume but a {type(image).__name__}")
    if image.get_data_dtype().kind not in "fiu":
        raise ValueError(f"{path}: must hold real numbers. Received: {image.get_data_dtype()} (colour or complex)")
    place = _place(path, image.shape, index)
    try:
        if path.name.lower().endswith(".gz"):  # read to its end, where the check sum is, and once for all its parts
            with gzip.open(path) as file:
                image = type(image).from_stream(io.BytesIO(file.read()))
        unit = UNITS[image.header.get_xyzt_units()[0]]
        data = image.dataobj[place]
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: is truncated or damaged: {error}") from error
    affine = np.diag([unit, unit, unit, 1.0]) @ image.affine
    try:
        volume = Volume(data.T, affine=affine[:, [2, 1, 0, 3]])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    said = [unit * float(zoom) for zoom in image.header.get_zooms()[: volume.ndim]][::-1]
    if not np.allclose(said, volume.spacing, rtol=1e-2):
        logger.warning("%s: pixdim says %s mm, the affine %s mm, which is taken", path, said, volume.spacing)
    return volume.canonical() if canonical else volume


def _place(path: Path, shape: tuple[int, ...], index: int | None) -> tuple[Any, ...]:
    """What to read of a file's array: all of the first three axes, and one volume of the fourth."""
    *more, count = shape[3:] or (1,)
    if len(shape) < 2 or any(n != 1 for n in more):
        raise ValueError(f"{path}: must hold volumes (W, H, D). Received: {shape}")
    if index is None and count != 1:
        raise ValueError(f"{path}: holds {count} volumes; choose one with index=0 to {count - 1}")
    chosen = 0 if index is None else whole("read_nifti", "index", index, low=0)
    if chosen >= count:
        raise ValueError(f"{path}: index must be below {count}, the number of volumes. Received: index={chosen}")
    return (slice(None),) * min(len(shape), 3) + (0,) * len(more) + (chosen,) * (len(shape) > 3)


def write_nifti(volume: Volume, path: str | os.PathLike[str], dtype: Any = np.float32) -> None:
    """Write a NIfTI file, whole or not at all; an older file stays until the new one is complete.

    The spacing and the place go into sform and qform, in single precision, as NIfTI has it.

    Args:
        volume: (D, H, W) or (H, W)
        path: ends in .nii or .nii.gz
        dtype: of the numbers in the file: float32, float64 or integers of up to 32 bits, such as "uint8" for a mask or
            "int16" for HU

    Raises:
        ValueError: the name ends in something else, the directory does not exist or cannot be written, or a number does
            not fit into ``dtype`` without a loss.
        TypeError: ``volume`` is not a Volume, or ``dtype`` is another.
        ImportError: nibabel is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     write_nifti(Volume(np.ones((4, 3, 2)), spacing=(3, 1, 1)), f"{home}/mask.nii.gz", dtype="uint8")
        ...     read_nifti(f"{home}/mask.nii.gz")
        <Volume (4, 3, 2), 3 x 1 x 1 mm, axes SAR>
    """
    with needed("write_nifti", "nibabel"):
        import nibabel as nib
    if not isinstance(volume, Volume):
        raise TypeError(f"write_nifti: volume must be a Volume. Received: {type(volume).__name__}")
    kind = np.dtype(dtype)
    if kind.kind not in "iuf" or kind == np.float16 or (kind.itemsize > 4 and kind != np.float64):
        raise TypeError(f"write_nifti: dtype must be float32, float64, or integers of up to 32 bits. Received: {kind}")
    path = Path(path)
    if not path.name.lower().endswith(SUFFIXES):
        raise ValueError(f"write_nifti: path must end in .nii or .nii.gz. Received: {path}")
    if not path.parent.is_dir():
        raise ValueError(f"the output file {path} cannot be written: there is no directory {path.parent}")
    data = volume.array
    if data.dtype != kind:
        with np.errstate(invalid="ignore"):
            data = data.astype(kind)
        same = data == volume.array
        if kind.kind == "f":
            same |= np.isnan(volume.array)
        if not same.all():
            raise ValueError(
                f"write_nifti: the numbers must fit into {kind}. Received: others; round and clip them first"
            )
    affine = volume.affine[:, [2, 1, 0, 3]]
    make = nib.Nifti1Image if max(data.shape) <= LARGEST else nib.Nifti2Image
    image = make(data.T, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    path = Path(os.path.realpath(path))
    with staged_files(path.parent, [path.name]) as place:
        nib.save(image, place / path.name)

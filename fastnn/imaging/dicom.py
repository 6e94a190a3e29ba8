"""One DICOM file: what its header says of each image in it, and their numbers.

Only grey images are read. The numbers are those that the scanner meant, HU for CT: stored value times RescaleSlope plus
RescaleIntercept (DoseGridScaling for a dose), computed in float64 and rounded once to float32. Padding outside a
scanner's circle stays as stored.

In MONOCHROME1 the smallest number is white. For CT, MR, PET and nuclear medicine this is about display only, and the
numbers, which have a unit, are kept. For all others, X-rays, the stored values v are turned round, lowest + highest
storable value - v, before they are rescaled, so that bright is large as in MONOCHROME2.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.imaging.volume import needed

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Frame", "Header", "has_prefix", "read_frames", "read_header"]

logger = logging.getLogger(__name__)

#: Modalities whose numbers have a unit, or may have one.
MEASURED = {"CT", "MR", "PT", "NM"}
GREY = ("MONOCHROME1", "MONOCHROME2")
#: Where pixels may be.
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
#: Where the distance of pixels in mm may be: the first that is there is taken. The latter two are on the detector.
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


@dataclass(frozen=True)
class Frame:
    """One image in a file: where it lies, and what its stored values v mean: v * slope + intercept."""

    path: Path
    index: int
    size: tuple[int, int]
    spacing: tuple[float, ...] | None  #: mm from row to row, and from column to column
    position: tuple[float, ...] | None  #: (x, y, z) of the first pixel, mm, in DICOM's axes: left, back, up
    orientation: tuple[float, ...] | None  #: unit vectors along a row, and down a column
    slope: float
    intercept: float

    def __str__(self) -> str:
        return f"{self.path}, frame {self.index}" if self.index else str(self.path)


@dataclass(frozen=True)
class Header:
    """A file, the series that it belongs to, and its images: none, if it is a report, a plan or the like."""

    path: Path
    series: str
    description: str
    modality: str
    frames: tuple[Frame, ...]


class _BadImage(ValueError):
    """The rule that an image breaks, without the file's name."""


@contextmanager
def _blamed(path: Path, what: str) -> Iterator[None]:
    """Whatever goes wrong is an error that names the file: damaged files make pydicom raise nearly anything."""
    try:
        yield
    except (MemoryError, ImportError, FileNotFoundError):
        raise
    except _BadImage as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:
        raise ValueError(f"{path}: {what}: {str(error) or type(error).__name__}") from error


def has_prefix(path: Path) -> bool:
    """Whether a file has DICOM's mark, "DICM" after 128 bytes of anything."""
    if not stat.S_ISREG(path.stat().st_mode):
        return False
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_header(path: Path) -> Header:
    """Read a file up to its pixels.

    Raises:
        ValueError: it is not a DICOM file, or what it says of its images makes no sense; colour images; frames whose
            places are not given.
        FileNotFoundError: there is no such file.
        ImportError: pydicom is not installed.
    """
    with needed("read_dicom", "pydicom"):
        from pydicom import dcmread
    with _blamed(path, "cannot be read"):
        known = has_prefix(path)
    if not known:
        raise ValueError(f"{path}: is not a DICOM file: it has no 'DICM' after 128 bytes")
    with _blamed(path, "is damaged"):
        header = dcmread(path, stop_before_pixels=True)
        return Header(
            path,
            str(header.get("SeriesInstanceUID") or ""),
            str(header.get("SeriesDescription") or ""),
            str(header.get("Modality") or ""),
            tuple(_frames(header, path)) if "Rows" in header else (),
        )


def read_frames(path: Path, frames: Sequence[Frame], out: Sequence[np.ndarray]) -> None:
    """Overwrite each of ``out``, float32 (H, W), with the numbers of a frame of the file.

    Raises:
        ValueError: the pixels are missing or cut off, or need a decoder that is not installed.
    """
    from pydicom import dcmread
    from pydicom.pixels.utils import get_expected_length

    with _blamed(path, "is damaged"):
        file = dcmread(path)
        pixels = next((file[name].value for name in PIXELS if name in file), None)
        if not pixels:
            raise _BadImage("holds no pixel data; if it should, it is truncated")
        expected = get_expected_length(file)
        if not file.file_meta.TransferSyntaxUID.is_compressed and len(pixels) < expected:
            raise _BadImage(f"is truncated: it holds {len(pixels)} of {expected} bytes of pixels")
    with _blamed(path, "its pixels cannot be decoded"):
        stored = _upright(file, file.pixel_array)
        stored = stored if stored.ndim == 3 else stored[None]
        for frame, target in zip(frames, out, strict=True):
            values = stored[frame.index].astype(np.float64)
            values *= frame.slope
            values += frame.intercept
            target[...] = values


def _frames(header: Dataset, path: Path) -> Iterator[Frame]:
    """The images of a file, from its header."""
    photometric = str(header.get("PhotometricInterpretation") or "")
    if int(header.get("SamplesPerPixel") or 1) != 1 or photometric not in GREY:
        raise _BadImage(f"must be grey, {' or '.join(GREY)}; colour is not supported. Received: {photometric!r}")
    size = (int(header.Rows), int(header.Columns))
    if min(size) < 1:
        raise _BadImage(f"Rows and Columns must be positive. Received: {size}")
    count = int(header.get("NumberOfFrames") or 1)
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    if count > 1 and len(groups) != count:
        raise _BadImage(
            f"its {count} frames are no volume: PerFrameFunctionalGroupsSequence places {len(groups)} of them"
        )
    shared = (header.get("SharedFunctionalGroupsSequence") or [{}])[0]
    for index in range(count):
        holders = (groups[index] if groups else {}, shared, header)
        slope = _said(holders, "PixelValueTransformationSequence", "RescaleSlope", "DoseGridScaling")
        intercept = _said(holders, "PixelValueTransformationSequence", "RescaleIntercept")
        if slope is None and index == 0 and header.get("Modality") == "CT":
            logger.warning("%s: a CT image without RescaleSlope: its numbers are not in HU", path)
        position = _said(holders, "PlanePositionSequence", "ImagePositionPatient")
        orientation = _said(holders, "PlaneOrientationSequence", "ImageOrientationPatient")
        frame = Frame(
            path,
            index,
            size,
            _numbers("PixelSpacing", _said(holders, "PixelMeasuresSequence", *SPACINGS), 2),
            _numbers("ImagePositionPatient", position, 3),
            _numbers("ImageOrientationPatient", orientation, 6),
            1.0 if slope is None else float(slope),
            0.0 if intercept is None else float(intercept),
        )
        _check(frame)
        yield frame


def _said(holders: Sequence[Any], sequence: str, *names: str) -> Any:
    """What is said of a frame by itself, else of all frames of the file, in a group; else in the plain header."""
    *groups, header = holders
    items = [group.get(sequence) for group in groups]
    for holder in [*(item[0] for item in items if item), header]:
        for name in names:
            value = holder.get(name)
            if value is not None and np.size(value):
                return value
    return None


def _numbers(name: str, values: Any, count: int) -> tuple[float, ...] | None:
    if values is None:
        return None
    numbers = tuple(float(v) for v in np.atleast_1d(values))
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise _BadImage(f"{name} must be {count} numbers. Received: {numbers}")
    return numbers


def _check(frame: Frame) -> None:
    """Numbers that every image must have, or may have and then must be possible."""
    if frame.spacing is not None and min(frame.spacing) <= 0:
        raise _BadImage(f"PixelSpacing must be positive. Received: {frame.spacing}")
    if not np.isfinite([frame.slope, frame.intercept]).all() or frame.slope == 0:
        raise _BadImage(
            "RescaleSlope and RescaleIntercept must be finite, the slope not 0. "
            f"Received: {frame.slope}, {frame.intercept}"
        )
    if frame.orientation is not None:
        axes = np.reshape(frame.orientation, (2, 3))
        if not np.allclose(axes @ axes.T, np.eye(2), rtol=0, atol=1e-2):
            raise _BadImage(
                f"ImageOrientationPatient must be two orthogonal unit vectors. Received: {frame.orientation}"
            )


def _upright(file: Dataset, stored: np.ndarray) -> np.ndarray:
    """Stored values after a table of the modality, which few files have, and after MONOCHROME1."""
    bits, signed = int(file.get("BitsStored") or 0), bool(file.get("PixelRepresentation"))
    if file.get("ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        stored = apply_modality_lut(stored, file)
        bits, signed = int(file.ModalityLUTSequence[0].LUTDescriptor[2]), False
    if file.PhotometricInterpretation == "MONOCHROME1" and file.get("Modality") not in MEASURED:
        if stored.dtype.kind == "f":  # it has no lowest and highest number to turn round between
            raise _BadImage("must be MONOCHROME2, as its pixels are floating-point numbers. Received: 'MONOCHROME1'")
        return (-1 if signed else 2**bits - 1) - stored.astype(np.int64)  # lowest + highest - v
    return stored

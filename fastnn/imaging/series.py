"""DICOM files to a volume: which files, which series, in which order, and whether anything is missing."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from fastnn.imaging.dicom import Frame, Header, has_prefix, read_frames, read_header
from fastnn.imaging.volume import Volume
from fastnn.jobs.words import counted

__all__ = ["dicom_series", "read_dicom"]

logger = logging.getLogger(__name__)

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

#: A file in a folder that is not DICOM though its name ends so, in digits, or in nothing, is a damaged one.
SUFFIXES = ("", ".dcm", ".dicom", ".ima", ".img")
#: From DICOM's x and y, to the left and to the back, to ours.
TO_RAS = np.diag([-1.0, -1.0, 1.0])
#: Images are parallel if their axes differ by less than this (sine of the angle).
PARALLEL = 1e-3
#: Images are at one place if nearer than so many mm.
SAME = 1e-3
#: An image may be off its place on an even grid by this share of the distance of images.
UNEVEN = 0.1
#: A distance so many times the usual one is a gap.
GAP = 1.5


def read_dicom(paths: Paths, series: str | None = None) -> Volume:
    """Read a DICOM file, or a series of them as a volume.

    Images are ordered by their position along the normal of their plane, whatever the files' names and instance
    numbers, and the distance of slices is that of the positions, not SliceThickness. Slices missing at one of the ends
    cannot be noticed; in between they are an error. Values are rescaled (HU for CT): ``fastnn.imaging.dicom`` says how,
    and what becomes of MONOCHROME1.

    Args:
        paths: a file, a folder (with all below it, but for links to folders), or a list of these. In a folder, files
            that are no DICOM by name and content, DICOMDIR, and series without images (reports, plans) are passed
            over.
        series: the SeriesInstanceUID to read, where there are several; see ``dicom_series``

    Returns:
        Volume: (D, H, W) for several images or frames, (H, W) for one. D grows along the normal: to the head in
            axial CT. The affine of an X-ray without a place in the patient says its spacing and nothing else;
            where a file does not give the size of pixels, it is 1 mm, with a warning in the log.

    Raises:
        ValueError: with the file's name: it is not DICOM, truncated, without pixels, a colour image, of a kind that
            pydicom cannot decode; several series, and none or an unknown one is chosen; images of different sizes,
            spacings or orientations; without a position, at the same position, with a gap, or not on a straight line.
        FileNotFoundError: there is no such file or folder.
        ImportError: pydicom is not installed.

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> volume = read_dicom(get_testdata_file("CT_small.dcm", download=False))
        >>> volume
        <Volume (128, 128), 0.661468 x 0.661468 mm, axes PL>
        >>> float(volume.array.min()), float(volume.array.max())
        (-896.0, 1167.0)
    """
    headers = _chosen(_headers(paths), series)
    frames = _ordered([frame for header in headers for frame in header.frames])
    affine, spacing = _place(frames)
    array = np.empty((len(frames), *frames[0].size), np.float32)
    files: dict[Path, list[int]] = {}
    for i, frame in enumerate(frames):
        files.setdefault(frame.path, []).append(i)
    for path, rows in files.items():
        read_frames(path, [frames[i] for i in rows], [array[i] for i in rows])
    return Volume(array, spacing, affine) if len(frames) > 1 else Volume(array[0], spacing, affine)


def dicom_series(paths: Paths) -> dict[str, list[Path]]:
    """The series of images among files and folders.

    Args:
        paths: as for ``read_dicom``

    Returns:
        for each SeriesInstanceUID its files, in the order of their names

    Raises:
        ValueError: a file cannot be read, or none holds an image.
        FileNotFoundError: there is no such file or folder.
        ImportError: pydicom is not installed.

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> [len(files) for files in dicom_series(get_testdata_file("MR_small.dcm", download=False)).values()]
        [1]
    """
    return {uid: [header.path for header in headers] for uid, headers in _by_series(_headers(paths)).items()}


# ---------------------------------------------------------------- files


def _headers(paths: Paths) -> list[Header]:
    """What the files are, those without images left out unless they were to have some."""
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files, inside = list[Path](), list[Path]()
    for path in map(Path, given):
        if path.is_dir():
            walk = os.walk(path, onerror=_refuse)
            inside += sorted(Path(folder, name) for folder, _, names in walk for name in names)
        elif path.exists():
            files.append(path)
        else:
            raise FileNotFoundError(f"read_dicom: there is no file or folder {path}")
    headers = [read_header(path) for path in files]
    for header in headers:
        if not header.frames:
            raise ValueError(f"{header.path}: holds no image (modality {header.modality or 'unknown'})")
    found = [read_header(path) for path in inside if _may_be_dicom(path)]
    with_images = {header.series for header in [*headers, *found] if header.frames}
    for header in found:
        if header.frames:
            headers.append(header)
        elif not header.series or header.series in with_images:
            raise ValueError(f"{header.path}: holds no pixel data; if it should, it is truncated")
        else:
            logger.info("%s: passed over, it holds no image (modality %s)", header.path, header.modality or "unknown")
    if not headers:
        raise ValueError(f"read_dicom: there are no DICOM images in {', '.join(map(str, given)) or 'an empty list'}")
    return headers


def _refuse(error: OSError) -> None:
    """A folder that cannot be read may hold slices: it is not passed over."""
    raise error


def _may_be_dicom(path: Path) -> bool:
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() in SUFFIXES or path.suffix[1:].isdigit() or has_prefix(path):
        return True
    logger.info("%s: passed over, it is no DICOM file", path)
    return False


def _by_series(headers: Sequence[Header]) -> dict[str, list[Header]]:
    series: dict[str, list[Header]] = {}
    for header in headers:
        series.setdefault(header.series, []).append(header)
    return series


def _chosen(headers: Sequence[Header], series: str | None) -> list[Header]:
    """The files of one series."""
    known = _by_series(headers)
    if series is None and len(known) == 1:
        return list(headers)
    if series in known:
        return known[series]
    shown = "\n".join(
        f"  {uid or '(no SeriesInstanceUID)'}  {counted(len(files), 'file')}, {files[0].modality} "
        f"{files[0].description!r}, such as {files[0].path}"
        for uid, files in known.items()
    )
    if series is None:
        raise ValueError(f"read_dicom: there are {len(known)} series; choose one with series=...\n{shown}")
    raise ValueError(f"read_dicom: there is no series {series!r}, but\n{shown}")


# ---------------------------------------------------------------- places


def _ordered(frames: list[Frame]) -> list[Frame]:
    """The images along the normal of their plane; all of one size, spacing and orientation, at even distances."""
    first = frames[0]
    if len(frames) == 1:
        return frames
    for frame in frames:
        if frame.position is None or frame.orientation is None:
            raise ValueError(
                f"{frame}: has no ImagePositionPatient or ImageOrientationPatient, so that its place among "
                f"{len(frames)} images is not known"
            )
        for what, here, there in (
            ("size (rows, columns)", frame.size, first.size),
            ("PixelSpacing", frame.spacing, first.spacing),
        ):
            if here != there:
                raise ValueError(f"{frame}: {what} is {here}, and {there} in {first}; a series must have one")
        if not np.allclose(frame.orientation, first.orientation or (), rtol=0, atol=PARALLEL):
            raise ValueError(
                f"{frame}: ImageOrientationPatient is {frame.orientation}, and {first.orientation} in {first}; "
                "a series must have one"
            )
    normal = _axes(first)[:, 0]
    heights = {frame: float(_positions([frame])[0] @ normal) for frame in frames}
    frames = sorted(frames, key=heights.__getitem__)
    _require_even(frames, np.array([heights[frame] for frame in frames]))
    return frames


def _require_even(frames: Sequence[Frame], heights: np.ndarray) -> None:
    """Errors for two images at one place, missing images, and such that do not lie on a line at even distances.

    Args:
        frames: in their order
        heights: (D,) mm along the normal
    """
    distances = np.diff(heights)
    for (one, other), distance, height in zip(pairwise(frames), distances, heights, strict=False):
        if distance < SAME:
            raise ValueError(
                f"{one} and {other} lie at the same position, {height:g} mm along the normal of the slices"
            )
    usual = float(np.quantile(distances, 0.5, method="lower"))
    gaps = [
        f"between {heights[i]:g} mm ({frames[i]}) and {heights[i + 1]:g} mm ({frames[i + 1]})"
        for i in np.flatnonzero(distances > GAP * usual).tolist()
    ]
    if gaps:
        more = f" and {len(gaps) - 3} more" if len(gaps) > 3 else ""
        raise ValueError(
            f"the series has gaps: slices are missing {', '.join(gaps[:3])}{more}, along the normal; "
            f"elsewhere the distance is {usual:g} mm"
        )
    positions = _positions(frames)
    even = np.linspace(positions[0], positions[-1], len(frames))
    off = np.linalg.norm(positions - even, axis=1)
    worst = int(off.argmax())
    if off[worst] > UNEVEN * usual:
        raise ValueError(
            f"{frames[worst]}: lies {off[worst]:.3g} mm off its place on a straight line of slices at even distances, "
            f"from {frames[0]} to {frames[-1]}"
        )


def _place(frames: Sequence[Frame]) -> tuple[np.ndarray | None, tuple[float, ...]]:
    """Affine, unless the place in the patient is not known, and spacing of images in their order."""
    first, count = frames[0], len(frames)
    if first.spacing is None:
        logger.warning("%s: does not say the size of its pixels; 1 mm is assumed", first)
    spacing = first.spacing or (1.0, 1.0)
    if first.position is None or first.orientation is None:
        return None, spacing
    positions = _positions(frames)
    affine = np.eye(4)
    affine[:3, :3] = _axes(first) * (1.0, *spacing)
    affine[:3, 3] = positions[0]
    if count == 1:
        return affine, spacing
    step = (positions[-1] - positions[0]) / (count - 1)
    affine[:3, 0] = step
    return affine, (float(np.linalg.norm(step)), *spacing)


def _axes(frame: Frame) -> np.ndarray:
    """(3, 3): unit vectors in the patient along slices (the normal), down a column, along a row."""
    across, down = np.reshape(frame.orientation or (), (2, 3))
    axes = np.stack([np.cross(across, down), down, across], axis=1)
    return TO_RAS @ (axes / np.linalg.norm(axes, axis=0))  # type: ignore[no-any-return]


def _positions(frames: Sequence[Frame]) -> np.ndarray:
    """(D, 3) mm of the first pixels, in the patient."""
    return np.array([frame.position for frame in frames], np.float64) @ TO_RAS

"""DICOM files that tests write themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SERIES = "1.2.826.0.1.3680043.8.498.1"


def stored_values(count, shape=(6, 5), seed=0):
    """Stored values (count, H, W) of 12 bits."""
    return np.random.default_rng(seed).integers(0, 4096, (count, *shape)).astype(np.uint16)


def dataset(pixels, **elements):
    """A CT image (H, W) or (frames, H, W); `elements` replace what it says, None leaves one out."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    said = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "Modality": "CT",
        "SeriesInstanceUID": SERIES,
        "SeriesDescription": "test",
        "SliceThickness": 99.0,
        "ImagePositionPatient": [-10.0, -20.0, 30.0],
        "ImageOrientationPatient": list(AXIAL),
        "PixelSpacing": [0.7, 0.5],
        "RescaleSlope": 1.0,
        "RescaleIntercept": -1024.0,
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": 8 * pixels.itemsize,
        "BitsStored": 8 * pixels.itemsize,
        "HighBit": 8 * pixels.itemsize - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    } | elements
    for name, value in said.items():
        if value is not None:
            setattr(file, name, value)
    if "PixelData" in file:
        file["PixelData"].VR = "OW" if pixels.itemsize > 1 else "OB"
    return file


def write(path, pixels, **elements):
    """Write such an image; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset(pixels, **elements).save_as(path, enforce_file_format=True)
    return path


def write_series(folder, heights=(0.0, 2.5, 5.0, 7.5), *, order=None, origin=(-10.0, -20.0), **elements):
    """An axial CT series, a slice at each height in mm; returns stored values (D, H, W) by height.

    The files' names and instance numbers are in the `order` given, by default a shuffled one.
    """
    pixels = stored_values(len(heights))
    names = np.random.default_rng(1).permutation(len(heights)) if order is None else order
    for values, height, name in zip(pixels, heights, names, strict=True):
        place = {"ImagePositionPatient": [*origin, height], "InstanceNumber": int(name) + 1}
        write(Path(folder) / f"{name}.dcm", values, **(place | elements))
    return pixels


def item(**elements):
    """A sequence of one item."""
    inner = Dataset()
    for name, value in elements.items():
        setattr(inner, name, value)
    return Sequence([inner])


def write_enhanced(path, pixels, heights, slopes=None, **elements):
    """A multi-frame CT: place and rescaling of each frame in its functional groups, the rest in the shared ones."""
    frames = []
    for i, height in enumerate(heights):
        group = Dataset()
        group.PlanePositionSequence = item(ImagePositionPatient=[-10.0, -20.0, height])
        if slopes is not None:
            group.PixelValueTransformationSequence = item(RescaleSlope=slopes[i], RescaleIntercept=-float(i))
        frames.append(group)
    shared = Dataset()
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=list(AXIAL))
    shared.PixelMeasuresSequence = item(PixelSpacing=[0.7, 0.5], SliceThickness=99.0)
    if slopes is None:
        shared.PixelValueTransformationSequence = item(RescaleSlope=2.0, RescaleIntercept=-1000.0)
    plain = dict.fromkeys(
        ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")
    )
    groups = {
        "SOPClassUID": EnhancedCTImageStorage,
        "NumberOfFrames": len(heights),
        "SharedFunctionalGroupsSequence": Sequence([shared]),
        "PerFrameFunctionalGroupsSequence": Sequence(frames),
    }
    return write(path, pixels, **(plain | groups | elements))

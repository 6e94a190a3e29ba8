"""CT, MRI and X-ray: DICOM and NIfTI files to arrays that networks take, and back.

    volume = read_dicom("scan/")                    # HU, in order, with spacing and place
    volume = resample(volume, (2.0, 1.0, 1.0))      # mm
    x = window(volume, "lung")                      # 0..1
    y = predict_tiled(model, x, (32, 128, 128))     # without seams

Importing this needs NumPy only; reading, writing and resampling need the extra ``imaging``.
"""

from fastnn.imaging.intensity import WINDOWS, window, zscore
from fastnn.imaging.nifti import read_nifti, write_nifti
from fastnn.imaging.patches import assemble, patches
from fastnn.imaging.resampling import resample
from fastnn.imaging.series import dicom_series, read_dicom
from fastnn.imaging.tiled import predict_tiled
from fastnn.imaging.volume import Volume

__all__ = [
    "WINDOWS",
    "Volume",
    "assemble",
    "dicom_series",
    "patches",
    "predict_tiled",
    "read_dicom",
    "read_nifti",
    "resample",
    "window",
    "write_nifti",
    "zscore",
]

"""The README's example runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from dicom_files import stored_values, write

import fastnn
from fastnn.imaging import read_dicom, read_nifti
from fastnn.layers import Conv3D


def test_the_readme_segments_a_scan(tmp_path, monkeypatch):
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(from fastnn\.imaging .*?)```", readme, re.DOTALL)
    for i, pixels in enumerate(stored_values(12, (40, 50))):
        place = [-100.0, -120.0, 1.5 * i]
        write(tmp_path / "scan" / f"{i * 7 % 12}.dcm", pixels, ImagePositionPatient=place, PixelSpacing=[1.9, 1.6])
    model = fastnn.Sequential([Conv3D(2, 3, padding="same", activation="softmax", input_shape=(16, 64, 64, 1))])
    monkeypatch.chdir(tmp_path)
    exec(code, {"model": model})
    mask, scan = read_nifti("mask.nii.gz"), read_dicom("scan")
    assert mask.shape == scan.shape == (12, 40, 50)
    assert set(np.unique(mask.array)) <= {0, 1}
    np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-4)

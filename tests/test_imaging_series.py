"""Series of DICOM files: the order and the place of slices, and what makes them no volume."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import numpy as np
import pytest
from dicom_files import SERIES, dataset, stored_values, write, write_enhanced, write_series
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from fastnn.imaging import dicom_series, read_dicom

OTHER = SERIES + ".2"


def packaged(name):
    return Path(get_testdata_file(name, download=False))


def said(path, message):
    return re.escape(f"{path}: ") + message


# ---------------------------------------------------------------- order and place


def test_slices_are_ordered_by_position_not_by_name_or_number(tmp_path):
    pixels = write_series(tmp_path, order=[2, 0, 3, 1])
    volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(volume.array, pixels.astype(np.float32) - 1024)
    assert volume.array.dtype == np.float32
    files = sorted(tmp_path.iterdir())
    for given in (files, files[::-1], [str(f) for f in files], iter(files)):
        np.testing.assert_array_equal(read_dicom(given).array, volume.array)


def test_the_distance_of_slices_is_that_of_their_positions(tmp_path):
    write_series(tmp_path, SliceThickness=99.0)
    assert read_dicom(tmp_path).spacing == (2.5, 0.7, 0.5)


def test_the_affine_leads_to_the_patient(tmp_path):
    write_series(tmp_path)
    volume = read_dicom(tmp_path)
    assert volume.orientation == "SPL"
    np.testing.assert_allclose(volume.origin, [10, 20, 0])  # DICOM's x and y turned round
    np.testing.assert_allclose(volume.to_mm([3, 2, 4]), [10 - 4 * 0.5, 20 - 2 * 0.7, 7.5])
    np.testing.assert_allclose(volume.to_index(volume.to_mm([1, 2, 3])), [1, 2, 3])


def test_an_oblique_series_is_ordered_along_its_normal(tmp_path):
    angle = np.deg2rad(30)
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(angle), np.sin(angle)])
    normal = np.cross(row, column)
    pixels = stored_values(5)
    for i, name in enumerate((4, 1, 0, 3, 2)):
        place = (np.array([5.0, 6, 7]) + 1.5 * i * normal).round(6).tolist()
        write(tmp_path / f"{name}", pixels[i], ImagePositionPatient=place,
              ImageOrientationPatient=[*row, *column.round(9)])  # fmt: skip
    volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(volume.array, pixels.astype(np.float32) - 1024)
    np.testing.assert_allclose(volume.spacing, (1.5, 0.7, 0.5), rtol=1e-5)
    np.testing.assert_allclose(volume.direction.T @ volume.direction, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(volume.direction[:, 0], normal * (-1, -1, 1), atol=1e-6)


def test_a_sagittal_series_is_ordered_from_the_side(tmp_path):
    for name, x in (("b", 12.0), ("a", 16.0), ("c", 14.0)):
        write(tmp_path / name, stored_values(1)[0] + np.uint16(x), ImagePositionPatient=[x, 0, 0],
              ImageOrientationPatient=[0, 1, 0, 0, 0, -1])  # fmt: skip
    volume = read_dicom(tmp_path)
    assert volume.orientation == "RIP"  # the normal of (back, down) leads to the right
    assert volume.spacing == (2.0, 0.7, 0.5)
    assert [float(s.min() - volume.array.min()) for s in volume.array] == [4, 2, 0]


def test_a_tilted_gantry_keeps_its_shear(tmp_path):
    for i in range(4):
        write(tmp_path / f"{i}", stored_values(1)[0], ImagePositionPatient=[0.0, 1.0 * i, 2.0 * i])
    volume = read_dicom(tmp_path)
    assert volume.spacing[0] == pytest.approx(np.sqrt(5))
    np.testing.assert_allclose(volume.affine[:3, 0], [0, -1, 2])


def test_small_unevenness_of_positions_is_taken(tmp_path):
    write_series(tmp_path, (0.0, 2.48, 5.02, 7.5))
    assert read_dicom(tmp_path).spacing[0] == 2.5


def test_one_file_is_an_image_that_keeps_its_place(tmp_path):
    pixels = stored_values(1)[0]
    volume = read_dicom(write(tmp_path / "one.dcm", pixels))
    assert volume.shape == (6, 5)
    assert volume.spacing == (0.7, 0.5)
    np.testing.assert_allclose(volume.to_mm([0, 0]), [10, 20, 30])
    np.testing.assert_allclose(volume.affine[:3, 0], [0, 0, 1])
    np.testing.assert_array_equal(read_dicom(tmp_path).array, volume.array)


def test_folders_within_folders_are_read_and_other_files_passed_over(tmp_path, caplog):
    pixels = write_series(tmp_path / "deep" / "er")
    for name in ("notes.txt", ".hidden", "DICOMDIR", "preview.png"):
        (tmp_path / name).write_bytes(b"something")
    report = Dataset()
    report.Modality, report.SeriesInstanceUID = "SR", OTHER
    report.file_meta = dataset(pixels[0]).file_meta
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "1.2"
    report.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    with caplog.at_level(logging.INFO, "fastnn"):
        volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(volume.array, pixels.astype(np.float32) - 1024)
    assert "notes.txt: passed over" in caplog.text
    assert "report.dcm: passed over, it holds no image (modality SR)" in caplog.text


# ---------------------------------------------------------------- series that are no volume


def test_a_missing_slice_is_an_error_that_names_its_neighbours(tmp_path):
    write_series(tmp_path, (0.0, 2.5, 7.5, 10.0), order=[3, 1, 0, 2])
    rule = r"slices are missing between 2.5 mm \(.*1.dcm\) and 7.5 mm \(.*0.dcm\), .*; elsewhere the distance is 2.5 mm"
    with pytest.raises(ValueError, match=rule):
        read_dicom(tmp_path)


def test_many_gaps_are_counted(tmp_path):
    write_series(tmp_path, (0.0, 1, 2, 4, 5, 7, 8, 10, 11, 13))
    with pytest.raises(ValueError, match=r"between 2 mm .* and 4 mm .*, between 5 mm .*, between 8 mm .* and 1 more"):
        read_dicom(tmp_path)


def test_a_gap_among_three_slices_is_seen(tmp_path):
    write_series(tmp_path, (0.0, 1.0, 3.0))
    with pytest.raises(ValueError, match="slices are missing between 1 mm"):
        read_dicom(tmp_path)


def test_a_gap_between_frames_of_one_file_names_the_frame(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", stored_values(4), (0.0, 2.0, 4.0, 8.0))
    with pytest.raises(ValueError, match=r"between 4 mm \(.*a.dcm, frame 2\) and 8 mm \(.*a.dcm, frame 3\)"):
        read_dicom(path)


def test_uneven_slices_are_an_error(tmp_path):
    write_series(tmp_path, (0.0, 2.5, 5.6, 7.5), order=[0, 1, 2, 3])
    with pytest.raises(ValueError, match=said(tmp_path / "2.dcm", "lies 0.6 mm off its place on a straight line")):
        read_dicom(tmp_path)


def test_slices_that_are_shifted_sideways_are_an_error(tmp_path):
    write_series(tmp_path, order=[0, 1, 2, 3])
    write(tmp_path / "2.dcm", stored_values(1)[0], ImagePositionPatient=[-7.0, -20.0, 5.0])
    with pytest.raises(ValueError, match=said(tmp_path / "2.dcm", "lies 3 mm off its place")):
        read_dicom(tmp_path)


def test_two_slices_at_one_position_are_an_error(tmp_path):
    write_series(tmp_path, (0.0, 2.5, 2.5, 5.0), order=[0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"1.dcm and .*2.dcm lie at the same position, 2.5 mm along the normal"):
        read_dicom(tmp_path)
    with pytest.raises(ValueError, match=r"0.dcm and .*0.dcm lie at the same position"):
        read_dicom([tmp_path / "0.dcm", tmp_path / "0.dcm"])


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (
            {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
            "ImageOrientationPatient is .*0.0, 1.0.* a series must have one",
        ),
        (
            {"ImageOrientationPatient": [-1, 0, 0, 0, 1, 0]},
            "ImageOrientationPatient is .*-1.0, .* a series must have one",
        ),
        ({"PixelSpacing": [0.7, 0.6]}, r"PixelSpacing is \(0.7, 0.6\), and \(0.7, 0.5\) in .*0.dcm; a series must"),
        ({"ImagePositionPatient": None}, "has no ImagePositionPatient or .* place among 5 images is not known"),
        ({"ImageOrientationPatient": None}, "has no ImagePositionPatient or ImageOrientationPatient"),
        ({"ImagePositionPatient": [1, 2]}, r"ImagePositionPatient must be 3 numbers. Received: \(1.0, 2.0\)"),
        (
            {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
            "ImageOrientationPatient must be two orthogonal unit vectors",
        ),
        (
            {"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]},
            "ImageOrientationPatient must be two orthogonal unit vectors",
        ),
        ({"PixelSpacing": [0.7, 0]}, r"PixelSpacing must be positive. Received: \(0.7, 0.0\)"),
        ({"RescaleSlope": 0}, "RescaleSlope .* the slope not 0. Received: 0.0, -1024.0"),
        ({"Rows": 0}, r"Rows and Columns must be positive. Received: \(0, 5\)"),
        ({"PixelData": None}, "holds no pixel data; if it should, it is truncated"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "must be grey, .* Received: 'RGB'"),
        ({"PhotometricInterpretation": None}, "must be grey, .* Received: ''"),
        ({"NumberOfFrames": 2}, "its 2 frames are no volume"),
        ({"BitsAllocated": None}, "(is damaged|its pixels cannot be decoded): "),
    ],
)
def test_one_odd_slice_is_named_with_the_rule(tmp_path, elements, message):
    write_series(tmp_path, order=[0, 1, 2, 3])
    odd = write(tmp_path / "4.dcm", stored_values(1)[0], **({"ImagePositionPatient": [-10, -20, 10.0]} | elements))
    with pytest.raises(ValueError, match=said(odd, message)):
        read_dicom(tmp_path)


def test_slices_of_two_sizes_are_an_error(tmp_path):
    write_series(tmp_path, order=[0, 1, 2, 3])
    odd = write(tmp_path / "4.dcm", stored_values(1, (5, 6))[0], ImagePositionPatient=[-10, -20, 10.0])
    rule = r"size \(rows, columns\) is \(5, 6\), and \(6, 5\) in .*0.dcm; a series must have one"
    with pytest.raises(ValueError, match=said(odd, rule)):
        read_dicom(tmp_path)


def test_two_series_are_an_error_unless_one_is_chosen(tmp_path):
    first = write_series(tmp_path / "a")
    second = write_series(tmp_path / "b", (1.0, 2.0), SeriesInstanceUID=OTHER, SeriesDescription="thin", Modality="MR")
    with pytest.raises(ValueError, match="there are 2 series") as error:
        read_dicom(tmp_path)
    assert f"{SERIES}  4 files, CT 'test', such as {tmp_path}" in str(error.value)
    assert f"{OTHER}  2 files, MR 'thin', such as {tmp_path}" in str(error.value)
    np.testing.assert_array_equal(read_dicom(tmp_path, series=SERIES).array, first - 1024.0)
    np.testing.assert_array_equal(read_dicom(tmp_path, series=OTHER).array, second - 1024.0)
    assert {uid: len(files) for uid, files in dicom_series(tmp_path).items()} == {SERIES: 4, OTHER: 2}
    with pytest.raises(ValueError, match=r"there is no series '7', but\n  1.2"):
        read_dicom(tmp_path / "a", series="7")


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path, monkeypatch):
    write_series(tmp_path)
    (tmp_path / "more").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="more"):
        read_dicom(tmp_path)

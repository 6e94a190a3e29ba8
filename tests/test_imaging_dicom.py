"""DICOM files: what their numbers mean, those that come with pydicom, and those that are no images."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_files import SERIES, item, stored_values, write, write_enhanced, write_series
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from fastnn.imaging import dicom_series, read_dicom

OTHER = SERIES + ".2"


def packaged(name):
    return Path(get_testdata_file(name, download=False))


def said(path, message):
    return re.escape(f"{path}: ") + message


# ---------------------------------------------------------------- what the numbers mean


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_stored_values_are_rescaled_whatever_their_type(tmp_path, dtype):
    info = np.iinfo(dtype)
    pixels = np.array([[info.min, info.max, 0], [1, 2, 3]], dtype)
    volume = read_dicom(write(tmp_path / "a.dcm", pixels, RescaleSlope=0.1, RescaleIntercept=-7.3))
    np.testing.assert_array_equal(volume.array, (pixels.astype(np.float64) * 0.1 - 7.3).astype(np.float32))


def test_each_slice_has_its_own_slope_and_intercept(tmp_path):
    pixels = stored_values(3)
    for i in range(3):
        write(tmp_path / f"{i}", pixels[i], ImagePositionPatient=[0, 0, 3.0 * i], RescaleSlope=i + 0.5,
              RescaleIntercept=-10.0 * i)  # fmt: skip
    wanted = pixels * (np.arange(3) + 0.5)[:, None, None] - (10.0 * np.arange(3))[:, None, None]
    np.testing.assert_array_equal(read_dicom(tmp_path).array, wanted.astype(np.float32))


def test_bits_that_are_not_stored_do_not_count(tmp_path):
    pixels = np.array([[0xF001, 0x0FFF], [0x0800, 0x07FF]], np.uint16)  # the highest four bits are something else
    bits = {"BitsStored": 12, "HighBit": 11}
    unsigned = read_dicom(write(tmp_path / "a.dcm", pixels, **bits, RescaleIntercept=0))
    np.testing.assert_array_equal(unsigned.array, [[1, 4095], [2048, 2047]])
    signed = read_dicom(write(tmp_path / "b.dcm", pixels, **bits, RescaleIntercept=0, PixelRepresentation=1))
    np.testing.assert_array_equal(signed.array, [[1, -1], [-2048, 2047]])


def test_without_rescaling_stored_values_are_the_values(tmp_path, caplog):
    pixels = stored_values(1)[0]
    given = {"RescaleSlope": None, "RescaleIntercept": None}
    np.testing.assert_array_equal(read_dicom(write(tmp_path / "a", pixels, Modality="MR", **given)).array, pixels)
    assert not caplog.text
    np.testing.assert_array_equal(read_dicom(write(tmp_path / "b", pixels, **given)).array, pixels)
    assert "its numbers are not in HU" in caplog.text
    with_slope = read_dicom(write(tmp_path / "c", pixels, RescaleIntercept=None, RescaleSlope=2))
    np.testing.assert_array_equal(with_slope.array, pixels * 2.0)


def test_bright_is_large_in_x_rays_also_where_white_is_stored_as_zero(tmp_path):
    pixels = np.array([[0, 1000], [3000, 4095]], np.uint16)
    given = {"Modality": "DX", "BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": "MONOCHROME1"}
    volume = read_dicom(write(tmp_path / "a.dcm", pixels, **given, RescaleSlope=2, RescaleIntercept=10))
    np.testing.assert_array_equal(volume.array, (4095.0 - pixels) * 2 + 10)
    signed = (pixels.astype(np.int32) - 2048).astype(np.int16)
    volume = read_dicom(write(tmp_path / "b.dcm", signed, **given, RescaleSlope=1, RescaleIntercept=0))
    np.testing.assert_array_equal(volume.array, -1.0 - signed)


def test_floating_point_pixels_are_read_and_have_no_ends_to_turn_round_between(tmp_path):
    pixels = np.array([[0, 1], [0.5, 20]], np.float32)
    none = ("PixelData", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept")
    given = {**dict.fromkeys(none), "FloatPixelData": pixels.tobytes(), "Modality": "OT"}
    np.testing.assert_array_equal(read_dicom(write(tmp_path / "a.dcm", pixels, **given)).array, pixels)
    path = write(tmp_path / "b.dcm", pixels, **given, PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(ValueError, match=re.escape(f"{path}: must be MONOCHROME2, as its pixels are floating-point")):
        read_dicom(path)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT", "NM"])
def test_numbers_with_a_unit_are_not_turned_round(tmp_path, modality):
    pixels = stored_values(1)[0]
    path = write(tmp_path / "a.dcm", pixels, Modality=modality, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_dicom(path).array, pixels - 1024.0)


def test_a_table_of_the_modality_is_applied(tmp_path):
    table = item(LUTDescriptor=[4, 10, 16], ModalityLUTType="US", LUTData=np.array([5, 50, 500, 5000], "<u2").tobytes())
    none = {"RescaleSlope": None, "RescaleIntercept": None, "Modality": "CR", "ModalityLUTSequence": table}
    pixels = np.array([[9, 10, 11], [12, 13, 14]], np.uint16)
    plain = read_dicom(write(tmp_path / "a.dcm", pixels, **none))
    np.testing.assert_array_equal(plain.array, [[5, 5, 50], [500, 5000, 5000]])
    turned = read_dicom(write(tmp_path / "b.dcm", pixels, **none, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(turned.array, 65535 - plain.array)


@pytest.mark.parametrize(("name", "dtype"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")])
def test_floating_point_pixels_are_read(tmp_path, name, dtype):
    values = np.linspace(-1, 1, 12).reshape(3, 4)
    bits = {"BitsAllocated": 8 * np.dtype(dtype).itemsize, "RescaleIntercept": 0.0}
    path = write(tmp_path / "a.dcm", values, PixelData=None, **bits, **{name: values.astype(dtype).tobytes()})
    np.testing.assert_array_equal(read_dicom(path).array, values.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("slopes", [None, (1.0, 0.5, 3.0, 2.0)])
def test_frames_of_one_file_are_placed_and_rescaled_each(tmp_path, slopes):
    pixels = stored_values(4)
    volume = read_dicom(write_enhanced(tmp_path / "a.dcm", pixels, (6.0, 0.0, 4.0, 2.0), slopes))
    if slopes is None:
        wanted = pixels * 2.0 - 1000
    else:
        wanted = pixels * np.reshape(slopes, (4, 1, 1)) - np.arange(4.0).reshape(4, 1, 1)
    np.testing.assert_array_equal(volume.array, wanted[[1, 3, 2, 0]].astype(np.float32))
    assert volume.spacing == (2.0, 0.7, 0.5)


def test_the_spacing_of_an_x_ray_is_that_of_its_detector(tmp_path, caplog):
    place = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    pixels = stored_values(1)[0]
    path = write(tmp_path / "a.dcm", pixels, Modality="DX", ImagerPixelSpacing=[0.14, 0.15], **place)
    assert read_dicom(path).spacing == (0.14, 0.15)
    assert not caplog.text
    unknown = write(tmp_path / "b.dcm", pixels, Modality="DX", **place)
    assert read_dicom(unknown).spacing == (1.0, 1.0)
    assert f"{unknown}: does not say the size of its pixels; 1 mm is assumed" in caplog.text


# ---------------------------------------------------------------- files that come with pydicom


def test_a_packaged_ct_is_in_hounsfield_units():
    volume = read_dicom(packaged("CT_small.dcm"))
    assert volume.shape == (128, 128)
    assert volume.spacing == (0.661468, 0.661468)
    np.testing.assert_allclose(volume.origin, [158.135803, 179.035797, -75.699997])
    assert (volume.array.min(), volume.array.max()) == (-896, 1167)


def test_encodings_of_the_same_image_read_the_same():
    wanted = read_dicom(packaged("MR_small.dcm"))
    for name in ("MR_small_bigendian", "MR_small_implicit", "MR_small_expb", "MR_small_RLE"):
        volume = read_dicom(packaged(f"{name}.dcm"))
        np.testing.assert_array_equal(volume.array, wanted.array, err_msg=name)
        np.testing.assert_array_equal(volume.affine, wanted.affine)


def test_a_packaged_series_is_chosen_read_and_found():
    folder = packaged("dicomdirtests") / "98892001"
    found = dicom_series(folder)
    assert sorted(len(files) for files in found.values()) == [2, 5]
    uid = max(found, key=lambda uid: len(found[uid]))
    volume = read_dicom(folder, series=uid)
    assert volume.shape == (5, 16, 16)
    assert volume.spacing == (2.5, 0.488281, 0.488281)
    np.testing.assert_allclose(volume.origin, [72.199997, 143, -1.2375])
    np.testing.assert_array_equal(read_dicom(found[uid]).array, volume.array)
    with pytest.raises(ValueError, match=r"there are 2 series; choose one with series=\.\.\.\n.*2 files, CT 'Scout'"):
        read_dicom(folder)
    with pytest.raises(ValueError, match=r"there is no series '1.2', but\n"):
        read_dicom(folder, series="1.2")


def test_a_packaged_series_with_a_gap_is_refused():
    with pytest.raises(ValueError, match=r"gaps: .*-99.48 mm \(.*17106\) and 103.02 mm \(.*17136\).* is 1.25 mm"):
        read_dicom(packaged("77654033") / "CT2")


def test_packaged_localizers_in_two_planes_are_refused():
    with pytest.raises(ValueError, match=r"6924: ImageOrientationPatient is .* and .* in .*6293; a series must have"):
        read_dicom(packaged("dicomdirtests") / "98892001" / "CT2N")


def test_a_packaged_x_ray_is_turned_round():
    import pydicom

    path = packaged("dicomdirtests") / "77654033" / "CR1" / "6154"
    file = pydicom.dcmread(path)
    assert (file.PhotometricInterpretation, file.BitsStored) == ("MONOCHROME1", 12)
    wanted = (4095 - file.pixel_array.astype(float)) * float(file.RescaleSlope) + float(file.RescaleIntercept)
    np.testing.assert_array_equal(read_dicom(path).array, wanted.astype(np.float32))


def test_a_packaged_dose_is_scaled():
    import pydicom

    path = packaged("rtdose_1frame.dcm")
    file = pydicom.dcmread(path)
    wanted = (file.pixel_array * float(file.DoseGridScaling)).astype(np.float32)
    np.testing.assert_array_equal(read_dicom(path).array, wanted)
    with pytest.raises(ValueError, match="its 15 frames are no volume: PerFrameFunctionalGroupsSequence places 0 of"):
        read_dicom(packaged("rtdose.dcm"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MR_truncated.dcm", "is truncated: it holds 8130 of 8192 bytes of pixels"),
        ("README.txt", "is not a DICOM file: it has no 'DICM' after 128 bytes"),
        ("no_meta.dcm", "is not a DICOM file"),
        ("rtplan.dcm", r"holds no image \(modality RTPLAN\)"),
        ("test-SR.dcm", r"holds no image \(modality SR\)"),
        ("SC_rgb_small_odd.dcm", "must be grey, MONOCHROME1 or MONOCHROME2; colour is not supported. Received: 'RGB'"),
        ("examples_palette.dcm", "must be grey.* Received: 'PALETTE COLOR'"),
        ("examples_ybr_color.dcm", "must be grey.* Received: 'YBR_FULL_422'"),
        ("JPGExtended.dcm", "its pixels cannot be decoded: "),
    ],
)
def test_packaged_files_that_are_no_grey_images_are_named(name, message):
    path = packaged(name)
    with pytest.raises(ValueError, match=said(path, message)):
        read_dicom(path)


# ---------------------------------------------------------------- files that are no images


def cut_to(path, size):
    path.write_bytes(path.read_bytes()[:size])


def test_a_file_cut_off_anywhere_is_an_error_that_names_it(tmp_path):
    write_series(tmp_path, order=[0, 1, 2, 3])
    whole = (tmp_path / "1.dcm").read_bytes()
    for size in {0, 100, 131, 132, 140, *range(200, len(whole), 37), len(whole) - 1}:
        (tmp_path / "1.dcm").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=re.escape(f"{tmp_path / '1.dcm'}: ")):
            read_dicom(tmp_path)


@pytest.mark.parametrize("syntax", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm"])
def test_compressed_pixels_that_are_cut_off_are_an_error(tmp_path, syntax):
    path = tmp_path / "a.dcm"
    shutil.copy(packaged(syntax), path)
    cut_to(path, path.stat().st_size * 3 // 4)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
        read_dicom(path)


@pytest.mark.parametrize("name", ["1.dcm", "IM0001", "1.2.840.113", "x.IMA"])
def test_a_file_named_like_an_image_that_is_none_is_an_error(tmp_path, name):
    write_series(tmp_path, order=[10, 11, 12, 13])
    (tmp_path / name).write_bytes(b"not an image, but two hundred bytes long" * 5)
    with pytest.raises(ValueError, match=said(tmp_path / name, "is not a DICOM file")):
        read_dicom(tmp_path)


def test_an_image_of_any_name_in_a_folder_is_read(tmp_path):
    pixels = write_series(tmp_path, order=[0, 1, 2, 3])
    (tmp_path / "2.dcm").rename(tmp_path / "2.dcm.part")
    np.testing.assert_array_equal(read_dicom(tmp_path).array, pixels - 1024.0)


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="there are no DICOM images in"):
        read_dicom(tmp_path)
    with pytest.raises(ValueError, match="there are no DICOM images in an empty list"):
        read_dicom([])
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="there are no DICOM images in"):
        dicom_series(tmp_path)


def test_a_path_that_does_not_exist_is_named(tmp_path):
    for read in (read_dicom, dicom_series):
        with pytest.raises(FileNotFoundError, match=re.escape(f"there is no file or folder {tmp_path / 'none'}")):
            read(tmp_path / "none")


def test_several_frames_of_unlike_sequences_are_an_error(tmp_path):
    groups = Sequence([Dataset()])
    path = write(tmp_path / "a.dcm", stored_values(2), NumberOfFrames=2, PerFrameFunctionalGroupsSequence=groups)
    with pytest.raises(ValueError, match=said(path, "its 2 frames are no volume.* places 1 of them")):
        read_dicom(path)

"""NIfTI files: what is read, what is written, and that nothing is ever half written."""

from __future__ import annotations

import gzip
import logging
import os
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_files import write_series

from fastnn.imaging import Volume, read_dicom, read_nifti, write_nifti

DATA = Path(nibabel.__file__).parent / "tests" / "data"
#: Files that come with nibabel, and the index of the volume where there are several.
PACKAGED = {
    "anatomical.nii": None,
    "example4d.nii.gz": 1,
    "example_nifti2.nii.gz": 0,
    "functional.nii": 19,
    "reoriented_anat_moved.nii": None,
    "resampled_anat_moved.nii": None,
    "standard.nii.gz": None,
}


def oblique(shape=(4, 5, 6), seed=0):
    """A volume with an affine that is turned in all planes and has three spacings."""
    rng = np.random.default_rng(seed)
    turned, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turned * (2.5, 0.7, 0.6)
    affine[:3, 3] = (-11, 22, 33)
    return Volume(rng.standard_normal(shape), affine=affine)


def same(volume, other):
    np.testing.assert_array_equal(volume.array, other.array)
    np.testing.assert_allclose(volume.spacing, other.spacing, rtol=1e-6)  # a file has single precision
    np.testing.assert_allclose(volume.affine, other.affine, rtol=1e-6, atol=1e-5)


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(("name", "index"), PACKAGED.items())
def test_packaged_files_read_as_nibabel_has_them(name, index):
    image = nibabel.load(DATA / name)
    volume = read_nifti(DATA / name, index=index)
    wanted = image.get_fdata() if index is None else image.get_fdata()[..., index]
    np.testing.assert_array_equal(volume.array, wanted.T.astype(np.float32))
    np.testing.assert_allclose(volume.spacing, image.header.get_zooms()[2::-1], rtol=1e-6)
    for voxel in ((0, 0, 0), (1, 2, 1), (3, 1, 2)):
        np.testing.assert_allclose(volume.to_mm(voxel[::-1]), image.affine[:3] @ [*voxel, 1], atol=1e-9)


@pytest.mark.parametrize(("name", "index"), PACKAGED.items())
def test_canonical_is_nibabels_closest_canonical(name, index):
    image = nibabel.as_closest_canonical(nibabel.load(DATA / name))
    volume = read_nifti(DATA / name, canonical=True, index=index)
    wanted = image.get_fdata() if index is None else image.get_fdata()[..., index]
    np.testing.assert_array_equal(volume.array, wanted.T.astype(np.float32))
    np.testing.assert_allclose(volume.affine, image.affine[:, [2, 1, 0, 3]], atol=1e-9)
    assert volume.orientation == "SAR"


def test_slope_and_intercept_are_applied_in_double_precision(tmp_path):
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4) * 1000
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.1, -3.7)
    nibabel.save(image, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())  # nibabel divides by the slope when it saves: put numbers back
    raw[352:] = stored.tobytes(order="F")
    (tmp_path / "a.nii").write_bytes(raw)
    slope, intercept = (float(np.float32(value)) for value in (0.1, -3.7))
    wanted = (stored.astype(np.float64) * slope + intercept).astype(np.float32)
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii").array, wanted.T)


@pytest.mark.parametrize(("unit", "mm"), [("mm", 1), ("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_units_become_mm(tmp_path, unit, mm):
    image = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.float32), np.diag([2.0, 3, 4, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").spacing, np.array([4, 3, 2]) * mm)


def test_a_spacing_that_contradicts_the_affine_is_told(tmp_path, caplog):
    image = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.float32), np.diag([2.0, 3, 4, 1]))
    image.header["pixdim"][1:4] = (2, 3, 5)
    nibabel.save(image, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[76:108] = np.array([1, 2, 3, 5, 1, 1, 1, 1], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    with caplog.at_level(logging.WARNING, "fastnn"):
        assert read_nifti(tmp_path / "a.nii").spacing == (4, 3, 2)
    assert "pixdim says [5.0, 3.0, 2.0] mm, the affine (4.0, 3.0, 2.0) mm" in caplog.text


def test_a_file_of_two_axes_is_an_image(tmp_path):
    image = nibabel.Nifti1Image(np.arange(12, dtype=np.float32).reshape(4, 3), np.diag([2.0, 3, 1, 1]))
    nibabel.save(image, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert (volume.shape, volume.spacing) == ((3, 4), (3, 2))
    np.testing.assert_array_equal(volume.array, image.get_fdata().T)
    with pytest.raises(ValueError, match="canonical: needs a volume"):
        read_nifti(tmp_path / "a.nii", canonical=True)


def test_a_time_series_of_one_volume_is_that_volume(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 3, 2, 1), np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    assert read_nifti(tmp_path / "a.nii.gz").shape == (2, 3, 4)
    assert read_nifti(tmp_path / "a.nii.gz", index=0).shape == (2, 3, 4)


@pytest.mark.parametrize("name", ["example4d.nii.gz", "functional.nii"])
def test_a_time_series_needs_an_index(name):
    count = nibabel.load(DATA / name).shape[3]
    with pytest.raises(ValueError, match=rf"{name}: holds {count} volumes; choose one with index=0 to {count - 1}"):
        read_nifti(DATA / name)
    with pytest.raises(
        ValueError, match=rf"index must be below {count}, the number of volumes. Received: index={count}"
    ):
        read_nifti(DATA / name, index=count)
    for index in (-1, 1.5, True):
        with pytest.raises(ValueError, match="index must be a non-negative integer"):
            read_nifti(DATA / name, index=index)


# ---------------------------------------------------------------- files that are none


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((4, 3, 2), np.complex64), r"must hold real numbers. Received: complex64 \(colour or complex\)"),
        (np.zeros((4, 3, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "must hold real numbers"),
        (np.zeros((4, 3, 2, 1, 3), np.float32), "holds 3 volumes"),
        (np.zeros((4, 3, 2, 2, 3), np.float32), r"must hold volumes \(W, H, D\). Received: \(4, 3, 2, 2, 3\)"),
        (np.zeros((4,), np.float32), r"must hold volumes \(W, H, D\). Received: \(4,\)"),
    ],
)
def test_files_that_hold_no_volume_are_named(tmp_path, data, message):
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), path)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ") + message):
        read_nifti(path)


def test_an_affine_that_makes_no_sense_is_an_error(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.float32), None)
    image.header["sform_code"] = 1
    image.header["srow_x"] = (1, 0, 0, 0)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'a.nii'}: Volume: affine must be invertible")):
        read_nifti(tmp_path / "a.nii")


def test_a_unit_that_does_not_exist_is_an_error(tmp_path):
    write_nifti(oblique(), tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[123] = 7
    (tmp_path / "a.nii").write_bytes(raw)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'a.nii'}: is truncated or damaged: ")):
        read_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_cut_off_anywhere_is_an_error_that_names_it(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_nifti(oblique(), path)
    whole = path.read_bytes()
    for size in {0, 1, 10, 100, 347, 348, 352, 360, len(whole) // 2, len(whole) - 9, len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=re.escape(f"{path}: is ")):
            read_nifti(path)


def test_compressed_files_are_read_to_their_check_sum(tmp_path):
    path = tmp_path / "a.nii.gz"
    numbers = np.random.default_rng(0).integers(0, 9, (20, 30, 10)).astype(np.float32)
    write_nifti(Volume(numbers), path, dtype="int16")
    whole = path.read_bytes()
    for lost in (1, 4, 7, 8):
        path.write_bytes(whole[:-lost])
        with pytest.raises(ValueError, match=re.escape(f"{path}: is truncated or damaged: ")):
            read_nifti(path)
    refused = 0
    for place in range(500, len(whole), 97):  # a bit is wrong, which may be one that stands for nothing
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            np.testing.assert_array_equal(read_nifti(path).array, numbers)
        except ValueError:
            refused += 1
    assert refused > 30


def test_what_is_no_nifti_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"there is no file {tmp_path / 'a.nii'}")):
        read_nifti(tmp_path / "a.nii")
    (tmp_path / "a.nii").write_bytes(b"no header" * 100)
    with pytest.raises(ValueError, match="is not a NIfTI file, or is damaged"):
        read_nifti(tmp_path / "a.nii")
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"no header" * 100))
    with pytest.raises(ValueError, match="is not a NIfTI file, or is damaged"):
        read_nifti(tmp_path / "a.nii.gz")
    for other in (DATA / "test.mgz", DATA / "analyze.hdr", tmp_path):
        with pytest.raises(ValueError, match=re.escape(f"{other}: is not a NIfTI file; these end in .nii or .nii.gz")):
            read_nifti(other)
    with pytest.raises(ValueError, match="is not a NIfTI volume but a Cifti2Image"):
        read_nifti(DATA / "row_major.dconn.nii")


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
def test_what_is_written_is_read_again(tmp_path, suffix):
    volume = oblique()
    write_nifti(volume, tmp_path / f"a{suffix}")
    same(read_nifti(tmp_path / f"a{suffix}"), volume)
    assert os.listdir(tmp_path) == [f"a{suffix}"]


@pytest.mark.parametrize("volume", [Volume(np.arange(12.0).reshape(3, 4), (0.7, 0.3)), Volume(np.ones((1, 2, 3)), 2)])
def test_images_and_single_slices_keep_their_shape(tmp_path, volume):
    write_nifti(volume, tmp_path / "a.nii")
    same(read_nifti(tmp_path / "a.nii"), volume)


def test_other_programs_find_the_place_in_both_forms(tmp_path):
    volume = oblique()
    write_nifti(volume, tmp_path / "a.nii")
    image = nibabel.load(tmp_path / "a.nii")
    assert image.shape == volume.shape[::-1]
    for matrix, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(matrix, volume.affine[:, [2, 1, 0, 3]], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(image.header.get_zooms(), volume.spacing[::-1], rtol=1e-6)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_a_dicom_series_comes_back_from_nifti(tmp_path):
    write_series(tmp_path / "scan")
    volume = read_dicom(tmp_path / "scan")
    write_nifti(volume, tmp_path / "a.nii.gz", dtype="int16")
    same(read_nifti(tmp_path / "a.nii.gz"), volume)
    assert nibabel.load(tmp_path / "a.nii.gz").get_data_dtype() == np.int16


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_that_are_not_finite_are_kept(tmp_path, dtype):
    volume = Volume([[np.nan, np.inf], [-np.inf, 0]])
    write_nifti(volume, tmp_path / "a.nii", dtype=dtype)
    same(read_nifti(tmp_path / "a.nii"), volume)


@pytest.mark.parametrize(("dtype", "value"), [("uint8", 256), ("uint8", -1), ("int16", 0.5), ("int32", np.nan)])
def test_numbers_that_do_not_fit_are_refused_and_the_old_file_stays(tmp_path, dtype, value):
    path = tmp_path / "a.nii"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=f"the numbers must fit into {dtype}"):
        write_nifti(Volume([[0, value]]), path, dtype=dtype)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("dtype", ["float16", "int64", "complex64", "bool", "S1"])
def test_other_types_are_refused(tmp_path, dtype):
    with pytest.raises(TypeError, match="write_nifti: dtype must be float32, float64, or integers of up to 32 bits"):
        write_nifti(oblique(), tmp_path / "a.nii", dtype=dtype)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.nii.gz"
    write_nifti(oblique(), path)
    old = path.read_bytes()

    def fail(image, place):
        Path(place).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nibabel, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        write_nifti(oblique(seed=1), path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["a.nii.gz"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "a.nii").symlink_to(tmp_path / "real" / "b.nii")
    write_nifti(oblique(), tmp_path / "a.nii")
    assert (tmp_path / "a.nii").is_symlink()
    same(read_nifti(tmp_path / "real" / "b.nii"), oblique())


def test_a_volume_does_not_hang_on_its_file(tmp_path):
    volume = oblique()
    write_nifti(volume, tmp_path / "a.nii")
    read = read_nifti(tmp_path / "a.nii")
    (tmp_path / "a.nii").write_bytes(b"")
    np.testing.assert_array_equal(read.array, volume.array)
    assert not isinstance(read.array.base, np.memmap)


def test_the_same_volume_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_nifti(oblique(), tmp_path / name / "x.nii.gz")
    assert (tmp_path / "a" / "x.nii.gz").read_bytes() == (tmp_path / "b" / "x.nii.gz").read_bytes()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"path must end in .nii or .nii.gz. Received: .*a.img"):
        write_nifti(oblique(), tmp_path / "a.img")
    with pytest.raises(ValueError, match="there is no directory"):
        write_nifti(oblique(), tmp_path / "none" / "a.nii")
    (tmp_path / "a.nii").mkdir()
    with pytest.raises(ValueError, match=r"a.nii is a directory"):
        write_nifti(oblique(), tmp_path / "a.nii")
    with pytest.raises(TypeError, match=r"volume must be a Volume. Received: ndarray"):
        write_nifti(np.zeros((3, 3)), tmp_path / "b.nii")

"""Volumes: what they keep, what they refuse, and how they are turned and resampled."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys

import numpy as np
import pytest

from fastnn.imaging import Volume, resample


def example(shape=(4, 6, 8), spacing=(2.5, 0.7, 0.6), seed=0):
    return Volume(np.random.default_rng(seed).standard_normal(shape), spacing)


def turned(shape=(4, 5, 6), seed=0):
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = directions * (2.5, 0.7, 0.6)
    affine[:3, 3] = (-11, 22, 33)
    return Volume(rng.standard_normal(shape), affine=affine)


# ---------------------------------------------------------------- what it keeps


def test_without_an_affine_axes_lead_up_to_the_front_and_to_the_right():
    volume = example()
    assert (volume.shape, volume.ndim, volume.spacing) == ((4, 6, 8), 3, (2.5, 0.7, 0.6))
    assert volume.orientation == "SAR"
    np.testing.assert_allclose(volume.to_mm([1, 2, 3]), [3 * 0.6, 2 * 0.7, 2.5])
    np.testing.assert_array_equal(volume.origin, [0, 0, 0])
    assert example((6, 8), (0.7, 0.6)).orientation == "AR"
    assert Volume(np.ones((2, 3))).spacing == (1, 1)
    assert Volume(np.ones((2, 3)), 0.5).spacing == (0.5, 0.5)


def test_the_spacing_follows_from_the_affine():
    volume = turned()
    np.testing.assert_allclose(volume.spacing, (2.5, 0.7, 0.6))
    assert Volume(volume.array, (2.5, 0.7, 0.6), volume.affine).spacing == (2.5, 0.7, 0.6)
    with pytest.raises(ValueError, match=r"spacing must be that of the affine, .* Received: spacing=\(2.5, 0.7, 0.7\)"):
        Volume(volume.array, (2.5, 0.7, 0.7), volume.affine)


def test_points_come_back_from_mm():
    volume, points = turned(), np.random.default_rng(1).uniform(-3, 9, (7, 2, 3))
    np.testing.assert_allclose(volume.to_index(volume.to_mm(points)), points, atol=1e-9)
    image = Volume(volume.array[0], affine=volume.affine / [2.5, 1, 1, 1])
    np.testing.assert_allclose(image.to_index(image.to_mm(points[..., 1:])), points[..., 1:], atol=1e-9)
    assert image.direction.shape == (3, 2)
    with pytest.raises(ValueError, match=r"to_mm: index must have shape \(..., 3\). Received: \(2,\)"):
        volume.to_mm([1, 2])
    with pytest.raises(ValueError, match=r"to_index: mm must have shape \(..., 3\)"):
        volume.to_index([1, 2])


def test_it_cannot_be_changed():
    array = np.zeros((2, 3), np.float32)
    volume = Volume(array)
    assert np.shares_memory(volume.array, array)
    assert array.flags.writeable
    for part in (volume.array, volume.affine):
        with pytest.raises(ValueError, match="read-only"):
            part[0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        volume.spacing = (1, 2)
    volume.origin[0] = 5
    assert volume.origin[0] == 0


def test_copies_are_volumes_too():
    volume = turned()
    for other in (pickle.loads(pickle.dumps(volume)), copy.deepcopy(volume), copy.copy(volume)):  # noqa: S301
        np.testing.assert_array_equal(other.array, volume.array)
        np.testing.assert_array_equal(other.affine, volume.affine)
        assert other.spacing == volume.spacing
        assert not other.array.flags.writeable


def test_it_is_an_array_to_numpy():
    volume = example()
    assert np.asarray(volume) is not None
    np.testing.assert_array_equal(np.asarray(volume), volume.array)
    assert np.asarray(volume, np.float64).dtype == np.float64
    assert np.array(volume).flags.writeable
    assert float(np.mean(volume)) == pytest.approx(float(volume.array.mean()))


def test_other_numbers_take_the_same_place():
    volume = turned()
    mask = volume.with_array(volume.array > 0)
    assert mask.array.dtype == np.float32
    np.testing.assert_array_equal(mask.affine, volume.affine)
    with pytest.raises(ValueError, match=r"with_array: array must have shape \(4, 5, 6\). Received: \(4, 5\)"):
        volume.with_array(volume.array[..., 0])


def test_it_prints_on_one_line():
    assert repr(example()) == "<Volume (4, 6, 8), 2.5 x 0.7 x 0.6 mm, axes SAR>"


@pytest.mark.parametrize(
    "array", [np.zeros((2, 0)), np.zeros(3), np.zeros((1, 2, 3, 4)), 5, "abc", [[1j]], [["a", "b"]]]
)
def test_what_is_no_grey_image_is_refused(array):
    with pytest.raises(ValueError, match=r"Volume: array must hold real numbers \(D, H, W\) or \(H, W\)"):
        Volume(array)


@pytest.mark.parametrize("spacing", [0, -1, np.nan, np.inf, "1", (1, 2), (1, 2, 3, 4), (1, 2, 0), (1, 2, None)])
def test_spacings_are_checked(spacing):
    with pytest.raises(ValueError, match="Volume: spacing must be a number"):
        Volume(np.zeros((2, 3, 4)), spacing)


@pytest.mark.parametrize(
    "affine",
    [np.eye(3), np.zeros((4, 4)), np.full((4, 4), np.nan), "no", np.diag([1, 1, 0, 1]), np.ones((4, 4)),
     [[1, 2, 0, 0], [2, 4, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]],
)  # fmt: skip
def test_affines_are_checked(affine):
    with pytest.raises(ValueError, match="Volume: affine must be"):
        Volume(np.zeros((2, 3, 4)), affine=affine)


# ---------------------------------------------------------------- turning


@pytest.mark.parametrize("seed", range(8))
def test_canonical_moves_no_voxel_in_the_patient(seed):
    volume = turned(seed=seed)
    canonical = volume.canonical()
    assert canonical.orientation == "SAR"
    places = {tuple(volume.to_mm(i).round(6)): volume.array[i] for i in np.ndindex(volume.shape)}
    assert {tuple(canonical.to_mm(i).round(6)): canonical.array[i] for i in np.ndindex(canonical.shape)} == places
    again = canonical.canonical()
    np.testing.assert_array_equal(again.array, canonical.array)
    np.testing.assert_array_equal(again.affine, canonical.affine)


# ---------------------------------------------------------------- resampling


def middle(volume):
    return volume.to_mm((np.array(volume.shape) - 1) / 2)


@pytest.mark.parametrize("spacing", [1, 0.5, (1.3, 0.9, 2.2), (5, 0.35, 0.6), 100])
@pytest.mark.parametrize("order", [0, 1])
def test_spacing_is_exact_and_the_field_of_view_stays(spacing, order):
    volume = turned()
    new = resample(volume, spacing, order)
    wanted = np.broadcast_to(spacing, 3)
    np.testing.assert_array_equal(new.spacing, wanted)
    np.testing.assert_allclose(np.linalg.norm(new.affine[:3, :3], axis=0), wanted)
    np.testing.assert_allclose(new.direction, volume.direction, atol=1e-12)
    np.testing.assert_allclose(middle(new), middle(volume), atol=1e-9)
    moved = np.array(new.shape) * new.spacing - np.array(volume.shape) * volume.spacing
    assert ((abs(moved) <= wanted / 2 + 1e-9) | (np.array(new.shape) == 1)).all()


def test_the_same_spacing_changes_nothing():
    volume = turned()
    for order in (0, 1):
        new = resample(volume, volume.spacing, order)
        np.testing.assert_array_equal(new.array, volume.array)
        np.testing.assert_allclose(new.affine, volume.affine, atol=1e-12)


def test_a_linear_field_is_kept_where_it_is():
    volume = turned((20, 22, 24))
    field = volume.with_array(volume.to_mm(np.moveaxis(np.indices(volume.shape), 0, -1)) @ [1.0, -2, 0.5])
    new = resample(field, (1.1, 0.5, 0.9))
    wanted = new.to_mm(np.moveaxis(np.indices(new.shape), 0, -1)) @ [1.0, -2, 0.5]
    inside = np.s_[4:-4, 4:-4, 4:-4]  # at the edges it is continued by the outermost voxels
    np.testing.assert_allclose(new.array[inside], wanted[inside], rtol=1e-4, atol=1e-4)


def test_a_constant_stays_constant():
    volume = Volume(np.full((5, 6, 7), 3.25), (2, 1, 1))
    for spacing in (0.7, 3.1):
        np.testing.assert_allclose(resample(volume, spacing).array, 3.25, rtol=1e-6)


def test_nothing_is_skipped_when_voxels_become_larger():
    stripes = Volume(np.tile([0.0, 1.0], (32, 16)), 1)
    coarse = resample(stripes, 4)
    np.testing.assert_allclose(coarse.array[2:-2, 2:-2], 0.5, atol=0.02)


def test_masks_keep_their_labels():
    labels = Volume(np.random.default_rng(0).integers(0, 4, (9, 10, 11)), (2, 1, 1))
    for spacing in (0.6, 1.7):
        assert set(np.unique(resample(labels, spacing, order=0).array)) <= {0, 1, 2, 3}
    doubled = resample(labels, (1, 0.5, 0.5), order=0)
    np.testing.assert_array_equal(doubled.array, labels.array.repeat(2, 0).repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("spacing", [1.0, (1.3, 0.45, 0.9)])
def test_a_prediction_comes_back_to_the_voxels_of_the_scan(spacing):
    volume = turned((9, 21, 17))
    there = resample(volume, spacing)
    back = resample(there, volume.spacing, order=0, shape=volume.shape)
    assert back.shape == volume.shape
    assert back.spacing == volume.spacing
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-9)


def test_images_are_resampled_in_their_plane():
    image = Volume(np.arange(24.0).reshape(4, 6), (1, 2))
    new = resample(image, 1)
    assert new.shape == (4, 12)
    np.testing.assert_allclose(new.array[:, 1:-1], np.linspace(0.25, 4.75, 10) + 6 * np.arange(4)[:, None])
    np.testing.assert_allclose(new.affine[:3, 0], [0, 0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spacing": 0}, "resample: spacing must be a number > 0. Received: spacing=0"),
        ({"spacing": (1, 1)}, r"resample: spacing must be a number or 3 of them. Received: spacing=\(1, 1\)"),
        ({"spacing": (1, -1, 1)}, "resample: spacing must be a number > 0. Received: spacing=-1"),
        ({"spacing": 1, "order": 3}, "resample: order must be 0 or 1. Received: order=3"),
        ({"spacing": 1, "order": True}, "resample: order must be 0 or 1"),
        ({"spacing": 1, "shape": (3, 3)}, r"resample: shape must have 3 numbers. Received: shape=\(3, 3\)"),
        ({"spacing": 1, "shape": (3, 0, 3)}, "resample: shape must be a positive integer"),
    ],
)
def test_resampling_checks_what_it_is_given(arguments, message):
    with pytest.raises(ValueError, match=message):
        resample(example(), **arguments)
    with pytest.raises(TypeError, match=r"resample: volume must be a Volume. Received: ndarray"):
        resample(np.zeros((3, 3)), 1)


# ---------------------------------------------------------------- what is installed


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("pydicom", "read_dicom(sys.argv[1])"),
        ("nibabel", "read_nifti('a.nii')"),
        ("nibabel", "write_nifti(Volume([[1, 2]]), 'a.nii')"),
        ("scipy", "resample(Volume([[1, 2]]), 1)"),
    ],
)
def test_a_missing_package_is_an_error_that_says_what_to_install(tmp_path, package, call):
    file = tmp_path / "a.dcm"
    file.write_bytes(b"")
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from fastnn.imaging import *\n"
        f"try: {call}\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    name = call.partition("(")[0]
    assert (
        done.stdout.strip() == f'{name}: {package} is not installed; it comes with: pip install "fastnn-cpu[imaging]"'
    )


def test_importing_loads_numpy_alone_and_fastnn_does_not_import_it():
    code = (
        "import sys, fastnn; assert 'fastnn.imaging' not in sys.modules; import fastnn.imaging;"
        "print(*sorted({n.split('.')[0] for n in sys.modules} & {'pydicom', 'nibabel', 'scipy', 'pandas', 'PIL'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

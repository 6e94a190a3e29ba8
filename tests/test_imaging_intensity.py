"""Windows of CT, and z-scores."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn.imaging import WINDOWS, Volume, window, zscore


def by_the_standard(x, c, w):
    """DICOM PS3.3 C.11.2.1.2.1, number by number, with an output from 0 to 1."""
    out = []
    for v in np.ravel(x).tolist():
        if v <= c - 0.5 - (w - 1) / 2:
            out.append(0.0)
        elif v > c - 0.5 + (w - 1) / 2:
            out.append(1.0)
        else:
            out.append((v - (c - 0.5)) / (w - 1) + 0.5)
    return np.reshape(out, np.shape(x))


# ---------------------------------------------------------------- windows


@pytest.mark.parametrize(("c", "w"), [*WINDOWS.values(), (50, 2), (0, 1), (-3.5, 10.5), (2048, 4096)])
def test_windows_are_those_of_the_standard(c, w):
    x = np.concatenate([np.arange(-1100, 3100), np.random.default_rng(0).uniform(-1100, 3100, 500)]).astype(np.float32)
    y = window(x, c, w)
    # one rounding each of x - (c - 0.5), the quotient and the sum: half a unit in the last place of numbers up to 1
    np.testing.assert_allclose(y, by_the_standard(x, c, w), rtol=0, atol=2 * np.finfo(np.float32).eps)
    assert y.dtype == np.float32
    assert y.min() >= 0
    assert y.max() <= 1


def test_golden_values_of_the_standard():
    # its notes: center 2048 and width 4096 select 0 to 4095; center 0 and width 100 run from -50 to 49
    np.testing.assert_array_equal(window([-1, 0, 4095, 4096], 2048, 4096), [0, 0, 1, 1])
    np.testing.assert_allclose(window([-51, -50, -0.5, 49, 50], 0, 100), [0, 0, 0.5, 1, 1])
    np.testing.assert_array_equal(window([-1, -0.5, 0, 1], 0, 1), [0, 0, 1, 1])  # a threshold


def test_names_stand_for_windows():
    x = np.arange(-1000.0, 2000.0)
    for name, (c, w) in WINDOWS.items():
        np.testing.assert_array_equal(window(x, name), window(x, c, w))
    np.testing.assert_array_equal(window(x, " Soft tissue"), window(x, "soft_tissue"))
    assert (WINDOWS["lung"], WINDOWS["brain"], WINDOWS["mediastinum"]) == ((-600, 1500), (40, 80), (50, 350))
    with pytest.raises(TypeError):
        WINDOWS["lung"] = (0, 1)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float64, np.float32, np.uint8])
def test_any_type_and_layout_gives_the_same(dtype):
    x = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(dtype)
    wanted = by_the_standard(x, 40, 80)
    for given in (x, np.asfortranarray(x), x[::-1][::-1], x.tolist()):
        np.testing.assert_allclose(window(given, 40, 80), wanted, atol=3e-7)


def test_a_volume_keeps_its_place_and_is_not_changed():
    volume = Volume(np.linspace(-1000, 1000, 24).reshape(2, 3, 4), (3, 1, 1))
    before = volume.array.copy()
    for new in (window(volume, "lung"), zscore(volume)):
        assert isinstance(new, Volume)
        assert new.spacing == volume.spacing
        np.testing.assert_array_equal(new.affine, volume.affine)
    np.testing.assert_array_equal(volume.array, before)
    np.testing.assert_array_equal(window(volume, "lung").array, window(before, "lung"))


def test_numbers_that_are_not_finite():
    x = [np.nan, np.inf, -np.inf, 1e300]
    np.testing.assert_array_equal(window(x, 40, 80), [np.nan, 1, 0, 1])
    np.testing.assert_array_equal(window(x, 40, 1), [np.nan, 1, 0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lungs",), r"there is no window named 'lungs' \(did you mean 'lung'\?\)"),
        (("",), r"there is no window named '' \(there are 'brain', "),
        (("lung", 1500), "window: width must be None beside a name. Received: width=1500"),
        ((40,), "window: width must be a number >= 1. Received: width=None"),
        ((40, 0.5), "window: width must be a number >= 1. Received: width=0.5"),
        ((40, np.nan), "window: width must be a number"),
        ((np.inf, 10), "window: center must be a number finite"),
        ((None, 10), "window: center must be a number"),
    ],
)
def test_windows_check_what_they_are_given(arguments, message):
    with pytest.raises(ValueError, match=message):
        window(np.zeros(3), *arguments)


@pytest.mark.parametrize("x", [np.zeros((0, 3)), np.array(["a"]), [1j], [None]])
def test_what_holds_no_numbers_is_refused(x):
    for call in (lambda: window(x, "lung"), lambda: zscore(x)):
        with pytest.raises(ValueError, match="x must hold real numbers"):
            call()


# ---------------------------------------------------------------- z-scores


@pytest.mark.parametrize("shape", [(50,), (7, 9), (4, 5, 6), (2, 3, 4, 5)])
def test_zscores_have_mean_0_and_deviation_1(shape):
    x = np.random.default_rng(0).uniform(-1000, 3000, shape)
    y = zscore(x)
    assert (y.dtype, y.shape) == (np.float32, shape)
    np.testing.assert_array_equal(y, ((x - x.mean()) / x.std()).astype(np.float32))
    assert float(y.mean(dtype=np.float64)) == pytest.approx(0, abs=1e-6)
    assert float(y.std(dtype=np.float64)) == pytest.approx(1, abs=1e-6)


def test_a_small_spread_around_a_large_number_is_not_lost():
    x = np.float32(1e6) + np.arange(1000, dtype=np.float32).reshape(10, 100)
    wanted = (np.arange(1000) - 499.5) / np.arange(1000).std()
    np.testing.assert_allclose(zscore(x).ravel(), wanted, rtol=1e-6)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32, "volume"])
def test_a_mask_says_where_mean_and_deviation_are_taken(kind):
    x = np.random.default_rng(0).standard_normal((4, 5, 6))
    inside = np.random.default_rng(1).random((4, 5, 6)) > 0.5
    inside[2] = False  # a slice without any
    mask = Volume(inside) if kind == "volume" else inside.astype(kind)
    np.testing.assert_allclose(zscore(x, mask), (x - x[inside].mean()) / x[inside].std(), rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, -1000.0, 3.7])
def test_a_constant_volume_is_an_error(value):
    with pytest.raises(ValueError, match=f"zscore: x must vary. Received: {value:g} everywhere"):
        zscore(np.full((4, 5, 6), value, np.float32))
    with pytest.raises(ValueError, match=r"zscore: x must vary. Received: 1 everywhere"):
        zscore([1])
    x = np.arange(6.0)
    with pytest.raises(ValueError, match=r"x must vary inside the mask. Received: 2 everywhere"):
        zscore(x, x == 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_an_error_unless_it_is_masked(value):
    x = np.arange(24.0).reshape(2, 3, 4)
    x[1, 2, 0] = value
    with pytest.raises(ValueError, match="zscore: x must be finite"):
        zscore(x)
    assert np.isfinite(zscore(x, np.arange(24).reshape(2, 3, 4) < 10)[0]).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((3, 3)), r"mask must have the shape of x, \(2, 3\). Received: \(3, 3\)"),
        (np.zeros((2, 3)), "mask must be 1 somewhere. Received: 0 everywhere"),
        (np.full((2, 3), 2), "mask must be 0 or 1. Received: 2"),
        (np.array([[0, 1, 0.5]] * 2), "mask must be 0 or 1. Received: 0.5"),
        (np.array([[0, 1, np.nan]] * 2), "mask must be 0 or 1. Received: nan"),
        ([["a", "b", "c"]] * 2, "mask must hold real numbers"),
    ],
)
def test_masks_are_checked(mask, message):
    with pytest.raises(ValueError, match=message):
        zscore(np.arange(6.0).reshape(2, 3), mask)

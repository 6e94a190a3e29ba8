"""Patches cut and put together again, and prediction by tiles."""

from __future__ import annotations

import tracemalloc
from itertools import islice

import numpy as np
import pytest

import fastnn
from fastnn.imaging import Volume, assemble, patches, predict_tiled, window, zscore
from fastnn.layers import Conv2D, Conv3D

#: Image, patch, overlap: sizes that fit, that leave a rest, that are larger than the image, one voxel, unlike axes.
GRIDS = [
    ((12, 16), (4, 4), 0.0),
    ((13, 17), (4, 5), 0.0),
    ((13, 17), (4, 5), 0.5),
    ((50, 41), (16, 8), 0.25),
    ((31, 33), (7, 9), (0.0, 0.8)),
    ((5, 40), (8, 8), 0.5),
    ((3, 2), (16, 16), 0.5),
    ((1, 9), (4, 4), 0.3),
    ((6, 6), (1, 1), 0.0),
    ((6, 7), (6, 7), 0.9),
    ((9, 10, 11), (4, 5, 6), 0.0),
    ((9, 10, 11), (4, 4, 4), 0.5),
    ((3, 20, 9), (8, 8, 8), 0.6),
]
grids = pytest.mark.parametrize(("shape", "size", "overlap"), GRIDS)


def image(shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


class Blur:
    """A "network" that looks at 3 pixels in each direction, and notes the batches that it gets."""

    def __init__(self, reach=1):
        self.reach, self.batches = reach, []

    def predict(self, x):
        self.batches.append(x.shape)
        assert x.dtype == np.float32
        axes = range(1, x.ndim - 1)
        padded = np.pad(x, [(0, 0), *[(self.reach,) * 2 for _ in axes], (0, 0)], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * self.reach + 1,) * len(axes), axis=tuple(axes))
        return windows.mean(axis=tuple(range(-len(axes), 0)))


# ---------------------------------------------------------------- patches


@grids
def test_patches_have_one_size_and_cover_the_image(shape, size, overlap):
    covered = np.zeros(shape, int)
    for position, patch in patches(image(shape), size, overlap):
        assert patch.shape == size
        covered[tuple(slice(max(0, p), p + s) for p, s in zip(position, size, strict=True))] += 1
        for p, s, n in zip(position, size, shape, strict=True):
            assert (0 <= p <= n - s) if s <= n else (p <= 0 and p + s >= n)
    assert covered.min() == 1 if not np.any(overlap) else covered.min() >= 1


@grids
def test_a_patch_is_what_the_image_has_at_its_position(shape, size, overlap):
    x = image((*shape, 2))
    before = [max(0, s - n) for n, s in zip(shape, size, strict=True)]
    padded = np.pad(x, [*[(b, b) for b in before], (0, 0)], mode="reflect")
    for position, patch in patches(x, size, overlap):
        there = tuple(slice(p + b, p + b + s) for p, b, s in zip(position, before, size, strict=True))
        np.testing.assert_array_equal(patch, padded[there])


@pytest.mark.parametrize(
    ("n", "size", "overlap", "starts"),
    [
        (64, 64, 0.0, [0]),
        (100, 64, 0.25, [0, 36]),
        (128, 64, 0.5, [0, 32, 64]),
        (130, 64, 0.5, [0, 32, 64, 66]),
        (10, 4, 0.0, [0, 4, 6]),
        (10, 4, 0.99, [0, 1, 2, 3, 4, 5, 6]),
        (5, 8, 0.5, [-1]),
        (4, 8, 0.5, [-2]),
    ],
)
def test_positions_worked_out_by_hand(n, size, overlap, starts):
    assert [p for (p, _), _ in patches(image((n, 3)), (size, 3), overlap)] == starts


def test_patches_are_views_in_the_type_of_the_image():
    x = np.arange(80, dtype=np.int16).reshape(8, 10)
    for _, patch in patches(x, (4, 4), 0.5):
        assert patch.dtype == np.int16
        assert np.shares_memory(patch, x)
    volume = Volume(image((8, 9, 10)))
    assert all(np.shares_memory(patch, volume.array) for _, patch in patches(volume, (4, 4, 4)))


def test_whatever_has_a_shape_and_slices_is_cut():
    class Stored:
        """An array on disk: only what is asked for is read."""

        shape, read = (100, 90), 0

        def __getitem__(self, key):
            part = np.arange(9000.0).reshape(100, 90)[key]
            self.read += part.size
            return part

    stored = Stored()
    found = [patch for _, patch in islice(patches(stored, (16, 16)), 3)]
    assert stored.read == 3 * 256
    np.testing.assert_array_equal(found[1], np.arange(9000.0).reshape(100, 90)[:16, 16:32])
    y = predict_tiled(Blur(0), stored, (32, 32))[..., 0]
    np.testing.assert_allclose(y, np.arange(9000.0).reshape(100, 90), rtol=1e-6)


# ---------------------------------------------------------------- putting together


@grids
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_patches_put_together_are_the_image(shape, size, overlap, channels):
    x = image((*shape, *channels))
    y = assemble(patches(x, size, overlap), shape, size, overlap)
    assert y.dtype == np.float32
    # at most 2 ** rank weights times values below 1, each product and each sum rounded
    np.testing.assert_allclose(y, x, rtol=0, atol=2 * np.finfo(np.float32).eps * 3**3)
    if not np.any(overlap) and all(n % s == 0 for n, s in zip(shape, size, strict=True)):
        np.testing.assert_array_equal(y, x)


@grids
def test_order_of_patches_does_not_matter(shape, size, overlap):
    x = image(shape)
    parts = list(patches(x, size, overlap))
    np.random.default_rng(0).shuffle(parts)
    np.testing.assert_allclose(assemble(parts, shape, size, overlap), x, rtol=0, atol=1e-5)


@grids
def test_numbers_do_not_leave_the_range_of_the_predictions(shape, size, overlap):
    rng = np.random.default_rng(0)
    for value in (0.0, 1.0):
        parts = [(position, np.full(size, value)) for position, _ in patches(image(shape), size, overlap)]
        np.testing.assert_array_equal(assemble(parts, shape, size, overlap), value)
    parts = [(p, 1 - rng.random(size).astype(np.float32) * 1e-6) for p, _ in patches(image(shape), size, overlap)]
    assert assemble(parts, shape, size, overlap).max() <= 1


def test_patches_that_disagree_blend_without_a_seam():
    size, overlap, shape = (16, 32), 0.5, (16, 80)
    parts = [(position, np.full(size, i)) for i, (position, _) in enumerate(patches(image(shape), size, overlap))]
    y = assemble(parts, shape, size, overlap)
    np.testing.assert_array_equal(y[0], y[8])  # one row of patches: only columns blend
    steps = np.diff(y[0])
    assert y[0, 0] == 0
    assert y[0, -1] == 3
    assert (steps >= 0).all()
    assert steps.max() <= 1 / 16 + 1 / 4096  # one patch gives way to the next over 16 pixels; the shares have 12 bits


def test_seams_are_hidden_in_volumes_too():
    shape, size, overlap = (8, 8, 40), (8, 8, 16), 0.5
    parts = [(position, np.full(size, i % 2)) for i, (position, _) in enumerate(patches(image(shape), size, overlap))]
    y = assemble(parts, shape, size, overlap)
    assert np.abs(np.diff(y, axis=2)).max() <= 1 / 8 + 1 / 256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts[:-1], r"there are 5 of 6 patches; the one at \(4, 6\) is missing"),
        (lambda parts: [], r"there are 0 of 6 patches; the one at \(0, 0\) is missing"),
        (lambda parts: [*parts, parts[0]], r"the position \(0, 0\) is there twice"),
        (lambda parts: [*parts, ((1, 1), parts[0][1])], r"the position \(1, 1\) is none of those that patches gives"),
        (lambda parts: [((0,), parts[0][1])], r"the position \(0,\) is none of those"),
        (lambda parts: [(p, a[1:]) for p, a in parts], r"shape \(4, 4\). Received: float32 \(3, 4\) at \(0, 0\)"),
        (
            lambda parts: [*parts[:1], (parts[1][0], parts[1][1][..., None])],
            r"shape \(4, 4\). Received: .*\(4, 4, 1\) at",
        ),
        (lambda parts: [(p, a.astype(str)) for p, a in parts], "must hold numbers of shape"),
    ],
)
def test_parts_are_checked(change, message):
    parts = list(patches(image((8, 10)), (4, 4)))
    with pytest.raises(ValueError, match=f"assemble: .*{message}"):
        assemble(change(parts), (8, 10), (4, 4))


@pytest.mark.parametrize(
    ("size", "overlap", "message"),
    [
        ((4, 0), 0, "size must be a positive integer. Received: size=0"),
        ((4, 4.5), 0, "size must be a positive integer"),
        ((4,), 0, r"size must be \(H, W\) or \(D, H, W\). Received: size=\(4,\)"),
        (4, 0, r"size must be \(H, W\) or \(D, H, W\). Received: size=4"),
        ((4, 4, 4, 4), 0, r"size must be \(H, W\) or \(D, H, W\)"),
        ((4, 4), 1, "overlap must be a number >= 0 and < 1. Received: overlap=1"),
        ((4, 4), -0.1, "overlap must be a number"),
        ((4, 4), np.nan, "overlap must be a number"),
        ((4, 4), (0.1, 0.2, 0.3), "overlap must be a number or 2. Received"),
    ],
)
def test_sizes_and_overlaps_are_checked_at_once(size, overlap, message):
    for what, call in {
        "patches": lambda: patches(image((8, 10)), size, overlap),
        "predict_tiled": lambda: predict_tiled(Blur(), image((8, 10)), size, overlap),
    }.items():
        with pytest.raises(ValueError, match=f"{what}: {message}"):
            call()


@pytest.mark.parametrize("x", [np.zeros(5), np.zeros((2, 3, 4, 5)), np.zeros((0, 4)), 3.0])
def test_axes_are_checked(x):
    with pytest.raises(ValueError, match=r"patches: x must have 2 axes, or 3 with channels. Received: shape"):
        patches(x, (2, 2))
    with pytest.raises(ValueError, match=r"assemble: size must have 2 numbers. Received: size=\(2, 2, 2\)"):
        assemble([], (4, 4), (2, 2, 2))


# ---------------------------------------------------------------- prediction by tiles


@grids
def test_every_pixel_is_predicted_once_in_total(shape, size, overlap):
    x = image((*shape, 2))
    np.testing.assert_allclose(predict_tiled(Blur(0), x, size, overlap), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("shape", "tile"), [((50, 70), (32, 32)), ((20, 22, 30), (16, 16, 16))])
def test_a_whole_prediction_and_one_by_tiles_agree(shape, tile):
    x = image((*shape, 1))
    whole = Blur().predict(x[None])[0]
    tiled = predict_tiled(Blur(), x, tile, overlap=0.5)
    # at the border of a tile the blur knows one pixel less; there its weight is small
    assert np.abs(tiled - whole).max() < 0.1
    assert np.abs(tiled - whole).mean() < 0.01
    np.testing.assert_allclose(tiled[(slice(0, 4),) * len(shape)], whole[(slice(0, 4),) * len(shape)], atol=1e-6)


def test_channels_are_added_where_there_are_none():
    x, model = image((30, 40)), Blur()
    np.testing.assert_array_equal(predict_tiled(model, x, (16, 16)), predict_tiled(model, x[..., None], (16, 16)))
    assert {shape[1:] for shape in model.batches} == {(16, 16, 1)}
    volume = Volume(image((20, 21, 22)))
    np.testing.assert_array_equal(
        predict_tiled(model, volume, (16,) * 3), predict_tiled(model, volume.array, (16,) * 3)
    )


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_batches_are_bounded_and_do_not_matter(batch_size):
    x, model = image((50, 60)), Blur()
    y = predict_tiled(model, x, (16, 16), batch_size=batch_size)
    np.testing.assert_array_equal(y, predict_tiled(Blur(), x, (16, 16)))
    assert max(shape[0] for shape in model.batches) <= batch_size
    assert sum(shape[0] for shape in model.batches) == len(list(patches(x, (16, 16), 0.25)))


def test_an_image_smaller_than_the_tile_is_reflected_and_cropped():
    x = image((5, 20, 2))
    y = predict_tiled(Blur(), x, (16, 16))
    assert y.shape == x.shape
    padded = np.pad(x[:, :16], ((5, 6), (0, 0), (0, 0)), mode="reflect")
    np.testing.assert_allclose(y[:, :4], Blur().predict(padded[None])[0, 5:10, :4], atol=1e-6)


def test_memory_is_bounded_by_the_result_and_a_few_tiles():
    x = np.zeros((1500, 1500), np.float32)

    class Same:
        def predict(self, x):
            return x

    tracemalloc.start()
    predict_tiled(Same(), x, (64, 64), batch_size=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes * 1.2


def test_a_model_of_fastnn_predicts_a_large_image_as_it_does_a_small_one():
    fastnn.set_seed(3)
    layers = [
        Conv2D(4, 3, padding="same", activation="relu", input_shape=(16, 16, 1)),
        Conv2D(2, 1, activation="softmax"),
    ]
    model = fastnn.Sequential(layers)
    x = image((16, 16, 1))
    np.testing.assert_array_equal(predict_tiled(model, x, (16, 16)), model.predict(x[None])[0])
    large = image((45, 70, 1))
    y = predict_tiled(model, large, (16, 16))
    assert y.shape == (45, 70, 2)
    assert (y >= 0).all()
    assert (y <= 1).all()
    np.testing.assert_allclose(y.sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_array_equal(y, predict_tiled(model, large, (16, 16)))


def test_a_model_of_fastnn_predicts_a_volume():
    fastnn.set_seed(3)
    model = fastnn.Sequential([Conv3D(1, 3, padding="same", activation="sigmoid", input_shape=(8, 8, 8, 1))])
    y = predict_tiled(model, Volume(image((11, 5, 19))), (8, 8, 8), overlap=0.5)
    assert y.shape == (11, 5, 19, 1)


@pytest.mark.parametrize("output", [(4, 16, 16), (4, 8, 8, 1), (4, 16, 16, 1, 1), (3, 16, 16, 1)])
def test_a_model_whose_output_has_another_size_is_refused(output):
    class Other:
        def predict(self, x):
            return np.zeros(output)

    with pytest.raises(ValueError, match=r"must predict \(N, \*tile, F\) = \(4, 16, 16\) and F. Received: "):
        predict_tiled(Other(), image((32, 32)), (16, 16))


@pytest.mark.parametrize("several", [lambda x: [x, x], lambda x: [x, np.repeat(x, 2, -1)], lambda x: {"a": x}])
def test_a_model_of_several_outputs_is_refused(several):
    class Two:
        def predict(self, x):
            return several(x)

    with pytest.raises(ValueError, match=r"predict_tiled: the model must predict "):
        predict_tiled(Two(), image((32, 32)), (16, 16))


def test_masked_values_are_refused():
    masked = np.ma.masked_equal(np.array([[1.0, 2.0], [3.0, -999.0]]), -999)
    for name, call in (
        ("Volume: array", Volume),
        ("zscore: x", zscore),
        ("window: x", lambda x: window(x, "brain")),
        ("patches: x", lambda x: patches(x, (1, 1))),
        ("predict_tiled: x", lambda x: predict_tiled(Blur(), x, (1, 1))),
    ):
        with pytest.raises(ValueError, match=f"{name} must not have masked values"):
            call(masked)
        call(np.ma.masked_equal(np.arange(4.0).reshape(2, 2), -999))  # none is


def test_what_cannot_predict_is_refused():
    with pytest.raises(TypeError, match=r"predict_tiled: model must have a method predict. Received: function"):
        predict_tiled(lambda x: x, image((32, 32)), (16, 16))
    for batch_size in (0, -1, 2.5):
        with pytest.raises(ValueError, match="predict_tiled: batch_size must be a positive integer"):
            predict_tiled(Blur(), image((32, 32)), (16, 16), batch_size=batch_size)

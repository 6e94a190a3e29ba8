"""Layers that reshape, reorder, resize, pad and crop: against loops, by hand, trained, saved, and misused."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from test_autodiff import assert_gradients_right

import fastnn
from fastnn.layers import (
    LAYERS,
    Cropping1D,
    Cropping2D,
    Cropping3D,
    Dense,
    Flatten,
    Input,
    Permute,
    Reshape,
    UpSampling1D,
    UpSampling2D,
    UpSampling3D,
    ZeroPadding1D,
    ZeroPadding2D,
    ZeroPadding3D,
)

UP, PAD = (UpSampling1D, UpSampling2D, UpSampling3D), (ZeroPadding1D, ZeroPadding2D, ZeroPadding3D)
CROP = (Cropping1D, Cropping2D, Cropping3D)
HUGE = 2**63 - 1


def rows(rng, rank, low=1):
    """A small array (N, *space, C)."""
    shape = (int(rng.integers(1, 4)), *rng.integers(low, 7, rank).tolist(), int(rng.choice([1, 2, 3, 5, 8, 17])))
    return rng.standard_normal(shape).astype(np.float32)


def places(shape):
    return itertools.product(*map(range, shape))


def results(layer, x):
    """What the layer gives called on the array, and in a model."""
    model = fastnn.Sequential([Input(x.shape[1:]), layer])
    predicted = model.predict(x, verbose=0)
    assert predicted.shape[1:] == model.output_shape[1:]
    return layer(x), predicted


# Against loops


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_up_sampling_repeats_each_place(rank, backend):
    rng = np.random.default_rng(rank)
    for _ in range(20):
        x, size = rows(rng, rank), tuple(rng.integers(1, 5, rank).tolist())
        wanted = np.empty((len(x), *(s * k for s, k in zip(x.shape[1:-1], size, strict=True)), x.shape[-1]), np.float32)
        for place in places(wanted.shape[1:-1]):
            source = tuple(p // k for p, k in zip(place, size, strict=True))
            wanted[(slice(None), *place)] = x[(slice(None), *source)]
        for y in results(UP[rank - 1](size[0] if rank == 1 else size), x):
            np.testing.assert_array_equal(y, wanted)


def interpolated(x, size):
    """The value at each output's centre, (o + 1/2) / k - 1/2 of the input, which must not leave the input."""
    (n, height, width, c), (kh, kw) = x.shape, size
    y = np.zeros((n, height * kh, width * kw, c))
    for i, j in places((height * kh, width * kw)):
        h = min(max((i + 0.5) / kh - 0.5, 0.0), height - 1.0)
        w = min(max((j + 0.5) / kw - 0.5, 0.0), width - 1.0)
        for top, left in places((height, width)):
            share = max(0.0, 1.0 - abs(h - top)) * max(0.0, 1.0 - abs(w - left))
            y[:, i, j] += share * x[:, top, left]
    return y


def test_bilinear_up_sampling_interpolates_between_centres(backend):
    rng = np.random.default_rng(5)
    for _ in range(25):
        x, size = rows(rng, 2), tuple(rng.integers(1, 6, 2).tolist())
        wanted = interpolated(x.astype(float), size)
        # 8 roundings of a weighted mean, and of the weights
        tolerance = 16 * 2.0**-24 * abs(x).max()
        for y in results(UpSampling2D(size, interpolation="bilinear"), x):
            assert abs(y - wanted).max() <= tolerance, (x.shape, size)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_padding_and_cropping_move_the_inside(rank, backend):
    rng = np.random.default_rng(10 + rank)
    for _ in range(20):
        x, pads = rows(rng, rank), rng.integers(0, 4, (rank, 2))
        larger = tuple(s + b + a for s, (b, a) in zip(x.shape[1:-1], pads.tolist(), strict=True))
        wanted = np.zeros((len(x), *larger, x.shape[-1]), np.float32)
        for place in places(x.shape[1:-1]):
            wanted[(slice(None), *(p + int(b) for p, b in zip(place, pads[:, 0], strict=True)))] = x[
                (slice(None), *place)
            ]
        argument = pads[0].tolist() if rank == 1 else pads.tolist()
        for y in results(PAD[rank - 1](argument), x):
            np.testing.assert_array_equal(y, wanted)
        noisy = np.where(wanted == 0, np.float32(9.0), wanted)
        for y in results(CROP[rank - 1](argument), noisy):
            np.testing.assert_array_equal(y, x)


def test_permute_moves_each_number(backend):
    rng = np.random.default_rng(20)
    for _ in range(40):
        rank = int(rng.integers(1, 5))
        shape = (2, *rng.choice([1, 2, 3, 5, 16, 18], rank).tolist())
        dims = tuple((rng.permutation(rank) + 1).tolist())
        x = rng.standard_normal(shape).astype(np.float32)
        wanted = np.empty((2, *(shape[d] for d in dims)), np.float32)
        for place in places(wanted.shape[1:]):
            source = [0] * rank
            for p, d in zip(place, dims, strict=True):
                source[d - 1] = p
            wanted[(slice(None), *place)] = x[(slice(None), *source)]
        for y in results(Permute(dims), x):
            np.testing.assert_array_equal(y, wanted)


def test_reshape_keeps_the_order_and_finds_the_size_left_over(backend):
    x = np.arange(48, dtype=np.float32).reshape(2, 4, 6)
    for target, shape in (((24,), (24,)), ((3, 8), (3, 8)), ((-1,), (24,)), ((2, -1, 3), (2, 4, 3)), ((4, 6), (4, 6))):
        for y in results(Reshape(target), x):
            np.testing.assert_array_equal(y, x.reshape(2, *shape))


# By hand


def test_bilinear_by_hand(backend):
    # centres at 1/4, 3/4 of each pixel: 0 | 0 3/4*0+1/4*4 1/4*0+3/4*4 | 4
    x = np.array([[[[0.0], [4.0]], [[8.0], [4.0]]]], np.float32)
    rows_ = np.array([[0.0, 1.0, 3.0, 4.0], [8.0, 7.0, 5.0, 4.0]])
    wanted = np.array([rows_[0], 0.75 * rows_[0] + 0.25 * rows_[1], 0.25 * rows_[0] + 0.75 * rows_[1], rows_[1]])
    for y in results(UpSampling2D(2, "bilinear"), x):
        np.testing.assert_array_equal(y[0, :, :, 0], wanted)


def test_forms_of_arguments_are_those_of_keras():
    assert UpSampling2D(3).size == (3, 3)
    assert UpSampling3D((1, 2, 3)).size == (1, 2, 3)
    assert ZeroPadding1D(2).padding == (2, 2)
    assert ZeroPadding1D((2, 0)).padding == (2, 0)
    assert ZeroPadding2D(1).padding == ZeroPadding2D((1, 1)).padding == ((1, 1), (1, 1))
    assert ZeroPadding2D((1, 2)).padding == ((1, 1), (2, 2))
    assert ZeroPadding2D(((1, 2), (3, 4))).padding == ((1, 2), (3, 4))
    assert ZeroPadding3D((1, 2, 3)).padding == ((1, 1), (2, 2), (3, 3))
    assert Cropping1D().cropping == (1, 1)
    assert Cropping2D().cropping == ((0, 0), (0, 0))
    assert Cropping3D().cropping == ((1, 1), (1, 1), (1, 1))
    assert Cropping3D(np.int64(2)).cropping == ((2, 2), (2, 2), (2, 2))
    assert (UpSampling1D().size, UpSampling2D().size, UpSampling3D().size) == (2, (2, 2), (2, 2, 2))
    assert (ZeroPadding1D().padding, ZeroPadding2D().padding) == ((1, 1), ((1, 1), (1, 1)))


@pytest.mark.parametrize("make", [UpSampling2D, lambda: UpSampling2D(3, "bilinear"), ZeroPadding2D, Cropping2D,
                                  lambda: Permute((2, 1, 3)), lambda: Reshape((12, -1))])  # fmt: skip
def test_awkward_arrays_give_what_a_clean_copy_gives(make):
    clean = np.random.default_rng(3).integers(0, 200, (3, 4, 6, 5)).astype(np.float32)
    wanted = make()(clean)
    strided = np.zeros((6, 4, 12, 5), np.float32)[::2, :, ::2]
    strided[...] = clean
    locked = clean.copy()
    locked.flags.writeable = False
    for x in (strided, locked, clean.astype(">f4"), clean.astype(np.float64), clean.astype(np.uint8), clean.tolist()):
        np.testing.assert_array_equal(make()(x), wanted)
    np.testing.assert_array_equal(make()(clean[1:2]), wanted[1:2])
    assert make()(clean[:0]).shape == (0, *wanted.shape[1:])


# In networks

LAYERS_ON_IMAGES = {
    "up-sampling": lambda: UpSampling2D((2, 3)),
    "bilinear": lambda: UpSampling2D((3, 2), "bilinear"),
    "padding": lambda: ZeroPadding2D(((1, 0), (2, 1))),
    "cropping": lambda: Cropping2D(((1, 0), (0, 2))),
    "permute": lambda: Permute((3, 1, 2)),
    "reshape": lambda: Reshape((6, -1)),
}


@pytest.fixture
def _double():
    fastnn.config.set_backend("numpy")
    fastnn.config.set_floatx("float64")
    yield
    fastnn.config.set_floatx("float32")
    fastnn.config.set_backend("auto")


def network(make):
    fastnn.set_seed(8)
    return fastnn.Sequential([Input((4, 5, 3)), Dense(6, "tanh"), make(), Flatten(), Dense(2)])


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("name", LAYERS_ON_IMAGES)
def test_gradients_through_each_layer_are_the_slopes_of_the_loss(name):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((5, 4, 5, 3)), rng.standard_normal((5, 2))
    assert_gradients_right(network(LAYERS_ON_IMAGES[name]), "mse", x, y)


@pytest.mark.parametrize("name", LAYERS_ON_IMAGES)
def test_backends_train_alike(name):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((40, 4, 5, 3)), rng.standard_normal((40, 2))
    trained = {}
    for backend in ("native", "numba", "numpy"):
        if fastnn.backends.load(backend).why_not() is None:
            fastnn.config.set_backend(backend)
            model = network(LAYERS_ON_IMAGES[name])
            model.compile("sgd", "mse")
            model.fit(x, y, epochs=2, batch_size=16, verbose=0)
            trained[backend] = model.get_weights()
    fastnn.config.set_backend("auto")
    for weights in trained.values():
        for found, wanted in zip(weights, trained["numpy"], strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


# Dense along the last axis


@pytest.mark.parametrize("shape", [(7, 3), (4, 5, 3), (2, 3, 4, 5)])
def test_dense_works_along_the_last_axis(shape, backend):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((6, *shape)).astype(np.float32)
    model = fastnn.Sequential([Input(shape), Dense(9, "relu", bias_initializer="ones")])
    kernel, bias = model.get_weights()
    assert kernel.shape == (shape[-1], 9)
    wanted = np.maximum(np.einsum("...k,kf->...f", x.astype(float), kernel.astype(float)) + bias, 0.0)
    for y in (model.predict(x, verbose=0), model(x)):
        assert y.shape == (6, *shape[:-1], 9)
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)


def test_dense_on_images_learns_each_pixel_alike(backend):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((64, 3, 4, 2)).astype(np.float32)
    y = (x @ np.array([[2.0], [-1.0]]) + 0.5).reshape(64, -1).astype(np.float32)
    model = fastnn.Sequential([Input((3, 4, 2)), Dense(1), Flatten()])
    model.compile(fastnn.optimizers.SGD(0.1), "mse")
    model.fit(x, y, epochs=60, batch_size=16, verbose=0)
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(kernel[:, 0], [2.0, -1.0], atol=1e-3)
    np.testing.assert_allclose(bias, [0.5], atol=1e-3)


# Kept


MADE = [
    Reshape((3, -1)), Permute((2, 1)), UpSampling1D(3), UpSampling2D((2, 1), interpolation="bilinear"), UpSampling3D(2),
    ZeroPadding1D((0, 2)), ZeroPadding2D((1, 2)), ZeroPadding3D(1), Cropping1D(2), Cropping2D(((0, 1), (2, 3))),
    Cropping3D((1, 0, 2)),
]  # fmt: skip


@pytest.mark.parametrize("layer", MADE, ids=repr)
def test_a_layer_comes_back_from_its_configuration(layer):
    config = json.loads(json.dumps(layer.get_config()))
    again = LAYERS[type(layer).__name__].from_config(config)
    assert again.get_config() == layer.get_config()
    assert repr(again) == repr(layer)


def test_a_model_of_these_layers_comes_back_from_its_file(tmp_path):
    model = fastnn.Sequential([
        Input((6, 4)), ZeroPadding1D(1), UpSampling1D(2), Cropping1D((1, 3)), Permute((2, 1)), Reshape((4, 6, 2)),
        UpSampling2D(2, "bilinear"), ZeroPadding2D(1), Cropping2D(1), Reshape((2, 4, 12, 2)), UpSampling3D(1),
        ZeroPadding3D(1), Cropping3D(1), Flatten(), Dense(2),
    ])  # fmt: skip
    x = np.random.default_rng(0).standard_normal((3, 6, 4)).astype(np.float32)
    model.save(tmp_path / "model.safetensors")
    again = fastnn.models.load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


# Misused

ARGUMENTS = [
    (lambda: Reshape(3), "Reshape: target_shape must be a tuple of integers. Received: target_shape=3"),
    (lambda: Reshape((2, 1.5)), "Reshape: target_shape must be a tuple of integers. Received: target_shape=(2, 1.5)"),
    (lambda: Reshape((0, 2)), "Reshape: target_shape must have positive integers and at most one -1"),
    (lambda: Reshape((-1, -1)), "Reshape: target_shape must have positive integers and at most one -1"),
    (lambda: Reshape((-2,)), "Received: target_shape=(-2,)"),
    (lambda: Permute((1, 3)), "Permute: dims must have each of 1, 2, ... once. Received: dims=(1, 3)"),
    (lambda: Permute((0, 1)), "Permute: dims"),
    (lambda: Permute(()), "Permute: dims"),
    (lambda: Permute("21"), "Permute: dims must be a tuple of integers. Received: dims='21'"),
    (lambda: Permute((HUGE, 1)), "Permute: dims"),
    (lambda: UpSampling1D(0), "UpSampling1D: size must be a positive integer. Received: size=0"),
    (lambda: UpSampling1D(-2), "UpSampling1D: size must be a positive integer. Received: size=-2"),
    (lambda: UpSampling1D(HUGE), f"UpSampling1D: size must be below 2**31. Received: size={HUGE}"),
    (lambda: UpSampling1D((2,)), "UpSampling1D: size"),
    (lambda: UpSampling2D((2, 0)), "UpSampling2D: size must be an integer or 2 integers, 1 or more and below 2**31"),
    (lambda: UpSampling2D((2, 2, 2)), "UpSampling2D: size must be an integer or 2 integers"),
    (lambda: UpSampling2D(HUGE), f"Received: size={HUGE}"),
    (lambda: UpSampling2D(2, "bicubic"), "must be 'nearest' or 'bilinear'. Received: interpolation='bicubic'"),
    (lambda: UpSampling2D(2, 1), "interpolation"),
    (lambda: UpSampling3D(2.0), "UpSampling3D: size must be an integer or 3 integers"),
    (lambda: ZeroPadding1D(-1), "ZeroPadding1D: padding must be an integer or a pair, 0 or more and below 2**31."),
    (lambda: ZeroPadding1D((0, -1)), "Received: padding=(0, -1)"),
    (lambda: ZeroPadding1D((1, 2, 3)), "ZeroPadding1D: padding must be an integer or a pair"),
    (lambda: ZeroPadding1D(True), "ZeroPadding1D: padding"),
    (lambda: ZeroPadding2D((1, -1)), "ZeroPadding2D: padding must be an integer, 2 integers or 2 pairs"),
    (lambda: ZeroPadding2D(((1, 2, 3), (1, 2))), "ZeroPadding2D: padding"),
    (lambda: ZeroPadding2D("same"), "Received: padding='same'"),
    (lambda: ZeroPadding2D(None), "Received: padding=None"),
    (lambda: ZeroPadding3D(((1, 1), (1, 1))), "ZeroPadding3D: padding must be an integer, 3 integers or 3 pairs"),
    (lambda: ZeroPadding3D(HUGE), f"Received: padding={HUGE}"),
    (lambda: Cropping1D(1.0), "Cropping1D: cropping must be an integer or a pair"),
    (lambda: Cropping2D(-1), "Cropping2D: cropping must be an integer, 2 integers or 2 pairs"),
    (lambda: Cropping3D((0, 0, HUGE)), "Cropping3D: cropping must be"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), ARGUMENTS, ids=[m for _, m in ARGUMENTS])
def test_arguments_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make()
    assert message in str(caught.value)


FITS = [
    (Reshape((5, 5), name="it"), (4, 6), "it: Reshape needs rows that fit target_shape=(5, 5). Received: shape (None"),
    (Reshape((5, -1), name="it"), (4, 6), "it: Reshape needs rows that fit target_shape=(5, -1)"),
    (Reshape((HUGE, -1), name="it"), (4, 6), "it: Reshape needs rows that fit"),
    (Permute((2, 1), name="it"), (4, 6, 3), "it: Permute: perm must name each axis but the first once. Received: "),
    (UpSampling1D(2, name="it"), (4,), "it: UpSampling1D needs rows of 2 axes, (batch, steps, channels). Received:"),
    (UpSampling2D(2, name="it"), (4, 6), "it: UpSampling2D needs rows of 3 axes"),
    (UpSampling3D(2, name="it"), (4, 6, 3), "it: UpSampling3D needs rows of 4 axes"),
    (UpSampling1D(2**31 - 1, name="it"), (4, 6), "it: UpSampling1D: rows of the result must have fewer than 2**31"),
    (UpSampling2D((2**16, 2**16), name="it"), (4, 4, 1), "it: UpSampling2D: rows of the result must have fewer"),
    (UpSampling2D((2**16, 2**16), "bilinear", name="it"), (4, 4, 1), "it: UpSampling2D: rows of the result"),
    (ZeroPadding2D(2**30, name="it"), (4, 4, 1), "it: ZeroPadding2D: rows of the result must have fewer"),
    (ZeroPadding3D(1, name="it"), (4, 4, 1), "it: ZeroPadding3D needs rows of 4 axes"),
    (Cropping1D(2, name="it"), (4, 6), "it: Cropping1D: must leave something of the rows. Received: shape (None, 4,"),
    (Cropping2D(((0, 0), (3, 4)), name="it"), (9, 6, 2), "it: Cropping2D: must leave something of the rows"),
    (Cropping3D(2**31 - 1, name="it"), (9, 6, 2, 1), "it: Cropping3D: must leave something"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "shape", "message"), FITS, ids=[m for *_, m in FITS])
def test_rows_that_do_not_fit_are_refused_in_the_name_of_the_layer(layer, shape, message):
    for call in (lambda: layer(Input(shape)), lambda: layer(np.ones((2, *shape), np.float32))):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            call()
        assert message.replace("None", "2") in str(caught.value).replace("None", "2")

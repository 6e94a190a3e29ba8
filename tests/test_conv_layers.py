"""Convolution layers against loops in float64 that share no code with them, against values by hand, and in training."""

from __future__ import annotations

import numpy as np
import pytest
from test_autodiff import assert_gradients_right

import fastnn
from fastnn import initializers
from fastnn.layers import (
    Conv1D,
    Conv1DTranspose,
    Conv2D,
    Conv2DTranspose,
    Conv3D,
    Conv3DTranspose,
    Dense,
    Flatten,
    Input,
)

EPSILON = 2.0**-24
FORWARD, TRANSPOSED = (Conv1D, Conv2D, Conv3D), (Conv1DTranspose, Conv2DTranspose, Conv3DTranspose)


# The loops


def places(position, tap, strides, dilations, before):
    return tuple(i * s + t * d - b for i, t, s, d, b in zip(position, tap, strides, dilations, before, strict=True))


def inside(place, sizes):
    return all(0 <= p < size for p, size in zip(place, sizes, strict=True))


def convolved(x, w, strides, dilations, before, outputs, groups):
    """``y[o] = sum of x[o * stride + tap * dilation - before] w[tap]``, group by group."""
    y = np.zeros((len(x), *outputs, w.shape[-1]))
    c, f = w.shape[-2], w.shape[-1] // groups
    for position in np.ndindex(*outputs):
        for tap in np.ndindex(*w.shape[:-2]):
            place = places(position, tap, strides, dilations, before)
            if inside(place, x.shape[1:-1]):
                for i in range(groups):
                    pixel = x[(slice(None), *place)][:, i * c : (i + 1) * c]
                    y[(slice(None), *position)][:, i * f : (i + 1) * f] += pixel @ w[tap][:, i * f : (i + 1) * f]
    return y


def spread_out(x, w, strides, dilations, before, outputs):
    """Each pixel times the kernel, put down at ``position * stride + tap * dilation - before`` and added up."""
    y = np.zeros((len(x), *outputs, w.shape[-2]))
    for position in np.ndindex(*x.shape[1:-1]):
        for tap in np.ndindex(*w.shape[:-2]):
            place = places(position, tap, strides, dilations, before)
            if inside(place, outputs):
                y[(slice(None), *place)] += x[(slice(None), *position)] @ w[tap].T
    return y


def geometry(size, kernel, stride, dilation, padding):
    """Zeros before and the output's size, along one axis, of a convolution."""
    covered = (kernel - 1) * dilation + 1
    if padding == "same":
        output = -(-size // stride)
        return max(0, (output - 1) * stride + covered - size) // 2, output
    before, after = {"valid": (0, 0), "causal": (covered - 1, 0)}.get(padding, padding)
    return before, (size + before + after - covered) // stride + 1


def transposed_geometry(size, kernel, stride, dilation, padding, more):
    """The same of a transposed convolution; ``more`` is its output_padding, or None."""
    covered = (kernel - 1) * dilation + 1
    if padding == "valid":
        return 0, (size - 1) * stride + (max(covered, stride) if more is None else covered + more)
    if padding != "same":
        return padding[0], (size - 1) * stride + covered - sum(padding) + (more or 0)
    if more is None:
        return max(0, covered - stride) // 2, size * stride
    return max(0, covered - covered % 2 - more) // 2, (size - 1) * stride + covered % 2 + more


def drawn(rng, rank):
    """Random sizes, kernel, strides, dilations, and padding as the layer takes it and along each axis."""
    sizes, kernel = (tuple(int(v) for v in rng.integers(1, top, rank)) for top in (12 - 3 * rank, 6 - rank))
    strides = dilations = (1,) * rank
    choice = rng.integers(3)
    if choice == 1:
        strides = tuple(int(v) for v in rng.integers(1, 5, rank))
    elif choice == 2:
        dilations = tuple(int(v) for v in rng.integers(1, 4, rank))
    padding = ("valid", "same", "SAME", "pairs")[rng.integers(4)]
    if padding == "pairs":
        padding = tuple(tuple(int(v) for v in rng.integers(0, 4, 2)) for _ in range(rank))
        return sizes, kernel, strides, dilations, padding, padding
    return sizes, kernel, strides, dilations, padding, (padding.lower(),) * rank


def forward_case(rng, rank):
    """A random convolution: the layer, its input, and the result with the error that float32 may make."""
    while True:
        sizes, kernel, strides, dilations, padding, along = drawn(rng, rank)
        if rank == 1 and rng.integers(4) == 0:
            padding, along = "causal", ("causal",)
        found = [geometry(*numbers) for numbers in zip(sizes, kernel, strides, dilations, along, strict=True)]
        if min(output for _, output in found) > 0:
            break
    groups = int(rng.integers(1, 4))
    c, f = (groups * int(rng.integers(1, 4)) for _ in range(2))
    options = {"strides": strides, "padding": padding, "dilation_rate": dilations, "groups": groups}
    layer = FORWARD[rank - 1](f, kernel, use_bias=bool(rng.integers(2)), **options)
    x = rng.standard_normal((2, *sizes, c)).astype(np.float32)
    return layer, x, lambda x, w: convolved(x, w, strides, dilations, *zip(*found, strict=True), groups)


def transposed_case(rng, rank):
    while True:
        sizes, kernel, strides, dilations, padding, along = drawn(rng, rank)
        more = None if rng.integers(2) else tuple(int(rng.integers(0, stride)) for stride in strides)
        numbers = zip(sizes, kernel, strides, dilations, along, more or [None] * rank, strict=True)
        found = [transposed_geometry(*n) for n in numbers]
        if min(output for _, output in found) > 0:
            break
    c, f = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    options = {"strides": strides, "padding": padding, "dilation_rate": dilations, "output_padding": more}
    layer = TRANSPOSED[rank - 1](f, kernel, use_bias=bool(rng.integers(2)), **options)
    x = rng.standard_normal((2, *sizes, c)).astype(np.float32)
    return layer, x, lambda x, w: spread_out(x, w, strides, dilations, *zip(*found, strict=True))


def assert_right(layer, x, loops, rng, compute):
    layer.prepare((None, *x.shape[1:]))
    layer(x[:1])
    weights = [rng.standard_normal(w.shape).astype(np.float32) for w in layer.weights]
    layer.set_weights(weights)
    w, bias = weights[0].astype(float), weights[1].astype(float) if layer.use_bias else np.zeros(layer.filters)
    expected, scale = loops(x.astype(float), w) + bias, loops(abs(x.astype(float)), abs(w)) + abs(bias)
    y = compute(layer, x)
    assert y.dtype == np.float32
    assert y.shape == expected.shape, layer
    assert (abs(y - expected) <= 2 * EPSILON * (w[..., 0].size * w.shape[-1] + 2) * scale).all(), layer


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("case", [forward_case, transposed_case])
def test_random_layers_compute_what_loops_compute(case, rank):
    rng = np.random.default_rng(rank)
    for _ in range(80):
        assert_right(*case(rng, rank), rng, lambda layer, x: layer(x))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("case", [forward_case, transposed_case])
def test_random_layers_compute_what_loops_compute_on_every_backend(case, rank, backend):
    rng = np.random.default_rng(10 + rank)
    for _ in range(25):

        def compute(layer, x):
            model = fastnn.Sequential([Input(x.shape[1:]), layer])
            return model.predict(x, verbose=0)

        assert_right(*case(rng, rank), rng, compute)


# By hand


class Given(initializers.Initializer):
    """These numbers."""

    def __init__(self, *values):
        self.values = np.array(values, float)

    def __call__(self, shape, rng):
        return self.values.reshape(shape)


def with_weights(layer, kernel, *bias):
    layer.kernel_initializer, layer.bias_initializer = Given(*np.ravel(kernel)), Given(*bias)
    return layer


#: 1 2 3
#: 4 5 6
#: 7 8 9
NINE = np.arange(1.0, 10.0).reshape(1, 3, 3, 1)
#: 1 2
#: 3 4
FOUR = np.arange(1.0, 5.0).reshape(2, 2, 1, 1)


def test_a_convolution_by_hand():
    # 1 + 2 2 + 3 4 + 4 5 = 37, 2 + 2 3 + 3 5 + 4 6 = 47, 4 + 2 5 + 3 7 + 4 8 = 67, 5 + 2 6 + 3 8 + 4 9 = 77
    y = with_weights(Conv2D(1, 2), FOUR, 0.5)(NINE)
    np.testing.assert_array_equal(y[0, :, :, 0], [[37.5, 47.5], [67.5, 77.5]])
    y = with_weights(Conv2D(1, 2, activation="relu"), FOUR, -50.0)(NINE)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0.0, 0.0], [17.0, 27.0]])
    # same: one zero, and it comes after: 3 + 3 6 = 21, 6 + 3 9 = 33, 7 + 2 8 = 23, 8 + 2 9 = 26, 9
    y = with_weights(Conv2D(1, 2, padding="same", use_bias=False), FOUR)(NINE)
    np.testing.assert_array_equal(y[0, :, :, 0], [[37.0, 47.0, 21.0], [67.0, 77.0, 33.0], [23.0, 26.0, 9.0]])
    # zeros above and on the left, every other place: 4 1, 3 2 + 4 3, 2 4 + 4 7, 77
    pads = ((1, 0), (1, 0))
    y = with_weights(Conv2D(1, 2, strides=2, padding=pads, use_bias=False), FOUR)(NINE)
    np.testing.assert_array_equal(y[0, :, :, 0], [[4.0, 18.0], [36.0, 77.0]])
    # the corners only: 1 + 2 3 + 3 7 + 4 9
    y = with_weights(Conv2D(1, 2, dilation_rate=2, use_bias=False), FOUR)(NINE)
    np.testing.assert_array_equal(y, [[[[64.0]]]])


def test_channels_filters_and_groups_by_hand():
    x = [[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]]
    kernel = np.array([[[1.0, 2.0, 0.0], [0.5, 0.0, -1.0]], [[0.0, 0.0, 3.0], [0.0, 4.0, 0.0]]])  # (2, C = 2, F = 3)
    # filter 0: x0 + x1 / 2; filter 1: 2 x0 + 4 next x1; filter 2: -x1 + 3 next x0
    y = with_weights(Conv1D(3, 2, use_bias=False), kernel)(np.array(x))
    np.testing.assert_array_equal(y, [[[6.0, 82.0, -4.0], [12.0, 124.0, -11.0]]])
    # two groups of one channel, the second with other weights: x0 - next x0; 3 x1 + 2 next x1
    y = with_weights(Conv1D(2, 2, groups=2, use_bias=False), [[[1.0, 3.0]], [[-1.0, 2.0]]])(np.array(x))
    np.testing.assert_array_equal(y, [[[-1.0, 70.0], [-1.0, 120.0]]])


def test_a_volume_by_hand():
    y = with_weights(Conv3D(1, 2, use_bias=False), np.arange(1.0, 9.0))(np.arange(8.0).reshape(1, 2, 2, 2, 1))
    np.testing.assert_array_equal(y.reshape(-1), [168.0])  # 0 1 + 1 2 + ... + 7 8


def test_causal_padding_never_looks_ahead():
    x = np.array([1.0, 2.0, 5.0, 9.0]).reshape(1, 4, 1)
    y = with_weights(Conv1D(1, 2, padding="causal", dilation_rate=2, use_bias=False), [10.0, 1.0])(x)
    np.testing.assert_array_equal(y[0, :, 0], [1.0, 2.0, 15.0, 29.0])
    layer = Conv1D(3, 4, padding="causal")
    x = np.random.default_rng(0).standard_normal((1, 20, 2))
    later = x.copy()
    later[0, 11:] += 1.0
    before, after = layer(x), layer(later)
    np.testing.assert_array_equal(before[0, :11], after[0, :11])
    assert (before[0, 11:] != after[0, 11:]).any(axis=1).all()


def test_a_transposed_convolution_by_hand():
    x, kernel = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 10.0], [100.0, 1000.0]])
    layer = with_weights(Conv2DTranspose(1, 2, strides=2, use_bias=False), kernel)
    np.testing.assert_array_equal(layer(x.reshape(1, 2, 2, 1))[0, :, :, 0], np.kron(x, kernel))
    # overlapping by one: 1, 10 + 2, 20; 100 + 3, 1000 + 200 + 30 + 4, 2000 + 40; 300, 3000 + 400, 4000
    y = with_weights(Conv2DTranspose(1, 2, use_bias=False), kernel)(x.reshape(1, 2, 2, 1))[0, :, :, 0]
    np.testing.assert_array_equal(y, [[1.0, 12.0, 20.0], [103.0, 1234.0, 2040.0], [300.0, 3400.0, 4000.0]])
    signal = np.array([1.0, 5.0]).reshape(1, 2, 1)
    for options, wanted in (
        ({}, [1, 2, 3 + 5, 10, 15]),
        ({"output_padding": 1}, [1, 2, 8, 10, 15, 0]),
        ({"padding": "same"}, [1, 2, 8, 10]),
        ({"padding": "same", "output_padding": 0}, [2, 8, 10]),
        ({"padding": ((1, 2),)}, [2, 8]),
        ({"padding": ((1, 2),), "output_padding": 1}, [2, 8, 10]),
    ):
        layer = with_weights(Conv1DTranspose(1, 3, strides=2, use_bias=False, **options), [1.0, 2.0, 3.0])
        np.testing.assert_array_equal(layer(signal)[0, :, 0], wanted)
    # two channels to three filters: each pixel times the (F, C) matrix
    kernel = np.arange(1.0, 7.0).reshape(1, 3, 2)
    y = with_weights(Conv1DTranspose(3, 1), kernel, 0.0, 0.0, 0.5)(np.array([[[1.0, 10.0]]]))
    np.testing.assert_array_equal(y, [[[21.0, 43.0, 65.5]]])


def test_the_convolution_of_mathematics_is_the_same_with_a_flipped_kernel():
    rng = np.random.default_rng(0)
    signal, kernel = rng.standard_normal(30), rng.standard_normal(5)
    y = with_weights(Conv1D(1, 5, use_bias=False), kernel[::-1])(signal.reshape(1, 30, 1))
    np.testing.assert_allclose(y[0, :, 0], np.convolve(signal, kernel, "valid"), atol=1e-5)


# Gradients


@pytest.fixture
def _double():
    fastnn.config.set_backend("numpy")
    fastnn.config.set_floatx("float64")
    yield
    fastnn.config.set_floatx("float32")
    fastnn.config.set_backend("auto")


NETS = {
    "signals": ((13, 4), [Conv1D(6, 4, 2, "same", groups=2), Conv1D(3, 3, padding="causal", dilation_rate=2)]),
    "images": ((7, 8, 3), [Conv2D(4, 3, activation="tanh"), Conv2D(6, (2, 3), (2, 1), ((1, 0), (2, 1)), groups=2)]),
    "volumes": ((4, 5, 4, 2), [Conv3D(3, (2, 3, 1), activation="gelu"), Conv3D(2, 2, dilation_rate=(1, 2, 1))]),
    "signals up": ((5, 3), [Conv1DTranspose(4, 3, 2, "same", 1, activation="silu"), Conv1DTranspose(2, 2, 3)]),
    "images up": ((3, 4, 2), [Conv2DTranspose(3, 3, dilation_rate=2), Conv2DTranspose(2, (2, 3), 2, "same")]),
    "volumes up": ((2, 3, 2, 2), [Conv3DTranspose(3, 2, 2, activation="selu"), Conv3DTranspose(1, (1, 3, 2))]),
    "down and up": ((6, 6, 2), [Conv2D(4, 3, 2, "same", activation="tanh"), Conv2DTranspose(2, 3, 2, "same")]),
}


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("name", NETS)
def test_gradients_of_convolutions(name):
    shape, convolutions = NETS[name]
    rng = np.random.default_rng(2)
    fastnn.set_seed(3)
    fresh = [type(layer).from_config(layer.get_config()) for layer in convolutions]
    model = fastnn.Sequential([Input(shape), *fresh, Flatten(), Dense(2)])
    assert_gradients_right(model, "mse", rng.standard_normal((4, *shape)), rng.standard_normal((4, 2)))


# Weights


def built(kind, *args, **options):
    layer = kind(*args, **options)
    layer.prepare((None, *(8,) * layer.rank, 6))
    return layer


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_weights_lie_as_keras_has_them(rank):
    kernel = (2, 3, 4)[:rank]
    layer = built(FORWARD[rank - 1], 10, kernel, groups=2, name="c")
    assert [w.shape for w in layer.weights] == [(*kernel, 3, 10), (10,)]
    assert [w.name for w in layer.weights] == ["c.kernel", "c.bias"]
    assert [w.shape for w in built(TRANSPOSED[rank - 1], 10, kernel).weights] == [(*kernel, 10, 6), (10,)]
    assert [w.shape for w in built(FORWARD[rank - 1], 10, 1, use_bias=False).weights] == [(*(1,) * rank, 6, 10)]


def test_initial_kernels_spread_as_keras_has_them():
    # fan in 3 3 8 = 72, fan out 3 3 16 = 144: within sqrt(6 / 216) = 1/6
    layer = Conv2D(16, 3)
    layer(np.zeros((1, 5, 5, 8)))
    kernel, bias = layer.get_weights()
    assert 0.99 / 6 < abs(kernel).max() <= 1 / 6
    assert not bias.any()
    # he: sqrt(6 / 72). Transposed, the last two sizes of the kernel are 16 and 8: fan in 3 3 16 = 144
    for layer, limit in (
        (Conv2D(16, 3, kernel_initializer="he_uniform"), (6 / 72) ** 0.5),
        (Conv2DTranspose(16, 3, kernel_initializer="he_uniform"), (6 / 144) ** 0.5),
    ):
        layer(np.zeros((1, 5, 5, 8)))
        assert 0.99 * limit < abs(layer.get_weights()[0]).max() <= limit


def test_layers_are_named_as_in_keras():
    fastnn.layers.base.reset_names()
    names = [kind(1, 1).name for kind in (Conv1D, Conv2D, Conv2D, Conv2DTranspose)]
    assert names == ["conv1d", "conv2d", "conv2d_1", "conv2d_transpose"]


# Training


def test_a_small_network_learns_where_the_bright_spot_is(backend):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    x = 0.3 * rng.standard_normal((300, 10, 10, 1)).astype(np.float32)
    for image, label in zip(x, labels, strict=True):
        top, left = 5 * (label // 2) + rng.integers(0, 3), 5 * (label % 2) + rng.integers(0, 3)
        image[top : top + 2, left : left + 2] += 1.5
    fastnn.set_seed(1)
    model = fastnn.Sequential(
        [Conv2D(8, 3, activation="relu", padding="same"), Conv2D(8, 3, 2, activation="relu"), Flatten(), Dense(4)]
    )
    loss = fastnn.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(fastnn.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(x[:200], labels[:200], epochs=8, verbose=0)
    assert model.evaluate(x[200:], labels[200:], verbose=0)[1] > 0.95


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_an_autoencoder_learns_its_input(rank, backend):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, *(4,) * rank, 2)).astype(np.float32)
    x[..., 1] = -2.0 * x[..., 0]
    fastnn.set_seed(1)
    model = fastnn.Sequential(
        [
            Input(x.shape[1:]),
            FORWARD[rank - 1](8 * 2 ** (rank - 1), 2, 2),
            TRANSPOSED[rank - 1](2, 2, 2),
            Flatten(),
        ]
    )
    model.compile(fastnn.optimizers.Adam(0.02), "mse")
    history = model.fit(x, x.reshape(len(x), -1), batch_size=16, epochs=60, verbose=0).history["loss"]
    assert history[-1] < 0.01 * history[0]

"""Depthwise and separable convolutions against loops in float64 that share no code with them, and in training."""

from __future__ import annotations

import numpy as np
import pytest
from depthwise_loops import EPSILON, convolved, drawn
from test_autodiff import assert_gradients_right

import fastnn
from fastnn.layers import (
    LAYERS,
    Activation,
    Conv2D,
    Dense,
    DepthwiseConv1D,
    DepthwiseConv2D,
    Flatten,
    Input,
    SeparableConv1D,
    SeparableConv2D,
)

DEPTHWISE, SEPARABLE = (DepthwiseConv1D, DepthwiseConv2D), (SeparableConv1D, SeparableConv2D)
KINDS = [(kind, ()) for kind in DEPTHWISE] + [(kind, (4,)) for kind in SEPARABLE]
HUGE = 2**63 - 1


def set_random(layer, x, rng):
    """Build, and replace the weights by random ones."""
    layer(x[:1])
    layer.set_weights([rng.standard_normal(w.shape).astype(np.float32) for w in layer.weights])
    return [w.astype(float) for w in layer.get_weights()]


# What layers compute


def depthwise_case(rng, rank):
    """A random layer, its input, its output and the error that float32 may make."""
    sizes, c, m, kernel, strides, dilations, padding, found = drawn(rng, rank)
    bias = bool(rng.integers(2))
    layer = DEPTHWISE[rank - 1](
        kernel, strides, padding, dilation_rate=dilations, depth_multiplier=m, use_bias=bias
    )
    x = rng.standard_normal((2, *sizes, c)).astype(np.float32)
    w, *b = set_random(layer, x, rng)
    before, _, outputs = zip(*found, strict=True)
    geometry = outputs, strides, dilations, before
    exact, scale = convolved(x, w, *geometry) + sum(b), convolved(abs(x), abs(w), *geometry) + sum(map(abs, b))
    return layer, x, exact, 2 * EPSILON * (np.prod(kernel) + 1) * scale


def separable_case(rng, rank):
    sizes, c, m, kernel, strides, dilations, padding, found = drawn(rng, rank)
    filters, bias = int(rng.integers(1, 20)), bool(rng.integers(2))
    layer = SEPARABLE[rank - 1](
        filters, kernel, strides, padding, dilation_rate=dilations, depth_multiplier=m, use_bias=bias
    )
    x = rng.standard_normal((2, *sizes, c)).astype(np.float32)
    w, p, *b = set_random(layer, x, rng)
    before, _, outputs = zip(*found, strict=True)
    geometry = outputs, strides, dilations, before
    p = p.reshape(c * m, filters)
    exact = convolved(x, w, *geometry) @ p + sum(b)
    scale = convolved(abs(x), abs(w), *geometry) @ abs(p) + sum(map(abs, b))
    return layer, x, exact, 2 * EPSILON * (np.prod(kernel) + c * m + 1) * scale


def assert_right(y, layer, exact, tolerance):
    assert y.dtype == np.float32
    assert y.shape == exact.shape, layer
    assert (abs(y - exact) <= tolerance).all(), layer


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("case", [depthwise_case, separable_case])
def test_random_layers_compute_what_loops_compute(case, rank):
    rng = np.random.default_rng(rank)
    for _ in range(80):
        layer, x, *expected = case(rng, rank)
        assert_right(layer(x), layer, *expected)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("case", [depthwise_case, separable_case])
def test_random_layers_compute_what_loops_compute_on_every_backend(case, rank, backend):
    rng = np.random.default_rng(10 + rank)
    for _ in range(30):
        layer, x, *expected = case(rng, rank)
        model = fastnn.Sequential([Input(x.shape[1:]), layer])
        assert_right(model.predict(x, verbose=0), layer, *expected)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_multiplier_is_a_convolution_with_as_many_groups_as_channels(padding):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 9, 8, 5)).astype(np.float32)
    layer, grouped = DepthwiseConv2D(3, 2, padding, depth_multiplier=2), Conv2D(10, 3, 2, padding, groups=5)
    kernel, bias = set_random(layer, x, rng)
    grouped(x)
    grouped.set_weights([kernel.reshape(3, 3, 1, 10), bias])
    np.testing.assert_allclose(layer(x), grouped(x), rtol=1e-5, atol=1e-5)


def test_what_is_computed_is_the_cross_correlation():
    signal, kernel = np.array([1.0, 2.0, 0.0, 5.0]), np.array([1.0, 10.0])
    layer = DepthwiseConv1D(2, use_bias=False)
    layer(signal.reshape(1, 4, 1))
    layer.set_weights([kernel.reshape(2, 1, 1)])
    # 1 + 10 2, 2 + 10 0, 0 + 10 5
    np.testing.assert_array_equal(layer(signal.reshape(1, 4, 1))[0, :, 0], [21.0, 2.0, 50.0])
    np.testing.assert_array_equal(np.convolve(signal, kernel[::-1], "valid"), [21.0, 2.0, 50.0])


# Gradients


@pytest.fixture
def _double():
    fastnn.config.set_backend("numpy")
    fastnn.config.set_floatx("float64")
    yield
    fastnn.config.set_floatx("float32")
    fastnn.config.set_backend("auto")


NETS = {
    "signals": (
        (13, 3),
        [DepthwiseConv1D(4, 2, "same", depth_multiplier=2), SeparableConv1D(5, 3, dilation_rate=2, activation="silu")],
    ),
    "images": (
        (8, 9, 2),
        [
            DepthwiseConv2D(3, activation="tanh"),
            SeparableConv2D(4, (2, 3), (2, 1), ((1, 0), (2, 1)), depth_multiplier=3),
            DepthwiseConv2D(2, padding="same", use_bias=False, dilation_rate=(1, 2)),
        ],
    ),
    "with penalties": (
        (5, 6, 2),
        [
            DepthwiseConv2D(2, depthwise_regularizer="l2", bias_regularizer="l1"),
            SeparableConv2D(3, 2, depthwise_regularizer="l1", pointwise_regularizer="l1_l2", bias_regularizer="l2"),
        ],
    ),
}


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("name", NETS)
def test_gradients_of_layers(name):
    shape, layers = NETS[name]
    rng = np.random.default_rng(2)
    fastnn.set_seed(3)
    fresh = [type(layer).from_config(layer.get_config()) for layer in layers]
    model = fastnn.Sequential([Input(shape), *fresh, Flatten(), Dense(2)])
    assert_gradients_right(model, "mse", rng.standard_normal((4, *shape)), rng.standard_normal((4, 2)))


# Training


@pytest.mark.parametrize("separable", [False, True])
def test_a_small_network_learns_which_way_the_stripes_run(separable, backend):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    stripes = np.where(np.arange(8) % 2, 1.0, -1.0)
    x = rng.standard_normal((200, 8, 8, 2)).astype(np.float32)
    for image, label in zip(x, labels, strict=True):
        image[..., 0] += stripes[:, None] if label else stripes[None, :]
    fastnn.set_seed(1)
    first = SeparableConv2D(6, 3) if separable else DepthwiseConv2D(3, depth_multiplier=4)
    last = [DepthwiseConv2D(3, 2, activation="relu"), Flatten(), Dense(1, "sigmoid")]
    model = fastnn.Sequential([Input((8, 8, 2)), first, Activation("relu"), *last])
    model.compile(fastnn.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    model.fit(x[:140], labels[:140], epochs=12, verbose=0)
    assert model.evaluate(x[140:], labels[140:], verbose=0)[1] > 0.95


def test_a_signal_network_learns_a_difference(backend):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 12, 3)).astype(np.float32)
    y = (x[:, 1:, 1] - x[:, :-1, 1]).astype(np.float32)
    fastnn.set_seed(1)
    layers = [DepthwiseConv1D(2, depth_multiplier=2), SeparableConv1D(1, 1)]
    model = fastnn.Sequential([Input((12, 3)), *layers, Flatten()])
    model.compile(fastnn.optimizers.Adam(0.02), "mse")
    losses = model.fit(x, y, batch_size=16, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.01 * losses[0]


# Weights and configuration


def built(kind, *args, **options):
    layer = kind(*args, **options)
    layer.prepare((None, *(9,) * kind.rank, 6))
    return layer


@pytest.mark.parametrize("rank", [1, 2])
def test_weights_lie_as_keras_has_them(rank):
    kernel, ones = (2, 3)[:rank], (1,) * rank
    layer = built(DEPTHWISE[rank - 1], kernel, depth_multiplier=4, name="d")
    assert [(w.name, w.shape) for w in layer.weights] == [("d.kernel", (*kernel, 6, 4)), ("d.bias", (24,))]
    assert [w.shape for w in built(DEPTHWISE[rank - 1], 3, use_bias=False).weights] == [((3,) * rank + (6, 1))]
    layer = built(SEPARABLE[rank - 1], 10, kernel, depth_multiplier=4, name="s")
    assert [(w.name, w.shape) for w in layer.weights] == [
        ("s.depthwise_kernel", (*kernel, 6, 4)),
        ("s.pointwise_kernel", (*ones, 24, 10)),
        ("s.bias", (10,)),
    ]


def test_initial_kernels_spread_as_keras_has_them():
    # fan in 3 3 C = 90, fan out 3 3 M = 180: within sqrt(6 / 270); pointwise: fan in 200, fan out 50
    layer = SeparableConv2D(50, 3, depth_multiplier=20, pointwise_initializer="he_uniform")
    layer(np.zeros((1, 5, 5, 10)))
    kernel, pointwise, bias = layer.get_weights()
    for w, limit in ((kernel, (6 / 270) ** 0.5), (pointwise, (6 / 200) ** 0.5)):
        assert 0.98 * limit < abs(w).max() <= limit
    assert not bias.any()


def test_layers_are_named_as_in_keras():
    fastnn.layers.base.reset_names()
    names = [kind(*first, 1).name for kind, first in KINDS]
    assert names == ["depthwise_conv1d", "depthwise_conv2d", "separable_conv1d", "separable_conv2d"]


CONFIGURED = [
    DepthwiseConv1D(3, 2, ((1, 2),), depth_multiplier=2, activation="relu", use_bias=False, name="a", trainable=False),
    DepthwiseConv2D(
        (3, 2),
        padding="SAME",
        dilation_rate=(1, 2),
        depthwise_initializer="he_normal",
        bias_initializer=fastnn.initializers.Constant(0.5),
        depthwise_regularizer=fastnn.regularizers.L2(0.1),
        bias_regularizer="l1",
        input_shape=(5, 6, 2),
        name="b",
    ),
    SeparableConv1D(4, 2, pointwise_regularizer="l2", name="c"),
    SeparableConv2D(
        4,
        (2, 1),
        (2, 3),
        depth_multiplier=3,
        activation="gelu",
        depthwise_initializer="lecun_normal",
        pointwise_initializer=fastnn.initializers.RandomNormal(0.0, 0.2),
        depthwise_regularizer="l1",
        pointwise_regularizer=fastnn.regularizers.L1L2(0.1, 0.2),
        name="d",
    ),
]


@pytest.mark.parametrize("layer", CONFIGURED, ids=lambda layer: layer.name)
def test_a_layer_comes_back_from_its_configuration(layer):
    config = layer.get_config()
    again = LAYERS[type(layer).__name__].from_config(config)
    assert again.get_config() == config
    assert repr(again) == repr(layer)
    assert "data_format" not in config


def test_a_model_of_these_layers_comes_back_from_its_file(tmp_path):
    fastnn.set_seed(0)
    layers = [Input((9, 8, 3)), SeparableConv2D(7, 3, activation="relu"), DepthwiseConv2D(2, 2, depth_multiplier=2)]
    model = fastnn.Sequential([*layers, Flatten(), Dense(1)])
    x = np.random.default_rng(0).standard_normal((5, 9, 8, 3)).astype(np.float32)
    model.save(tmp_path / "m.fastnn")
    again = fastnn.models.load_model(tmp_path / "m.fastnn")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


# Bad input

NOT_SIZES = [0, -1, 2.0, "3", None, True, HUGE, 2**31, (), (3, 3, 3), (0,), (3, "x")]


@pytest.mark.parametrize(("kind", "first"), KINDS)
@pytest.mark.parametrize("name", ["kernel_size", "strides", "dilation_rate"])
def test_sizes_that_cannot_be_are_refused(kind, first, name):
    for value in NOT_SIZES:
        with pytest.raises(ValueError, match=rf"^{kind.__name__}: {name} must be .* Received: {name}="):
            kind(*first, **{"kernel_size": 3, name: value})


@pytest.mark.parametrize(("kind", "first"), KINDS)
def test_other_arguments_that_cannot_be_are_refused(kind, first):
    bad = {
        "depth_multiplier": [0, -3, 1.5, "2", None, True, HUGE, 2**31],
        "padding": ["full", "causal", 3, None, ((1, 2, 3),), ((-1, 0),) * kind.rank, ((0, HUGE),) * kind.rank],
        "activation": ["sine", 3],
        "depthwise_initializer": ["none", 3],
        "bias_initializer": ["none"],
        "depthwise_regularizer": ["l7"],
        "bias_regularizer": ["l7"],
    }
    if first:
        bad |= {"pointwise_initializer": ["none"], "pointwise_regularizer": ["l7"]}
    for name, values in bad.items():
        for value in values:
            with pytest.raises(ValueError, match=rf"^{kind.__name__}: {name}.* Received: "):
                kind(*first, 3, **{name: value})
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: dilation_rate must be 1 where strides are larger than 1"):
        kind(*first, 3, strides=2, dilation_rate=2)


@pytest.mark.parametrize("kind", SEPARABLE)
def test_filters_that_cannot_be_are_refused(kind):
    for filters in (0, -1, 1.5, "3", None, True, HUGE, 2**31):
        with pytest.raises(ValueError, match=rf"^{kind.__name__}: filters must be .* Received: filters="):
            kind(filters, 3)


@pytest.mark.parametrize(("kind", "first"), KINDS)
def test_inputs_that_do_not_fit_are_refused_before_anything_is_allocated(kind, first):
    rank = kind.rank
    for shape in [(3,), (5, 5, 5, 5, 5), (5,) * rank, (None,) * (rank + 1)]:
        with pytest.raises(ValueError, match=rf"{kind.__name__} needs rows of {rank + 1} axes.* Received: shape"):
            kind(*first, 3).prepare((None, *shape))
    with pytest.raises(ValueError, match=r"window must not be larger than the padded input. Received: input of"):
        kind(*first, 6, padding=((1, 0),) * rank).prepare((None, *(4,) * rank, 2))
    large = 2**31 - 1
    for options, channels in (
        ({"kernel_size": 3, "depth_multiplier": large}, 3),
        ({"kernel_size": 1, "padding": ((large, large),) * rank}, 3),
        ({"kernel_size": large, "padding": "same"}, 3),
    ):
        layer = kind(*first, **options)
        with pytest.raises(ValueError, match=r"of fewer than 2\*\*31 elements. Received: "):
            layer.prepare((None, *(4,) * rank, channels))
        assert not layer.weights
    if first:
        with pytest.raises(ValueError, match=r"needs a pointwise kernel of fewer than"):
            kind(large, 1).prepare((None, *(4,) * rank, 3))
        with pytest.raises(ValueError, match=r"needs rows of the output of fewer than"):
            kind(large, 1).prepare((None, *(4,) * rank, 1))


def test_a_layer_that_was_built_refuses_rows_of_another_shape():
    layer = DepthwiseConv2D(3)
    layer(np.zeros((1, 5, 5, 2)))
    with pytest.raises(ValueError, match=r"was built for inputs of shape .* Received: shape \(None, 5, 5, 3\)"):
        layer(np.zeros((1, 5, 5, 3)))

"""Dropout and noise: the same draws everywhere, of the distribution that they promise, in training only."""

from __future__ import annotations

import json
import math
from statistics import NormalDist

import numpy as np
import pytest

import fastnn
from fastnn import backends
from fastnn.backends import native
from fastnn.layers import (
    LAYERS,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
)
from fastnn.ops import OPS
from fastnn.ops.random import normal, normal_of, uniform

SPATIAL = (SpatialDropout1D, SpatialDropout2D, SpatialDropout3D)
ENGINES = [name for name in backends.NAMES if backends.load(name).why_not() is None]


def engines():
    """Each backend, native with each instruction set and with one thread and two."""
    for name in ENGINES:
        if name != "native":
            yield name
            continue
        before = native.isa(), native.threads()
        for isa in native.isas():
            for threads in (1, 2):
                native.choose_isa(isa)
                native.set_threads(threads)
                yield name
        native.choose_isa(before[0])
        native.set_threads(before[1])


# The same bits everywhere

SHAPES = [(1, 1), (3, 7), (5, 64), (2, 65), (3, 4, 5, 3), (2, 33, 31), (4, 9, 7, 16), (2, 3, 4, 5, 6), (3, 90, 90, 5)]


@pytest.mark.parametrize("op", ["gaussian_noise", "spatial_dropout", "dropout"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_draws_have_the_same_bits_on_every_backend_and_instruction_set(op, shape):
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    for step, seed, stream in ((0, 0, 0), (7, 2**64 - 1, 5), (2**40 + 3, 12345, 2**32 - 1)):
        attrs = {"seed": seed, "stream": stream}
        attrs |= {"stddev": 0.37} if op == "gaussian_noise" else {"rate": 0.37}
        wanted = OPS[op](x, np.array([step]), **attrs)
        assert wanted.dtype == np.float32
        for engine in engines():
            (found,), run = backends.single(engine, op, [x, np.array([step])], attrs)
            run()
            np.testing.assert_array_equal(found.view(np.int32), wanted.view(np.int32), err_msg=engine)


# The distribution


def test_normal_numbers_are_the_exact_quantiles_to_2e_6():
    rng = np.random.default_rng(2)
    odd = np.concatenate([
        2 * np.arange(500) + 1, 2**31 - 1 - 2 * np.arange(500),  # the far tails and the middle
        2 * (2 ** (30 * rng.random(5000))).astype(np.int64) - 1,  # every order of magnitude
        2 * rng.integers(0, 2**30, 5000) + 1,
    ])  # fmt: skip
    quantile = NormalDist().inv_cdf
    exact = np.array([-quantile(v / 2.0**32) for v in odd.tolist()])  # half of it on either side
    for sign in (0, 1):
        found = normal_of((2 * odd + sign).astype(np.uint64) & np.uint64(0xFFFFFFFE) | np.uint64(sign))
        assert found.dtype == np.float32
        assert abs(found * (1 - 2 * sign) - exact).max() < 2e-6
    assert exact.max() > 6.2


def test_normal_numbers_use_every_bit_of_the_word_but_one():
    words = np.random.default_rng(3).integers(0, 2**32, 1000, dtype=np.uint64)
    np.testing.assert_array_equal(normal_of(words), -normal_of(words ^ np.uint64(1)))
    np.testing.assert_array_equal(normal_of(words), normal_of(words ^ np.uint64(2)))


@pytest.fixture(scope="module")
def draws():
    return normal(4_000_000, 3, seed=11, stream=2).astype(float)


def test_moments_are_those_of_the_normal_distribution(draws):
    """Each within five of its standard deviations."""
    n = draws.size
    assert abs(draws.mean()) < 5 / math.sqrt(n)
    assert abs(draws.var() - 1) < 5 * math.sqrt(2 / n)
    z = (draws - draws.mean()) / draws.std()
    assert abs((z**3).mean()) < 5 * math.sqrt(6 / n)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(24 / n)


@pytest.mark.parametrize("sign", [1, -1])
def test_tails_are_those_of_the_normal_distribution(draws, sign):
    """Counts of draws beyond up to 4.5 standard deviations, each within five standard deviations of a count."""
    for bound in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5):
        share = NormalDist().cdf(-bound)
        count = int((sign * draws > bound).sum())
        assert abs(count - share * draws.size) < 5 * math.sqrt(draws.size * share * (1 - share)), bound
    assert (sign * draws).max() > 4.5


def test_neighbours_steps_streams_and_seeds_are_uncorrelated(draws):
    n = 200_000
    first = draws[:n]
    others = [draws[lag : n + lag] for lag in (1, 2, 15, 16, 17, 32, 63, 64)]
    others += [
        normal(n, step, seed=seed, stream=stream)
        for step, seed, stream in ((4, 11, 2), (3 + 2**32, 11, 2), (3, 12, 2), (3, 11 + 2**32, 2), (3, 11, 3))
    ]
    for other in others:
        assert abs((first * other).mean()) < 5 / math.sqrt(n)
        assert abs((first**2 * other**2).mean() - 1) < 5 * math.sqrt(8 / n)


def test_noise_has_its_deviation(backend):
    x = np.full((50, 2000), 3.0, np.float32)
    (y,), run = backends.single(backend, "gaussian_noise", [x, np.array([0])], {"stddev": 0.2, "seed": 1, "stream": 0})
    run()
    assert abs(y.mean() - 3.0) < 5 * 0.2 / math.sqrt(y.size)
    assert abs(y.std() - 0.2) < 5 * 0.2 * math.sqrt(0.5 / y.size)


# Whole channels


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_spatial_dropout_drops_whole_channels_of_rows(rank, backend):
    rng = np.random.default_rng(rank)
    for channels in (1, 3, 16, 21):
        x = (1 + rng.random((7, *(4, 5, 3)[:rank], channels))).astype(np.float32)
        y = SPATIAL[rank - 1](0.4, seed=9)(x, training=True)
        kept = (y != 0).reshape(7, -1, channels)
        assert (kept == kept[:, :1]).all()  # at all places or at none
        np.testing.assert_array_equal(y[y != 0], (x * np.float32(1 / 0.6))[y != 0])
        numbers = uniform(7 * channels, 0, seed=9, stream=0).reshape(7, channels)
        np.testing.assert_array_equal(kept[:, 0], numbers >= np.float32(0.4))


def test_spatial_dropout_drops_its_share_and_keeps_the_mean(backend):
    x = np.ones((500, 2, 200), np.float32)
    attrs = {"rate": 0.3, "seed": 4, "stream": 1}
    (y,), run = backends.single(backend, "spatial_dropout", [x, np.array([5])], attrs)
    run()
    # 100,000 draws: five standard deviations of the share are 0.0073
    assert abs((y[:, 0] == 0).mean() - 0.3) < 0.0073
    assert abs(y.mean() - 1) < 0.0073 / 0.7


def test_what_is_dropped_is_zero_whatever_it_was(backend):
    x = np.tile(np.array([np.nan, np.inf, 1.0], np.float32), (60, 2, 1))
    attrs = {"rate": 0.5, "seed": 0, "stream": 0}
    (y,), run = backends.single(backend, "spatial_dropout", [x, np.array([0])], attrs)
    run()
    kept = uniform(180, 0, seed=0, stream=0).reshape(60, 1, 3) >= 0.5
    np.testing.assert_array_equal(y, np.where(kept, x * 2, 0))


# In training only

MAKE = {
    "dropout": lambda **o: Dropout(0.3, **o),
    "spatial": lambda **o: SpatialDropout1D(0.3, **o),
    "noise": lambda **o: GaussianNoise(0.5, **o),
}


@pytest.mark.parametrize("name", MAKE)
def test_layers_act_in_training_only(name, backend):
    x = np.random.default_rng(0).standard_normal((30, 4, 8)).astype(np.float32)
    y = x.reshape(30, -1)
    layer = MAKE[name]()
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer(x, training=False), x)
    assert (layer(x, training=True) != x).any()
    model = fastnn.Sequential([Input((4, 8)), MAKE[name](), Flatten()])
    model.compile("sgd", "mse")
    np.testing.assert_array_equal(model.predict(x, verbose=0), y)
    assert model.evaluate(x, y, verbose=0) == 0.0
    assert model.train_on_batch(x, y) > 0.1


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("rate", [0, 0.0])
def test_nothing_happens_at_rate_zero(name, rate):
    kind = type(MAKE[name]())
    x = np.ones((2, 3, 4))
    np.testing.assert_array_equal(kind(rate)(x, training=True), x)


def test_the_first_training_step_draws_what_the_key_says(backend):
    # y = sum of x + s z, so the loss of a row is (s * sum z)^2; the layer is stream 0, the step number 0
    x = np.arange(24, dtype=np.float32).reshape(6, 4) / 8
    model = fastnn.Sequential([
        Input((4,)), GaussianNoise(0.5, seed=77), Dense(1, use_bias=False, kernel_initializer="ones", trainable=False),
    ])  # fmt: skip
    model.compile("sgd", "mse")
    z = normal(24, 0, seed=77, stream=0).reshape(6, 4).astype(float)
    loss = model.train_on_batch(x, x.sum(axis=1, keepdims=True))
    assert loss == pytest.approx(np.mean((0.5 * z.sum(axis=1)) ** 2), rel=1e-5)
    z = normal(24, 1, seed=77, stream=0).reshape(6, 4).astype(float)  # step 1
    loss = model.train_on_batch(x, x.sum(axis=1, keepdims=True))
    assert loss == pytest.approx(np.mean((0.5 * z.sum(axis=1)) ** 2), rel=1e-5)


def test_each_layer_draws_for_itself():
    x = np.zeros((3, 40), np.float32)
    model = fastnn.Sequential([Input((40,)), GaussianNoise(1.0, seed=5), GaussianNoise(1.0, seed=5)])
    model.compile("sgd", "mse")
    first, second = (normal(120, 0, seed=5, stream=stream).astype(float) for stream in (0, 1))
    assert model.train_on_batch(x, x) == pytest.approx(np.mean((first + second) ** 2), rel=1e-5)


@pytest.mark.parametrize("name", MAKE)
def test_the_model_s_seed_decides_where_the_layer_has_none(name):
    x = np.random.default_rng(0).standard_normal((20, 4, 8)).astype(np.float32)

    def loss(model_seed, **options):
        fastnn.set_seed(model_seed)
        model = fastnn.Sequential([Input((4, 8)), MAKE[name](**options), Flatten()])
        model.compile("sgd", "mse")
        return model.train_on_batch(x, x.reshape(20, -1))

    assert loss(1) == loss(1) != loss(2)
    assert loss(1, seed=3) == loss(2, seed=3) != loss(1, seed=4)


@pytest.mark.parametrize("name", MAKE)
def test_backends_train_alike_and_any_number_of_threads(name):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((48, 4, 8)), rng.standard_normal((48, 2))
    trained = []
    for engine in engines():
        fastnn.config.set_backend(engine)
        fastnn.set_seed(6)
        model = fastnn.Sequential([Input((4, 8)), Dense(8, "tanh"), MAKE[name](), Flatten(), Dense(2)])
        model.compile("sgd", "mse")
        model.fit(x, y, epochs=2, batch_size=16, verbose=0)
        trained.append(model.get_weights())
    fastnn.config.set_backend("auto")
    for weights in trained[1:]:
        for found, wanted in zip(weights, trained[0], strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


# Kept, and misused


MADE = [Dropout(0.3), Dropout(0.3, seed=2**64 - 1), GaussianNoise(2.0, 7), *(kind(0.25, seed=1) for kind in SPATIAL)]


@pytest.mark.parametrize("layer", MADE, ids=repr)
def test_a_layer_comes_back_from_its_configuration(layer):
    config = json.loads(json.dumps(layer.get_config()))
    again = LAYERS[type(layer).__name__].from_config(config)
    assert again.get_config() == layer.get_config()


def test_a_model_of_these_layers_comes_back_from_its_file(tmp_path):
    model = fastnn.Sequential([
        Input((3, 4)), SpatialDropout1D(0.2), GaussianNoise(0.1, seed=3), Dropout(0.1), Flatten(), Dense(2)
    ])  # fmt: skip
    model.save(tmp_path / "model.safetensors")
    again = fastnn.models.load_model(tmp_path / "model.safetensors")
    assert [layer.get_config() for layer in again.layers] == [layer.get_config() for layer in model.layers]


ARGUMENTS = [
    (lambda: GaussianNoise(-0.1), "GaussianNoise: stddev must be a number >= 0. Received: stddev=-0.1"),
    (lambda: GaussianNoise(float("inf")), "GaussianNoise: stddev must be a number >= 0. Received: stddev=inf"),
    (lambda: GaussianNoise("1"), "GaussianNoise: stddev must be a number >= 0. Received: stddev='1'"),
    (lambda: SpatialDropout1D(1.0), "SpatialDropout1D: rate must be a number >= 0 and < 1. Received: rate=1.0"),
    (lambda: SpatialDropout2D(-1), "SpatialDropout2D: rate must be a number >= 0 and < 1. Received: rate=-1"),
    (lambda: SpatialDropout3D(None), "SpatialDropout3D: rate"),
    (lambda: Dropout(0.5, seed=-1), "Dropout: seed must be a non-negative integer. Received: seed=-1"),
    (lambda: Dropout(0.5, seed=2**64), f"Dropout: seed must be below 2**64. Received: seed={2**64}"),
    (lambda: GaussianNoise(0.5, seed=1.5), "GaussianNoise: seed must be a non-negative integer. Received: seed=1.5"),
]


@pytest.mark.parametrize(("make", "message"), ARGUMENTS, ids=[m for _, m in ARGUMENTS])
def test_arguments_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_rows_with_other_axes_are_refused(rank):
    message = rf"it: SpatialDropout{rank}D needs rows of {rank + 1} axes, .* Received: shape"
    for training in (None, True):
        with pytest.raises(ValueError, match=message):
            SPATIAL[rank - 1](0.5, name="it")(np.ones((2, *(3,) * rank)), training=training)

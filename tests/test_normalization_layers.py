"""BatchNormalization, LayerNormalization, GroupNormalization, against formulas written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from small_nets import assert_close, build, fit

import fastnn
from fastnn import optimizers
from fastnn.autodiff import gradients
from fastnn.backends import native, single
from fastnn.backends.numpy import Program
from fastnn.graph import Place, Tensor
from fastnn.layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    Dense,
    Flatten,
    GroupNormalization,
    Input,
    LayerNormalization,
)
from fastnn.layers.base import Training
from fastnn.models import load_model
from fastnn.ops import loss, shape
from fastnn.plan import Plan
from fastnn.regularizers import L2

NATIVE = native.isas() if native.why_not() is None else []
every_isa = pytest.mark.parametrize("isa", NATIVE)


@pytest.fixture
def threads(isa):
    """One instruction set of the native backend; threads may be set."""
    before = native.isa(), native.threads()
    native.choose_isa(isa)
    yield fastnn.set_num_threads
    native.choose_isa(before[0])
    native.set_threads(before[1])


def rows(*sizes, seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    return (mean + rng.uniform(0.3, 3.0, sizes[-1]) * rng.standard_normal(sizes)).astype(np.float32)


def standardized(x, axes, epsilon=1e-3):
    """``(x - mean) / sqrt(variance + epsilon)`` over these axes, in double precision."""
    x = x.astype(np.float64)
    mean = x.sum(axis=axes, keepdims=True) / np.prod([x.shape[axis] for axis in axes])
    variance = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon)


def grouped(x, groups, epsilon=1e-3):
    """The same for groups of channels of each row."""
    parts = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    return standardized(parts, (1, 3), epsilon).reshape(x.shape)


def alone(layer, x):
    """A compiled model of this layer alone, with a squared error, and with gamma and beta that are not 1 and 0."""
    model = fastnn.Sequential([Input(x.shape[1:]), layer, Flatten()])
    model.compile(optimizers.SGD(1.0), "mse")
    model.build()
    rng = np.random.default_rng(3)
    for weight in layer.weights:
        if weight.trainable:
            weight.assign(rng.uniform(0.5, 2.0, weight.shape))
    return model


def parameters(layer):
    """gamma and beta of the layer as double precision, 1 and 0 where it has none."""
    found = {weight.name.rpartition(".")[2]: weight.value.astype(np.float64) for weight in layer.weights}
    return found.get("gamma", 1.0), found.get("beta", 0.0)


SHAPES = [(37, 5), (9, 11, 16), (6, 5, 7, 3), (4, 3, 4, 5, 8)]


# Values


@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize(("center", "scale"), [(True, True), (False, True), (True, False), (False, False)])
def test_layers_give_what_their_formulas_say(backend, sizes, center, scale):
    x = rows(*sizes, mean=1.0)
    everything = tuple(range(1, len(sizes)))
    options = {"center": center, "scale": scale}
    for layer, wanted in (
        (BatchNormalization(**options), x.astype(np.float64) / np.sqrt(1.001)),
        (LayerNormalization(**options), standardized(x, (-1,))),
        (LayerNormalization(axis=everything, epsilon=0.1, **options), standardized(x, everything, 0.1)),
        (GroupNormalization(1, **options), grouped(x, 1)),
        (GroupNormalization(-1, **options), grouped(x, sizes[-1])),
        (GroupNormalization(sizes[-1], epsilon=1.0, **options), grouped(x, sizes[-1], 1.0)),
    ):
        model = alone(layer, x)
        gamma, beta = parameters(layer)
        wanted = (gamma * wanted + beta).reshape(len(x), -1)
        np.testing.assert_allclose(model.predict(x), wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(model(x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 3, 6, 12])
def test_groups_are_of_neighbouring_channels(backend, groups):
    x = rows(3, 4, 5, 12, mean=2.0)
    model = alone(GroupNormalization(groups, center=False, scale=False), x)
    np.testing.assert_allclose(model.predict(x), grouped(x, groups).reshape(3, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", SHAPES)
def test_batches_are_normalized_with_their_own_moments_in_training_only(sizes):
    x = rows(*sizes, mean=3.0)
    axes = tuple(range(len(sizes) - 1))
    layer = BatchNormalization(momentum=0.9)
    np.testing.assert_allclose(layer(x), x / np.sqrt(1.001), rtol=1e-6)
    np.testing.assert_allclose(layer(x, training=True), standardized(x, axes), rtol=1e-4, atol=1e-5)
    moved = layer.get_weights()[2:]
    np.testing.assert_allclose(moved[0], 0.1 * x.mean(axis=axes), rtol=1e-5)
    np.testing.assert_allclose(moved[1], 0.9 + 0.1 * x.var(axis=axes), rtol=1e-5)
    after = (x - moved[0]) / np.sqrt(moved[1] + 1e-3)
    np.testing.assert_allclose(layer(x), after, rtol=1e-4, atol=1e-5)


# Training


def slopes(x, g, gamma, epsilon=1e-3):
    """The gradients by x, gamma and beta of batch normalization, as Ioffe & Szegedy write them on their page 4."""
    x, g = x.astype(np.float64).reshape(-1, x.shape[-1]), g.reshape(-1, x.shape[-1])
    m, mean, variance = len(x), x.mean(axis=0), x.var(axis=0)
    root = np.sqrt(variance + epsilon)
    d_hat = g * gamma
    d_variance = (d_hat * (x - mean)).sum(axis=0) * -0.5 * root**-3
    d_mean = (d_hat * -1.0 / root).sum(axis=0) + d_variance * (-2.0 * (x - mean)).sum(axis=0) / m
    dx = d_hat / root + d_variance * 2.0 * (x - mean) / m + d_mean / m
    return dx, (g * (x - mean) / root).sum(axis=0), g.sum(axis=0)


@pytest.mark.parametrize("sizes", [(24, 6), (10, 4, 3, 17)])
def test_a_training_step_follows_the_gradients_of_the_paper(backend, sizes):
    x, y = rows(*sizes, mean=1.0), rows(sizes[0], int(np.prod(sizes[1:-1])) * 5, seed=1)
    fastnn.set_seed(2)
    layer, dense = BatchNormalization(momentum=0.8), Dense(5, use_bias=False)
    model = fastnn.Sequential([Input(sizes[1:]), dense, layer, Flatten()])
    model.compile(optimizers.SGD(1.0), "mse")
    model.build()
    layer.gamma.assign(np.linspace(0.5, 2.0, 5))
    kernel, gamma, beta, *_ = (w.astype(np.float64) for w in model.get_weights())
    flat = x.astype(np.float64).reshape(-1, sizes[-1])
    hidden = flat @ kernel
    g = 2.0 * (gamma * standardized(hidden, (0,)) + beta - y.reshape(hidden.shape)) / y.size
    dx, d_gamma, d_beta = slopes(hidden, g, gamma)
    model.train_on_batch(x, y)
    wanted = [kernel - flat.T @ dx, gamma - d_gamma, beta - d_beta]
    wanted += [0.2 * hidden.mean(axis=0), 0.8 + 0.2 * hidden.var(axis=0)]
    for actual, value in zip(model.get_weights(), wanted, strict=True):
        np.testing.assert_allclose(actual, value, rtol=1e-5, atol=1e-6)


LAYERS = [
    lambda: BatchNormalization(),
    lambda: BatchNormalization(epsilon=0.1, scale=False),
    lambda: BatchNormalization(trainable=False),
    lambda: LayerNormalization(),
    lambda: LayerNormalization(axis=(1, 2), center=False),
    lambda: GroupNormalization(2),
    lambda: GroupNormalization(-1, scale=False),
]


@pytest.mark.parametrize("make", LAYERS)
def test_gradients_through_a_layer_are_the_slopes_of_its_loss(make):
    """Central differences; the second, twice as long step tells how far they are off."""
    rng = np.random.default_rng(5)
    layer, sizes = make(), (4, 3, 6)
    layer.prepare((None, *sizes[1:]))
    x, target = Tensor((None, *sizes[1:]), place=Place("x")), Tensor((None, 18), place=Place("y"))
    values = {"x": rng.normal(1.0, 2.0, sizes), "y": rng.standard_normal((4, 18))}
    for weight in layer.weights:
        weight.tensor.place = Place(weight.name)
        values[weight.name] = rng.uniform(0.5, 2.0, weight.shape)
    outcome = layer.call(x, Training(0, None))
    found = loss.mean_squared_error(shape.reshape(outcome, shape=(18,)), target)
    leaves = [x, *(weight.tensor for weight in layer.weights if weight.trainable)]
    slopes_found = gradients(found, leaves)
    roots = [found, *slopes_found]
    for number, root in enumerate(roots):
        root.place = Place(f"out{number}")
    program = Program(Plan(roots, batch=4, dtype="float64"))

    def run(values):
        buffers = {name: value.copy() for name, value in values.items()}
        results = [np.empty([4 if size is None else size for size in root.shape]) for root in roots]
        buffers |= {f"out{number}": result for number, result in enumerate(results)}
        program.run(buffers, 0, 1, 4, 4)
        return results

    for leaf, slope in zip(leaves, run(values)[1:], strict=True):
        name = leaf.place.buffer
        d = rng.standard_normal(values[name].shape)

        def along(step, name=name, d=d):
            return run({**values, name: values[name] + step * d})[0].mean()

        fine, coarse = ((along(h) - along(-h)) / (2 * h) for h in (1e-4, 2e-4))
        assert abs((slope * d).sum() - fine) <= abs(coarse - fine) + 1e-10, name


def test_moving_averages_follow_the_batches_and_serve_testing(backend):
    x, y = rows(50, 4, seed=6, mean=5.0), rows(50, 4, seed=7)
    layer = BatchNormalization(momentum=0.7, center=False, scale=False)
    model = alone(layer, x)
    model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)  # batches of 16, 16, 16 and 2
    mean, variance = np.zeros(4), np.ones(4)
    for start in (0, 16, 32, 48) * 2:
        batch = x[start : start + 16].astype(np.float64)
        mean, variance = 0.7 * mean + 0.3 * batch.mean(axis=0), 0.7 * variance + 0.3 * batch.var(axis=0)
    np.testing.assert_allclose(model.get_weights(), [mean, variance], rtol=1e-5)
    wanted = (x - mean) / np.sqrt(variance + 1e-3)
    np.testing.assert_allclose(model.predict(x), wanted, rtol=1e-4, atol=1e-5)
    assert model.evaluate(x, y) == pytest.approx(np.mean((wanted - y) ** 2), rel=1e-5)
    kept = model.get_weights()
    model.evaluate(x, y)
    model.predict(x)
    model(x)
    np.testing.assert_array_equal(model.get_weights(), kept)


def test_a_frozen_layer_works_with_its_moving_averages_and_keeps_them(backend):
    x, y = rows(30, 6), rows(30, 1, seed=1)
    model = build(Dense(5), BatchNormalization(name="norm"), Dense(1), loss="mse")
    fit(model, x, y, epochs=2)
    model.get_layer("norm").trainable = False
    kept = model.get_layer("norm").get_weights()
    expected = model.evaluate(x, y)
    history = fit(model, x, y, epochs=1, batch_size=30).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-6)  # of the step's start: the loss of inference
    for before, after in zip(kept, model.get_layer("norm").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    model.get_layer("norm").trainable = True
    fit(model, x, y, epochs=1)
    assert all((a != b).any() for a, b in zip(kept, model.get_layer("norm").get_weights(), strict=True))


def test_a_frozen_layer_takes_rows_by_themselves_when_called_in_training():
    x = rows(8, 3)
    layer = BatchNormalization(trainable=False)
    np.testing.assert_array_equal(layer(x, training=True), layer(x))
    np.testing.assert_array_equal(layer.get_weights()[2], np.zeros(3))


def test_moving_averages_move_where_nothing_is_trained(backend):
    x = rows(20, 4, mean=2.0)
    layer = BatchNormalization(momentum=0.5, center=False, scale=False)
    model = alone(layer, x)
    model.fit(x, x, batch_size=20, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], 0.5 * x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.predict(x), (x - layer.get_weights()[0]) / np.sqrt(layer.get_weights()[1] + 1e-3),
                               rtol=1e-4, atol=1e-5)  # fmt: skip


def test_a_layer_called_twice_moves_its_averages_twice(backend):
    x = rows(16, 3, mean=4.0)
    layer, inputs = BatchNormalization(momentum=0.5, center=False, scale=False), Input((3,))
    model = fastnn.Model(inputs, layer(Activation("relu")(layer(inputs))))
    model.compile("sgd", "mse")
    model.fit(x, x, batch_size=16, verbose=0)
    first = x.mean(axis=0, dtype=np.float64)
    second = np.maximum(standardized(x, (0,)), 0.0).mean(axis=0)
    np.testing.assert_allclose(model.get_weights()[0], 0.25 * first + 0.5 * second, rtol=1e-5)


def test_penalties_on_gamma_and_beta_are_part_of_the_loss(backend):
    x = rows(12, 3)
    layer = BatchNormalization(gamma_regularizer=L2(0.1), beta_regularizer="l2")
    model = alone(layer, x)
    gamma, beta = parameters(layer)
    squared = np.mean((model.predict(x) - x) ** 2)
    wanted = squared + 0.1 * np.sum(gamma**2) + 0.01 * np.sum(beta**2)
    assert model.evaluate(x, x) == pytest.approx(wanted, rel=1e-5)


def network(sizes=(8, 9, 3)):
    """Convolutions with each kind of normalization, and activations to fuse."""
    fastnn.set_seed(11)
    model = fastnn.Sequential([
        Input(sizes), Conv2D(8, 3, use_bias=False), BatchNormalization(momentum=0.6), Activation("relu"),
        Conv2D(12, 3, padding="same"), BatchNormalization(scale=False), Activation("tanh"),
        Conv2D(8, 1), GroupNormalization(4), Activation("relu"), LayerNormalization(axis=(1, 2, 3)),
        Flatten(), BatchNormalization(), Activation("relu"), Dense(3, activation="softmax"),
    ])  # fmt: skip
    model.compile(optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(12)
    x = rng.normal(1.0, 2.0, (40, *sizes)).astype(np.float32)
    return model, x, np.digitize(x[:, 0, 0, 0], (0.0, 2.0))


def test_backends_train_alike():
    losses, predictions = [], []
    for name in [n for n in fastnn.backends.NAMES if fastnn.backends.load(n).why_not() is None]:
        fastnn.config.set_backend(name)
        model, x, y = network()
        losses.append(model.fit(x, y, batch_size=16, epochs=3, validation_split=0.2, verbose=0).history)
        predictions.append(model.predict(x))
    fastnn.config.set_backend("auto")
    for history, predicted in zip(losses[1:], predictions[1:], strict=True):
        np.testing.assert_allclose(history["loss"], losses[0]["loss"], rtol=1e-3)
        np.testing.assert_allclose(history["val_loss"], losses[0]["val_loss"], rtol=1e-3)
        np.testing.assert_allclose(predicted, predictions[0], rtol=1e-2, atol=1e-3)


def test_training_learns(backend):
    model, x, y = network()
    first = model.evaluate(x, y)[0]
    model.fit(x, y, batch_size=8, epochs=12, verbose=0)
    assert model.evaluate(x, y)[0] < 0.6 * first


# The same bits


def large():
    """Sizes at which threads share the steps."""
    fastnn.set_seed(4)
    model = fastnn.Sequential([
        Input((40, 41, 3)), BatchNormalization(), Conv2D(24, 3), BatchNormalization(), Activation("relu"),
        Conv2D(16, 1), GroupNormalization(4), LayerNormalization(), Activation("relu"), Conv2D(1, 38), Flatten(),
    ])  # fmt: skip
    model.compile("adam", "mse")
    rng = np.random.default_rng(9)
    x = rng.normal(2.0, 3.0, (11, 40, 41, 3)).astype(np.float32)
    return model, x, rng.standard_normal((11, 2))


@every_isa
def test_training_gives_the_same_bits_for_any_number_of_threads(isa, threads):
    results = []
    for count in (1, 2, 3):
        threads(count)
        model, x, y = large()
        model.fit(x, y, batch_size=4, epochs=2, verbose=0)
        results.append([w.tobytes() for w in model.get_weights()] + [model.predict(x).tobytes()])
    assert results[0] == results[1] == results[2]


@every_isa
def test_a_prediction_has_the_same_bits_whoever_shares_the_batch(isa, threads):
    for make in (network, large):
        model, x, y = make()
        model.fit(x, y, batch_size=8, verbose=0)
        whole = model.predict(x)
        for row in range(len(x)):
            assert model.predict(x[row : row + 1]).tobytes() == whole[row : row + 1].tobytes(), row
        assert model(x[3:9]).tobytes() == whole[3:9].tobytes()


# Hard numbers


@pytest.mark.parametrize("sizes", [(1, 5), (1, 1, 1, 3)])
def test_a_batch_of_one_number_a_channel_becomes_beta(backend, sizes):
    x = rows(*sizes, mean=100.0)
    layer = BatchNormalization(momentum=0.5)
    model = alone(layer, x)
    _, beta = parameters(layer)
    loss_before = np.mean((np.broadcast_to(beta, x.shape) - x) ** 2, dtype=np.float64)
    assert model.fit(x, x.reshape(1, -1), verbose=0).history["loss"][0] == pytest.approx(loss_before, rel=1e-5)
    np.testing.assert_allclose(layer.get_weights()[2], 0.5 * x.reshape(-1), rtol=1e-6)
    np.testing.assert_array_equal(layer.get_weights()[3], np.full(sizes[-1], 0.5))


@pytest.mark.parametrize("value", [0.0, 1000.1, -3e-5, 1e30])
@pytest.mark.parametrize("sizes", [(7, 4), (40, 9, 3), (20, 30, 20)])
def test_constant_channels_have_variance_zero(backend, value, sizes):
    x = np.full(sizes, value, np.float32)
    for layer in (BatchNormalization(momentum=0.0), LayerNormalization(), GroupNormalization(1)):
        model = alone(layer, x)
        model.fit(x, np.zeros((len(x), x[0].size)), batch_size=len(x), verbose=0)
        assert all(np.isfinite(w).all() for w in model.get_weights())
        if isinstance(layer, BatchNormalization):
            np.testing.assert_array_equal(layer.get_weights()[3], np.zeros(sizes[-1]))
        _, beta = parameters(layer)
        predicted = model.predict(x).reshape(sizes)
        # what is left of a mean that is off by one unit in its last place
        bound = 2.0 * np.spacing(np.float32(abs(value))) / np.sqrt(1e-3)
        assert (abs(predicted - beta) <= bound + 1e-6 * abs(beta)).all()


@pytest.mark.parametrize("sizes", [(300, 7), (12, 30, 33), (6, 20, 21, 2)])
def test_a_large_mean_does_not_drown_the_variance(backend, sizes):
    x = rows(*sizes, seed=2)
    x = (x + np.float32(4096.0)).astype(np.float32)
    axes = tuple(range(len(sizes) - 1))
    exact = x.astype(np.float64)
    layer = BatchNormalization(momentum=0.0)
    model = alone(layer, x)
    model.fit(x, np.zeros((len(x), x[0].size)), batch_size=len(x), verbose=0)
    np.testing.assert_allclose(layer.get_weights()[2], exact.mean(axis=axes), rtol=1e-7)
    np.testing.assert_allclose(layer.get_weights()[3], exact.var(axis=axes), rtol=1e-5)
    for other, wanted in ((LayerNormalization(), standardized(x, (-1,))), (GroupNormalization(1), grouped(x, 1))):
        model = alone(other, x)
        gamma, beta = parameters(other)
        # a mean of 4096 is rounded to 2^-12, half of which is lost; deviations are exact
        bound = 2.0**-12 * 2.0 / np.sqrt(exact.var(axis=-1).min() + 1e-3)
        assert abs(model.predict(x).reshape(sizes) - (gamma * wanted + beta)).max() <= bound


def test_an_outlier_at_the_start_does_not_drown_the_variance(backend):
    x = rows(4096, 3, seed=8)
    x[0] = 1e4
    layer = BatchNormalization(momentum=0.0)
    alone(layer, x).fit(x, x, batch_size=len(x), shuffle=False, verbose=0)
    np.testing.assert_allclose(layer.get_weights()[3], x.astype(np.float64).var(axis=0), rtol=1e-5)


def computed(backend, name, *arrays, **attrs):
    outputs, run = single(backend, name, arrays, attrs)
    run()
    return outputs[0]


@pytest.mark.parametrize("channels", [1, 3, 8, 17, 64])
def test_nan_stays_in_its_channel_or_row(backend, channels):
    clean, g = rows(40, 3, channels), rows(40, 3, channels, seed=1)
    dirty = clean.copy()
    dirty[7, 1, channels // 2] = np.nan
    vectors = np.ones(channels), np.zeros(channels)
    epsilon = {"epsilon": 1e-3}

    def batch(x):
        m = computed(backend, "moments", x)
        sums = computed(backend, "batch_norm_sums", g, x, m, **epsilon)
        y = computed(backend, "batch_norm", x, m, *vectors, **epsilon)
        return y, computed(backend, "batch_norm_dx", g, x, m, vectors[0], sums, **epsilon)

    def layer(x):
        y = computed(backend, "layer_norm", x, *vectors, **epsilon)
        return y, computed(backend, "layer_norm_dx", g, x, vectors[0], **epsilon)

    def group(x):
        m = computed(backend, "group_moments", x, groups=channels)
        sums = computed(backend, "group_norm_sums", g, x, m, **epsilon)
        y = computed(backend, "group_norm", x, m, *vectors, **epsilon)
        return y, computed(backend, "group_norm_dx", g, x, m, vectors[0], sums, **epsilon)

    for run, axes in ((batch, (0, 1)), (layer, (2,)), (group, (1,))):
        lost = np.broadcast_to(np.isnan(dirty).any(axis=axes, keepdims=True), dirty.shape)
        for with_nan, without in zip(run(dirty), run(clean), strict=True):
            assert np.isnan(with_nan[lost]).all()
            np.testing.assert_array_equal(with_nan[~lost], without[~lost])


@pytest.mark.parametrize(("sizes", "groups"), [((2, 2048), 1024), ((3, 2, 2050), 5), ((1, 1, 6), 3), ((2, 3), 3)])
def test_outputs_as_large_as_the_moments_or_sums_do_not_write_over_them(backend, sizes, groups):
    x = rows(*sizes)
    trained = []
    for name in (backend, "numpy"):
        fastnn.config.set_backend(name)
        fastnn.set_seed(1)
        layers = BatchNormalization(), GroupNormalization(groups, center=False), Flatten(), Dense(1)
        model = fastnn.Sequential([Input(sizes[1:]), *layers])
        model.compile(optimizers.SGD(0.1), "mse")
        model.fit(x, np.ones((len(x), 1)), batch_size=len(x), verbose=0)
        trained.append(model)
    assert_close(*trained, 1e-4)


# Weights, arguments, files


def test_weights_are_keras_and_in_its_order():
    model = build(BatchNormalization(name="a"), LayerNormalization(name="b"), GroupNormalization(3, name="c"))
    names = [weight.name for weight in model.weights]
    own = ["a.gamma", "a.beta", "a.moving_mean", "a.moving_variance"]
    assert names == [*own, "b.gamma", "b.beta", "c.gamma", "c.beta"]
    assert [weight.shape for weight in model.weights] == [(6,)] * 8
    assert [weight.name for weight in model.trainable_weights] == [n for n in names if "moving" not in n]
    for weight in model.weights:
        one = weight.name.endswith(("gamma", "variance"))
        np.testing.assert_array_equal(weight.value, np.full(6, float(one)))
    lines = []
    model.summary(print_fn=lines.append)
    assert "48 weights" in lines[0]
    assert "36 of them trained" in lines[0]
    plain = BatchNormalization(center=False, scale=False)
    plain(np.ones((2, 5)))
    assert [weight.name.rpartition(".")[2] for weight in plain.weights] == ["moving_mean", "moving_variance"]
    image = LayerNormalization(axis=(2, 3))
    image(np.ones((2, 3, 4, 5)))
    assert [weight.shape for weight in image.weights] == [(4, 5)] * 2


def test_defaults_are_those_of_keras():
    config = BatchNormalization(name="n").get_config()
    assert {key: config[key] for key in ("axis", "momentum", "epsilon", "center", "scale")} == {
        "axis": -1, "momentum": 0.99, "epsilon": 0.001, "center": True, "scale": True,
    }  # fmt: skip
    assert LayerNormalization().epsilon == GroupNormalization().epsilon == 0.001
    assert GroupNormalization().groups == 32


CONFIGURED = [
    lambda: BatchNormalization(
        axis=3, momentum=0.5, epsilon=0.25, center=False, scale=False, beta_initializer="ones",
        gamma_initializer=fastnn.initializers.Constant(0.5), moving_mean_initializer="ones",
        moving_variance_initializer="zeros", beta_regularizer="l1", gamma_regularizer=L2(0.3), trainable=False,
        name="norm",
    ),
    lambda: LayerNormalization(axis=[1, 2, 3], epsilon=0.5, gamma_regularizer="l2", beta_initializer="ones"),
    lambda: LayerNormalization(axis=(-2, -1), center=False),
    lambda: GroupNormalization(-1, axis=-1, scale=False, beta_regularizer=L2(0.5)),
]  # fmt: skip


@pytest.mark.parametrize("make", CONFIGURED)
def test_a_configuration_gives_the_same_layer(make):
    layer = make()
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    x = rows(2, 3, 4, 6)
    np.testing.assert_array_equal(again(x), layer(x))


def test_files_keep_the_moving_averages(tmp_path, backend):
    model, x, y = network()
    model.fit(x, y, batch_size=16, verbose=0)
    model.save(tmp_path / "model.fnn")
    again = load_model(tmp_path / "model.fnn")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert again.get_config() == model.get_config()
    model.fit(x, y, batch_size=16, verbose=0)
    again.fit(x, y, batch_size=16, verbose=0)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_float64_models_have_float64_averages():
    x, y = rows(30, 6), rows(30, 2, seed=1)
    fastnn.config.set_backend("numpy")
    fastnn.config.set_floatx("float64")
    try:
        double = build(Dense(4), BatchNormalization(), LayerNormalization(), Dense(2), loss="mse")
        fit(double, x, y, epochs=2)
        assert {w.dtype for w in double.get_weights()} == {np.dtype(np.float64)}
    finally:
        fastnn.config.set_floatx("float32")
        fastnn.config.set_backend("auto")
    single = build(Dense(4), BatchNormalization(), LayerNormalization(), Dense(2), loss="mse")
    fit(single, x, y, epochs=2)
    assert_close(single, double, 1e-4)


BAD = [
    (lambda: BatchNormalization(axis=None), "BatchNormalization: axis must be an integer", "axis=None"),
    (lambda: BatchNormalization(axis=True), "BatchNormalization: axis must be an integer", "axis=True"),
    (lambda: BatchNormalization(axis=[3]), "BatchNormalization: axis must be an integer", "axis=[3]"),
    (lambda: BatchNormalization(momentum=1.5), "BatchNormalization: momentum must be a number", "momentum=1.5"),
    (lambda: BatchNormalization(momentum=-0.1), "BatchNormalization: momentum", "momentum=-0.1"),
    (lambda: BatchNormalization(momentum=float("nan")), "BatchNormalization: momentum", "nan"),
    (lambda: BatchNormalization(epsilon=0.0), "BatchNormalization: epsilon must be a number > 0", "epsilon=0.0"),
    (lambda: BatchNormalization(epsilon="small"), "BatchNormalization: epsilon", "epsilon='small'"),
    (lambda: BatchNormalization(gamma_initializer="wide"), "BatchNormalization: gamma_initializer", "'wide'"),
    (lambda: BatchNormalization(moving_mean_initializer=1), "BatchNormalization: moving_mean_initializer", "1"),
    (lambda: BatchNormalization(moving_variance_initializer=1), "BatchNormalization: moving_variance_initializer", "1"),
    (lambda: BatchNormalization(beta_regularizer="l3"), "BatchNormalization: beta_regularizer", "'l3'"),
    (lambda: LayerNormalization(axis=1.5), "LayerNormalization: axis must be an integer or several", "axis=1.5"),
    (lambda: LayerNormalization(axis=()), "LayerNormalization: axis", "axis=()"),
    (lambda: LayerNormalization(axis=(-1, -1)), "LayerNormalization: axis", "axis=(-1, -1)"),
    (lambda: LayerNormalization(axis="last"), "LayerNormalization: axis", "axis='last'"),
    (lambda: LayerNormalization(epsilon=-1e-3), "LayerNormalization: epsilon", "epsilon=-0.001"),
    (lambda: GroupNormalization(0), "GroupNormalization: groups must be a positive integer", "groups=0"),
    (lambda: GroupNormalization(-2), "GroupNormalization: groups", "groups=-2"),
    (lambda: GroupNormalization(2.0), "GroupNormalization: groups", "groups=2.0"),
    (lambda: GroupNormalization(2, axis="C"), "GroupNormalization: axis", "axis='C'"),
]

LAST = "needs the channels in the last axis"
UNFIT = [
    (BatchNormalization(axis=1, name="n"), (2, 3, 4), f"n: BatchNormalization {LAST}", "axis=1"),
    (BatchNormalization(axis=-2, name="n"), (2, 3, 4), "n: BatchNormalization", "axis=-2"),
    (BatchNormalization(name="n"), (3,), "n: BatchNormalization needs rows (batch, ..., channels)", "(None,)"),
    (GroupNormalization(2, axis=1, name="n"), (2, 3, 4), f"n: GroupNormalization {LAST}", "axis=1"),
    (GroupNormalization(name="n"), (2, 3, 48), "n: GroupNormalization needs channels that groups divide", "groups=32"),
    (GroupNormalization(8, name="n"), (2, 4), "n: GroupNormalization", "groups=8", "(None, 4)"),
    (LayerNormalization(axis=1, name="n"), (2, 3, 4), "n: LayerNormalization needs axis to be the last axes", "axis=1"),
    (LayerNormalization(axis=(0, 1, 2), name="n"), (2, 3, 4), "n: LayerNormalization", "axis=(0, 1, 2)"),
    (LayerNormalization(axis=(-4, -1), name="n"), (2, 3, 4), "n: LayerNormalization", "axis=(-4, -1)"),
]


def refused(call, parts):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    message = str(caught.value)
    assert "Received: " in message
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(("call", "parts"), [(entry[0], entry[1:]) for entry in BAD])
def test_bad_arguments_are_refused(call, parts):
    refused(call, parts)


@pytest.mark.parametrize(("layer", "sizes", "parts"), [(entry[0], entry[1], entry[2:]) for entry in UNFIT])
def test_inputs_that_do_not_fit_are_refused(layer, sizes, parts):
    refused(lambda: layer(np.ones(sizes)), parts)
    assert layer.weights == []


def test_rows_of_another_shape_are_refused():
    layer = BatchNormalization(name="norm")
    layer(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"norm: was built for inputs of shape \(None, 3\)"):
        layer(np.ones((2, 4)))

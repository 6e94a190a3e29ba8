"""Activations that are layers: against their formulas, by hand, trained, saved, and misused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from test_autodiff import assert_gradients_right

import fastnn
from fastnn import regularizers
from fastnn.layers import ELU, LAYERS, Dense, Flatten, Input, LeakyReLU, PReLU, ReLU, Softmax

NAN, INF = float("nan"), float("inf")


def results(layer, x):
    """What the layer gives called on the array, and in a model."""
    model = fastnn.Sequential([Input(x.shape[1:]), layer])
    return model.predict(x, verbose=0), layer(x)


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-6)


# Against formulas


def relu_formula(v, limit, slope, threshold):
    """Keras's: f(x) = max_value if x >= max_value, x if threshold < x, else negative_slope * (x - threshold)."""
    if v > threshold:
        return v if limit is None else min(v, limit)
    return slope * (v - threshold)


def test_relu_follows_its_formula_for_random_arguments(backend):
    rng = np.random.default_rng(1)
    x = (3 * rng.standard_normal((5, 37))).astype(np.float32)
    for _ in range(20):
        limit = float(rng.choice([0.0, 0.5, 2.0, 6.0])) if rng.random() < 0.6 else None
        slope, threshold = float(rng.choice([0.0, 0.25, 1.5])), float(rng.choice([0.0, 0.75, 1.0]))
        wanted = [[relu_formula(float(v), limit, slope, threshold) for v in row] for row in x]
        for y in results(ReLU(limit, slope, threshold), x):
            close(y, wanted)


@pytest.mark.parametrize(
    ("make", "formula"),
    [
        (lambda: ReLU(), lambda v: max(v, 0.0)),
        (lambda: ReLU(6), lambda v: min(max(v, 0.0), 6.0)),
        (lambda: LeakyReLU(), lambda v: v if v > 0 else 0.3 * v),
        (lambda: LeakyReLU(0), lambda v: max(v, 0.0)),
        (lambda: ELU(), lambda v: v if v > 0 else math.expm1(v)),
        (lambda: ELU(0.5), lambda v: v if v > 0 else 0.5 * math.expm1(v)),
        (lambda: PReLU(), lambda v: max(v, 0.0)),
        (lambda: PReLU("ones"), lambda v: v),
    ],
)
@pytest.mark.parametrize("shape", [(4, 1), (3, 5, 17), (2, 3, 4, 3), (2, 2, 3, 2, 9)])
def test_layers_follow_their_formulas_on_rows_of_any_shape(make, formula, shape, backend):
    x = (3 * np.random.default_rng(2).standard_normal(shape)).astype(np.float32)
    wanted = np.vectorize(formula)(x.astype(float))
    for y in results(make(), x):
        close(y, wanted)


@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 3), (2, 3, 4, 17), (2, 2, 3, 4, 5)])
def test_softmax_sums_to_one_along_its_axis(shape, backend):
    x = (4 * np.random.default_rng(3).standard_normal(shape)).astype(np.float32)
    for axis in range(1, len(shape)):
        e = np.exp(x.astype(float) - x.max(axis=axis, keepdims=True))
        wanted = e / e.sum(axis=axis, keepdims=True)
        for name in (axis, axis - len(shape)):
            for y in results(Softmax(name), x):
                assert y.shape == shape
                close(y, wanted)


def test_slopes_are_shared_along_the_axes_that_are_named(backend):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((3, 4, 5, 6)).astype(np.float32)
    for shared, shape in (
        (None, (4, 5, 6)), ((1, 2), (1, 1, 6)), ([3], (4, 5, 1)), ((1, 2, 3), (1, 1, 1)), (2, (4, 1, 6)),
        ((1, 3), (1, 5, 1)),
    ):  # fmt: skip
        layer = PReLU(shared_axes=shared)
        results(layer, x)
        assert layer.weights[0].shape == shape
        alpha = rng.standard_normal(shape).astype(np.float32)
        layer.set_weights([alpha])
        model = fastnn.Sequential([Input((4, 5, 6)), PReLU(shared_axes=shared)])
        model.set_weights([alpha])
        for y in (layer(x), model.predict(x, verbose=0)):
            close(y, np.where(x > 0, x, alpha * x))


def test_nan_comes_through_and_infinity_has_its_limit(backend):
    x = np.array([[NAN, INF, -INF, 1.0, -1.0]], np.float32)
    for layer, wanted in (
        (ReLU(), [NAN, INF, 0, 1, 0]),
        (ReLU(2.0), [NAN, 2, 0, 1, 0]),
        (ReLU(2.0, 0.5, 0.25), [NAN, 2, -INF, 1, -0.625]),
        (ReLU(None, 0.0, 0.5), [NAN, INF, 0, 1, 0]),
        (LeakyReLU(0.5), [NAN, INF, -INF, 1, -0.5]),
        (LeakyReLU(0.0), [NAN, INF, 0, 1, 0]),
        (ELU(), [NAN, INF, -1, 1, math.expm1(-1)]),
        (PReLU("ones"), [NAN, INF, -INF, 1, -1]),
    ):
        with np.errstate(invalid="ignore"):
            close(layer(x), [wanted])
            layer_in_model = fastnn.Sequential([Input((5,)), type(layer).from_config(layer.get_config())])
            close(layer_in_model(x), [wanted])


# By hand


def test_a_slope_learns_by_hand(backend):
    # y = alpha x = -1 for x = -2, alpha = 0.5; loss y^2 = 1; d/dalpha = 2 y x = 4; alpha - 0.1 * 4 = 0.1
    model = fastnn.Sequential([Input((1,)), PReLU(alpha_initializer=fastnn.initializers.Constant(0.5))])
    model.compile(fastnn.optimizers.SGD(0.1), "mse")
    assert model.train_on_batch([[-2.0]], [[0.0]]) == pytest.approx(1.0)
    close(model.get_weights()[0], [0.1])
    # where x is positive, alpha has no part in it
    model.train_on_batch([[3.0]], [[0.0]])
    close(model.get_weights()[0], [0.1])


def test_a_penalty_on_slopes_is_part_of_the_loss(backend):
    model = fastnn.Sequential([Input((3,)), PReLU("ones", alpha_regularizer=regularizers.L2(0.5))])
    model.compile(fastnn.optimizers.SGD(0.1), "mse")
    # 0.5 * 3 for the penalty, whose slope 2 * 0.5 * 1 moves alpha to 0.9
    assert model.train_on_batch([[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]]) == pytest.approx(1.5)
    close(model.get_weights()[0], [0.9] * 3)


def test_a_frozen_slope_stays(backend):
    model = fastnn.Sequential([Input((3,)), Dense(3), PReLU("ones", trainable=False)])
    model.compile("sgd", "mse")
    model.fit(-np.ones((4, 3)), np.ones((4, 3)), verbose=0)
    np.testing.assert_array_equal(model.get_weights()[-1], np.ones(3))


# In networks

CASES = {
    "relu": lambda: ReLU(),
    "bounded": lambda: ReLU(0.7, 0.2, 0.1),
    "leaky": lambda: LeakyReLU(),
    "elu": lambda: ELU(0.7),
    "softmax": lambda: Softmax(2),
    "a slope for each place": lambda: PReLU("glorot_uniform"),
    "a slope for each channel": lambda: PReLU("glorot_uniform", shared_axes=(1, 2)),
    "a slope for each line": lambda: PReLU("glorot_uniform", shared_axes=(2, 3)),
    "a slope for each line and channel": lambda: PReLU("glorot_uniform", shared_axes=2),
    "one slope": lambda: PReLU("ones", shared_axes=(1, 2, 3)),
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
    return fastnn.Sequential([Input((4, 5, 3)), Dense(6), make(), Flatten(), Dense(2)])


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("name", CASES)
def test_gradients_through_each_layer_are_the_slopes_of_the_loss(name):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((5, 4, 5, 3)), rng.standard_normal((5, 2))
    assert_gradients_right(network(CASES[name]), "mse", x, y)


@pytest.mark.parametrize("name", CASES)
def test_backends_train_alike(name):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((40, 4, 5, 3)), rng.standard_normal((40, 2))
    trained = {}
    for backend in ("native", "numba", "numpy"):
        if fastnn.backends.load(backend).why_not() is None:
            fastnn.config.set_backend(backend)
            model = network(CASES[name])
            model.compile("sgd", "mse")
            model.fit(x, y, epochs=2, batch_size=16, verbose=0)
            trained[backend] = model.get_weights()
    fastnn.config.set_backend("auto")
    for weights in trained.values():
        for found, wanted in zip(weights, trained["numpy"], strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


# Kept


MADE = [
    ReLU(), ReLU(6.0, 0.1, 0.5), LeakyReLU(0.2), ELU(2.0), Softmax(1), PReLU(),
    PReLU("he_normal", alpha_regularizer="l2", shared_axes=[1, 2]),
]  # fmt: skip


@pytest.mark.parametrize("layer", MADE, ids=repr)
def test_a_layer_comes_back_from_its_configuration(layer):
    config = json.loads(json.dumps(layer.get_config()))
    again = LAYERS[type(layer).__name__].from_config(config)
    assert again.get_config() == layer.get_config()
    assert repr(again) == repr(layer)


def test_defaults_are_those_of_keras():
    assert (ReLU().max_value, ReLU().negative_slope, ReLU().threshold) == (None, 0.0, 0.0)
    assert (LeakyReLU().negative_slope, ELU().alpha, Softmax().axis) == (0.3, 1.0, -1)
    assert (PReLU().shared_axes, PReLU().alpha_regularizer) == (None, None)
    assert repr(PReLU().alpha_initializer) == "Zeros()"


def test_a_model_of_these_layers_comes_back_from_its_file(tmp_path):
    model = fastnn.Sequential([
        Input((3, 4)), ReLU(4.0, 0.1), Dense(6), LeakyReLU(), Dense(6), ELU(), Dense(5),
        PReLU("ones", "l1", shared_axes=1), Softmax(1), Flatten(), Dense(2),
    ])  # fmt: skip
    x = np.random.default_rng(0).standard_normal((5, 3, 4)).astype(np.float32)
    model.save(tmp_path / "model.safetensors")
    again = fastnn.models.load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    assert again.layers[-4].get_config() == model.layers[-4].get_config()


# Misused

ARGUMENTS = [
    (lambda: ReLU(-1), "ReLU: max_value must be a number >= 0. Received: max_value=-1"),
    (lambda: ReLU(INF), "ReLU: max_value must be a number >= 0. Received: max_value=inf"),
    (lambda: ReLU(negative_slope=-0.1), "ReLU: negative_slope must be a number >= 0. Received: negative_slope=-0.1"),
    (lambda: ReLU(negative_slope=None), "ReLU: negative_slope"),
    (lambda: ReLU(threshold=-1), "ReLU: threshold must be a number >= 0. Received: threshold=-1"),
    (lambda: ReLU(threshold=NAN), "ReLU: threshold"),
    (lambda: LeakyReLU(-0.3), "LeakyReLU: negative_slope must be a number >= 0. Received: negative_slope=-0.3"),
    (lambda: LeakyReLU("0.3"), "LeakyReLU: negative_slope"),
    (lambda: ELU(-1), "ELU: alpha must be a number >= 0. Received: alpha=-1"),
    (lambda: PReLU("ones", shared_axes=0), "PReLU: shared_axes must be a positive integer. Received: shared_axes=0"),
    (lambda: PReLU(shared_axes=(1, -1)), "PReLU: shared_axes must be a positive integer. Received: shared_axes=-1"),
    (lambda: PReLU(shared_axes=1.5), "PReLU: shared_axes"),
    (lambda: PReLU("xavier"), "PReLU: alpha_initializer"),
    (lambda: PReLU(alpha_regularizer="l3"), "PReLU: alpha_regularizer"),
    (lambda: Softmax(1.0), "Softmax: axis must be an integer. Received: axis=1.0"),
    (lambda: Softmax(None), "Softmax: axis must be an integer"),
]


@pytest.mark.parametrize(("make", "message"), ARGUMENTS, ids=[m for _, m in ARGUMENTS])
def test_arguments_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize("axis", [0, 3, -3, 2**63 - 1, -(2**63)])
def test_softmax_along_the_batch_or_an_axis_that_is_not_there_is_refused(axis):
    for x in (Input((4, 5)), np.ones((2, 4, 5))):
        with pytest.raises(ValueError, match=r"it: Softmax needs rows that have the axis\. Received: shape .*4, 5"):
            Softmax(axis, name="it")(x)


@pytest.mark.parametrize("axis", [3, 2**63 - 1])
def test_slopes_shared_along_an_axis_that_is_not_there_are_refused(axis):
    with pytest.raises(ValueError, match=r"it: PReLU needs rows that have the axes to share\. Received: shape"):
        PReLU(shared_axes=(1, axis), name="it")(np.ones((2, 4, 5)))

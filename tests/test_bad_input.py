"""Bad input: an error that names the argument, the rule and the value, before anything has changed."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastnn
from fastnn import config, initializers, layers, losses, metrics, optimizers, regularizers, schedules
from fastnn.layers import Activation, Dense, Dropout, Flatten, Input

NAN, INF = float("nan"), float("inf")


def build(outputs=1, activation="sigmoid", loss="binary_crossentropy", **options):
    fastnn.set_seed(1)
    model = fastnn.Sequential([Dense(4, "relu", input_shape=(3,)), Dense(outputs, activation)])
    model.compile(optimizer="adam", loss=loss, **options)
    return model


def data(rows=12):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    return x, (x[:, :1] > 0).astype(np.float32)


def refused(call, *parts, error=ValueError):
    """``call`` raises one line that has all of ``parts``."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for part in parts:
        assert part in message, f"{part!r} is not in: {message}"
    assert "\n" not in message


def state(model):
    return [w.tobytes() for w in model.get_weights()], model.optimizer.iterations, model._epochs


# Constructors

CONSTRUCTORS = [
    (lambda: Dense(0), "Dense: units must be a positive integer. Received: units=0"),
    (lambda: Dense(-3), "Dense: units must be a positive integer. Received: units=-3"),
    (lambda: Dense(2.5), "Dense: units must be a positive integer. Received: units=2.5"),
    (lambda: Dense("8"), "Dense: units must be a positive integer. Received: units='8'"),
    (lambda: Dense(True), "Dense: units must be a positive integer. Received: units=True"),
    (lambda: Dense(None), "Dense: units must be a positive integer. Received: units=None"),
    (lambda: Dense(2, activation="rleu"), "Dense: activation must be one of", "'rleu'", "relu"),
    (lambda: Dense(2, activation=3), "Dense: activation must be one of", "activation=3"),
    (lambda: Dense(2, kernel_initializer="xavier"), "Dense: kernel_initializer", "'xavier'", "glorot_uniform"),
    (lambda: Dense(2, bias_initializer=0), "Dense: bias_initializer", "Received: 0"),
    (lambda: Dense(2, kernel_regularizer="l3"), "Dense: kernel_regularizer", "'l3'", "'l2'"),
    (lambda: Dense(2, input_shape=3), "Dense: input_shape must be a tuple of positive integers", "input_shape=3"),
    (lambda: Dense(2, input_shape=(0,)), "Dense: input_shape must be a positive integer", "0"),
    (lambda: Dense(2, input_shape="30"), "Dense: input_shape", "'30'"),
    (lambda: Dense(2, input_dim=0), "Dense: input_dim must be a positive integer. Received: input_dim=0"),
    (lambda: Dense(2, name=""), "Dense: name", "''"),
    (lambda: Dense(2, name="a/b"), "Dense: name", "'a/b'"),
    (lambda: Dropout(1.0), "Dropout: rate must be a number >= 0 and < 1. Received: rate=1.0"),
    (lambda: Dropout(-0.1), "Dropout: rate must be a number >= 0 and < 1. Received: rate=-0.1"),
    (lambda: Dropout(NAN), "Dropout: rate", "nan"),
    (lambda: Dropout("half"), "Dropout: rate", "'half'"),
    (lambda: Activation("softmx"), "Activation: activation must be one of", "'softmx'"),
    (lambda: Input((0,)), "Input: shape must be a positive integer", "0"),
    (lambda: Input(30), "Input: shape must be a tuple", "shape=30"),
    (lambda: Input((None,)), "Input: shape", "None"),
    (lambda: fastnn.Sequential([3]), "Sequential: takes layers. Received: 3"),
    (lambda: fastnn.Sequential([Dense]), "Sequential: takes layers", "Dense"),
    (lambda: fastnn.Sequential([Dense(2), Input((3,))]), "Sequential: Input must come first"),
    (lambda: fastnn.Sequential([Input((3,))]).build(), "Sequential: needs a layer besides Input"),
    (lambda: fastnn.Sequential().build(), "Sequential: needs at least one layer"),
    (lambda: fastnn.Sequential().pop(), "Sequential: has no layer to pop"),
    (lambda: fastnn.Sequential([Dense(2)]).summary(), "shape of the input is not known yet"),
    (lambda: Dense(2)(np.ones(3)), "Dense needs rows of (batch, ..., features). Received: shape (None,)"),
    (lambda: fastnn.Model(3, Input((2,))), "Model: inputs must be a Tensor", "3"),
    (lambda: fastnn.Model(Input((2,)), Dense(2)(Input((2,)))), "Model: outputs must be made from inputs"),
    (lambda: optimizers.Adam(-1), "Adam: learning_rate must be a number >= 0. Received: learning_rate=-1"),
    (lambda: optimizers.Adam("fast"), "Adam: learning_rate", "'fast'"),
    (lambda: optimizers.Adam(INF), "Adam: learning_rate", "inf"),
    (lambda: optimizers.Adam(beta_1=1.0), "Adam: beta_1 must be a number >= 0 and < 1. Received: beta_1=1.0"),
    (lambda: optimizers.Adam(epsilon=0), "Adam: epsilon must be a number > 0. Received: epsilon=0"),
    (lambda: optimizers.AdamW(weight_decay=-1), "AdamW: weight_decay", "-1"),
    (lambda: optimizers.SGD(momentum=1.5), "SGD: momentum must be a number >= 0 and <= 1. Received: momentum=1.5"),
    (lambda: optimizers.RMSprop(rho=2), "RMSprop: rho", "rho=2"),
    (lambda: optimizers.SGD(clipnorm=0), "SGD: clipnorm must be a number > 0. Received: clipnorm=0"),
    (lambda: optimizers.SGD(clipnorm=1.0, clipvalue=1.0), "SGD: takes one of", "clipnorm", "clipvalue"),
    (lambda: losses.BinaryCrossentropy(label_smoothing=2), "BinaryCrossentropy: label_smoothing", "2"),
    (lambda: metrics.BinaryAccuracy(threshold="x"), "BinaryAccuracy: threshold", "'x'"),
    (lambda: regularizers.L2(-1), "L2: l2 must be a number >= 0. Received: l2=-1"),
    (lambda: regularizers.L1L2(l1=NAN), "L1L2: l1", "nan"),
    (lambda: initializers.RandomNormal(stddev=-1), "RandomNormal: stddev", "-1"),
    (lambda: initializers.RandomUniform(1, 0), "RandomUniform: maxval must be a number >= 1. Received: maxval=0"),
    (lambda: schedules.ExponentialDecay(0.1, 0, 0.5), "ExponentialDecay: decay_steps must be a positive integer", "0"),
    (lambda: schedules.PiecewiseConstantDecay([1], [0.1]), "PiecewiseConstantDecay", "boundaries=[1]", "values=[0.1]"),
    (lambda: schedules.PiecewiseConstantDecay([2, 1], [1, 2, 3]), "PiecewiseConstantDecay: boundaries must grow"),
    (lambda: schedules.CosineDecay(-0.1, 10), "CosineDecay: initial_learning_rate", "-0.1"),
]


@pytest.mark.parametrize(("call", "parts"), [(c, p) for c, *p in CONSTRUCTORS], ids=[c[1] for c in CONSTRUCTORS])
def test_constructors_name_argument_rule_and_value(call, parts):
    refused(call, *parts)


def test_layers_of_one_name_are_refused():
    model = fastnn.Sequential([Dense(2, name="same", input_shape=(3,)), Dense(2, name="same")])
    refused(model.build, "layers must have different names", "same, same")
    layer = Dense(2, input_shape=(2,))
    refused(lambda: fastnn.Sequential([layer, layer]), "each layer can be in it once", layer.name)


def test_a_built_layer_refuses_other_shapes():
    layer = Dense(2, name="body")
    layer(np.ones((1, 3)))
    refused(lambda: layer(np.ones((1, 4))), "body: was built for inputs of shape (None, 3). Received: shape (None, 4)")


def test_an_unknown_layer_is_named():
    refused(lambda: build().get_layer("head"), "get_layer: name must be one of", "name='head'")


@pytest.mark.parametrize("made_by", [optimizers.Adam, losses.BinaryCrossentropy, layers.Dense, initializers.Constant])
def test_descriptions_with_unknown_arguments_are_refused(made_by):
    refused(lambda: made_by.from_config({"speed": 3}), f"{made_by.__name__}: has no arguments named speed")
    refused(lambda: made_by.from_config(3), f"{made_by.__name__}: config must be a mapping. Received: 3")


# compile

COMPILE = [
    ({"optimizer": "adamm"}, "optimizer: must be an Optimizer or one of", "'adamm'"),
    ({"optimizer": 3}, "optimizer", "Received: 3"),
    ({"loss": "crossentropy"}, "loss: must be a Loss or one of", "'crossentropy'"),
    ({"loss": None}, "compile: loss must be given", "loss=None"),
    ({"metrics": ["acuracy"]}, "metrics: each must be", "'acuracy'", "accuracy"),
    ({"metrics": [3]}, "metrics: each must be", "Received: 3"),
    ({"metrics": ["auc", "auc"]}, "compile: metrics must have different names", "['auc', 'auc']"),
    ({"metrics": [metrics.AUC(name="loss")]}, "compile: metrics must have different names", "loss"),
]


@pytest.mark.parametrize(("changed", "parts"), [(c, p) for c, *p in COMPILE], ids=[c[1] for c in COMPILE])
def test_compile_names_what_is_wrong_and_keeps_what_was(changed, parts):
    model = build(metrics=["accuracy"])
    x, y = data()
    model.fit(x, y, verbose=0)
    before, kept = state(model), (model.optimizer, model.loss)
    refused(lambda: model.compile(**{"optimizer": "sgd", "loss": "mse", **changed}), *parts)
    assert state(model) == before
    assert (model.optimizer, model.loss) == kept
    assert model.metrics_names == ["loss", "accuracy"]


def test_what_needs_compiling_says_so():
    model = fastnn.Sequential([Dense(1, input_shape=(3,))], name="raw")
    x, y = data()
    for call in (lambda: model.fit(x, y), lambda: model.evaluate(x, y), lambda: model.train_on_batch(x, y),
                 lambda: model.optimizer):  # fmt: skip
        refused(call, "raw: must be compiled first", error=RuntimeError)


# fit, evaluate, train_on_batch: data

X, Y = data()
HOLE = X.copy()
HOLE[4, 1] = NAN
FAR = X.astype(float)
FAR[2, 0] = 1e300


def with_y(value):
    y = Y.copy()
    y[3, 0] = value
    return y


DATA = [
    (X[:, :2], Y, "x must have shape (N, 3). Received: shape (12, 2)"),
    (X[:, 0], Y, "x must have shape (N, 3). Received: shape (12,)"),
    (X[None], Y[:1], "x must have shape (N, 3). Received: shape (1, 12, 3)"),
    (X[:0], Y[:0], "x must have at least one row. Received: shape (0, 3)"),
    (3.0, Y, "x must have rows. Received: the single value"),
    ([], Y, "x must have at least one row"),
    ([[1.0, 2.0, 3.0], [1.0, 2.0]], Y[:2], "x must be an array of numbers"),
    ([["a", "b", "c"]] * 12, Y, "x must hold numbers only"),
    (np.array([[1.0, "male", 2.0]] * 12, dtype=object), Y, "x must hold numbers only", "male"),
    (np.array([[1.0, None, 2.0]] * 12, dtype=object), Y, "x"),
    (X + 1j, Y, "x must hold numbers only. Received: dtype complex"),
    (np.array([["2020-01-01"] * 3] * 12, dtype="datetime64[D]"), Y, "x must hold numbers only", "datetime64"),
    (None, Y, "x"),
    ({"a": 1}, Y, "x"),
    (HOLE, Y, "x must be finite in float32. Received: x[4, 1] = nan"),
    (FAR, Y, "x must be finite in float32. Received: x[2, 0] = 1e+300"),
    (X, None, "y must be given. Received: y=None"),
    (X, Y[:-1], "x and y must have the same number of rows. Received: 12 and 11"),
    (X, with_y(NAN), "y must be finite", "y[3, 0] = nan"),
    (X, with_y(INF), "y must be finite", "y[3, 0] = inf"),
    (X, np.hstack([Y, Y]), "y must have shape (N, 1)", "Received: shape (12, 2)"),
    (X, [["yes"]] * 12, "y must hold numbers only"),
    (X, with_y(2.0), "BinaryCrossentropy: y must be between 0 and 1. Received: y[3, 0] = 2"),
    (X, with_y(-1.0), "BinaryCrossentropy: y must be between 0 and 1. Received: y[3, 0] = -1"),
]


@pytest.mark.parametrize("call", ["fit", "evaluate", "train_on_batch"])
@pytest.mark.parametrize(("x", "y", "parts"), [(x, y, p) for x, y, *p in DATA], ids=[d[2] for d in DATA])
def test_data_that_do_not_fit_are_named_and_nothing_changes(x, y, parts, call):
    model = build()
    model.train_on_batch(*data())
    before = state(model)
    refused(lambda: getattr(model, call)(x, y), *parts)
    assert state(model) == before


@pytest.mark.parametrize(("labels", "part"), [([3], "3"), ([-1], "-1"), ([0.5], "0.5")])
def test_labels_out_of_range_are_named(labels, part):
    model = build(3, "softmax", "sparse_categorical_crossentropy")
    y = np.r_[labels, np.zeros(11)]
    message = "SparseCategoricalCrossentropy: y must hold the labels 0 to 2. Received: y[0] = "
    refused(lambda: model.fit(X, y, verbose=0), message + part)


def test_labels_for_a_loss_on_rows_get_a_hint():
    model = build(3, "softmax", "categorical_crossentropy")
    refused(
        lambda: model.fit(X, np.zeros(12), verbose=0), "y must have shape (N, 3)", "sparse_categorical_crossentropy"
    )
    wrong = np.full((12, 3), 0.5)
    wrong[0] = [2, 0, 0]
    refused(lambda: model.fit(X, wrong, verbose=0), "CategoricalCrossentropy: y must be between 0 and 1", "2")


OPTIONS = [
    ({"batch_size": 0}, "fit: batch_size must be a positive integer. Received: batch_size=0"),
    ({"batch_size": 2.5}, "fit: batch_size", "2.5"),
    ({"epochs": -1}, "fit: epochs must be a non-negative integer. Received: epochs=-1"),
    ({"epochs": "10"}, "fit: epochs", "'10'"),
    ({"initial_epoch": -1}, "fit: initial_epoch", "-1"),
    ({"validation_split": 1.0}, "fit: validation_split must be a number >= 0 and < 1. Received: validation_split=1.0"),
    ({"validation_split": -0.1}, "fit: validation_split", "-0.1"),
    ({"validation_split": 0.99}, "fit: validation_split must leave rows on both sides", "0.99", "12 rows"),
    ({"validation_data": X}, "fit: validation_data must be (x, y) or (x, y, sample_weight)", "ndarray"),
    ({"validation_data": (X,)}, "fit: validation_data must be (x, y)"),
    ({"validation_data": (X[:, :2], Y)}, "fit: validation_data: x must have shape (N, 3)", "(12, 2)"),
    ({"validation_data": (HOLE, Y)}, "fit: validation_data: x must be finite", "x[4, 1] = nan"),
    ({"validation_data": (X, Y[:3])}, "fit: validation_data: x and y must have the same number of rows", "12 and 3"),
    ({"validation_batch_size": 0}, "fit: validation_batch_size", "0"),
    ({"sample_weight": np.ones(11)}, "fit: sample_weight must have shape (12,). Received: shape (11,)"),
    ({"sample_weight": -np.ones(12)}, "fit: sample_weight must not be negative. Received: -1.0"),
    ({"sample_weight": np.full(12, NAN)}, "fit: sample_weight must be finite", "sample_weight[0] = nan"),
    ({"sample_weight": ["a"] * 12}, "fit: sample_weight must hold numbers only"),
    ({"sample_weight": 2.0}, "fit: sample_weight"),
    ({"class_weight": [1, 2]}, "fit: class_weight must map classes to weights", "[1, 2]"),
    ({"class_weight": {0: -1}}, "fit: class_weight", "{0: -1}"),
    ({"class_weight": {0: NAN}}, "fit: class_weight", "{0: nan}"),
    ({"class_weight": {"sick": 2.0}}, "fit: class_weight", "{'sick': 2.0}"),
    ({"class_weight": {0: "a"}}, "fit: class_weight", "{0: 'a'}"),
    ({"verbose": 7}, "verbose", "7"),
    ({"verbose": "loud"}, "verbose", "'loud'"),
]


@pytest.mark.parametrize(("options", "parts"), [(o, p) for o, *p in OPTIONS], ids=[o[1] for o in OPTIONS])
def test_options_of_fit_are_checked_before_anything_changes(options, parts):
    model = build()
    model.train_on_batch(*data())
    before = state(model)
    refused(lambda: model.fit(X, Y, **{"verbose": 0, **options}), *parts)
    assert state(model) == before
    assert model.history is None


@pytest.mark.parametrize("callbacks", [[3], [fastnn.callbacks.EarlyStopping], "early", [print]])
def test_what_is_no_callback_is_refused(callbacks):
    model = build()
    before = state(model)
    refused(lambda: model.fit(X, Y, verbose=0, callbacks=callbacks), "callbacks must be", "Received: ", error=TypeError)
    assert state(model) == before


def test_a_metric_that_does_not_fit_the_model_is_named():
    model = build(3, "softmax", "sparse_categorical_crossentropy", metrics=["mse"])
    before = state(model)
    refused(lambda: model.fit(X, np.zeros(12), verbose=0), "mean_squared_error: ", "Received: ")
    assert state(model) == before


# predict, set_weights

PREDICT = [
    (X[:, :2], "x must have shape (N, 3). Received: shape (12, 2)"),
    (X[0], "x must have shape (N, 3). Received: shape (3,)"),
    (X[:0], "x must have at least one row"),
    ([["a", "b", "c"]], "x must hold numbers only"),
    ([[1, 2, 3], [1]], "x must be an array of numbers"),
    (None, "x"),
    (7, "x must have rows"),
]


@pytest.mark.parametrize(("x", "part"), PREDICT, ids=[part for _, part in PREDICT])
def test_what_cannot_be_predicted_is_named(x, part):
    model = build()
    model(X)
    for ask in (model.predict, model.predict_on_batch, model):
        refused(lambda ask=ask: ask(x), part)


def test_predict_refuses_nan_with_its_position():
    refused(lambda: build().predict(HOLE), "predict: x must be finite in float32. Received: x[4, 1] = nan")


def test_weights_that_do_not_fit_are_refused_and_nothing_changes():
    model = build()
    before = state(model)
    weights = model.get_weights()
    expected = re.escape("needs arrays of shapes [(3, 4), (4,), (4, 1), (1,)]")
    for wrong in ([], weights[:-1], [weights[0].T, *weights[1:]], [*weights, np.ones(1)]):
        with pytest.raises(ValueError, match=expected):
            model.set_weights(wrong)
    refused(lambda: model.set_weights([*weights[:-1], ["a"]]), "needs numbers for", ".bias", "dtype <U1")
    refused(lambda: model.set_weights([*weights[:-1], [[1.0], [1.0, 2.0]]]), "set_weights needs a list of arrays")
    refused(lambda: model.set_weights(3), "set_weights needs a list of arrays")
    refused(lambda: model.layers[0].set_weights(weights[2:]), "set_weights needs arrays of shapes [(3, 4), (4,)]")
    assert state(model) == before


def test_a_learning_rate_is_checked_when_it_is_set():
    optimizer = optimizers.Adam(0.5)
    for wrong in (-1, NAN, "fast", None, True):
        with pytest.raises(ValueError, match="Adam: learning_rate must be a number >= 0"):
            optimizer.learning_rate = wrong
    assert optimizer.learning_rate == 0.5


def test_losses_and_metrics_on_arrays_check_them():
    refused(lambda: losses.MeanSquaredError()([[1.0, 2.0]], [[1.0]]), "MeanSquaredError: y must have shape (N, 1)")
    refused(lambda: losses.BinaryCrossentropy()([2.0], [0.5]), "BinaryCrossentropy: y must be between 0 and 1")
    refused(lambda: losses.SparseCategoricalCrossentropy()([3], [[0.5, 0.5]]), "labels 0 to 1. Received: y[0] = 3")
    refused(
        lambda: metrics.Recall()([[1.0, 0.0]], [0.5]), "Recall: needs targets of shape (N, 1). Received: shape (1, 2)"
    )


# Settings

SETTINGS = [
    (lambda: fastnn.set_num_threads(0), "set_num_threads: n must be a positive integer. Received: n=0"),
    (lambda: fastnn.set_num_threads(-2), "set_num_threads: n", "-2"),
    (lambda: fastnn.set_num_threads(1.5), "set_num_threads: n", "1.5"),
    (lambda: fastnn.set_num_threads("2"), "set_num_threads: n", "'2'"),
    (lambda: fastnn.set_num_threads(257), "set_num_threads: n must be 1 to 256. Received: n=257"),
    (lambda: fastnn.set_num_threads(10**30), "set_num_threads: n"),
    (lambda: fastnn.set_seed(-1), "set_seed: n must be a non-negative integer. Received: n=-1"),
    (lambda: fastnn.set_seed(1.0), "set_seed: n", "1.0"),
    (lambda: fastnn.set_seed(None), "set_seed: n", "None"),
    (lambda: config.set_backend("cuda"), "set_backend: name must be one of auto, native, numba, numpy", "'cuda'"),
    (lambda: config.set_backend(None), "set_backend: name", "None"),
    (lambda: config.set_floatx("float16"), "set_floatx: dtype must be 'float32' or 'float64'", "'float16'"),
]


@pytest.mark.parametrize(("call", "parts"), [(c, p) for c, *p in SETTINGS], ids=[str(i) for i in range(len(SETTINGS))])
def test_settings_are_checked_before_they_change(call, parts):
    before = fastnn.get_num_threads(), config.backend(), config.floatx()
    refused(call, *parts)
    assert (fastnn.get_num_threads(), config.backend(), config.floatx()) == before


def test_float64_models_need_numpy():
    config.set_backend("numpy")
    config.set_floatx("float64")
    model = fastnn.Sequential([Flatten(input_shape=(3,)), Dense(1)])
    config.set_floatx("float32")
    for name in ("native", "numba"):
        config.set_backend(name)
        refused(lambda: model.compile("sgd", "mse"), "compile: float64 models need the numpy backend", name)
        refused(lambda: model.predict(X), "float64", name)
    config.set_backend("auto")


def test_masked_values_are_refused():
    x, y = data()
    refused(lambda: build().fit(np.ma.masked_array(x, x > 1), y), "fit: x must not have masked values")
    build().fit(np.ma.masked_array(x), y, verbose=0)


@pytest.mark.parametrize("labels", [[0.5, 1.0], ["a"], [[0, 1]], [], [-1, 0], [0, 3]])
def test_labels_that_cannot_be_one_hot_are_refused(labels):
    with pytest.raises(ValueError, match="to_categorical: x must"):
        fastnn.utils.to_categorical(labels, num_classes=3)

"""Gradients of whole models, in float64 on the reference backend, against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn.autodiff import gradients
from fastnn.backends.numpy import Program
from fastnn.graph import Place, Tensor
from fastnn.layers import Activation, Dense, Dropout, Flatten, Input
from fastnn.layers.core import ACTIVATIONS
from fastnn.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    MeanAbsoluteError,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)
from fastnn.ops.loss import mean_squared_error
from fastnn.ops.metric import binary_accuracy
from fastnn.ops.pointwise import add, multiply, relu, tanh
from fastnn.plan import Plan
from fastnn.regularizers import L1, L1L2, L2

STEP = 2.0**-20


@pytest.fixture(autouse=True)
def _double():
    fastnn.config.set_backend("numpy")
    fastnn.config.set_floatx("float64")
    yield
    fastnn.config.set_floatx("float32")
    fastnn.config.set_backend("auto")


def loss_at(model, weights, x, y, **options):
    """The training loss of the first step, dropout included."""
    model.set_weights(weights)
    model.optimizer.iterations = 0
    return model.train_on_batch(x, y, **options)


def assert_gradients_right(model, loss, x, y, **options):
    """Each weight's gradient, which SGD with rate 1 subtracts, is the slope of the loss along a random direction."""
    rng = np.random.default_rng(3)
    model.compile(fastnn.optimizers.SGD(1.0), loss)
    assert model.dtype == "float64"
    weights = [w + 0.1 * rng.standard_normal(w.shape) for w in model.get_weights()]  # no bias is 0
    value = loss_at(model, weights, x, y, **options)
    found = [before - after for before, after in zip(weights, model.get_weights(), strict=True)]
    model.optimizer.learning_rate = 0.0
    for number, gradient in enumerate(found):
        d = rng.standard_normal(gradient.shape)

        def along(step, number=number, d=d):
            moved = [w + step * d if i == number else w for i, w in enumerate(weights)]
            return loss_at(model, moved, x, y, **options)

        slope, coarse = ((along(h) - along(-h)) / (2 * h) for h in (STEP, 2 * STEP))
        rounding = 2.0**-52 * 100 * (1 + abs(value) + np.sum(abs(gradient * d))) / STEP
        assert abs(np.sum(gradient * d) - slope) <= abs(slope - coarse) + rounding, model.weights[number].name
    assert any(np.any(g) for g in found)


def data(rows=11, outputs=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, 5)), rng.standard_normal((rows, outputs)), rng


def small(*layers):
    fastnn.set_seed(4)
    return fastnn.Sequential([Input((5,)), *layers])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation):
    x, y, _ = data()
    assert_gradients_right(small(Dense(7, activation), Dense(6, activation), Dense(3)), "mse", x, y)
    assert_gradients_right(small(Dense(7), Activation(activation), Dense(3)), "mse", x, y)


LOSSES = {
    "mean squared error": (MeanSquaredError(), "linear", "value"),
    "mean absolute error": (MeanAbsoluteError(), "linear", "value"),
    "squared error of a sigmoid": (MeanSquaredError(), "sigmoid", "binary"),
    "squared error of a softmax": (MeanSquaredError(), "softmax", "onehot"),
    "binary on a sigmoid": (BinaryCrossentropy(), "sigmoid", "binary"),
    "binary on soft targets": (BinaryCrossentropy(label_smoothing=0.2), "sigmoid", "binary"),
    "binary on logits": (BinaryCrossentropy(from_logits=True), "linear", "binary"),
    "binary on a hard sigmoid": (BinaryCrossentropy(), "hard_sigmoid", "binary"),
    "binary on a softmax": (BinaryCrossentropy(), "softmax", "onehot"),
    "categorical on a softmax": (CategoricalCrossentropy(), "softmax", "onehot"),
    "categorical on soft targets": (CategoricalCrossentropy(label_smoothing=0.1), "softmax", "onehot"),
    "categorical on logits": (CategoricalCrossentropy(from_logits=True), "linear", "onehot"),
    "categorical on a sigmoid": (CategoricalCrossentropy(), "sigmoid", "onehot"),
    "sparse on a softmax": (SparseCategoricalCrossentropy(), "softmax", "label"),
    "sparse on logits": (SparseCategoricalCrossentropy(from_logits=True), "linear", "label"),
    "sparse on a sigmoid": (SparseCategoricalCrossentropy(), "sigmoid", "label"),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss(name, weighted):
    loss, activation, target = LOSSES[name]
    x, y, rng = data()
    labels = rng.integers(0, 3, 11)
    y = {"value": y, "binary": (y > 0).astype(float), "onehot": np.eye(3)[labels], "label": labels}[target]
    options = {"sample_weight": rng.random(11) + 0.1} if weighted else {}
    assert_gradients_right(small(Dense(6, "tanh"), Dense(3, activation)), loss, x, y, **options)


def test_class_weights():
    x, y, _ = data(outputs=1)
    model = small(Dense(6, "relu"), Dense(1, "sigmoid"))
    assert_gradients_right(model, "binary_crossentropy", x, (y > 0).astype(float), class_weight={0: 0.3, 1: 2.0})


@pytest.mark.parametrize("regularizer", [L1(0.03), L2(0.05), L1L2(0.02, 0.04)])
@pytest.mark.parametrize("weighted", [False, True])
def test_regularizers(regularizer, weighted):
    x, y, rng = data()
    layers = [
        Dense(6, "tanh", kernel_regularizer=regularizer, bias_regularizer=regularizer),
        Dense(3, bias_regularizer=regularizer),
    ]
    options = {"sample_weight": rng.random(11)} if weighted else {}
    assert_gradients_right(small(*layers), "mse", x, y, **options)


def test_dropout_drops_the_same_in_both_directions():
    x, y, _ = data()
    assert_gradients_right(
        small(Dense(40, "relu"), Dropout(0.5), Dense(9, "tanh"), Dropout(0.3), Dense(3)), "mse", x, y
    )
    assert_gradients_right(small(Dropout(0.4), Dense(3)), "mse", x, y)


def test_rows_with_several_axes():
    rng = np.random.default_rng(1)
    fastnn.set_seed(4)
    model = fastnn.Sequential([Input((2, 3)), Activation("tanh"), Flatten(), Dense(4, "selu"), Dense(2)])
    assert_gradients_right(model, "mse", rng.standard_normal((5, 2, 3)), rng.standard_normal((5, 2)))


def test_layers_without_a_bias():
    x, y, _ = data()
    assert_gradients_right(small(Dense(6, "gelu", use_bias=False), Dense(3, "tanh", use_bias=False)), "mse", x, y)


def test_a_layer_used_twice_gets_the_sum_of_its_gradients():
    x, y, _ = data()
    fastnn.set_seed(4)
    inputs = Input((5,))
    twice = Dense(5, "tanh", kernel_regularizer=L2(0.01))
    model = fastnn.Model(inputs, Dense(3)(twice(twice(inputs))))
    assert model.count_params() == 5 * 5 + 5 + 5 * 3 + 3
    assert_gradients_right(model, "mse", x, y)


# gradients() itself


def leaf(*shape, name):
    return Tensor(shape, place=Place(name), name=name)


def run(tensors, buffers):
    for number, tensor in enumerate(tensors):
        tensor.place = Place(f"out{number}")
        buffers[f"out{number}"] = np.full([4 if s is None else s for s in tensor.shape], np.nan)
    Program(Plan(tensors, batch=4, dtype="float64")).run(buffers, 0, 1, 4, 4)
    return [buffers[f"out{number}"] for number in range(len(tensors))]


def test_a_tensor_read_twice_gets_the_sum_of_its_gradients():
    x, y = leaf(None, 1, name="x"), leaf(None, 1, name="y")
    # rows = (x * x + x - y)^2; d mean / dx = 2 (x^2 + x - y) (2 x + 1) / 4
    rows = mean_squared_error(add(multiply(x, x), x), y)
    a, b = np.array([[1.0], [2.0], [-1.0], [0.5]]), np.array([[0.0], [1.0], [3.0], [0.25]])
    (found,) = run(gradients(rows, [x]), {"x": a, "y": b})
    np.testing.assert_allclose(found, 2 * (a * a + a - b) * (2 * a + 1) / 4, rtol=1e-14)


def test_what_the_loss_does_not_depend_on_has_no_gradient():
    x, y, z = (leaf(None, 1, name=name) for name in "xyz")
    tanh(z)
    first, second = gradients(mean_squared_error(tanh(x), y), [z, x])
    assert first is None
    assert second is not None


def test_what_cannot_be_differentiated_is_named():
    x, y = leaf(None, 1, name="x"), leaf(None, 1, name="y")
    with pytest.raises(ValueError, match="binary_accuracy: has no gradient"):
        gradients(binary_accuracy(relu(x), y, threshold=0.5), [x])


def test_nothing_is_differentiated_that_no_leaf_needs():
    x, w, y = (leaf(None, 1, name=name) for name in "xwy")
    # the branch of x ends in an op without gradient, but only w is asked for
    rows = mean_squared_error(multiply(w, tanh(x)), y)
    (found,) = gradients(rows, [w])
    names, stack = set(), [found]
    while stack:
        node = stack.pop().node
        if node is not None:
            names.add(node.op.name)
            stack.extend(node.inputs)
    assert "tanh_dx" not in names

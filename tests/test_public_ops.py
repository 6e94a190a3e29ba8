"""The ops that users call: in a layer on every backend as on arrays, and their gradients."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastnn
from fastnn import ops
from fastnn.layers import Input, Layer
from fastnn.ops.declare import Op

#: Of rows of x (N, 4, 5, 6), weights v (6,), w (5, 6), column (4, 1, 1), square (6, 3), kernel (3, 3, 6, 2), one (1,).
SHAPES = {"v": (6,), "w": (5, 6), "column": (4, 1, 1), "square": (6, 3), "kernel": (3, 3, 6, 2), "one": (1,),
          "taps": (2, 3, 6, 2), "grouped": (3, 3, 3, 4)}  # fmt: skip
ROW = (4, 5, 6)

CASES = {
    "numbers": lambda x, p: 3.0 - (2 * x + 1) / 4 - x * np.float32(0.5),
    "number by tensor": lambda x, p: 2.0 / (x * x + 1) + 1 / (ops.exp(x) + 1),
    "negative": lambda x, p: -x + -p["v"],
    "tensors": lambda x, p: x * x - x / (x * x + 1) + ops.add(x, x),
    "two weights": lambda x, p: x * (p["v"] + p["v"] * p["one"]) + (p["w"] - p["v"]),
    "vector": lambda x, p: (x * p["v"] + p["v"]) / (p["v"] * p["v"] + 1) - p["v"],
    "vector first": lambda x, p: p["v"] * x + (p["v"] - x) + p["v"] / (x * x + 1),
    "end of a row": lambda x, p: x * p["w"] + p["w"] - x / (p["w"] ** 2 + 1),
    "middle of a row": lambda x, p: x * p["column"] + p["column"] - p["column"] / (x * x + 1),
    "one number": lambda x, p: x * p["one"] + p["one"],
    "whole row": lambda x, p: x * (p["w"] * p["column"]),
    "narrow rows": lambda x, p: ops.mean(x, axis=(1, 2), keepdims=True) * p["w"] + x[:, :1, :, :1],
    "gate": lambda x, p: x * ops.sigmoid(ops.mean(x, axis=(1, 2), keepdims=True)),
    "outer": lambda x, p: x[:, :, :1, :] + x[:, :1, :, :],
    "powers": lambda x, p: x**3 + x**2 + x**1 + x**0 + (x * x + 1) ** 1.7 + (x * x + 1) ** -2,
    "half a power": lambda x, p: ops.power(x * x + 1, -0.5) + (x * x + 1) ** 0.5,
    "number to the power": lambda x, p: ops.power(2.0, x) + ops.power(x * x + 1, ops.tanh(x)),
    "roots": lambda x, p: ops.sqrt(x * x + 1) + ops.rsqrt(x * x + 1) + ops.log(x * x + 1) + ops.square(x) + abs(x),
    "reciprocal": lambda x, p: ops.reciprocal(x * x + 2) + ops.divide(x, 3),
    "weights alone": lambda x, p: x * ops.exp(p["v"]) + ops.sqrt(ops.square(p["w"])) * ops.sum(p["w"] * p["w"]),
    "extremes": lambda x, p: ops.maximum(x, 0.3) + ops.minimum(x, p["v"]) + ops.minimum(0.1, x),
    "clipped": lambda x, p: ops.clip(x, -0.5, 0.7) * ops.maximum(p["v"], 0.1),
    "activations": lambda x, p: ops.relu(x) + ops.gelu(x) + ops.silu(x) + ops.leaky_relu(x) + ops.elu(x) + ops.tanh(x),
    "softmax": lambda x, p: ops.softmax(x) + ops.softmax(x, axis=1) + ops.softmax(x, axis=2) * ops.softmax(p["v"]),
    "sums": lambda x, p: ops.sum(x, axis=-1, keepdims=True) + ops.sum(x, axis=(1, 3), keepdims=True) + x,
    "sum without axes": lambda x, p: ops.expand_dims(ops.sum(x, axis=(1, 2, 3)) * 2 + 1, 1) * p["v"],
    "means": lambda x, p: ops.mean(x, axis=2) + ops.mean(p["w"], axis=0) * ops.mean(p["w"]),
    "largest": lambda x, p: ops.max(x, axis=(1, 2)) + ops.max(x, axis=-1)[:, 0, :1] + ops.min(x, axis=(1, 2)),
    "largest kept": lambda x, p: ops.max(x, axis=1, keepdims=True) * ops.min(x, axis=(2, 3), keepdims=True),
    "largest of weights": lambda x, p: x * ops.max(p["w"], axis=0) + ops.min(p["w"]),
    "reshape": lambda x, p: ops.reshape(x, (-1, 20, 6)) * ops.reshape(p["w"], (5, 6))[0],
    "reshape to what is left": lambda x, p: ops.reshape(x, (None, 4, -1)),
    "transpose": lambda x, p: ops.transpose(x, (0, 2, 3, 1)) * ops.expand_dims(p["w"], -1),
    "transposed weight": lambda x, p: ops.matmul(x, ops.transpose(p["w"], (1, 0))),
    "concatenate": lambda x, p: ops.concatenate([x, x * 2, -x, x, x + 1, x, x * x, x], axis=2),
    "concatenated weights": lambda x, p: x * ops.concatenate([p["v"][:2], p["v"][1:3], p["v"][-2:]]),
    "split": lambda x, p: ops.split(x, 3)[0] * ops.split(x, [2, 4])[1] + ops.split(p["v"], 3)[2],
    "slices": lambda x, p: x[:, 1:3, ..., :2] * x[:, 2:, :5, -2:] + x[:, -1:, 0:1][..., 1:2],
    "picked": lambda x, p: x[:, 1] * x[:, :, 2][:, :1] + p["w"][1:2, :] + x[..., 3][:, :1, :1],
    "axes": lambda x, p: ops.squeeze(ops.expand_dims(x, -1), 4) * ops.expand_dims(p["v"], 0) + x[:, :1],
    "broadcast": lambda x, p: ops.broadcast_to(x[:, :1], (None, 4, 5, 6)) * ops.broadcast_to(p["v"], (5, 6)),
    "pad": lambda x, p: ops.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0))) + ops.pad(p["v"], [(0, 0)]),
    "matmul": lambda x, p: x @ p["square"] + ops.matmul(x, p["square"] * 2.0),
    "product of rows": lambda x, p: ops.reshape(x, (-1, 20, 6)) @ ops.transpose(ops.reshape(x, (-1, 20, 6)), (0, 2, 1)),
    "conv": lambda x, p: ops.conv(x, p["kernel"], padding="same") + ops.conv(x, p["taps"], strides=1, padding="same"),
    "strided conv": lambda x, p: ops.conv(x, p["kernel"], strides=(2, 1), padding="same", dilation_rate=1),
    "grouped conv": lambda x, p: ops.conv(x, p["grouped"], padding="valid"),
    "depthwise conv": lambda x, p: ops.depthwise_conv(x, p["kernel"], padding="same"),
    "pool": lambda x, p: ops.max_pool(x, 2) + ops.average_pool(x, (2, 2), strides=2),
}

class Function(Layer):
    """A case as a layer."""

    def __init__(self, case, name="function"):
        super().__init__(name=name)
        self.case = case

    def build(self, shape):
        self.p = {}
        for name, sizes in SHAPES.items():
            self.p[name] = self.add_weight(name, sizes, fastnn.initializers.RandomNormal(0.0, 0.7))

    def call(self, x, training=None):
        return CASES[self.case](x, self.p)


def made(case):
    fastnn.set_seed(11)
    entry = Input(ROW)
    model = fastnn.Model(entry, Function(case)(entry))
    model.compile(fastnn.optimizers.SGD(0.01), "mse")
    return model


@pytest.mark.parametrize("case", CASES)
def test_a_model_computes_what_arrays_do(case, backend):
    x = np.random.default_rng(1).normal(size=(7, *ROW)).astype(np.float32)
    model = made(case)
    layer = model.get_layer("function")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = layer(x)
        by_numpy = CASES[case](x.astype(float), {name: w.value.astype(float) for name, w in layer.p.items()})
    found = model.predict(x)
    assert found.shape == expected.shape == by_numpy.shape
    assert model.output_shape == (None, *found.shape[1:])
    np.testing.assert_allclose(found, by_numpy, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(expected, by_numpy, rtol=2e-4, atol=2e-4)


@pytest.fixture
def doubles():
    fastnn.config.set_backend("numpy")
    fastnn.config.set_floatx("float64")
    yield
    fastnn.config.set_floatx("float32")
    fastnn.config.set_backend("auto")


def gradients(model, x, y, rate=0.01):
    """By one step of gradient descent."""
    before = model.get_weights()
    model.train_on_batch(x, y)
    after = model.get_weights()
    model.set_weights(before)
    return [(a - b) / rate for a, b in zip(before, after, strict=True)]


def data(model, dtype):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, *ROW)).astype(dtype)
    return x, rng.normal(size=(3, *model.output_shape[1:])).astype(dtype)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_the_slope_of_the_loss(case):
    """Central differences in double precision, along one random direction of all weights and of the input."""

    class Shifted(Layer):  # so that the gradient with respect to the input counts
        def build(self, shape):
            self.shift = self.add_weight("shift", ROW, "zeros")

        def call(self, x, training=None):
            return x + self.shift

    fastnn.set_seed(11)
    model = fastnn.Sequential([Input(ROW), Shifted(), Function(case)])
    model.compile(fastnn.optimizers.SGD(0.01), "mse")
    x, y = data(model, np.float64)
    found, weights, rng = gradients(model, x, y), model.get_weights(), np.random.default_rng(3)
    direction = [rng.normal(size=w.shape) for w in weights]

    def loss(step):
        model.set_weights([w + step * d for w, d in zip(weights, direction, strict=True)])
        return model.evaluate(x, y)

    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    along = sum(np.sum(g * d) for g, d in zip(found, direction, strict=True))
    assert abs(found[0]).max() > 0
    np.testing.assert_allclose(along, slope, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_the_same_on_every_backend(case, backend):
    model = made(case)
    x, y = data(model, np.float32)
    found = gradients(model, x, y)
    fastnn.config.set_backend("numpy")
    other = gradients(model, x, y)
    for a, b in zip(found, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=5e-3, atol=5e-3)


def test_all_public_names_are_functions_or_ops_with_a_docstring():
    assert {"relu", "conv", "softmax", "custom", "matmul", "abs", "sum", "exp"} <= set(ops.__all__)
    for name in set(ops.__all__) - {"OPS", "Op"}:
        assert callable(getattr(ops, name))
        assert getattr(ops, name).__doc__
    assert isinstance(ops.relu, Op)


def test_arrays_on_the_left_of_a_weight_or_tensor():
    layer = Function("numbers")
    layer(np.ones((1, *ROW), np.float32))
    assert (np.ones((2, 6), np.float32) * layer.p["v"]).shape == (2, 6)
    assert np.asarray(layer.p["v"]).shape == (6,)
    with pytest.raises(TypeError, match="add_weight"):
        np.ones((4, 5, 6)) * Input(ROW)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: x + np.ones(6), TypeError, r"add: takes Tensors and weights in a model.*an array of shape \(6,\)"),
        (lambda x: x + "a", TypeError, "add: takes Tensors, weights, arrays and numbers. Received: 'a'"),
        (lambda x: x > 0, TypeError, "cannot be compared in a model: use fastnn.ops.relu, maximum"),
        (lambda x: list(x), TypeError, "not iterable"),
        (lambda x: x[0], TypeError, r"slice: takes x\[:, ...\], all of the batch"),
        (lambda x: x[:, ::2], TypeError, "slices without a step"),
        (lambda x: x[:, [1, 2]], TypeError, "slices without a step"),
        (lambda x: x[:, 9], IndexError, "axis 1 has 4 elements"),
        (lambda x: x[:, 3:2], ValueError, "must leave something of axis 1"),
        (lambda x: x + x[:, :2], ValueError, r"sizes must be equal.*\(N, 4, 5, 6\) and \(N, 2, 5, 6\)"),
        (lambda x: x * x[:, 0], ValueError, "rows must have the same number of axes"),
        (lambda x: ops.sum(x), ValueError, "axis must be given, without that of the batch"),
        (lambda x: ops.mean(x, axis=0), ValueError, "axis must not be that of the batch"),
        (lambda x: ops.max(x, axis=4), ValueError, "axis must be an integer from -4 to 3"),
        (lambda x: ops.reshape(x, (4, 30)), ValueError, "the first size must be -1 or None, the batch"),
        (lambda x: ops.reshape(x, (-1, 7)), ValueError, "cannot become"),
        (lambda x: ops.transpose(x, (1, 0, 2, 3)), ValueError, "the batch first"),
        (lambda x: ops.concatenate([x, x[:, :, :2]], axis=1), ValueError, "concatenate: the arrays must have equal"),
        (lambda x: ops.split(x, 4), ValueError, "6 elements cannot be split into 4"),
        (lambda x: ops.squeeze(x, 1), ValueError, "must have size 1"),
        (lambda x: ops.broadcast_to(x, (None, 4, 5, 7)), ValueError, "only axes of size 1"),
        (lambda x: ops.pad(x, ((1, 0), (0, 0), (0, 0), (0, 0))), ValueError, "for the batch"),
        (lambda x: x @ x, ValueError, "matmul: takes rows"),
        (lambda x: x @ 3.0, ValueError, "matmul: takes rows"),
        (lambda x: ops.max_pool(x, 2, padding="full"), ValueError, "padding must be 'valid' or 'same'"),
        (lambda x: ops.max_pool(x, (2, 2, 2)), ValueError, "a positive integer for each"),
        (lambda x: ops.power(-2.0, x), ValueError, "must be positive"),
        (lambda x: bool(x), TypeError, "no truth value"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_to_use(call, error, message):
    with pytest.raises(error, match=message):
        call(Input(ROW))

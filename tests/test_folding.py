"""Normalization in Plans: folded into the weights for prediction, fused with activations and their slopes."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import leaf, names, ops, placed

import fastnn
from fastnn.backends.numpy import Program
from fastnn.layers import Activation, BatchNormalization, Conv2D, Dense, Flatten
from fastnn.ops import OPS
from fastnn.ops.batch_norm import batch_norm, batch_norm_dx, batch_norm_sums, normalize
from fastnn.ops.conv import conv, conv_dx
from fastnn.ops.depthwise import depthwise_conv
from fastnn.ops.matrix import add_bias, matmul
from fastnn.ops.pointwise import DENSE_ACTIVATIONS, add, relu, relu_dx, tanh
from fastnn.plan import Plan, choose, epilogues, fold_norms, fused_norms

SHAPE = {"strides": (1, 1), "pads": ((1, 1), (1, 1)), "dilations": (1, 1)}
ALL = (fold_norms, fused_norms, epilogues, choose)
WEIGHTS = ("w", "b", "mean", "variance", "gamma", "beta")


def linear(kind, bias):
    """What can be scaled by its weights, and its channels."""
    if kind == "matmul":
        y, channels = matmul(leaf(None, 4), leaf(4, 6, name="w")), 6
    elif kind == "matmul of places":
        y, channels = matmul(leaf(None, 3, 4), leaf(4, 6, name="w")), 6
    elif kind == "depthwise":
        y, channels = depthwise_conv(leaf(None, 5, 6, 3), leaf(3, 3, 3, 2, name="w"), **SHAPE), 6
    elif kind == "groups":
        y, channels = conv(leaf(None, 5, 6, 4), leaf(3, 3, 2, 6, name="w"), **SHAPE, groups=2), 6
    else:
        y, channels = conv(leaf(None, 5, 6, 16), leaf(3, 3, 16, 17, name="w"), **SHAPE), 17
    return (add_bias(y, leaf(channels, name="b")) if bias else y), channels


def given(channels):
    return [leaf(channels, name=name) for name in ("mean", "variance", "gamma", "beta")]


def fold(*roots):
    result = fold_norms(roots)
    return [result[root] for root in roots]


def run(plan, batch=3):
    """What the Plan makes of numbers that depend on the names of the buffers."""
    buffers = {"out": None}
    for step in (*plan.constants, *plan.steps):
        for array in step.inputs:
            name = array.place.buffer
            if name in WEIGHTS or name == "x":
                rng = np.random.default_rng(list(name.encode()))
                buffers[name] = abs(rng.normal(size=array.sized(batch))) + 0.1
        out = [o for o in step.outputs if o.place.buffer == "out"]
        if out:
            buffers["out"] = np.full(out[0].sized(batch), np.nan)
    program = Program(plan)
    program.prepare(buffers)
    program.run(buffers, 0, 1, batch, batch)
    return buffers["out"]


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kind", "op"),
    [
        ("matmul", "dense"),
        ("matmul of places", "dense"),
        ("depthwise", "fused_depthwise_conv"),
        ("groups", "fused_conv"),
        ("conv", "winograd_conv"),
    ],
)
def test_normalization_with_given_moments_goes_into_the_weights(kind, op, bias, activation):
    y, channels = linear(kind, bias)
    y = normalize(y, *given(channels), epsilon=0.01)
    if activation:
        y = OPS[activation](y)
    placed(y)
    plan = Plan([y], batch=3, dtype="float64", passes=ALL, weights=WEIGHTS)
    assert ops(plan) == [op]
    assert plan.steps[0].attrs["activation"] == (activation or "linear")
    assert "normalize_dx" in [step.op.name for step in plan.constants]
    apart = Plan([y], batch=3, dtype="float64", passes=())
    assert "normalize" in ops(apart)
    np.testing.assert_allclose(run(plan), run(apart), rtol=1e-9, atol=1e-10)


def test_what_is_read_before_it_is_normalized_stays_apart():
    for bias in (False, True):
        y, channels = linear("matmul", bias)
        found = add(normalize(y, *given(channels), epsilon=0.01), y)
        assert names(fold(placed(found)))[-2:] == ["normalize", "add"]
    product = matmul(leaf(None, 4), leaf(4, 6, name="w"))
    found = normalize(add_bias(product, leaf(6, name="b")), *given(6), epsilon=0.01)
    assert names(fold(placed(found), placed(tanh(product), "other"))) == ["matmul", "add_bias", "normalize", "tanh"]
    y, channels = linear("conv", False)
    found = normalize(placed(y, "kept"), *given(channels), epsilon=0.01)
    assert names(fold(placed(found))) == ["conv", "normalize"]


def test_what_is_not_linear_stays_apart():
    y = normalize(relu(linear("conv", True)[0]), *given(17), epsilon=0.01)
    assert names(fold(placed(y))) == ["conv", "add_bias", "relu", "normalize"]
    g, w = leaf(None, 5, 6, 6), leaf(3, 3, 2, 6, name="w")
    y = normalize(conv_dx(g, w, sizes=(5, 6), **SHAPE, groups=1), *given(2), epsilon=0.01)
    assert names(fold(placed(y))) == ["conv_dx", "normalize"]
    assert names(fold(placed(normalize(leaf(None, 6), *given(6), epsilon=0.01)))) == ["normalize"]
    moments = leaf(2, 17, name="moments")
    y = batch_norm(linear("conv", True)[0], moments, leaf(17, name="gamma"), leaf(17, name="beta"), epsilon=0.01)
    assert names(fold(placed(y))) == ["conv", "add_bias", "batch_norm"]


# Fused with activations


def fuse(*roots):
    result = fused_norms(roots)
    return [result[root] for root in roots]


def normalized(channels=4):
    x, moments = leaf(None, 5, channels), leaf(2, channels, name="moments")
    gamma, beta = leaf(channels, name="gamma"), leaf(channels, name="beta")
    return x, moments, gamma, beta, batch_norm(x, moments, gamma, beta, epsilon=0.01)


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS[1:])
def test_an_activation_goes_into_the_normalization(activation):
    *_, z = normalized()
    (y,) = fuse(placed(OPS[activation](z)))
    assert names([y]) == ["fused_batch_norm"]
    assert y.node.attrs == {"epsilon": 0.01, "activation": activation}
    z = normalize(leaf(None, 5, 4), *given(4), epsilon=0.02)
    (y,) = fuse(placed(OPS[activation](z)))
    assert names([y]) == ["fused_normalize"]
    assert y.node.attrs == {"epsilon": 0.02, "activation": activation}


def test_a_normalization_that_is_read_twice_stays_apart():
    *_, z = normalized()
    assert names(fuse(placed(add(z, relu(z))))) == ["batch_norm", "relu", "add"]
    *_, z = normalized()
    assert names(fuse(placed(relu(placed(z, "kept"))))) == ["batch_norm", "relu"]


def backward(slope=relu_dx, activation=relu, other=None):
    x, moments, gamma, _beta, z = normalized()
    y = activation(z)
    d = slope(leaf(*x.shape, name="g"), y)
    sums = batch_norm_sums(d, x if other is None else other, moments, epsilon=0.01)
    return [placed(y, "y"), placed(sums, "sums"), placed(batch_norm_dx(d, x, moments, gamma, sums, epsilon=0.01))]


def test_the_slope_of_relu_goes_into_the_gradients_of_the_normalization():
    found = fuse(*backward())
    assert names(found) == ["fused_batch_norm", "fused_batch_norm_sums", "fused_batch_norm_dx"]
    assert [i.name for i in found[1].node.inputs] == ["g", "x", "moments", "gamma", "beta"]
    assert [i.name for i in found[2].node.inputs[:5]] == ["g", "x", "moments", "gamma", "beta"]
    assert found[2].node.inputs[5] is found[1]


def test_other_slopes_stay_before_the_gradients():
    assert names(fuse(*backward(OPS["tanh_dx"], tanh)))[1:] == ["tanh_dx", "batch_norm_sums", "batch_norm_dx"]
    found = names(fuse(*backward(other=leaf(None, 5, 4, name="else"))))
    assert found[1:] == ["relu_dx", "batch_norm_sums", "fused_batch_norm_dx"]
    assert names(fuse(*backward(activation=tanh)))[1:] == ["relu_dx", "batch_norm_sums", "batch_norm_dx"]


# Models


def model(activation="relu", **options):
    fastnn.set_seed(3)
    made = fastnn.Sequential(
        [
            Conv2D(16, 3, padding="same", use_bias=False, input_shape=(7, 6, 3)),
            BatchNormalization(momentum=0.5, **options),
            Activation(activation),
            Conv2D(17, 3, padding="same"),
            BatchNormalization(momentum=0.5, scale=False, **options),
            Activation(activation),
            Flatten(),
            Dense(5),
            BatchNormalization(momentum=0.5, center=False, **options),
            Activation("softmax"),
        ]
    )
    made.compile("adam", "sparse_categorical_crossentropy")
    return made


def images(rows=40):
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, 7, 6, 3)).astype(np.float32), np.arange(rows) % 5


def layer_by_layer(made, x):
    for layer in made.layers:
        x = layer(x)
    return x


def test_a_folded_model_is_as_long_as_one_without_normalization():
    assert ops(model().plan(training=False)) == ["fused_conv", "winograd_conv", "dense", "softmax"]


def test_predictions_follow_the_moving_averages(backend):
    x, y = images()
    made, before = model(), []
    for _ in range(3):
        p = made.predict(x)
        np.testing.assert_allclose(p, layer_by_layer(made, x), rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(made(x), p)
        other = model()
        other.set_weights(made.get_weights())
        np.testing.assert_array_equal(other.predict(x), p)
        assert made.evaluate(x, y) == other.evaluate(x, y)
        assert p.tobytes() not in before
        before.append(p.tobytes())
        made.fit(x, y, batch_size=16, verbose=0)


def test_training_folds_nothing():
    made = model()
    assert not any("normalize" in name for name in ops(made.plan()))
    made.layers[1].trainable = False
    names = ops(made.plan())
    assert "fused_normalize" in names
    assert "conv" in names


def test_training_takes_the_fused_kernels():
    found = ops(model().plan())
    assert found.count("fused_batch_norm") == 2
    assert found.count("fused_batch_norm_sums") == found.count("fused_batch_norm_dx") == 2
    assert found.count("relu") == found.count("relu_dx") == 0
    assert found.count("batch_norm") == 1  # before softmax


def test_fused_training_computes_what_training_apart_computes(monkeypatch):
    x, y = images()
    results = []
    fastnn.config.set_backend("numpy")
    try:
        for apart in (False, True):
            if apart:
                monkeypatch.setattr("fastnn.steps.passes", lambda training: [])
            made = model()
            made.fit(x, y, batch_size=20, epochs=2, verbose=0)
            results.append(made.get_weights())
    finally:
        fastnn.config.set_backend("auto")
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-3, atol=2e-3)


def test_moving_averages_lie_behind_what_is_trained():
    made = model()
    offsets = [w.offset for w in sorted(made.weights, key=lambda w: not w.trainable)]
    assert offsets == sorted(offsets)
    assert ops(made.plan()).count("adam") == 1

"""Passes over the graph that put several ops into one."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import leaf, names, ops, placed

from fastnn.backends.numpy import Program
from fastnn.graph import Place
from fastnn.ops import OPS
from fastnn.ops.conv import conv, conv_dx
from fastnn.ops.depthwise import depthwise_conv
from fastnn.ops.focal import binary_focal_crossentropy, categorical_focal_crossentropy
from fastnn.ops.loss import binary_crossentropy as bce
from fastnn.ops.loss import categorical_crossentropy as cce
from fastnn.ops.loss import mean_squared_error as mse
from fastnn.ops.loss import sparse_categorical_crossentropy as scce
from fastnn.ops.matrix import add_bias, matmul, matmul_nt, sum_rows
from fastnn.ops.pointwise import DENSE_ACTIVATIONS, OUTPUT_GRADIENTS, add, relu, relu_dx, sigmoid, tanh
from fastnn.ops.pool import max_pool
from fastnn.ops.shape import reshape
from fastnn.ops.softmax import softmax
from fastnn.plan import Plan, choose, epilogues, losses_on_logits

# Losses on logits


@pytest.mark.parametrize(
    ("activation", "loss", "fused"),
    [
        (sigmoid, bce, "sigmoid_crossentropy"),
        (softmax, cce, "softmax_crossentropy"),
        (softmax, scce, "sparse_softmax_crossentropy"),
    ],
)
def test_a_loss_after_its_activation_is_computed_from_the_logits(activation, loss, fused):
    z, y = leaf(None, 3, name="z"), leaf(None, 1 if loss is scce else 3, name="y")
    p = activation(z)
    rows = loss(p, y)
    result = losses_on_logits([rows, p])
    assert names([result[rows]]) == [fused]
    assert result[rows].node.inputs == (z, y)
    assert names([result[p]]) == [activation.name]  # the prediction is still there for whoever wants it


@pytest.mark.parametrize(
    ("activation", "loss", "fused", "attrs"),
    [
        (sigmoid, binary_focal_crossentropy, "sigmoid_focal_crossentropy", {"positive": 0.3, "negative": 0.7}),
        (softmax, categorical_focal_crossentropy, "softmax_focal_crossentropy", {"class_weights": (0.25,) * 3}),
    ],
)
@pytest.mark.parametrize("space", [(), (4, 5)])
def test_a_focal_loss_after_its_activation_is_computed_from_the_logits(activation, loss, fused, attrs, space):
    z, y = leaf(None, *space, 3, name="z"), leaf(None, *space, 3, name="y")
    rows = losses_on_logits([loss(activation(z), y, gamma=2.0, **attrs)])
    (result,) = rows.values()
    assert names([result]) == [fused]
    assert result.node.inputs == (z, y) and result.node.attrs == {"gamma": 2.0, **attrs}


@pytest.mark.parametrize(
    ("activation", "loss"), [(softmax, bce), (sigmoid, cce), (sigmoid, mse), (tanh, bce), (relu, bce)]
)
def test_other_pairs_of_activation_and_loss_stay_apart(activation, loss):
    rows = loss(activation(leaf(None, 3)), leaf(None, 3, name="y"))
    assert names([losses_on_logits([rows])[rows]]) == [activation.name, loss.name]


def test_a_target_that_is_a_sigmoid_is_not_taken_for_the_prediction():
    rows = bce(leaf(None, 3), sigmoid(leaf(None, 3)))
    assert names([losses_on_logits([rows])[rows]]) == ["sigmoid", "binary_crossentropy"]


# Dense layers


def layer(activation=None, bias=True):
    """A product with what follows it, and all tensors on the way."""
    tensors = [matmul(leaf(None, 4), leaf(4, 3, name="w"))]
    if bias:
        tensors.append(add_bias(tensors[-1], leaf(3, name="b")))
    if activation is not None:
        tensors.append(OPS[activation](tensors[-1]))
    return tensors


def fuse(*roots):
    result = epilogues(roots)
    return [result[root] for root in roots]


@pytest.mark.parametrize("activation", [None, *DENSE_ACTIVATIONS[1:]])
@pytest.mark.parametrize("bias", [False, True])
def test_bias_and_activation_go_into_the_product(activation, bias):
    (y,) = fuse(placed(layer(activation, bias)[-1]))
    if activation is None and not bias:
        assert names([y]) == ["matmul"]
        return
    assert names([y]) == ["dense"]
    assert y.node.attrs == {"activation": activation or "linear"}
    assert [i.name for i in y.node.inputs] == ["x", "w", "b"][: 2 + bias]
    assert y.place == Place("out")


@pytest.mark.parametrize("activation", ["softmax", "leaky_relu", "elu"])
def test_activations_that_the_dense_op_has_not_stay_apart(activation):
    y = layer()[-1]
    attrs = {"leaky_relu": {"negative_slope": 0.1}, "elu": {"alpha": 1.0}}.get(activation, {})
    (z,) = fuse(placed(OPS[activation](y, **attrs)))
    assert names([z]) == ["dense", activation]


def test_a_second_activation_stays_apart():
    (y,) = fuse(placed(tanh(layer("relu")[-1])))
    assert names([y]) == ["dense", "tanh"]
    assert y.node.inputs[0].node.attrs == {"activation": "relu"}


def test_what_is_read_twice_is_not_fused_away():
    _, biased, active = layer("relu")
    assert names(fuse(placed(add(active, biased)))) == ["dense", "relu", "add"]
    product, _, active = layer("relu")
    assert names(fuse(placed(active), placed(tanh(product), "other"))) == ["matmul", "add_bias", "relu", "tanh"]


def test_what_is_wanted_itself_is_not_fused_away():
    _, biased, active = layer("relu")
    y, z = fuse(placed(active), placed(biased, "logits"))
    assert names([y, z]) == ["dense", "relu"]
    assert z.place == Place("logits")


def test_what_has_a_place_is_not_fused_away():
    product, _, active = layer("relu")
    placed(product, "kept")
    (y,) = fuse(placed(active))
    assert names([y]) == ["matmul", "add_bias", "relu"]


@pytest.mark.parametrize("activation", OUTPUT_GRADIENTS)
def test_the_slope_of_an_activation_goes_into_the_product_of_its_gradient(activation):
    g, w, y = leaf(None, 3, name="g"), leaf(4, 3, name="w"), leaf(None, 4, name="y")
    (d,) = fuse(placed(OPS[f"{activation}_dx"](matmul_nt(g, w), y)))
    assert names([d]) == ["dense_dx"]
    assert d.node.inputs == (g, w, y)
    assert d.node.attrs == {"activation": activation}


def test_slopes_that_need_the_activations_input_stay_apart():
    g, w, x = leaf(None, 3, name="g"), leaf(4, 3, name="w"), leaf(None, 4, name="x")
    assert names(fuse(placed(OPS["gelu_dx"](matmul_nt(g, w), x)))) == ["matmul_nt", "gelu_dx"]
    d = matmul_nt(g, w)
    assert names(fuse(placed(relu_dx(d, x)), placed(sum_rows(d), "b"))) == ["matmul_nt", "relu_dx", "sum_rows"]
    # the product may be what the slope is taken at, not the gradient
    assert names(fuse(placed(relu_dx(x, matmul_nt(g, w))))) == ["matmul_nt", "relu_dx"]


def test_a_fused_graph_computes_the_same():
    rng = np.random.default_rng(0)
    buffers = {
        "x": rng.normal(size=(5, 4)),
        "w": rng.normal(size=(4, 3)),
        "b": rng.normal(size=3),
        "out": np.empty((5, 3)),
    }
    plan = Plan([placed(layer("tanh")[-1])], batch=5, dtype="float64")
    assert ops(plan) == ["dense"]
    Program(plan).run(buffers, 0, 1, 5, 5)
    np.testing.assert_allclose(buffers["out"], np.tanh(buffers["x"] @ buffers["w"] + buffers["b"]), rtol=1e-13)


# Convolutions, views, pools

IMAGES = {"strides": (2, 1), "pads": ((1, 0), (1, 1)), "dilations": (1, 1), "groups": 2}


@pytest.mark.parametrize("activation", [None, *DENSE_ACTIVATIONS[1:]])
@pytest.mark.parametrize("bias", [False, True])
def test_bias_and_activation_go_into_the_convolution(activation, bias):
    y = conv(leaf(None, 7, 8, 4), leaf(3, 3, 2, 6, name="w"), **IMAGES)
    if bias:
        y = add_bias(y, leaf(6, name="b"))
    if activation:
        y = OPS[activation](y)
    (y,) = fuse(placed(y))
    if activation is None and not bias:
        assert names([y]) == ["conv"]
        return
    assert names([y]) == ["fused_conv"]
    assert y.node.attrs == {**IMAGES, "activation": activation or "linear"}
    assert [i.name for i in y.node.inputs] == ["x", "w", "b"][: 2 + bias]


def test_bias_and_activation_go_into_the_depthwise_convolution():
    attrs = {name: IMAGES[name] for name in ("strides", "pads", "dilations")}
    y = depthwise_conv(leaf(None, 7, 8, 4), leaf(3, 3, 4, 2, name="w"), **attrs)
    (y,) = fuse(placed(relu(add_bias(y, leaf(8, name="b")))))
    assert names([y]) == ["fused_depthwise_conv"]
    assert y.node.attrs == {**attrs, "activation": "relu"}
    assert [i.name for i in y.node.inputs] == ["x", "w", "b"]


@pytest.mark.parametrize("activation", OUTPUT_GRADIENTS)
def test_the_slope_of_an_activation_goes_into_the_convolution_of_its_gradient(activation):
    g, w, y = leaf(None, 3, 8, 6, name="g"), leaf(3, 3, 2, 6, name="w"), leaf(None, 7, 8, 4, name="y")
    (d,) = fuse(placed(OPS[f"{activation}_dx"](conv_dx(g, w, sizes=(7, 8), **IMAGES), y)))
    assert names([d]) == ["fused_conv_dx"]
    assert d.node.inputs == (g, w, y)
    assert d.node.attrs == {**IMAGES, "sizes": (7, 8), "activation": activation}


def behind_a_view(other=False):
    """The gradient of Flatten after an activation, at (N, 2, 3); perhaps somebody else reads it, too."""
    g = matmul_nt(leaf(None, 4, name="g"), leaf(6, 4, name="w"))
    d = relu_dx(reshape(g, shape=(2, 3)), leaf(None, 2, 3, name="y"))
    return [placed(d), *([placed(tanh(g), "other")] if other else [])]


def test_a_slope_goes_past_a_view_into_the_product():
    assert names(fuse(*behind_a_view())) == ["reshape", "dense_dx", "reshape"]
    plan = Plan(behind_a_view(), batch=5, dtype="float64")
    assert ops(plan) == ["dense_dx"]
    assert plan.steps[0].outputs[0].place == Place("out")  # made where it is wanted, under the other shape
    rng = np.random.default_rng(2)
    buffers = {"g": rng.normal(size=(5, 4)), "w": rng.normal(size=(6, 4)), "y": rng.normal(size=(5, 2, 3))}
    buffers["out"] = np.empty((5, 2, 3))
    Program(plan).run(buffers, 0, 1, 5, 5)
    wanted = (buffers["g"] @ buffers["w"].T).reshape(5, 2, 3) * (buffers["y"] > 0)
    np.testing.assert_allclose(buffers["out"], wanted, rtol=1e-13)


def test_a_slope_stays_where_somebody_else_needs_the_gradient():
    assert names(fuse(*behind_a_view(other=True))) == ["matmul_nt", "reshape", "relu_dx", "tanh"]


POOL = {"kernel": (3, 2), "strides": (2, 2), "pads": ((1, 0), (0, 1))}


def pooled(pool, slope="tanh"):
    """Gradients of a bias and of a convolution's input, behind a pool of an activation's output."""
    y = leaf(None, 6, 5, 4, name="y")
    p = pool(y, **(POOL if pool is max_pool else {}))
    g = leaf(*p.shape[:-1], 3, name="g")
    if pool is max_pool:
        shape = {"strides": (1, 1), "pads": ((0, 0), (0, 0)), "dilations": (1, 1), "groups": 1}
        back = conv_dx(g, leaf(1, 1, 4, 3, name="w"), sizes=p.shape[1:-1], **shape)
        back = OPS["max_pool_dx"](back, y, p, **POOL)
    else:
        back = OPS["global_max_pool_dx"](matmul_nt(g, leaf(4, 3, name="w")), y, p)
    d = OPS[f"{slope}_dx"](back, y)
    return [placed(d), placed(sum_rows(d), "bias")]


@pytest.mark.parametrize("pool", [max_pool, OPS["global_max_pool"]], ids=lambda pool: pool.name)
def test_a_slope_is_taken_before_a_maximum_is_unpooled(pool):
    assert ops(Plan(pooled(pool), batch=2)) == [pool.name, "dense_dx", f"{pool.name}_dx", "sum_rows"]
    results = []
    for passes in ((epilogues, choose), ()):
        plan = Plan(pooled(pool), batch=3, dtype="float64", passes=passes)
        sizes = {i.place.buffer: i.sized(3) for step in plan.steps for i in step.inputs}
        rng = np.random.default_rng(3)
        buffers = {name: rng.normal(size=sizes[name]) for name in "gwy"}
        buffers |= {"out": np.full((3, 6, 5, 4), np.nan), "bias": np.full(4, np.nan)}
        Program(plan).run(buffers, 0, 1, 3, 3)
        results.append((buffers["out"], buffers["bias"]))
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)


def test_slopes_that_need_the_activations_input_stay_behind_the_pool():
    assert names(fuse(*pooled(max_pool, "gelu"))) == ["max_pool", "conv_dx", "max_pool_dx", "gelu_dx", "sum_rows"]


def test_a_pool_of_something_else_keeps_the_slope_behind_it():
    x, y = leaf(None, 6, 5, 4), leaf(None, 6, 5, 4, name="y")
    p = max_pool(x, **POOL)
    d = relu_dx(OPS["max_pool_dx"](leaf(*p.shape, name="g"), x, p, **POOL), y)
    assert names(fuse(placed(d))) == ["max_pool", "max_pool_dx", "relu_dx"]


# Sums


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_relu_goes_into_the_sum_before_it_and_its_slope_into_the_sum_of_gradients(dtype):
    a, b = leaf(None, 5, name="a"), leaf(None, 5, name="b")
    y = relu(add(a, b))
    d = relu_dx(add(leaf(None, 5, name="g"), tanh(y)), y)
    plan = Plan([placed(d)], batch=3, dtype=dtype)
    assert ops(plan) == ["add_relu", "tanh", "add_relu_dx"]
    rng = np.random.default_rng(3)
    buffers = {name: rng.normal(size=(3, 5)).astype(dtype) for name in "abg"}
    buffers["out"] = np.zeros((3, 5), dtype)
    Program(plan).run(buffers, 0, 1, 3, 3)
    total = np.maximum(buffers["a"] + buffers["b"], 0)
    np.testing.assert_allclose(buffers["out"], np.where(total > 0, buffers["g"] + np.tanh(total), 0), rtol=1e-6)


def test_a_sum_that_somebody_else_reads_keeps_its_relu_behind_it():
    total = add(leaf(None, 5), leaf(None, 5, name="y"))
    assert names(fuse(placed(relu(total)), placed(tanh(total), "other"))) == ["add", "relu", "tanh"]
    g = add(leaf(None, 5, name="g"), leaf(None, 5, name="h"))
    assert names(fuse(placed(relu_dx(g, leaf(None, 5))), placed(tanh(g), "other"))) == ["add", "relu_dx", "tanh"]

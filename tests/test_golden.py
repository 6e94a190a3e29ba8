"""Values worked out by hand, for what generated tests cannot know: that the reference itself is right."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

import fastnn
from fastnn import backends, initializers, optimizers, schedules
from fastnn.layers import Dense
from fastnn.ops import OPS
from fastnn.ops.random import philox, random_words, uniform


def run(backend, op, *arrays, **attrs):
    outputs, compute = backends.single(backend, op, [np.asarray(a) for a in arrays], attrs)
    compute()
    return outputs[0] if len(outputs) == 1 else outputs


def close(actual, wanted):
    np.testing.assert_allclose(actual, np.asarray(wanted, float), rtol=2e-6, atol=1e-7)


# Dense, 2 rows, 2 inputs, 2 outputs:
#   x = [1 2]   w = [ 1 -1]   b = [0.5 -1]   x w = [1+6  -1+4] = [7 3]   + b = [ 7.5  2]
#       [3 4]       [ 3  2]                        [3+12 -3+8]   [15 5]         [15.5  4]
X, W, B = [[1.0, 2.0], [3.0, 4.0]], [[1.0, -1.0], [3.0, 2.0]], [0.5, -1.0]


def test_dense_forward(backend):
    close(run(backend, "matmul", X, W), [[7.0, 3.0], [15.0, 5.0]])
    close(run(backend, "dense", X, W, B), [[7.5, 2.0], [15.5, 4.0]])
    close(run(backend, "dense", X, W, [-8.0, -4.0], activation="relu"), [[0.0, 0.0], [7.0, 1.0]])


def test_a_weight_under_another_shape(backend):
    assert run(backend, "reshape_weight", [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]], shape=(3, 2)).tolist() == [
        [1.0, 2.0],
        [3.0, 4.0],
        [5.0, 6.0],
    ]


def test_dense_backward(backend):
    # g = [1 10]     g w^T = [1-10    3+20 ] = [ -9  23]   x^T g = [1+6  10-3] = [ 7  7]   sum of rows = [3 9]
    #     [2 -1]             [2+1     6-2  ]   [  3   4]           [2+8  20-4]   [10 16]
    g = [[1.0, 10.0], [2.0, -1.0]]
    close(run(backend, "matmul_nt", g, W), [[-9.0, 23.0], [3.0, 4.0]])
    close(run(backend, "matmul_tn", X, g), [[7.0, 7.0], [10.0, 16.0]])
    close(run(backend, "sum_rows", g), [3.0, 9.0])
    # the input was relu's output [0 5; 2 0]: the gradient passes where it is positive
    close(run(backend, "dense_dx", g, W, [[0.0, 5.0], [2.0, 0.0]], activation="relu"), [[0.0, 23.0], [3.0, 0.0]])


def test_dense_along_several_axes(backend):
    # the same two rows as above, side by side in one image of 1 by 2 pixels
    x, g = np.reshape(X, (1, 1, 2, 2)), np.reshape([[1.0, 10.0], [2.0, -1.0]], (1, 1, 2, 2))
    close(run(backend, "matmul", x, W), [[[[7.0, 3.0], [15.0, 5.0]]]])
    close(run(backend, "dense", x, W, B), [[[[7.5, 2.0], [15.5, 4.0]]]])
    close(run(backend, "matmul_nt", g, W), [[[[-9.0, 23.0], [3.0, 4.0]]]])
    close(run(backend, "matmul_tn", x, g), [[7.0, 7.0], [10.0, 16.0]])
    close(run(backend, "sum_rows", g), [3.0, 9.0])


# One row of two pixels with one channel, 0 and 4


def test_up_sampling_and_its_gradients(backend):
    x, g = np.reshape([0.0, 4.0], (1, 1, 2, 1)), np.reshape([1.0, 2.0, 3.0, 4.0], (1, 1, 4, 1))
    flat = {name: run(backend, name, a, kernel=(1, 2)).reshape(-1) for name, a in (
        ("upsample_nearest", x), ("upsample_bilinear", x), ("upsample_nearest_dx", g), ("upsample_bilinear_dx", g)
    )}  # fmt: skip
    close(flat["upsample_nearest"], [0.0, 0.0, 4.0, 4.0])
    close(flat["upsample_nearest_dx"], [3.0, 7.0])
    # centres lie at -1/4, 1/4, 3/4, 5/4 of the input: x0, 3/4 x0 + 1/4 x1, 1/4 x0 + 3/4 x1, x1
    close(flat["upsample_bilinear"], [0.0, 1.0, 3.0, 4.0])
    # 1 + 3/4 2 + 1/4 3 and 1/4 2 + 3/4 3 + 4
    close(flat["upsample_bilinear_dx"], [3.25, 6.75])


def test_padding_cropping_and_transposition(backend):
    x = np.arange(6.0).reshape(1, 2, 3, 1)
    y = run(backend, "zero_pad", x, pads=((0, 1), (2, 0)))
    close(y[0, :, :, 0], [[0, 0, 0, 1, 2], [0, 0, 3, 4, 5], [0, 0, 0, 0, 0]])
    close(run(backend, "crop", x, pads=((1, 0), (0, 1)))[0, :, :, 0], [[3, 4]])
    close(run(backend, "transpose", x, perm=(2, 3, 1)), [[[[0, 3]], [[1, 4]], [[2, 5]]]])


def test_joining_and_taking_apart(backend):
    a, b = [[[1.0, 2.0], [3.0, 4.0]]], [[[5.0], [6.0]]]
    y = [[[1.0, 2.0, 5.0], [3.0, 4.0, 6.0]]]
    close(run(backend, "concatenate", a, b, axis=2), y)
    close(run(backend, "concatenate", a, [[[7.0, 8.0]]], a, axis=1), [[[1, 2], [3, 4], [7, 8], [1, 2], [3, 4]]])
    close(run(backend, "part", y, axis=2, start=1, size=2), [[[2.0, 5.0], [4.0, 6.0]]])
    close(run(backend, "embed", b, axis=2, start=1, whole=3), [[[0.0, 5.0, 0.0], [0.0, 6.0, 0.0]]])
    close(run(backend, "embed", a, axis=1, start=1, whole=3), [[[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]]])


def test_repeating_and_summing_along_axes(backend):
    # two pixels of two channels; one number for each channel, or for each pixel
    close(run(backend, "broadcast", [[[1.0, 2.0]]], shape=(2, 2)), [[[1.0, 2.0], [1.0, 2.0]]])
    close(run(backend, "broadcast", [[[1.0], [2.0]]], shape=(2, 2)), [[[1.0, 1.0], [2.0, 2.0]]])
    g = [[[1.0, 2.0], [3.0, 5.0]], [[7.0, 11.0], [13.0, 17.0]]]
    close(run(backend, "sum_to", g, shape=(1, 2)), [[[4.0, 7.0]], [[20.0, 28.0]]])
    close(run(backend, "sum_to", g, shape=(2, 1)), [[[3.0], [8.0]], [[18.0], [30.0]]])
    close(run(backend, "sum_to", g, shape=(1, 1)), [[[11.0]], [[48.0]]])


def test_quotients_roots_and_logarithms(backend):
    close(run(backend, "divide", [[1.0, -3.0, 1.0]], [[4.0, 2.0, 0.0]]), [[0.25, -1.5, np.inf]])
    close(run(backend, "reciprocal", [[4.0, -0.5]]), [[0.25, -2.0]])
    close(run(backend, "sqrt", [[0.0, 2.25, 9.0]]), [[0.0, 1.5, 3.0]])
    close(run(backend, "log", [[1.0, np.e, 0.0, 8.0]]), [[0.0, 1.0, -np.inf, 3.0 * np.log(2.0)]])
    close(run(backend, "log", [[1e-30, 1e30]]), [[-30.0 * np.log(10.0), 30.0 * np.log(10.0)]])
    assert np.isnan(run(backend, "log", [[-1.0]])).all()
    assert np.isnan(run(backend, "sqrt", [[-1.0]])).all()


def test_rows_and_vectors(backend):
    close(run(backend, "scale_columns", [[1.0, 2.0], [3.0, 4.0]], [10.0, -1.0]), [[10.0, -2.0], [30.0, -4.0]])
    close(run(backend, "repeat_rows", [[0.0], [0.0]], [1.0, 2.0]), [[1.0, 2.0], [1.0, 2.0]])


def test_merging_element_by_element(backend):
    a, b, g = [[1.0, 2.0, 3.0]], [[3.0, 2.0, -1.0]], [[8.0, 4.0, 2.0]]
    close(run(backend, "subtract", a, b), [[-2.0, 0.0, 4.0]])
    close(run(backend, "affine", a, scale=-0.5), [[-0.5, -1.0, -1.5]])
    close(run(backend, "affine", a, scale=2.0, offset=0.5), [[2.5, 4.5, 6.5]])
    assert np.signbit(run(backend, "affine", [[0.0, -0.0]], scale=-1.0)).tolist() == [[True, False]]
    close(run(backend, "maximum", a, b), [[3.0, 2.0, 3.0]])
    close(run(backend, "minimum", a, b), [[1.0, 2.0, -1.0]])
    # where both are equal, each has half of the gradient
    close(run(backend, "maximum_dx", g, a, b), [[0.0, 2.0, 2.0]])
    close(run(backend, "maximum_dx", g, b, a), [[8.0, 2.0, 0.0]])
    arrays = [np.array(array) for array in (g, b, a, b)]
    assert [part.tolist() for part in OPS["minimum"].gradient(*arrays)] == [[[8.0, 2.0, 0.0]], [[0.0, 2.0, 2.0]]]


def test_a_relu_of_a_sum(backend):
    a, b, y = np.array([[1.0, -2.0, 3.0]]), np.array([[0.5, 1.0, -4.0]]), np.array([[0.0, 2.0, 0.5]])
    close(run(backend, "add_relu", a, b), [[1.5, 0.0, 0.0]])
    close(run(backend, "add_relu_dx", a, b, y), [[0.0, -1.0, -1.0]])


def test_products_of_rows_with_rows(backend):
    # rows 1 2 and 0 1 with rows 3 4, 5 6 and 1 -1; in the second item all is twice as large
    a, b = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[3.0, 4.0], [5.0, 6.0], [1.0, -1.0]])
    y = np.array([[11.0, 17.0, -1.0], [4.0, 6.0, -1.0]])
    close(run(backend, "batch_dot", [a, 2 * a], [b, 2 * b]), [y, 4 * y])


def test_rectifiers(backend):
    attrs = {"negative_slope": 0.5, "limit": 3.0, "threshold": 1.0}
    x, g = [[-1.0, 1.0, 2.0, 5.0]], [[2.0, 4.0, 6.0, 8.0]]
    close(run(backend, "bounded_relu", x, **attrs), [[-1.0, 0.0, 2.0, 3.0]])  # 0.5 * (-1 - 1)
    close(run(backend, "bounded_relu_dx", g, x, **attrs), [[1.0, 2.0, 6.0, 0.0]])
    image = np.reshape([-1.0, 2.0, 3.0, -4.0], (1, 2, 2))  # two steps of two channels
    close(run(backend, "prelu", image, [[0.5, 0.25]]), [[[-0.5, 2.0], [3.0, -1.0]]])
    close(run(backend, "prelu", image, [[0.5], [0.25]]), [[[-0.5, 2.0], [3.0, -1.0]]])
    close(run(backend, "prelu_dx", np.full((1, 2, 2), 2.0), image, [[0.5, 0.25]]), [[[1.0, 2.0], [2.0, 0.5]]])
    close(run(backend, "prelu_parts", np.full((1, 2, 2), 2.0), image), [[[-2.0, 0.0], [0.0, -8.0]]])


@pytest.mark.parametrize(
    ("name", "x", "y", "slope"),
    [
        ("relu", 2.0, 2.0, 1.0),
        ("relu", -2.0, 0.0, 0.0),
        ("sigmoid", math.log(3.0), 0.75, 0.1875),  # 3 / (1 + 3); 3/4 * 1/4
        ("tanh", math.log(2.0), 0.6, 0.64),  # (2 - 1/2) / (2 + 1/2); 1 - 0.36
        ("softplus", math.log(3.0), math.log(4.0), 0.75),  # log(1 + 3); sigmoid
        ("exponential", math.log(5.0), 5.0, 5.0),
        ("softsign", 3.0, 0.75, 0.0625),  # 1 / (1 + 3)^2
        ("hard_sigmoid", 1.5, 0.75, 1 / 6),
        ("hard_sigmoid", 4.0, 1.0, 0.0),
        ("relu6", 7.0, 6.0, 0.0),
        ("selu", 1.0, 1.0507009873554805, 1.0507009873554805),
        ("selu", -math.log(2.0), -0.87904966, 0.87904966),  # scale * alpha * (1/2 - 1); slope scale * alpha / 2
        ("gelu", 1.0, 0.8413447461, 1.0833154706),  # Phi(1); Phi(1) + phi(1), phi(1) = 0.2419707245
        ("silu", math.log(3.0), 0.75 * math.log(3.0), 0.75 + 0.1875 * math.log(3.0)),
        ("hard_silu", 1.5, 1.125, 1.0),  # 1.5 * 0.75; 1.5 / 3 + 1/2
        ("mish", 0.0, 0.0, 0.6),  # tanh(log 2)
    ],
)
def test_activations_and_their_slopes(backend, name, x, y, slope):
    close(run(backend, name, [[x]]), [[y]])
    given = x if "x" in OPS[f"{name}_dx"].inputs else y
    close(run(backend, f"{name}_dx", [[2.0]], [[given]]), [[2.0 * slope]])


def test_softmax(backend):
    # e^0 : e^log 2 : e^log 5 = 1 : 2 : 5
    z = [[0.0, math.log(2.0), math.log(5.0)]]
    close(run(backend, "softmax", z), [[0.125, 0.25, 0.625]])
    # y (g - sum g y), g = [8 0 0]: sum = 1
    close(run(backend, "softmax_dx", [[8.0, 0.0, 0.0]], [[0.125, 0.25, 0.625]]), [[0.875, -0.25, -0.625]])


def test_sigmoid_crossentropy(backend):
    # logits log 3 and -log 3: sigmoid 3/4 and 1/4. Targets 1 and 0: -log(3/4) each
    z = [[math.log(3.0), -math.log(3.0)]]
    close(run(backend, "sigmoid_crossentropy", z, [[1.0, 0.0]]), [math.log(4 / 3)])
    close(run(backend, "binary_crossentropy", [[0.75, 0.25]], [[1.0, 0.0]]), [math.log(4 / 3)])
    # targets 0 and 0: (-log(1/4) - log(3/4)) / 2; the gradient is (sigmoid - y) / 2
    close(run(backend, "sigmoid_crossentropy", z, [[0.0, 0.0]]), [(math.log(4.0) + math.log(4 / 3)) / 2])
    close(run(backend, "sigmoid_crossentropy_dx", [2.0], z, [[0.0, 1.0]]), [[0.75, -0.75]])
    # and does not overflow
    close(run(backend, "sigmoid_crossentropy", [[1000.0, -1000.0]], [[0.0, 0.0]]), [500.0])


def test_softmax_crossentropy(backend):
    z = [[0.0, math.log(2.0), math.log(5.0)], [1000.0, 0.0, 0.0]]
    onehot, labels = [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]], [[1.0], [1.0]]
    close(run(backend, "softmax_crossentropy", z, onehot), [math.log(4.0), 1000.0])
    close(run(backend, "sparse_softmax_crossentropy", z, labels), [math.log(4.0), 1000.0])
    wanted = [[0.125, -0.75, 0.625], [1.0, -1.0, 0.0]]
    close(run(backend, "softmax_crossentropy_dx", [1.0, 1.0], z, onehot), wanted)
    close(run(backend, "sparse_softmax_crossentropy_dx", [1.0, 1.0], z, labels), wanted)
    # on probabilities, which are scaled to sum 1 first: 2 / 16
    close(run(backend, "categorical_crossentropy", [[2.0, 4.0, 10.0]], [[1.0, 0.0, 0.0]]), [math.log(8.0)])
    close(run(backend, "sparse_categorical_crossentropy", [[2.0, 4.0, 10.0]], [[0.0]]), [math.log(8.0)])


def test_squared_and_absolute_error(backend):
    p, y = [[1.0, 5.0], [0.0, -2.0]], [[0.0, 2.0], [0.5, -2.0]]
    close(run(backend, "mean_squared_error", p, y), [5.0, 0.125])  # (1 + 9) / 2, (1/4 + 0) / 2
    close(run(backend, "mean_absolute_error", p, y), [2.0, 0.25])
    close(run(backend, "mean_squared_error_dx", [1.0, 2.0], p, y), [[1.0, 3.0], [-1.0, 0.0]])
    close(run(backend, "mean_absolute_error_dx", [1.0, 2.0], p, y), [[0.5, 0.5], [-1.0, 0.0]])


def test_accuracies(backend):
    close(run(backend, "binary_accuracy", [[0.5, 0.6, 0.9, 0.1]], [[0.0, 1.0, 0.0, 0.0]], threshold=0.5), [0.75])
    p = [[0.4, 0.4, 0.2], [0.1, 0.2, 0.7]]  # the first of equals counts
    close(run(backend, "categorical_accuracy", p, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), [1.0, 0.0])
    close(run(backend, "sparse_categorical_accuracy", p, [[1.0], [2.0]]), [0.0, 1.0])


# Depthwise convolution, one image of 2 x 3 pixels and two channels, each with a kernel of its own:
#   [1 2 3] with [1 0]   [1+10  2+12]   [11 14]     [0 1 0] with [1 -1]   [0-1+6+0  1-0+0+0]   [5 1]
#   [4 5 6]      [0 2] =              =             [2 0 1]      [3  0] =                    =
DEPTHWISE_X = np.array([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[0.0, 1.0, 0.0], [2.0, 0.0, 1.0]]])
DEPTHWISE_X = DEPTHWISE_X.transpose(1, 2, 0)[None]  # channels last
DEPTHWISE_W = np.array([[[1.0, 0.0], [0.0, 2.0]], [[1.0, -1.0], [3.0, 0.0]]]).transpose(1, 2, 0)[..., None]
PLAIN = {"strides": (1, 1), "pads": ((0, 0), (0, 0)), "dilations": (1, 1)}


def test_depthwise_convolution(backend):
    close(run(backend, "depthwise_conv", DEPTHWISE_X, DEPTHWISE_W, **PLAIN), [[[[11.0, 5.0], [14.0, 1.0]]]])
    y = run(backend, "fused_depthwise_conv", DEPTHWISE_X, DEPTHWISE_W, [-12.0, 1.0], activation="relu", **PLAIN)
    close(y, [[[[0.0, 6.0], [2.0, 2.0]]]])


def test_depthwise_convolution_backward(backend):
    # g = 1 10 and 2 -1: each kernel times g, at the two places; each of the two windows times g
    g = np.array([[[[1.0, 2.0], [10.0, -1.0]]]])
    dx = run(backend, "depthwise_conv_dx", g, DEPTHWISE_W, sizes=(2, 3), **PLAIN)[0]
    close(dx[..., 0], [[1.0, 10.0, 0.0], [0.0, 2.0, 20.0]])
    close(dx[..., 1], [[2.0, -3.0, 1.0], [6.0, -3.0, 0.0]])
    dw = run(backend, "depthwise_conv_dw", DEPTHWISE_X, g, kernel=(2, 2), **PLAIN)[..., 0]
    close(dw[..., 0], [[21.0, 32.0], [54.0, 65.0]])
    close(dw[..., 1], [[-1.0, 2.0], [4.0, -1.0]])


def test_depthwise_convolution_with_two_filters_a_channel(backend):
    # the signal 1 2 3 behind a zero, windows 0 1 and 2 3; filters 1 1 and 1 -1
    x, w = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1), np.array([[1.0, 1.0], [1.0, -1.0]]).reshape(2, 1, 2)
    attrs = {"strides": (2,), "pads": ((1, 0),), "dilations": (1,)}
    close(run(backend, "depthwise_conv", x, w, **attrs), [[[1.0, -1.0], [5.0, -1.0]]])
    g = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    # 1 * 1 + 2 * -1; 3 * 1 + 4 * 1; 3 * 1 + 4 * -1
    close(run(backend, "depthwise_conv_dx", g, w, sizes=(3,), **attrs)[0, :, 0], [-1.0, 7.0, -1.0])
    # 0 * 1 + 2 * 3, 0 * 2 + 2 * 4; 1 * 1 + 3 * 3, 1 * 2 + 3 * 4
    close(run(backend, "depthwise_conv_dw", x, g, kernel=(2,), **attrs)[:, 0], [[6.0, 8.0], [10.0, 14.0]])


# Pooling, one image of 3 x 4 pixels and one channel:
#   x = [1 5 2 2]
#       [5 3 2 0]
#       [4 6 7 1]
IMAGE = np.array([[1.0, 5.0, 2.0, 2.0], [5.0, 3.0, 2.0, 0.0], [4.0, 6.0, 7.0, 1.0]]).reshape(1, 3, 4, 1)
SIDE_BY_SIDE = {"kernel": (2, 2), "strides": (2, 2), "pads": ((0, 1), (0, 0))}  # the last row of windows has one row
OVERLAPPING = {"kernel": (2, 3), "strides": (1, 1), "pads": ((0, 0), (0, 0))}


def test_max_pool(backend):
    close(run(backend, "max_pool", IMAGE, **SIDE_BY_SIDE).reshape(2, 2), [[5.0, 2.0], [6.0, 7.0]])
    close(run(backend, "max_pool", IMAGE, **OVERLAPPING).reshape(2, 2), [[5.0, 5.0], [7.0, 7.0]])
    below_zero = run(backend, "max_pool", [[[-1.0], [-2.0], [-3.0]]], kernel=(3,), strides=(1,), pads=((1, 1),))
    close(below_zero[0, :, 0], [-1.0, -1.0, -2.0])  # padding is not 0


def test_max_pool_backward(backend):
    # the first 5 of the first window, of the second the first 2, of the others 6 and 7
    g = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    y = np.array([[5.0, 2.0], [6.0, 7.0]]).reshape(1, 2, 2, 1)
    dx = run(backend, "max_pool_dx", g, IMAGE, y, **SIDE_BY_SIDE)
    close(dx.reshape(3, 4), [[0.0, 1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 3.0, 4.0, 0.0]])
    # both windows above take the 5 in the first row, both below the 7
    y = np.array([[5.0, 5.0], [7.0, 7.0]]).reshape(1, 2, 2, 1)
    dx = run(backend, "max_pool_dx", g, IMAGE, y, **OVERLAPPING)
    close(dx.reshape(3, 4), [[0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 7.0, 0.0]])


def test_average_pool(backend):
    # (1 + 5 + 5 + 3) / 4, (2 + 2 + 2 + 0) / 4; (4 + 6) / 2, (7 + 1) / 2
    close(run(backend, "average_pool", IMAGE, **SIDE_BY_SIDE).reshape(2, 2), [[3.5, 1.5], [5.0, 4.0]])
    # (1 + 5 + 2 + 5 + 3 + 2) / 6 = 18 / 6, (5 + 2 + 2 + 3 + 2 + 0) / 6 = 14 / 6, 27 / 6, 19 / 6
    close(run(backend, "average_pool", IMAGE, **OVERLAPPING).reshape(2, 2), [[3.0, 14 / 6], [4.5, 19 / 6]])


def test_average_pool_backward(backend):
    g = np.array([[4.0, 8.0], [2.0, 6.0]]).reshape(1, 2, 2, 1)
    dx = run(backend, "average_pool_dx", g, sizes=(3, 4), **SIDE_BY_SIDE)
    close(dx.reshape(3, 4), [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0]])
    # sixths: 4 12 12 8 / 4+2 12+8 12+8 8+6 / 2 8 8 6
    dx = run(backend, "average_pool_dx", g, sizes=(3, 4), **OVERLAPPING)
    close(6.0 * dx.reshape(3, 4), [[4.0, 12.0, 12.0, 8.0], [6.0, 20.0, 20.0, 14.0], [2.0, 8.0, 8.0, 6.0]])


def test_global_pooling(backend):
    x = IMAGE.reshape(1, 3, 2, 2)  # channels 1 2 5 2 4 7 and 5 2 3 0 6 1
    close(run(backend, "global_max_pool", x), [[7.0, 6.0]])
    close(run(backend, "global_average_pool", x), [[3.5, 17 / 6]])
    dx = run(backend, "global_max_pool_dx", [[2.0, 3.0]], x, [[7.0, 6.0]])
    close(dx.reshape(6, 2), [[0.0, 0.0]] * 4 + [[0.0, 3.0], [2.0, 0.0]])
    dx = run(backend, "global_average_pool_dx", [[6.0, 3.0]], sizes=(3, 2))
    close(dx.reshape(6, 2), [[1.0, 0.5]] * 6)


# Convolution. X3 = 1 2 3   with K2 = 1 2   without padding:  37 47
#                   4 5 6             3 4                     67 77
#                   7 8 9

X3, K2 = np.arange(1.0, 10.0).reshape(1, 3, 3, 1), np.arange(1.0, 5.0).reshape(2, 2, 1, 1)
G2 = np.arange(1.0, 5.0).reshape(1, 2, 2, 1)
PLAIN = {"strides": (1, 1), "pads": ((0, 0), (0, 0)), "dilations": (1, 1)}


def test_convolution(backend):
    close(run(backend, "conv", X3, K2, **PLAIN)[0, :, :, 0], [[37.0, 47.0], [67.0, 77.0]])
    # zeros all around, every other place: 4 1, 3 2 + 4 3, 2 4 + 4 7, 5 + 2 6 + 3 8 + 4 9
    y = run(backend, "conv", X3, K2, strides=(2, 2), pads=((1, 1), (1, 1)), dilations=(1, 1))
    close(y[0, :, :, 0], [[4.0, 18.0], [36.0, 77.0]])
    # two groups of one channel, over every other step: 1 - 3, 2 - 4; 10 / 2 + 2 30, 20 / 2 + 2 40
    x, w = [[[1, 10], [2, 20], [3, 30], [4, 40]]], [[[1, 0.5]], [[-1, 2]]]
    y = run(backend, "conv", np.array(x, float), w, strides=(1,), pads=((0, 0),), dilations=(2,), groups=2)
    close(y, [[[-2.0, 65.0], [-2.0, 90.0]]])
    volume, w = np.arange(8.0).reshape(1, 2, 2, 2, 1), np.arange(1.0, 9.0).reshape(2, 2, 2, 1, 1)
    y = run(backend, "conv", volume, w, strides=(1, 1, 1), pads=((0, 0),) * 3, dilations=(1, 1, 1))
    close(y.reshape(-1), [168.0])  # 0 1 + 1 2 + ... + 7 8
    y = run(backend, "fused_conv", X3, K2, [-50.0], **PLAIN, activation="relu")
    close(y[0, :, :, 0], [[0.0, 0.0], [17.0, 27.0]])
    y = run(backend, "fused_conv", X3, K2, **PLAIN, activation="relu6")
    close(y[0, :, :, 0], [[6.0, 6.0], [6.0, 6.0]])


def test_gradients_of_convolution(backend):
    # each g puts down its kernel: 1      2 1 + 2   2 2        1   4   4
    #                              3 + 3  4 + 6 + 6 + 4  8 + 8   6  20  16
    #                              9      12 + 12        16      9  24  16
    wanted = [[1.0, 4.0, 4.0], [6.0, 20.0, 16.0], [9.0, 24.0, 16.0]]
    close(run(backend, "conv_dx", G2, K2, **PLAIN, sizes=(3, 3))[0, :, :, 0], wanted)
    # of stride 2, and the kernels do not overlap; the first row and column were padding
    dx = run(backend, "conv_dx", G2, K2, strides=(2, 2), pads=((1, 0), (1, 0)), dilations=(1, 1), sizes=(3, 3))
    close(dx[0, :, :, 0], [[4.0, 6.0, 8.0], [6.0, 4.0, 8.0], [12.0, 12.0, 16.0]])
    # a pixel that no window saw
    dx = run(backend, "conv_dx", [[[7.0]]], [[[2.0]]], strides=(2,), pads=((0, 0),), dilations=(1,), sizes=(2,))
    close(dx, [[[14.0], [0.0]]])
    y = (np.arange(9) % 2.0).reshape(1, 3, 3, 1)
    dx = run(backend, "fused_conv_dx", G2, K2, y, **PLAIN, sizes=(3, 3), activation="relu")
    close(dx, np.where(y > 0, np.array(wanted).reshape(y.shape), 0.0))
    # as the convolution of X3 with g
    close(run(backend, "conv_dw", X3, G2, **PLAIN, kernel=(2, 2))[:, :, 0, 0], [[37.0, 47.0], [67.0, 77.0]])


def near(actual, wanted, op, *arrays, **attrs):
    """Within the rounding of op.terms operations on numbers of the size of op.scale."""
    scale = OPS[op].scale(*map(np.asarray, arrays), **attrs)
    terms = OPS[op].terms(*(np.shape(a) for a in arrays), **attrs)
    assert (abs(actual - wanted) <= 2.0**-23 * terms * scale).all(), actual


def test_winograd(backend):
    # rows of G: 1; -(1 p p^2) / 1.5 for p = +-0.70710678; (1 p p^2) / 6 for p = +-1.41421356; p^2 for infinity
    u = run(backend, "winograd_weights", [[[1.0]], [[2.0]], [[3.0]]], flip=False)
    assert u.shape == (6, 1, 1, 32)
    close(u[:, 0, 0, 0], [1.0, -2.60947571, -0.72385763, 1.63807119, 0.69526215, 3.0])
    assert not u[..., 1:].any()
    flipped = run(backend, "winograd_weights", [[[1.0]], [[2.0]], [[3.0]]], flip=True)
    close(flipped[:, 0, 0, 0], [3.0, -3.27614237, -1.39052429, 1.30473785, 0.36192881, 1.0])
    # signal 1 10 100 with 1 2 3, zeros around: 2 + 30, 1 + 20 + 300, 10 + 200; backwards 2 + 10, 3 + 20 + 100, 30 + 200
    signal, attrs = [[[1.0], [10.0], [100.0]]], {"kernel": (3,), "pads": ((1, 1),), "filters": 1, "activation": "relu"}
    y = run(backend, "winograd_conv", signal, u, [-100.0], **attrs)
    near(y, [[[0.0], [221.0], [110.0]]], "winograd_conv", signal, u, [-100.0], **attrs)
    pooled = run(backend, "winograd_conv_pool", signal, u, [-100.0], **attrs)
    near(pooled, [[[221.0]]], "winograd_conv_pool", signal, u, [-100.0], **attrs)
    before = [[[1.0], [0.0], [2.0]]]
    dx = run(backend, "winograd_conv_dx", signal, flipped, before, **attrs)
    near(dx, [[[12.0], [0.0], [230.0]]], "winograd_conv_dx", signal, flipped, before, **attrs)
    # inputs 1 2 3: 10 + 200, 1 + 20 + 300, 2 + 30
    inputs, attrs = np.array([[[1.0], [2.0], [3.0]]]), {"kernel": (3,), "pads": ((1, 1),)}
    dw = run(backend, "winograd_conv_dw", inputs, signal, **attrs)
    near(dw, [[[210.0]], [[321.0]], [[32.0]]], "winograd_conv_dw", inputs, signal, **attrs)


def test_winograd_of_an_image(backend):
    # neighbours less four times the pixel itself: 2 + 4 - 4, 1 + 3 + 5 - 8, 2 + 6 - 12, ...
    laplace = np.array([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).reshape(3, 3, 1, 1)
    u = run(backend, "winograd_weights", laplace, flip=False)
    attrs = {"kernel": (3, 3), "pads": ((1, 1), (1, 1)), "filters": 1, "activation": "linear"}
    y = run(backend, "winograd_conv", X3, u, **attrs)
    wanted = np.reshape([2.0, 1.0, -4.0, -3.0, 0.0, -7.0, -16.0, -11.0, -22.0], (1, 3, 3, 1))
    near(y, wanted, "winograd_conv", X3, u, **attrs)
    pooled = run(backend, "winograd_conv_pool", X3, u, **attrs)
    near(pooled, [[[[2.0]]]], "winograd_conv_pool", X3, u, **attrs)


# Optimizers: one weight, y = w * 1, loss (w - 0)^2, so the gradient is 2 w. w starts at 1; two steps.


def two_steps(optimizer):
    model = fastnn.Sequential([Dense(1, use_bias=False, kernel_initializer="ones", input_shape=(1,))])
    model.compile(optimizer, "mse")
    weights = []
    for _ in range(2):
        model.train_on_batch([[1.0]], [[0.0]])
        weights.append(float(model.get_weights()[0][0, 0]))
    return weights


@pytest.mark.parametrize(
    ("optimizer", "wanted"),
    [
        # 1 - 0.1 * 2 = 0.8; 0.8 - 0.1 * 1.6 = 0.64
        (lambda: optimizers.SGD(0.1), [0.8, 0.64]),
        # v = -0.2, w = 0.8; v = 0.5 * -0.2 - 0.1 * 1.6 = -0.26, w = 0.54
        (lambda: optimizers.SGD(0.1, momentum=0.5), [0.8, 0.54]),
        # v = -0.2, w = 1 + 0.5 * -0.2 - 0.2 = 0.7; v = -0.1 - 0.14 = -0.24, w = 0.7 - 0.12 - 0.14 = 0.44
        (lambda: optimizers.SGD(0.1, momentum=0.5, nesterov=True), [0.7, 0.44]),
        # v = 0.5 * 4 = 2, w = 1 - 0.1 * 2 / sqrt 2 = 0.858578644; v = 1 + 0.5 * 1.717157288^2 = 2.474314575,
        # w = 0.858578644 - 0.1717157288 / 1.572995415 = 0.749413803
        (lambda: optimizers.RMSprop(0.1, rho=0.5), [0.858578644, 0.749413803]),
        # the same steps 0.141421356 and 0.109164799, and half of the first once more: 0.858578644 - 0.179875477
        (lambda: optimizers.RMSprop(0.1, rho=0.5, momentum=0.5), [0.858578644, 0.678703166]),
        # the first step is the rate itself, m / (1 - b1) = g and v / (1 - b2) = g^2: w = 0.9, g = 1.8,
        # m = 0.9 * 0.2 + 0.18 = 0.36, / 0.19 = 1.894736842; v = 0.999 * 0.004 + 0.00324 = 0.007236, / 0.001999 =
        # 3.619809905, root 1.902579803; w = 0.9 - 0.1 * 0.995877723 = 0.800412228
        (lambda: optimizers.Adam(0.1), [0.9, 0.800412228]),
        # Adam's step after w has shrunk by 0.1 * 0.5 of itself: 1 * 0.95 - 0.1 = 0.85, g = 1.7,
        # m = 0.18 + 0.17 = 0.35, / 0.19 = 1.842105263; v = 0.003996 + 0.00289 = 0.006886, / 0.001999 = 3.444722361,
        # root 1.855996326; w = 0.85 * 0.95 - 0.1 * 0.992515275 = 0.708248473
        (lambda: optimizers.AdamW(0.1, weight_decay=0.5), [0.85, 0.708248473]),
        # the gradient 2 is cut to 1: w = 0.9; then 1.8 is cut to 1: 0.8
        (lambda: optimizers.SGD(0.1, clipvalue=1.0), [0.9, 0.8]),
        (lambda: optimizers.SGD(0.1, clipnorm=1.0), [0.9, 0.8]),
        (lambda: optimizers.SGD(0.1, global_clipnorm=1.0), [0.9, 0.8]),
        # rates 0.1 and 0.05: 0.8, then 0.8 - 0.05 * 1.6 = 0.72
        (lambda: optimizers.SGD(schedules.ExponentialDecay(0.1, 1, 0.5)), [0.8, 0.72]),
    ],
)
def test_first_two_steps_of_each_optimizer(backend, optimizer, wanted):
    np.testing.assert_allclose(two_steps(optimizer()), wanted, rtol=1e-6)


# Random numbers

#: Random123's known answers (kat_vectors, philox4x32 10): counter, key, words.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter, key, answer):
    low, high = words(key)
    result = philox([np.array([c]) for c in words(counter)], high << 32 | low)
    assert [int(word[0]) for word in result] == words(answer)


def test_first_random_words_are_philox_of_counter_zero(backend):
    # seed 0, step 0, stream 0: the four words of counter 0 are the elements 0, 16, 32 and 48
    drawn = random_words(64, 0, seed=0, stream=0)
    assert [int(drawn[i]) for i in (0, 16, 32, 48)] == words(KNOWN_ANSWERS[0][2])
    # dropout keeps an element if its word's upper 24 bits, as a fraction, are not below the rate:
    # 0x6627e8d5 -> 0.399046, 0xe169c58d -> 0.880520, 0xbc57ac4c -> 0.735713, 0x9b00dbd8 -> 0.605482
    fractions = uniform(64, 0, seed=0, stream=0)[::16]
    np.testing.assert_allclose(fractions, [0.399046, 0.880520, 0.735713, 0.605482], atol=1e-6)
    for rate, kept in ((0.3, [1, 1, 1, 1]), (0.5, [0, 1, 1, 1]), (0.7, [0, 1, 1, 0]), (0.8, [0, 1, 0, 0])):
        y = run(backend, "dropout", np.ones((1, 64)), np.array([0]), rate=rate, seed=0, stream=0)
        close(y[0, ::16], np.array(kept) / (1 - rate))


def test_random_words_follow_seed_step_and_stream():
    # counter (0, step low, step high, stream), key (seed low, seed high): the second known answer needs element 0 of
    # lane 2^32 - 1, out of reach; so by their own definition
    seed, step, stream = 0x299F31D0A4093822, 0x13198A2E85A308D3, 0x03707344
    wanted = philox([np.array([c]) for c in (0, 0x85A308D3, 0x13198A2E, 0x03707344)], seed)
    assert [int(w) for w in random_words(64, step, seed=seed, stream=stream)[::16]] == [int(w[0]) for w in wanted]
    second = philox([np.array([c]) for c in (16, 0x85A308D3, 0x13198A2E, 0x03707344)], seed)
    assert int(random_words(65, step, seed=seed, stream=stream)[64]) == int(second[0][0])


def test_normal_numbers_are_the_quantiles_of_their_words(backend):
    # seed 0, step 0, stream 0, elements 0, 16, 32, 48: the lowest bit is the sign, the others are v / 2^31, the
    # probability of a size at least so large; 0x6627e8d5 is negative, v = 0x3313f46b: 0.399046 -> -0.843325
    signs, shares = [-1, -1, 1, 1], [0x3313F46B, 0x70B4E2C7, 0x5E2BD627, 0x4D806DED]
    wanted = [-s * NormalDist().inv_cdf(v / 2**32) for s, v in zip(signs, shares, strict=True)]
    assert wanted[0] == pytest.approx(-0.843325, abs=1e-6)
    y = run(backend, "gaussian_noise", np.ones((1, 64)), np.array([0]), stddev=0.5, seed=0, stream=0)
    np.testing.assert_allclose(y[0, ::16], 1 + 0.5 * np.array(wanted), atol=2e-6)


def test_spatial_dropout_by_hand(backend):
    # 64 channels of row 0 take the numbers of elements 0 .. 63: 0.399, 0.881, 0.736, 0.605 for channels 0, 16, 32, 48
    y = run(backend, "spatial_dropout", np.ones((1, 2, 64)), np.array([0]), rate=0.7, seed=0, stream=0)
    close(y[0, :, ::16], [np.array([0, 1, 1, 0]) / 0.3] * 2)


def test_dropout_drops_its_share_and_keeps_the_mean(backend):
    y = run(backend, "dropout", np.ones((1000, 100)), np.array([3]), rate=0.3, seed=9, stream=2)
    # 100,000 draws: the standard deviation of the share is sqrt(0.3 * 0.7 / 1e5) = 0.00145; five of them
    assert abs(np.mean(y == 0) - 0.3) < 0.0073
    close(np.unique(y), [0.0, 1 / 0.7])


# Images. Row 0 at seed 0, step 0, stream 0 draws 0x6627e8d5, 0xe169c58d, ... / 2^32 = 0.39904647, 0.88052020, ...

NUMBER_0, NUMBER_1 = 0.39904647, 0.88052020
FIRST = {"seed": 0, "stream": 0}
#: One image of 2 x 3 pixels:  1 2 3
#:                             4 5 6
PICTURE = np.arange(1.0, 7.0).reshape(1, 2, 3, 1)


def test_random_flip(backend):
    # the first number is below 1/2: left and right change places; the second is not
    mirrored = [[3.0, 2.0, 1.0], [6.0, 5.0, 4.0]]
    for horizontal, vertical, wanted in ((1, 1, mirrored), (1, 0, mirrored), (0, 1, PICTURE[0, :, :, 0])):
        y = run(backend, "random_flip", PICTURE, [0], horizontal=horizontal, vertical=vertical, **FIRST)
        np.testing.assert_array_equal(y[0, :, :, 0], wanted)


def test_matrices_of_images(backend):
    # the centre of 2 x 3 pixels is (1, 1/2). A quarter turn: (x, y) comes from (1 - (y - 1/2),
    # 1/2 + (x - 1)) = (3/2 - y, x - 1/2)
    turn = run(backend, "rotation_matrices", PICTURE, [0], turns=(0.25, 0.25), **FIRST)
    np.testing.assert_array_equal(turn, [[0.0, -1.0, 1.5, 1.0, 0.0, -0.5]])
    # from -1/2 to 1/2 turns: -0.10095353 turns, cosine 0.80535366, sine -0.59279465
    turn = run(backend, "rotation_matrices", PICTURE, [0], turns=(-0.5, 0.5), **FIRST)
    c, s = math.cos(2 * math.pi * (NUMBER_0 - 0.5)), math.sin(2 * math.pi * (NUMBER_0 - 0.5))
    close(turn, [[c, -s, 1 - c + s / 2, s, c, 0.5 - s - c / 2]])
    # zooms of 1 + 0.39904647 and 2 + 0.88052020: (x, y) comes from (1 + zoom (x - 1), 1/2 + zoom (y - 1/2))
    wide, high = 2 + NUMBER_1, 1 + NUMBER_0
    zoom = run(backend, "zoom_matrices", PICTURE, [0], heights=(1.0, 2.0), widths=(2.0, 3.0), **FIRST)
    close(zoom, [[wide, 0.0, 1 - wide, 0.0, high, 0.5 - high / 2]])
    zoom = run(backend, "zoom_matrices", PICTURE, [0], heights=(1.0, 2.0), widths=None, **FIRST)
    close(zoom, [[high, 0.0, 1 - high, 0.0, high, 0.5 - high / 2]])
    # moved down by 0.39904647 of 2 pixels, right by 0.88052020 of 3
    move = run(backend, "translation_matrices", PICTURE, [0], heights=(0.0, 1.0), widths=(0.0, 1.0), **FIRST)
    close(move, [[1.0, 0.0, -3 * NUMBER_1, 0.0, 1.0, -2 * NUMBER_0]])


def test_affine_transform(backend):
    # from half a pixel to the right: 1.5 2.5, and the last one with what stands beyond the edge; from a quarter down
    matrix, attrs = [[1.0, 0.0, 0.5, 0.0, 1.0, 0.0]], {"interpolation": "bilinear", "fill_mode": "constant"}
    y = run(backend, "affine_transform", PICTURE, matrix, fill_value=11.0, **attrs)
    close(y[0, :, :, 0], [[1.5, 2.5, 7.0], [4.5, 5.5, 8.5]])
    matrix = [[1.0, 0.0, 0.0, 0.0, 1.0, 0.25]]
    y = run(backend, "affine_transform", PICTURE, matrix, fill_value=0.0, **{**attrs, "fill_mode": "wrap"})
    close(y[0, :, :, 0], [[1.75, 2.75, 3.75], [3.25, 4.25, 5.25]])
    # the same places; pixel 1 went into pixel 1 with 3/4 and into pixel 4 with 1/4
    dx = run(backend, "affine_transform_dx", PICTURE, matrix, **{**attrs, "fill_mode": "wrap"})
    close(dx[0, :, :, 0], [[1.75, 2.75, 3.75], [3.25, 4.25, 5.25]])
    # constant: a quarter of the last line's gradients goes to the filling
    dx = run(backend, "affine_transform_dx", PICTURE, matrix, **attrs)
    close(dx[0, :, :, 0], [[0.75, 1.5, 2.25], [3.25, 4.25, 5.25]])


def test_random_contrast(backend):
    # mean 3.5; half of the distances -2.5 -1.5 -0.5 0.5 1.5 2.5, cut off at 4.5
    attrs = {"factors": (0.5, 0.5), "limits": (0.0, 4.5), **FIRST}
    y = run(backend, "random_contrast", PICTURE, [0], **attrs)
    close(y[0, :, :, 0], [[2.25, 2.75, 3.25], [3.75, 4.25, 4.5]])
    # the last one was cut off: the gradients 6 5 4 3 2 and 0, mean 20/6, each half and half
    dx = run(backend, "random_contrast_dx", 7.0 - PICTURE, y, [0], **attrs)
    close(dx[0, :, :, 0], np.array([[6.0, 5.0, 4.0], [3.0, 2.0, 0.0]]) / 2 + 10 / 6)
    # a factor from 0 to 2: 0.79809294
    y = run(backend, "random_contrast", PICTURE, [0], **{**attrs, "factors": (0.0, 2.0), "limits": (0.0, 9.0)})
    close(y, 3.5 + 2 * NUMBER_0 * (PICTURE - 3.5))


# Normalization; epsilon such that roots are simple


def test_batch_normalization(backend):
    # columns: mean 2, variance 1, inv 1/2, xhat -1/2 1/2; mean 10, variance 6, inv 1/3, xhat -sqrt(6)/3 sqrt(6)/3
    r = math.sqrt(6.0)
    x, gamma, beta = [[1.0, 10.0 - r], [3.0, 10.0 + r]], [2.0, 3.0], [1.0, 0.0]
    m = run(backend, "moments", x)
    close(m, [[2.0, 10.0], [1.0, 6.0]])
    close(run(backend, "batch_norm", x, m, gamma, beta, epsilon=3.0), [[0.0, -r], [2.0, r]])
    activated = run(backend, "fused_batch_norm", x, m, gamma, beta, epsilon=3.0, activation="relu")
    close(activated, [[0.0, 0.0], [2.0, r]])
    # sums of g: 3 1; of g xhat: -1/2 + 2/2 = 1/2, (-4 -3) r / 3 = -7 r / 3
    g = [[1.0, 4.0], [2.0, -3.0]]
    sums = run(backend, "batch_norm_sums", g, x, m, epsilon=3.0)
    close(sums, [[3.0, 1.0], [0.5, -7.0 * r / 3.0]])
    # gamma inv = 1 1; g - mean(g) = -1/2 1/2, 7/2 -7/2; xhat mean(g xhat) = -1/8 1/8, 7/3 -7/3
    close(run(backend, "batch_norm_dx", g, x, m, gamma, sums, epsilon=3.0), [[-0.375, 7 / 6], [0.375, -7 / 6]])
    # relu let the second row through only: sums 2 -3, 1 -r; g - mean(g) = -1 1, 3/2 -3/2; ... = -1/4 1/4, 1 -1
    more = (x, m, gamma, [1e-3, 0.0])
    sums = run(backend, "fused_batch_norm_sums", g, *more, epsilon=3.0, activation="relu")
    close(sums, [[2.0, -3.0], [1.0, -r]])
    dx = run(backend, "fused_batch_norm_dx", g, *more, sums, epsilon=3.0, activation="relu")
    close(dx, [[-0.75, 0.5], [0.75, -0.5]])


def test_normalization_by_given_statistics(backend):
    x, mean, variance = [[1.0, 10.0], [3.0, 4.0]], [0.0, 7.0], [1.0, 6.0]
    gamma, beta = [2.0, 3.0], [1.0, -1.0]
    close(run(backend, "normalize", x, mean, variance, gamma, beta, epsilon=3.0), [[2.0, 2.0], [4.0, -4.0]])
    activated = run(backend, "fused_normalize", x, mean, variance, gamma, beta, epsilon=3.0, activation="relu")
    close(activated, [[2.0, 2.0], [4.0, 0.0]])
    close(run(backend, "normalize_dx", x, variance, gamma, epsilon=3.0), [[1.0, 10.0], [3.0, 4.0]])


def test_group_normalization(backend):
    # one item of two places; groups [1 3; 5 7], mean 4, variance 5, inv 1/sqrt(9), and [2 2; 2 2], variance 0, inv 1/2
    x, gamma, beta = [[[1.0, 3.0, 2.0, 2.0], [5.0, 7.0, 2.0, 2.0]]], [3.0, 6.0, 1.0, 1.0], [0.0, 1.0, 2.0, 3.0]
    m = run(backend, "group_moments", x, groups=2)
    close(m, [[[4.0, 2.0], [5.0, 0.0]]])
    y = run(backend, "group_norm", x, m, gamma, beta, epsilon=4.0)
    close(y, [[[-3.0, -1.0, 2.0, 3.0], [1.0, 7.0, 2.0, 3.0]]])
    # xhat = -1 -1/3 0 0; 1/3 1 0 0
    g = [[[1.0, 0.0, 2.0, 0.0], [2.0, 1.0, 0.0, 4.0]]]
    sums = run(backend, "group_norm_sums", g, x, m, epsilon=4.0)
    close(sums, [[[3.0, 1.0, 2.0, 4.0], [-1.0 / 3.0, 1.0, 0.0, 0.0]]])
    # gamma g = 3 0 2 0; 6 6 0 4; means over groups 15/4 and 3/2; of gamma g xhat: (-3 + 2 + 6) / 4 = 5/4 and 0
    dx = run(backend, "group_norm_dx", g, x, m, gamma, sums, epsilon=4.0)
    first = [[3.0 - 3.75 + 1.25, 0.0 - 3.75 + 1.25 / 3], [6.0 - 3.75 - 1.25 / 3, 6.0 - 3.75 - 1.25]]
    second = [[2.0 - 1.5, -1.5], [-1.5, 4.0 - 1.5]]
    close(dx, np.concatenate([np.array(first) / 3, np.array(second) / 2], axis=1)[None])


def test_layer_normalization(backend):
    # rows: mean 2, variance 1, inv 1/2; mean 5, variance 6, inv 1/3
    r = math.sqrt(6.0)
    x, gamma, beta = [[1.0, 3.0], [5.0 + r, 5.0 - r]], [2.0, 3.0], [1.0, 0.0]
    close(run(backend, "layer_norm", x, gamma, beta, epsilon=3.0), [[0.0, 1.5], [1 + 2 * r / 3, -r]])
    # xhat = -1/2 1/2; r/3 -r/3
    g = [[1.0, 2.0], [3.0, -4.0]]
    sums = run(backend, "layer_norm_sums", g, x, epsilon=3.0)
    close(sums, [[4.0, -2.0], [-0.5 + r, 1.0 + 4 * r / 3]])
    # gamma g = 2 6, mean 4, with xhat 1; 6 -12, mean -3, with xhat (6 + 12) r / 3 / 2 = 3 r
    dx = run(backend, "layer_norm_dx", g, x, gamma, epsilon=3.0)
    close(dx, [[(2 - 4 + 0.5) / 2, (6 - 4 - 0.5) / 2], [(6 + 3 - 6) / 3, (-12 + 3 + 6) / 3]])


def test_moving_average_and_parts_of_small_arrays(backend):
    close(run(backend, "moving_average", [1.0, 2.0], [3.0, -2.0], momentum=0.75), [1.5, 1.0])
    close(run(backend, "take", [[1.0, 2.0], [3.0, 4.0]], index=1), [3.0, 4.0])
    close(run(backend, "take", [[[1.0], [2.0]], [[3.0], [4.0]]], index=0), [[1.0], [3.0]])
    close(run(backend, "fill", [[1.0, 2.0, 3.0]], fill_value=0.5), [0.5, 0.5, 0.5])


# Initializers: kernel (200, 300), fan in 200, fan out 300

FACTORS = {
    "glorot_uniform": 2 / 500,
    "glorot_normal": 2 / 500,
    "he_uniform": 2 / 200,
    "he_normal": 2 / 200,
    "lecun_uniform": 1 / 200,
    "lecun_normal": 1 / 200,
    "random_normal": 0.05**2,
    "random_uniform": 0.1**2 / 12,
}


@pytest.mark.parametrize("name", FACTORS)
def test_initializers_have_their_mean_variance_and_bounds(name):
    values = initializers.get(name)((200, 300), np.random.default_rng(4))
    assert values.shape == (200, 300)
    deviation = math.sqrt(FACTORS[name])
    assert abs(values.mean()) < 5 * deviation / math.sqrt(values.size)
    # of 60,000 draws, the variance is off by at most sqrt(2 / 60,000) of itself in one standard deviation (normal)
    np.testing.assert_allclose(values.var(), FACTORS[name], rtol=5 * math.sqrt(2 / values.size))
    if "uniform" in name:
        limit = math.sqrt(3.0) * deviation
        assert limit * 0.999 < abs(values).max() <= limit
    elif name != "random_normal":
        limit = 2.0 * deviation / 0.87962566103423978
        assert limit * 0.99 < abs(values).max() <= limit


def test_constant_initializers():
    rng = np.random.default_rng(0)
    assert (initializers.Zeros()((2, 3), rng) == 0).all()
    assert (initializers.Ones()((2, 3), rng) == 1).all()
    assert (initializers.Constant(2.5)((2, 3), rng) == 2.5).all()
    values = initializers.RandomUniform(2.0, 3.0)((100,), rng)
    assert 2.0 <= values.min() < 2.1 < 2.9 < values.max() < 3.0


def test_fans_of_kernels_with_windows():
    # 3 x 3 window, 8 in, 16 out
    assert initializers.fans((3, 3, 8, 16)) == (72.0, 144.0)
    assert initializers.fans((8, 16)) == (8.0, 16.0)
    assert initializers.fans((7,)) == (7.0, 7.0)


# Schedules


def at(schedule, *steps):
    return schedule(np.array(steps)).tolist()


def test_exponential_decay():
    assert at(schedules.ExponentialDecay(0.8, 10, 0.25), 0, 5, 10, 20) == pytest.approx([0.8, 0.4, 0.2, 0.05])
    stairs = schedules.ExponentialDecay(0.8, 10, 0.25, staircase=True)
    assert at(stairs, 0, 9, 10, 19, 20) == pytest.approx([0.8, 0.8, 0.2, 0.2, 0.05])


def test_piecewise_constant_decay():
    schedule = schedules.PiecewiseConstantDecay([2, 4], [0.3, 0.2, 0.1])
    assert at(schedule, 0, 2, 3, 4, 5, 100) == [0.3, 0.3, 0.2, 0.2, 0.1, 0.1]


def test_cosine_decay():
    # cos of 0, 60, 90, 180 degrees: 1, 1/2, 0, -1
    assert at(schedules.CosineDecay(1.0, 6), 0, 2, 3, 6, 9) == pytest.approx([1.0, 0.75, 0.5, 0.0, 0.0])
    assert at(schedules.CosineDecay(1.0, 6, alpha=0.2), 0, 2, 3, 6) == pytest.approx([1.0, 0.8, 0.6, 0.2])
    warm = schedules.CosineDecay(0.0, 6, warmup_target=1.0, warmup_steps=4)
    assert at(warm, 0, 1, 4, 7, 10) == pytest.approx([0.0, 0.25, 1.0, 0.5, 0.0])


def test_adam_rates_are_corrected_for_the_start():
    rates = optimizers.Adam(0.1, beta_1=0.5, beta_2=0.75).rates(0, 2)
    # sqrt(1 - 0.75) / (1 - 0.5) = 1; sqrt(1 - 0.5625) / (1 - 0.25) = 0.881917
    np.testing.assert_allclose(rates, [[0.1, 0.1], [0.1, 0.0881917]], rtol=1e-6)
    assert rates.dtype == np.float32
    np.testing.assert_array_equal(optimizers.Adam(0.1, beta_1=0.5, beta_2=0.75).rates(1, 1), rates[1:])


# Regions. Two pixels of three classes, p = (.5 .3 .2), (.1 .2 .7); true are the classes 0 and 2


def test_overlaps_of_regions(backend):
    p, labels = [[[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]], [[[0.0], [2.0]]]
    sums = [[[0.5, 0.0, 0.7], [0.1, 0.5, 0.2], [0.5, 0.0, 0.3]]]
    close(run(backend, "overlap", p, labels), sums)
    close(run(backend, "overlap", p, [[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]), sums)
    weighted = [[[1.0, 0.0, 0.0], [0.0, 0.6, 0.4], [1.0, 0.0, 0.0]]]  # weights 2 and 0
    close(run(backend, "overlap", p, labels, [[2.0, 0.0]]), weighted)
    # each class has the gradients 1, 10, 100: true pixels get 1 - 100, the others 10, times their weights
    g = [[[1.0] * 3, [10.0] * 3, [100.0] * 3]]
    close(run(backend, "overlap_dx", g, labels), [[[-99.0, 10.0, 10.0], [10.0, 10.0, -99.0]]])
    close(run(backend, "overlap_dx", g, labels, [[2.0, 0.5]]), [[[-198.0, 20.0, 20.0], [5.0, 5.0, -49.5]]])


def test_the_index_of_tversky(backend):
    # errors 1/4 * 4 + 1/2 * 2 = 2 of 2 + 6 (right ones) and of 2 + 2: the losses 1/4 and 1/2; together 4 of 12
    sums = [[[6.0, 1.0], [4.0, 4.0], [2.0, 2.0]]]
    attrs = {"alpha": 0.25, "beta": 0.5, "epsilon": 1.0}
    sums[0][0] = [5.0, 1.0]  # epsilon makes them 6 and 2
    close(run(backend, "tversky", sums, **attrs, joint=False), [(0.25 + 0.5) / 2])
    # the halves of d/dTP = -wrong / total^2, d/dFP = alpha right / total^2 and d/dFN = beta right / total^2
    slopes = [[[-1 / 32, -1 / 8], [0.25 * 6 / 64, 0.25 * 2 / 16], [0.5 * 6 / 64, 0.5 * 2 / 16]]]
    close(run(backend, "tversky_dx", [2.0], sums, **attrs, joint=False), slopes)
    close(run(backend, "tversky", sums, **attrs, joint=True), [4.0 / (6.0 + 1.0 + 4.0)])
    joint = run(backend, "tversky_dx", [1.0], sums, **attrs, joint=True)
    close(joint[0, :, 0], [-4 / 121, 0.25 * 7 / 121, 0.5 * 7 / 121])


def test_focal_losses(backend):
    # y 1: e = 1 - p = 1/4, log p = log 3/4; y 0: e = p = 1/2, log 1/2; weights 0.3 and 0.7; mean of the two
    p, y = [[0.75, 0.5]], [[1.0, 0.0]]
    attrs = {"gamma": 2.0, "positive": 0.3, "negative": 0.7}
    terms = [0.3 * math.log(4 / 3) / 16, 0.7 * math.log(2) / 4]
    close(run(backend, "binary_focal_crossentropy", p, y, **attrs), [sum(terms) / 2])
    z = [[math.log(3), 0.0]]
    close(run(backend, "sigmoid_focal_crossentropy", z, y, **attrs), [sum(terms) / 2])
    # d/dp of -(1-p)^2 log p = 2 (1-p) log p - (1-p)^2 / p; of -p^2 log(1-p): -2 p log(1-p) + p^2 / (1-p)
    slopes = [0.15 * (0.5 * math.log(0.75) - 1 / 12), 0.35 * (math.log(2) + 0.5)]
    close(run(backend, "binary_focal_crossentropy_dx", [1.0], p, y, **attrs), [slopes])
    close(run(backend, "sigmoid_focal_crossentropy_dx", [1.0], z, y, **attrs), [[slopes[0] * 3 / 16, slopes[1] / 4]])
    # shares 1/4 and 3/4, the class 0 is true and weighs 2: -2 (3/4)^2 log 1/4
    attrs, value = {"gamma": 2.0, "class_weights": (2.0, 1.0)}, 2 * 9 / 16 * math.log(4)
    for y in ([[0.0]], [[1.0, 0.0]]):
        close(run(backend, "categorical_focal_crossentropy", [[0.1, 0.3]], y, **attrs), [value])
        close(run(backend, "softmax_focal_crossentropy", [[0.0, math.log(3)]], y, **attrs), [value])
        # q d/dq = 2 (2 (1-q) q log q - (1-q)^2) = h; by the logits h (1 - q) and -h (1 - q)
        h = 2 * (2 * 0.75 * 0.25 * math.log(0.25) - 9 / 16)
        slopes = [0.75 * h, -0.75 * h]
        close(run(backend, "softmax_focal_crossentropy_dx", [1.0], [[0.0, math.log(3)]], y, **attrs), [slopes])
        # by p, whose sum is 0.4: (h / q - h) / 0.4 and -h / 0.4
        slopes = [(4 * h - h) / 0.4, -h / 0.4]
        close(run(backend, "categorical_focal_crossentropy_dx", [1.0], [[0.1, 0.3]], y, **attrs), [slopes])


def test_counts_of_pixels(backend):
    # found are the classes 0 (the first of equals), 2, 1 and 1; true are 0, 1, 1 and 0
    p = [[[0.4, 0.2, 0.4], [0.1, 0.2, 0.7], [0.1, 0.6, 0.3], [0.1, 0.6, 0.3]]]
    counts = [[[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]]
    assert run(backend, "class_counts", p, [[[0.0], [1.0], [1.0], [0.0]]]).tolist() == counts
    one_hot = [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]]
    assert run(backend, "class_counts", p, one_hot).tolist() == counts
    p, y = [[[0.9], [0.5], [0.6], [0.1], [0.2]]], [[[1.0], [1.0], [0.0], [0.0], [0.0]]]
    assert run(backend, "threshold_counts", p, y, threshold=0.5).tolist() == [[[1.0], [1.0], [1.0], [2.0]]]


def test_a_straight_line(backend):
    close(run(backend, "affine", [[1.0, -2.0]], scale=0.5, offset=3.0), [[3.5, 2.0]])


def test_running_totals_of_several_numbers(backend):
    totals = run(backend, "accumulate", [[1.0, 2.0]], [[[10.0, 20.0]], [[100.0, 200.0]]])
    assert totals.tolist() == [[111.0, 222.0]] and totals.dtype == np.float64

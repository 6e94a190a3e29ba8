"""What holds for the Numba kernels beyond agreeing with the reference, which the tests of all backends check."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("numba")

from fastnn.backends.numba.kernels import COMPILED, KERNELS, SHARED
from fastnn.ops import OPS
from fastnn.ops.pointwise import DENSE_ACTIVATIONS, OUTPUT_GRADIENTS


def run(name, *inputs, **attrs):
    """The kernel's output for float32 inputs, on top of NaN."""
    op = OPS[name]
    inputs = tuple(a if a.dtype == np.int64 else np.ascontiguousarray(a, np.float32) for a in inputs)
    attrs = op.complete(attrs)
    out = np.full(op.infer(*(a.shape for a in inputs), **attrs), np.nan, np.float32)
    for array in inputs:
        array.flags.writeable = False
    KERNELS[name]((out,), inputs, attrs)
    return out


def normal(seed, *sizes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(size).astype(np.float32) for size in sizes]


def assert_rows_independent(name, batched, others, **attrs):
    """Row i has the same bits alone, among a few and in the whole batch."""
    whole = run(name, *batched, *others, **attrs)
    assert not np.isnan(whole).any()
    for start in range(len(whole)):
        for stop in (start + 1, start + 5):
            part = run(name, *(a[start:stop] for a in batched), *others, **attrs)
            np.testing.assert_array_equal(part.view(np.int32), whole[start:stop].view(np.int32))


def test_every_op_has_a_kernel_or_is_declared_shared():
    assert set(KERNELS) | SHARED == set(OPS)
    assert not set(KERNELS) & SHARED


SIZES = [(33, 1, 1), (19, 33, 7), (15, 31, 17), (14, 64, 33), (21, 129, 70), (18, 300, 1), (13, 130, 64)]


@pytest.mark.parametrize(("n", "k", "f"), SIZES)
def test_products_do_not_depend_on_the_batch(n, k, f):
    x, w, b, g = normal(n, (n, k), (k, f), f, (n, f))
    assert_rows_independent("matmul", (x,), (w,))
    assert_rows_independent("dense", (x,), (w, b), activation="relu")
    assert_rows_independent("matmul_nt", (g,), (w,))


@pytest.mark.parametrize("activation", DENSE_ACTIVATIONS)
def test_dense_does_not_depend_on_the_batch(activation):
    x, w, b = normal(1, (14, 20), (20, 19), 19)
    assert_rows_independent("dense", (x,), (w / 5, b), activation=activation)


@pytest.mark.parametrize("activation", OUTPUT_GRADIENTS)
def test_dense_gradient_does_not_depend_on_the_batch(activation):
    g, w, x = normal(2, (14, 20), (19, 20), (14, 19))
    gradient = np.concatenate(
        [run("dense_dx", g[i : i + 3], w, x[i : i + 3], activation=activation) for i in range(0, 14, 3)]
    )
    np.testing.assert_array_equal(gradient, run("dense_dx", g, w, x, activation=activation))


@pytest.mark.parametrize("classes", [1, 2, 10, 17, 40])
def test_rows_of_softmax_and_losses_do_not_depend_on_the_batch(classes):
    n = 23
    z, y, g = normal(classes, (n, classes), (n, classes), n)
    p = run("softmax", z)
    assert_rows_independent("softmax", (z,), ())
    assert_rows_independent("softmax_dx", (z, p), ())
    for loss in ("mean_squared_error", "sigmoid_crossentropy", "softmax_crossentropy"):
        assert_rows_independent(loss, (z, y), ())
        assert_rows_independent(f"{loss}_dx", (g, z, y), ())
    for loss in ("binary_crossentropy", "categorical_crossentropy"):
        assert_rows_independent(loss, (p, y), ())
        assert_rows_independent(f"{loss}_dx", (g, p, y), ())


@pytest.mark.parametrize("size", [1, 15, 16, 17, 63, 64, 65, 1000])
def test_dropout_has_the_bits_of_the_reference(size):
    (x,) = normal(size, (1, size))
    for step in (0, 7, 2**33 + 5):
        for rate, seed in ((0.3, 2**64 - 3), (0.5, 0), (0, 12)):
            attrs = {"rate": rate, "seed": seed, "stream": size}
            expected = OPS["dropout"](x, np.array([step]), **attrs)
            np.testing.assert_array_equal(run("dropout", x, np.array([step]), **attrs), expected)


def test_each_kernel_is_compiled_once_whatever_the_flags_and_python_types():
    rng = np.random.default_rng(3)
    for name, op in ((name, OPS[name]) for name in KERNELS):
        for (inputs, attrs), writeable, number in itertools.product(op.cases(rng), (True, False), (float, np.float64)):
            attrs = op.complete(attrs)
            arrays = [np.array(a, np.int64 if np.asarray(a).dtype.kind == "i" else np.float32) for a in inputs]
            if name == "accumulate":
                arrays[0] = arrays[0].astype(np.float64)
            outputs = [arrays[i] for i in op.updates]
            rest = [a for i, a in enumerate(arrays) if i not in op.updates]
            if not op.updates:
                outputs = [np.empty(op.infer(*(a.shape for a in rest), **attrs), np.float32)]
            for array in rest:
                array.flags.writeable = writeable
            typed = {key: number(value) if isinstance(value, float) else value for key, value in attrs.items()}
            KERNELS[name](tuple(outputs), tuple(rest), typed)
    assert [len(function.dispatcher.signatures) for function in COMPILED] == [1] * len(COMPILED)


@pytest.mark.parametrize("name", [name for name in KERNELS if OPS[name].elementwise])
def test_the_output_may_take_the_memory_of_an_input(name):
    op = OPS[name]
    for inputs, attrs in op.cases(np.random.default_rng(4)):
        arrays = [np.ascontiguousarray(a, np.float32) for a in inputs]
        attrs = op.complete(attrs)
        expected = run(name, *(a.copy() for a in arrays), **attrs)
        for place in op.elementwise[: len(arrays)]:
            if arrays[place].shape == expected.shape:
                given = [a.copy() for a in arrays]
                KERNELS[name]((given[place],), tuple(given), attrs)
                np.testing.assert_array_equal(given[place], expected)


@pytest.mark.parametrize("name", [*DENSE_ACTIVATIONS[1:], "softmax", "clip", "leaky_relu", "elu"])
def test_nan_comes_through(name):
    attrs = {"clip": {"limit": 1.0}, "leaky_relu": {"negative_slope": 0.1}, "elu": {"alpha": 1.0}}.get(name, {})
    for position in range(19):
        x = np.ones((1, 19))
        x[0, position] = np.nan
        assert np.isnan(run(name, x, **attrs)[0, position])


def test_nan_comes_through_the_losses():
    y = np.zeros((3, 4))
    y[:, 2] = 1.0
    for position in range(4):
        p = np.full((3, 4), 0.25)
        p[1, position] = np.nan
        for name in ("mean_squared_error", "mean_absolute_error", "binary_crossentropy", "sigmoid_crossentropy",
                     "categorical_crossentropy", "softmax_crossentropy"):  # fmt: skip
            np.testing.assert_array_equal(np.isnan(run(name, p, y)), [False, True, False])


def test_the_largest_prediction_is_the_first_nan_or_the_first_of_equals():
    nan = np.nan
    p = np.array([[1, 3, 3], [nan, 5, 1], [2, nan, nan], [1, nan, 9], [0, 0, 0]])
    label = np.argmax(p, axis=1)[:, None]
    np.testing.assert_array_equal(run("sparse_categorical_accuracy", p, label.astype(float)), np.ones(5))
    np.testing.assert_array_equal(run("sparse_categorical_accuracy", p, label + 1.0), np.zeros(5))
    np.testing.assert_array_equal(run("categorical_accuracy", p, label == np.arange(3)), np.ones(5))


def test_extreme_values_give_limits_not_nan():
    x = np.array([[-np.inf, -1e30, -200.0, 0.0, 200.0, 1e30, np.inf]])
    np.testing.assert_allclose(run("sigmoid", x), [[0, 0, 0, 0.5, 1, 1, 1]], atol=1e-38)
    np.testing.assert_array_equal(run("tanh", x), [[-1, -1, -1, 0, 1, 1, 1]])
    np.testing.assert_array_equal(run("exponential", x), [[0, 0, 0, 1, np.inf, np.inf, np.inf]])
    np.testing.assert_allclose(run("softplus", x), [[0, 0, 0, np.log(2), 200, 1e30, np.inf]], rtol=1e-6, atol=1e-38)
    loss = run("sigmoid_crossentropy", np.array([[-1e4], [1e4]]), np.array([[0.0], [0.0]]))
    np.testing.assert_array_equal(loss, [0.0, 1e4])

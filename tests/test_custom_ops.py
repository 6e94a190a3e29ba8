"""Custom ops: NumPy functions of the user's inside a model, on every backend."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

import fastnn
from fastnn import ops
from fastnn.callbacks import LambdaCallback
from fastnn.layers import BatchNormalization, Dense, Input, Layer
from fastnn.ops.matrix import add_bias, matmul
from fastnn.ops.pointwise import multiply, relu

ROWS = 100


class Apply(Layer):
    """One function of a Tensor."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x, training=None):
        return self.function(x)


class Linear(Layer):
    """``function(x, kernel, bias)``."""

    def __init__(self, units, function):
        super().__init__()
        self.units, self.function = units, function

    def build(self, shape):
        self.kernel = self.add_weight("kernel", (shape[-1], self.units))
        self.bias = self.add_weight("bias", (self.units,), "zeros")

    def call(self, x, training=None):
        return self.function(x, self.read(self.kernel, x), self.read(self.bias, x))


def my_relu(forward=None, gradient=None):
    return ops.custom(
        forward or (lambda x: np.maximum(x, 0)), gradient or (lambda g, y, x: np.where(y > 0, g, 0)), name="my relu"
    )


def data(features=12):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS, features)).astype(np.float32)
    return x, np.tanh(x[:, :1] * x[:, 1:2])


def net(function, features=12, units=24, layers=2, norm=False, optimizer="adam"):
    fastnn.set_seed(5)
    stack = [Dense(units, input_shape=(features,)), *([BatchNormalization()] if norm else []), Apply(function)]
    for _ in range(layers - 1):
        stack += [Dense(units), Apply(function)]
    model = fastnn.Sequential([*stack, Dense(1)])
    model.compile(optimizer, "mse", metrics=["mae"])
    return model


def bits(model):
    return [weight.tobytes() for weight in model.get_weights()]


# Forward and gradient


def test_on_arrays_it_computes_at_once_in_the_type_of_the_first():
    double = ops.custom(lambda x: 2 * x)
    assert double(np.ones((2, 3), np.float32)).dtype == np.float32
    assert double([[1, 2]]).tolist() == [[2.0, 4.0]]
    step = ops.custom(lambda x: x > 0)  # any real numbers may be returned
    assert step(np.array([[-1.0, 2.0]], np.float32)).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("threads", [1, 2])
def test_training_is_that_with_the_built_in_op_to_the_last_bit(backend, threads):
    before = fastnn.get_num_threads()
    fastnn.set_num_threads(threads)
    try:
        x, y = data()
        mine, theirs = net(my_relu(), layers=3, norm=True), net(relu, layers=3, norm=True)
        logs = [m.fit(x, y, batch_size=16, epochs=3, verbose=0).history for m in (mine, theirs)]
        # the built-in activation is fused into the product, which changes no bit
        assert bits(mine) == bits(theirs)
        assert logs[0] == logs[1]
        assert mine.evaluate(x, y) == theirs.evaluate(x, y)
        assert mine.predict(x).tobytes() == theirs.predict(x).tobytes()
    finally:
        fastnn.set_num_threads(before)


def test_large_products_are_shared_by_threads_around_the_op():
    x = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
    found = []
    before = fastnn.get_num_threads()
    for threads, function in ((1, my_relu()), (2, my_relu()), (2, relu)):
        fastnn.set_num_threads(threads)
        model = net(function, 200, 250)
        model.fit(x, x[:, :1], batch_size=100, epochs=2, verbose=0)
        found.append(bits(model))
    fastnn.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_several_inputs_with_weights_among_them(backend):
    def gradient(g, y, x, w, b):
        return g @ w.T, x.T @ g, g.sum(axis=0)

    calls = []

    def counted(*arrays):
        calls.append([a.shape for a in arrays])
        return gradient(*arrays)

    affine = ops.custom(lambda x, w, b: x @ w + b, counted, shape=lambda x, w, b: (x[0], w[1]), name="affine")
    x, y = data()
    results = []
    for function in (affine, lambda x, w, b: add_bias(matmul(x, w), b)):
        fastnn.set_seed(2)
        entry = Input((12,))
        model = fastnn.Model(entry, Linear(1, function)(Linear(7, function)(entry)))
        model.compile(fastnn.optimizers.SGD(0.1), "mse")
        model.fit(x, y, batch_size=30, epochs=2, verbose=0)
        results.append((model.get_weights(), model.predict(x)))
    for a, b in zip(*results, strict=True):
        for mine, theirs in zip(a, b, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    assert len(calls) == 2 * 2 * 4  # once for each use and step, whatever the number of inputs
    assert calls[0] == [(30, 1), (30, 1), (30, 7), (7, 1), (1,)]


def test_none_is_no_gradient(backend):
    gate = ops.custom(lambda x, w, b: x * 1.0, lambda g, y, x, w, b: (g, None, None))
    fastnn.set_seed(1)
    model = fastnn.Sequential([Dense(4, input_shape=(12,)), Linear(4, gate), Dense(1)])
    model.compile(fastnn.optimizers.SGD(0.1), "mse")
    before = model.layers[1].get_weights()[0]
    model.fit(*data(), epochs=1, verbose=0)
    assert (model.layers[1].get_weights()[0] == before).all()


def test_an_op_without_a_gradient_cannot_be_trained_through():
    model = net(ops.custom(np.sign))
    with pytest.raises(ValueError, match="custom sign: has no gradient"):
        model.fit(*data(), verbose=0)
    assert model.predict(data()[0]).shape == (ROWS, 1)


def test_gradients_of_two_uses_of_one_op_do_not_mix(backend):
    power = ops.custom(lambda a, b: a * b, lambda g, y, a, b: (g * b, g * a), name="times")
    x, y = data()
    results = []
    for times in (power, multiply):
        fastnn.set_seed(4)
        model = fastnn.Sequential(
            [Dense(6, input_shape=(12,)), Apply(lambda t, f=times: f(t, f(t, t))), Dense(1)]
        )
        model.compile(fastnn.optimizers.SGD(1e-4), "mse")
        model.fit(x, y, epochs=2, verbose=0)
        results.append(model.get_weights())
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


# Asking


def test_prediction_of_many_batches_sees_every_row_once(backend):
    rows = []

    def forward(x):
        rows.append(len(x))
        return np.cumsum(x, axis=1)

    model = fastnn.Sequential([Dense(8, input_shape=(12,)), Apply(ops.custom(forward)), Dense(1)])
    x = np.random.default_rng(1).normal(size=(2000, 12)).astype(np.float32)
    whole = model.predict(x)
    assert sum(rows) == 2000
    if backend != "numpy":  # whose products depend on the size of the batch
        assert whole[700:701].tobytes() == model.predict(x[700:701]).tobytes()
        assert whole[:50].tobytes() == model(x[:50]).tobytes() == model.predict_on_batch(x[:50]).tobytes()
    kernel, bias, last, end = model.get_weights()
    np.testing.assert_allclose(whole, np.cumsum(x @ kernel + bias, axis=1) @ last + end, rtol=1e-3, atol=1e-4)


def test_what_depends_on_weights_alone_is_computed_when_they_change(backend):
    calls = []

    def forward(w):
        calls.append(w.shape)
        return w / np.sqrt((w * w).sum(axis=0))

    def gradient(g, y, w):
        return (g - y * (g * y).sum(axis=0)) / np.sqrt((w * w).sum(axis=0))

    normalized = ops.custom(forward, gradient, name="normalized")
    model = fastnn.Sequential(
        [Linear(5, lambda x, w, b: add_bias(matmul(x, normalized(w)), b)), Dense(1)],
    )
    x, y = data()
    model.compile(fastnn.optimizers.SGD(0.1), "mse")
    model.predict(x)
    calls.clear()
    first = model.predict(x)
    model.predict(x[:3])
    assert not calls
    model.fit(x, y, batch_size=50, epochs=1, verbose=0)
    assert calls == [(12, 5)] * 2
    assert not np.array_equal(model.predict(x), first)
    assert len(calls) == 3


def test_the_function_runs_on_the_calling_thread():
    seen = []

    def forward(x):
        seen.append(threading.get_ident())
        return x + 0.0

    x = np.zeros((5000, 300), np.float32)
    model = fastnn.Sequential([Dense(300, input_shape=(300,)), Apply(ops.custom(forward, lambda g, y, x: g)), Dense(1)])
    model.compile("adam", "mse")
    model.predict(x)
    model.fit(x[:200], x[:200, :1], verbose=0)
    assert set(seen) == {threading.get_ident()}


def test_threads_may_ask_one_model_at_a_time_each():
    model = net(my_relu())
    x, _ = data()
    expected, found = model.predict(x), []
    threads = [threading.Thread(target=lambda: found.append(model.predict(x))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(p.tobytes() == expected.tobytes() for p in found)
    assert len(found) == 4


def test_a_model_may_ask_another_one_inside():
    other = net(relu)
    x, y = data()
    ask = ops.custom(lambda x: np.repeat(other.predict(x), 12, axis=1), lambda g, y, x: g, name="teacher")
    model = fastnn.Sequential([Apply(ask), Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=0)
    assert np.isfinite(model.predict(x)).all()


def test_a_plan_and_a_profile_show_it():
    model = net(my_relu())
    x, y = data()
    assert "custom my relu " in str(model.plan())
    assert "custom my relu_dx " in str(model.plan())
    assert "custom my relu " in str(model.plan(training=False))
    for profile, training in ((model.profile(x, y, seconds=0.01), True), (model.profile(x, seconds=0.01), False)):
        plan = model.plan(training, batch_size=32)
        assert [step.step for step in profile.steps] == [step.line() for step in plan.steps]
        assert all(0 <= step.seconds < 60 for step in profile.steps)


def test_it_works_in_double_precision():
    fastnn.config.set_backend("numpy")
    fastnn.config.set_floatx("float64")
    try:
        seen = []
        model = net(my_relu(lambda x: seen.append(x.dtype) or np.maximum(x, 0)))
        model.fit(*data(), verbose=0)
        assert set(seen) == {np.dtype(np.float64)}
    finally:
        fastnn.config.set_floatx("float32")
        fastnn.config.set_backend("auto")


# Errors


def failing(calls, function, error=RuntimeError):
    """The function, which fails at the call of that number."""
    count = [0]

    def wrapped(*arrays):
        count[0] += 1
        if count[0] == calls:
            raise error("no more")
        return function(*arrays)

    return wrapped


def steps_of(model, steps, batch=10):
    """The same training, but for so many steps only."""
    x, y = data()

    def stop(number, logs=None):
        model.stop_training = model.optimizer.iterations == steps

    model.fit(x, y, batch_size=batch, epochs=9, verbose=0, callbacks=[LambdaCallback(on_train_batch_end=stop)])
    assert model.optimizer.iterations == steps
    return model


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("where", ["forward", "gradient"])
@pytest.mark.parametrize("calls", [7, 8, 27])  # in the first layer or in the second of a step, and in a later epoch
def test_an_error_leaves_the_model_as_after_the_last_whole_step(backend, where, calls, norm):
    functions = [lambda x: np.maximum(x, 0), lambda g, y, x: np.where(y > 0, g, 0)]
    number = ["forward", "gradient"].index(where)
    functions[number] = failing(calls, functions[number])
    units = 200  # the second kernel is large enough to be updated by itself
    model = net(my_relu(*functions), units=units, norm=norm)
    x, y = data()
    with pytest.raises(RuntimeError, match="no more") as caught:
        model.fit(x, y, batch_size=10, epochs=5, verbose=0)
    assert "custom op 'my relu'" in "".join(caught.value.__notes__)
    assert (where == "gradient") == ("gradient of" in "".join(caught.value.__notes__))
    steps = (calls - 1) // 2
    assert model.optimizer.iterations == steps
    assert bits(model) == bits(steps_of(net(my_relu(), units=units, norm=norm), steps))
    model.fit(x, y, batch_size=10, epochs=1, verbose=0)  # and it can go on
    assert model.optimizer.iterations == steps + 10


def test_an_error_in_prediction_comes_out_and_the_next_one_works(backend):
    model = net(my_relu(failing(2, lambda x: np.maximum(x, 0))))
    x, _ = data()
    with pytest.raises(RuntimeError, match="no more") as caught:
        model.predict(x)
    assert caught.value.__notes__ == ["This happened in the custom op 'my relu'."]
    assert model.predict(x).tobytes() == net(relu).predict(x).tobytes()


RETURNS = [
    (lambda x: x[:, :1], ValueError, r"must return an array of shape \(\d+, 24\). Received: shape \(\d+, 1\)"),
    (lambda x: 1.0, ValueError, r"Received: shape \(\)"),
    (lambda x: None, TypeError, r"must return an array of real numbers, of shape \(\d+, 24\). Received: NoneType"),
    (lambda x: x + 0j, TypeError, "Received: an array of complex64"),
    (lambda x: np.full(x.shape, "a"), TypeError, "Received: an array of <U1"),
    (lambda x: [[1.0], [1.0, 2.0]], TypeError, "must return an array of shape"),
]


@pytest.mark.parametrize(("function", "error", "message"), RETURNS)
def test_a_wrong_result_is_refused_in_the_name_of_the_op(backend, function, error, message):
    with pytest.raises(error, match=f"custom op 'wrong': .*{message}"):
        net(ops.custom(function, name="wrong")).predict(data()[0])
    model = net(ops.custom(lambda x: x + 0.0, lambda g, y, x: 1j if function(g) is None else function(g), name="op"))
    before = bits(model)
    with pytest.raises(error, match="gradient of the custom op 'op': "):
        model.fit(*data(), verbose=0)
    assert bits(model) == before


def test_a_wrong_number_of_gradients_is_refused():
    op = ops.custom(lambda x, w, b: x * 1.0, lambda g, y, x, w, b: (g, w), name="two")
    model = fastnn.Sequential([Linear(12, op), Dense(1)])
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"one array, or None, for each of the 3 inputs\. Received: 2"):
        model.fit(*data(), verbose=0)


def test_inputs_cannot_be_changed(backend):
    def forward(x):
        x += 1
        return x

    with pytest.raises(ValueError, match="read-only"):
        net(ops.custom(forward)).predict(data()[0])


def test_shapes_are_checked_when_the_layer_is_called():
    x = Input((4,))
    for shape, message in (
        (lambda x: 3, "Received: 3"),
        (lambda x: (x[0], None), r"Received: \(None, None\)"),
        (lambda x: (x[0], -1), r"Received: \(None, -1\)"),
    ):
        with pytest.raises(TypeError, match=f"custom op 'bad': shape must make .*{message}"):
            Apply(ops.custom(lambda x: x, shape=shape, name="bad"))(x)

    def rule(x):
        raise ValueError(f"rows must have 3 numbers. Received: {x}")

    with pytest.raises(ValueError, match="custom op 'bad': rows must have 3 numbers"):
        Apply(ops.custom(lambda x: x, shape=rule, name="bad"))(x)
    with pytest.raises(TypeError, match="takes one array or more"):
        ops.custom(lambda: 1, name="none")()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"forward": 3}, "forward must be a function. Received: forward=3"),
        ({"forward": np.sign, "gradient": 1.0}, "gradient must be a function"),
        ({"forward": np.sign, "shape": (1,)}, "shape must be a function"),
        ({"forward": np.sign, "name": ""}, "name must be a short text"),
        ({"forward": np.sign, "name": "a\nb"}, "name must be a short text"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=f"custom: {message}"):
        ops.custom(**arguments)


def test_a_name_of_a_built_in_op_changes_nothing():
    strange = ops.custom(lambda x: x + 1.0, lambda g, y, x: g, name="relu")  # would be fused if it were relu
    x, _ = data()
    model = fastnn.Sequential([Dense(3, input_shape=(12,)), Apply(strange)])
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(model.predict(x), x @ kernel + bias + 1.0, rtol=1e-4, atol=1e-5)


def test_ctrl_c_inside_the_function_ends_the_training_after_the_step(backend):
    count = [0]

    def forward(x):
        count[0] += 1
        if count[0] == 15:
            os.kill(os.getpid(), signal.SIGINT)
        return np.maximum(x, 0)

    model = net(my_relu(forward))
    x, y = data()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=10, epochs=50, verbose=0)
    assert model.optimizer.iterations == 8
    assert bits(model) == bits(steps_of(net(my_relu()), 8))


def test_a_second_ctrl_c_cuts_the_step_and_leaves_the_weights():
    count = [0]

    def forward(x):
        count[0] += 1
        if count[0] == 16:
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
        return np.maximum(x, 0)

    model = net(my_relu(forward))
    x, y = data()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=10, epochs=50, verbose=0)
    assert model.optimizer.iterations == 7
    assert bits(model) == bits(steps_of(net(my_relu()), 7))


def test_ctrl_c_in_a_prediction_comes_through():
    model = net(ops.custom(lambda x: signal.raise_signal(signal.SIGINT) or x))
    with pytest.raises(KeyboardInterrupt):
        model.predict(data()[0])

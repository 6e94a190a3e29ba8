"""Layers of the user's own: `build` and `call`, parts that are layers, training, files, errors."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

import fastnn
from fastnn import initializers, ops
from fastnn.layers import Activation, BatchNormalization, Conv2D, Dense, Dropout, Input, Layer, register


@register
class RMSNorm(Layer):
    def __init__(self, epsilon=1e-6, **arguments):
        self.epsilon = epsilon
        super().__init__(**arguments)

    def build(self, shape):
        self.scale = self.add_weight("scale", (shape[-1],), "ones")

    def call(self, x, training=None):
        return x * ops.rsqrt(ops.mean(x * x, axis=-1, keepdims=True) + self.epsilon) * self.scale


@register
class SqueezeExcitation(Layer):
    def __init__(self, ratio=2):
        self.ratio = ratio
        super().__init__()

    def build(self, shape):
        self.squeeze = Dense(shape[-1] // self.ratio, activation="relu")
        self.excite = Dense(shape[-1], activation="sigmoid")

    def call(self, x, training=None):
        return x * self.excite(self.squeeze(ops.mean(x, axis=(1, 2), keepdims=True)))


@register
class Backbone(Layer):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.base = fastnn.Sequential([Dense(3, input_shape=(4,), name="a"), Activation("relu"), Dense(3, name="b")])

    def call(self, x):
        return self.base(x)


@register
class Residual(Layer):
    """Layers in a list and in a dict, which act in training only or have weights that are not trained."""

    def __init__(self, units, rate=0.25, **arguments):
        self.units, self.rate = units, rate
        self.stack = [Dense(units, activation="tanh"), RMSNorm()]
        self.ends = {"norm": BatchNormalization(), "drop": Dropout(rate)}
        super().__init__(**arguments)

    def build(self, shape):
        self.mix = self.add_weight("mix", (1,), "ones")

    def call(self, x, training=None):
        y = x
        for layer in self.stack:
            y = layer(y)
        return x + self.ends["drop"](self.ends["norm"](y)) * self.mix


class Attention(Layer):
    """One head over the steps (N, T, C)."""

    def build(self, shape):
        self.size = shape[-1]
        self.query, self.key, self.value = Dense(self.size), Dense(self.size), Dense(self.size)

    def call(self, x, training=None):
        scores = self.query(x) @ ops.transpose(self.key(x), (0, 2, 1)) / self.size**0.5
        return ops.softmax(scores) @ self.value(x)


def images():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6, 5, 4)).astype(np.float32)
    return x, x.mean(axis=(1, 2, 3)).reshape(-1, 1)


def image_model():
    fastnn.set_seed(1)
    layers = [Conv2D(6, 3, input_shape=(6, 5, 4)), SqueezeExcitation(), RMSNorm(), fastnn.layers.Flatten(), Dense(8)]
    model = fastnn.Sequential([*layers, Residual(8), Dense(1)])
    model.compile(fastnn.optimizers.Adam(0.01), "mse")
    return model


# What it computes


def test_on_arrays_as_in_a_model(backend):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(9, 7, 4)).astype(np.float32)
    entry = Input((7, 4))
    layer = Attention()
    model = fastnn.Model(entry, layer(entry))
    weights = [w.astype(float) for w in model.get_weights()]
    q, k, v = (x @ w + b for w, b in zip(weights[::2], weights[1::2], strict=True))
    scores = np.exp(q @ k.transpose(0, 2, 1) / 2.0)
    expected = scores / scores.sum(axis=-1, keepdims=True) @ v
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_call_need_not_take_training():
    class Doubled(Layer):
        def call(self, x):
            return 2 * x

    model = fastnn.Sequential([Doubled(), Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    assert Doubled()(np.ones((1, 2)), training=True).tolist() == [[2.0, 2.0]]


def test_a_layer_on_arrays_makes_its_weights_and_those_inside():
    layer = Residual(4)
    assert layer(np.ones((2, 4), np.float32)).shape == (2, 4)
    assert [w.shape for w in layer.weights] == [(1,), (4, 4), (4,), (4,), (4,), (4,), (4,), (4,)]


def test_gradients_are_the_slope_of_the_loss():
    fastnn.config.set_backend("numpy")
    fastnn.config.set_floatx("float64")
    try:
        x, y = (array.astype(float) for array in images())
        entry = Input((6, 5, 4))
        middle = SqueezeExcitation()(Conv2D(6, 3, activation="tanh")(entry))
        flat = fastnn.layers.Reshape((12, 6))(RMSNorm()(middle))
        model = fastnn.Model(entry, Dense(1)(fastnn.layers.Flatten()(Attention()(flat))))
        model.compile(fastnn.optimizers.SGD(0.01), "mse")
        before = model.get_weights()
        model.train_on_batch(x, y)
        found = [(a - b) / 0.01 for a, b in zip(before, model.get_weights(), strict=True)]
        rng = np.random.default_rng(1)
        direction = [rng.normal(size=w.shape) for w in before]

        def loss(step):
            model.set_weights([w + step * d for w, d in zip(before, direction, strict=True)])
            return model.evaluate(x, y)

        slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
        np.testing.assert_allclose(sum(np.sum(g * d) for g, d in zip(found, direction, strict=True)), slope, rtol=1e-5)
    finally:
        fastnn.config.set_floatx("float32")
        fastnn.config.set_backend("auto")


def test_training_learns_and_is_the_same_on_every_backend(backend):
    x, y = images()
    model = image_model()
    history = model.fit(x, y, batch_size=20, epochs=15, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    fastnn.config.set_backend("numpy")
    other = image_model()
    losses = other.fit(x, y, batch_size=20, epochs=2, verbose=0).history["loss"]
    np.testing.assert_allclose(losses, history[:2], rtol=1e-3)


# Parts


def test_weights_of_parts_are_those_of_the_layer_and_of_the_model():
    model = image_model()
    assert [weight.name for weight in model.layers[1].weights] == [
        f"{model.layers[1].name}.{name}" for name in ("squeeze.kernel", "squeeze.bias", "excite.kernel", "excite.bias")
    ]
    residual = model.layers[5]
    assert [w.name.removeprefix(f"{residual.name}.") for w in residual.weights] == [
        "mix", "stack.0.kernel", "stack.0.bias", "stack.1.scale",
        "ends.norm.gamma", "ends.norm.beta", "ends.norm.moving_mean", "ends.norm.moving_variance",
    ]  # fmt: skip
    assert sum(w.size for w in model.weights) == model.count_params()
    x, y = images()
    before = [w.value.copy() for w in model.weights]
    model.fit(x, y, epochs=1, verbose=0)
    assert all(not np.array_equal(w.value, b) for w, b in zip(model.weights, before, strict=True))


def test_parts_know_that_it_is_training():
    model = image_model()
    plans = str(model.plan()), str(model.plan(training=False))
    assert "dropout" in plans[0]
    assert "moments" in plans[0]
    assert "dropout" not in plans[1]
    layer = Residual(4, rate=0.9)
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert np.array_equal(layer(rows), layer(rows))
    assert not np.array_equal(layer(rows, training=True), layer(rows, training=True))


def test_a_part_can_be_frozen():
    model = image_model()
    x, y = images()
    model.fit(x, y, epochs=1, verbose=0)
    part = model.layers[1].squeeze
    part.trainable = False
    frozen, other = part.get_weights()[0], model.layers[1].excite.get_weights()[0]
    model.fit(x, y, epochs=1, verbose=0)
    assert np.array_equal(part.get_weights()[0], frozen)
    assert not np.array_equal(model.layers[1].excite.get_weights()[0], other)


def test_a_part_that_two_layers_share_is_counted_once():
    shared = Dense(4)

    class Twice(Layer):
        def __init__(self):
            super().__init__()
            self.part = shared

        def call(self, x, training=None):
            return self.part(self.part(x))

    model = fastnn.Sequential([Twice(), Twice(), Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
    assert model.count_params() == 4 * 4 + 4 + 5


def test_a_model_can_be_a_part():
    class Wrapped(Layer):
        def __init__(self):
            super().__init__()
            self.inner = fastnn.Sequential([Dense(5, "relu", input_shape=(4,)), Dense(3)])

        def call(self, x, training=None):
            return self.inner(x) * 2.0

    model = fastnn.Sequential([Wrapped(), Dense(1)])
    model.compile(fastnn.optimizers.Adam(0.05), "mse")
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    losses = model.fit(x, x[:, :1], epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]
    assert model.count_params() == 4 * 5 + 5 + 5 * 3 + 3 + 4


def test_two_weights_with_one_gradient_are_both_trained(backend):
    class Sum(Layer):
        def build(self, shape):
            self.a, self.b = (self.add_weight(name, (shape[-1],), "zeros") for name in "ab")

        def call(self, x, training=None):
            return x * (self.a + self.b)

    model = fastnn.Sequential([Sum(input_shape=(3,))])
    model.compile(fastnn.optimizers.SGD(0.1), "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 3)), verbose=0)
    a, b = model.get_weights()
    assert (a == b).all()
    assert (a > 0).all()


# Files


def test_saved_and_loaded_it_goes_on_as_it_was(tmp_path):
    x, y = images()
    model, other = image_model(), image_model()
    model.fit(x, y, epochs=1, verbose=0)
    model.save(tmp_path / "model.fnn")
    fastnn.layers.base.reset_names()  # as in another process
    loaded = fastnn.load_model(tmp_path / "model.fnn")
    assert [w.name for w in loaded.weights] == [w.name for w in model.weights]
    assert loaded.predict(x).tobytes() == model.predict(x).tobytes()
    for each in (model, loaded):
        each.fit(x, y, epochs=2, initial_epoch=1, verbose=0)
    other.fit(x, y, epochs=2, verbose=0)
    assert [w.tobytes() for w in model.get_weights()] == [w.tobytes() for w in loaded.get_weights()]
    assert [w.tobytes() for w in model.get_weights()] == [w.tobytes() for w in other.get_weights()]


def test_arguments_come_back_with_those_of_the_base():
    layer = Residual(4, rate=0.5, name="block", trainable=False)
    config = layer.get_config()
    assert config == {"units": 4, "rate": 0.5, "input_shape": None, "name": "block", "trainable": False}
    twin = Residual.from_config(config)
    assert (twin.units, twin.rate, twin.name, twin.trainable) == (4, 0.5, "block", False)
    assert SqueezeExcitation.from_config({"ratio": 4, "name": "gate"}).name == "gate"
    with pytest.raises(ValueError, match="name must be a short text"):
        SqueezeExcitation.from_config({"ratio": 4, "name": "a/b"})


def test_copies_have_the_same_weights():
    model = image_model()
    twin = copy.deepcopy(model)
    x, _ = images()
    assert twin.predict(x).tobytes() == model.predict(x).tobytes()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "freeze",
    [lambda layer: layer, lambda layer: layer.stack[0], lambda layer: layer.mix, lambda layer: layer.stack[0].bias],
    ids=["layer", "part", "weight", "weight of a part"],
)
def test_what_is_frozen_stays_frozen_in_files_and_copies(freeze, compiled, tmp_path):
    layer = Residual(4)
    model = fastnn.Sequential([Input((4,)), layer, Dense(1)])
    assert model.count_params()  # it is built
    freeze(layer).trainable = False
    x, y = np.ones((6, 4)), np.ones((6, 1))
    if compiled:
        model.compile("adam", "mse")
        model.fit(x, y, verbose=0)
    model.save(tmp_path / "a.fnn")
    for again in (fastnn.load_model(tmp_path / "a.fnn"), copy.deepcopy(model)):
        assert [w.name for w in again.trainable_weights] == [w.name for w in model.trainable_weights]
        np.testing.assert_array_equal(again.predict(x), model.predict(x))
        assert not freeze(again.layers[0]).trainable
        if compiled:
            again.fit(x, y, verbose=0)
            frozen = {w.name: w.value for w in model.weights} | {w.name: None for w in model.trainable_weights}
            for weight in again.weights:
                if frozen[weight.name] is not None and "moving" not in weight.name:
                    np.testing.assert_array_equal(weight.value, frozen[weight.name])
            freeze(again.layers[0]).trainable = True
            assert len(again.trainable_weights) > len(model.trainable_weights)


def test_a_weight_that_is_frozen_after_training_is_trained_no_more():
    model = fastnn.Sequential([Dense(2, input_shape=(3,))])
    model.compile("sgd", "mse")
    x, y = np.ones((4, 3)), np.zeros((4, 2))
    model.fit(x, y, verbose=0)
    kernel, bias = model.get_weights()
    model.layers[0].bias.trainable = False
    model.fit(x, y, verbose=0)
    assert (model.get_weights()[1] == bias).all()
    assert (model.get_weights()[0] != kernel).all()
    model.layers[0].bias.trainable = True
    model.fit(x, y, verbose=0)
    assert (model.get_weights()[1] != bias).all()


def test_a_frozen_model_inside_comes_back_frozen(tmp_path):
    layer = Backbone()
    model = fastnn.Sequential([Input((4,)), layer, Dense(1)])
    assert model.count_params()
    layer.base.trainable = False  # of which one layer has no weights, and a name that is made up
    model.save(tmp_path / "a.fnn")
    again = fastnn.load_model(tmp_path / "a.fnn")
    assert [w.name for w in again.trainable_weights] == [w.name for w in model.trainable_weights]
    arrays, data = model.state()
    data["frozen"] = {"layers": ["spine"], "weights": []}
    with pytest.raises(ValueError, match=r"frozen must list layers and weights. Received: {'layers': \['spine'\]"):
        again.restore(arrays, data)
    data["frozen"] = {"layers": [], "weights": []}
    with pytest.raises(ValueError, match="its arrays do not fit the model"):
        again.restore({}, data)
    assert [w.name for w in again.trainable_weights] == [w.name for w in model.trainable_weights]


def test_build_may_be_called_by_hand_or_fail():
    class Outer(Layer):
        def build(self, shape):
            self.part = Dense(3)
            self.part.build(shape)
            self.scale = self.add_weight("scale", (shape[-1],), "ones")
            if shape[-1] != 4:
                raise ValueError("needs 4")

        def call(self, x):
            return self.part(x * self.scale)

    layer = Outer()
    with pytest.raises(ValueError, match="needs 4"):
        layer(np.ones((2, 3)))
    assert layer(np.ones((2, 4))).shape == (2, 3)
    assert [w.local for w in layer.weights] == ["scale", "kernel", "bias"]


def test_parts_are_not_searched_in_tables_and_circles():
    class Tree(Layer):
        def __init__(self):
            super().__init__()
            self.dense = Dense(2)
            self.tree = {"children": []}
            self.tree["children"].append({"parent": self.tree})
            self.table = [[0.0] * 1000 for _ in range(1000)]

        def call(self, x):
            return self.dense(x)

    model = fastnn.Sequential([Input((4,)), Tree()])
    assert [w.shape for w in model.weights] == [(4, 2), (2,)]


@pytest.mark.parametrize("names", [("k", "k"), ("a.k", "b"), ("",)])
def test_names_of_weights_are_checked(names):
    class Twice(Layer):
        def build(self, shape):
            for name in names:
                self.add_weight(name, (shape[-1],))

    with pytest.raises(ValueError, match=r"names of weights must differ and have no dots. Received: name="):
        Twice()(Input((3,)))


def test_two_weights_of_one_name_are_no_model():
    class Part(Layer):
        def build(self, shape):
            self.d = Dense(3)

        def call(self, x):
            return self.d(x)

    x = Input((3,))
    with pytest.raises(ValueError, match=r"Model: weights must have different names. Twice: b.d.kernel, b.d.bias"):
        fastnn.Model(x, Dense(3, name="b.d")(Part(name="b")(x)))


def test_powers_take_layers_weights_on_both_sides():
    class Power(Layer):
        def build(self, shape):
            self.w = self.add_weight("w", (shape[-1],), initializers.Constant(2.0))

        def call(self, x):
            return x**self.w + 2.0**x

    model = fastnn.Sequential([Input((3,)), Power()])
    x = np.array([[0.5, 1.0, 3.0]])
    np.testing.assert_allclose(model.predict(x), x**2 + 2**x, rtol=1e-5)
    np.testing.assert_allclose(Power()(x), x**2 + 2**x, rtol=1e-5)


def test_parts_are_found_in_lists_of_lists_and_of_models():
    class Deep(Layer):
        def __init__(self):
            super().__init__()
            self.rows = [[Dense(3)], {"a": (Dense(3), Dense(3))}]
            self.models = [fastnn.Sequential([Dense(3, input_shape=(3,))])]

        def call(self, x):
            return self.models[0](self.rows[1]["a"][1](self.rows[1]["a"][0](self.rows[0][0](x))))

    model = fastnn.Sequential([Input((3,)), Deep(), Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    assert len(model.trainable_weights) == 10
    assert "rows.1.a.0.kernel" in model.weights[2].name


def test_a_call_without_a_result_is_named():
    class Nothing(Layer):
        def call(self, x):
            pass

    with pytest.raises(TypeError, match=r"nothing.*: call must return a Tensor, or a list of them. Received: None"):
        Nothing()(Input((3,)))


def test_a_layer_that_is_not_registered_is_refused(tmp_path):
    class Secret(Layer):
        def call(self, x, training=None):
            return x * 2.0

    model = fastnn.Sequential([Secret(input_shape=(3,))])
    with pytest.raises(ValueError, match=r"fastnn\.layers\.register lets files name classes"):
        model.save(tmp_path / "model.fnn")
    assert not (tmp_path / "model.fnn").exists()
    for wrong, error in ((Dense(1), TypeError), (int, TypeError), (type("Dense", (Layer,), {}), ValueError)):
        with pytest.raises(error, match="register: "):
            register(wrong)


def test_the_examples_of_the_readme_work():
    readme = (Path(fastnn.__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Layers and operations of your own")[1].split("\n## ")[0]
    names = {}
    for code in section.split("```python")[1:]:
        exec(code.split("```")[0], names)
    gate, binarize = names["SqueezeExcitation"](), names["Binarize"]()
    model = fastnn.Sequential([Conv2D(8, 3, input_shape=(6, 5, 4)), gate, binarize, fastnn.layers.Flatten(), Dense(1)])
    model.compile("adam", "mse")
    x, y = images()
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    assert all(not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


# Errors


def test_errors_of_call_and_build_name_the_layer():
    class Wrong(Layer):
        def build(self, shape):
            self.kernel = self.add_weight("kernel", (5, 2))

        def call(self, x, training=None):
            return x @ self.kernel

    with pytest.raises(ValueError, match=r"^wrong_one: matmul: the sizes of the arrays do not fit together"):
        Wrong(name="wrong_one")(Input((4,)))
    with pytest.raises(ValueError, match=r"^wrong_one: "):
        Wrong(name="wrong_one")(np.ones((2, 4), np.float32))

    class Outer(Layer):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            self.part = Wrong(name="inner")

        def call(self, x, training=None):
            return self.part(x)

    with pytest.raises(ValueError, match=r"^outer_one: inner: matmul"):
        Outer(name="outer_one")(Input((4,)))

    class Mixed(Layer):
        def call(self, x, training=None):
            return x + np.ones(4)

    with pytest.raises(TypeError, match=r"^mixed_one: add: takes Tensors and weights in a model.*add_weight"):
        Mixed(name="mixed_one")(Input((4,)))

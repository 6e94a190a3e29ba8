"""Models whose layers form a graph: branches, shared layers, models in models, several inputs and outputs."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastnn
from fastnn import Model, Sequential
from fastnn.layers import Activation, Add, BatchNormalization, Concatenate, Dense, Dot, Dropout, Flatten, Input, Layer
from fastnn.models import load_model, model_from_config
from fastnn.ops import pointwise
from fastnn.optimizers import Adam


def rows(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def branched(**names):
    x = Input((5,), name="x")
    h = Dense(8, "relu", name="h")(x)
    left, right = Dense(4, "tanh", name="left")(h), Dense(4, name="right")(h)
    return Model(x, Dense(2, name="end")(Add(name="sum")([left, right])), **names)


def by_hand(model, x):
    def dense(name, value):
        layer = model.get_layer(name)
        return value @ layer.kernel.value + layer.bias.value

    h = np.maximum(dense("h", x), 0)
    return dense("end", np.tanh(dense("left", h)) + dense("right", h))


def test_a_merging_layer_may_be_called_again_on_other_shapes():
    add, join, dot = Add(), Concatenate(), Dot(axes=-1)
    for sizes in ((3,), (1,), (4, 5), (8, 8, 2), (1, 1, 2)):
        pair, arrays = [Input(sizes), Input(sizes)], [rows(2, *sizes), rows(2, *sizes, seed=1)]
        assert add(pair).shape == (None, *sizes)
        np.testing.assert_array_equal(add(arrays), arrays[0] + arrays[1])
        assert join(pair).shape == (None, *sizes[:-1], 2 * sizes[-1])
        np.testing.assert_array_equal(join(arrays), np.concatenate(arrays, -1))
        if len(sizes) < 3:
            wanted = np.einsum("nik,njk->nij" if len(sizes) == 2 else "nk,nk->n", *arrays)
            np.testing.assert_allclose(dot(arrays), wanted.reshape(2, *dot(pair).shape[1:]), rtol=1e-5)
    with pytest.raises(ValueError, match=r"sizes must be equal, or 1 to be repeated"):
        add([Input((3,)), Input((4,))])


def test_a_merging_layer_serves_stages_of_several_sizes(backend):
    x, add = Input((6,), name="x"), Add()
    h = add([Dense(6, name="a")(x), x])
    model = Model(x, add([Dense(2, name="b")(h), Dense(2, name="c")(h)]))
    model.compile("sgd", "mse")
    model.fit(rows(8, 6), rows(8, 2), verbose=0)
    a, b, c = (model.get_layer(name) for name in "abc")
    h = rows(8, 6) @ a.kernel.value + a.bias.value + rows(8, 6)
    wanted = h @ (b.kernel.value + c.kernel.value) + b.bias.value + c.bias.value
    np.testing.assert_allclose(model.predict(rows(8, 6)), wanted, rtol=1e-4, atol=1e-5)


def test_branches_come_together(backend):
    model, x = branched(), rows(7, 5)
    np.testing.assert_allclose(model.predict(x), by_hand(model, x), rtol=1e-5, atol=1e-6)
    assert model.input_shape == (None, 5) and model.output_shape == (None, 2)
    assert [layer.name for layer in model.layers] == ["h", "left", "right", "sum", "end"]


def test_branches_are_trained(backend):
    model, x = branched(), rows(64, 5)
    y = by_hand(branched(), x)
    model.compile(Adam(learning_rate=0.01), "mse")
    losses = model.fit(x, y, epochs=60, verbose=0).history["loss"]
    assert losses[-1] < 0.1 * losses[0]


def test_a_shared_layer_gets_the_sum_of_its_gradients():
    x = Input((3,))
    shared = Dense(3, use_bias=False, kernel_initializer="ones")
    model = Model(x, Add()([shared(x), shared(shared(x))]))
    assert model.count_params() == 9
    model.compile("sgd", "mse")
    data, kernel = rows(4, 3), shared.kernel.value.copy()

    def loss(k):
        return float(np.mean(np.square(data @ k + data @ k @ k - 1.0)))

    model.fit(data, np.ones((4, 3), np.float32), batch_size=4, epochs=1, verbose=0, shuffle=False)
    moved = (kernel - shared.kernel.value) / 0.01
    for index in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[index] = 1e-4
        slope = (loss(kernel + step) - loss(kernel - step)) / 2e-4
        assert moved[index] == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_a_model_in_a_model_shares_its_weights():
    inner, outer_input = branched(name="inner"), Input((5,))
    outer = Model(outer_input, Dense(1)(inner(outer_input)))
    x = rows(3, 5)
    before = outer.predict(x)
    inner.get_layer("h").set_weights([np.zeros((5, 8)), np.zeros(8)])
    assert not np.array_equal(before, outer.predict(x))
    assert inner.get_layer("h") in outer.layers


def test_a_model_twice_in_a_model():
    inner = branched(name="twin")
    one, other = Input((5,), name="one"), Input((5,), name="other")
    model = Model([one, other], Add()([inner(one), inner(other)]))
    assert model.count_params() == inner.count_params()
    assert model.input_shape == [(None, 5), (None, 5)]


def test_a_sequential_takes_a_model_as_a_layer(tmp_path):
    base = branched(name="base")
    model = Sequential([base, Activation("relu"), Dense(3, "softmax")])
    x = rows(6, 5)
    wanted = np.maximum(base.predict(x), 0)
    end = model.layers[-1]
    model.build()
    logits = wanted @ end.kernel.value + end.bias.value
    np.testing.assert_allclose(
        model.predict(x), np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rtol=1e-5, atol=1e-6
    )
    model.save(tmp_path / "model.fnn")
    np.testing.assert_array_equal(load_model(tmp_path / "model.fnn").predict(x), model.predict(x))


def test_a_frozen_base_is_not_trained():
    base = branched(name="base")
    base.trainable = False
    model = Sequential([base, Dense(1)])
    model.compile("adam", "mse")
    before = base.get_weights()
    head = model.layers[-1]
    model.build()
    start = head.kernel.value.copy()
    model.fit(rows(16, 5), rows(16, 1), epochs=2, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, base.get_weights(), strict=True))
    assert not np.array_equal(start, head.kernel.value)
    base.trainable = True
    assert len(model.trainable_weights) == len(model.weights)


def test_training_layers_work_in_branches():
    x = Input((6,))
    left = Dropout(0.5)(Dense(4, "relu")(x))
    right = BatchNormalization()(Dense(4)(x))
    model = Model(x, Dense(1)(Add()([left, right])))
    model.compile("adam", "mse")
    model.fit(rows(32, 6), rows(32, 1), epochs=2, verbose=0)
    moving = next(layer for layer in model.layers if isinstance(layer, BatchNormalization)).moving_mean.value
    assert moving.any()


def test_threads_do_not_change_a_bit():
    found = []
    for threads in (1, 2, 3):
        fastnn.set_num_threads(threads)
        fastnn.set_seed(5)
        x = Input((12, 12, 3))
        h = fastnn.layers.Conv2D(16, 3, padding="same", activation="relu")(x)
        left = fastnn.layers.Conv2D(16, 3, padding="same")(h)
        model = Model(x, Dense(2)(Flatten()(Concatenate()([h, left]))))
        model.compile("adam", "mse")
        model.fit(rows(24, 12, 12, 3), rows(24, 2), epochs=2, batch_size=8, verbose=0)
        found.append(np.concatenate([w.ravel() for w in model.get_weights()]).view(np.uint32))
    fastnn.set_num_threads(2)
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all()


# Files


@pytest.mark.parametrize("form", ["one", "list", "dict"])
def test_the_architecture_survives_json(form):
    x, age = Input((5,), name="x"), Input((5,), name="age")
    h = Dense(5, name="h")
    a, b = h(x), h(age)
    inputs = {"one": x, "list": [x, age], "dict": {"image": x, "age": age}}[form]
    outputs = {"one": a, "list": [Add()([a, b]), b], "dict": {"sum": Add()([a, b]), "old": b}}[form]
    model = Model(inputs, outputs)
    description = json.loads(json.dumps(model.get_config()))
    again = model_from_config(description)
    assert again.get_config() == model.get_config()
    assert (again.input_shape, again.output_shape) == (model.input_shape, model.output_shape)


def test_a_trained_graph_goes_on_from_its_file(tmp_path):
    x, y = rows(48, 5), rows(48, 2, seed=1)
    whole = branched(name="m")
    whole.compile("adam", "mse")
    whole.fit(x, y, epochs=2, verbose=0)
    whole.save(tmp_path / "m.fnn")
    half = load_model(tmp_path / "m.fnn")
    whole.fit(x, y, epochs=2, verbose=0)
    half.fit(x, y, epochs=2, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), half.get_weights(), strict=True))


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c["calls"][1].update(inputs=7),
        lambda c: c["calls"][1].update(inputs=1),
        lambda c: c["calls"][1].update(inputs=-1),
        lambda c: c["calls"][1].update(inputs=True),
        lambda c: c["calls"][1].update(inputs=None),
        lambda c: c["calls"][0].update(inputs=0),
        lambda c: c["calls"][1].update(inputs=[0]),
        lambda c: c["calls"][1].update(layer="nobody"),
        lambda c: c["calls"][1].update(layer=["h"]),
        lambda c: c["calls"][4].update(inputs={"a": 1}),
        lambda c: c["calls"][4].update(inputs=[]),
        lambda c: c["calls"][1].pop("inputs"),
        lambda c: c.update(calls=[]),
        lambda c: c.update(calls={"h": 0}),
        lambda c: c.update(inputs=99),
        lambda c: c.update(inputs=[]),
        lambda c: c.update(outputs={}),
        lambda c: c.update(outputs="5"),
        lambda c: c.pop("outputs"),
    ],
)
def test_a_damaged_description_is_refused(damage):
    description = json.loads(json.dumps(branched().get_config()))
    damage(description["config"])
    with pytest.raises(ValueError, match=r"."):
        model_from_config(description)


def test_a_cycle_in_a_description_is_refused():
    description = json.loads(json.dumps(branched().get_config()))
    description["config"]["calls"][1]["inputs"] = 5  # what the last call makes
    with pytest.raises(ValueError, match="a call can take what calls before it made, 0 to 0"):
        model_from_config(description)


# Bad input


def test_an_input_that_leads_nowhere_is_named():
    x, age = Input((5,)), Input((1,), name="age")
    with pytest.raises(ValueError, match=r"each input must lead to an output. Received: 'age'"):
        Model([x, age], Dense(1)(x))


def test_an_input_that_is_missing_is_named():
    x, age = Input((5,)), Input((5,), name="age")
    with pytest.raises(ValueError, match="an output that also needs 'age'"):
        Model(x, Add()([x, age]))


def test_the_same_input_twice_is_refused():
    x = Input((5,))
    with pytest.raises(ValueError, match="inputs must be different"):
        Model([x, x], Dense(1)(x))


def test_layers_of_one_name_are_named():
    x = Input((5,), name="x")
    with pytest.raises(ValueError, match="twice: same"):
        Model(x, Dense(2, name="same")(Dense(2, name="same")(x)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: Add()(x), "Add takes a list"),
        (lambda x: Add()([x]), "takes two or more inputs. Received: 1"),
        (lambda x: Add()([x, np.ones((1, 5))]), "Tensors or arrays, not both"),
        (lambda x: Dense(2)([x, x]), "Dense takes one Tensor or array. Received: 2 in a list"),
        (lambda x: Add()([x, Dense(4)(x)]), r"sizes must be equal.*\(None, 5\) and \(None, 4\)"),
        (lambda x: Concatenate()([]), "Concatenate takes a list"),
    ],
)
def test_calls_that_do_not_fit_say_so(call, message):
    with pytest.raises(ValueError, match=message):
        call(Input((5,)))


def test_branches_that_do_not_fit_are_named_with_their_shapes():
    x = Input((8, 8, 3), name="scan")
    up = fastnn.layers.Conv2D(4, 3, name="up")(x)
    with pytest.raises(ValueError, match=r"join: .*\(None, 8, 8, 3\) and \(None, 6, 6, 4\).*'scan' and 'up'"):
        Concatenate(name="join")([x, up])


def test_a_model_called_on_other_shapes_says_what_it_takes():
    with pytest.raises(ValueError, match=r"takes Tensors of shape \(None, 5\)"):
        branched()(Input((6,)))
    with pytest.raises(ValueError, match="takes 1 Tensors"):
        branched()([Input((5,)), Input((5,))])


def test_a_sequential_refuses_models_of_several_inputs():
    x, y = Input((5,)), Input((5,))
    with pytest.raises(ValueError, match="one input and one output"):
        Sequential([Model([x, y], Add()([x, y]))])
    with pytest.raises(ValueError, match="takes several"):
        Sequential([Add()])


# Layers of one's own


class Split(Layer):
    """Two outputs."""

    def call(self, x, training=None):
        return [pointwise.relu(x), pointwise.tanh(x)]


def test_a_layer_may_have_several_outputs():
    x = Input((4,))
    positive, bounded = Split()(x)
    model = Model(x, Add()([positive, bounded]))
    data = rows(3, 4)
    np.testing.assert_allclose(model.predict(data), np.maximum(data, 0) + np.tanh(data), rtol=1e-6, atol=1e-6)


def test_any_tensor_can_be_an_input():
    x = Input((4,))
    middle = Dense(3, name="first")(x)
    y = Dense(2, name="second")(middle)
    model = Model(middle, y)
    assert [layer.name for layer in model.layers] == ["second"]
    assert model.input_shape == (None, 3)


# Describing


def test_the_summary_says_what_each_layer_takes():
    lines: list[str] = []
    branched(name="net").summary(print_fn=lines.append)
    table = [line.split() for line in lines[0].splitlines()]
    assert table[0] == ["Layer", "Output", "shape", "Weights", "Output", "Takes"]
    assert table[6] == ["sum", "(Add)", "(None,", "4)", "0", "16", "B", "left,", "right"]
    assert lines[0].splitlines()[-1].startswith("net: 130 weights (520 B), 130 of them trained")


def test_the_summary_of_a_part_of_a_network_begins_with_its_input():
    x = Dense(3)(Input((2,)))
    lines: list[str] = []
    Model(x, Dense(1, name="end")(x), name="net").summary(print_fn=lines.append)
    assert lines[0].splitlines()[-1].startswith("net: 4 weights")


def test_a_shared_layer_is_counted_once():
    x = Input((3,))
    shared = Dense(3, name="shared")
    lines: list[str] = []
    Model(x, shared(shared(x)), name="net").summary(print_fn=lines.append)
    assert [line.split()[4] for line in lines[0].splitlines() if line.startswith("shared")] == ["12", "0"]

"""What depends on the weights alone is kept between predictions, and is never older than the weights."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
from small_graphs import leaf, ops, placed

import fastnn
from fastnn import backends, callbacks
from fastnn.graph import Place, Tensor
from fastnn.layers import Conv2D, Dense, Flatten, Input
from fastnn.ops.matrix import matmul
from fastnn.ops.pointwise import relu, sigmoid, tanh
from fastnn.plan import ARENA, CONSTANTS, Plan


def images(rows=40, seed=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 6, 6, 16)).astype(np.float32)
    return x, (x.mean(axis=(1, 2, 3), keepdims=True)[:, 0, 0] > 0).astype(np.float32)


def build(seed=7, **options):
    fastnn.set_seed(seed)
    first = Conv2D(16, 3, padding="same", activation="relu", input_shape=(6, 6, 16), **options)
    model = fastnn.Sequential([first, Conv2D(17, 3, name="second"), Flatten(), Dense(1, "sigmoid")])
    model.compile(fastnn.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return model


def anew(model, **options):
    """Another model with the same weights that has not predicted yet."""
    other = build(seed=99, **options)
    other.set_weights(model.get_weights())
    return other


def assert_fresh(model, x):
    """Every way to predict gives the bits of a model that has just been made."""
    wanted = anew(model).predict(x)
    for ask in (model, model.predict, model.predict_on_batch):
        np.testing.assert_array_equal(ask(x), wanted)


def changed(model, factor=-0.5):
    return [factor * w for w in model.get_weights()]


# Plans


def constant_plan():
    """tanh(x @ relu(sigmoid(w))): relu(sigmoid(w)) is constant."""
    w, x = leaf(4, 3, name="w"), Tensor((None, 4), place=Place("x", 0, stream=True))
    y = tanh(matmul(x, relu(sigmoid(w))))
    y.place = Place("out", 0, stream=True)
    return Plan([y], batch=8, weights=["w"])


def test_what_depends_on_weights_alone_is_split_off():
    plan = constant_plan()
    assert [step.op.name for step in plan.constants] == ["sigmoid", "relu"]
    assert ops(plan) == ["dense"]
    assert plan.constants[0].outputs[0].place.buffer == ARENA  # only what the steps read is kept
    assert plan.constants[1].outputs[0].place == plan.steps[0].inputs[1].place == Place(CONSTANTS, 0)
    assert plan.constants_size == 16
    assert "constants 0.1 kB" in str(plan)
    lines = [line.split()[:2] for line in str(plan).splitlines()[2:]]
    assert lines == [["c0", "sigmoid"], ["c1", "relu"], ["0", "dense"]]


def test_without_weights_named_nothing_is_split_off():
    plan = Plan([placed(matmul(leaf(None, 4), relu(leaf(4, 3, name="w"))))], batch=8)
    assert not plan.constants
    assert ops(plan) == ["relu", "matmul"]


def test_what_is_wanted_in_a_place_is_made_each_time():
    plan = Plan([placed(relu(leaf(4, 3, name="w")))], batch=8, weights=["w"])
    assert not plan.constants
    assert ops(plan) == ["relu"]


def test_a_program_keeps_its_constants_until_it_is_told_to_prepare(backend):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    buffers = {"x": x, "w": w, "out": np.empty((30, 3), np.float32)}
    program = backends.load(backend).Program(constant_plan())

    def wanted():
        return np.tanh(x @ (1 / (1 + np.exp(-w))))

    def ask(run):
        buffers["out"].fill(np.nan)
        run()
        return buffers["out"].copy()

    runs = [lambda: program.run(buffers, 0, 4, 8, 30)]
    if hasattr(program, "run_apart"):
        runs.append(lambda: program.run_apart(buffers, 4, 8, 30))  # each lane with its own arena
    program.prepare({"w": w})
    old = wanted()
    for run in runs:
        np.testing.assert_allclose(ask(run), old, rtol=1e-5, atol=1e-6)
    w[:] = rng.normal(size=(4, 3))
    for run in runs:
        np.testing.assert_allclose(ask(run), old, rtol=1e-5, atol=1e-6)
    program.prepare({"w": w})
    for run in runs:
        np.testing.assert_allclose(ask(run), wanted(), rtol=1e-5, atol=1e-6)


def test_prediction_and_testing_have_constants_and_training_has_none():
    model = build()
    model.fit(*images(), verbose=0, validation_data=images())
    plans = {}
    for key, found in model._programs.items():
        if hasattr(found, "plan"):
            plans[key[0][0]] = found.plan
    assert [len(plans[name].constants) for name in ("train", "test")] == [0, 2]
    assert [step.op.name for step in model.plan(training=False).constants] == ["winograd_weights"] * 2


# Models


def test_predictions_follow_training(backend):
    x, y = images()
    model = build()
    before = model.predict(x)
    for _ in range(2):
        assert_fresh(model, x)
        model.fit(x, y, epochs=2, verbose=0)
        assert_fresh(model, x)
        model.train_on_batch(x[:9], y[:9])
        assert_fresh(model, x)
    assert (model.predict(x) != before).any()


def test_predictions_follow_weights_that_are_set(backend):
    x, _ = images()
    model = build()
    assert_fresh(model, x)
    model.set_weights(changed(model))
    assert_fresh(model, x)
    model.layers[0].set_weights([np.ones((3, 3, 16, 16)), np.zeros(16)])
    assert_fresh(model, x)
    model.get_layer("second").kernel.assign(np.full((3, 3, 16, 17), 0.01))
    assert_fresh(model, x)


def test_evaluation_follows_the_weights(backend):
    x, y = images()
    model = build(kernel_regularizer="l2")  # the penalty depends on nothing but weights, too
    for _ in range(3):
        p = np.clip(model.predict(x), 1e-7, 1 - 1e-7)
        rows = -(y * np.log(p) + (1 - y) * np.log(1 - p))
        penalty = 0.01 * np.square(model.layers[0].kernel.value).sum()
        assert model.evaluate(x, y)[0] == pytest.approx(rows.mean() + penalty, rel=1e-4)
        assert model.evaluate(x, y) == anew(model, kernel_regularizer="l2").evaluate(x, y)
        model.set_weights(changed(model))


def test_validation_in_training_sees_the_weights_of_its_epoch(backend):
    x, y = images()
    model, seen = build(), []

    class Record(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            other = anew(self.model)
            seen.append((logs["val_loss"], other.evaluate(x, y)[0]))
            np.testing.assert_array_equal(self.model.predict(x), other.predict(x))

    model.fit(x, y, epochs=3, batch_size=16, verbose=0, validation_data=(x, y), callbacks=[Record()])
    assert len({loss for loss, _ in seen}) == 3
    assert all(loss == wanted for loss, wanted in seen)


def test_a_callback_may_predict_after_each_batch():
    x, y = images()
    model, asked = build(), []

    class Ask(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            asked.append(self.model(x[:3]))
            np.testing.assert_array_equal(asked[-1], anew(self.model).predict(x[:3]))

    model.fit(x, y, epochs=2, batch_size=16, verbose=0, callbacks=[Ask()])
    assert len({a.tobytes() for a in asked}) == 6


def test_weights_restored_by_a_callback_are_seen():
    x, y = images()
    model = build()
    stop = callbacks.EarlyStopping(monitor="loss", mode="max", patience=2, restore_best_weights=True)
    model.fit(x, y, epochs=6, verbose=0, validation_data=(x, y), callbacks=[stop])
    assert_fresh(model, x)


def test_a_callback_that_sets_weights_is_heard_in_validation():
    x, y = images()
    model = build()

    class Reset(callbacks.Callback):
        def on_test_begin(self, logs=None):
            self.model.set_weights([np.zeros_like(w) for w in self.model.get_weights()])

    history = model.fit(x, y, epochs=2, verbose=0, validation_data=(x, y), callbacks=[Reset()]).history
    assert history["val_loss"] == pytest.approx([np.log(2)] * 2, rel=1e-6)


def test_a_frozen_layer_keeps_its_part_in_training(backend):
    x, y = images()
    model = build()
    model.predict(x)
    model.layers[0].trainable = False
    kernel = model.layers[0].kernel.value.copy()
    model.fit(x, y, epochs=2, verbose=0)
    np.testing.assert_array_equal(model.layers[0].kernel.value, kernel)
    assert_fresh(model, x)
    model.layers[0].trainable = True
    model.fit(x, y, verbose=0)
    assert (model.layers[0].kernel.value != kernel).any()
    assert_fresh(model, x)


def test_a_layer_shared_by_two_models_is_seen_by_both(backend):
    x, y = images()
    fastnn.set_seed(1)
    entry = Input((6, 6, 16))
    shared = Conv2D(16, 3, activation="relu")(entry)
    flat = Flatten()(shared)
    one = fastnn.Model(entry, Dense(1, "sigmoid", name="a")(flat), name="one")
    other = fastnn.Model(entry, Dense(1, "sigmoid", name="b")(flat), name="other")
    head = [w.copy() for w in other.layers[-1].get_weights()]
    one.compile("adam", "binary_crossentropy")

    def wanted():
        layer = Conv2D(16, 3, activation="relu", input_shape=(6, 6, 16))
        model = fastnn.Sequential([layer, Flatten(), Dense(1, "sigmoid")])
        model.build()
        model.set_weights([*one.layers[0].get_weights(), *head])
        return model.predict(x)

    for _ in range(3):
        np.testing.assert_array_equal(other.predict(x), wanted())
        np.testing.assert_array_equal(other(x), wanted())
        one.fit(x, y, verbose=0)
        one.predict(x)
    one.layers[0].kernel.assign(np.zeros((3, 3, 16, 16)))
    np.testing.assert_array_equal(other.predict(x), wanted())


def test_a_layer_called_before_it_has_a_model_is_seen():
    x, _ = images(5)
    layer = Conv2D(16, 3, padding="same")
    eager = layer(x)
    model = fastnn.Sequential([Input((6, 6, 16)), layer])
    np.testing.assert_allclose(model.predict(x), eager, rtol=1e-3, atol=1e-5)
    layer.kernel.assign(np.zeros((3, 3, 16, 16)))
    assert (model.predict(x) == 0).all()
    assert (model(x) == 0).all()


def test_many_batches_on_several_threads_see_the_weights():
    x, _ = images(2000)
    model = build()
    for _ in range(2):
        wanted = anew(model)
        parts = [wanted.predict(x[start : start + 90]) for start in range(0, 2000, 90)]  # each a batch of its own
        np.testing.assert_array_equal(model.predict(x), np.concatenate(parts))
        model.set_weights(changed(model))


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_a_copy_has_its_own(make):
    x, _ = images()
    model = build()
    before = model.predict(x)
    other = make(model)
    np.testing.assert_array_equal(other.predict(x), before)
    other.set_weights(changed(model))
    assert_fresh(other, x)
    np.testing.assert_array_equal(model.predict(x), before)
    assert_fresh(model, x)


def test_a_loaded_model_predicts_with_what_was_loaded(tmp_path):
    x, y = images()
    model = build()
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.fnn")
    loaded = fastnn.load_model(tmp_path / "model.fnn")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    loaded.fit(x, y, verbose=0)
    assert_fresh(loaded, x)


def test_a_model_that_takes_over_a_state_predicts_with_it():
    x, y = images()
    model, other = build(), build(seed=8)
    other.predict(x)
    model.fit(x, y, verbose=0)
    arrays = model.state()[0]
    names = zip((w.name for w in other.weights), (w.name for w in model.weights), strict=True)
    other.restore({name: arrays[old] for name, old in names}, {"seed": 1, "epochs": 0})
    np.testing.assert_array_equal(other.predict(x), model.predict(x))


def test_threads_that_predict_while_weights_change_leave_nothing_old():
    x, _ = images(8)
    model = build()
    sets = [model.get_weights(), changed(model)]
    wanted = []
    for weights in sets:
        other = build(seed=99)
        other.set_weights(weights)
        wanted.append(other.predict(x))
    done = threading.Event()

    def keep_asking():
        while not done.is_set():
            model(x)
            model.predict(x)

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(200):
            model.set_weights(sets[number % 2])
            np.testing.assert_array_equal(model(x), wanted[number % 2])
            np.testing.assert_array_equal(model.predict(x), wanted[number % 2])
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_predictions_follow_backend_and_algorithm():
    x, _ = images()
    model = build()
    fast = model(x)
    fastnn.config.set_winograd(False)
    try:
        assert not model.plan(training=False).constants
        direct = model.predict(x)
        np.testing.assert_array_equal(model(x), direct)
        model.set_weights(changed(model))
        other = model(x)
    finally:
        fastnn.config.set_winograd(True)
    np.testing.assert_allclose(fast, direct, rtol=1e-4)
    np.testing.assert_allclose(model(x), other, rtol=1e-4)
    assert_fresh(model, x)


def test_a_weight_changes_only_by_assign():
    model = build()
    kernel = model.layers[0].kernel
    with pytest.raises(ValueError, match="read-only"):
        kernel.value[...] = 0.0
    before = kernel.version.number
    kernel.assign(np.zeros(kernel.shape))
    assert kernel.version.number != before
    assert (kernel.value == 0).all()
    with pytest.raises(ValueError, match="no value yet"):
        fastnn.layers.weight.Weight("w", (2,), None, None).assign(np.zeros(2))


def test_a_model_without_constants_takes_the_shortest_way():
    model = fastnn.Sequential([Dense(2, input_shape=(3,))])
    model(np.ones((1, 3), np.float32))
    if model._answer is not None:
        assert type(model._answer[1]).__name__ == "Answer"


def test_the_shortest_way_is_open_again_when_settings_are_as_they_were():
    x, _ = images(3)
    model = build()
    model(x)
    answer = model._answer
    fastnn.config.set_winograd(False)
    fastnn.config.set_backend("numpy")
    model(x)
    fastnn.config.set_backend("auto")
    fastnn.config.set_winograd(True)
    model(x)
    if answer is not None:
        assert model._answer[0] is fastnn.config.engine()

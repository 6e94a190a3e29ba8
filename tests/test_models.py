"""Models: sharing, building, changing; threads and memory."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from small_nets import assert_close, build, data, fit, same_bits

import fastnn
from fastnn.layers import Activation, Dense, Dropout, Flatten, Input
from fastnn.regularizers import L2

# Models


def test_layers_shared_by_two_models_learn_in_both(backend):
    x, y = data()
    fastnn.set_seed(3)
    inputs = Input((6,))
    body = Dense(8, "relu", name="body")
    features = body(inputs)
    first = fastnn.Model(inputs, Dense(1, "sigmoid", name="one")(features), name="first")
    second = fastnn.Model(inputs, Dense(1, name="two")(features), name="second")
    third = fastnn.Model(inputs, features, name="third")
    first.compile("adam", "binary_crossentropy")
    second.compile("adam", "mse")
    before = [w.copy() for w in second.get_weights()]
    seen = third(x)
    fit(first, x, y)
    after = second.get_weights()
    assert (before[0] != after[0]).any()
    np.testing.assert_array_equal(after[2], before[2])
    np.testing.assert_array_equal(first.get_weights()[0], after[0])
    assert (third(x) != seen).any()
    np.testing.assert_array_equal(third(x), third.predict(x))
    fit(second, x, y)
    np.testing.assert_array_equal(first.get_weights()[0], second.get_weights()[0])
    assert (second.get_weights()[0] != after[0]).any()


def test_two_models_with_shared_layers_may_have_one_name():
    inputs = Input((6,))
    features = Dense(8)(inputs)
    first = fastnn.Model(inputs, Dense(1)(features), name="same")
    second = fastnn.Model(inputs, Dense(2)(features), name="same")
    assert first.predict(np.ones((2, 6))).shape == (2, 1)
    assert second.predict(np.ones((2, 6))).shape == (2, 2)


def test_a_model_is_called_like_a_layer():
    x, _ = data()
    inputs = Input((6,))
    inner = fastnn.Model(inputs, Dense(3, "tanh")(inputs))
    outer_input = Input((6,))
    outer = fastnn.Model(outer_input, Dense(2)(inner(outer_input)))
    assert outer.predict(x).shape == (90, 2)
    assert outer.count_params() == 6 * 3 + 3 + 3 * 2 + 2


def test_a_float64_model_runs_on_numpy():
    x, y = data()
    fastnn.config.set_backend("numpy")
    fastnn.config.set_floatx("float64")
    try:
        model = build(metrics=["accuracy", "auc"])
        single_seeded = [w.astype(np.float32) for w in model.get_weights()]
        history = fit(model, x, y, epochs=2, validation_split=0.2)
        assert model.predict(x).dtype == model(x).dtype == np.float64
        assert len(history.history["val_auc"]) == 2
    finally:
        fastnn.config.set_floatx("float32")
        fastnn.config.set_backend("auto")
    single = build(metrics=["accuracy", "auc"])
    assert all((a == b).all() for a, b in zip(single.get_weights(), single_seeded, strict=True))
    fit(single, x, y, epochs=2, validation_split=0.2)
    assert_close(single, model, 1e-5)


def test_the_first_data_build_a_sequential(backend):
    x, y = data()
    fastnn.set_seed(7)
    deferred = fastnn.Sequential([Dense(12, "relu"), Dense(1, "sigmoid")])
    deferred.compile("adam", "binary_crossentropy")
    with pytest.raises(ValueError, match="shape of the input is not known"):
        deferred.get_weights()
    fit(deferred, x, y)
    told = build()
    fit(told, x, y)
    assert same_bits(deferred, told)
    assert deferred.input_shape == (None, 6)
    built = fastnn.Sequential([Dense(2)])
    built.build((None, 4))
    assert built.count_params() == 10
    called = fastnn.Sequential([Flatten(), Dense(2)])
    assert called(np.ones((3, 2, 2))).shape == (3, 2)


def test_bad_data_do_not_build_a_sequential():
    x, y = data()
    model = fastnn.Sequential([Dense(1)])
    model.compile("sgd", "mse")
    for bad in ({"y": y[:5]}, {"y": None}, {"y": y, "sample_weight": -y}, {"y": y, "class_weight": {"a": 1}}):
        with pytest.raises(ValueError, match="fit: "):
            fit(model, x[:, :2], **bad)
    fit(model, x, y)
    assert model.input_shape == (None, 6)


def test_a_model_without_weights_to_train_still_reports(backend):
    x, y = data()
    frozen = build(Dense(4, trainable=False), Dense(1, trainable=False), loss="mse")
    before = frozen.get_weights()
    seen = fit(frozen, x, y, epochs=2, shuffle=False).history["loss"]
    assert seen[0] == seen[1] == frozen.evaluate(x, y)
    assert all((a == b).all() for a, b in zip(before, frozen.get_weights(), strict=True))
    for layer in (Flatten(), Activation("linear"), Dropout(0.5)):
        model = build(layer, loss="mse")
        fit(model, x, x)
        np.testing.assert_array_equal(model.predict(x), x)


def test_layers_are_added_and_taken_off(backend):
    x, _ = data()
    fastnn.set_seed(7)
    model = fastnn.Sequential()
    model.add(Dense(8, "relu", input_shape=(6,)))
    model.add(Dense(4, "tanh"))
    hidden = model.predict(x)
    kept = model.get_weights()
    model.add(Dense(2, "softmax"))
    assert model.predict(x).shape == model(x).shape == (90, 2)
    assert model.output_shape == (None, 2)
    for a, b in zip(kept, model.get_weights()[:4], strict=True):
        np.testing.assert_array_equal(a, b)
    model.compile("sgd", "mse")
    fit(model, x, np.eye(2)[np.arange(90) % 2], epochs=1)
    assert (model.get_weights()[0] != kept[0]).any()
    model.set_weights([*kept, *model.get_weights()[4:]])
    last = model.layers[-1]
    assert model.pop() is last
    np.testing.assert_array_equal(model.predict(x), hidden)
    assert model.count_params() == 6 * 8 + 8 + 8 * 4 + 4
    model.add(Dense(5))
    model.add(Dense(3))
    assert model(x).shape == (90, 3)


def test_set_weights_changes_all_or_nothing():
    model = build()
    kept = model.get_weights()
    bad = [np.ones_like(w) for w in kept]
    for wrong in (
        bad[:-1],
        [*bad[:-1], np.ones(2)],
        [*bad, np.ones(1)],
        [*bad[:-1], np.array(["a"])],
        [*bad[:-1], [[1.0], [1.0, 2.0]]],
    ):
        with pytest.raises(ValueError, match="set_weights"):
            model.set_weights(wrong)
        assert all((a == b).all() for a, b in zip(kept, model.get_weights(), strict=True))
    model.set_weights(bad)
    assert all((w == 1).all() for w in model.get_weights())


def test_get_weights_are_copies():
    model = build()
    for weight in model.get_weights():
        weight[:] = 9
    assert not any((w == 9).any() for w in model.get_weights())


def test_from_config_gives_the_same_architecture():
    model = build(Dense(4, "tanh", kernel_regularizer=L2(0.1)), Dropout(0.2), Dense(2, "softmax"))
    again = fastnn.Sequential.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert [w.shape for w in again.get_weights()] == [w.shape for w in model.get_weights()]


def test_summary_lists_layers_and_weights():
    lines = []
    model = build(Dense(4, name="first"), Dense(1, name="second", trainable=False), loss="mse")
    model.summary(print_fn=lines.append)
    text = "\n".join(lines)
    for part in ("first (Dense)", "second (Dense)", "(None, 4)", "28", "33 weights", "28 of them trained"):
        assert part in text


# Threads and memory


def test_two_python_threads_predict_at_once_with_the_right_bits(backend):
    x, _ = data(rows=400)
    model = build(Dense(32, "relu"), Dense(3, "softmax"), loss="mse")
    wanted = model.predict(x)
    wrong = []

    def ask(start):
        for number in range(150):
            rows = slice(start + number % 100, start + number % 100 + 100)
            answers = {model(x[rows]).tobytes(), model.predict(x[rows]).tobytes()}
            if answers != {wanted[rows].tobytes()}:
                wrong.append((start, number))

    threads = [threading.Thread(target=ask, args=(start,)) for start in (0, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_two_models_train_in_two_python_threads():
    x, y = data()
    alone = [build(seed=seed) for seed in (1, 2)]
    for model in alone:
        fit(model, x, y, epochs=20)
    together = [build(seed=seed) for seed in (1, 2)]
    threads = [threading.Thread(target=fit, args=(m, x, y), kwargs={"epochs": 20}) for m in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same_bits(alone[0], together[0])
    assert same_bits(alone[1], together[1])


def test_models_give_their_memory_back(backend):
    x, y = data()

    def use():
        model = build(Dense(300, "relu"), Dense(200), Dense(1, "sigmoid"), metrics=["accuracy", "auc"])
        fit(model, x, y, validation_split=0.2)
        model(x)
        return weakref.ref(model)

    use()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    refs = [use() for _ in range(10)]
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert [ref() for ref in refs] == [None] * 10
    assert grown < 250_000  # the weights of a single one of these models take that


def pickled(model):
    return pickle.loads(pickle.dumps(model))  # noqa: S301


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_copies_train_on_like_the_original_and_apart_from_it(copied):
    x, y = data()
    model = build(Dense(12, "relu"), Dropout(0.3), Dense(1, "sigmoid"), metrics=["accuracy", "auc"])
    fit(model, x, y, epochs=2)
    other = copied(model)
    assert same_bits(model, other)
    fit(model, x, y, epochs=2)
    assert not same_bits(model, other)
    fit(other, x, y, epochs=2)
    assert same_bits(model, other)
    assert other.metrics_names == model.metrics_names


def test_copy_of_a_model_without_input_shape():
    model = copy.deepcopy(fastnn.Sequential([Dense(2)]))
    assert model.predict(np.ones((3, 4))).shape == (3, 2)


def test_layers_and_shapes_are_those_of_the_layers_so_far():
    model = fastnn.Sequential([Dense(4, input_shape=(3,), name="first")])
    assert [weight.shape for weight in model.layers[0].get_weights()] == [(3, 4), (4,)]
    assert model.get_layer("first") is model.layers[0]
    assert model.output_shape == (None, 4)
    model.add(Dense(2))
    assert model.output_shape == (None, 2)
    model.pop()
    assert model.output_shape == (None, 4)

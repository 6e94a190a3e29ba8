"""fit: what is learnt, in which order, from which rows."""

from __future__ import annotations

import numpy as np
import pytest
from small_nets import assert_close, build, data, fit, same_bits

import fastnn
from fastnn import losses
from fastnn.callbacks import LambdaCallback
from fastnn.layers import Dense, Dropout
from fastnn.steps import Feed

# Learning


def article_data(rows=400):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 30)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] * x[:, 2] + 0.3 * rng.normal(size=rows) > 0).astype(np.float32)


def test_the_articles_net_learns(backend):
    x, y = article_data()
    fastnn.set_seed(1)
    model = fastnn.Sequential(
        [Dense(64, activation="relu", input_shape=(30,)), Dense(32, activation="relu"), Dense(1, activation="sigmoid")]
    )
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, epochs=40, batch_size=32, validation_split=0.2, verbose=0).history
    assert history["loss"][0] > 0.6
    assert history["loss"][-1] < 0.1
    assert history["accuracy"][-1] > 0.97
    assert history["val_accuracy"][-1] > 0.6
    assert all(type(value) is float for values in history.values() for value in values)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize(
    ("loss", "activation", "outputs"),
    [("mse", "linear", 1), ("mae", "linear", 1), ("binary_crossentropy", "sigmoid", 1),
     ("categorical_crossentropy", "softmax", 2), ("sparse_categorical_crossentropy", "softmax", 2)],
)  # fmt: skip
def test_every_loss_falls_with_every_optimizer(loss, activation, outputs, optimizer):
    x, y = data()
    target = np.eye(2)[y[:, 0].astype(int)] if loss == "categorical_crossentropy" else y
    model = build(Dense(12, "tanh"), Dense(outputs, activation), optimizer=optimizer, loss=loss)
    history = fit(model, x, target, epochs=12, batch_size=16).history
    assert history["loss"][-1] < 0.9 * history["loss"][0]


def test_targets_may_have_one_axis_or_two():
    x, y = data()
    one, two = build(), build()
    fit(one, x, y[:, 0], epochs=2)
    fit(two, x, y, epochs=2)
    assert same_bits(one, two)
    labels = [build(Dense(2, "softmax"), loss="sparse_categorical_crossentropy") for _ in range(2)]
    fit(labels[0], x, y[:, 0].astype(int), epochs=2)
    fit(labels[1], x, y.astype(np.int8), epochs=2)
    assert same_bits(*labels)


def test_any_real_type_and_layout_trains_alike():
    x, y = data()
    wanted = build()
    fit(wanted, x, y)
    given = [x.astype(float), np.asfortranarray(x), x.astype(">f4"), x.tolist(), np.repeat(x, 2, axis=1)[:, ::2]]
    for other in given:
        model = build()
        fit(model, other, y.tolist())
        assert same_bits(model, wanted)


def test_data_are_not_changed():
    x, y = data()
    kept = x.copy(), y.copy()
    x.flags.writeable = y.flags.writeable = False
    model = build(loss=losses.BinaryCrossentropy(label_smoothing=0.1))
    fit(model, x, y, epochs=2, validation_split=0.3, class_weight={0: 0.5})
    model.predict(x)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(y, kept[1])


# Batches and order


def orders(model, rows, epochs, batch=32):
    """The order of the rows in each epoch."""
    feed = Feed(model, rows, batch, shuffle=True)
    return [feed.epoch(epoch)["index"].copy() for epoch in range(epochs)]


def manual_steps(model, x, y, orders, batch):
    """fit, spelled out: one training step for each batch of each epoch's order."""
    means = []
    for order in orders:
        batches = [order[at : at + batch] for at in range(0, len(order), batch)]
        total = sum(model.train_on_batch(x[rows], y[rows]) * len(rows) for rows in batches)
        means.append(total / len(order))
    return means


def test_fit_is_train_on_batch_in_the_order_of_the_seed_with_a_smaller_last_batch(backend):
    x, y = data(rows=50)
    one, two = build(optimizer="sgd"), build(optimizer="sgd")
    history = fit(one, x, y, epochs=3, batch_size=16).history
    means = manual_steps(two, x, y, orders(two, 50, 3, 16), 16)
    assert same_bits(one, two)
    np.testing.assert_allclose(history["loss"], means, rtol=1e-6)
    assert one.optimizer.iterations == 3 * 4


def test_without_shuffle_rows_come_in_their_order(backend):
    x, y = data(rows=50)
    one, two = build(), build()
    fit(one, x, y, epochs=2, batch_size=16, shuffle=False)
    manual_steps(two, x, y, [np.arange(50)] * 2, 16)
    assert same_bits(one, two)


def test_each_epoch_has_an_order_of_its_own_that_only_the_seed_decides():
    found = orders(build(), 90, 40)
    assert all((np.sort(order) == np.arange(90)).all() for order in found)
    assert len({order.tobytes() for order in found}) == 40
    np.testing.assert_array_equal(found, orders(build(), 90, 40))
    np.testing.assert_array_equal(found[20:], orders(build(), 90, 40, batch=7)[20:])
    assert not {order.tobytes() for order in found} & {order.tobytes() for order in orders(build(seed=8), 90, 40)}


def test_shuffled_rows_train_otherwise_than_rows_in_order():
    x, y = data()
    shuffled, ordered = build(), build()
    fit(shuffled, x, y)
    fit(ordered, x, y, shuffle=False)
    assert not same_bits(shuffled, ordered)


def test_two_fits_are_one_longer_fit(backend):
    x, y = data()
    once, twice = build(Dense(8, "relu"), Dropout(0.3), Dense(1, "sigmoid")), None
    fit(once, x, y, epochs=4)
    twice = build(Dense(8, "relu"), Dropout(0.3), Dense(1, "sigmoid"))
    fit(twice, x, y, epochs=1)
    fit(twice, x, y, epochs=4, initial_epoch=1)
    assert same_bits(once, twice)


def test_batches_larger_than_the_data_are_the_data():
    x, y = data(rows=10)
    one, two = build(), build()
    fit(one, x, y, batch_size=1000)
    fit(two, x, y, batch_size=10)
    assert same_bits(one, two)
    assert one.optimizer.iterations == 1


def test_one_row_is_enough(backend):
    x, y = data(rows=1)
    model = build(metrics=["accuracy"])
    assert set(fit(model, x, y).history) == {"loss", "accuracy"}
    assert model.predict(x).shape == (1, 1)


# Validation


def test_validation_split_is_shuffled_by_the_seed(backend):
    x, y = data()
    order = np.argsort(y[:, 0], kind="stable")  # sorted by class: the last rows are of one class only
    x, y = x[order], y[order]
    one, two = build(metrics=["accuracy"]), build(metrics=["accuracy"])
    history = fit(one, x, y, epochs=2, validation_split=0.3)
    chosen = np.random.default_rng([two.seed, 0]).permutation(90)
    train, held_out = chosen[:63], chosen[63:]
    assert 0 < y[held_out].mean() < 1
    by_hand = fit(two, x[train], y[train], epochs=2, validation_data=(x[held_out], y[held_out]))
    assert same_bits(one, two)
    assert history.history == by_hand.history
    other = build(seed=8)
    assert (np.random.default_rng([other.seed, 0]).permutation(90) != chosen).any()


def test_validation_is_evaluation_after_the_epoch(backend):
    x, y = data()
    model = build(Dense(8, "relu"), Dropout(0.5), Dense(1, "sigmoid"), metrics=["accuracy", "auc"])
    seen = []
    after = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(model.evaluate(x[:30], y[:30])))
    history = fit(model, x[30:], y[30:], epochs=3, validation_data=(x[:30], y[:30]), callbacks=[after]).history
    wanted = [history[f"val_{name}"] for name in ("loss", "accuracy", "auc")]
    np.testing.assert_array_equal(np.array(seen).T, wanted)


def test_validation_data_may_have_weights():
    x, y = data()
    model = build()
    weights = np.linspace(0, 1, 90)
    history = fit(model, x, y, validation_data=(x, y, weights)).history
    assert history["val_loss"] == [model.evaluate(x, y, sample_weight=weights)]


def test_validation_does_not_change_training():
    x, y = data()
    with_, without = build(), build()
    fit(with_, x, y, epochs=2, validation_data=(x[:9], y[:9]))
    fit(without, x, y, epochs=2)
    assert same_bits(with_, without)


# Weights of rows


def test_sample_weights_are_repeated_rows(backend):
    x, y = data(rows=40)
    counts = np.random.default_rng(3).integers(0, 4, 40)
    weighted, repeated = build(optimizer="sgd"), build(optimizer="sgd")
    total = counts.sum()
    # the loss is the mean over rows: 40 weighted rows against `total` rows
    weighted.optimizer.learning_rate = 0.1 * 40 / total
    repeated.optimizer.learning_rate = 0.1
    fit(weighted, x, y, sample_weight=counts, batch_size=40, epochs=5)
    fit(repeated, np.repeat(x, counts, axis=0), np.repeat(y, counts, axis=0), batch_size=int(total), epochs=5)
    assert_close(weighted, repeated)


@pytest.mark.parametrize("kind", ["binary", "onehot", "label"])
def test_class_weights_are_sample_weights(kind):
    x, y = data()
    classes = y[:, 0].astype(int)
    loss = {"binary": "binary_crossentropy", "onehot": "categorical_crossentropy",
            "label": "sparse_categorical_crossentropy"}[kind]  # fmt: skip
    target = {"binary": y, "onehot": np.eye(2)[classes], "label": classes}[kind]
    layers = [Dense(8, "relu"), Dense(1, "sigmoid") if kind == "binary" else Dense(2, "softmax")]
    models = [build(*[type(layer).from_config(layer.get_config()) for layer in layers], loss=loss) for _ in range(3)]
    fit(models[0], x, target, class_weight={1: 3.0, 0: 0.25})
    fit(models[1], x, target, sample_weight=np.where(classes == 1, 3.0, 0.25))
    assert same_bits(models[0], models[1])
    fit(models[2], x, target, class_weight={1: 6.0}, sample_weight=np.where(classes == 1, 0.5, 0.25))
    assert same_bits(models[0], models[2])


def test_equal_weights_change_nothing_but_rounding():
    x, y = data()
    one, two = build(), build()
    fit(one, x, y, epochs=2)
    fit(two, x, y, epochs=2, sample_weight=np.ones(90))
    assert_close(one, two, 1e-6)


def test_rows_of_weight_zero_do_not_count():
    x, y = data(rows=40)
    one, two = build(optimizer="sgd"), build(optimizer="sgd")
    wrong = x.copy()
    wrong[30:] = 1e3
    weights = np.r_[np.ones(30), np.zeros(10)]
    fit(one, x, y, sample_weight=weights, batch_size=40, epochs=3)
    fit(two, wrong, y, sample_weight=weights, batch_size=40, epochs=3)
    assert same_bits(one, two)

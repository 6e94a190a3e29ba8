"""compile, fit, evaluate, predict: what they promise, on the public interface."""

from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref

import numpy as np
import pytest

import fastnn
from fastnn import backends, losses, metrics, optimizers, schedules
from fastnn.callbacks import Callback, LambdaCallback
from fastnn.layers import Activation, Dense, Dropout, Flatten, Input
from fastnn.regularizers import L2
from fastnn.steps import Feed

BACKENDS = [name for name in backends.NAMES if backends.load(name).why_not() is None]


@pytest.fixture(params=BACKENDS)
def backend(request):
    fastnn.config.set_backend(request.param)
    yield request.param
    fastnn.config.set_backend("auto")


def data(rows=90, seed=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 6)).astype(np.float32)
    return x, (x[:, :1] - x[:, 1:2] + 0.5 * x[:, 2:3] ** 2 > 0.3).astype(np.float32)


def build(*layers, optimizer="adam", loss="binary_crossentropy", metrics=(), seed=7):
    fastnn.set_seed(seed)
    chosen = layers or (Dense(12, "relu"), Dense(1, "sigmoid"))
    model = fastnn.Sequential([Input((6,)), *chosen])
    model.compile(optimizer=optimizer, loss=loss, metrics=list(metrics))
    return model


def same_bits(one, other):
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def assert_close(one, other, tolerance=1e-5):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def fit(model, x, y, **options):
    return model.fit(x, y, **{"verbose": 0, **options})


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


# History, metrics, evaluate, predict


def test_history_has_a_number_for_each_epoch():
    x, y = data()
    model = build(metrics=["accuracy", metrics.Recall(), "auc", metrics.AUC(name="area")])
    history = fit(model, x, y, epochs=3, validation_split=0.2)
    names = ["loss", "accuracy", "recall", "auc", "area"]
    assert list(history.history) == [*names, *(f"val_{name}" for name in names)]
    assert {len(values) for values in history.history.values()} == {3}
    assert history.epoch == [0, 1, 2]
    assert history.params == {"epochs": 3, "steps": 3, "verbose": 0}  # 72 rows in batches of 32
    assert model.history is history
    assert model.metrics_names == names


def test_metrics_are_those_of_the_predictions(backend):
    x, y = data()
    model = build(metrics=["accuracy", "auc", "recall", "precision", "specificity", "f1_score"])
    fit(model, x, y, epochs=3)
    p = model.predict(x)
    yes, said = y[:, 0] == 1, p[:, 0] > 0.5
    score = model.evaluate(x, y, return_dict=True)
    assert score["loss"] == pytest.approx(losses.BinaryCrossentropy()(y, p), rel=1e-5)
    assert score["accuracy"] == pytest.approx((yes == said).mean())
    assert score["recall"] == pytest.approx((yes & said).sum() / yes.sum())
    assert score["precision"] == pytest.approx((yes & said).sum() / said.sum())
    assert score["specificity"] == pytest.approx((~yes & ~said).sum() / (~yes).sum())
    assert score["f1_score"] == pytest.approx(2 * (yes & said).sum() / (yes.sum() + said.sum()))
    positive, negative = p[yes, 0], p[~yes, 0]
    assert score["auc"] == pytest.approx((positive[:, None] > negative).mean())
    assert model.evaluate(x, y) == list(score.values())


def test_regression_metrics_are_those_of_the_predictions():
    x, _ = data()
    y = x[:, :2] @ np.array([[1.0, -1.0], [0.5, 2.0]]) + 1.0
    model = build(Dense(2), loss="mse", metrics=["mae", "mse", "rmse"], optimizer=optimizers.Adam(0.05))
    fit(model, x, y, epochs=5)
    error = model.predict(x) - y
    score = model.evaluate(x, y, return_dict=True)
    assert score["loss"] == score["mse"] == pytest.approx(np.mean(error**2), rel=1e-5)
    assert score["mae"] == pytest.approx(np.mean(abs(error)), rel=1e-5)
    assert score["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "last", "target", "name"),
    [
        ("binary_crossentropy", Dense(1, "sigmoid"), lambda c: c, metrics.BinaryAccuracy),
        (losses.BinaryCrossentropy(from_logits=True), Dense(1), lambda c: c, metrics.BinaryAccuracy),
        ("categorical_crossentropy", Dense(2, "softmax"), lambda c: np.eye(2)[c], metrics.CategoricalAccuracy),
        ("sparse_categorical_crossentropy", Dense(2, "softmax"), lambda c: c, metrics.SparseCategoricalAccuracy),
    ],
)
def test_accuracy_is_the_one_that_suits_the_loss(loss, last, target, name):
    x, y = data()
    classes = y[:, 0].astype(int)
    model = build(
        type(last).from_config(last.get_config()), loss=loss, metrics=["accuracy"], optimizer=optimizers.Adam(0.03)
    )
    assert type(model.metric_objects[0]) is name
    history = fit(model, x, target(classes), epochs=8).history
    p = model.predict(x)
    said = p.argmax(axis=1) if p.shape[1] > 1 else p[:, 0] > (0 if model.loss.from_logits else 0.5)
    assert model.evaluate(x, target(classes))[1] == pytest.approx((said == classes).mean())
    assert history["accuracy"][-1] > 0.5


def test_a_metric_may_be_any_function_of_two_arrays():
    x, y = data()

    def worst(y_true, y_pred):
        assert y_true.shape == y_pred.shape
        return abs(y_true - y_pred).max()

    model = build(metrics=[worst])
    history = fit(model, x, y, epochs=2, validation_split=0.5).history
    assert set(history) == {"loss", "worst", "val_loss", "val_worst"}
    assert model.evaluate(x, y)[1] == pytest.approx(abs(y - model.predict(x)).max())


def test_epoch_metrics_are_made_of_the_predictions_before_each_update(backend):
    x, y = data(rows=48)
    model, other = (build(optimizer="sgd", metrics=["accuracy", "auc", "mae"]) for _ in range(2))
    history = fit(model, x, y, shuffle=False, batch_size=16).history
    parts = []
    for at in range(0, 48, 16):
        parts.append(other.predict(x[at : at + 16]))
        other.train_on_batch(x[at : at + 16], y[at : at + 16])
    p = np.concatenate(parts)
    assert history["accuracy"][0] == pytest.approx(((p > 0.5) == y).mean())
    assert history["auc"][0] == pytest.approx(metrics.AUC()(y, p))
    assert history["mae"][0] == pytest.approx(np.mean(abs(p - y)), rel=1e-5)


def test_evaluate_without_metrics_is_a_number():
    x, y = data()
    model = build()
    assert type(model.evaluate(x, y)) is float
    weights = np.linspace(0, 2, 90)
    p = np.clip(model.predict(x).astype(float), 1e-7, 1 - 1e-7)
    rows = -(y * np.log(p) + (1 - y) * np.log(1 - p))[:, 0]
    assert model.evaluate(x, y, sample_weight=weights) == pytest.approx((rows * weights).mean(), rel=1e-5)


def test_evaluate_more_rows_than_one_batch(backend):
    x, y = data(rows=700)
    model = build(metrics=["accuracy", "auc"])
    p = model.predict(x)
    wanted = [losses.BinaryCrossentropy()(y, p), ((p > 0.5) == y).mean(), metrics.AUC()(y, p)]
    np.testing.assert_allclose(model.evaluate(x, y), wanted, rtol=1e-5)


def test_predict_is_the_layers_one_after_the_other(backend):
    x, _ = data(rows=300)
    model = build(Dense(9, "relu"), Dropout(0.5), Dense(7), Activation("tanh"), Dense(3, "softmax"), loss="mse")
    y = x
    for layer in model.layers:
        y = layer(y)
    p = model.predict(x)
    assert p.dtype == np.float32
    assert p.shape == (300, 3)
    np.testing.assert_allclose(p, y, rtol=2e-5, atol=1e-6)


def test_every_way_to_predict_gives_the_same_bits(backend):
    x, _ = data(rows=300)
    model = build()
    p = model.predict(x)
    for rows in (1, 2, 31, 256, 257, 300):
        for ask in (model, model.predict_on_batch, lambda a: model.predict(a, batch_size=7)):
            for given in (x[:rows], x[:rows].astype(float), x[:rows].tolist(), np.asfortranarray(x[:rows])):
                np.testing.assert_array_equal(np.asarray(ask(given)).view(np.int32), p[:rows].view(np.int32))


def test_a_prediction_belongs_to_the_caller(backend):
    x, _ = data()
    model = build()
    first = model(x)
    kept = first.copy()
    second = model(x[::-1].copy())
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    np.testing.assert_array_equal(model(x[::-1].copy()), second)


def test_prediction_follows_the_weights(backend):
    x, y = data()
    model = build()
    before = model(x)
    fit(model, x, y)
    assert (model(x) != before).any()
    np.testing.assert_array_equal(model(x), model.predict(x))
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    assert (model(x) == 0.5).all()


def test_nan_in_nan_out_of_a_called_model():
    x, _ = data()
    x[3, 2] = np.nan
    p = build(Dense(1))(x)
    assert np.isnan(p[3]).all()
    assert np.isfinite(np.delete(p, 3, axis=0)).all()


def test_prediction_follows_the_backend_chosen():
    x, _ = data()
    model = build()
    native = model(x)
    fastnn.config.set_backend("numpy")
    numpy = model(x)
    np.testing.assert_array_equal(numpy, model.predict(x))
    fastnn.config.set_backend("auto")
    np.testing.assert_array_equal(model(x), native)
    np.testing.assert_allclose(numpy, native, rtol=1e-5)


def test_train_on_batch_returns_the_loss_before_its_step(backend):
    x, y = data()
    model = build(Dense(5, "tanh", kernel_regularizer=L2(0.01)), Dense(1, "sigmoid"))
    before = model.evaluate(x, y)
    assert model.train_on_batch(x, y) == pytest.approx(before, rel=1e-6)
    assert model.optimizer.iterations == 1
    assert model.evaluate(x, y) < before
    weights = np.linspace(0, 1, 90)
    before = model.evaluate(x, y, sample_weight=weights)
    assert model.train_on_batch(x, y, sample_weight=weights) == pytest.approx(before, rel=1e-6)


def test_train_on_batch_takes_batches_of_any_size():
    x, y = data()
    model, other = build(), build()
    for rows in (3, 90, 1, 50):
        model.train_on_batch(x[:rows], y[:rows])
    for rows in (3, 90, 1, 50):
        fit(other, x[:rows], y[:rows], batch_size=rows, shuffle=False)
    assert same_bits(model, other)


# Callbacks


class Record(Callback):
    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_begin(self, logs=None):
        self.calls.append("train")

    def on_train_end(self, logs=None):
        self.calls.append("end")

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(f"epoch {epoch}")

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(f"epoch {epoch} end {sorted(logs)}")

    def on_test_begin(self, logs=None):
        self.calls.append("test")

    def on_test_end(self, logs=None):
        self.calls.append("test end")


class RecordBatches(Record):
    def on_train_batch_begin(self, batch, logs=None):
        self.calls.append(f"batch {batch}")

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(f"batch {batch} end")


def test_callbacks_are_called_in_order():
    x, y = data()
    record = Record()
    fit(build(), x, y, epochs=2, callbacks=[record], validation_split=0.5)
    epoch = ["test", "test end", "epoch {} end ['loss', 'val_loss']"]
    wanted = [call.format(n) for n in range(2) for call in ("epoch {}", *epoch)]
    assert record.calls == ["train", *wanted, "end"]


def test_batch_callbacks_come_around_each_batch_and_change_nothing(backend):
    x, y = data(rows=50)
    record = RecordBatches()
    one, two = build(metrics=["accuracy"]), build(metrics=["accuracy"])
    first = fit(one, x, y, batch_size=20, callbacks=[record], epochs=2)
    batches = [f"batch {n}{end}" for n in range(3) for end in ("", " end")]
    assert record.calls[2:8] == batches
    assert record.calls[8] == "epoch 0 end ['accuracy', 'loss']"
    second = fit(two, x, y, batch_size=20, epochs=2)
    assert same_bits(one, two)
    assert first.history == second.history


def test_batch_logs_are_means_so_far():
    x, y = data(rows=50)
    seen = []
    model = build(metrics=["accuracy"])
    callback = LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(dict(logs)))
    history = fit(model, x, y, batch_size=20, callbacks=[callback]).history
    assert seen[-1]["loss"] == pytest.approx(history["loss"][0])
    assert seen[-1]["accuracy"] == pytest.approx(history["accuracy"][0])
    assert len({entry["loss"] for entry in seen}) == 3


def test_stop_training_ends_after_the_epoch():
    x, y = data()
    model = build()

    def stop(epoch, logs):
        model.stop_training = epoch == 2

    history = fit(model, x, y, epochs=10, callbacks=[LambdaCallback(on_epoch_end=stop)])
    assert history.epoch == [0, 1, 2]
    assert fit(model, x, y, epochs=2).epoch == [0, 1]  # and is forgotten by the next fit


def test_stop_training_in_a_batch_ends_after_it():
    x, y = data()
    model = build()

    def stop(batch, logs):
        model.stop_training = batch == 1

    fit(model, x, y, epochs=10, batch_size=10, callbacks=[LambdaCallback(on_train_batch_end=stop)])
    assert model.optimizer.iterations == 2


def test_a_learning_rate_set_in_a_callback_counts_from_the_next_step():
    x, y = data()
    one, two = build(), build()

    def halve(epoch, logs):
        one.optimizer.learning_rate = 0.001 / (epoch + 1)

    fit(one, x, y, epochs=3, callbacks=[LambdaCallback(on_epoch_begin=halve)])
    for epoch in range(3):
        two.optimizer.learning_rate = 0.001 / (epoch + 1)
        fit(two, x, y, epochs=1)
    assert same_bits(one, two)

    def rate(batch, logs=None):
        three.optimizer.learning_rate = 0.01 * batch

    three, four = build(optimizer="sgd"), build(optimizer="sgd")
    fit(three, x, y, batch_size=30, shuffle=False, callbacks=[LambdaCallback(on_train_batch_begin=rate)])
    for batch in range(3):
        four.optimizer.learning_rate = 0.01 * batch
        four.train_on_batch(x[30 * batch : 30 * batch + 30], y[30 * batch : 30 * batch + 30])
    assert same_bits(three, four)


def test_initial_epoch_is_the_number_of_the_first():
    x, y = data()
    history = fit(build(), x, y, epochs=5, initial_epoch=3)
    assert history.epoch == [3, 4]
    assert len(history.history["loss"]) == 2
    assert fit(build(), x, y, epochs=2, initial_epoch=2).epoch == []


def test_a_loss_that_is_not_a_number_ends_training():
    x, y = data()
    model = build(Dense(6), Dense(1), loss="mse", optimizer=optimizers.SGD(1e20))
    with pytest.raises(FloatingPointError, match=r"loss became .* in epoch 1"):
        fit(model, x, y, epochs=3)


# Optimizers and regularizers


def test_frozen_layers_do_not_change(backend):
    x, y = data()
    model = build(Dense(8, "relu"), Dense(4, "tanh", trainable=False), Dense(1, "sigmoid"))
    before = model.get_weights()
    assert len(model.trainable_weights) == 4
    fit(model, x, y, epochs=2)
    after = model.get_weights()
    changed = [(a != b).any() for a, b in zip(before, after, strict=True)]
    assert changed == [True, True, False, False, True, True]
    model.layers[0].trainable = model.layers[2].trainable = False
    fit(model, x, y, epochs=2)
    assert all((a == b).all() for a, b in zip(after, model.get_weights(), strict=True))
    model.layers[1].trainable = True
    fit(model, x, y, epochs=2)
    changed = [(a != b).any() for a, b in zip(after, model.get_weights(), strict=True)]
    assert changed == [False, False, True, True, False, False]


def test_regularizers_add_to_the_loss():
    x, y = data()
    regularized = build(Dense(4, "tanh", kernel_regularizer=fastnn.regularizers.L1L2(0.1, 0.2)), Dense(1, "sigmoid"))
    plain = build(Dense(4, "tanh"), Dense(1, "sigmoid"))
    plain.set_weights(regularized.get_weights())
    kernel = regularized.get_weights()[0].astype(float)
    penalty = 0.1 * abs(kernel).sum() + 0.2 * (kernel**2).sum()
    assert regularized.evaluate(x, y) == pytest.approx(plain.evaluate(x, y) + penalty, rel=1e-5)
    fit(regularized, x, y, epochs=20)
    fit(plain, x, y, epochs=20)
    assert abs(regularized.get_weights()[0]).sum() < abs(plain.get_weights()[0]).sum()


def step_of(optimizer, scale=1.0):
    """The gradients that an optimizer with rate 1 subtracts in one step."""
    x, y = data()
    model = build(Dense(5, "tanh"), Dense(1), loss="mse", optimizer=optimizer)
    before = model.get_weights()
    model.train_on_batch(scale * x, scale * y)
    return [a - b for a, b in zip(before, model.get_weights(), strict=True)]


def test_gradients_are_clipped_as_asked(backend):
    plain = step_of(optimizers.SGD(1.0))
    norms = [np.linalg.norm(g) for g in plain]
    limit = float(np.median(norms))
    together = np.sqrt(sum(n**2 for n in norms))
    for g, clipped in zip(plain, step_of(optimizers.SGD(1.0, clipvalue=0.1)), strict=True):
        np.testing.assert_allclose(clipped, np.clip(g, -0.1, 0.1), atol=2e-6)
    for g, n, clipped in zip(plain, norms, step_of(optimizers.SGD(1.0, clipnorm=limit)), strict=True):
        np.testing.assert_allclose(clipped, g * min(1, limit / n), atol=2e-6)
    for g, clipped in zip(plain, step_of(optimizers.SGD(1.0, global_clipnorm=together / 3)), strict=True):
        np.testing.assert_allclose(clipped, g / 3, atol=2e-6)
    for g, clipped in zip(plain, step_of(optimizers.SGD(1.0, global_clipnorm=together * 2)), strict=True):
        np.testing.assert_allclose(clipped, g, atol=2e-6)


def test_a_learning_rate_schedule_counts_steps(backend):
    x, y = data()
    schedule = schedules.PiecewiseConstantDecay([1, 3], [0.1, 0.01, 0.0])
    one, two = build(optimizer=optimizers.SGD(schedule)), build(optimizer="sgd")
    fit(one, x, y, epochs=2, batch_size=30, shuffle=False)
    for step in range(6):
        two.optimizer.learning_rate = float(schedule(np.array([step]))[0])
        part = slice(30 * (step % 3), 30 * (step % 3) + 30)
        two.train_on_batch(x[part], y[part])
    assert same_bits(one, two)


def test_compiling_again_starts_the_optimizer_anew():
    x, y = data()
    model, other = build(), build()
    fit(model, x, y)
    weights = model.get_weights()
    model.compile("adam", "binary_crossentropy")
    assert model.optimizer.iterations == 0
    other.set_weights(weights)
    model.train_on_batch(x, y)
    other.train_on_batch(x, y)
    assert same_bits(model, other)


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

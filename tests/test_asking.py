"""History, metrics, evaluate, predict: the numbers that come out."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from small_nets import build, data, fit, same_bits

import fastnn
from fastnn import losses, metrics, optimizers
from fastnn.layers import Activation, Dense, Dropout
from fastnn.regularizers import L2


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


def test_metrics_see_the_targets_before_label_smoothing(backend):
    x, y = data()
    model = build(loss=losses.BinaryCrossentropy(label_smoothing=0.2), metrics=["accuracy", "auc"])
    history = fit(model, x, y, epochs=20, validation_data=(x, y)).history
    p = model.predict(x)
    assert history["val_accuracy"][-1] == pytest.approx(((p > 0.5) == y).mean())
    assert history["accuracy"][-1] == pytest.approx(history["val_accuracy"][-1], abs=0.1)
    assert history["val_auc"][-1] == pytest.approx(metrics.AUC()(y, p))
    assert history["val_loss"][-1] == pytest.approx(losses.BinaryCrossentropy(label_smoothing=0.2)(y, p), rel=1e-5)


@pytest.mark.parametrize("metric", ["auc", "recall", "rmse", "r2"])
def test_metrics_that_do_not_fit_the_targets_are_refused_before_training(metric):
    x, y = data()
    model = build(Dense(3, "softmax"), loss="sparse_categorical_crossentropy", metrics=[metric])
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"needs targets of shape \(N, 3\)"):
        fit(model, x, y)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_several_threads_evaluate_one_model():
    x, y = data(rows=20000)
    model = build(metrics=["accuracy"])
    wanted = model.evaluate(x, y)
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend(model.evaluate(x, y) for _ in range(20))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 80


@pytest.mark.parametrize("name", ["accuracy", "binary_accuracy", "recall", "precision", "specificity", "f1"])
def test_metrics_by_name_take_logits_for_what_they_are(name):
    x, y = data()
    model = build(Dense(1), loss=losses.BinaryCrossentropy(from_logits=True), metrics=[name])
    fit(model, x, y, epochs=20)
    probability = 1 / (1 + np.exp(-model.predict(x).astype(float)))
    wanted = metrics.get(name, losses.BinaryCrossentropy(), 1)(y, probability)
    assert model.evaluate(x, y)[1] == pytest.approx(wanted)

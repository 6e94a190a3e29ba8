"""Callbacks, optimizers and regularizers in training."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from small_nets import build, data, fit, same_bits

import fastnn
from fastnn import optimizers, schedules
from fastnn.callbacks import Callback, LambdaCallback
from fastnn.layers import Dense
from fastnn.updating import Layout

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


def test_epoch_that_a_callback_cuts_short_reports_the_rows_it_had(backend):
    x, y = data(rows=90)
    seen = []

    class Stop(Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(dict(logs))
            self.model.stop_training = batch == 1

    history = fit(build(metrics=["accuracy", "auc"]), x, y, epochs=3, callbacks=Stop()).history
    assert history == {name: [value] for name, value in seen[1].items()}
    assert set(history) == {"loss", "accuracy"}


def test_freezing_a_layer_and_saving_meanwhile_leave_the_others_momentum(tmp_path):
    x, y = data()
    one, other = build(), build()
    for model in (one, other):
        fit(model, x, y, epochs=2)
    one.layers[0].trainable = False
    one.save(tmp_path / "meanwhile.fnn")
    one.layers[0].trainable = True
    for model in (one, other):
        fit(model, x, y, epochs=2)
    assert same_bits(one, other)
    one.layers[0].trainable = False
    assert all(vector.any() for vector in one.slots(Layout.of(one.trainable_weights)))


def test_an_optimizer_trains_one_model(backend):
    optimizer = optimizers.Adam()
    models = [fastnn.Sequential([Dense(1, input_shape=(2,))]) for _ in range(2)]
    models[0].compile(optimizer, "mse")
    models[0].compile(optimizer, "mse")
    with pytest.raises(ValueError, match="an optimizer of its own"):
        models[1].compile(optimizer, "mse")
    models[1].compile(pickle.loads(pickle.dumps(optimizer)), "mse")  # noqa: S301


def test_a_model_is_trained_by_one_call_at_a_time(backend):
    model = fastnn.Sequential([Dense(1, input_shape=(2,))])
    model.compile("sgd", "mse")
    x, y = np.ones((4, 2)), np.ones(4)
    again = LambdaCallback(on_epoch_end=lambda epoch, logs: model.fit(x, y, verbose=0))
    with pytest.raises(RuntimeError, match="is being trained already"):
        model.fit(x, y, verbose=0, callbacks=[again])
    model.fit(x, y, verbose=0)


def test_programs_of_many_batch_sizes_are_not_all_kept(backend):
    model = fastnn.Sequential([Dense(1, input_shape=(2,))])
    model.compile("sgd", "mse")
    for size in range(1, 30):
        model.fit(np.ones((30, 2)), np.ones(30), batch_size=size, verbose=0)
    assert len(model._programs) < 20

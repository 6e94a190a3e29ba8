"""Callbacks, run by a small stand-in for `fit` so that every number is known."""

from __future__ import annotations

import csv
import logging
import math

import numpy as np
import pytest

from fastnn.callbacks import (
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    History,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)


class FakeOptimizer:
    learning_rate = 0.1


class FakeModel:
    """Its one weight is the number of the last epoch; `save` notes the names."""

    def __init__(self):
        self.optimizer = FakeOptimizer()
        self.stop_training = False
        self.weight = -1.0
        self.saved = []

    def get_weights(self):
        return [np.array([self.weight])]

    def set_weights(self, weights):
        self.weight = float(weights[0][0])

    def save(self, path):
        self.saved.append(path)


def run(callbacks, model=None, batches=0, **logs):
    """Epochs that report the given numbers, one list a name. Returns the model and the history."""
    model = model or FakeModel()
    calls = CallbackList(callbacks, model, {"epochs": len(next(iter(logs.values()))), "steps": batches, "verbose": 0})
    calls.on_train_begin()
    report = {}
    for epoch, values in enumerate(zip(*logs.values(), strict=True)):
        calls.on_epoch_begin(epoch)
        report = dict(zip(logs, values, strict=True))
        for batch in range(batches):
            calls.on_train_batch_begin(batch)
            calls.on_train_batch_end(batch, {"loss": report["loss"]})
        model.weight = float(epoch)
        calls.on_epoch_end(epoch, report)
        if model.stop_training:
            break
    calls.on_train_end(report)
    return model, calls.history


# ---------------------------------------------------------------- the list and the base


def test_every_moment_is_called_once_in_order_with_model_and_params():
    seen = []

    class Spy(Callback):
        def on_train_begin(self, logs=None):
            seen.append(("train_begin", self.model is model, self.params))

        def on_train_end(self, logs=None):
            seen.append(("train_end", logs))

        def on_epoch_begin(self, epoch, logs=None):
            seen.append(("epoch_begin", epoch))

        def on_epoch_end(self, epoch, logs=None):
            seen.append(("epoch_end", epoch, dict(logs)))

    model = FakeModel()
    run([Spy()], model, loss=[3.0, 2.0])
    assert seen == [
        ("train_begin", True, {"epochs": 2, "steps": 0, "verbose": 0}),
        ("epoch_begin", 0),
        ("epoch_end", 0, {"loss": 3.0}),
        ("epoch_begin", 1),
        ("epoch_end", 1, {"loss": 2.0}),
        ("train_end", {"loss": 2.0}),
    ]


class Quiet(Callback):
    def on_epoch_end(self, epoch, logs=None):
        pass


class EachBatch(Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


class EachBatchOldName(Callback):
    def on_batch_begin(self, batch, logs=None):
        pass


class Grandchild(EachBatch):
    pass


@pytest.mark.parametrize(
    ("callback", "wants"),
    [
        (Callback(), False),
        (Quiet(), False),
        (EachBatch(), True),
        (EachBatchOldName(), True),
        (Grandchild(), True),
        (LambdaCallback(on_epoch_end=print), False),
        (LambdaCallback(on_train_batch_end=print), True),
        (LambdaCallback(on_batch_end=print), True),
        (ModelCheckpoint("x"), False),
        (ModelCheckpoint("x", save_freq=5), True),
        (EarlyStopping(), False),
        (History(), False),
        (ReduceLROnPlateau(), False),
        (LearningRateScheduler(lambda epoch: 0.1), False),
        (CSVLogger("x"), False),
        (TerminateOnNaN(), False),
    ],
)
def test_batches_are_asked_for_only_by_callbacks_that_override_a_batch_method(callback, wants):
    assert callback.wants_batches is wants
    assert CallbackList([Quiet(), callback]).wants_batches is wants


def test_batch_methods_are_called_under_both_names():
    seen = []
    new = LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(("new", batch, logs["loss"])))
    old = LambdaCallback(on_batch_end=lambda batch, logs: seen.append(("old", batch, logs["loss"])))
    run([new, old], batches=2, loss=[0.5])
    assert seen == [("new", 0, 0.5), ("old", 0, 0.5), ("new", 1, 0.5), ("old", 1, 0.5)]


def test_moments_that_nobody_overrides_cost_no_calls():
    calls = CallbackList([Quiet()])
    assert calls._calls["on_train_batch_end"] == []
    assert len(calls._calls["on_epoch_end"]) == 2


@pytest.mark.parametrize("callbacks", [None, [], History(), [History()], (), iter([])])
def test_the_list_always_has_one_history(callbacks):
    calls = CallbackList(callbacks)
    assert [type(callback) for callback in calls.callbacks] == [History]
    assert calls.history is calls.callbacks[0]


def test_own_code_is_told_apart_from_built_in_callbacks():
    assert CallbackList([EarlyStopping(), CSVLogger("x"), ModelCheckpoint("x")]).custom is False
    assert CallbackList([Quiet()]).custom is True
    assert CallbackList([LambdaCallback(on_epoch_end=print)]).custom is True


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (3, "callbacks must be a Callback or a list of them. Received: 3"),
        ([print], r"must be fastnn.callbacks.Callback objects. Received: <built-in function print>"),
        ([EarlyStopping], r"Received: <class .*EarlyStopping'> \(a class: add parentheses\)"),
    ],
)
def test_things_that_are_not_callbacks_are_refused(callbacks, message):
    with pytest.raises(TypeError, match=message):
        CallbackList(callbacks)


def test_a_method_that_would_never_be_called_is_reported(caplog):
    class Predicting(Callback):
        def on_predict_end(self, logs=None):
            pass

    with caplog.at_level(logging.WARNING):
        CallbackList([Predicting()])
    assert "Predicting.on_predict_end is never called" in caplog.text


def test_history_records_everything_reported_also_what_callbacks_added():
    def add(epoch, logs):
        logs["twice"] = 2 * logs["loss"]

    _, history = run([LambdaCallback(on_epoch_end=add)], loss=[3.0, 2.0], val_loss=[4.0, 5.0])
    assert history.history == {"loss": [3.0, 2.0], "val_loss": [4.0, 5.0], "twice": [6.0, 4.0]}
    assert history.epoch == [0, 1]


def test_a_history_used_again_starts_anew():
    history = History()
    run(history, loss=[3.0, 2.0])
    run(history, loss=[1.0])
    assert history.history == {"loss": [1.0]}
    assert history.epoch == [0]


@pytest.mark.parametrize("hook", ["on_predict_end", "on_epoch_ends"])
def test_lambda_callback_refuses_a_moment_that_does_not_come(hook):
    with pytest.raises(ValueError, match=rf"LambdaCallback: '{hook}' is never called\. Known are: on_train_begin"):
        LambdaCallback(**{hook: print})


def test_lambda_callback_refuses_what_is_not_a_function():
    with pytest.raises(TypeError, match=r"on_epoch_end must be a function\. Received: 3"):
        LambdaCallback(on_epoch_end=3)


# ---------------------------------------------------------------- EarlyStopping


@pytest.mark.parametrize(
    ("options", "values", "epochs", "best_epoch"),
    [
        ({}, [3, 2, 1, 1, 1], 4, 2),  # patience 0: the first epoch that is not better
        ({"patience": 2}, [3, 2, 1, 1, 1, 1], 5, 2),
        ({"patience": 2}, [3, 2, 4, 1, 4, 4, 4], 6, 3),  # an improvement restarts the patience
        ({"patience": 2, "min_delta": 0.5}, [3, 2.8, 2.6, 2.4], 3, 0),
        ({"patience": 2, "min_delta": -0.5}, [3, 2.8, 2.6, 2.4], 3, 0),  # as in Keras, its sign does not matter
        ({"mode": "max"}, [1, 2, 3, 3], 4, 2),
        ({"monitor": "val_accuracy"}, [1, 2, 3, 3], 4, 2),
        ({"monitor": "val_accuracy", "min_delta": 2}, [1, 2, 4], 2, 0),
        ({"monitor": "val_accuracy", "mode": "min"}, [3, 2, 2], 3, 1),
        ({"patience": 2, "baseline": 1.5}, [3, 2, 1.9, 1.8], 4, 3),  # better, but never past the baseline
        ({"patience": 2, "baseline": 1.5}, [3, 1, 2, 2, 2], 4, 1),
        ({"start_from_epoch": 3}, [1, 2, 3, 4, 5], 5, 3),
        ({}, [math.nan, math.nan], 2, 0),
        ({"patience": 1}, [math.nan, 2, 3, 3], 3, 1),  # NaN is not an improvement, and not a value to beat
        ({"patience": 1}, [3, math.nan, 3], 2, 0),
        ({"patience": 9}, [3, 2, 1], 3, 2),
    ],
)
def test_early_stopping_stops_when_keras_does(options, values, epochs, best_epoch):
    early = EarlyStopping(**options)
    model, history = run([early], **{early.monitor: [float(value) for value in values]})
    assert len(history.epoch) == epochs
    assert early.best_epoch == best_epoch
    assert model.stop_training is (early.stopped_epoch > 0)
    assert model.weight == epochs - 1


@pytest.mark.parametrize(
    ("values", "weight"), [([3, 1, 2, 2, 2], 1), ([3, 2, 1], 2), ([1, 2, 3, 4, 5], 0), ([math.nan, 2, 1, 3], 2)]
)
def test_the_best_weights_come_back_whether_or_not_training_was_stopped(values, weight):
    model, _ = run([EarlyStopping(patience=3, restore_best_weights=True)], val_loss=values)
    assert model.weight == weight


def test_weights_stay_if_no_epoch_was_any_good():
    model, _ = run([EarlyStopping(patience=3, restore_best_weights=True)], val_loss=[math.nan] * 3)
    assert model.weight == 2


def test_early_stopping_can_be_used_again():
    early = EarlyStopping(restore_best_weights=True)
    run([early], val_loss=[1.0, 2.0])
    model, history = run([early], val_loss=[9.0, 8.0, 7.0])
    assert history.epoch == [0, 1, 2]
    assert model.weight == 2


def test_early_stopping_says_what_it_does(capsys):
    run([EarlyStopping(verbose=1, restore_best_weights=True)], val_loss=[1.0, 2.0])
    assert capsys.readouterr().out == "Epoch 2: early stopping\nRestoring the weights of the best epoch: 1\n"


@pytest.mark.parametrize(
    "callback",
    [
        EarlyStopping("val_acuracy", mode="max"),
        ReduceLROnPlateau("val_acuracy", mode="max"),
        ModelCheckpoint("x", "val_acuracy", mode="max", save_best_only=True),
    ],
)
def test_a_number_that_is_not_reported_is_an_error_that_names_those_that_are(callback):
    message = (
        f"{type(callback).__name__}: monitor='val_acuracy' is not reported. Reported are: loss, accuracy. Names with"
    )
    with pytest.raises(ValueError, match=message):
        run([callback], loss=[1.0], accuracy=[0.5])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: EarlyStopping("val_mystery"), ValueError, "EarlyStopping: pass mode='min' or mode='max'"),
        (lambda: EarlyStopping(mode="up"), ValueError, "mode must be 'auto', 'min' or 'max'. Received: mode='up'"),
        (lambda: EarlyStopping(patience=-1), ValueError, "EarlyStopping: patience must be at least 0"),
        (lambda: EarlyStopping(patience=1.5), TypeError, "patience must be an integer. Received: patience=1.5"),
        (lambda: EarlyStopping(patience=True), TypeError, "patience must be an integer"),
        (lambda: EarlyStopping(monitor=3), TypeError, "monitor must be a text"),
        (lambda: EarlyStopping(min_delta="0"), TypeError, "min_delta must be a number"),
        (lambda: EarlyStopping(baseline=math.nan), ValueError, "baseline must be a number. Received: nan"),
        (lambda: ModelCheckpoint(3), TypeError, "ModelCheckpoint: path must be a text or a pathlib.Path. Received: 3"),
        (lambda: CSVLogger(""), ValueError, "CSVLogger: path must be the name of a file"),
        (lambda: ModelCheckpoint("x", save_freq=0), ValueError, "save_freq must be at least 1"),
        (lambda: ModelCheckpoint("x", save_freq="batch"), TypeError, "save_freq must be an integer"),
        (lambda: ModelCheckpoint("x", save_weights_only=True), ValueError, "a file holds the whole model"),
        (lambda: ReduceLROnPlateau(factor=1.0), ValueError, "factor must be between 0 and 1. Received: factor=1.0"),
        (lambda: LearningRateScheduler(0.1), TypeError, "schedule must be a function. Received: 0.1"),
        (lambda: CSVLogger("x", separator="||"), ValueError, "separator must be one character"),
    ],
)
def test_wrong_arguments_are_refused_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "rises"),
    [
        *[(name, False) for name in ["loss", "val_loss", "mean_squared_error", "val_mae", "brier_score", "val_hinge"]],
        *[(name, True) for name in ["accuracy", "val_binary_accuracy", "auc", "recall_1", "F1_score", "r2"]],
    ],
)
def test_auto_mode_tells_the_direction_by_the_name(name, rises):
    assert EarlyStopping(name)._monitor.rises is rises


# ---------------------------------------------------------------- ModelCheckpoint


@pytest.mark.parametrize(
    ("options", "saved"),
    [
        ({"filepath": "m"}, ["m", "m", "m"]),
        ({"filepath": "m-{epoch}-{val_loss:.1f}"}, ["m-1-3.0", "m-2-4.0", "m-3-2.0"]),
        ({"filepath": "m-{epoch:02d}", "save_best_only": True}, ["m-01", "m-03"]),
        ({"filepath": "m-{epoch}", "save_best_only": True, "mode": "max"}, ["m-1", "m-2"]),
        ({"filepath": "m-{epoch}", "save_best_only": True, "initial_value_threshold": 2.5}, ["m-3"]),
        ({"filepath": "m-{epoch}", "save_best_only": True, "monitor": "loss"}, ["m-1", "m-2", "m-3"]),
        ({"filepath": "m-{epoch}-{batch}", "save_freq": 2}, ["m-1-2", "m-2-1", "m-2-3", "m-3-2"]),
        ({"filepath": "m-{epoch}", "monitor": "mystery"}, ["m-1", "m-2", "m-3"]),  # not needed, so not asked for
    ],
)
def test_checkpoints_are_saved_when_and_where_they_should_be(options, saved):
    model, _ = run([ModelCheckpoint(**options)], batches=3, loss=[3.0, 2.0, 1.0], val_loss=[3.0, 4.0, 2.0])
    assert model.saved == saved


def test_a_checkpoint_name_with_an_unknown_field_is_an_error():
    with pytest.raises(ValueError, match=r"filepath='m-\{val_los\}' cannot be filled in .* Known are: loss, epoch"):
        run([ModelCheckpoint("m-{val_los}")], loss=[1.0])


def test_a_missing_directory_is_found_before_training(tmp_path):
    epochs = []
    with pytest.raises(FileNotFoundError, match=r"ModelCheckpoint: the directory '.*missing' does not exist"):
        run([ModelCheckpoint(tmp_path / "missing" / "m.fnn"), LambdaCallback(on_epoch_begin=epochs.append)], loss=[1.0])
    assert epochs == []


def test_a_checkpoint_that_could_not_be_saved_is_not_counted_as_the_best():
    class Full(FakeModel):
        def save(self, path):
            raise OSError(28, "No space left on device", path)

    checkpoint = ModelCheckpoint("m", save_best_only=True)
    with pytest.raises(OSError, match="No space left"):
        run([checkpoint], Full(), val_loss=[1.0])
    assert checkpoint.best is None


def test_model_checkpoint_says_what_it_does(capsys):
    run([ModelCheckpoint("m", save_best_only=True, verbose=1)], val_loss=[1.0, 2.0, 0.5])
    assert capsys.readouterr().out.splitlines() == [
        "Epoch 1: val_loss improved to 1.00000",
        "Epoch 1: saved the model to m",
        "Epoch 2: val_loss did not improve from 1.00000",
        "Epoch 3: val_loss improved from 1.00000 to 0.50000",
        "Epoch 3: saved the model to m",
    ]


# ---------------------------------------------------------------- the learning rate


def test_the_rate_falls_after_patience_and_not_in_the_cooldown_or_below_the_least():
    reduce = ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1, min_lr=0.02)
    _, history = run([reduce], val_loss=[1.0] * 10)
    assert history.history["learning_rate"] == pytest.approx([0.1] * 3 + [0.05] * 2 + [0.025] * 2 + [0.02] * 3)


def test_the_rate_stays_while_the_number_improves():
    model, _ = run([ReduceLROnPlateau("accuracy", patience=1)], accuracy=[0.1, 0.2, 0.3])
    assert model.optimizer.learning_rate == 0.1


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (lambda epoch: 1.0 / (1 + epoch), [1.0, 0.5, 1 / 3]),
        (lambda epoch, rate: rate / 2, [0.05, 0.025, 0.0125]),
        (lambda epoch, lr=0.1: lr, [0.1, 0.1, 0.1]),
        (lambda *arguments: arguments[1], [0.1, 0.1, 0.1]),
        (lambda epoch: np.float32(0.25), [0.25, 0.25, 0.25]),
    ],
)
def test_the_schedule_sets_the_rate_of_each_epoch(schedule, rates):
    model, history = run([LearningRateScheduler(schedule)], loss=[1.0, 1.0, 1.0])
    assert history.history["learning_rate"] == rates
    assert type(model.optimizer.learning_rate) is float


@pytest.mark.parametrize(
    ("value", "error"), [(None, TypeError), ("0.1", TypeError), (-1.0, ValueError), (math.nan, ValueError)]
)
def test_a_schedule_that_returns_no_rate_is_an_error(value, error):
    with pytest.raises(error, match="LearningRateScheduler: the schedule"):
        run([LearningRateScheduler(lambda epoch: value)], loss=[1.0])


def test_an_optimizer_with_a_schedule_of_its_own_is_refused():
    model = FakeModel()
    model.optimizer.learning_rate = lambda step: 0.1
    with pytest.raises(ValueError, match="LearningRateScheduler: the optimizer's learning rate is a schedule"):
        run([LearningRateScheduler(lambda epoch: 0.1)], model, loss=[1.0])


def test_the_speaking_callbacks_say_the_rate(capsys):
    run([ReduceLROnPlateau(patience=1, verbose=1)], val_loss=[1.0, 1.0])
    run([LearningRateScheduler(lambda epoch: 0.25, verbose=1)], val_loss=[1.0])
    assert capsys.readouterr().out == "Epoch 2: the learning rate falls to 0.01\nEpoch 1: the learning rate is 0.25\n"


# ---------------------------------------------------------------- CSVLogger, TerminateOnNaN


def rows(path, delimiter=","):
    with open(path, newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


def test_the_log_has_one_exact_row_an_epoch(tmp_path):
    path = tmp_path / "log.csv"
    run([CSVLogger(path, separator=";")], loss=[0.1 + 0.2, 2.0], accuracy=[0.5, 1.0])
    assert rows(path, ";") == [["epoch", "accuracy", "loss"], ["0", "0.5", repr(0.1 + 0.2)], ["1", "1.0", "2.0"]]


def test_the_log_can_be_continued_or_started_anew(tmp_path):
    path = tmp_path / "log.csv"
    for append in [True, True, False]:
        run([CSVLogger(path, append=append)], loss=[2.0])
    assert rows(path) == [["epoch", "loss"], ["0", "2.0"]]
    run([CSVLogger(path, append=True)], loss=[3.0])
    assert rows(path) == [["epoch", "loss"], ["0", "2.0"], ["0", "3.0"]]


def test_a_log_with_other_columns_is_not_continued(tmp_path):
    path = tmp_path / "log.csv"
    run([CSVLogger(path)], loss=[2.0])
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"has the columns loss\. Reported are: loss, accuracy"):
        run([CSVLogger(path, append=True)], loss=[2.0], accuracy=[0.5])
    assert path.read_bytes() == before


def test_rows_are_in_the_file_while_training_goes_on(tmp_path):
    path = tmp_path / "log.csv"
    lengths = []
    run([CSVLogger(path), LambdaCallback(on_epoch_end=lambda *_: lengths.append(len(rows(path))))], loss=[2.0, 1.0])
    assert lengths == [2, 3]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_training_stops_at_a_loss_that_is_no_number(bad, capsys):
    model, history = run([TerminateOnNaN()], loss=[1.0, bad, 1.0])
    assert model.stop_training
    assert history.epoch == [0, 1]
    assert capsys.readouterr().out == f"Epoch 2: the loss is {bad}, training stops\n"
